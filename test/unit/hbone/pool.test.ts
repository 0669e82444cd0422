import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { minutes } from '../../../common/base/clock.ts';
import { ProxyError } from '../../../common/base/errors.ts';
import { HbonePool, type PoolKey } from '../../../common/hbone/pool.ts';
import { HboneServerConnection } from '../../../common/hbone/server.ts';
import { duplexOf } from '../../../common/hbone/stream-duplex.ts';
import { type ConnectRequest, defaultClientLimits, defaultServerLimits, type StreamPipe } from '../../../common/hbone/types.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { memoryPair, pattern, readAll, settle } from '../../support/tunnels.ts';

const KEY: PoolKey = {
  source: 'spiffe://cluster.local/ns/a/sa/a',
  destinations: ['spiffe://cluster.local/ns/b/sa/b'],
  to: { ip: '10.0.0.2', port: 15008 },
  sourceIp: '10.0.0.1',
};
const TUNNEL = { authority: '10.0.0.2:80', headers: [] };

interface FixtureOptions {
  readonly peerStreams?: number;
  readonly maxStreams?: number;
  /** Waits before a dial succeeds; may throw. */
  beforeDial?(key: PoolKey, signal: AbortSignal, dials: number): Promise<void>;
  onConnect?(request: ConnectRequest): void;
}

function fixture(options: FixtureOptions = {}) {
  const clock = new FakeClock();
  const servers: HboneServerConnection[] = [];
  const accepted: StreamPipe[] = [];
  let dials = 0;
  let dialling = 0;
  let mostAtOnce = 0;
  const pool = new HbonePool({
    clock,
    limits: defaultClientLimits,
    maxStreamsPerConnection: options.maxStreams ?? 100,
    unusedReleaseMs: minutes(5),
    async dial(key, signal) {
      dials++;
      mostAtOnce = Math.max(mostAtOnce, ++dialling);
      try {
        await options.beforeDial?.(key, signal, dials);
        await settle(2);
      } finally {
        dialling--;
      }
      const [near, far] = memoryPair();
      servers.push(
        new HboneServerConnection(far, {
          clock,
          limits: { ...defaultServerLimits, maxConcurrentStreams: options.peerStreams ?? 200 },
          onConnect: (request) => (options.onConnect ? options.onConnect(request) : void accepted.push(request.accept([]))),
          onClose() {},
        }),
      );
      return near as TLSSocket;
    },
  });
  return { pool, clock, servers, accepted, dials: () => dials, mostAtOnce: () => mostAtOnce };
}

test('tunnels to one key share a connection, one after the other and side by side', async () => {
  const { pool, dials, servers } = fixture();
  const first = await pool.connect(KEY, TUNNEL);
  first.destroy();
  await settle();
  const [second, third] = await Promise.all([pool.connect(KEY, TUNNEL), pool.connect(KEY, TUNNEL)]);
  assert.deepEqual([dials(), pool.size, servers[0]?.openStreams], [1, 1, 2]);
  second?.destroy();
  third?.destroy();
});

test('keys that differ in any piece have connections of their own', async () => {
  const { pool, dials } = fixture();
  const keys: PoolKey[] = [
    KEY,
    { ...KEY, source: 'spiffe://cluster.local/ns/a/sa/other' },
    { ...KEY, destinations: [...KEY.destinations, 'spiffe://cluster.local/ns/b/sa/other'] },
    { ...KEY, to: { ip: '10.0.0.3', port: 15008 } },
    { ...KEY, to: { ip: '10.0.0.2', port: 15009 } },
    { ...KEY, sourceIp: '10.0.0.9' },
  ];
  for (const key of [...keys, ...keys]) await pool.connect(key, TUNNEL);
  assert.deepEqual([dials(), pool.size], [6, 6]);
});

test('a connection that is full is joined by a second one', async () => {
  const { pool, dials, servers } = fixture({ maxStreams: 2 });
  for (let i = 0; i < 5; i++) await pool.connect(KEY, TUNNEL);
  assert.deepEqual([dials(), servers.map(({ openStreams }) => openStreams)], [3, [2, 2, 1]]);
});

