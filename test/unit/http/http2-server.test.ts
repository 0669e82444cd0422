/** Our HTTP/2 server against frames written by hand: what a request must be, windows, resets, GOAWAY, floods. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import {
  Flag,
  FrameType,
  frame,
  headerFrames,
  rstStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../../common/codec/http2/frames.ts';
import { serveHttp2 } from '../../../common/http/http2-server.ts';
import { answer, Collector, echo, GivenBody, served } from '../../support/http-ends.ts';
import { data, type Field, GET, type Http2Peer, POST, servedPeer } from '../../support/http2-peer.ts';

/** The answer to a PING that the peer took. */
const pong = (taken = ''): Buffer => frame(FrameType.PING, Flag.ACK, 0, Buffer.from(taken.split(' ')[1] ?? '', 'hex'));

const with_ = (more: Field[], base = GET): Field[] => [...base, ...more];
const without = (name: string): Field[] => GET.filter(([other]) => other !== name);

const MALFORMED: readonly (readonly [string, Field[]])[] = [
  ['no :method', without(':method')],
  ['no :scheme', without(':scheme')],
  ['no :path', without(':path')],
  ['no :authority and no Host', without(':authority')],
  ['an empty :path', with_([[':path', '']], without(':path'))],
  ['a :path that is no path', with_([[':path', 'a']], without(':path'))],
  ['a star for GET', with_([[':path', '*']], without(':path'))],
  ['a :path with a space', with_([[':path', '/ HTTP/1.1']], without(':path'))],
  ['a :path with a line break', with_([[':path', '/\r\nHost: b']], without(':path'))],
  ['a :path with a fragment', with_([[':path', '/#a']], without(':path'))],
  ['a :method with a space', with_([[':method', 'GET /admin']], without(':method'))],
  ['an unknown :scheme', with_([[':scheme', 'file']], without(':scheme'))],
  ['an :authority with a user', with_([[':authority', 'u@a']], without(':authority'))],
  ['an :authority with a path', with_([[':authority', 'a/b']], without(':authority'))],
  ['an empty :authority', with_([[':authority', '']], without(':authority'))],
  [':authority and Host that differ', with_([['host', 'b']])],
  [
    'two Hosts',
    with_([
      ['host', 'a'],
      ['host', 'a'],
    ]),
  ],
  ['a pseudo-header twice', with_([[':path', '/b']])],
  ['a pseudo-header after a field', [['x', 'y'], ...GET]],
  ['an unknown pseudo-header', with_([[':status', '200']])],
  ['an upper-case name', with_([['X-Name', 'a']])],
  ['a name with a space', with_([['x name', 'a']])],
  ['a name with a colon', with_([['x:y', 'a']])],
  ['an empty name', with_([['', 'a']])],
  ['a value with a line break', with_([['x', 'a\r\ntransfer-encoding: chunked']])],
  ['a value with a NUL', with_([['x', 'a\0']])],
  ['a value with a space before it', with_([['x', ' a']])],
  ['a value with a tab after it', with_([['x', 'a\t']])],
  ['Connection', with_([['connection', 'close']])],
  ['Keep-Alive', with_([['keep-alive', '5']])],
  ['Proxy-Connection', with_([['proxy-connection', 'close']])],
  ['Upgrade', with_([['upgrade', 'websocket']])],
  ['Transfer-Encoding (H2.TE)', with_([['transfer-encoding', 'chunked']])],
  ['a te other than trailers', with_([['te', 'gzip']])],
  [
    'two content-lengths',
    with_([
      ['content-length', '0'],
      ['content-length', '0'],
    ]),
  ],
  ['a content-length with a plus', with_([['content-length', '+0']])],
  ['a content-length without a body (H2.CL)', with_([['content-length', '5']])],
  [':protocol without CONNECT', with_([[':protocol', 'websocket']])],
];

for (const [name, fields] of MALFORMED) {
  test(`${name}: the stream is reset, and the connection goes on`, async () => {
    const { peer, exchanges } = await servedPeer();
    assert.deepEqual(await peer.send(peer.headers(1, fields, true)), ['rst 1 1']);
    assert.equal(exchanges.length, 0);
    await peer.send(peer.headers(3, GET, true));
    assert.equal(exchanges.length, 1);
  });
}

