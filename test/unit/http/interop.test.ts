/** Our four connections over loopback against Node's: as its server, as its client, and as a proxy between two of it, in all four translations. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../common/base/clock.ts';
import { AppSocket } from '../../../common/hbone/app-socket.ts';
import { heldPieces } from '../../../common/hbone/byte-queue.ts';
import { lentReadBuffers } from '../../../common/hbone/read-buffers.ts';
import type { HttpClientConnection } from '../../../common/http/connections.ts';
import { connectHttp1 } from '../../../common/http/http1-client.ts';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { connectHttp2 } from '../../../common/http/http2-client.ts';
import { serveHttp2 } from '../../../common/http/http2-server.ts';
import { defaultHttpLimits, type ServerExchange } from '../../../common/http/types.ts';
import { echo } from '../../support/http-ends.ts';
import { pattern, portOf } from '../../support/tunnels.ts';

const limits = defaultHttpLimits;
const clock = systemClock;

type Version = 1 | 2;

interface Reply {
  readonly status: number;
  readonly fields: http.IncomingHttpHeaders;
  readonly body: Buffer;
  readonly trailers: NodeJS.Dict<string | string[]>;
}

interface Call {
  readonly path?: string;
  readonly method?: string;
  readonly fields?: http.OutgoingHttpHeaders;
  readonly chunks?: readonly Buffer[];
}

async function listen(t: TestContext, server: net.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return portOf(server);
}

/** Our server on a port. */
function ours(t: TestContext, version: Version, onExchange: (exchange: ServerExchange) => void): Promise<number> {
  const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    const connection = (version === 1 ? serveHttp1 : serveHttp2)(AppSocket.accepted(socket), { limits, clock, onExchange, onClose() {} });
    t.after(() => connection.destroy());
  });
  return listen(t, server);
}

/** Node's server: echoes bodies, and says what it was asked. */
async function nodes(t: TestContext, version: Version): Promise<number> {
  // Both of Node's APIs have what is used here; their union has less than either.
  const handler = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    response.setHeader('x-request', `${request.method} ${request.url}`);
    response.setHeader('x-cookie', request.headers.cookie ?? '');
    response.setHeader('x-authority', request.headers.host ?? request.headers[':authority']?.toString() ?? '');
    if (request.url === '/no-content') response.writeHead(204).end();
    else if (request.url === '/length')
      response.writeHead(200, { 'content-length': '5' }).end(request.method === 'HEAD' ? undefined : 'hello');
    else if (request.url === '/reset') request.socket.destroy();
    else {
      request.on('data', (chunk: Buffer) => {
        if (!response.write(chunk)) {
          request.pause();
          response.once('drain', () => request.resume());
        }
      });
      request.on('end', () => {
        response.addTrailers({ 'x-trailer': 'at the end' });
        response.end();
      });
    }
  };
  const server =
    version === 1
      ? http.createServer(handler)
      : http2.createServer({ settings: { initialWindowSize: 70_000 } }, handler as unknown as Parameters<typeof http2.createServer>[1]);
  if (server instanceof http.Server) {
    t.after(() => server.closeAllConnections());
    server.on('upgrade', (_, socket: net.Socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n');
      socket.pipe(socket);
    });
  } else {
    const sessions = new Set<http2.ServerHttp2Session>();
    server.on('session', (session) => sessions.add(session));
    t.after(() => {
      for (const session of sessions) session.destroy();
    });
  }
  return await listen(t, server);
}

/** Node's client. */
function client(t: TestContext, version: Version, port: number): (call: Call) => Promise<Reply> {
  if (version === 1) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
    t.after(() => agent.destroy());
    return ({ path = '/', method = 'GET', fields = {}, chunks = [] }) =>
      new Promise((resolve, reject) => {
        const request = http.request({ port, host: '127.0.0.1', path, method, headers: fields, agent }, (response) => {
          const body: Buffer[] = [];
          response.on('data', (chunk: Buffer) => body.push(chunk)).on('error', reject);
          response.on('end', () =>
            resolve({ status: response.statusCode ?? 0, fields: response.headers, body: Buffer.concat(body), trailers: response.trailers }),
          );
        });
        request.on('error', reject);
        for (const chunk of chunks) request.write(chunk);
        request.end();
      });
  }
  const session = http2.connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 70_000 } });
  session.on('error', () => {});
  t.after(() => session.destroy());
  return ({ path = '/', method = 'GET', fields = {}, chunks = [] }) =>
    new Promise((resolve, reject) => {
      const stream = session.request({ ...fields, ':path': path, ':method': method }, { endStream: chunks.length === 0 });
      const body: Buffer[] = [];
      let head: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {};
      let trailers: NodeJS.Dict<string | string[]> = {};
      stream.on('response', (received) => {
        head = received;
      });
      stream.on('trailers', (received) => {
        trailers = { ...received };
      });
      stream.on('data', (chunk: Buffer) => body.push(chunk)).on('error', reject);
      stream.on('end', () => resolve({ status: head[':status'] ?? 0, fields: head, body: Buffer.concat(body), trailers }));
      for (const chunk of chunks) stream.write(chunk);
      if (chunks.length > 0) stream.end();
    });
}

