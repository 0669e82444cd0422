/** What pushes do to the state, one subject at a time (Istio's ztunnel, src/xds/client.rs). */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { serviceKey } from '../../../common/decision/mesh-view.ts';
import { stateDump } from '../../../common/state/config-dump.ts';
import { encodeWorkload } from '../../../common/state/encode.ts';
import { MeshStateReader } from '../../../common/state/reader.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, MeshStateWriter, type StateChange } from '../../../common/state/writer.ts';
import { match, memberOf, policy, service, workload } from '../../support/builders.ts';
import { addressPush, packedMesh, policyPush } from '../../support/meshes.ts';

const api = service({ name: 'api', vips: ['10.96.0.1'] });
const pod = workload({ name: 'api-1', addresses: ['10.0.0.1'], services: memberOf(api) });

const names = (writer: MeshStateWriter, own = api): string[] =>
  writer
    .view()
    .endpoints(own)
    .map((endpoint) => endpoint.workload.name)
    .sort();

describe('workloads and services', () => {
  test('workloads that come before their service are its endpoints once it comes', () => {
    const { writer } = packedMesh({ workloads: [pod] });
    assert.deepEqual(Object.keys(stateDump(writer).stagedServices), [serviceKey(api)]);
    writer.apply(addressPush({ services: [api] }));
    assert.deepEqual(names(writer), ['api-1']);
    assert.deepEqual(stateDump(writer).stagedServices, {});
  });

  test('a service that is replaced keeps its endpoints, one that is removed and comes again has them', () => {
    const { writer } = packedMesh({ workloads: [pod], services: [api] });
    writer.apply(addressPush({ services: [{ ...api, canonical: true }] }));
    assert.deepEqual(names(writer), ['api-1']);
    writer.apply(addressPush({ removed: [serviceKey(api)] }));
    assert.equal(writer.view().serviceByKey(api.namespace, api.hostname), undefined);
    assert.deepEqual(writer.view().servicesByAddress('', '10.96.0.1'), []);
    writer.apply(addressPush({ services: [api] }));
    assert.deepEqual(names(writer), ['api-1']);
  });

  test('staged endpoints go when their workload goes', () => {
    const { writer } = packedMesh({ workloads: [pod] });
    writer.apply(addressPush({ removed: [pod.uid] }));
    assert.deepEqual(stateDump(writer).stagedServices, {});
    writer.apply(addressPush({ services: [api] }));
    assert.deepEqual(names(writer), []);
  });

  test('unhealthy endpoints are none, also staged ones, unless the service allows them', () => {
    const sick = workload({ name: 'sick', addresses: ['10.0.0.2'], services: memberOf(api), healthy: false });
    const { writer } = packedMesh({ workloads: [sick, pod] });
    writer.apply(addressPush({ services: [api] }));
    assert.deepEqual(names(writer), ['api-1']);
    const tolerant = { ...api, loadBalancing: { mode: 'STANDARD' as const, preferences: [], allowUnhealthy: true } };
    writer.apply(addressPush({ services: [tolerant] }));
    assert.deepEqual(names(writer, tolerant), ['api-1', 'sick']);
    writer.apply(addressPush({ workloads: [{ ...pod, healthy: false }], services: [api] }));
    assert.deepEqual(names(writer), []);
    assert.equal(writer.view().workloadByAddress('', '10.0.0.2')?.name, 'sick');
  });

  test('a workload that changes leaves nothing of its old self', () => {
    const other = service({ name: 'other' });
    const { writer } = packedMesh({ workloads: [{ ...pod, hostname: 'old.example.com' }], services: [api, other] });
    writer.apply(addressPush({ workloads: [{ ...pod, addresses: ['10.0.0.9'], serviceAccount: 'new', services: memberOf(other) }] }));
    const view = writer.view();
    assert.equal(view.workloadByAddress('', '10.0.0.1'), undefined);
    assert.equal(view.workloadByHostname('shop', 'old.example.com'), undefined);
    assert.equal(view.workloadByPod({ name: 'api-1', namespace: 'shop', serviceAccount: 'default' }), undefined);
    assert.equal(view.workloadByPod({ name: 'api-1', namespace: 'shop', serviceAccount: 'new' })?.uid, pod.uid);
    assert.deepEqual([names(writer), names(writer, other)], [[], ['api-1']]);
    assert.equal(writer.stats().workloads, 1);
  });

  test('of several that claim an address pods come before others, tunnels before plain ones, and the next takes over', () => {
    const claim = (uid: string, protocol: 'TCP' | 'HBONE'): ReturnType<typeof workload> =>
      workload({ name: uid, uid, protocol, addresses: ['10.0.0.5'] });
    const ranked = [
      claim('c//Pod/ns/tunnel', 'HBONE'),
      claim('c//Pod/ns/plain', 'TCP'),
      claim('c/networking.istio.io/WorkloadEntry/ns/tunnel', 'HBONE'),
      claim('c/networking.istio.io/WorkloadEntry/ns/plain', 'TCP'),
    ];
    const { writer } = packedMesh({ workloads: [...ranked].reverse() });
    for (const { uid } of ranked) {
      assert.equal(writer.view().workloadByAddress('', '10.0.0.5')?.uid, uid);
      writer.apply(addressPush({ removed: [uid] }));
    }
    assert.equal(writer.view().workloadByAddress('', '10.0.0.5'), undefined);
  });

  test('a removed name is a workload before it is a service, and names of nothing are nothing', () => {
    const twin = workload({ name: 'twin', uid: serviceKey(api), addresses: ['10.0.0.7'] });
    const { writer } = packedMesh({ workloads: [twin], services: [api] });
    writer.apply(addressPush({ removed: [serviceKey(api), 'a/b/c/d', '', '/'] }));
    assert.deepEqual([writer.stats().workloads, writer.stats().services], [0, 1]);
    writer.apply(addressPush({ removed: [serviceKey(api)] }));
    assert.equal(writer.stats().services, 0);
  });

  test('a pod of the own node is preferred to a namesake elsewhere', () => {
    const here = workload({ name: 'db-0', uid: 'here//Pod/shop/db-0', node: 'node-7', clusterId: 'here' });
    const there = workload({ name: 'db-0', uid: 'there//Pod/shop/db-0', node: 'node-8', clusterId: 'there' });
    for (const workloads of [
      [here, there],
      [there, here],
    ]) {
      const { writer } = packedMesh({ workloads });
      const reader = new MeshStateReader(writer.shared, { node: 'node-7' });
      assert.equal(reader.workloadByPod({ name: 'db-0', namespace: 'shop', serviceAccount: 'default' })?.clusterId, 'here');
    }
  });
});