test('a request becomes a neutral head, with one cookie and without what is about the connection', async () => {
  const { peer, exchanges } = await servedPeer();
  await peer.send(
    peer.headers(
      1,
      with_(
        [
          ['cookie', 'a=1'],
          ['te', 'trailers'],
          ['x', 'y'],
          ['cookie', 'b=2'],
          ['host', 'A'],
        ],
        POST,
      ),
      false,
    ),
  );
  assert.deepEqual(exchanges[0]?.head, {
    version: '2',
    method: 'POST',
    scheme: 'http',
    authority: 'a',
    path: '/',
    fields: ['x', 'y', 'cookie', 'a=1; b=2'],
    bodyBytes: undefined,
    upgrade: undefined,
  });
});

test('a body that does not have its content-length resets its stream (H2.CL)', async () => {
  for (const [length, body, end] of [
    ['3', 'abcd', false],
    ['5', 'abcd', true],
  ] as const) {
    const sink = new Collector();
    const { peer } = await servedPeer((exchange) => exchange.body.into(sink));
    const events = await peer.send(peer.headers(1, with_([['content-length', length]], POST), false), data(1, body, end));
    assert.deepEqual(events, ['rst 1 1']);
    assert.equal(sink.error?.code, 'HTTP2_FAILURE');
  }
});

test('trailers go through both ways, and trailers that are none reset the stream', async () => {
  const { peer } = await servedPeer(echo);
  const events = await peer.send(peer.headers(1, POST, false), data(1, 'abc'), peer.headers(1, [['grpc-status', '0']], true));
  assert.deepEqual(events, ['headers 1: :status=200 x-request=POST /', 'data 1 of 3: 616263 padding 0', 'headers 1: grpc-status=0 end']);
  for (const [trailers, end] of [
    [[[':path', '/']], true],
    [[['A', 'b']], true],
    [[['a', 'b']], false],
  ] as [Field[], boolean][]) {
    const body = new Collector();
    const other = await servedPeer((exchange) => exchange.body.into(body));
    assert.deepEqual(await other.peer.send(other.peer.headers(1, POST, false), other.peer.headers(1, trailers, end)), ['rst 1 1']);
    assert.equal(body.error?.code, 'HTTP2_FAILURE');
  }
});

test('CONNECT, unknown expectations and heads beyond the limits are answered', async () => {
  const { peer, exchanges } = await servedPeer(undefined, { maxFieldCount: 10, maxFields: 2000, maxStartLine: 100 });
  const connectFields: Field[] = [
    [':method', 'CONNECT'],
    [':authority', 'a:80'],
  ];
  assert.deepEqual(await peer.send(peer.headers(1, connectFields, true)), ['headers 1: :status=501 content-length=0 end']);
  assert.deepEqual(await peer.send(peer.headers(3, with_([['expect', 'x']], POST), false)), [
    'headers 3: :status=417 content-length=0 end',
    'rst 3 0',
  ]);
  assert.deepEqual(await peer.send(peer.headers(5, with_(Array.from({ length: 20 }, (): Field => ['a', 'b'])), true)), [
    'headers 5: :status=431 content-length=0 end',
  ]);
  assert.deepEqual(await peer.send(peer.headers(7, with_([['a', 'b'.repeat(3000)]]), true)), [
    'headers 7: :status=431 content-length=0 end',
  ]);
  assert.equal(exchanges.length, 0);
});

test('100 is sent when the body is wanted', async () => {
  const body = new Collector();
  const { peer } = await servedPeer((exchange) => exchange.body.into(body));
  assert.deepEqual(await peer.send(peer.headers(1, with_([['expect', '100-continue']], POST), false)), ['headers 1: :status=100']);
});

test('the last DATA frame ends its stream where it has not left yet', async () => {
  const { peer } = await servedPeer((exchange) => answer(exchange, 200, 'hello'));
  assert.deepEqual(await peer.send(peer.headers(1, GET, true)), [
    'headers 1: :status=200 content-length=5',
    'data 1 of 5: 68656c6c6f padding 0 end',
  ]);
});