/** Exchanges go on to a port, over connections that are kept. */
function proxy(t: TestContext, version: Version, port: number): (exchange: ServerExchange) => void {
  const idle: HttpClientConnection[] = [];
  const connection = async (): Promise<HttpClientConnection> => {
    for (let kept = idle.pop(); kept; kept = idle.pop()) {
      if (!kept.usable) continue;
      if (version === 2) idle.push(kept);
      return kept;
    }
    const socket = await AppSocket.connect(undefined, { ip: '127.0.0.1', port }, { timeoutMs: 5000, clock });
    const made: HttpClientConnection =
      version === 1
        ? connectHttp1(socket, { limits, clock, onClose() {}, onRoom: () => void idle.push(made) })
        : connectHttp2(socket, { limits, clock, onClose() {} });
    if (version === 2) idle.push(made);
    t.after(() => made.destroy());
    return made;
  };
  return async (exchange) => {
    const sent = (await connection()).request(exchange.head, exchange.body, {
      informational: (head) => exchange.inform(head),
      response: (head, body) => body.into(exchange.respond(head, body)),
      failed: (error) => exchange.abort(error),
    });
    exchange.onClientGone((error) => sent.abort(error));
    exchange.body.into(sent.body);
  };
}

const CALLS: readonly Call[] = [
  { path: '/a?b=c', fields: { cookie: 'a=1; b=2', 'x-long': 'v'.repeat(3000) } },
  { method: 'POST', chunks: [Buffer.from('hello')], fields: { 'content-length': '5' } },
  { method: 'POST', chunks: [pattern(300_000), pattern(1), pattern(500_000)] },
  { method: 'PUT', chunks: [Buffer.from('hello')], fields: { expect: '100-continue' } },
  { path: '/no-content' },
  { path: '/length' },
  { path: '/length', method: 'HEAD' },
  { method: 'DELETE' },
];

async function check(call: (call: Call) => Promise<Reply>, trailers: boolean): Promise<void> {
  for (const one of CALLS) {
    const reply = await call(one);
    const { path = '/', method = 'GET', chunks = [] } = one;
    assert.equal(reply.status, path === '/no-content' ? 204 : 200);
    assert.equal(reply.fields['x-request'], `${method} ${path}`);
    if (path === '/length') assert.equal(reply.fields['content-length'], '5');
    else assert.ok(reply.body.equals(Buffer.concat([...chunks])), `${method} ${path}: ${reply.body.length} bytes`);
    if (trailers && chunks.length > 0) assert.equal(reply.trailers['x-trailer'], 'at the end');
  }
  const many = await Promise.all(Array.from({ length: 60 }, (_, i) => call({ method: 'POST', path: `/${i}`, chunks: [pattern(i * 997)] })));
  for (const [i, reply] of many.entries()) assert.ok(reply.body.equals(pattern(i * 997)) && reply.fields['x-request'] === `POST /${i}`);
}

for (const version of [1, 2] as const) {
  test(`Node's client is served over HTTP/${version}`, async (t) => {
    const call = client(
      t,
      version,
      await ours(t, version, (exchange) => {
        const { path, method } = exchange.head;
        if (path === '/no-content')
          exchange.respond({ status: 204, fields: ['x-request', `${method} ${path}`], bodyBytes: 0 }, undefined).end(undefined);
        else if (path === '/length') {
          const sink = exchange.respond({ status: 200, fields: ['x-request', `${method} ${path}`], bodyBytes: 5 }, undefined);
          sink.data(Buffer.from('hello'));
          sink.end(undefined);
        } else echo(exchange);
      }),
    );
    await check(call, false);
  });
}

for (const down of [1, 2] as const) {
  for (const up of [1, 2] as const) {
    test(`a proxy between Node's ends, HTTP/${down} to HTTP/${up}`, async (t) => {
      const call = client(t, down, await ours(t, down, proxy(t, up, await nodes(t, up))));
      await check(call, true);
      await assert.rejects(call({ path: '/reset' }));
      assert.equal((await call({ path: '/length' })).body.toString(), 'hello');
    });
  }
}

