/** Our tunnels over TLS on loopback, against Node's HTTP/2 on the other side, and against each other under load. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type TestContext, test } from 'node:test';
import tls from 'node:tls';
import { systemClock } from '../../../common/base/clock.ts';
import { AppSocket } from '../../../common/hbone/app-socket.ts';
import { HboneClient } from '../../../common/hbone/client.ts';
import { HbonePool, type PoolKey } from '../../../common/hbone/pool.ts';
import { keep, receiveFrom } from '../../../common/hbone/receive-buffers.ts';
import { relay } from '../../../common/hbone/relay.ts';
import { HboneServerConnection } from '../../../common/hbone/server.ts';
import { duplexOf } from '../../../common/hbone/stream-duplex.ts';
import { type ConnectRequest, defaultClientLimits, defaultServerLimits } from '../../../common/hbone/types.ts';
import { ignoreServerName, MESH_ALPN, meshContextOptions } from '../../../common/tls/mesh-tls.ts';
import { integrityRound } from '../../fuzz/tunnel-integrity.ts';
import { testAuthority } from '../../support/certificates.ts';
import { pattern, portOf, readAll, settle } from '../../support/tunnels.ts';

const authority = testAuthority();
const certificate = authority.issue('spiffe://cluster.local/ns/a/sa/a');
const tlsOptions = {
  ...meshContextOptions(certificate, { postQuantumOnly: false }),
  ALPNProtocols: MESH_ALPN,
  requestCert: true,
  checkServerIdentity: ignoreServerName,
};

async function listening(t: TestContext, server: net.Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return portOf(server);
}

/** An application that answers with what it is told, half-close included. */
const echoPort = (t: TestContext): Promise<number> =>
  listening(
    t,
    net.createServer({ allowHalfOpen: true }, (socket) => socket.on('error', () => {}).pipe(socket)),
  );

const portIn = (text: string): number => Number(text.slice(text.lastIndexOf(':') + 1));

/** Our server: accepts tunnels and relays them to the port that they name. */
async function ourServer(t: TestContext): Promise<number> {
  const connect = async (request: ConnectRequest): Promise<void> => {
    try {
      const app = await AppSocket.connect(
        undefined,
        { ip: '127.0.0.1', port: portIn(request.authority) },
        { timeoutMs: 5000, clock: systemClock },
      );
      relay(request.accept([['baggage', 'k8s.pod.name=b']]), app);
    } catch {
      request.refuse(503, []);
    }
  };
  const server = tls.createServer(tlsOptions, (socket) => {
    const connection = new HboneServerConnection(socket, {
      limits: defaultServerLimits,
      clock: systemClock,
      onConnect: (request) => void connect(request),
      onClose() {},
    });
    t.after(() => connection.destroy());
  });
  return listening(t, server);
}

