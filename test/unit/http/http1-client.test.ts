import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { connectHttp1 } from '../../../common/http/http1-client.ts';
import type { BodySink, RequestHead } from '../../../common/http/types.ts';
import { Collector, connected, GivenBody, requestHead, send } from '../../support/http-ends.ts';
import { settle } from '../../support/tunnels.ts';

const CHUNK_SIZES = [1, 2, 5, 16, 100_000];

/** What a request becomes of these bytes of a response. */
async function receive(response: string, chunk = 100_000, head: Partial<RequestHead> = {}) {
  const client = connected(connectHttp1);
  const sent = send(client.connection, head);
  await settle(1);
  for (let at = 0; at < response.length; at += chunk) client.pipe.feed(response.slice(at, at + chunk));
  await settle(1);
  return { ...client, sent };
}

test('a request is written with Host, its length, and no field about another connection', async () => {
  const cases: [Partial<RequestHead>, (Buffer | string)[], string][] = [
    [
      { path: '/a?b', fields: ['x-a', 'b', 'connection', 'close', 'te', 'gzip', 'host', 'evil', 'transfer-encoding', 'x'] },
      [],
      'GET /a?b HTTP/1.1\r\nhost: orders.shop:8080\r\nx-a: b\r\n\r\n',
    ],
    [{ method: 'POST' }, [], 'POST / HTTP/1.1\r\nhost: orders.shop:8080\r\ncontent-length: 0\r\n\r\n'],
    [
      { method: 'POST', bodyBytes: 3, fields: ['content-length', '7'] },
      ['ab', 'c'],
      'POST / HTTP/1.1\r\nhost: orders.shop:8080\r\ncontent-length: 3\r\n\r\nabc',
    ],
    [
      { method: 'POST', bodyBytes: undefined },
      ['abc'],
      'POST / HTTP/1.1\r\nhost: orders.shop:8080\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
    ],
  ];
  for (const [head, body, expected] of cases) {
    const { pipe, connection } = connected(connectHttp1);
    send(connection, head, new GivenBody(body));
    await settle(1);
    assert.equal(pipe.text, expected);
    assert.equal(pipe.writes, 1);
  }
});

test('a head that cannot be a request is refused before a byte of it is written', async () => {
  const heads: Partial<RequestHead>[] = [
    { method: 'G T' },
    { path: '/a b' },
    { path: 'a' },
    { path: '/\r\n' },
    { authority: 'a b' },
    { fields: ['x', 'a\r\nb'] },
  ];
  for (const head of heads) {
    const { pipe, connection } = connected(connectHttp1);
    assert.throws(() => connection.request(requestHead(head), undefined, { informational() {}, response() {}, failed() {} }), TypeError);
    await settle(1);
    assert.equal(pipe.text, '');
    assert.ok(connection.usable);
  }
});

test('responses are framed by length, in chunks, by the end of the connection, or not at all', async () => {
  const cases: [string, Partial<RequestHead>, string, boolean][] = [
    ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc', {}, 'abc', true],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n', {}, 'abc', true],
    ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc', {}, 'abc', false],
    ['HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc', {}, 'abc', false],
    ['HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc', {}, 'abc', true],
    ['HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n', { method: 'HEAD' }, '', true],
    ['HTTP/1.1 204\r\n\r\n', {}, '', true],
    ['HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n', {}, '', true],
  ];
  for (const [response, head, body, reusable] of cases) {
    for (const chunk of CHUNK_SIZES) {
      const { sent, connection } = await receive(response, chunk, head);
      assert.equal(sent.body.text, body, response);
      assert.ok(sent.body.ended, response);
      assert.equal(connection.usable, reusable, response);
    }
  }
  const open = await receive('HTTP/1.1 200 OK\r\n\r\nabc');
  assert.ok(!open.sent.body.ended);
  open.pipe.feedEnd();
  assert.equal((await open.sent.body.whole).body.toString(), 'abc');
  assert.ok(!open.connection.usable);
});

test('the head of a response is neutral, and trailers come with the end', async () => {
  const { sent } = await receive(
    'HTTP/1.1 207 Many\r\nSERVER: x\r\nConnection: X-Own\r\nX-Own: 1\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n',
    3,
  );
  assert.deepEqual(sent.response, { status: 207, fields: ['server', 'x'], bodyBytes: undefined });
  assert.deepEqual((await sent.body.whole).trailers, ['a', 'b']);
});