test("a connection carries no more than the peer's limit, and what the peer refused for want of room goes elsewhere", async () => {
  const { pool, servers } = fixture({ peerStreams: 3 });
  await Promise.all(Array.from({ length: 8 }, () => pool.connect(KEY, TUNNEL)));
  assert.deepEqual(servers.map(({ openStreams }) => openStreams).sort(), [2, 3, 3]);
});

test('one connection is dialled at a time for a key, others are not held up', async () => {
  const { pool, dials, mostAtOnce } = fixture({ maxStreams: 10 });
  await Promise.all(Array.from({ length: 35 }, () => pool.connect(KEY, TUNNEL)));
  assert.deepEqual([dials(), mostAtOnce()], [4, 1]);
  const blocked = fixture({ beforeDial: (key) => (key === KEY ? new Promise(() => {}) : Promise.resolve()) });
  void blocked.pool.connect(KEY, TUNNEL);
  await blocked.pool.connect({ ...KEY, sourceIp: '10.0.0.7' }, TUNNEL);
  assert.equal(blocked.dials(), 2);
});

test('a connection that applications have blocked by not reading is no place for new tunnels', async () => {
  const { pool, dials, clock } = fixture();
  for (let i = 0; i < 5; i++) duplexOf(await pool.connect(KEY, TUNNEL)).write(Buffer.alloc(5 << 20));
  await settle(2000);
  await pool.connect(KEY, TUNNEL);
  assert.equal(dials(), 1, 'it may only be slow');
  await clock.advance(1_000);
  await pool.connect(KEY, TUNNEL);
  assert.equal(dials(), 2);
});

test('a connection that said GOAWAY is not used for new tunnels, and finishes its old ones', async () => {
  const { pool, servers, accepted, dials } = fixture();
  const old = duplexOf(await pool.connect(KEY, TUNNEL));
  servers[0]?.drain();
  await settle();
  await pool.connect(KEY, TUNNEL);
  assert.deepEqual([dials(), pool.size], [2, 2]);
  const [far] = accepted;
  assert.ok(far);
  const peer = duplexOf(far);
  old.end('still here');
  assert.equal(String(await readAll(peer)), 'still here');
  peer.end();
  old.resume();
  await settle();
  assert.equal(pool.size, 1);
});

test('a connection that is found dead is replaced without an error', async () => {
  const { pool, servers, dials } = fixture();
  (await pool.connect(KEY, TUNNEL)).destroy();
  await settle();
  servers[0]?.destroy();
  await pool.connect(KEY, TUNNEL);
  assert.equal(dials(), 2);
  await settle();
  assert.equal(pool.size, 1);
});

test('a connection that dies before the answer is replaced, but not for ever', async () => {
  let connects = 0;
  const { pool, servers } = fixture({
    onConnect: () => {
      connects++;
      servers.at(-1)?.destroy();
    },
  });
  await assert.rejects(pool.connect(KEY, TUNNEL), { code: 'CONNECTION_LOST' });
  assert.equal(connects, 4);
});

test('a refusal is the answer, and is not tried again', async () => {
  let connects = 0;
  const { pool } = fixture({
    onConnect: (request) => {
      connects++;
      request.refuse(401, []);
    },
  });
  await assert.rejects(pool.connect(KEY, TUNNEL), { code: 'UPSTREAM_STATUS' });
  assert.equal(connects, 1);
});

test('a connection unused for five minutes is closed', async () => {
  const { pool, clock, dials } = fixture();
  (await pool.connect(KEY, TUNNEL)).destroy();
  await settle();
  await clock.advance(minutes(4));
  (await pool.connect(KEY, TUNNEL)).destroy();
  await settle();
  await clock.advance(minutes(4));
  assert.equal(pool.size, 1, 'it was used in between');
  await clock.advance(minutes(2));
  await settle();
  assert.deepEqual([pool.size, dials()], [0, 1]);
  assert.equal(clock.pending, 0, 'no timer is left');
});

test('a connection in use is never closed for being old', async () => {
  const { pool, clock } = fixture();
  const tunnel = await pool.connect(KEY, TUNNEL);
  await clock.advance(minutes(60));
  assert.equal(pool.size, 1);
  tunnel.destroy();
  await settle();
  await clock.advance(minutes(6));
  await settle();
  assert.deepEqual([pool.size, clock.pending], [0, 0]);
});

