/**
 * Each field and each condition of an AuthorizationPolicy, as a user writes it, at the waypoint: translated, compiled, and asked about one request by the
 * whole pipeline, under each action, plain and negated.
 */
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import { Action } from '../../../common/codec/gen/waypoint.ts';
import { readHttpPolicy } from '../../../istiod-lite/model/http-policy.ts';
import { FakeExchange, pipelineWorld } from '../../support/waypoint-fakes.ts';

type Json = Readonly<Record<string, unknown>>;

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 });
const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const CLAIMS = { iss: 'https://issuer', sub: 'ada', aud: ['shop', 'web'], azp: 'app', tier: 'gold', realm: { roles: ['admin', 'user'] } };
const signed = `${part({ alg: 'RS256' })}.${part(CLAIMS)}`;
const TOKEN = `${signed}.${sign('sha256', Buffer.from(signed), rsa.privateKey).toString('base64url')}`;
const KEYS = JSON.stringify({ keys: [rsa.publicKey.export({ format: 'jwk' })] });

/** The request: from cluster.local/ns/shop/sa/client at 10.0.9.9, to 10.96.0.1:80. */
const request = (): FakeExchange =>
  new FakeExchange({
    method: 'GET',
    authority: 'orders.shop:8080',
    path: '/a/b/c?q=1',
    fields: ['x-color', 'deep-blue', 'authorization', `Bearer ${TOKEN}`],
  });

const from = (source: Json): Json => ({ from: [{ source }] });
const to = (operation: Json): Json => ({ to: [{ operation }] });
const when = (key: string, values: readonly string[]): Json => ({ when: [{ key, values }] });

/** Field by field: values that the request has, and values that it has not. Each value of a list is a row of its own kind of match. */
const SOURCES: Readonly<Record<string, readonly [has: readonly string[], hasNot: readonly string[]]>> = {
  principals: [
    ['cluster.local/ns/shop/sa/client', 'cluster.local/ns/shop/*', '*/sa/client', '*'],
    [
      'cluster.local/ns/shop/sa/other',
      'spiffe://cluster.local/ns/shop/sa/client',
      'cluster.local/ns/bank/*',
      '*/sa/root',
      'CLUSTER.LOCAL/ns/shop/sa/client',
    ],
  ],
  namespaces: [
    ['shop', 'sh*', '*op', '*'],
    ['bank', 'shopping', 'ba*', '*nk'],
  ],
  serviceAccounts: [
    ['shop/client', 'client'],
    ['shop/other', 'bank/client', 'other'],
  ],
  trustDomains: [
    ['cluster.local', 'cluster.*', '*.local', '*'],
    ['other.local', 'cluster.loca'],
  ],
  requestPrincipals: [
    ['https://issuer/ada', 'https://issuer/*', '*/ada', '*'],
    ['https://issuer/eve', 'https://other/*', '*/eve', 'ada'],
  ],
  ipBlocks: [
    ['10.0.9.9', '10.0.9.0/24', '0.0.0.0/0'],
    ['10.0.9.8', '10.0.8.0/24', 'fd00::/8'],
  ],
  remoteIpBlocks: [
    ['10.0.9.9', '10.0.9.0/24', '0.0.0.0/0'],
    ['10.0.9.8', '10.0.8.0/24', 'fd00::/8'],
  ],
};

const OPERATIONS: typeof SOURCES = {
  hosts: [
    ['orders.shop', 'orders.shop:8080', 'ORDERS.shop', 'orders.*', '*.shop', '*'],
    ['orders', 'orders.shop:80', 'payments.*', '*.bank'],
  ],
  ports: [['80'], ['8080', '443']],
  methods: [
    ['GET', 'G*', '*ET', '*'],
    ['POST', 'get', 'P*'],
  ],
  paths: [
    ['/a/b/c', '/a/*', '*/c', '*', '/a/{*}/c', '/a/{**}', '/{**}/c', '/{*}/b/{*}'],
    ['/a/b', '/a/b/c?q=1', '/a/b/c/', '/A/b/c', '/b/*', '*/d', '/a/{*}', '/{*}/c', '/a/b/c/{*}', '/a/b/c/d/{**}'],
  ],
};