/** Node's server, doing the same. */
async function nodeServer(t: TestContext): Promise<number> {
  const server = http2.createSecureServer({ ...tlsOptions, settings: { initialWindowSize: 70_000 } });
  server.on('stream', (stream: http2.ServerHttp2Stream, headers) => {
    const socket = net.connect({ port: portIn(headers[':authority'] ?? ''), host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => stream.close(http2.constants.NGHTTP2_CONNECT_ERROR));
    stream.on('error', () => socket.destroy());
    socket.on('connect', () => {
      stream.respond({ ':status': 200, baggage: 'k8s.pod.name=b' });
      stream.pipe(socket).pipe(stream);
    });
  });
  server.on('session', (session) => t.after(() => session.destroy()));
  return listening(t, server);
}

async function tlsTo(port: number): Promise<tls.TLSSocket> {
  const socket = tls.connect({ ...tlsOptions, host: '127.0.0.1', port });
  await once(socket, 'secureConnect');
  return socket;
}

const keyFor = (port: number): PoolKey => ({ source: 'a', destinations: ['b'], to: { ip: '127.0.0.1', port }, sourceIp: '127.0.0.1' });

function poolOf(t: TestContext): HbonePool {
  const pool = new HbonePool({
    clock: systemClock,
    limits: defaultClientLimits,
    maxStreamsPerConnection: 100,
    unusedReleaseMs: 60_000,
    dial: ({ to }) => tlsTo(to.port),
  });
  t.after(() => pool.destroy());
  return pool;
}

/** Our client side: a port that relays each connection into a tunnel to `target` behind `server`. */
async function ourClient(t: TestContext, server: number, target: number): Promise<number> {
  const pool = poolOf(t);
  const accept = async (socket: net.Socket): Promise<void> => {
    const app = AppSocket.accepted(socket);
    try {
      relay(app, await pool.connect(keyFor(server), { authority: `127.0.0.1:${target}`, headers: [] }));
    } catch {
      app.destroy();
    }
  };
  return listening(
    t,
    net.createServer({ pauseOnConnect: true }, (socket) => void accept(socket)),
  );
}

/** Reads a little, waits, reads on. */
function slowly(): Transform {
  let chunks = 0;
  return new Transform({
    highWaterMark: 16 << 10,
    transform(chunk, _encoding, done) {
      if (++chunks % 16 === 0) setTimeout(() => done(null, chunk), 1);
      else done(null, chunk);
    },
  });
}

/** Sends bytes through an echo and back past a slow reader, and compares all of them. */
async function echoes(port: number, length: number, slow: boolean): Promise<void> {
  const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  const sent = pattern(length, length);
  let at = 0;
  socket.end(sent);
  await pipeline(socket, ...(slow ? [slowly()] : []), async (source: AsyncIterable<Buffer>) => {
    for await (const chunk of source) {
      assert.equal(Buffer.compare(chunk, sent.subarray(at, at + chunk.length)), 0, `bytes from ${at} on`);
      at += chunk.length;
    }
  });
  assert.equal(at, length);
}

for (const [name, server] of [
  ['our server', ourServer],
  ["Node's server", nodeServer],
] as const) {
  test(`our client and ${name} carry large transfers both ways unchanged, past slow readers`, async (t) => {
    const port = await ourClient(t, await server(t), await echoPort(t));
    await Promise.all([echoes(port, 8 << 20, false), echoes(port, 2 << 20, true), echoes(port, 1, false), echoes(port, 100_000, true)]);
  });

  test(`our client and ${name} keep a half-closed tunnel open`, async (t) => {
    const app = net.createServer({ allowHalfOpen: true }, (socket) => {
      void readAll(socket).then((question) => socket.end(`you said ${question}`));
    });
    const port = await ourClient(t, await server(t), await listening(t, app));
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.end('hello');
    assert.equal(String(await readAll(socket)), 'you said hello');
  });

  test(`our client and ${name} tell the caller when the application refuses`, async (t) => {
    const target = await server(t);
    await assert.rejects(
      poolOf(t).connect(keyFor(target), { authority: '127.0.0.1:1', headers: [] }),
      /503 Service Unavailable|CONNECT_ERROR/,
    );
  });
}

test("Node's client and our server carry large transfers both ways unchanged", async (t) => {
  const [server, target] = [await ourServer(t), await echoPort(t)];
  const session = http2.connect(`https://127.0.0.1:${server}`, tlsOptions);
  t.after(() => session.destroy());
  const one = async (length: number): Promise<void> => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': `127.0.0.1:${target}` }, { endStream: false });
    const [headers] = await once(stream, 'response');
    assert.deepEqual([headers[':status'], headers.baggage], [200, 'k8s.pod.name=b']);
    const sent = pattern(length);
    const received = readAll(stream);
    for (let at = 0; at < length; at += 50_000) if (!stream.write(sent.subarray(at, at + 50_000))) await once(stream, 'drain');
    stream.end();
    assert.ok((await received).equals(sent));
  };
  await Promise.all([one(3 << 20), one(500_000), one(10)]);
});

