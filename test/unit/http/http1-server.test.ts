import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import type { BodySink, ServerExchange } from '../../../common/http/types.ts';
import { answer, Collector, echo, GivenBody, served, servedOn } from '../../support/http-ends.ts';
import { MemoryPipe } from '../../support/http-pipes.ts';
import { appPair, readAll, settle } from '../../support/tunnels.ts';

const CHUNK_SIZES = [1, 2, 5, 16, 100_000];

/** What the server writes for these bytes, cut into chunks of one size. */
async function serve(bytes: string, chunk: number, onExchange: (exchange: ServerExchange) => void) {
  const server = served(serveHttp1, onExchange);
  await settle(1);
  for (let at = 0; at < bytes.length; at += chunk) server.pipe.feed(bytes.slice(at, at + chunk));
  await settle(1);
  return server;
}

test('a request becomes a neutral head: lower-case names, no Host, nothing that is about this connection', async () => {
  const request =
    'POST /orders?id=1 HTTP/1.1\r\nHOST: Orders.shop:8080\r\nX-Name:  a value \t\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\n' +
    'Keep-Alive: timeout=5\r\nTE: trailers\r\nContent-Length: 3\r\nx-empty:\r\nx-name: second\r\n\r\nabc';
  for (const chunk of CHUNK_SIZES) {
    const body = new Collector();
    const { exchanges } = await serve(request, chunk, (exchange) => exchange.body.into(body));
    assert.deepEqual(exchanges[0]?.head, {
      version: '1.1',
      method: 'POST',
      scheme: 'http',
      authority: 'Orders.shop:8080',
      path: '/orders?id=1',
      fields: ['x-name', 'a value', 'content-length', '3', 'x-empty', '', 'x-name', 'second'],
      bodyBytes: 3,
      upgrade: undefined,
    });
    assert.equal(body.text, 'abc');
    assert.ok(body.ended);
  }
});

test('an absolute target is taken apart, and an empty line before the request is skipped', async () => {
  const { exchanges } = await serve('\r\nGET HTTP://A.b:80?x=1 HTTP/1.1\r\nHost: a.B:80\r\n\r\n', 3, () => {});
  assert.equal(exchanges[0]?.head.path, '/?x=1');
  assert.equal(exchanges[0]?.head.authority, 'A.b:80');
  const options = await serve('OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n', 3, () => {});
  assert.equal(options.exchanges[0]?.head.path, '*');
});

test('a chunked body arrives in order, extensions are read over, and its trailers come with the end', async () => {
  const request =
    'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n' +
    '3\r\nabc\r\n00A ; ext="v" ; more\r\n0123456789\r\n0\r\nX-Sum: 9\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n';
  for (const chunk of CHUNK_SIZES) {
    const body = new Collector();
    const { exchanges } = await serve(request, chunk, (exchange) => exchange.body.into(body));
    assert.equal(exchanges[0]?.head.bodyBytes, undefined);
    const whole = await body.whole;
    assert.equal(whole.body.toString(), 'abc0123456789');
    // What would frame or route a message is no trailer.
    assert.deepEqual(whole.trailers, ['x-sum', '9']);
  }
});