test('responses that two readers could understand in two ways fail the request and end the connection', async () => {
  const responses = [
    'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n',
    'HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n',
    'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n',
    'HTTP/1.1 200 OK\r\nA : b\r\n\r\n',
    'HTTP/1.1 200 OK\nA: b\r\n\r\n',
    'HTTP/1.1 2000 OK\r\n\r\n',
    'HTTP/1.1 99 OK\r\n\r\n',
    'HTTP/2 200\r\n\r\n',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
    'SSH-2.0-OpenSSH\r\n\r\n',
    `HTTP/1.1 100 Continue\r\n\r\n`.repeat(20),
  ];
  for (const response of responses) {
    for (const chunk of [1, 100_000]) {
      const { sent, pipe, ended } = await receive(response, chunk);
      assert.equal(sent.failure?.error.code, 'UPSTREAM_PROTOCOL', response);
      assert.equal(sent.failure.unsent, false);
      assert.ok(pipe.closed);
      assert.equal(ended.length, 1);
    }
  }
});

test('a chunked response that breaks off the rails aborts its body', async () => {
  for (const end of ['zz\r\n', '1\r\nab']) {
    const { sent, pipe } = await receive(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n${end}`, 2);
    assert.equal(sent.body.error?.code, 'UPSTREAM_PROTOCOL');
    assert.ok(pipe.closed);
  }
});

test('a connection serves one request after another', async () => {
  const rooms: number[] = [];
  const { pipe, connection } = connected(connectHttp1);
  for (let i = 0; i < 3; i++) {
    assert.ok(connection.usable);
    const sent = send(connection, { path: `/${i}` });
    assert.ok(!connection.usable);
    assert.equal(connection.openExchanges, 1);
    await settle(1);
    pipe.feed('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx');
    assert.deepEqual(
      sent.informational.map(({ status }) => status),
      [100, 103],
    );
    assert.ok((await sent.body.whole).body.equals(Buffer.from('x')));
    rooms.push(connection.openExchanges);
  }
  assert.deepEqual(rooms, [0, 0, 0]);
  assert.equal(pipe.text.match(/GET \/\d/g)?.length, 3);
});

test('a busy connection refuses a second request as unsent', async () => {
  const { connection } = connected(connectHttp1);
  send(connection);
  const second = send(connection);
  const failedAtOnce = second.failure !== undefined;
  await settle(1);
  assert.ok(!failedAtOnce);
  assert.equal(second.failure?.unsent, true);
});

test('a connection that is gone before the request has left says so; afterwards it cannot know', async () => {
  const before = connected(connectHttp1);
  await settle(1);
  const early = send(before.connection);
  before.pipe.lose();
  assert.equal(early.failure?.unsent, true);
  assert.equal(before.pipe.text, '');
  for (const end of ['FIN', 'RST']) {
    const after = connected(connectHttp1);
    const late = send(after.connection);
    await settle(1);
    if (end === 'FIN') after.pipe.feedEnd();
    else after.pipe.lose(new ProxyError('CONNECTION_LOST', 'reset'));
    assert.equal(late.failure?.unsent, false);
    assert.ok(after.pipe.closed);
    assert.equal(after.clock.pending, 0);
  }
});

test('a connection that ends inside a body aborts it', async () => {
  const { sent, pipe } = await receive('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc');
  pipe.feedEnd();
  assert.equal(sent.body.error?.code, 'CONNECTION_LOST');
});

test('an early response ends the request, and the connection with it', async () => {
  const source = new GivenBody(Array.from({ length: 100 }, () => 'x'.repeat(10_000)));
  const { pipe, connection } = connected(connectHttp1);
  pipe.full = true;
  const sent = send(connection, { method: 'POST', bodyBytes: undefined }, source);
  await settle(1);
  pipe.feed('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno');
  assert.equal(sent.response?.status, 413);
  assert.equal(sent.body.text, 'no');
  assert.ok(source.cancelled && source.sent < 1_000_000);
  assert.ok(!connection.usable && pipe.outputEnded);
});

test('bytes that nobody asked for end an idle connection; so do its end and the time', async () => {
  const { pipe, connection } = await receive('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n');
  assert.ok(!connection.usable && pipe.closed);
  const idle = await receive('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx');
  assert.ok(idle.connection.usable);
  idle.pipe.feedEnd();
  assert.ok(!idle.connection.usable);
  assert.deepEqual(idle.ended, [{ error: undefined }]);
  const timed = connected(connectHttp1, { idleTimeoutMs: 1000 });
  await timed.clock.advance(1001);
  assert.ok(!timed.connection.usable && timed.pipe.outputEnded);
});

test('a slow sink holds the response back', async () => {
  const { sent, pipe } = await receive('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n');
  sent.body.more = false;
  for (let i = 0; i < 100; i++) pipe.feed('x'.repeat(10_000));
  assert.ok(sent.body.bytes <= 10_000);
  for (let i = 0; i < 200 && !sent.body.ended; i++) sent.resumeResponse();
  assert.equal(sent.body.bytes, 1_000_000);
  assert.ok(sent.body.ended);
});

test('a changed protocol carries bytes both ways, each direction to its own end', async () => {
  for (const chunk of CHUNK_SIZES) {
    const { pipe, connection, ended } = connected(connectHttp1);
    const body = new Collector();
    let status: number | undefined;
    const exchange = connection.request(requestHead({ upgrade: 'websocket', fields: ['sec-websocket-key', 'k'] }), undefined, {
      informational() {},
      response: (head, source) => {
        status = head.status;
        source.into(body);
      },
      failed() {},
    });
    await settle(1);
    assert.equal(
      pipe.text,
      'GET / HTTP/1.1\r\nhost: orders.shop:8080\r\nsec-websocket-key: k\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
    );
    const answer = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nfrom the server';
    for (let at = 0; at < answer.length; at += chunk) pipe.feed(answer.slice(at, at + chunk));
    assert.equal(status, 101);
    assert.equal(body.text, 'from the server');
    exchange.body.data(Buffer.from('from the client'));
    exchange.body.end(undefined);
    await settle(1);
    assert.match(pipe.text, /\r\n\r\nfrom the client$/);
    assert.ok(pipe.outputEnded && !pipe.closed);
    pipe.feed(' again');
    pipe.feedEnd();
    assert.equal((await body.whole).body.toString(), 'from the server again');
    assert.deepEqual(ended, [{ error: undefined }]);
  }
});

test('a client that came over HTTP/2 has no WebSocket key, so one is made', async () => {
  const { pipe, connection } = connected(connectHttp1);
  send(connection, { upgrade: 'websocket' });
  await settle(1);
  assert.match(pipe.text, /\r\nsec-websocket-key: [A-Za-z0-9+/]{22}==\r\n/);
});

test('after its owner has given a request up it hears nothing more, and the connection is gone', async () => {
  const aborted = connected(connectHttp1);
  const first = send(aborted.connection);
  await settle(1);
  first.abort(new ProxyError('CONNECTION_LOST', 'the client went away'));
  assert.ok(aborted.pipe.closed);
  assert.equal(first.failure, undefined);
  const { sent, pipe } = await receive('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc');
  sent.cancelResponse();
  assert.ok(pipe.closed);
  assert.equal(sent.body.error, undefined);
});

test('draining waits for the response under way', async () => {
  const { pipe, connection } = connected(connectHttp1);
  const sent = send(connection);
  await settle(1);
  connection.drain();
  assert.ok(!pipe.outputEnded);
  pipe.feed('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx');
  assert.ok(sent.body.ended && pipe.outputEnded);
});

test('a body that comes with its head and is taken a moment later does not stop the connection; one that nobody takes does', async () => {
  for (const [chunks, stops] of [
    [['HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabcdef'], 0],
    [['HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc', 'd', 'ef'], 1],
  ] as const) {
    const { connection, pipe } = connected(connectHttp1);
    let taken = '';
    const whole = new Promise<void>((resolve) => {
      connection.request(requestHead({}), undefined, {
        informational() {},
        failed: assert.fail,
        response(_head, body) {
          const sink: BodySink = {
            data(chunk) {
              taken += chunk.toString();
              return true;
            },
            end: () => resolve(),
            abort: (error) => assert.fail(error),
          };
          queueMicrotask(() => body.into(sink));
        },
      });
    });
    await settle(1);
    for (const chunk of chunks) pipe.feed(chunk);
    await whole;
    assert.equal(taken, 'abcdef');
    assert.equal(pipe.stops, stops);
  }
});
