/**
 * The same bytes to our server and to Node's: both must see the same requests, and the same errors in the same place. Left out are DATA
 * after END_STREAM (a stream error, RFC 9113 §5.1; Node ends the connection) and stream numbers that go back (Node ignores them).
 */
import assert from 'node:assert/strict';
import http2 from 'node:http2';
import type { Duplex } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  DEFAULT_FRAME_SIZE,
  Flag,
  FrameType,
  frame,
  headerFrames,
  pingFrame,
  rstStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../common/codec/http2/frames.ts';
import type { HeaderField } from '../../../common/codec/http2/header-tables.ts';
import { HpackEncoder } from '../../../common/codec/http2/hpack-encoder.ts';
import { HboneClient } from '../../../common/hbone/client.ts';
import { HboneServerConnection } from '../../../common/hbone/server.ts';
import { defaultClientLimits, defaultServerLimits } from '../../../common/hbone/types.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { memoryPair, RawPeer, settle } from '../../support/tunnels.ts';

interface Reaction {
  /** Method and authority of what arrived. */
  readonly requests: string[];
  /** Errors, as the peer sees them: `goaway CODE`, `rst STREAM CODE`. */
  readonly errors: string[];
}

type Serve = (socket: Duplex, requests: string[]) => void;

const ours: Serve = (socket, requests) => {
  new HboneServerConnection(socket, {
    clock: new FakeClock(),
    limits: { ...defaultServerLimits, maxFrameSize: DEFAULT_FRAME_SIZE, streamWindow: 65_535, connectionWindow: 65_535 },
    onConnect: ({ method, authority }) => requests.push(`${method} ${authority}`),
    onClose() {},
  });
};

const nodes: Serve = (socket, requests) => {
  const session = http2.performServerHandshake(socket);
  session.on('stream', (stream, headers) => {
    requests.push(`${headers[':method']} ${headers[':authority']}`);
    stream.on('error', () => {});
  });
  session.on('error', () => {});
};

async function reaction(serve: Serve, frames: readonly Buffer[]): Promise<Reaction> {
  const [near, far] = memoryPair();
  const requests: string[] = [];
  far.on('error', () => {});
  serve(far, requests);
  const peer = new RawPeer(near, 'client');
  await settle();
  peer.take();
  await peer.send(...frames);
  const errors = peer.take().flatMap((event) => {
    const [what, stream, code] = event.split(' ');
    if (what === 'goaway') return [`goaway ${code}`];
    return what === 'rst' ? [`rst ${stream} ${code}`] : [];
  });
  near.destroy();
  far.destroy();
  return { requests, errors };
}

const CONNECT: HeaderField[] = [
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
];

function headersWith(encoder: HpackEncoder) {
  return (streamId: number, fields = CONNECT, endStream = false): Buffer =>
    headerFrames(streamId, encoder.encode(fields), endStream, DEFAULT_FRAME_SIZE);
}

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const CASES: [name: string, frames: (headers: ReturnType<typeof headersWith>) => Buffer[]][] = [
  ['a request', (headers) => [headers(1)]],
  [
    'requests and their ends',
    (headers) => [headers(1), headers(3), frame(FrameType.DATA, Flag.END_STREAM, 1), rstStreamFrame(3, 8), headers(5)],
  ],
  ['DATA on stream 0', () => [hex('000000 00 00 00000000')]],
  ['DATA on an idle stream', () => [frame(FrameType.DATA, 0, 1, Buffer.alloc(3))]],
  ['padding as long as the frame', (headers) => [headers(1), hex('000003 00 08 00000001 03 0000')]],
  ['HEADERS on stream 0', () => [hex('000001 01 04 00000000 82')]],
  ['HEADERS on an even stream', (headers) => [headers(2)]],
  ['padding longer than HEADERS', () => [hex('000002 01 0c 00000001 05 82')]],
  ['RST_STREAM on stream 0', () => [hex('000004 03 00 00000000 00000008')]],
  ['RST_STREAM on an idle stream', () => [rstStreamFrame(7, 8)]],
  ['RST_STREAM of a wrong size', (headers) => [headers(1), hex('000003 03 00 00000001 000008')]],
  ['SETTINGS on a stream', () => [hex('000000 04 00 00000001')]],
  ['SETTINGS of a wrong size', () => [hex('000005 04 00 00000000 0003000000')]],
  ['SETTINGS with ACK and a payload', () => [hex('000006 04 01 00000000 000300000064')]],
  ['SETTINGS_ENABLE_PUSH of 2', () => [settingsFrame([[2, 2]])]],
  ['SETTINGS_INITIAL_WINDOW_SIZE too large', () => [settingsFrame([[4, 0x80000000]])]],
  ['SETTINGS_MAX_FRAME_SIZE too small', () => [settingsFrame([[5, 16383]])]],
  ['PUSH_PROMISE', (headers) => [headers(1), hex('000005 05 04 00000001 00000002 82')]],
  ['PING on a stream', () => [hex('000008 06 00 00000001 0102030405060708')]],
  ['PING of a wrong size', () => [hex('000007 06 00 00000000 01020304050607')]],
  ['GOAWAY on a stream', () => [hex('000008 07 00 00000001 0000000000000000')]],
  ['WINDOW_UPDATE of a wrong size', () => [hex('000003 08 00 00000000 000001')]],
  ['WINDOW_UPDATE by 0', () => [hex('000004 08 00 00000000 00000000')]],
  ['WINDOW_UPDATE on an idle stream', () => [windowUpdateFrame(9, 1)]],
  ['a connection window beyond 2^31-1', () => [windowUpdateFrame(0, 0x7fffffff)]],
  ['CONTINUATION without HEADERS', () => [hex('000001 09 04 00000001 82')]],
  ['a frame inside a header block', () => [hex('000001 01 00 00000001 82'), pingFrame(Buffer.alloc(8), false)]],
  ['a frame that is too large', (headers) => [headers(1), frame(FrameType.DATA, 0, 1, Buffer.alloc(16_385))]],
  ['index 0 in a header block', () => [headerFrames(1, Buffer.of(0x80), false, 100)]],
  ['an index beyond the tables', () => [headerFrames(1, Buffer.of(0xff, 0x40), false, 100)]],
  ['a broken Huffman string', () => [headerFrames(1, hex('4084ffffffff0161'), false, 100)]],
  ['a table size update that is too large', () => [headerFrames(1, hex('3fe21f'), false, 100)]],
  ['CONNECT with :path', (headers) => [headers(1, [...CONNECT, [':path', '/']])]],
  ['CONNECT without :authority', (headers) => [headers(1, [[':method', 'CONNECT']])]],
  ['a field name in upper case', (headers) => [headers(1, [...CONNECT, ['Baggage', 'x']])]],
  ['a connection field', (headers) => [headers(1, [...CONNECT, ['connection', 'close']])]],
  [
    'a pseudo-header field after others',
    (headers) => [
      headers(1, [
        [':method', 'CONNECT'],
        ['a', 'b'],
        [':authority', 'a:1'],
      ]),
    ],
  ],
  [
    'GET',
    (headers) => [
      headers(
        1,
        [
          [':method', 'GET'],
          [':scheme', 'http'],
          [':path', '/'],
          [':authority', 'a'],
        ],
        true,
      ),
    ],
  ],
];

