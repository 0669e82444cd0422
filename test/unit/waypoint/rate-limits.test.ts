/** Rate limits at a waypoint: who is refused, what they are told, and that one greedy caller does not spend another one's share. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import type { Limit } from '../../../common/codec/gen/waypoint.ts';
import { Facts } from '../../../common/decision/http-authorization.ts';
import { askLimits, compileRateLimits, limitFields } from '../../../common/decision/rate-limit.ts';
import { createBuckets, SharedBuckets } from '../../../waypoint/http/buckets.ts';
import { FakeExchange, pipelineWorld } from '../../support/waypoint-fakes.ts';

const ORDERS = 'service: shop/orders.shop.svc.cluster.local';
const policy = (limits: string, more = '', name = 'orders'): string =>
  `{namespace: shop, name: ${name}, targets: [{${ORDERS}}], limits: [${limits}]${more}}`;
const world = (...policies: string[]) =>
  pipelineWorld((request) => request.answer(200, 'ok'), `limits: [${policies.join(', ')}]`, {
    caller: 'spiffe://cluster.local/ns/shop/sa/client',
  });

test('after so many requests the next one is refused with 429, its reason, and when to come again', async () => {
  const mesh = world(policy('{name: few, requests: 2, periodMs: 60000}'));
  const first = await mesh.ask(new FakeExchange());
  assert.equal(first.response?.status, 200);
  assert.equal(first.field('ratelimit-policy'), '"few";q=2;w=60');
  assert.equal(first.field('ratelimit'), '"few";r=1;t=30');
  await mesh.ask(new FakeExchange());
  const third = await mesh.ask(new FakeExchange());
  assert.equal(third.response?.status, 429);
  assert.equal(third.field('ratelimit'), '"few";r=0;t=60');
  assert.equal(third.field('retry-after'), '30');
  assert.match(third.field('x-warren-refusal') ?? '', /^code=RATE_LIMITED; policy=shop\/orders; id=/);
  assert.equal(mesh.over.at(-1)?.request.error?.code, 'RATE_LIMITED');
  assert.equal(mesh.requests.length, 2);
  assert.deepEqual(mesh.limited, ['shop/orders few allowed', 'shop/orders few allowed', 'shop/orders few limited']);
});

test('requests come back one by one as time passes, up to the burst', async () => {
  const mesh = world(policy('{name: a, requests: 60, periodMs: 60000, burst: 2}'));
  const statuses = async (count: number): Promise<(number | undefined)[]> => {
    const found = [];
    for (let i = 0; i < count; i++) found.push((await mesh.ask(new FakeExchange())).response?.status);
    return found;
  };
  assert.deepEqual(await statuses(3), [200, 200, 429]);
  await mesh.clock.advance(1000);
  assert.deepEqual(await statuses(2), [200, 429]);
  await mesh.clock.advance(600_000);
  assert.deepEqual(await statuses(3), [200, 200, 429]);
});

test('a caller of another namespace is not told the name of the policy', async () => {
  const mesh = pipelineWorld((request) => request.answer(200), `limits: [${policy('{name: a, requests: 1, periodMs: 1000}')}]`, {
    caller: 'spiffe://cluster.local/ns/elsewhere/sa/client',
  });
  await mesh.ask(new FakeExchange());
  assert.match((await mesh.ask(new FakeExchange())).field('x-warren-refusal') ?? '', /^code=RATE_LIMITED; id=/);
});

for (const [by, first, second] of [
  ['request.headers[x-user]', { fields: ['x-user', 'a'] }, { fields: ['x-user', 'b'] }],
  ['request.path', { path: '/a?x=1' }, { path: '/b?x=1' }],
  ['request.method', { method: 'GET' }, { method: 'PUT' }],
  ['request.query[key]', { path: '/?key=a' }, { path: '/?key=b' }],
  ['request.host', { authority: 'a:80' }, { authority: 'b:80' }],
] as const) {
  test(`by ${by}: each value has a bucket of its own, and those without one share one`, async () => {
    const mesh = world(policy(`{name: a, requests: 1, periodMs: 60000, by: ["${by}"]}`));
    const status = async (head: object): Promise<number | undefined> => (await mesh.ask(new FakeExchange(head))).response?.status;
    assert.equal(await status({ ...first, fields: 'fields' in first ? [...first.fields] : [] }), 200);
    assert.equal(await status({ ...second, fields: 'fields' in second ? [...second.fields] : [] }), 200);
    assert.equal(await status({ ...first, fields: 'fields' in first ? [...first.fields] : [] }), 429);
  });
}

test('requests that a condition does not hold for are not counted', async () => {
  const mesh = world(
    policy(
      '{name: writes, requests: 1, periodMs: 60000, when: [{key: request.method, values: [{exact: POST}]}, {key: request.path, notValues: [{exact: /free}]}]}',
    ),
  );
  const status = async (method: string, path = '/'): Promise<number | undefined> =>
    (await mesh.ask(new FakeExchange({ method, path }))).response?.status;
  assert.deepEqual([await status('POST'), await status('POST'), await status('GET'), await status('POST', '/free')], [200, 429, 200, 200]);
});

test('a request that one limit refuses is not taken out of the others', async () => {
  const mesh = world(
    policy('{name: by-path, requests: 1, periodMs: 60000, by: [request.path]}, {name: all, requests: 3, periodMs: 60000}'),
  );
  const status = async (path: string): Promise<number | undefined> => (await mesh.ask(new FakeExchange({ path }))).response?.status;
  assert.deepEqual(
    [await status('/a'), await status('/a'), await status('/a'), await status('/b'), await status('/c')],
    [200, 429, 429, 200, 200],
  );
  assert.equal(await status('/d'), 429);
});

test('a policy in dry-run refuses nothing, tells clients nothing, and says in the log what it would have done', async () => {
  const mesh = world(policy('{name: a, requests: 1, periodMs: 60000}', ', dryRun: true'));
  await mesh.ask(new FakeExchange());
  const second = await mesh.ask(new FakeExchange());
  assert.equal(second.response?.status, 200);
  assert.equal(second.field('ratelimit'), undefined);
  assert.deepEqual(mesh.over.at(-1)?.request.wouldLimit, ['shop/orders a']);
});

test('limits of a route hold for what takes that route, and those of a named rule for that rule', async () => {
  const route = (section: string): string =>
    `{namespace: shop, name: of-route, targets: [{route: {service: shop/orders.shop.svc.cluster.local, route: HTTPRoute shop/split, section: "${section}"}}], limits: [{name: a, requests: 1, periodMs: 60000}]}`;
  const routes = `routes: [{namespace: shop, hostname: orders.shop.svc.cluster.local, ports: [{port: 80, table: [{match: {path: {prefix: /a}}, rule: 0}, {rule: 1}],
    rules: [{name: HTTPRoute shop/split rule slow, backends: [{to: {namespace: shop, hostname: orders.shop.svc.cluster.local, port: 80}, weight: 1}]},
            {name: HTTPRoute shop/splitter rule 0, backends: [{to: {namespace: shop, hostname: orders.shop.svc.cluster.local, port: 80}, weight: 1}]}]}]}]`;
  for (const [section, refused] of [
    ['', 429],
    ['slow', 429],
    ['other', 200],
  ] as const) {
    const mesh = pipelineWorld((request) => request.answer(200), `{limits: [${route(section)}], ${routes}}`);
    const status = async (path: string): Promise<number | undefined> => (await mesh.ask(new FakeExchange({ path }))).response?.status;
    assert.deepEqual([await status('/a'), await status('/a'), await status('/b'), await status('/b')], [200, refused, 200, 200], section);
  }
});

test('what authorization refuses is not counted, and what has no route is', async () => {
  const deny =
    'policies: [{namespace: shop, name: p, action: DENY, targets: [{everything: {}}], rules: [{to: [{paths: [{exact: /no}]}]}]}]';
  const mesh = pipelineWorld(
    (request) => request.answer(200),
    `{limits: [${policy('{name: a, requests: 1, periodMs: 60000}')}], ${deny}, routes: [{namespace: shop, hostname: orders.shop.svc.cluster.local, ports: [{port: 80, table: [], rules: []}]}]}`,
  );
  const status = async (path: string): Promise<number | undefined> => (await mesh.ask(new FakeExchange({ path }))).response?.status;
  assert.deepEqual([await status('/no'), await status('/a'), await status('/a')], [403, 404, 429]);
});

const facts = (account: string, fields: string[] = []): Facts =>
  new Facts(
    { method: 'GET', scheme: 'http', authority: 'orders', path: '/', fields },
    { identity: parseSpiffeId(`spiffe://cluster.local/ns/shop/sa/${account}`), ip: '10.0.0.1' },
    { service: 'shop/orders', ip: undefined, port: 80 },
  );
const compiled = (limit: Partial<Limit>) =>
  compileRateLimits({
    namespace: 'shop',
    name: 'p',
    targets: [],
    dryRun: false,
    limits: [{ name: 'a', requests: 100, periodMs: 1000, burst: 100, by: [], when: [], fairBetween: [], ...limit }],
  }).limits;

test('a caller who stays within its share of a shared bucket is not refused, however much another one asks for', () => {
  let now = 1e9;
  const buckets = new SharedBuckets(createBuckets(1024), () => now);
  const limits = compiled({ fairBetween: ['source.principal'] });
  const ask = (account: string): boolean => askLimits(limits, facts(account), buckets)[0]?.allowed === true;
  const allowed = { greedy: 0, modest: 0, refusedModest: 0 };
  // Ten seconds: 100 requests a second are to be had; one asks for 1,000, the other for 40.
  for (let millisecond = 0; millisecond < 10_000; millisecond++) {
    now += 1000;
    if (ask('greedy')) allowed.greedy++;
    if (millisecond % 25 !== 0) continue;
    if (ask('modest')) allowed.modest++;
    else allowed.refusedModest++;
  }
  assert.equal(allowed.refusedModest, 0);
  // What the modest one leaves, the greedy one may have: about 60 a second.
  assert.ok(allowed.greedy > 450 && allowed.greedy < 720, `${allowed.greedy}`);
});

test('alone, a caller of a shared bucket may have all of it', () => {
  let now = 1e9;
  const buckets = new SharedBuckets(createBuckets(1024), () => now);
  const limits = compiled({ fairBetween: ['source.principal'] });
  let allowed = 0;
  for (let i = 0; i < 5000; i++) {
    now += 1000;
    if (askLimits(limits, facts('alone'), buckets)[0]?.allowed) allowed++;
  }
  assert.ok(allowed >= 490 && allowed <= 600, `${allowed}`);
});

test('workers share the buckets', () => {
  const memory = createBuckets(64);
  const [one, two] = [new SharedBuckets(memory, () => 5e6), new SharedBuckets(memory, () => 5e6)];
  const limits = compiled({ requests: 3, burst: 3, periodMs: 60_000, by: ['source.principal'] });
  const ask = (buckets: SharedBuckets): boolean => askLimits(limits, facts('a'), buckets)[0]?.allowed === true;
  assert.deepEqual([ask(one), ask(two), ask(one), ask(two), ask(one)], [true, true, true, false, false]);
});

test('with more keys than there are places, those without one share a bucket: memory does not grow, and nobody gets more for it', () => {
  const memory = createBuckets(64);
  const buckets = new SharedBuckets(memory, () => 5e6);
  const limits = compiled({ requests: 2, burst: 2, periodMs: 60_000, by: ['request.headers[x-user]'] });
  let allowed = 0;
  for (let user = 0; user < 10_000; user++) if (askLimits(limits, facts('a', ['x-user', `u${user}`]), buckets)[0]?.allowed) allowed++;
  assert.ok(allowed <= 64 + 2, `${allowed}`);
  assert.ok(buckets.crowded > 9000);
});

test('places of full buckets are used again', () => {
  let now = 1e6;
  const buckets = new SharedBuckets(createBuckets(64), () => now);
  const limits = compiled({ requests: 1, burst: 1, periodMs: 1000, by: ['request.headers[x-user]'] });
  for (let user = 0; user < 2000; user++) {
    assert.equal(askLimits(limits, facts('a', ['x-user', `u${user}`]), buckets)[0]?.allowed, true, `${user}`);
    now += 100_000;
  }
  assert.equal(buckets.crowded, 0);
});

test('names of limits are written as structured fields want them', () => {
  const buckets = new SharedBuckets(createBuckets(64), () => 5e6);
  const [outcome] = askLimits(compiled({ name: 'say "hi"\\', periodMs: 1500 }), facts('a'), buckets);
  assert.deepEqual(limitFields(outcome ? [outcome] : []), [
    'ratelimit-policy',
    '"say \\"hi\\"\\\\";q=100',
    'ratelimit',
    '"say \\"hi\\"\\\\";r=99;t=1',
  ]);
});

test('a limit that says nothing that can be kept to is refused by name', () => {
  assert.throws(() => compiled({ requests: 0 }), /limit a: requests, period and burst/);
  assert.throws(() => compiled({ by: ['source.shoeSize'] }), /limit a: there is no attribute source.shoeSize/);
});