test('pipelined requests are answered in order, one at a time', async () => {
  const requests = '/1 /2 /3'
    .split(' ')
    .map((path) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n${path}`)
    .join('');
  for (const chunk of CHUNK_SIZES) {
    let open = 0;
    const { pipe, exchanges } = await serve(requests, chunk, (exchange) => {
      assert.equal(++open, 1);
      exchange.body.into(new Collector());
      setImmediate(() => {
        open--;
        answer(exchange, 200, exchange.head.path);
      });
    });
    await settle(8);
    assert.equal(exchanges.length, 3);
    assert.deepEqual(pipe.text.match(/\/\d(?!\.)/g), ['/1', '/2', '/3']);
  }
});

test('what one turn answers leaves in one write', async () => {
  const get = 'GET / HTTP/1.1\r\nHost: a\r\n\r\n';
  const { pipe } = await serve(get.repeat(10), 100_000, (exchange) => answer(exchange, 200, 'hello'));
  assert.equal(pipe.text.match(/hello/g)?.length, 10);
  assert.equal(pipe.writes, 1);
});

test('bodies go out by length, in chunks with trailers, or until the end for HTTP/1.0', async () => {
  const get = (version: string): string => `GET / HTTP/${version}\r\nHost: a\r\n\r\n`;
  const unknown = (exchange: ServerExchange): void =>
    new GivenBody(['abc', 'x'.repeat(20)], ['x-sum', '1']).into(
      exchange.respond({ status: 200, fields: [], bodyBytes: undefined }, undefined),
    );
  const chunked = await serve(get('1.1'), 100, unknown);
  assert.equal(
    chunked.pipe.text,
    `HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n14\r\n${'x'.repeat(20)}\r\n0\r\nx-sum: 1\r\n\r\n`,
  );
  assert.ok(!chunked.pipe.outputEnded);
  const old = await serve(get('1.0'), 100, unknown);
  assert.equal(old.pipe.text, `HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc${'x'.repeat(20)}`);
  assert.ok(old.pipe.outputEnded);
  const kept = await serve('GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n', 100, (exchange) => answer(exchange, 200, 'hi'));
  assert.equal(kept.pipe.text, 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nhi');
  assert.equal(kept.exchanges[0]?.head.authority, '');
  assert.ok(!kept.pipe.outputEnded);
});

test('HEAD, 204 and 304 have no body, whatever the sink is given', async () => {
  const cases: [string, number, number | undefined, string][] = [
    ['HEAD', 200, 5, 'HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n'],
    ['HEAD', 200, undefined, 'HTTP/1.1 200 OK\r\n\r\n'],
    ['GET', 204, 5, 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['GET', 304, 5, 'HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n'],
  ];
  for (const [method, status, bodyBytes, expected] of cases) {
    const { pipe } = await serve(`${method} / HTTP/1.1\r\nHost: a\r\n\r\n`, 100, (exchange) =>
      new GivenBody(['hello']).into(exchange.respond({ status, fields: ['connection', 'x', 'content-length', '9'], bodyBytes }, undefined)),
    );
    assert.equal(pipe.text, expected);
  }
});

test('a body that is longer or shorter than announced ends the connection, never the next response', async () => {
  for (const chunks of [['hello!'], ['hell'], ['hel', 'lo!']]) {
    const { pipe, ended } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, (exchange) =>
      new GivenBody(chunks).into(exchange.respond({ status: 200, fields: [], bodyBytes: 5 }, undefined)),
    );
    assert.ok(pipe.closed);
    assert.match(ended[0]?.error?.message ?? '', /Content-Length/);
  }
});

test('a field that would become two lines is refused, and something else can still be answered', async () => {
  for (const value of ['a\r\nSet-Cookie: x', 'a\nb', 'a\0b', 'snow\u010aman', '\u2603']) {
    const { pipe } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, (exchange) => {
      assert.throws(
        () => exchange.respond({ status: 200, fields: ['x', value], bodyBytes: 0 }, undefined),
        value === '\u2603' ? Error : TypeError,
      );
      answer(exchange, 500, 'no');
    });
    assert.equal(pipe.text, 'HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno');
  }
});

test('100 is sent when the body is wanted, and not when it is not', async () => {
  const request = 'PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n';
  const wanted = await serve(request, 100, echo);
  assert.match(wanted.pipe.text, /^HTTP\/1.1 200 OK/);
  const body = new Collector();
  const first = await serve(request, 100, (exchange) => exchange.body.into(body));
  assert.equal(first.pipe.text, 'HTTP/1.1 100 Continue\r\n\r\n');
  assert.ok(!first.exchanges[0]?.head.fields.includes('expect'));
  first.pipe.feed('ok');
  assert.equal(body.text, 'ok');
  const refused = await serve(request, 100, (exchange) => answer(exchange, 413, 'no'));
  // The client may send the body or not: what comes next could be either, so nothing comes next.
  assert.match(refused.pipe.text, /^HTTP\/1.1 413 [\s\S]*connection: close\r\n\r\nno$/);
  assert.ok(refused.pipe.outputEnded);
});

test('informational responses go out before the final one', async () => {
  const { pipe } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, (exchange) => {
    exchange.inform({ status: 103, fields: ['link', '</a>'], bodyBytes: 0 });
    answer(exchange, 200, 'ok');
    exchange.inform({ status: 103, fields: [], bodyBytes: 0 });
  });
  assert.equal(pipe.text, 'HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
});

test('an upgraded connection carries bytes both ways, each direction to its own end', async () => {
  const request =
    'GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';
  for (const chunk of CHUNK_SIZES) {
    const body = new Collector();
    let sink: BodySink | undefined;
    const { pipe, exchanges, ended } = await serve(`${request}GET is no request here`, chunk, (exchange) => {
      assert.equal(exchange.head.upgrade, 'websocket');
      exchange.body.into(body);
      setImmediate(() => {
        sink = exchange.respond({ status: 101, fields: [], bodyBytes: undefined }, undefined);
      });
    });
    await settle(3);
    assert.equal(exchanges.length, 1);
    assert.equal(body.text, 'GET is no request here');
    // RFC 6455, section 1.3, has this key and this answer.
    assert.equal(
      pipe.text,
      'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n',
    );
    pipe.feedEnd();
    assert.ok(body.ended);
    sink?.data(Buffer.from('still here'));
    sink?.end(undefined);
    await settle(1);
    assert.match(pipe.text, /still here$/);
    assert.ok(pipe.closed);
    assert.deepEqual(ended, [{ error: undefined }]);
  }
});

test('an upgrade that is refused is a response like any other, and the last one: what comes behind it may be no HTTP', async () => {
  const body = new Collector();
  const request = 'GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n';
  const { pipe, exchanges } = await serve(`${request}GET /next HTTP/1.1\r\nHost: a\r\n\r\n`, 100, (exchange) => {
    if (exchange.head.upgrade) exchange.body.into(body);
    setImmediate(() => answer(exchange, 403, 'no'));
  });
  await settle(4);
  assert.equal(body.bytes, 0);
  assert.ok(body.ended);
  assert.equal(exchanges.length, 1);
  assert.match(pipe.text, /^HTTP\/1\.1 403 [\s\S]*\r\nconnection: close\r\n/);
  assert.ok(pipe.outputEnded);
});

test('h2c, an upgrade with a body, and an upgrade that Connection does not name are ordinary requests', async () => {
  const lines = [
    'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n',
    'Upgrade: websocket\r\n',
    'Connection: upgrade\r\nUpgrade: a, b\r\n',
  ];
  for (const line of lines) {
    const { exchanges } = await serve(`GET / HTTP/1.1\r\nHost: a\r\n${line}\r\n`, 100, () => {});
    assert.equal(exchanges[0]?.head.upgrade, undefined);
    assert.deepEqual(exchanges[0]?.head.fields, []);
  }
});

test('a client that ends its direction after its requests is answered, and then the connection ends', async () => {
  const server = served(serveHttp1, (exchange) => setImmediate(() => answer(exchange, 200, exchange.head.path)));
  await settle(1);
  server.pipe.feed('GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n');
  server.pipe.feedEnd();
  await settle(6);
  assert.deepEqual(server.pipe.text.match(/\/\d$|\/\d(?=HTTP)/g), ['/1', '/2']);
  assert.ok(server.pipe.closed);
  assert.deepEqual(server.ended, [{ error: undefined }]);
  assert.equal(server.clock.pending, 0);
});

test('a client that goes away inside its request, or before its response, is told once', async () => {
  const gone: string[] = [];
  const body = new Collector();
  const inside = await serve('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc', 100, (exchange) => {
    exchange.onClientGone((error) => gone.push(error.message));
    exchange.body.into(body);
  });
  inside.pipe.feedEnd();
  await settle(1);
  assert.equal(body.error?.code, 'CONNECTION_LOST');
  assert.equal(gone.length, 1);
  const source = new GivenBody(['later']);
  const before = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, (exchange) =>
    exchange.onClientGone((error) => gone.push(error.message)),
  );
  before.pipe.lose();
  assert.equal(gone.length, 2);
  // A response to nobody.
  before.exchanges[0]?.respond({ status: 200, fields: [], bodyBytes: undefined }, source);
  assert.ok(source.cancelled);
  assert.equal(before.clock.pending, 0);
});

test('an exchange that is aborted ends its connection', async () => {
  const { pipe, ended } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, (exchange) => {
    exchange
      .respond({ status: 200, fields: [], bodyBytes: undefined }, undefined)
      .abort(new ProxyError('CONNECTION_LOST', 'upstream went away'));
  });
  assert.ok(pipe.closed);
  assert.equal(ended[0]?.error?.message, 'upstream went away');
});

test('an early answer leaves the rest of the request unread up to a limit, and then the connection goes on or ends', async () => {
  const early = (length: number) =>
    serve(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`, 1000, (exchange) => answer(exchange, 200, 'early'));
  const short = await early(100_000);
  short.pipe.feed('x'.repeat(100_000));
  short.pipe.feed('GET /next HTTP/1.1\r\nHost: a\r\n\r\n');
  await settle(1);
  assert.equal(short.exchanges[1]?.head.path, '/next');
  const long = await early(1 << 30);
  for (let i = 0; i < 20; i++) long.pipe.feed('x'.repeat(100_000));
  assert.ok(long.pipe.outputEnded);
  assert.equal(long.exchanges.length, 1);
});