test("Node's client sees our refusals, and its own resets reach the application as an end", async (t) => {
  const app = net.createServer({ allowHalfOpen: true });
  const [server, target] = [await ourServer(t), await listening(t, app)];
  const session = http2.connect(`https://127.0.0.1:${server}`, tlsOptions);
  t.after(() => session.destroy());
  const refused = session.request({ ':method': 'CONNECT', ':authority': '127.0.0.1:1' }, { endStream: false });
  const [answer] = await once(refused, 'response');
  assert.equal(answer[':status'], 503);
  const accepted = once(app, 'connection');
  const stream = session.request({ ':method': 'CONNECT', ':authority': `127.0.0.1:${target}` }, { endStream: false });
  await once(stream, 'response');
  const [socket] = await accepted;
  stream.close(http2.constants.NGHTTP2_CANCEL);
  socket.resume();
  await once(socket, 'end');
  socket.end();
});

test('a thousand tunnels at once over several connections each carry their own bytes', async (t) => {
  const [server, target] = [await ourServer(t), await echoPort(t)];
  const pool = poolOf(t);
  const tunnels = await Promise.all(
    Array.from({ length: 1000 }, () => pool.connect(keyFor(server), { authority: `127.0.0.1:${target}`, headers: [] })),
  );
  assert.equal(pool.size, 10);
  await Promise.all(
    tunnels.map(async (pipe, i) => {
      const stream = duplexOf(pipe);
      const sent = pattern(20_000, i);
      stream.end(sent);
      assert.ok((await readAll(stream)).equals(sent));
    }),
  );
});

test('a tunnel inside a tunnel carries bytes unchanged', async (t) => {
  const [outer, inner, target] = [await ourServer(t), await ourServer(t), await echoPort(t)];
  const pipe = await poolOf(t).connect(keyFor(outer), { authority: `127.0.0.1:${inner}`, headers: [] });
  const socket = tls.connect({ ...tlsOptions, socket: duplexOf(pipe) });
  await once(socket, 'secureConnect');
  const client = new HboneClient(socket, { limits: defaultClientLimits, clock: systemClock, onClose() {} });
  const stream = duplexOf(await client.connect({ authority: `127.0.0.1:${target}`, headers: [] }));
  const sent = pattern(2 << 20);
  stream.end(sent);
  assert.ok((await readAll(stream)).equals(sent));
  client.destroy();
});

test('TLS decrypts into buffers of ours on this Node, and pieces that are kept stay as they are', async (t) => {
  const received: Buffer[] = [];
  let kept: Buffer | undefined;
  let pieces = 0;
  const server = tls.createServer(tlsOptions, (socket) => {
    receiveFrom(socket, (piece) => {
      pieces++;
      received.push(Buffer.from(piece));
      kept ??= keep(piece);
    });
    assert.equal(socket.listenerCount('data'), 0, 'no events, but calls');
    socket.on('end', () => socket.end('done'));
  });
  const client = await tlsTo(await listening(t, server));
  const sent = pattern(3 << 20);
  client.end(sent);
  assert.equal(String(await readAll(client)), 'done');
  assert.ok(Buffer.concat(received).equals(sent));
  assert.ok(pieces > 1);
  assert.ok(kept?.equals(sent.subarray(0, kept.length)));
});

test('application sockets accepted on a dual-stack listener spell IPv4 as IPv4', async (t) => {
  const accepted: AppSocket[] = [];
  const server = net.createServer({ pauseOnConnect: true }, (socket) => accepted.push(AppSocket.accepted(socket)));
  server.listen(0, '::');
  await once(server, 'listening');
  t.after(() => server.close());
  const app = net.connect({ port: portOf(server), host: '127.0.0.1' });
  await once(app, 'connect');
  while (accepted.length === 0) await settle(1);
  assert.deepEqual(accepted[0]?.remote, { ip: '127.0.0.1', port: app.localPort });
  app.destroy();
  accepted[0]?.destroy();
});

test('whatever the windows, frame sizes and readers, every byte arrives as it was sent', async () => {
  for (let round = 0; round < 2; round++) await integrityRound(4);
});
