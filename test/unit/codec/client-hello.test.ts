import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { readClientHello } from '../../../common/codec/client-hello.ts';
import { helloOf } from '../../support/client-hello.ts';

test('the server name of a hello is read as soon as the hello is whole, at whatever place it is cut', async () => {
  const hello = await helloOf('Shop.Example.com');
  assert.deepEqual(readClientHello(hello), { serverName: 'shop.example.com' });
  for (let length = 0; length < hello.length; length++) assert.equal(readClientHello(hello.subarray(0, length)), undefined, `${length}`);
});

test('a hello without a name is one without a name', async () => {
  assert.deepEqual(readClientHello(await helloOf(undefined)), { serverName: undefined });
});

test('a hello in several records is put together', async () => {
  const hello = await helloOf('shop.example.com');
  const body = hello.subarray(5);
  const record = (bytes: Buffer): Buffer => Buffer.concat([Buffer.from([22, 3, 1, bytes.length >> 8, bytes.length & 255]), bytes]);
  const split = Buffer.concat([record(body.subarray(0, 20)), record(body.subarray(20, 100)), record(body.subarray(100))]);
  assert.deepEqual(readClientHello(split), { serverName: 'shop.example.com' });
});

test('what is no hello is told at once, and nothing that comes breaks it', async () => {
  assert.equal(readClientHello(Buffer.from('GET / HTTP/1.1\r\n')), 'none');
  assert.equal(readClientHello(Buffer.from([22, 3, 1, 0, 4, 2, 0, 0, 0])), 'none');
  const hello = await helloOf('shop.example.com');
  fc.assert(
    fc.property(fc.nat(hello.length - 1), fc.integer({ min: 0, max: 255 }), (at, value) => {
      const mutated = Buffer.from(hello);
      mutated[at] = value;
      const read = readClientHello(mutated);
      assert.ok(read === undefined || read === 'none' || read.serverName === undefined || /^[a-z0-9._-]+$/.test(read.serverName));
    }),
  );
});

const sample = new URL('../../../../shared/conformance/linkerd2-proxy/linkerd/tls/src/server/testdata/', import.meta.url);
test('hellos of other clients are read too', { skip: sampleMissing() }, () => {
  for (const name of ['curl-example-com-client-hello.bin', 'example-com-client-hello.bin']) {
    let bytes: Buffer;
    try {
      bytes = readFileSync(new URL(name, sample));
    } catch {
      // Another selection of the cases.
      continue;
    }
    assert.deepEqual(readClientHello(bytes), { serverName: 'example.com' }, name);
  }
});

function sampleMissing(): string | false {
  try {
    readFileSync(new URL('.', sample));
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EISDIR' ? false : 'the cases of other projects are not there';
  }
  return false;
}
