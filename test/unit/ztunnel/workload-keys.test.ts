/** The short way of reading a workload says what the long one says, of whatever bytes come. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as wire from '../../../common/codec/gen/workload.ts';
import type { Workload } from '../../../common/decision/mesh-view.ts';
import { decodeAddress, ResourceRejected } from '../../../common/state/decode.ts';
import { encodeService, encodeWorkload } from '../../../common/state/encode.ts';
import { ENDPOINT_WORDS, flagsOf, placeHash, placeScopes, portsHash } from '../../../common/state/endpoint-items.ts';
import { hashAscii, hashText, keyKinds } from '../../../common/state/hash.ts';
import { workloadHashes } from '../../../common/state/keys.ts';
import { WorkloadKeys } from '../../../common/state/workload-keys.ts';
import { workloads } from '../../support/arbitrary-mesh.ts';
import { memberOf, service, waypointAt, waypointNamed, workload } from '../../support/builders.ts';

const SEED = 12_345;

interface Keys {
  readonly uid: string;
  readonly hashes: readonly number[];
  readonly services: readonly string[];
  readonly items: readonly (readonly number[])[];
}
type Reading = Keys | 'a service' | { readonly rejected: string };

/** From the decoded workload, one by one. */
const expectedOf = (decoded: Workload): Keys => ({
  uid: decoded.uid,
  hashes: workloadHashes(SEED, decoded),
  services: [...decoded.services.keys()],
  items: [...decoded.services.values()].map((ports) => [
    0,
    decoded.capacity,
    flagsOf(decoded),
    portsHash(SEED, ports),
    ...placeScopes.map((scope) => placeHash(SEED, decoded, scope)),
  ]),
});

function longWay(bytes: Uint8Array): Reading {
  return reading(() => {
    const decoded = decodeAddress(bytes);
    return 'service' in decoded ? 'a service' : expectedOf(decoded.workload);
  });
}

const reader = new WorkloadKeys(SEED);
function shortWay(bytes: Uint8Array): Reading {
  return reading(() => {
    if (reader.read(bytes)) return 'a service';
    const { uid, hashes, hashCount, services, items } = reader;
    const item = (i: number): number[] => [...items.subarray(i * ENDPOINT_WORDS, (i + 1) * ENDPOINT_WORDS)];
    return { uid, hashes: [...hashes.subarray(0, hashCount)], services: [...services], items: services.map((_, i) => item(i)) };
  });
}

function reading(read: () => Reading): Reading {
  try {
    return read();
  } catch (error) {
    assert.ok(error instanceof ResourceRejected);
    return { rejected: error.message };
  }
}

const raw = (fields: Partial<Record<keyof wire.Workload, unknown>>): Uint8Array =>
  wire.Address.encode({
    type: { $case: 'workload', value: Object.assign(wire.Workload.decode(new Uint8Array()), { uid: 'u' }, fields) },
  }).finish();

const full = workload({
  name: 'api-1',
  hostname: 'db.example.com',
  network: 'net-2',
  addresses: ['10.200.0.255', '0.0.0.0', 'fd00::1', '::ffff:10.0.0.1'],
  node: 'node-1',
  clusterId: 'c2',
  locality: { region: 'r', zone: 'z', subzone: 's' },
  services: new Map([...memberOf(service({ name: 'api' })), ['shop/other.example.com', new Map([[65_535, 0]])]]),
  waypoint: waypointNamed('shop', 'waypoint.example.com'),
  networkGateway: waypointAt('10.9.9.9'),
  authorizationPolicies: ['shop/p'],
  capacity: 300_000,
  healthy: false,
});

test('a text in bytes has the hash that it has as a text', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii' }), fc.string({ unit: 'binary-ascii' }), fc.nat(5), (first, second, offset) => {
      const bytes = Buffer.from('x'.repeat(offset) + first + second, 'latin1');
      const [middle, end] = [offset + first.length, bytes.length];
      const hash = hashAscii(SEED, keyKinds.workloadPod, bytes, offset, middle, bytes, middle, end);
      assert.equal(hash, hashText(SEED, keyKinds.workloadPod, first, second));
    }),
  );
});

