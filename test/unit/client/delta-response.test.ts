/** A response that is read where it lies says what the general decoding says of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DeltaResponse } from '../../../common/client/delta-response.ts';
import { DeltaDiscoveryResponse } from '../../../common/codec/gen/discovery.ts';

const TYPE = 'type.googleapis.com/test.Widget';

interface Said {
  readonly typeUrl: string;
  readonly nonce: string;
  readonly removed: readonly string[];
  readonly resources: readonly (readonly [name: string, version: string, bytes: string])[];
  readonly names: readonly string[];
}

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString('hex');

function general(bytes: Uint8Array): Said {
  const { typeUrl, nonce, resources, removedResources } = DeltaDiscoveryResponse.decode(bytes);
  return {
    typeUrl,
    nonce,
    removed: removedResources,
    resources: resources.map(({ name, version, resource }) => [name, version, hex(resource?.value)] as const),
    names: [...resources.flatMap(({ name, aliases }) => [name, ...aliases]), ...removedResources],
  };
}

function inPlace(bytes: Uint8Array): Said {
  const response = DeltaResponse.decode(bytes);
  const { typeUrl, nonce, removed } = response;
  const read = () => Array.from(response.resources, ({ name, version, bytes: own }) => [name, version, hex(own)] as const);
  assert.deepEqual(read(), read(), 'a second time says something else');
  return { typeUrl, nonce, removed, resources: read(), names: [...response.names()] };
}

const outcome = (read: () => Said): Said | 'no such message' => {
  try {
    return read();
  } catch {
    return 'no such message';
  }
};

const resource = fc.record({
  name: fc.constantFrom('a/b', 'Kubernetes//Pod/shop/api', '', 'käse', '\ufeffmark'),
  version: fc.constantFrom('', '1', 'ä', '0123456789abcdef'),
  aliases: fc.subarray(['/10.0.0.1', 'a/ü']),
  resource: fc.option(fc.record({ typeUrl: fc.constantFrom(TYPE, ''), value: fc.uint8Array({ maxLength: 300 }) }), { nil: undefined }),
  ttl: fc.constantFrom(undefined, undefined, { seconds: 3n, nanos: 0 }),
});
const response = fc.record({
  systemVersionInfo: fc.constantFrom('', '7'),
  typeUrl: fc.constantFrom(TYPE, ''),
  nonce: fc.constantFrom('n', ''),
  resources: fc.array(resource, { maxLength: 5 }),
  removedResources: fc.array(fc.constantFrom('gone', 'a/ü'), { maxLength: 2 }),
});
const encode = (message: Parameters<typeof DeltaDiscoveryResponse.encode>[0]): Uint8Array =>
  DeltaDiscoveryResponse.encode(message).finish();

test('it says the same of every response', () => {
  fc.assert(
    fc.property(response, (message) => {
      const bytes = encode(message);
      assert.deepEqual(inPlace(bytes), general(bytes));
    }),
    { numRuns: 200 },
  );
});

test('it says the same of damaged bytes, or refuses them likewise', () => {
  const damage = fc.array(fc.tuple(fc.nat(1000), fc.nat(255), fc.constantFrom('set', 'insert', 'remove', 'cut')), { maxLength: 3 });
  fc.assert(
    fc.property(response, damage, (message, steps) => {
      let bytes = [...encode(message)];
      for (const [at, byte, how] of steps) {
        const place = at % Math.max(1, bytes.length);
        if (how === 'set') bytes[place] = byte;
        else if (how === 'cut') bytes = bytes.slice(0, place);
        else bytes.splice(place, how === 'remove' ? 1 : 0, ...(how === 'insert' ? [byte] : []));
      }
      const damaged = Uint8Array.from(bytes);
      assert.deepEqual(
        outcome(() => inPlace(damaged)),
        outcome(() => general(damaged)),
      );
    }),
    { numRuns: 400 },
  );
});

test('a response of many resources keeps their order', () => {
  const names = Array.from({ length: 1000 }, (_, i) => `widget-${i}`);
  const resources = names.map((name) => ({ name, version: '1', aliases: [], resource: { typeUrl: TYPE, value: Buffer.from(name) } }));
  const bytes = encode({ systemVersionInfo: '', typeUrl: TYPE, nonce: '1', resources, removedResources: [] });
  assert.deepEqual(inPlace(bytes), general(bytes));
});
