import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import type { ProxyError } from '../../../common/base/errors.ts';
import { ErrorCode } from '../../../common/codec/http2/errors.ts';
import {
  CONNECTION_PREFACE,
  Flag,
  FrameType,
  frame,
  headerFrames,
  pingFrame,
  rstStreamFrame,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../common/codec/http2/frames.ts';
import type { HeaderField } from '../../../common/codec/http2/header-tables.ts';
import { HpackEncoder } from '../../../common/codec/http2/hpack-encoder.ts';
import { HboneClient } from '../../../common/hbone/client.ts';
import { HboneServerConnection } from '../../../common/hbone/server.ts';
import { type ConnectRequest, defaultClientLimits, defaultServerLimits, type HboneLimits } from '../../../common/hbone/types.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { RawPeer, settle } from '../../support/tunnels.ts';

const CONNECT: HeaderField[] = [
  [':method', 'CONNECT'],
  [':authority', '10.0.0.1:80'],
];
const data = (streamId: number, text: string, flags = 0): Buffer => frame(FrameType.DATA, flags, streamId, Buffer.from(text));

interface Fixture {
  readonly peer: RawPeer;
  readonly clock: FakeClock;
  readonly requests: ConnectRequest[];
  readonly closed: { error: ProxyError | undefined }[];
  readonly server: HboneServerConnection;
  headers(streamId: number, fields?: HeaderField[], endStream?: boolean): Buffer;
}

/** Our server, and a client whose frames are written by hand. */
async function serverFixture(limits: Partial<HboneLimits> = {}, asked?: (request: ConnectRequest) => unknown): Promise<Fixture> {
  const [near, far] = duplexPair({ highWaterMark: 1 << 20 });
  const clock = new FakeClock();
  const requests: ConnectRequest[] = [];
  const closed: { error: ProxyError | undefined }[] = [];
  const server = new HboneServerConnection(far, {
    clock,
    limits: { ...defaultServerLimits, ...limits },
    onConnect: (request) => {
      requests.push(request);
      asked?.(request);
    },
    onClose: (error) => closed.push({ error }),
  });
  const peer = new RawPeer(near, 'client');
  await settle();
  peer.take();
  const encoder = new HpackEncoder();
  const headers = (streamId: number, fields = CONNECT, endStream = false) =>
    headerFrames(streamId, encoder.encode(fields), endStream, 16384);
  return { peer, clock, requests, closed, server, headers };
}

async function clientFixture() {
  const [near, far] = duplexPair({ highWaterMark: 1 << 20 });
  const clock = new FakeClock();
  const closed: { error: ProxyError | undefined }[] = [];
  const client = new HboneClient(near, { clock, limits: defaultClientLimits, onClose: (error) => closed.push({ error }) });
  const peer = new RawPeer(far, 'server');
  await settle();
  const encoder = new HpackEncoder();
  const headers = (streamId: number, fields: HeaderField[], endStream = false) =>
    headerFrames(streamId, encoder.encode(fields), endStream, 16384);
  return { peer, clock, closed, client, headers };
}

test('each side announces the windows and limits of a tunnel', async () => {
  const { peer } = await clientFixture();
  assert.deepEqual(peer.take().slice(0, 2), ['settings 2=0 4=4194304 5=1048576 6=16384', 'window 0 16711681']);
  const [near, far] = duplexPair();
  new HboneServerConnection(far, { clock: new FakeClock(), limits: defaultServerLimits, onConnect() {}, onClose() {} });
  const other = new RawPeer(near, 'client');
  await settle();
  assert.deepEqual(other.take(), ['settings 3=200 4=4194304 5=1048576 6=65536', 'window 0 16711681', 'settings ack']);
});

test('a CONNECT has only :method and :authority before its own fields, and gets its answer', async () => {
  const { peer, client, headers } = await clientFixture();
  peer.take();
  const opening = client.connect({ authority: '10.0.0.1:80', headers: [['traceparent', '00-a']] });
  await settle();
  assert.equal(
    peer.take()[0],
    `headers 1: ${new HpackEncoder({ unindexed: new Set(['traceparent']) }).encode([...CONNECT, ['traceparent', '00-a']]).toString('hex')}`,
  );
  await peer.send(
    headers(1, [[':status', '103']]),
    headers(1, [
      [':status', '200'],
      ['baggage', 'a=b'],
    ]),
  );
  assert.deepEqual((await opening).headers, [['baggage', 'a=b']]);
});

test('an answer other than 200 rejects with status, fields and the reason that the peer gave', async () => {
  const { peer, client, headers } = await clientFixture();
  const opening = client.connect({ authority: '10.0.0.1:80', headers: [] });
  const refusal: HeaderField = ['x-warren-refusal', 'POLICY_DENIED; shop/payments; 0af7'];
  const checked = assert.rejects(opening, {
    code: 'UPSTREAM_STATUS',
    message: 'http status: 401 Unauthorized (POLICY_DENIED, policy shop/payments, id 0af7)',
    status: 401,
    policy: 'shop/payments',
    headers: [refusal],
  });
  await peer.send(headers(1, [[':status', '401'], refusal], true));
  await checked;
  assert.equal(client.openStreams, 0);
});

test('a refusal without a reason says the status alone', async () => {
  const { peer, client, headers } = await clientFixture();
  const checked = assert.rejects(client.connect({ authority: 'a:1', headers: [] }), { message: 'http status: 503 Service Unavailable' });
  await peer.send(headers(1, [[':status', '503']], true), rstStreamFrame(1, ErrorCode.NO_ERROR));
  await checked;
});

test('an aborted CONNECT is cancelled at the peer and rejects with the reason', async () => {
  const { peer, client } = await clientFixture();
  const abort = new AbortController();
  const opening = client.connect({ authority: 'a:1', headers: [], signal: abort.signal });
  const checked = assert.rejects(opening, { message: 'enough' });
  await settle();
  peer.take();
  abort.abort(new Error('enough'));
  await checked;
  await settle();
  assert.deepEqual(peer.take(), ['rst 1 8']);
});

const MALFORMED: [name: string, fields: HeaderField[]][] = [
  ['with :scheme and :path', [...CONNECT, [':scheme', 'https'], [':path', '/']]],
  ['without :authority', [[':method', 'CONNECT']]],
  ['without :method', [[':authority', 'a:1']]],
  ['with a field name in upper case', [...CONNECT, ['Baggage', 'x']]],
  ['with a connection field', [...CONNECT, ['connection', 'close']]],
  [
    'with a pseudo-header field after others',
    [
      [':method', 'CONNECT'],
      ['baggage', 'x'],
      [':authority', 'a:1'],
    ],
  ],
  ['with an unknown pseudo-header field', [...CONNECT, [':wat', 'x']]],
  ['with :authority twice', [...CONNECT, [':authority', 'b:1']]],
  ['with :protocol', [...CONNECT, [':protocol', 'websocket']]],
  ['with a line feed in a value', [...CONNECT, ['baggage', 'a\nb']]],
  ['with te other than trailers', [...CONNECT, ['te', 'gzip']]],
];
for (const [name, fields] of MALFORMED) {
  test(`a request ${name} is reset with PROTOCOL_ERROR, and the connection goes on`, async () => {
    const { peer, requests, headers } = await serverFixture();
    await peer.send(headers(1, fields), headers(3));
    assert.deepEqual(peer.take(), ['rst 1 1']);
    assert.deepEqual(
      requests.map(({ authority }) => authority),
      ['10.0.0.1:80'],
    );
  });
}

test('a request that is no CONNECT is handed on with its method, for a proper refusal', async () => {
  const { peer, requests, headers } = await serverFixture();
  await peer.send(
    headers(
      1,
      [
        [':method', 'GET'],
        [':scheme', 'http'],
        [':path', '/'],
        ['host', 'a'],
      ],
      true,
    ),
  );
  assert.deepEqual([requests[0]?.method, requests[0]?.authority], ['GET', 'a']);
  requests[0]?.refuse(400, []);
  await settle();
  assert.deepEqual(peer.take(), ['headers 1: 8c end'], 'nothing to reset: the client had ended its side');
});

test('a header list beyond the limit is answered with 431', async () => {
  const { peer, requests, headers } = await serverFixture({ maxHeaderListSize: 1000 });
  await peer.send(headers(1, [...CONNECT, ['baggage', 'x'.repeat(1000)]]), headers(3));
  assert.match(peer.take()[0] ?? '', /^headers 1: .* end$/);
  assert.equal(requests.length, 1);
});

test('streams beyond the limit are refused and may come again', async () => {
  const { peer, requests, headers } = await serverFixture({ maxConcurrentStreams: 2 });
  await peer.send(headers(1), headers(3), headers(5));
  assert.deepEqual(peer.take(), ['rst 5 7']);
  await peer.send(rstStreamFrame(1, ErrorCode.CANCEL), headers(7));
  assert.deepEqual([requests.length, peer.take()], [3, []]);
});

test('a request whose stream is reset before the answer is aborted, and accepting it afterwards is harmless', async () => {
  const { peer, requests, headers } = await serverFixture();
  await peer.send(headers(1), headers(3));
  const [first, second] = requests;
  assert.equal(first?.signal.aborted, false);
  await peer.send(rstStreamFrame(1, ErrorCode.CANCEL), rstStreamFrame(3, ErrorCode.CANCEL));
  assert.deepEqual([first?.signal.aborted, second?.signal.aborted], [true, true]);
  first?.accept([]);
  second?.refuse(503, []);
  await settle();
  assert.deepEqual(peer.take(), []);
});

type Send = (fixture: Fixture) => Buffer[];
const FATAL: [name: string, code: keyof typeof ErrorCode, send: Send][] = [
  ['DATA on a stream that nobody opened', 'PROTOCOL_ERROR', () => [data(1, 'x')]],
  ['RST_STREAM on a stream that nobody opened', 'PROTOCOL_ERROR', () => [rstStreamFrame(9, 8)]],
  ['WINDOW_UPDATE on a stream that nobody opened', 'PROTOCOL_ERROR', () => [windowUpdateFrame(9, 8)]],
  ['a stream with an even number', 'PROTOCOL_ERROR', ({ headers }) => [headers(2)]],
  ['a stream number that goes back', 'STREAM_CLOSED', ({ headers }) => [headers(5), headers(3)]],
  ['a header block that does not decode', 'COMPRESSION_ERROR', () => [headerFrames(1, Buffer.of(0xff), false, 100)]],
  ['a connection window beyond 2^31-1', 'FLOW_CONTROL_ERROR', () => [windowUpdateFrame(0, 0x7fffffff)]],
  ['an initial window beyond 2^31-1', 'FLOW_CONTROL_ERROR', () => [settingsFrame([[4, 0x80000000]])]],
  [
    'an initial window that lifts a stream beyond 2^31-1',
    'FLOW_CONTROL_ERROR',
    ({ headers }) => [headers(1), windowUpdateFrame(1, 0x7fff0000), settingsFrame([[4, 0x7fffffff]])],
  ],
  ['a frame beyond our frame size', 'FRAME_SIZE_ERROR', ({ headers }) => [headers(1), Buffer.from('100001000000000001', 'hex')]],
];
for (const [name, code, send] of FATAL) {
  test(`${name} ends the connection with ${code}`, async () => {
    const fixture = await serverFixture();
    await fixture.peer.send(...send(fixture));
    const events = fixture.peer.take();
    assert.match(events.at(-1) ?? '', new RegExp(`^goaway \\d+ ${ErrorCode[code]} .+`));
    assert.equal(fixture.peer.closed, true);
    assert.equal(fixture.closed[0]?.error?.code, 'HTTP2_FAILURE');
    assert.match(fixture.closed[0]?.error?.message ?? '', new RegExp(`^${code}: `));
  });
}

const STREAM_ERRORS: [name: string, code: keyof typeof ErrorCode, send: Send][] = [
  ['DATA after END_STREAM', 'STREAM_CLOSED', ({ headers }) => [headers(1, CONNECT, true), data(1, 'x')]],
  ['HEADERS after END_STREAM', 'STREAM_CLOSED', ({ headers }) => [headers(1, CONNECT, true), headers(1)]],
  ['trailers', 'PROTOCOL_ERROR', ({ headers }) => [headers(1), headers(1, [['x', 'y']], true)]],
  ['a stream window beyond 2^31-1', 'FLOW_CONTROL_ERROR', ({ headers }) => [headers(1), windowUpdateFrame(1, 0x7fffffff)]],
  ['WINDOW_UPDATE by 0', 'PROTOCOL_ERROR', ({ headers }) => [headers(1), frame(FrameType.WINDOW_UPDATE, 0, 1, Buffer.alloc(4))]],
];
for (const [name, code, send] of STREAM_ERRORS) {
  test(`${name} resets the stream with ${code}, and the connection goes on`, async () => {
    const fixture = await serverFixture();
    await fixture.peer.send(...send(fixture), fixture.headers(7), pingFrame(Buffer.alloc(8), false));
    assert.deepEqual(fixture.peer.take(), [`rst 1 ${ErrorCode[code]}`, 'ping 0000000000000000 ack']);
    assert.equal(fixture.requests.at(-1)?.signal.aborted, false);
  });
}

test("DATA beyond the stream's window resets the stream; beyond the connection's it ends the connection", async () => {
  const { peer, headers, closed } = await serverFixture({ streamWindow: 1000, connectionWindow: 70_000 });
  await peer.send(settingsAckFrame(), headers(1), frame(FrameType.DATA, 0, 1, Buffer.alloc(1000)));
  assert.deepEqual(peer.take(), []);
  await peer.send(data(1, 'x'));
  assert.deepEqual(peer.take(), ['rst 1 3']);
  await peer.send(frame(FrameType.DATA, 0, 1, Buffer.alloc(70_001)));
  assert.match(peer.take().at(-1) ?? '', /^goaway 1 3 /);
  assert.equal(closed.length, 1);
});

test('frames that were under way when we reset a stream are excused', async () => {
  const { peer, requests, headers } = await serverFixture();
  await peer.send(headers(1));
  requests[0]?.refuse(401, []);
  await settle();
  peer.take();
  await peer.send(data(1, 'late'), windowUpdateFrame(1, 1), headers(1, [['x', 'y']], true), rstStreamFrame(1, 8));
  assert.deepEqual(peer.take(), []);
});

test('a peer that has reset a stream too is not excused for what it sends after that', async () => {
  const { peer, requests, headers } = await serverFixture();
  await peer.send(headers(1));
  requests[0]?.refuse(401, []);
  await settle();
  peer.take();
  await peer.send(rstStreamFrame(1, ErrorCode.CANCEL), headers(1));
  assert.match(peer.take().at(-1) ?? '', new RegExp(`^goaway \\d+ ${ErrorCode.STREAM_CLOSED} `));
});

test('DATA on a stream that ended long ago is a stream error', async () => {
  const { peer, requests, headers } = await serverFixture();
  await peer.send(headers(1));
  await peer.send(rstStreamFrame(1, 8), data(1, 'x'));
  assert.equal(requests[0]?.signal.aborted, true);
  assert.deepEqual(peer.take(), [`rst 1 ${ErrorCode.STREAM_CLOSED}`]);
});

test('padding counts for flow control and is given back', async () => {
  const { peer, requests, headers } = await serverFixture({ streamWindow: 200, connectionWindow: 70_000 });
  await peer.send(
    headers(1),
    frame(FrameType.DATA, Flag.PADDED, 1, Buffer.concat([Buffer.of(150), Buffer.from('abc'), Buffer.alloc(150)])),
  );
  assert.deepEqual(peer.take(), ['window 1 151']);
  requests[0]?.accept([]);
});

const FLOODS: [name: string, frames: (fixture: Fixture) => Buffer[], reason: RegExp][] = [
  ['PING', () => Array.from({ length: 1001 }, () => pingFrame(Buffer.alloc(8), false)), /PING frames in 10 s/],
  ['SETTINGS', () => Array.from({ length: 101 }, () => settingsFrame([])), /SETTINGS frames/],
  ['SETTINGS acknowledgements', () => Array.from({ length: 101 }, settingsAckFrame), /SETTINGS frames/],
  ['empty DATA', ({ headers }) => [headers(1), ...Array.from({ length: 501 }, () => data(1, ''))], /empty DATA/],
  [
    'DATA of padding only',
    ({ headers }) => [headers(1), ...Array.from({ length: 501 }, () => frame(FrameType.DATA, Flag.PADDED, 1, Buffer.of(0)))],
    /empty DATA/,
  ],
  [
    'rapid reset',
    ({ headers }) => Array.from({ length: 501 }, (_, i) => [headers(2 * i + 1), rstStreamFrame(2 * i + 1, 8)]).flat(),
    /reset before they were answered/,
  ],
  [
    'PRIORITY',
    ({ headers }) => [headers(1), ...Array.from({ length: 1001 }, () => frame(FrameType.PRIORITY, 0, 1, Buffer.alloc(5)))],
    /PRIORITY and unknown/,
  ],
  [
    'CONTINUATION',
    () => [frame(FrameType.HEADERS, 0, 1), ...Array.from({ length: 17 }, () => frame(FrameType.CONTINUATION, 0, 1))],
    /CONTINUATION frames/,
  ],
  ['malformed requests', ({ headers }) => Array.from({ length: 201 }, (_, i) => headers(2 * i + 1, [['x', 'y']])), /malformed/],
];
for (const [name, frames, reason] of FLOODS) {
  test(`a flood of ${name} ends the connection with ENHANCE_YOUR_CALM and one reason`, async () => {
    const fixture = await serverFixture();
    await fixture.peer.send(...frames(fixture));
    assert.match(fixture.peer.take().at(-1) ?? '', /^goaway \d+ 11 /);
    assert.equal(fixture.closed.length, 1);
    assert.match(fixture.closed[0]?.error?.message ?? '', /^ENHANCE_YOUR_CALM: /);
    assert.match(fixture.closed[0]?.error?.message ?? '', reason);
  });
}

for (const [how, answer] of [
  ['accepted', (request: ConnectRequest) => request.accept([])],
  ['refused', (request: ConnectRequest) => request.refuse(503, [])],
] as const) {
  test(`a flood of rapid reset is one where requests are ${how} at once, too`, async () => {
    const { peer, headers, closed } = await serverFixture({}, answer);
    await peer.send(...Array.from({ length: 501 }, (_, i) => [headers(2 * i + 1), rstStreamFrame(2 * i + 1, 8)]).flat());
    assert.match(closed[0]?.error?.message ?? '', /^ENHANCE_YOUR_CALM: .*reset before they were answered/);
  });
}

test('tunnels that are reset after their answer has left are no flood', async () => {
  const { peer, headers, closed } = await serverFixture({}, (request) => request.accept([]));
  for (let i = 0; i < 501; i++) {
    await peer.send(headers(2 * i + 1));
    await settle();
    await peer.send(rstStreamFrame(2 * i + 1, 8));
  }
  assert.deepEqual(closed, []);
});

test('what would be a flood in ten seconds is none in a longer time', async () => {
  const { peer, clock, closed } = await serverFixture();
  for (let i = 0; i < 3; i++) {
    await peer.send(...Array.from({ length: 90 }, () => settingsFrame([])));
    await clock.advance(9_999);
    await peer.send(...['keep-up!'].map((text) => pingFrame(Buffer.from(text), true)));
    await clock.advance(1);
  }
  assert.deepEqual(closed, []);
});

test('a PING comes after ten seconds, again ten seconds after its answer, and silence ends the connection after twenty', async () => {
  const { peer, clock, closed } = await serverFixture();
  await clock.advance(9_999);
  assert.deepEqual(peer.take(), []);
  await clock.advance(1);
  await settle();
  const [ping] = peer.take();
  assert.match(ping ?? '', /^ping /);
  await clock.advance(19_000);
  await peer.send(pingFrame(Buffer.from('keep-up!'), true));
  await clock.advance(9_999);
  assert.deepEqual(peer.take(), []);
  await clock.advance(1);
  await settle();
  assert.equal(peer.take()[0], ping);
  await clock.advance(20_010);
  await settle();
  assert.deepEqual(peer.take(), ['goaway 0 0 ']);
  assert.match(closed[0]?.error?.message ?? '', /no answer to a PING/);
});

test('a client drops a connection whose peer is silent, and its tunnels fail', async () => {
  const { clock, closed, client, peer, headers } = await clientFixture();
  const opening = client.connect({ authority: 'a:1', headers: [] });
  await peer.send(headers(1, [[':status', '200']]));
  await opening;
  const second = assert.rejects(client.connect({ authority: 'a:1', headers: [] }), { code: 'CONNECTION_LOST' });
  await clock.advance(30_010);
  await settle();
  await second;
  assert.equal(closed[0]?.error?.code, 'CONNECTION_LOST');
  assert.equal(client.usable, false);
});

test('a peer that does not greet within ten seconds is cut off', async () => {
  const [near, far] = duplexPair();
  const clock = new FakeClock();
  const closed: (ProxyError | undefined)[] = [];
  new HboneServerConnection(far, { clock, limits: defaultServerLimits, onConnect() {}, onClose: (error) => closed.push(error) });
  near.resume();
  near.on('end', () => near.end());
  near.write(CONNECTION_PREFACE.subarray(0, 20));
  await clock.advance(10_000);
  await settle();
  assert.match(closed[0]?.message ?? '', /^SETTINGS_TIMEOUT/);
  assert.equal(clock.pending, 0, 'no timer is left');
});

test('a header block that trickles is cut off after ten seconds', async () => {
  const { peer, clock, closed, headers } = await serverFixture();
  const block = headers(1);
  await peer.send(block.subarray(0, 12));
  await clock.advance(9_000);
  await peer.send(block.subarray(12, 13));
  assert.equal(closed.length, 0);
  await clock.advance(1_000);
  await settle();
  assert.match(closed[0]?.error?.message ?? '', /a header block not complete within 10 s/);
});

test('a header block that comes in time leaves no timer behind', async () => {
  const { peer, clock, headers } = await serverFixture();
  const before = clock.pending;
  const block = headers(1);
  await peer.send(block.subarray(0, 12));
  assert.equal(clock.pending, before + 1);
  await peer.send(block.subarray(12));
  assert.equal(clock.pending, before);
});

test('draining announces itself, takes what was under way, and closes after the last stream', async () => {
  const { peer, requests, headers, server, closed } = await serverFixture();
  await peer.send(headers(1));
  requests[0]?.accept([]);
  server.drain();
  await settle();
  assert.deepEqual(peer.take().slice(1), ['goaway 2147483647 0 ', 'ping 647261696e696e67']);
  await peer.send(headers(3));
  assert.equal(requests.length, 2, 'the peer had not heard yet');
  await peer.send(pingFrame(Buffer.from('draining'), true));
  assert.deepEqual(peer.take(), ['goaway 3 0 ']);
  await peer.send(headers(5));
  assert.deepEqual(peer.take(), ['rst 5 7']);
  await peer.send(rstStreamFrame(1, 8));
  assert.equal(closed.length, 0);
  requests[1]?.refuse(503, []);
  await settle();
  assert.deepEqual(closed, [{ error: undefined }]);
  assert.equal(peer.closed, true);
});

test('a client fails the streams that a GOAWAY leaves out, finishes the others, and closes', async () => {
  const { peer, client, headers, closed } = await clientFixture();
  const first = client.connect({ authority: 'a:1', headers: [] });
  const left = assert.rejects(client.connect({ authority: 'a:1', headers: [] }), { name: 'TunnelNotOpened' });
  await peer.send(headers(1, [[':status', '200']]));
  await peer.send(frame(FrameType.GOAWAY, 0, 0, Buffer.from('0000000100000000', 'hex')));
  await left;
  assert.deepEqual([client.usable, client.draining, client.openStreams, closed.length], [false, true, 1, 0]);
  (await first).destroy();
  await settle();
  assert.deepEqual(closed, [{ error: undefined }]);
});

test('a GOAWAY with an error is what the connection ended with', async () => {
  const { peer, closed } = await clientFixture();
  await peer.send(Buffer.from('00000c070000000000000000000000000b63616c6d', 'hex'));
  assert.match(closed[0]?.error?.message ?? '', /^the peer ended the connection: ENHANCE_YOUR_CALM \(calm\)/);
});

test('a connection that is cut fails its tunnels and says so once', async () => {
  const { peer, requests, headers, closed } = await serverFixture();
  await peer.send(headers(1));
  peer.destroy();
  await settle();
  assert.equal(requests[0]?.signal.aborted, true);
  assert.deepEqual(
    closed.map(({ error }) => error?.code),
    ['CONNECTION_LOST'],
  );
});

test('an unused connection that is closed has ended in order', async () => {
  const { peer, closed } = await serverFixture();
  peer.destroy();
  await settle();
  assert.deepEqual(closed, [{ error: undefined }]);
});

test('a peer that has not heard of a small window yet may still use the default one', async () => {
  const { peer, requests, headers } = await serverFixture({ streamWindow: 1000 });
  await peer.send(headers(1), frame(FrameType.DATA, 0, 1, Buffer.alloc(65_535)));
  assert.deepEqual(peer.take(), []);
  await peer.send(data(1, 'x'));
  assert.deepEqual([peer.take(), requests[0]?.signal.aborted], [['rst 1 3'], true]);
});

test('an answer that waits to be read when the time is over still counts', async () => {
  const { peer, clock, closed } = await serverFixture();
  await clock.advance(10_000);
  await clock.advance(20_000);
  await peer.send(pingFrame(Buffer.from('keep-up!'), true));
  await clock.advance(5_000);
  assert.deepEqual(closed, []);
});
