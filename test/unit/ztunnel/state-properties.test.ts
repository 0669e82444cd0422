/** Whatever is pushed in whatever order, the packed state answers like plain objects, and a reader's picture stays as it was. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import type { MeshView, Policy, Service, Workload } from '../../../common/decision/mesh-view.ts';
import { policyKey, serviceKey } from '../../../common/decision/mesh-view.ts';
import { routeOutbound } from '../../../common/decision/outbound.ts';
import { MeshStateReader } from '../../../common/state/reader.ts';
import { MeshStateWriter } from '../../../common/state/writer.ts';
import { HOSTS, IPS, NAMES, NAMESPACES, NETWORKS, policies, services, UIDS, workloads } from '../../support/arbitrary-mesh.ts';
import { workload } from '../../support/builders.ts';
import { addressPush, policyPush } from '../../support/meshes.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

interface Push {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly removed: readonly string[];
  readonly policies: readonly Policy[];
  readonly removedPolicies: readonly string[];
}

const pushes: fc.Arbitrary<Push> = fc.record({
  workloads: fc.array(workloads, { maxLength: 4 }),
  services: fc.array(services, { maxLength: 3 }),
  removed: fc.subarray([...UIDS, ...NAMESPACES.flatMap((ns) => HOSTS.map((host) => `${ns}/${host}`))], { maxLength: 3 }),
  policies: fc.array(policies, { maxLength: 2 }),
  removedPolicies: fc.subarray(['a/p', 'b/q'], { maxLength: 1 }),
});

/** Every question that the pools allow. */
function answers(view: MeshView): unknown {
  const bySource = <T>(items: readonly T[], key: (item: T) => string): T[] => [...items].sort((a, b) => key(a).localeCompare(key(b)));
  const keys = NAMESPACES.flatMap((ns) => HOSTS.map((host) => [ns, host] as const));
  return {
    uids: UIDS.map((uid) => view.workloadByUid(uid)),
    addresses: NETWORKS.flatMap((network) => IPS.map((ip) => [view.workloadByAddress(network, ip), view.servicesByAddress(network, ip)])),
    pods: NAMES.flatMap((name) =>
      NAMESPACES.flatMap((namespace) =>
        ['default', 'other'].map((serviceAccount) => view.workloadByPod({ name, namespace, serviceAccount })),
      ),
    ),
    hostnames: NAMESPACES.map((namespace) => view.workloadByHostname(namespace, 'db.example')),
    services: keys.map(([namespace, host]) => view.serviceByKey(namespace, host)),
    hosts: HOSTS.map((host) => view.servicesByHostname(host)),
    endpoints: keys.map(([namespace, hostname]) => {
      const found = view.serviceByKey(namespace, hostname);
      return found && bySource(view.endpoints(found), ({ workload: { uid } }) => uid);
    }),
    policies: ['a/p', 'a/q', 'b/p', 'b/r'].map((key) => view.policyByKey(key)),
    global: bySource(view.globalPolicies(), policyKey),
    own: NAMESPACES.map((namespace) => bySource(view.namespacePolicies(namespace), policyKey)),
  };
}

/** Everywhere that chance may lead a connection. */
function routes(view: MeshView, network: string, ip: string): unknown[] {
  const source = workload({ name: 'client', namespace: 'a', network });
  const found = new Set<string>();
  let state = 7;
  const random = (): number => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state / 2 ** 32;
  };
  // At most six equal endpoints: that one of them is never hit in a hundred tries has a probability of 1e-8.
  for (let i = 0; i < 100; i++) {
    const route = routeOutbound(view, { source, destination: { ip, port: 80 }, network, random });
    found.add(
      JSON.stringify(
        'refuse' in route
          ? [route.refuse, route.message]
          : [route.via, 'to' in route && route.to, 'workload' in route && route.workload?.uid],
      ),
    );
  }
  return [...found].sort();
}