test('everybody who waits for a dial gets its error, and the next one dials again', async () => {
  const { pool, dials } = fixture({
    beforeDial: async (_key, _signal, n) => {
      if (n === 1) throw new ProxyError('TLS_FAILURE', 'unknown root');
    },
  });
  const outcomes = await Promise.allSettled([pool.connect(KEY, TUNNEL), pool.connect(KEY, TUNNEL)]);
  assert.deepEqual(
    outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.code : 'opened')),
    ['TLS_FAILURE', 'TLS_FAILURE'],
  );
  await pool.connect(KEY, TUNNEL);
  assert.equal(dials(), 2);
});

test('one who gives up leaves the dial to the others; the last one ends it', async () => {
  let ended = false;
  const { pool, dials } = fixture({
    beforeDial: (_key, signal, n) =>
      n > 1
        ? Promise.resolve()
        : new Promise((_resolve, reject) =>
            signal.addEventListener('abort', () => {
              ended = true;
              reject(signal.reason);
            }),
          ),
  });
  const aborts = [new AbortController(), new AbortController()];
  const waiting = aborts.map(({ signal }) => assert.rejects(pool.connect(KEY, { ...TUNNEL, signal }), { message: 'gave up' }));
  await settle();
  aborts[0]?.abort(new Error('gave up'));
  await settle();
  assert.equal(ended, false);
  aborts[1]?.abort(new Error('gave up'));
  const third = pool.connect(KEY, TUNNEL);
  await Promise.all([...waiting, third]);
  assert.deepEqual([ended, dials(), pool.size], [true, 2, 1]);
});

test('a destroyed pool fails its tunnels and its dials, and opens nothing any more', async () => {
  const reason = new ProxyError('POD_REMOVED', 'the pod left');
  const { pool, servers } = fixture({ beforeDial: (key) => (key === KEY ? Promise.resolve() : settle(1000)) });
  const tunnel = duplexOf(await pool.connect(KEY, TUNNEL));
  const lost = assert.rejects(readAll(tunnel), { code: 'POD_REMOVED' });
  const dialling = assert.rejects(pool.connect({ ...KEY, sourceIp: '10.0.0.8' }, TUNNEL), { code: 'POD_REMOVED' });
  await settle();
  pool.destroy(reason);
  await Promise.all([lost, dialling]);
  await assert.rejects(pool.connect(KEY, TUNNEL), { code: 'POD_REMOVED' });
  await settle();
  assert.deepEqual([pool.size, servers[0]?.openStreams], [0, 0]);
});

test('many small frames to one reader do not stall the others', async () => {
  const { pool, accepted } = fixture();
  const tunnels = [];
  for (let i = 0; i < 3; i++) tunnels.push(duplexOf(await pool.connect(KEY, TUNNEL)));
  const readers = accepted.map((pipe) => readAll(duplexOf(pipe)));
  const pieces = 3000;
  for (const tunnel of tunnels) {
    for (let i = 0; i < pieces; i++) tunnel.write('0123456789');
    tunnel.end();
  }
  for (const read of readers) assert.equal((await read).length, pieces * 10);
});

test('a thousand tunnels of ten sources come and go, over connections of a hundred at most', async () => {
  const { pool, accepted, servers, mostAtOnce } = fixture();
  const message = pattern(2000);
  const one = async (i: number): Promise<void> => {
    const tunnel = duplexOf(await pool.connect({ ...KEY, source: `source ${i % 10}` }, TUNNEL));
    tunnel.end(message);
    assert.ok((await readAll(tunnel)).equals(message));
  };
  const echo = setInterval(() => {
    for (const pipe of accepted.splice(0)) {
      const stream = duplexOf(pipe);
      stream.pipe(stream);
    }
  }, 0);
  await Promise.all(Array.from({ length: 1000 }, (_, i) => one(i)));
  clearInterval(echo);
  await settle();
  assert.deepEqual([pool.size, mostAtOnce()], [10, 10]);
  assert.deepEqual(
    servers.map(({ openStreams }) => openStreams),
    Array(10).fill(0),
  );
});
