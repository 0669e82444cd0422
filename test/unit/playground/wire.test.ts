/** The API server's own codecs: SPDY frames, Kubernetes' protobuf, resource paths. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Duplex } from 'node:stream';
import { test } from 'node:test';
import { createDeflate, createInflate, type Deflate, constants as zlib } from 'node:zlib';
import fc from 'fast-check';
import { ApiError } from '../../../playground/apiserver/api-error.ts';
import { parseResourcePath } from '../../../playground/apiserver/http/path.ts';
import { decodeProtobuf } from '../../../playground/apiserver/http/protobuf.ts';
import { loadDefinitions } from '../../../playground/apiserver/schemas/definitions.ts';
import { SchemaNode } from '../../../playground/apiserver/schemas/schema.ts';
import { SPDY_DICTIONARY, SpdyConnection, type SpdyStream } from '../../../playground/apiserver/streams/spdy.ts';

/** The carrier's two ends: what the connection writes, and what the peer pushes. */
class Carrier extends Duplex {
  readonly sent: Buffer[] = [];
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
    this.sent.push(chunk);
    callback();
  }
}

async function compressedHeaders(deflate: Deflate, headers: Record<string, string>): Promise<Buffer> {
  const word = (text: string): Buffer => Buffer.concat([uint32(text.length), Buffer.from(text)]);
  const block = Buffer.concat([
    uint32(Object.keys(headers).length),
    ...Object.entries(headers).flatMap(([name, value]) => [word(name), word(value)]),
  ]);
  const chunks: Buffer[] = [];
  const take = (chunk: Buffer): void => void chunks.push(chunk);
  deflate.on('data', take);
  deflate.write(block);
  await new Promise<void>((resolve) => deflate.flush(zlib.Z_SYNC_FLUSH, () => setImmediate(resolve)));
  deflate.off('data', take);
  return Buffer.concat(chunks);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

const control = (type: number, flags: number, payload: Buffer): Buffer =>
  Buffer.concat([Buffer.from([0x80, 3, 0, type]), lengthWord(flags, payload.length), payload]);
const lengthWord = (flags: number, length: number): Buffer => uint32(flags * 2 ** 24 + length);
const data = (id: number, text: string, fin = false): Buffer =>
  Buffer.concat([uint32(id), lengthWord(fin ? 1 : 0, text.length), Buffer.from(text)]);
const syn = async (deflate: Deflate, id: number, headers: Record<string, string>): Promise<Buffer> =>
  control(1, 0, Buffer.concat([uint32(id), uint32(0), Buffer.from([0, 0]), await compressedHeaders(deflate, headers)]));

async function conversation(): Promise<Buffer> {
  const deflate = createDeflate({ dictionary: SPDY_DICTIONARY });
  return Buffer.concat([
    await syn(deflate, 1, { StreamType: 'data', Port: '80' }),
    await syn(deflate, 3, { StreamType: 'error' }),
    data(1, 'hello '),
    control(6, 0, uint32(7)),
    data(1, 'world', true),
  ]);
}

test('SPDY streams carry headers and data, whatever the pieces that they arrive in', async () => {
  const bytes = await conversation();
  for (const size of [1, 2, 3, 7, 8, 9, 64, bytes.length]) {
    const carrier = new Carrier();
    const streams: SpdyStream[] = [];
    new SpdyConnection(carrier, (stream) => streams.push(stream));
    for (let at = 0; at < bytes.length; at += size) carrier.push(bytes.subarray(at, at + size));
    while (streams.length < 2) await new Promise((resolve) => setImmediate(resolve));
    const [first, second] = streams;
    assert.ok(first && second);
    assert.deepEqual(
      [...first.headers],
      [
        ['streamtype', 'data'],
        ['port', '80'],
      ],
    );
    assert.deepEqual([...second.headers], [['streamtype', 'error']]);
    assert.equal((await first.toArray()).join(''), 'hello world', `in pieces of ${size}`);
    carrier.destroy();
  }
});

test('SPDY answers a new stream with headers that inflate to none, and a ping with itself', async () => {
  const carrier = new Carrier();
  const opened: SpdyStream[] = [];
  new SpdyConnection(carrier, (stream) => opened.push(stream));
  carrier.push(await conversation());
  while (carrier.sent.length < 3) await new Promise((resolve) => setImmediate(resolve));
  const [first, second, ping] = carrier.sent;
  assert.ok(first && second);
  assert.equal(first.subarray(0, 12).toString('hex'), `80030002000000${(first.length - 8).toString(16)}00000001`);
  const inflate = createInflate({ dictionary: SPDY_DICTIONARY });
  inflate.write(first.subarray(12));
  inflate.write(second.subarray(12));
  const [one] = (await once(inflate, 'data')) as [Buffer];
  assert.match(one.toString('hex'), /^(00000000)+$/);
  assert.equal(ping?.toString('hex'), '8003000600000004' + '00000007');
  opened[0]?.end('hi');
  while (carrier.sent.length < 5) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(carrier.sent[3]?.toString('hex'), '0000000100000002' + '6869');
  assert.equal(carrier.sent[4]?.toString('hex'), '0000000101000000');
  carrier.destroy();
});

test('a SPDY frame that is too large ends the connection', async () => {
  const carrier = new Carrier();
  const closed = once(carrier, 'error');
  new SpdyConnection(carrier, () => undefined);
  carrier.push(Buffer.from('8003000100ffffff', 'hex'));
  assert.match(String(await closed), /SPDY frame is too large/);
});

const definitions = loadDefinitions();
const namespaceSchema = (_apiVersion: string, kind: string): SchemaNode => new SchemaNode({ $ref: `V1${kind}` }, definitions);

// `kubectl create namespace foo`, as 1.32 sends it.
const NAMESPACE = '6b3873000a0f0a02763112094e616d657370616365121b0a130a03666f6f12001a0022002a0032003800420012001a020a001a002200';

test('a protobuf body of kubectl is read into JSON', () => {
  const object = decodeProtobuf(Buffer.from(NAMESPACE, 'hex'), namespaceSchema);
  assert.equal(object.kind, 'Namespace');
  assert.deepEqual((object.metadata as { name: string }).name, 'foo');
});

test('a protobuf body that is cut, foreign or random is refused with a status, never with a crash', () => {
  const whole = Buffer.from(NAMESPACE, 'hex');
  const attempt = (bytes: Buffer): void => {
    try {
      decodeProtobuf(bytes, namespaceSchema);
    } catch (error) {
      assert.ok(error instanceof ApiError, String(error));
    }
  };
  for (let length = 0; length < whole.length; length++) attempt(whole.subarray(0, length));
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (tail) => attempt(Buffer.concat([whole.subarray(0, 21), Buffer.from(tail)]))));
  assert.throws(() => decodeProtobuf(Buffer.from('{}'), namespaceSchema), /does not start as Kubernetes protobuf/);
});

