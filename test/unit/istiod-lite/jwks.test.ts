/** Key sets from servers of every kind, and their keeping. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { parseCidr } from '../../../common/base/address.ts';
import { fetchKeys } from '../../../istiod-lite/jwks/fetch.ts';
import { KeyKeeper } from '../../../istiod-lite/jwks/keeper.ts';
import type { FetchedKeys } from '../../../istiod-lite/model/request-authentication.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { recordingLog } from '../../support/recording-log.ts';

const KEYS = JSON.stringify({ keys: [generateKeyPairSync('ed25519').publicKey.export({ format: 'jwk' })] });

/** A server on loopback that a test may reach under another name: the guard judges what `lookup` says. */
async function server(t: TestContext, answer: RequestListener): Promise<string> {
  const http = createServer(answer).listen(0, '127.0.0.1');
  await once(http, 'listening');
  t.after(() => http.close().closeAllConnections());
  return `http://keys.example:${(http.address() as AddressInfo).port}`;
}

const options = { timeoutMs: 10_000, blocked: [], lookup: () => Promise.resolve(['10.1.2.3']) };

for (const [what, address] of [
  ['loopback', 'http://127.0.0.1:1/keys'],
  ['loopback in other words', 'http://0x7f.1/keys'],
  ['IPv4 in IPv6', 'http://[::ffff:169.254.169.254]/keys'],
  ["a cloud's metadata", 'http://169.254.169.254/latest'],
  ['a neighbour on the link', 'http://[fe80::1]/keys'],
] as const) {
  test(`keys are never fetched from ${what}`, async () => {
    await assert.rejects(fetchKeys(address, 'discover ', options), /no address that keys may be fetched from/);
  });
}

test('a name that stands for a forbidden address is refused as the address is, and so are ranges of the operator', async () => {
  const lookup = () => Promise.resolve(['169.254.169.254', '::1']);
  await assert.rejects(fetchKeys('http://nice.example/keys', 'discover ', { ...options, lookup }), /no address/);
  const blocked = [parseCidr('10.0.0.0/8') ?? assert.fail()];
  await assert.rejects(fetchKeys('http://nice.example/keys', 'discover ', { ...options, blocked }), /no address/);
  await assert.rejects(fetchKeys('file:///etc/passwd', 'discover ', options), /not fetched by file:/);
  await assert.rejects(fetchKeys('nonsense', 'discover ', options), /no address/);
});

/** The servers of these tests are on loopback, so they are reached through a name whose address the guard lets pass. */
async function through(
  t: TestContext,
  answer: RequestListener,
  path: string,
  more: Partial<typeof options> = {},
  from?: string,
): Promise<string> {
  const base = await server(t, answer);
  // 127.0.0.1 as another spelling would be refused: the test's own machine has addresses of other kinds.
  const { networkInterfaces } = await import('node:os');
  const own = Object.values(networkInterfaces())
    .flat()
    .find((one) => one && !one.internal && one.family === 'IPv4')?.address;
  if (own === undefined) {
    t.skip('this machine has no address beside loopback');
    return KEYS;
  }
  const http = createServer(answer).listen(0, own);
  await once(http, 'listening');
  t.after(() => http.close().closeAllConnections());
  const port = (http.address() as AddressInfo).port;
  const address = (from ?? `${base}${path}`).replace(/keys\.example:\d+/, `keys.example:${port}`);
  return fetchKeys(address, 'discover ', { ...options, lookup: () => Promise.resolve([own]), ...more });
}

test('a key set is what the server says, and an issuer may say where it is', async (t) => {
  assert.equal(await through(t, (_, response) => response.end(KEYS), '/keys'), KEYS);
  const discovering: RequestListener = (request, response) => {
    const host = request.headers.host;
    response.end(request.url === '/.well-known/openid-configuration' ? JSON.stringify({ jwks_uri: `http://${host}/k` }) : KEYS);
  };
  assert.equal(await through(t, discovering, '', {}, 'discover http://keys.example:1/'), KEYS);
});

test('servers that hang, send too much, fail, send something else or lead in circles are each one sentence', async (t) => {
  await assert.rejects(
    through(t, () => undefined, '/', { timeoutMs: 200 }),
    /did not answer in time/,
  );
  const endless: RequestListener = (_, response) =>
    void response.on('drain', () => response.write('x'.repeat(1 << 16))).write('x'.repeat(1 << 20));
  await assert.rejects(through(t, endless, '/'), /more than 1048576 bytes/);
  await assert.rejects(
    through(t, (_, response) => response.writeHead(500).end(), '/'),
    /answered 500/,
  );
  await assert.rejects(
    through(t, (_, response) => response.end('<html>'), '/'),
    /no JSON/,
  );
  const circle: RequestListener = (request, response) => response.writeHead(302, { location: `http://${request.headers.host}/` }).end();
  await assert.rejects(through(t, circle, '/'), /more than 3 other places/);
  const inside: RequestListener = (_, response) => response.writeHead(302, { location: 'http://169.254.169.254/' }).end();
  await assert.rejects(through(t, inside, '/'), /no address that keys may be fetched from/);
});

function keeperOf(fetch: (from: string) => Promise<string>) {
  const clock = new FakeClock();
  const told: [string, FetchedKeys | undefined][] = [];
  const keeper = new KeyKeeper({
    clock,
    random: () => 0.5,
    log: recordingLog(),
    refreshMs: 60_000,
    fetch,
    changed: (from, found) => void told.push([from, found]),
  });
  return { clock, told, keeper };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('keys are fetched when they are named, again after their time, and forgotten when nobody names them', async () => {
  let keys = 'one';
  const { clock, told, keeper } = keeperOf(() => Promise.resolve(keys));
  keeper.want(new Set(['a']));
  await turn();
  keeper.want(new Set(['a']));
  keys = 'two';
  await clock.advance(60_000);
  await turn();
  await clock.advance(60_000);
  await turn();
  keeper.want(new Set());
  assert.deepEqual(told, [
    ['a', { keys: 'one' }],
    ['a', { keys: 'two' }],
    ['a', undefined],
  ]);
  keys = 'three';
  await clock.advance(600_000);
  assert.equal(told.length, 3);
});

test('while an issuer is away its keys stay, and one that never answered says why and is asked again', async () => {
  let away = true;
  const { clock, told, keeper } = keeperOf(() => (away ? Promise.reject(new Error('away')) : Promise.resolve('keys')));
  keeper.want(new Set(['a']));
  await turn();
  assert.deepEqual(told, [['a', { problem: 'away' }]]);
  away = false;
  await clock.advance(5_000);
  await turn();
  assert.deepEqual(told[1], ['a', { keys: 'keys' }]);
  away = true;
  await clock.advance(600_000);
  await turn();
  assert.equal(told.length, 2, 'they were good, and are kept');
});