const CONDITIONS: typeof SOURCES = {
  'source.ip': [
    ['10.0.9.9', '10.0.0.0/16'],
    ['10.1.0.0/16', 'fd00::/8'],
  ],
  'remote.ip': [
    ['10.0.9.9', '10.0.0.0/16'],
    ['10.1.0.0/16', 'fd00::/8'],
  ],
  'source.namespace': [
    ['shop', 'sh*', '*'],
    ['bank', 'ba*'],
  ],
  'source.principal': [
    ['cluster.local/ns/shop/sa/client', '*/sa/client', '*'],
    ['cluster.local/ns/shop/sa/other', '*/sa/root'],
  ],
  'source.serviceAccount': [['shop/client'], ['shop/other']],
  'destination.ip': [['10.96.0.1', '10.96.0.0/12'], ['10.0.0.0/16']],
  'destination.port': [['80'], ['8080']],
  'request.headers[x-color]': [
    ['deep-blue', 'deep-*', '*-blue', '*'],
    ['blue', 'Deep-Blue', 'red*'],
  ],
  'request.headers[X-Color]': [['deep-blue'], ['red']],
  'request.headers[x-absent]': [[], ['deep-blue', '*']],
  'request.headers[x-request-id]': [['*'], ['mine']],
  'request.auth.principal': [['https://issuer/ada', 'https://issuer/*', '*'], ['https://issuer/eve']],
  'request.auth.audiences': [
    ['shop', 'web', 'sh*', '*'],
    ['bank', 'shop,web'],
  ],
  'request.auth.presenter': [['app', 'a*', '*'], ['web']],
  'request.auth.claims[iss]': [['https://issuer', '*'], ['issuer']],
  'request.auth.claims[tier]': [
    ['gold', 'g*', '*old', '*'],
    ['silver', 'GOLD'],
  ],
  'request.auth.claims[realm][roles]': [
    ['admin', 'user', 'adm*', '*'],
    ['root', 'admin,user'],
  ],
  'request.auth.claims[realm]': [[], ['admin', '*']],
  'request.auth.claims[absent]': [[], ['gold', '*']],
};

interface Seen {
  readonly status: number | undefined;
  readonly audited: readonly string[];
  readonly wouldDeny: readonly string[];
}

async function asked(spec: Json, annotations: Json = {}, caller?: string): Promise<Seen> {
  const { action, dryRun, rules } = readHttpPolicy({ metadata: { name: 'p', namespace: 'shop', annotations }, spec }, () => undefined);
  const name = Object.entries(Action).find(([, value]) => value === action)?.[0];
  const policies = [{ namespace: 'shop', name: 'p', action: name, dryRun, targets: [{ everything: {} }], rules: written(rules) }];
  const authentications = [{ namespace: 'shop', name: 'a', targets: [{ everything: {} }], rules: [{ issuer: CLAIMS.iss, keys: KEYS }] }];
  const world = pipelineWorld(
    (each) => each.answer(200),
    JSON.stringify({ policies, authentications }),
    caller === undefined ? {} : { caller },
  );
  const { response } = await world.ask(request());
  const over = world.over[0]?.request;
  return { status: response?.status, audited: over?.audited ?? [], wouldDeny: over?.wouldDeny ?? [] };
}

/** As a file of policies has it: a match is one key. */
function written(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(written);
  if (typeof value !== 'object' || value === null) return value;
  const { type } = value as { readonly type?: { readonly $case: string; readonly value: unknown } };
  if (type !== undefined) return { [type.$case]: type.value };
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, one]) => (Array.isArray(one) && one.length === 0 ? [] : [[key, written(one)]])),
  );
}

async function holds(rule: Json, expected: boolean, about: string): Promise<void> {
  assert.equal((await asked({ action: 'ALLOW', rules: [rule] })).status, expected ? 200 : 403, `ALLOW ${about}`);
  assert.equal((await asked({ action: 'DENY', rules: [rule] })).status, expected ? 403 : 200, `DENY ${about}`);
  const audit = await asked({ action: 'AUDIT', rules: [rule] });
  assert.deepEqual([audit.status, audit.audited], [200, expected ? ['shop/p'] : []], `AUDIT ${about}`);
}

const capital = (field: string): string => `not${field[0]?.toUpperCase()}${field.slice(1)}`;