test('a body that nobody takes is not read, beyond what came with it', async () => {
  const { pipe, exchanges } = await serve('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc', 1000, () => {});
  for (let i = 0; i < 10; i++) pipe.feed('x'.repeat(10_000));
  assert.ok(pipe.waiting >= 90_000);
  const body = new Collector();
  body.more = false;
  exchanges[0]?.body.into(body);
  assert.ok(body.bytes <= 20_003);
  const before = body.bytes;
  exchanges[0]?.body.resume();
  assert.ok(body.bytes > before && body.bytes <= before + 10_000);
});

test('a slow reader holds its response back', async () => {
  const source = new GivenBody(Array.from({ length: 1000 }, () => 'x'.repeat(10_000)));
  const { pipe, exchanges } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, () => {});
  pipe.full = true;
  const exchange = exchanges[0];
  assert.ok(exchange);
  source.into(exchange.respond({ status: 200, fields: [], bodyBytes: undefined }, source));
  assert.ok(source.sent < 100_000, `${source.sent} bytes were sent`);
  for (let i = 0; i < 2000 && !pipe.text.endsWith('0\r\n\r\n'); i++) {
    pipe.unblock();
    await settle(1);
  }
  assert.equal(source.sent, 10_000_000);
});

test('a client that asks and does not read is not answered any further', async () => {
  const { pipe, exchanges } = await serve('', 100, (exchange) => answer(exchange, 200, 'x'.repeat(5000)));
  pipe.full = true;
  for (let i = 0; i < 100; i++) pipe.feed('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(100));
  await settle(2);
  assert.ok(exchanges.length < 200, `${exchanges.length} were answered`);
  for (let i = 0; i < 3000 && exchanges.length < 10_000; i++) {
    pipe.unblock();
    await settle(1);
  }
  assert.equal(exchanges.length, 10_000);
});

test('a half-closed client whose answers wait gets them all, and then the end', async () => {
  const { pipe, exchanges } = await serve('', 100, (exchange) => answer(exchange, 200, 'x'.repeat(5000)));
  pipe.full = true;
  pipe.feed('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(50));
  pipe.feedEnd();
  await settle(1);
  for (let i = 0; i < 100 && !pipe.closed; i++) {
    pipe.unblock();
    await settle(1);
  }
  assert.equal(exchanges.length, 50);
  assert.equal(pipe.text.match(/200 OK/g)?.length, 50);
  assert.ok(pipe.closed);
});

test('time: a head that does not come whole gets 408, an idle connection ends, a busy one does not', async () => {
  const slow = await serve('GET / HTTP/1.1\r\nHo', 100, () => {});
  await slow.clock.advance(9_999);
  assert.equal(slow.pipe.text, '');
  await slow.clock.advance(1);
  assert.match(slow.pipe.text, /^HTTP\/1\.1 408 /);
  slow.pipe.feedEnd();
  assert.equal(slow.clock.pending, 0);

  const idle = served(serveHttp1, (exchange) => setImmediate(() => answer(exchange, 200, 'ok')), { idleTimeoutMs: 60_000 });
  await idle.clock.advance(50_000);
  idle.pipe.feed('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await idle.clock.advance(50_000);
  assert.ok(!idle.pipe.outputEnded);
  await idle.clock.advance(10_001);
  assert.ok(idle.pipe.outputEnded);

  const busy = served(serveHttp1, () => {}, { idleTimeoutMs: 60_000 });
  await settle(1);
  busy.pipe.feed('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await busy.clock.advance(600_000);
  assert.ok(!busy.pipe.outputEnded);
});

test('a peer that does not close after our end is cut off in time', async () => {
  const { pipe, clock, ended } = await serve('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n', 100, (exchange) =>
    answer(exchange, 200, 'ok'),
  );
  assert.ok(pipe.outputEnded && !pipe.closed);
  await clock.advance(1_000);
  assert.ok(pipe.closed);
  assert.equal(ended.length, 1);
  assert.equal(clock.pending, 0);
});

test('a client that has said it sends no more is not waited for, and gets the whole answer however slowly it reads', async (t) => {
  for (const body of ['ok', 'x'.repeat(8 << 20)]) {
    const { app, socket } = await appPair(t);
    const { ended, clock } = servedOn(socket, serveHttp1, (exchange) => answer(exchange, 200, body));
    app.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
    await once(app, 'readable');
    await settle();
    // The client has not ended its direction, and never does.
    assert.equal(ended.length, body.length < 100 ? 1 : 0);
    const text = (await readAll(app)).toString('latin1');
    assert.ok(text.endsWith(`\r\n\r\n${body}`), `${text.length} bytes`);
    while (ended.length === 0) await settle(1);
    assert.deepEqual(ended, [{ error: undefined }]);
    assert.equal(clock.pending, 0);
  }
});

test('draining ends a connection with its next answer: a request may be on its way to one that looks idle', async () => {
  const idle = await serve('', 100, () => {});
  idle.connection.drain();
  assert.ok(!idle.pipe.outputEnded);
  idle.pipe.feed('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await settle(1);
  const [late] = idle.exchanges;
  assert.ok(late);
  answer(late, 200, 'ok');
  await settle(1);
  assert.match(idle.pipe.text, /connection: close\r\n\r\nok$/);
  assert.ok(idle.pipe.outputEnded);
});

test('an answer under way when the draining begins has promised one more request, and the connection keeps that promise', async () => {
  const { connection, pipe, exchanges } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 1000, () => {});
  const body = exchanges[0]?.respond({ status: 200, fields: [], bodyBytes: 2 }, undefined);
  connection.drain();
  body?.data(Buffer.from('ok'));
  body?.end(undefined);
  await settle(1);
  assert.ok(!pipe.outputEnded, 'the client was not told that this was the last answer');
  pipe.feed('GET /2 HTTP/1.1\r\nHost: a\r\n\r\n');
  await settle(1);
  const [, last] = exchanges;
  assert.ok(last);
  answer(last, 200, 'bye');
  await settle(1);
  assert.match(pipe.text, /connection: close\r\n\r\nbye$/);
  assert.ok(pipe.outputEnded);
});

test('ending idle connections closes an idle one at once and a busy one with its answer', async () => {
  const idle = await serve('', 100, () => {});
  idle.connection.endIdle();
  assert.ok(idle.pipe.outputEnded);
  const busy = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n', 1000, () => {});
  busy.connection.endIdle();
  assert.ok(!busy.pipe.outputEnded);
  const [exchange] = busy.exchanges;
  assert.ok(exchange);
  answer(exchange, 200, 'ok');
  await settle(1);
  assert.match(busy.pipe.text, /connection: close\r\n\r\nok$/);
  assert.ok(busy.pipe.outputEnded);
  assert.equal(busy.exchanges.length, 1);
});

test('what the proxying code throws costs one connection a 500', async () => {
  const { pipe, ended } = await serve('GET / HTTP/1.1\r\nHost: a\r\n\r\n', 100, () => {
    throw new Error('a fault of ours');
  });
  assert.match(pipe.text, /^HTTP\/1\.1 500 /);
  pipe.feedEnd();
  await settle(1);
  assert.match(ended[0]?.error?.message ?? '', /a fault of ours/);
});

test('bytes that were read before the connection was made come first', async () => {
  const pipe = new MemoryPipe();
  const paths: string[] = [];
  const clock = served(serveHttp1).clock;
  serveHttp1(pipe, {
    limits: { maxStartLine: 100, maxFields: 100, maxFieldCount: 10, headTimeoutMs: 1, idleTimeoutMs: 1, maxConcurrentStreams: 1 },
    clock,
    onExchange: (exchange) => void paths.push(exchange.head.path),
    onClose() {},
    initial: Buffer.from('GET /early HT'),
  });
  pipe.feed('TP/1.1\r\nHost: a\r\n\r\n');
  await settle(1);
  assert.deepEqual(paths, ['/early']);
});