describe('policies', () => {
  test('leave nothing behind when their scope changes', () => {
    const own = policy({ name: 'p', groups: [[[match({ destinationPorts: [1] })]]] });
    const { writer } = packedMesh({ policies: [{ ...own, scope: 'GLOBAL' }] });
    const lists = (): number[] => [writer.view().globalPolicies().length, writer.view().namespacePolicies('shop').length];
    assert.deepEqual(lists(), [1, 0]);
    writer.apply(policyPush([{ ...own, scope: 'NAMESPACE' }]));
    assert.deepEqual(lists(), [0, 1]);
    writer.apply(policyPush([{ ...own, scope: 'WORKLOAD_SELECTOR' }]));
    assert.deepEqual(lists(), [0, 0]);
    assert.equal(writer.view().policyByKey('shop/p')?.scope, 'WORKLOAD_SELECTOR');
    writer.apply(policyPush([], ['shop/p']));
    assert.equal(writer.view().policyByKey('shop/p'), undefined);
  });
});

describe('a push', () => {
  test('of which one resource is bad is applied without it, and says why', () => {
    const writer = new MeshStateWriter();
    const good = { name: pod.uid, version: '1', bytes: encodeWorkload(pod) };
    const { rejected } = writer.apply({
      typeUrl: ADDRESS_TYPE,
      resources: [{ name: 'bad', version: '1', bytes: Uint8Array.of(0xff) }, good],
      removed: [],
    });
    assert.deepEqual(
      rejected.map(({ name }) => name),
      ['bad'],
    );
    assert.deepEqual([...writer.versions(ADDRESS_TYPE)], [[pod.uid, '1']]);
  });

  test('with a bad version of something held keeps the old one in force, and does not claim to have it', () => {
    const { writer } = packedMesh({ workloads: [pod] });
    const bad = { name: pod.uid, version: '2', bytes: Uint8Array.of(1, 2, 3) };
    assert.equal(writer.apply({ typeUrl: ADDRESS_TYPE, resources: [bad], removed: [] }).rejected.length, 1);
    assert.equal(writer.view().workloadByUid(pod.uid)?.name, 'api-1');
    assert.equal(writer.versions(ADDRESS_TYPE).has(pod.uid), false);
    writer.apply(addressPush({ workloads: [pod] }));
    assert.equal(writer.versions(ADDRESS_TYPE).has(pod.uid), true);
  });

  test('of another type, or of nothing, changes nothing', () => {
    const { writer } = packedMesh({ workloads: [pod] });
    const changes: StateChange[] = [];
    writer.onChange((change) => changes.push(change));
    const { generation } = writer.stats();
    assert.deepEqual(
      writer.apply({ typeUrl: 'type.googleapis.com/x', resources: [{ name: 'x', version: '', bytes: new Uint8Array() }], removed: ['y'] }),
      { rejected: [] },
    );
    writer.apply({ typeUrl: AUTHORIZATION_TYPE, resources: [], removed: [] });
    writer.apply(addressPush({ workloads: [pod], removed: ['gone'] }));
    assert.deepEqual([changes.length, writer.stats().generation], [0, generation]);
  });

  test('is told about once, with how much of each kind it changed', () => {
    const { writer } = packedMesh({ workloads: [pod] });
    const changes: StateChange[] = [];
    const end = writer.onChange((change) => changes.push(change));
    writer.apply(addressPush({ workloads: [{ ...pod, healthy: false }, workload({ name: 'new' })], services: [api] }));
    writer.apply(policyPush([policy({ name: 'p' })]));
    assert.deepEqual(
      changes.map(({ workloads, services, policies }) => [workloads, services, policies]),
      [
        [2, 1, 0],
        [0, 0, 1],
      ],
    );
    end();
    writer.apply(policyPush([], ['shop/p']));
    assert.equal(changes.length, 2);
  });

  test('tells what happened to workloads of the own node, as they were and as they are', () => {
    const writer = new MeshStateWriter({ node: 'node-1' });
    const seen: unknown[] = [];
    writer.onChange(({ local }) => seen.push(local.map(({ before, after }) => [before?.serviceAccount, after?.serviceAccount])));
    const here = workload({ name: 'here', node: 'node-1', serviceAccount: 'a' });
    writer.apply(addressPush({ workloads: [here, workload({ name: 'there', node: 'node-2' })] }));
    writer.apply(addressPush({ workloads: [{ ...here, serviceAccount: 'b' }] }));
    writer.apply(addressPush({ workloads: [{ ...here, node: 'node-2', serviceAccount: 'c' }] }));
    writer.apply(addressPush({ removed: [here.uid] }));
    assert.deepEqual(seen, [[[undefined, 'a']], [['a', 'b']], [['b', 'c']], []]);
  });

  test('beyond the limit of memory is rejected resource by resource, and what is held stays', () => {
    const writer = new MeshStateWriter({ maxBytes: 1 << 18 });
    const many = Array.from({ length: 1200 }, (_, i) => workload({ name: `pod-${i}`, addresses: [`10.1.${i >> 8}.${i & 255}`] }));
    const { rejected } = writer.apply(addressPush({ workloads: many }));
    assert.ok(rejected.length > 0 && rejected.length < 1200);
    assert.match(rejected[0]?.reason ?? '', /limit of 262144 bytes/);
    const held = many.filter(({ uid }) => !rejected.some(({ name }) => name === uid));
    assert.equal(writer.stats().workloads, held.length);
    for (const own of held) assert.equal(writer.view().workloadByAddress('', own.addresses[0] ?? '')?.uid, own.uid);
  });

  test('for which not even lists have room left leaves readers the picture that they have', () => {
    const writer = new MeshStateWriter({ maxBytes: 1 << 18 });
    const reader = new MeshStateReader(writer.shared);
    const many = Array.from({ length: 60 }, (_, i) =>
      workload({
        name: `pod-${i}`,
        addresses: [`10.1.0.${i}`],
        services: new Map(Array.from({ length: 60 }, (__, j) => [`shop/s-${j}`, new Map()])),
      }),
    );
    const rejected: string[] = [];
    for (const own of many) rejected.push(...writer.apply(addressPush({ workloads: [own] })).rejected.map(({ reason }) => reason));
    assert.ok(rejected.some((reason) => /limit of/.test(reason)));
    reader.refresh();
    const seen = many.filter(({ uid }) => reader.workloadByUid(uid)).length;
    const listed = reader.endpoints(service({ name: 's-0', hostname: 's-0' })).length;
    assert.equal(listed, seen);
  });

  test('with a resource of many megabytes is rejected without being looked into', () => {
    const writer = new MeshStateWriter();
    const { rejected } = writer.apply({
      typeUrl: ADDRESS_TYPE,
      resources: [{ name: 'huge', version: '', bytes: new Uint8Array(5 << 20) }],
      removed: [],
    });
    assert.match(rejected[0]?.reason ?? '', /bytes are more than/);
  });
});

