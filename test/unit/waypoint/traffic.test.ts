/** What DestinationRules and VirtualServices make of requests in the waypoint: subsets, ejection, sessions, limits, faults, CORS, answers. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { FakeExchange, ORDERS_V2, pipelineWorld } from '../../support/waypoint-fakes.ts';

const HOST = 'orders.shop.svc.cluster.local';
const TO = `{to: {namespace: shop, hostname: ${HOST}, port: 80}}`;

const rule = (text: string, more = ''): string => `
routes:
- {namespace: shop, hostname: ${HOST}, ports: [{port: 80, table: [{match: {}, rule: 0}], rules: [{name: r, ${text}}]}]}
${more}`;

const traffic = (policy: string, more = ''): string => `
traffic:
- {namespace: shop, hostname: ${HOST}, policy: {origin: DestinationRule shop/d, ${policy}}${more}}`;

const endpoints = (world: ReturnType<typeof pipelineWorld>): string[] => world.requests.map(({ endpoint }) => endpoint);

test('a subset is the endpoints with its labels, and a subset that nobody is in is 503', async () => {
  const subsets = `${traffic('', `, subsets: [{name: two, labels: {v: "2"}}, {name: empty, labels: {v: "9"}}]`)}
labels:
- {uid: "Kubernetes//Pod/shop/orders-2", labels: {v: "2"}}
- {uid: "Kubernetes//Pod/shop/orders-1", labels: {v: "1"}}`;
  const to = (subset: string): string =>
    rule(`backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80, subset: ${subset}}}]`, subsets);
  const world = pipelineWorld((request) => request.answer(200), to('two'));
  for (let i = 0; i < 3; i++) await world.ask(new FakeExchange());
  assert.deepEqual(endpoints(world), ['orders-2', 'orders-2', 'orders-2']);
  for (const subset of ['empty', 'unknown']) {
    const none = pipelineWorld((request) => request.answer(200), to(subset));
    assert.equal((await none.ask(new FakeExchange())).response?.status, 503, subset);
  }
});

test('an endpoint that fails five times in a row is left out for its time, and has its share again afterwards', async () => {
  const world = pipelineWorld(
    (request) => request.answer(request.endpoint === 'orders-2' ? 500 : 200),
    traffic('outlierDetection: {baseEjectionMs: 30000, maxEjectionPercent: 50}'),
  );
  for (let i = 0; i < 15; i++) await world.ask(new FakeExchange());
  assert.equal(world.ejected.length, 1);
  assert.match(world.ejected[0] ?? '', /orders-2/);
  const before = world.requests.length;
  for (let i = 0; i < 10; i++) assert.equal((await world.ask(new FakeExchange())).response?.status, 200);
  assert.ok(!endpoints(world).slice(before).includes('orders-2'));
  await world.clock.advance(30_001);
  for (let i = 0; i < 3; i++) await world.ask(new FakeExchange());
  assert.ok(endpoints(world).slice(-3).includes('orders-2'));
});

test('a hash of a header keeps a client with one endpoint; a cookie is made where there is none', async () => {
  const byHeader = pipelineWorld(
    (request) => request.answer(200),
    traffic('loadBalancer: {consistentHash: {header: x-user, maglevSize: 101}}'),
  );
  for (let i = 0; i < 4; i++) await byHeader.ask(new FakeExchange({ fields: ['x-user', 'ada'] }));
  assert.equal(new Set(endpoints(byHeader)).size, 1);
  const byCookie = pipelineWorld(
    (request) => request.answer(200),
    traffic('loadBalancer: {consistentHash: {cookie: {name: who, ttlS: 60}}}'),
  );
  const first = await byCookie.ask(new FakeExchange());
  const cookie = first.field('set-cookie') ?? '';
  assert.match(cookie, /^who=(ab){16}; Max-Age=60; Path=\/; HttpOnly$/);
  for (let i = 0; i < 4; i++) {
    const next = await byCookie.ask(new FakeExchange({ fields: ['cookie', `other=1; ${cookie.split(';')[0]}`] }));
    assert.equal(next.field('set-cookie'), undefined);
  }
  assert.equal(new Set(endpoints(byCookie)).size, 1);
});

test('a hash of a parameter or of the address keeps a client with one endpoint; without it there is nothing to keep to', async () => {
  const byParameter = pipelineWorld((request) => request.answer(200), traffic('loadBalancer: {consistentHash: {queryParameter: user}}'));
  for (let i = 0; i < 6; i++) await byParameter.ask(new FakeExchange({ path: `/${i}?user=ada&n=${i}` }));
  assert.equal(new Set(endpoints(byParameter)).size, 1);
  const users = Array.from({ length: 20 }, (_, i) => `u${i}`);
  for (const user of users) await byParameter.ask(new FakeExchange({ path: `/?user=${user}` }));
  assert.equal(new Set(endpoints(byParameter)).size, 3, 'other values, other endpoints');
  const byAddress = pipelineWorld((request) => request.answer(200), traffic('loadBalancer: {consistentHash: {sourceIp: {}}}'));
  for (let i = 0; i < 6; i++) await byAddress.ask(new FakeExchange({ path: `/${i}` }));
  assert.equal(new Set(endpoints(byAddress)).size, 1);
});

test('by PEAK_EWMA requests go where they are expected to be answered sooner', async () => {
  const world = pipelineWorld((request) => {
    if (request.endpoint !== 'orders-2') request.answer(200);
    else void world.clock.advance(400).then(() => request.answer(200));
  }, traffic('loadBalancer: {balancing: PEAK_EWMA}'));
  for (let i = 0; i < 12; i++) {
    const asked = world.ask(new FakeExchange());
    await world.clock.advance(500);
    await asked;
  }
  const slow = endpoints(world).filter((name) => name === 'orders-2').length;
  assert.ok(slow <= 1, `${slow} of 12 went to the slow one`);
});

test('where fewer endpoints are well than minHealthPercent says all are asked again', async () => {
  const detection = 'consecutive5xx: 1, baseEjectionMs: 30000, maxEjectionPercent: 100';
  const failing = (minHealthPercent: number) =>
    pipelineWorld((request) => request.answer(500), traffic(`outlierDetection: {${detection}, minHealthPercent: ${minHealthPercent}}`));
  const careful = failing(60);
  for (let i = 0; i < 12; i++) await careful.ask(new FakeExchange());
  assert.equal(new Set(endpoints(careful).slice(3)).size, 3, 'two of three are ejected, and still asked');
});

test('a session names its endpoint, and goes to another one when that is gone', async () => {
  const world = pipelineWorld(
    (request) => request.answer(200),
    traffic('').replace('policy: {', 'policy: {persistence: {header: x-session}, '),
  );
  const session = (await world.ask(new FakeExchange())).field('x-session') ?? '';
  assert.equal(Buffer.from(session, 'base64').toString(), '10.0.0.2:8080');
  for (let i = 0; i < 3; i++) await world.ask(new FakeExchange({ fields: ['x-session', session] }));
  assert.deepEqual(endpoints(world), ['orders-2', 'orders-2', 'orders-2', 'orders-2']);
  const gone = await world.ask(new FakeExchange({ fields: ['x-session', Buffer.from('10.9.9.9:1').toString('base64')] }));
  assert.notEqual(gone.field('x-session'), undefined, 'a new one is told');
});

test('requests beyond the limit of a service are refused at once, and there is room again when one is answered', async () => {
  const world = pipelineWorld(() => undefined, traffic('connectionPool: {maxRequests: 2}'));
  for (let i = 0; i < 2; i++) await world.ask(new FakeExchange());
  const third = await world.ask(new FakeExchange());
  assert.equal(third.response?.status, 503);
  assert.match(third.field('x-warren-refusal') ?? '', /^code=OVERLOADED/);
  world.requests[0]?.answer(200);
  await new Promise((resolve) => setImmediate(resolve));
  await world.ask(new FakeExchange());
  assert.equal(world.requests.length, 3);
});

test('retries stay within their budget', async () => {
  const retried = rule(`retry: {attempts: 5, conditions: [5xx]}, backends: [${TO}]`, traffic('connectionPool: {maxRetries: 1}'));
  const world = pipelineWorld((request) => request.answer(503), retried);
  const one = world.ask(new FakeExchange());
  const two = world.ask(new FakeExchange());
  await Promise.all([one, two]);
  // Both have failed once; one may wait for another attempt, the other has its answer.
  assert.deepEqual([world.requests.length, world.over.length], [2, 1]);
});

test('only what the route names is retried', async () => {
  const world = pipelineWorld(
    (request) => request.answer(200, '', ['grpc-status', '14']),
    rule(`retry: {attempts: 2, conditions: [unavailable], backoffMs: 1}, backends: [${TO}]`),
  );
  const asked = world.ask(new FakeExchange());
  for (let i = 0; i < 6; i++) {
    await asked;
    await world.clock.advance(10);
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(world.requests.length, 3);
  const never = pipelineWorld(
    (request) => request.answer(503),
    rule(`retry: {attempts: 2, conditions: [connect-failure]}, backends: [${TO}]`),
  );
  assert.equal((await never.ask(new FakeExchange())).response?.status, 503);
  assert.equal(never.requests.length, 1);
});

test('attempts of 0 are none at all, not even at an endpoint that could not be reached', async () => {
  const world = pipelineWorld((request) => request.answer(200), rule(`retry: {attempts: 0}, backends: [${TO}]`));
  world.unreachable.add('orders-2');
  assert.equal((await world.ask(new FakeExchange())).response?.status, 503);
  assert.equal(world.requests.length, 0);
});

test('a backend that asks for time gets it before the next attempt', async () => {
  const world = pipelineWorld(
    (request, number) => request.answer(number === 1 ? 503 : 200, '', number === 1 ? ['retry-after', '2'] : []),
    rule(`retry: {attempts: 1, statusCodes: [503], backoffMs: 1}, backends: [${TO}]`),
  );
  const exchange = await world.ask(new FakeExchange());
  await world.clock.advance(1900);
  assert.equal(world.requests.length, 1);
  await world.clock.advance(200);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([world.requests.length, exchange.response?.status], [2, 200]);
});

test('the time that a backend asks for may be seconds, a date, or when its limit begins anew', async () => {
  const start = Date.UTC(2026, 0, 1);
  const waits = async (...fields: string[]): Promise<number> => {
    const world = pipelineWorld(
      (request, number) => request.answer(number === 1 ? 429 : 200, '', number === 1 ? fields : []),
      rule(`retry: {attempts: 1, statusCodes: [429], backoffMs: 1}, backends: [${TO}]`),
    );
    await world.ask(new FakeExchange());
    for (let second = 0; second < 10; second++) {
      if (world.requests.length === 2) return second;
      await world.clock.advance(1000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return Number.POSITIVE_INFINITY;
  };
  assert.equal(await waits('retry-after', '3'), 3);
  assert.equal(await waits('retry-after', new Date(start + 4000).toUTCString()), 4);
  assert.equal(await waits('x-ratelimit-reset', '2'), 2);
  assert.equal(await waits('x-ratelimit-reset', String(start / 1000 + 5)), 5);
  assert.equal(await waits('retry-after', new Date(start - 60_000).toUTCString()), 1, 'a time that is over is no wait');
  assert.equal(await waits('retry-after', 'soon'), 1);
});

test('faults delay and answer on purpose, and the log knows it', async () => {
  const world = pipelineWorld(
    (request) => request.answer(200),
    rule(`fault: {delayMs: 500, delayPerMillion: 1000000, abortStatus: 418, abortPerMillion: 1000000}, backends: [${TO}]`),
  );
  const exchange = await world.ask(new FakeExchange());
  assert.equal(exchange.ended, false);
  await world.clock.advance(501);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual([exchange.response?.status, world.requests.length], [418, 0]);
  assert.equal(world.over[0]?.request.error?.code, 'FAULT_INJECTED');
  const grpc = pipelineWorld(
    (request) => request.answer(200),
    rule(`fault: {abortGrpcStatus: 14, abortPerMillion: 1000000}, backends: [${TO}]`),
  );
  assert.equal((await grpc.ask(new FakeExchange())).field('grpc-status'), '14');
});

test('a rule can answer itself, with what its response headers add', async () => {
  const world = pipelineWorld(
    (request) => request.answer(200),
    rule('directAnswer: {status: 418, body: tea}, responseHeaders: {set: [{name: x-a, value: b}]}'),
  );
  const exchange = await world.ask(new FakeExchange());
  assert.deepEqual([exchange.response?.status, exchange.received, exchange.field('x-a'), world.requests.length], [418, 'tea', 'b', 0]);
});

test('a preflight never reaches the backend, and a request of that origin gets what browsers ask for', async () => {
  const world = pipelineWorld(
    (request) => request.answer(200, '', ['access-control-allow-origin', 'https://wrong']),
    rule(`cors: {allowOrigins: [{exact: "https://a"}], allowMethods: [PUT]}, backends: [${TO}]`),
  );
  const preflight = await world.ask(
    new FakeExchange({ method: 'OPTIONS', fields: ['origin', 'https://a', 'access-control-request-method', 'PUT'] }),
  );
  assert.deepEqual([preflight.response?.status, preflight.field('access-control-allow-methods'), world.requests.length], [200, 'PUT', 0]);
  const request = await world.ask(new FakeExchange({ fields: ['origin', 'https://a'] }));
  assert.equal(request.field('access-control-allow-origin'), 'https://a', 'the route has the last word');
});

test('what is asked for and not carried out refuses, and names the object', async () => {
  const world = pipelineWorld((request) => request.answer(200), traffic('refuse: tls.mode MUTUAL is not supported'));
  const exchange = await world.ask(new FakeExchange());
  assert.equal(exchange.response?.status, 500);
  assert.match(world.over[0]?.request.error?.message ?? '', /DestinationRule shop\/d: tls.mode MUTUAL/);
});

test('copies go to several mirrors, each with its share', async () => {
  const mirror = `{to: {namespace: shop, hostname: ${ORDERS_V2.hostname}, port: 80}, numerator: 1, denominator: 1}`;
  const world = pipelineWorld((request) => request.answer(200), rule(`backends: [${TO}], mirrors: [${mirror}, ${mirror}]`));
  await world.ask(new FakeExchange());
  assert.deepEqual(endpoints(world).filter((name) => name === 'new-1').length, 2);
});

test('a token that is good opens what a policy keeps for its claims; a bad one is 401, and none is what the policy makes of it', async () => {
  const key = generateKeyPairSync('ed25519');
  const keys = JSON.stringify({ keys: [key.publicKey.export({ format: 'jwk' })] });
  const config = `
authentications:
- namespace: shop
  name: ra
  targets: [{service: shop/${HOST}}]
  rules: [{issuer: me, keys: '${keys}', claimHeaders: [{header: x-role, claim: role}]}]
policies:
- namespace: shop
  name: p
  targets: [{service: shop/${HOST}}]
  rules: [{from: [{requestPrincipals: [{exact: me/ada}]}], when: [{key: "request.auth.claims[role]", values: [{exact: admin}]}]}]
- {namespace: shop, name: watch, action: AUDIT, targets: [{service: shop/${HOST}}], rules: [{to: [{methods: [{exact: GET}]}]}]}
`;
  const world = pipelineWorld((request) => request.answer(200), config);
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const token = (claims: object): string => {
    const signed = `${part({ alg: 'EdDSA' })}.${part({ iss: 'me', ...claims })}`;
    return `${signed}.${sign(null, Buffer.from(signed), key.privateKey).toString('base64url')}`;
  };
  const ask = (fields: string[]) => world.ask(new FakeExchange({ fields }));
  assert.equal((await ask(['authorization', `Bearer ${token({ sub: 'ada', role: 'admin' })}`])).response?.status, 200);
  assert.equal(world.requests[0]?.field('x-role'), 'admin');
  assert.equal(world.requests[0]?.field('authorization'), undefined);
  assert.deepEqual([world.over[0]?.request.token?.principal, world.over[0]?.request.audited], ['me/ada', ['shop/watch']]);
  assert.equal((await ask(['authorization', `Bearer ${token({ sub: 'ada', role: 'user' })}`])).response?.status, 403);
  assert.equal((await ask([])).response?.status, 403);
  const bad = await ask(['authorization', `Bearer ${token({ sub: 'ada' })}x`]);
  assert.deepEqual([bad.response?.status, bad.received], [401, 'Jwt verification fails']);
  assert.equal(bad.field('www-authenticate'), 'Bearer realm="http://orders/", error="invalid_token"');
  assert.match(bad.field('x-warren-refusal') ?? '', /^code=TOKEN_INVALID/);
});

test('a rule for callers with a label is taken by those whose workload has it', async () => {
  const config = (tier: string): string => `
routes:
- namespace: shop
  hostname: ${HOST}
  ports:
  - port: 80
    table: [{match: {headers: [{name: x-canary, exact: "yes"}], source: {labels: {tier: front}}}, rule: 0}, {match: {}, rule: 1}]
    rules: [{name: canary, directAnswer: {status: 201}}, {name: rest, directAnswer: {status: 202}}]
labels: [{uid: "Kubernetes//Pod/shop/client", labels: {tier: ${tier}}, addresses: [10.0.9.9]}]
`;
  const status = async (tier: string) =>
    (await pipelineWorld((request) => request.answer(200), config(tier)).ask(new FakeExchange({ fields: ['x-canary', 'yes'] }))).response
      ?.status;
  assert.deepEqual([await status('front'), await status('back')], [201, 202]);
});