for (const [where, fields, make] of [
  ['source', SOURCES, from],
  ['operation', OPERATIONS, to],
] as const) {
  for (const [field, [has, hasNot]] of Object.entries(fields)) {
    test(`${where}.${field} and its negation`, async () => {
      for (const value of has) {
        await holds(make({ [field]: [value] }), true, `${field} ${value}`);
        await holds(make({ [field]: ['5.5.5.5', value].slice(/Ip|ip/.test(field) ? 0 : 1) }), true, `${field} ${value} among others`);
        await holds(make({ [capital(field)]: [value] }), false, `${capital(field)} ${value}`);
      }
      for (const value of hasNot) {
        await holds(make({ [field]: [value] }), false, `${field} ${value}`);
        await holds(make({ [capital(field)]: [value] }), true, `${capital(field)} ${value}`);
      }
    });
  }
}

for (const [key, [has, hasNot]] of Object.entries(CONDITIONS)) {
  test(`when ${key}, and its negation`, async () => {
    const not = (value: string): Json => ({ when: [{ key, notValues: [value] }] });
    for (const value of has) {
      await holds(when(key, [value]), true, value);
      await holds(not(value), false, `not ${value}`);
    }
    for (const value of hasNot) {
      await holds(when(key, [value]), false, value);
      await holds(not(value), true, `not ${value}`);
    }
    const [first, other] = [has[0], hasNot[0]];
    if (first !== undefined && other !== undefined) {
      await holds(when(key, [other, first]), true, 'one of them');
      await holds({ when: [{ key, values: [first], notValues: [other] }] }, true, 'both kinds');
      await holds({ when: [{ key, values: [first], notValues: [first] }] }, false, 'a contradiction');
      await holds(
        { when: [...(when(key, [first]).when as Json[]), ...(when(key, [other]).when as Json[])] },
        false,
        'all conditions at once',
      );
    }
  });
}

test('fields of one source or operation hold together, several sources and operations instead of each other', async () => {
  const [mine, others] = [{ namespaces: ['shop'] }, { namespaces: ['bank'] }];
  await holds(from({ ...mine, principals: ['*/sa/root'] }), false, 'one field fails');
  await holds({ from: [{ source: others }, { source: mine }] }, true, 'the second source');
  await holds({ to: [{ operation: { methods: ['POST'] } }, { operation: { paths: ['/a/*'] } }] }, true, 'the second operation');
  await holds({ ...from(mine), ...to({ methods: ['POST'] }) }, false, 'source and operation');
  await holds({ ...from(mine), ...to({ methods: ['GET'] }), ...when('source.ip', ['10.0.9.9']) }, true, 'all three');
  assert.equal(
    (await asked({ action: 'ALLOW', rules: [to({ methods: ['POST'] }), to({ methods: ['GET'] })] })).status,
    200,
    'the second rule',
  );
});

test('a caller without an identity has no principal, namespace, account or trust domain, so only what is negated holds of it', async () => {
  for (const [field, [[value = '']]] of Object.entries(SOURCES)) {
    if (!['principals', 'namespaces', 'serviceAccounts', 'trustDomains'].includes(field)) continue;
    assert.equal((await asked({ rules: [from({ [field]: [value] })] }, {}, '')).status, 403, field);
    assert.equal((await asked({ rules: [from({ [field]: ['*'] })] }, {}, '')).status, 403, `${field} *`);
    assert.equal((await asked({ rules: [from({ [capital(field)]: [value] })] }, {}, '')).status, 200, capital(field));
  }
});

test('in a dry run a policy tells what it would refuse, and refuses nothing', async () => {
  const dry = { 'istio.io/dry-run': 'true' };
  const mine = from({ namespaces: ['shop'] });
  const others = from({ namespaces: ['bank'] });
  for (const [action, rule, would] of [
    ['DENY', mine, ['shop/p']],
    ['DENY', others, []],
    ['ALLOW', mine, []],
    ['ALLOW', others, ['shop/p']],
  ] as const) {
    const { status, wouldDeny } = await asked({ action, rules: [rule] }, dry);
    assert.deepEqual([status, wouldDeny], [200, would], `${action} ${JSON.stringify(rule)}`);
  }
  assert.equal((await asked({ action: 'DENY', rules: [mine] }, { 'istio.io/dry-run': 'false' })).status, 403);
});
