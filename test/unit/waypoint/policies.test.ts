/** What policies say of connections without HTTP, and how resources come to the workers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import { HttpAuthorization, ServiceRoutes } from '../../../common/codec/gen/waypoint.ts';
import { decideHttp } from '../../../common/decision/http-authorization.ts';
import { compileAuthorization } from '../../../common/decision/http-model.ts';
import { transportPart } from '../../../common/decision/transport-policy.ts';
import { HTTP_AUTHORIZATION_TYPE, ROUTES_TYPE, WaypointResources } from '../../../waypoint/supervisor/resources.ts';
import { staticRoutes } from '../../../waypoint/supervisor/static-routes.ts';
import { Configuration, type ConfigurationPush } from '../../../waypoint/worker/configuration.ts';
import { recordingLog } from '../../support/recording-log.ts';

const bytesOf = (yaml: string): Uint8Array => {
  const resource = staticRoutes(yaml).flatMap(({ resources }) => resources)[0];
  if (!resource) throw new Error('no resource');
  return resource.bytes;
};
const policyBytes = (text: string, name = 'p'): Uint8Array =>
  bytesOf(`policies: [{namespace: shop, name: ${name}, targets: [{everything: {}}], ${text}}]`);

function allowsBytes(text: string, port = 9090, account = 'client'): boolean {
  const policy = transportPart(compileAuthorization(HttpAuthorization.decode(policyBytes(text))));
  const request = { method: '', scheme: '', authority: '', path: '', fields: [] };
  const identity = parseSpiffeId(`spiffe://cluster.local/ns/shop/sa/${account}`);
  return decideHttp([policy], request, { identity, ip: '10.0.0.1' }, { service: 'shop/a', ip: undefined, port }).allowed;
}

for (const [text, allowed] of [
  ['rules: [{to: [{methods: [{exact: GET}]}]}]', false],
  ['rules: [{to: [{methods: [{exact: GET}]}, {ports: [9090]}]}]', true],
  ['rules: [{to: [{ports: [9090], paths: [{prefix: /}]}]}]', false],
  ['rules: [{to: [{notHosts: [{exact: a}]}]}]', false],
  ['rules: [{when: [{key: "request.headers[x]", values: [{exact: a}]}]}]', false],
  ['rules: [{from: [{serviceAccounts: [{exact: shop/client}]}]}]', true],
  ['rules: [{from: [{serviceAccounts: [{exact: shop/other}]}]}]', false],
  ['rules: [{}]', true],
  ['', false],
] as const) {
  test(`bytes: ALLOW with ${text || 'no rules'} ${allowed ? 'allows' : 'allows nothing'}`, () => assert.equal(allowsBytes(text), allowed));
}

for (const [text, allowed] of [
  ['rules: [{to: [{methods: [{exact: POST}]}]}]', false],
  ['rules: [{to: [{ports: [80], methods: [{exact: POST}]}]}]', true],
  ['rules: [{from: [{serviceAccounts: [{exact: shop/other}]}], to: [{paths: [{exact: /admin}]}]}]', true],
  ['rules: [{from: [{serviceAccounts: [{exact: shop/client}]}], to: [{paths: [{exact: /admin}]}]}]', false],
  ['rules: [{from: [{serviceAccounts: [{exact: shop/client}]}], when: [{key: "request.headers[x]", values: [{exact: a}]}]}]', false],
  ['', true],
] as const) {
  test(`bytes: DENY with ${text || 'no rules'} ${allowed ? 'refuses nothing of it' : 'refuses'}`, () =>
    assert.equal(allowsBytes(`action: DENY, ${text === '' ? 'rules: []' : text}`), allowed));
}

const resource = (name: string, bytes: Uint8Array, version = '1') => ({ name, bytes, version });
const routes = (hostname: string, text = '{port: 80, table: [{rule: 0}], rules: [{name: r}]}'): Uint8Array =>
  bytesOf(`routes: [{namespace: shop, hostname: ${hostname}, ports: [${text}]}]`);

test('a resource that cannot be used is one rejection, and the one before stays in force but is not claimed to be held', () => {
  const pushes: ConfigurationPush[] = [];
  const resources = new WaypointResources((push) => pushes.push(push));
  resources.apply({ typeUrl: ROUTES_TYPE, resources: [resource('shop/a', routes('a')), resource('shop/b', routes('b'))], removed: [] });
  const bad = routes('a', '{port: 80, table: [{rule: 7}], rules: []}');
  const { rejected } = resources.apply({
    typeUrl: ROUTES_TYPE,
    resources: [resource('shop/a', bad, '2'), resource('shop/b', routes('b'), '2'), resource('shop/x', new Uint8Array([255]), '1')],
    removed: [],
  });
  assert.deepEqual(
    rejected.map(({ name }) => name),
    ['shop/a', 'shop/x'],
  );
  assert.match(rejected[0]?.reason ?? '', /there is no rule 7/);
  assert.deepEqual([...resources.versions(ROUTES_TYPE)], [['shop/b', '2']]);
  assert.deepEqual(resources.counts, { routes: 2, policies: 0 });
  assert.deepEqual(
    pushes.map((push) => push.resources.map(({ name }) => name)),
    [['shop/a', 'shop/b'], ['shop/b']],
  );
});

test('a resource under another name than its own is rejected: nobody would find it', () => {
  const resources = new WaypointResources(() => undefined);
  const { rejected } = resources.apply({ typeUrl: HTTP_AUTHORIZATION_TYPE, resources: [resource('shop/q', policyBytes(''))], removed: [] });
  assert.match(rejected[0]?.reason ?? '', /named shop\/q and says that it is shop\/p/);
});

test('a worker that starts gets everything that is in force, and what was removed is gone', () => {
  const resources = new WaypointResources(() => undefined);
  resources.apply({ typeUrl: ROUTES_TYPE, resources: [resource('shop/a', routes('a')), resource('shop/b', routes('b'))], removed: [] });
  resources.apply({ typeUrl: ROUTES_TYPE, resources: [], removed: ['shop/a'] });
  resources.apply({ typeUrl: HTTP_AUTHORIZATION_TYPE, resources: [resource('shop/p', policyBytes('rules: [{}]'))], removed: [] });
  const configuration = new Configuration(recordingLog());
  for (const push of resources.snapshot()) configuration.apply(push);
  assert.equal(configuration.routesOf('shop/a'), undefined);
  assert.equal(configuration.routesOf('shop/b')?.service, 'shop/b');
  assert.deepEqual(
    configuration.policiesOf('shop/b').map(({ key }) => key),
    ['shop/p'],
  );
});

test('policies are found by service, again after each change, and those for everything hold for pods too', () => {
  const configuration = new Configuration(recordingLog());
  const put = (bytes: Uint8Array, name: string, removed: string[] = []): void =>
    configuration.apply({ kind: 'policies', resources: bytes.length > 0 ? [{ name, bytes }] : [], removed });
  const keys = (service: string | undefined): string[] => configuration.policiesOf(service).map(({ key }) => key);
  put(bytesOf('policies: [{namespace: shop, name: a, targets: [{service: shop/a}]}]'), 'shop/a');
  assert.deepEqual([keys('shop/a'), keys('shop/b'), keys(undefined)], [['shop/a'], [], []]);
  put(policyBytes(''), 'shop/p');
  assert.deepEqual([keys('shop/a'), keys('shop/b'), keys(undefined)], [['shop/a', 'shop/p'], ['shop/p'], ['shop/p']]);
  put(new Uint8Array(), '', ['shop/a', 'shop/p']);
  assert.deepEqual([keys('shop/a'), keys(undefined)], [[], []]);
});

test('a file of routes says where it is wrong', () => {
  for (const [yaml, complaint] of [
    ['routes: [{namespace: shop}]', /routes\[0\]: missing key "hostname"/],
    ['routes: [{namespace: a, hostname: b, ports: [{prot: 80}]}]', /routes\[0\]\.ports\[0\]: unknown key "prot"/],
    [
      'routes: [{namespace: a, hostname: b, ports: [{table: [{match: {path: {exact: /, prefix: /}}}]}]}]',
      /path: expected one of exact, prefix, regex/,
    ],
    ['policies: [{namespace: a, name: b, action: PRAY}]', /expected one of ALLOW, DENY/],
    ['policies: [{namespace: a, name: b, targets: [{}]}]', /targets\[0\]: expected service, everything or route/],
    ['other: []', /unknown key "other"/],
  ] as const) {
    assert.throws(() => staticRoutes(yaml), complaint, yaml);
  }
  assert.equal(ServiceRoutes.decode(routes('a')).ports[0]?.rules[0]?.name, 'r');
});