test('a response waits for the windows of stream and connection, and its source with it', async () => {
  const source = new GivenBody(Array.from({ length: 100 }, () => 'x'.repeat(1000)));
  const { peer } = await servedPeer(
    (exchange) => source.into(exchange.respond({ status: 200, fields: [], bodyBytes: undefined }, source)),
    {},
    [[4, 2500]],
  );
  const sizes = (events: string[]): number[] => events.flatMap((event) => /^data 1 of (\d+)/.exec(event)?.slice(1).map(Number) ?? []);
  assert.deepEqual(sizes(await peer.send(peer.headers(1, GET, true))), [1000, 1000, 500]);
  assert.equal(source.sent, 3000);
  assert.deepEqual(sizes(await peer.send(windowUpdateFrame(1, 100))), [100]);
  assert.deepEqual(sizes(await peer.send(windowUpdateFrame(1, 1400))), [400, 1000]);
  // The stream's window alone does not do: the connection began with 65,535.
  const rest = sizes(await peer.send(windowUpdateFrame(1, 1_000_000)));
  assert.equal(
    rest.reduce((a, b) => a + b),
    65_535 - 4000,
  );
  const last = await peer.send(windowUpdateFrame(0, 1_000_000));
  assert.equal(
    sizes(last).reduce((a, b) => a + b),
    100_000 - 65_535,
  );
  assert.match(last.at(-1) ?? '', / end$/);
});

test('a request body that nobody takes stops at the window; what is taken opens it again', async () => {
  const { peer, exchanges } = await servedPeer();
  const piece = data(1, Buffer.alloc(16_000));
  const events = await peer.send(peer.headers(1, POST, false), ...Array.from({ length: 16 }, () => piece));
  assert.deepEqual(events, []);
  const body = new Collector();
  exchanges[0]?.body.into(body);
  assert.equal(body.bytes, 256_000);
  assert.match((await peer.take()).join(), /^window 1 \d+$/);
  const other = await servedPeer();
  const flood = await other.peer.send(other.peer.headers(1, POST, false), ...Array.from({ length: 17 }, () => piece));
  assert.deepEqual(flood, ['rst 1 3']);
});

test('a sink that says stop gets no more until it resumes', async () => {
  const body = new Collector();
  body.more = false;
  const { peer, exchanges } = await servedPeer((exchange) => exchange.body.into(body));
  await peer.send(peer.headers(1, POST, false), data(1, 'a'.repeat(5000)), data(1, 'b'.repeat(5000)), data(1, 'c', true));
  assert.equal(body.bytes, 5000);
  exchanges[0]?.body.resume();
  assert.equal(body.bytes, 10_000);
  assert.ok(!body.ended);
  exchanges[0]?.body.resume();
  assert.equal(body.text.at(-1), 'c');
});

test('resets: by the client, by the exchange, and after an early answer', async () => {
  const gone: string[] = [];
  const body = new Collector();
  const source = new GivenBody([]);
  const { peer, exchanges, connection } = await servedPeer((exchange) => exchange.onClientGone((error) => gone.push(error.message)));
  await peer.send(peer.headers(1, POST, false));
  exchanges[0]?.body.into(body);
  exchanges[0]?.respond({ status: 200, fields: [], bodyBytes: undefined }, source);
  await peer.send(rstStreamFrame(1, 8));
  assert.deepEqual(gone, ['the peer reset the stream: CANCEL']);
  assert.equal(body.error?.code, 'CONNECTION_LOST');
  assert.ok(source.cancelled);

  await peer.send(peer.headers(3, POST, false));
  exchanges[1]?.abort(new ProxyError('CONNECTION_LOST', 'upstream'));
  assert.deepEqual(
    (await peer.take()).filter((event) => event.startsWith('rst')),
    ['rst 3 2'],
  );

  await peer.send(peer.headers(5, POST, false));
  const early = exchanges[2];
  assert.ok(early);
  answer(early, 403, 'no');
  assert.deepEqual(await peer.take(), ['headers 5: :status=403 content-length=2', 'data 5 of 2: 6e6f padding 0 end', 'rst 5 0']);
  assert.deepEqual(await peer.send(data(5, 'late')), []);
  assert.equal(connection.openExchanges, 0);
});

test('streams beyond the limit are refused', async () => {
  const { peer, exchanges } = await servedPeer(undefined, { maxConcurrentStreams: 2 });
  assert.deepEqual(await peer.send(peer.headers(1, GET, true), peer.headers(3, GET, true), peer.headers(5, GET, true)), ['rst 5 7']);
  assert.equal(exchanges.length, 2);
});