function pushToBoth(push: Push, writer: MeshStateWriter, plain: PlainMesh): void {
  const { rejected } = writer.apply(addressPush(push));
  assert.deepEqual(rejected, []);
  assert.deepEqual(writer.apply(policyPush(push.policies, push.removedPolicies)).rejected, []);
  for (const name of push.removed) plain.removeAddress(name);
  for (const one of push.workloads) plain.put({ workload: one });
  for (const one of push.services) plain.put({ service: one });
  for (const key of push.removedPolicies) plain.removePolicy(key);
  for (const one of push.policies) plain.put({ policy: one });
}

describe('packed state against plain objects', () => {
  test('a reader answers every question as plain objects do, after every push', () => {
    fc.assert(
      fc.property(fc.array(pushes, { minLength: 1, maxLength: 8 }), (sequence) => {
        const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
        const plain = new PlainMesh();
        const reader = new MeshStateReader(writer.shared, { cacheEntries: 4 });
        for (const push of sequence) {
          pushToBoth(push, writer, plain);
          reader.refresh();
          assert.deepEqual(answers(reader), answers(plain));
          assert.deepEqual(answers(writer.view()), answers(plain));
        }
        reader.close();
      }),
      { numRuns: 40 },
    );
  });

  test('the same connections can go to the same places', () => {
    fc.assert(
      fc.property(fc.array(pushes, { minLength: 1, maxLength: 4 }), (sequence) => {
        const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
        const plain = new PlainMesh();
        for (const push of sequence) pushToBoth(push, writer, plain);
        const reader = new MeshStateReader(writer.shared, { cacheEntries: 4 });
        for (const network of NETWORKS) for (const ip of IPS) assert.deepEqual(routes(reader, network, ip), routes(plain, network, ip));
        reader.close();
      }),
      { numRuns: 10 },
    );
  });

  test('a reader that does not refresh keeps its picture through any number of pushes', () => {
    fc.assert(
      fc.property(fc.array(pushes, { minLength: 2, maxLength: 8 }), fc.nat(6), (sequence, stop) => {
        const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
        const plain = new PlainMesh();
        const before = sequence.slice(0, stop + 1);
        for (const push of before) pushToBoth(push, writer, plain);
        const reader = new MeshStateReader(writer.shared, { cacheEntries: 4 });
        const expected = answers(plain);
        for (const push of sequence.slice(stop + 1)) pushToBoth(push, writer, plain);
        assert.deepEqual(answers(reader), expected);
        reader.refresh();
        assert.deepEqual(answers(reader), answers(plain));
        reader.close();
      }),
      { numRuns: 30 },
    );
  });

  test('what is held by name and version is what was pushed and not removed', () => {
    fc.assert(
      fc.property(fc.array(pushes, { minLength: 1, maxLength: 6 }), (sequence) => {
        const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
        const plain = new PlainMesh();
        for (const push of sequence) pushToBoth(push, writer, plain);
        const uids = UIDS.filter((uid) => plain.workloadByUid(uid));
        const keys = NAMESPACES.flatMap((ns) => HOSTS.flatMap((host) => plain.serviceByKey(ns, host) ?? [])).map(serviceKey);
        const held = [...writer.versions('type.googleapis.com/istio.workload.Address').keys()];
        assert.ok(isDeepStrictEqual(held.sort(), [...uids, ...keys].sort()));
        assert.deepEqual([...writer.workloads()].map((w) => w.uid).sort(), uids.sort());
        assert.equal(writer.stats().workloads, uids.length);
        assert.equal(writer.stats().services, keys.length);
      }),
      { numRuns: 25 },
    );
  });

  test('memory is used again: replacing everything over and over does not grow the arena', () => {
    const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
    const reader = new MeshStateReader(writer.shared);
    const all = (round: number): Workload[] =>
      Array.from({ length: 300 }, (_, i) =>
        workload({ name: `pod-${i}`, canonicalRevision: `r${round % 7}`, addresses: [`10.0.${i >> 8}.${i & 255}`] }),
      );
    for (let round = 0; round < 5; round++) {
      writer.apply(addressPush({ workloads: all(round) }));
      reader.refresh();
    }
    const { bytes } = writer.stats();
    for (let round = 5; round < 30; round++) {
      writer.apply(addressPush({ workloads: all(round) }));
      reader.refresh();
    }
    assert.equal(writer.stats().bytes, bytes);
    reader.close();
  });
});