for (const [name, frames] of CASES) {
  test(`our server sees ${name} as Node's does`, async () => {
    const [mine, theirs] = [
      await reaction(ours, frames(headersWith(new HpackEncoder()))),
      await reaction(nodes, frames(headersWith(new HpackEncoder()))),
    ];
    assert.deepEqual(mine, theirs);
  });
}

const field = fc.tuple(fc.stringMatching(/^x-[a-z0-9-]{1,20}$/), fc.stringMatching(/^[!-~]([ -~]{0,80}[!-~])?$/));
const fieldLists = fc.array(fc.array(field, { maxLength: 6 }), { minLength: 1, maxLength: 5 });

/** Fields of one name are joined by Node, so each name comes once. */
const unique = (fields: HeaderField[]): HeaderField[] => [...new Map(fields)];

test("Node's decoder reads what our encoder writes", async () => {
  await fc.assert(
    fc.asyncProperty(fieldLists, fc.boolean(), async (lists, huffman) => {
      const [near, far] = memoryPair();
      const seen: HeaderField[][] = [];
      const session = http2.performServerHandshake(far);
      session.on('stream', (_stream, headers) => seen.push(Object.entries(headers).map(([name, value]) => [name, String(value)])));
      const peer = new RawPeer(near, 'client');
      const encoder = new HpackEncoder({ huffman, unindexed: new Set(['x-a']) });
      const sent = lists.map((list) => [...CONNECT, ...unique(list)]);
      await peer.send(...sent.map((fields, i) => headerFrames(2 * i + 1, encoder.encode(fields), false, DEFAULT_FRAME_SIZE)));
      assert.deepEqual(seen, sent);
      session.destroy();
      near.destroy();
    }),
    { numRuns: 40 },
  );
});

test("our decoder reads what Node's encoder writes", async () => {
  await fc.assert(
    fc.asyncProperty(fieldLists, async (lists) => {
      const [near, far] = memoryPair();
      const seen: HeaderField[][] = [];
      const server = new HboneServerConnection(far, {
        clock: new FakeClock(),
        limits: defaultServerLimits,
        onConnect: ({ headers }) => seen.push([...headers]),
        onClose() {},
      });
      const session = http2.connect('http://peer', { createConnection: () => near });
      session.on('error', () => {});
      const sent = lists.map(unique);
      for (const fields of sent) {
        session
          .request({ ':method': 'CONNECT', ':authority': 'a:1', ...Object.fromEntries(fields) }, { endStream: false })
          .on('error', () => {});
      }
      await settle(30);
      assert.deepEqual(seen, sent);
      server.destroy();
      session.destroy();
    }),
    { numRuns: 40 },
  );
});

test("our client takes from Node's server what it takes from ours", async () => {
  const [near, far] = memoryPair();
  const session = http2.performServerHandshake(far);
  session.on('stream', (stream, headers) => {
    if (headers[':authority'] === 'no:1')
      stream.respond({ ':status': 401, 'x-warren-refusal': 'POLICY_DENIED; a/b; c' }, { endStream: true });
    else stream.respond({ ':status': 200, baggage: 'a=b' });
  });
  const client = new HboneClient(near, { clock: new FakeClock(), limits: defaultClientLimits, onClose() {} });
  await assert.rejects(client.connect({ authority: 'no:1', headers: [] }), {
    message: 'http status: 401 Unauthorized (POLICY_DENIED, policy a/b, id c)',
  });
  const { headers } = await client.connect({ authority: 'yes:1', headers: [] });
  assert.deepEqual(
    headers.find(([name]) => name === 'baggage'),
    ['baggage', 'a=b'],
  );
  client.destroy();
  session.destroy();
});