test('a server drains with two GOAWAYs, serves what came before, refuses what comes after, and closes', async () => {
  const { peer, pipe, exchanges, connection, ended, clock } = await servedPeer();
  await peer.send(peer.headers(1, GET, true));
  connection.drain();
  const [first, ping] = await peer.take();
  assert.equal(first, 'goaway 2147483647 0 ');
  await peer.send(peer.headers(3, GET, true));
  assert.equal(exchanges.length, 2);
  assert.deepEqual(await peer.send(pong(ping)), []);
  await peer.send(peer.headers(5, GET, true));
  assert.equal(exchanges.length, 3, 'the layer below the client has heard, the client maybe not yet');
  await clock.advance(1000);
  const again = await peer.take();
  assert.deepEqual(
    again.map((line) => line.split(' ')[0]),
    ['ping'],
  );
  await clock.advance(10_000);
  await peer.send(peer.headers(7, GET, true));
  assert.equal(exchanges.length, 4, 'it was sent before the client, which had not been run for long, saw the second PING');
  assert.deepEqual(await peer.send(pong(again[0])), ['goaway 7 0 ']);
  assert.deepEqual(await peer.send(peer.headers(9, GET, true)), ['rst 9 7']);
  for (const exchange of exchanges) answer(exchange, 200, 'ok');
  await peer.take();
  assert.ok(pipe.outputEnded);
  pipe.feedEnd();
  assert.deepEqual(ended, [{ error: undefined }]);
});

test('a client that connects to a draining server has its first request answered, however late, unless time is over', async () => {
  for (const over of [false, true]) {
    const { peer, pipe, exchanges, connection, clock } = await servedPeer();
    connection.drain();
    const [, ping] = await peer.take();
    await peer.send(pong(ping));
    await clock.advance(2000);
    const [again] = await peer.take();
    assert.deepEqual(await peer.send(pong(again)), []);
    if (over) {
      connection.endIdle();
      assert.deepEqual(await peer.take(), ['goaway 0 0 ']);
    } else {
      assert.deepEqual(await peer.send(peer.headers(1, GET, true)), ['goaway 1 0 ']);
      const [exchange] = exchanges;
      assert.ok(exchange);
      answer(exchange, 200, 'ok');
      await peer.take();
    }
    assert.ok(pipe.outputEnded);
  }
});

test('floods and violations end the connection with GOAWAY and a reason', async () => {
  const cases: [string, (peer: Http2Peer) => Buffer[]][] = [
    ['goaway 0 11', () => Array.from({ length: 1100 }, () => frame(FrameType.PING, 0, 0, Buffer.alloc(8)))],
    ['goaway 0 11', () => Array.from({ length: 200 }, () => settingsFrame([]))],
    [
      'goaway \\d+ 11',
      (peer) => Array.from({ length: 600 }, (_, i) => [peer.headers(2 * i + 1, GET, true), rstStreamFrame(2 * i + 1, 8)]).flat(),
    ],
    ['goaway 0 1', () => [data(0, 'x')]],
    ['goaway 0 1', () => [rstStreamFrame(9, 8)]],
    ['goaway 0 1', (peer) => [peer.headers(2, GET, true)]],
    ['goaway 0 6', () => [frame(FrameType.DATA, 0, 1, Buffer.alloc(20_000))]],
    ['goaway 0 9', () => [headerFrames(1, Buffer.from('bfbfbf', 'hex'), true, 100)]],
    ['goaway 0 3', () => [windowUpdateFrame(0, 0x7fffffff)]],
  ];
  for (const [expected, frames] of cases) {
    const { peer, pipe, ended } = await servedPeer();
    const events = await peer.send(...frames(peer));
    assert.match(events.at(-1) ?? '', new RegExp(`^${expected}`));
    assert.ok(pipe.outputEnded);
    pipe.feedEnd();
    assert.equal(ended[0]?.error?.code, 'HTTP2_FAILURE');
  }
});

test('time: no SETTINGS, a header block without end, and an idle connection', async () => {
  const silent = served(serveHttp2);
  await silent.clock.advance(10_000);
  assert.ok(silent.pipe.outputEnded);
  const slow = await servedPeer();
  await slow.peer.send(frame(FrameType.HEADERS, 0, 1, Buffer.from('82', 'hex')));
  await slow.clock.advance(10_001);
  assert.match((await slow.peer.take()).join(), /^goaway 0 11/);
  const idle = await servedPeer(undefined, { idleTimeoutMs: 60_000 });
  await idle.clock.advance(60_001);
  assert.deepEqual(await idle.peer.take(), ['goaway 0 0 ']);
  assert.ok(idle.pipe.outputEnded);
});