for (const [path, expected] of [
  ['/api/v1/pods', { plural: 'pods' }],
  ['/api/v1/namespaces/a/pods/b/log', { namespace: 'a', plural: 'pods', name: 'b', subresource: 'log' }],
  ['/api/v1/namespaces/a', { plural: 'namespaces', name: 'a' }],
  ['/api/v1/namespaces/a/finalize', { plural: 'namespaces', name: 'a', subresource: 'finalize' }],
  [
    '/apis/apps/v1/namespaces/a/deployments/b/scale',
    { group: 'apps', namespace: 'a', plural: 'deployments', name: 'b', subresource: 'scale' },
  ],
  ['/api/v1/namespaces/a/pods/b:80/proxy/x/y%20z', { namespace: 'a', plural: 'pods', name: 'b:80', subresource: 'proxy', rest: '/x/y z' }],
] as const) {
  test(`the path ${path} is taken apart`, () => {
    assert.deepEqual(parseResourcePath(path), {
      group: '',
      version: 'v1',
      namespace: '',
      name: '',
      subresource: '',
      rest: '/',
      ...expected,
    });
  });
}

test('paths of discovery are no resources', () => {
  for (const path of ['/', '/api', '/api/v1', '/apis/apps', '/apis/apps/v1', '/version'])
    assert.equal(parseResourcePath(path), undefined, path);
});