test('both ways say the same of every workload', () => {
  fc.assert(
    fc.property(workloads, (one) => {
      const bytes = encodeWorkload(one);
      assert.deepEqual(shortWay(bytes), longWay(bytes));
    }),
    { numRuns: 60 },
  );
  assert.deepEqual(shortWay(encodeWorkload(full)), longWay(encodeWorkload(full)));
});

test('both ways say the same of bytes that are damaged: of the same workloads that they are refused, and why', () => {
  const damage = fc.array(fc.record({ at: fc.nat(2000), byte: fc.nat(255), how: fc.constantFrom('set', 'insert', 'remove', 'cut') }), {
    minLength: 1,
    maxLength: 3,
  });
  fc.assert(
    fc.property(fc.oneof(workloads, fc.constant(full)), damage, (one, steps) => {
      let bytes = [...encodeWorkload(one)];
      for (const { at, byte, how } of steps) {
        const place = at % Math.max(1, bytes.length);
        if (how === 'set') bytes[place] = byte;
        else if (how === 'cut') bytes = bytes.slice(0, place);
        else bytes.splice(place, how === 'remove' ? 1 : 0, ...(how === 'insert' ? [byte] : []));
      }
      assert.deepEqual(shortWay(Uint8Array.from(bytes)), longWay(Uint8Array.from(bytes)));
    }),
    { numRuns: 400 },
  );
});

const ports = (...pairs: readonly (readonly [number, number])[]) => ({
  ports: pairs.map(([servicePort, targetPort]) => ({ servicePort, targetPort, appProtocol: 1 })),
});
const odd: Readonly<Record<string, Uint8Array>> = {
  'a service': encodeService(service({ name: 'api' })),
  'nothing at all': new Uint8Array(),
  'two workloads': Uint8Array.of(...encodeWorkload(workload({ name: 'a' })), ...encodeWorkload(workload({ name: 'b' }))),
  'names of other scripts': encodeWorkload(workload({ name: 'käse', node: 'узел', services: new Map([['a/日本', new Map([[1, 2]])]]) })),
  'a port that is named twice': raw({ services: { 'a/b': ports([80, 1], [80, 2]) } }),
  'a port beyond all ports': raw({ services: { 'a/b': ports([80, 65_536]) } }),
  'no ports': raw({ services: { 'a/b': { ports: [] } } }),
  'a hundred ports': raw({ services: { 'a/b': ports(...Array.from({ length: 100 }, (_, i) => [i, 65_535] as const)) } }),
  'forty services': raw({ services: Object.fromEntries(Array.from({ length: 40 }, (_, i) => [`a/${i}`, ports([i, i])])) }),
  'twenty addresses': raw({ addresses: Array.from({ length: 20 }, (_, i) => Uint8Array.of(10, 0, 0, i)) }),
  'one address twice': raw({ addresses: [Uint8Array.of(10, 0, 0, 1), Uint8Array.of(10, 0, 0, 1)] }),
  'a capacity of nothing': raw({ capacity: 0 }),
  'the largest capacity': raw({ capacity: 0xffffffff }),
  'an extension': encodeWorkload(workload({ name: 'a', outboundTrafficPolicy: 'REGISTRY_ONLY' })),
  'fields from the future': Uint8Array.of(0x0a, 11, 0xa2, 0x01, 0x01, 0x75, 0xf8, 0x07, 0x05, 0x92, 0x08, 0x01, 0x41),
};
for (const [what, bytes] of Object.entries(odd)) {
  test(`both ways say the same of a workload with ${what}`, () => assert.deepEqual(shortWay(bytes), longWay(bytes)));
}