test('an upgraded connection goes through a proxy, half-close included', async (t) => {
  const port = await ours(t, 1, proxy(t, 1, await nodes(t, 1)));
  const request = http.request({ port, host: '127.0.0.1', headers: { connection: 'upgrade', upgrade: 'test' } });
  request.end();
  const [response, socket] = await once(request, 'upgrade');
  assert.equal(response.statusCode, 101);
  assert.equal(response.headers.upgrade, 'test');
  const received: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => received.push(chunk));
  const sent = pattern(400_000);
  socket.end(sent);
  await once(socket, 'end');
  assert.ok(Buffer.concat(received).equals(sent));
});

test('a slow client holds a fast server back, through the proxy and whatever the versions', async (t) => {
  for (const up of [1, 2] as const) {
    let written = 0;
    const endless = (_: unknown, response: NodeJS.WritableStream): void => {
      const more = (): void => {
        while (response.write(pattern(16_384))) written += 16_384;
        written += 16_384;
        response.once('drain', more);
      };
      response.on('error', () => {});
      more();
    };
    const server = up === 1 ? http.createServer(endless) : http2.createServer(endless);
    const port = await ours(t, 1, proxy(t, up, await listen(t, server)));
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(socket, 'readable');
    let before = -1;
    for (let i = 0; i < 100 && before !== written; i++) {
      before = written;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    // What the kernel's buffers and the limits of both ends take; unlimited it would be gigabytes.
    assert.ok(written < 24 << 20, `${written} bytes were taken from the server`);
    socket.destroy();
    if (server instanceof http.Server) server.closeAllConnections();
  }
});

test('large bodies reach slow clients as they were sent, though they wait in the buffers that they were read into', async (t) => {
  for (const up of [1, 2] as const) {
    const body = (path: string): Buffer => pattern(3_000_000, Number(path.slice(1)));
    const answer = (request: { url?: string | undefined }, response: { end(body: Buffer): unknown }): void => {
      response.end(body(request.url ?? '/0'));
    };
    const server = up === 1 ? http.createServer(answer) : http2.createServer(answer);
    const port = await ours(t, 1, proxy(t, up, await listen(t, server)));
    const slowly = async (i: number): Promise<Buffer> => {
      const request = http.get({ port, host: '127.0.0.1', path: `/${i}`, agent: false });
      const [response] = await once(request, 'response');
      const chunks: Buffer[] = [];
      for await (const chunk of response) {
        chunks.push(chunk);
        await new Promise((resolve) => setImmediate(resolve));
      }
      return Buffer.concat(chunks);
    };
    const received = await Promise.all(Array.from({ length: 6 }, (_, i) => slowly(i)));
    for (const [i, bytes] of received.entries()) assert.ok(bytes.equals(body(`/${i}`)), `body ${i}`);
    if (server instanceof http.Server) server.closeAllConnections();
  }
});

test('large bodies on many streams arrive as they were sent, though they wait for slow readers in the buffers that they were read into', async (t) => {
  let mostHeld = 0;
  const port = await ours(t, 2, (exchange) => {
    const chunks: Buffer[] = [];
    exchange.body.into({
      data(chunk) {
        chunks.push(Buffer.from(chunk));
        mostHeld = Math.max(mostHeld, heldPieces());
        setImmediate(() => exchange.body.resume());
        return false;
      },
      end() {
        const body = Buffer.concat(chunks);
        const isWhole = body.equals(pattern(body.length, Number(exchange.head.path.slice(1))));
        exchange.respond({ status: isWhole ? 200 : 400, fields: ['x-bytes', String(body.length)], bodyBytes: 0 }, undefined).end(undefined);
      },
      abort: assert.ifError,
    });
  });
  const client = http2.connect(`http://127.0.0.1:${port}`);
  t.after(() => client.destroy());
  const send = async (i: number): Promise<string> => {
    const request = client.request({ ':method': 'POST', ':path': `/${i}` });
    request.end(pattern(800_000 + i, i));
    const [head] = await once(request, 'response');
    return `${head[':status']} ${head['x-bytes']}`;
  };
  const answers = await Promise.all(Array.from({ length: 8 }, (_, i) => send(i)));
  assert.deepEqual(
    answers,
    answers.map((_, i) => `200 ${800_000 + i}`),
  );
  assert.ok(mostHeld > 0);
  assert.equal(heldPieces(), 0);
});

test('no read buffer is left on loan when all connections are gone', async () => {
  for (let i = 0; i < 100 && lentReadBuffers() > 0; i++) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(lentReadBuffers(), 0);
});