describe('readers', () => {
  test('in any number up to the limit pin pictures of their own, and give their place back', () => {
    const { writer } = packedMesh({ workloads: [pod] });
    const readers = Array.from({ length: 63 }, () => new MeshStateReader(writer.shared));
    assert.throws(() => new MeshStateReader(writer.shared), /64 readers/);
    readers.pop()?.close();
    assert.equal(new MeshStateReader(writer.shared).workloadByUid(pod.uid)?.name, 'api-1');
  });

  test('of a thread that ended do not keep old pictures for ever', () => {
    const writer = new MeshStateWriter();
    const reader = new MeshStateReader(writer.shared);
    writer.apply(addressPush({ workloads: [pod] }));
    writer.apply(addressPush({ workloads: [{ ...pod, healthy: false }] }));
    assert.ok(writer.stats().retiredBytes > 0);
    writer.forgetReader(0);
    writer.apply(addressPush({ workloads: [pod] }));
    assert.equal(writer.stats().readers, 0);
    assert.equal(writer.stats().retiredBytes, 0);
    assert.ok(reader);
  });

  test('see texts that are not ASCII as they were written', () => {
    const odd = workload({
      name: 'pöd-ß-日本',
      addresses: ['10.0.0.8'],
      canonicalName: '🐇',
      services: new Map([['shop/dïenst', new Map([[80, 1]])]]),
    });
    const own = service({ name: 'dïenst', hostname: 'dïenst' });
    const { reader } = packedMesh({ workloads: [odd], services: [own] });
    assert.deepEqual(reader.workloadByAddress('', '10.0.0.8'), odd);
    assert.equal(reader.workloadByPod({ name: odd.name, namespace: 'shop', serviceAccount: 'default' })?.uid, odd.uid);
    assert.equal(reader.endpoints(own).length, 1);
  });
});
