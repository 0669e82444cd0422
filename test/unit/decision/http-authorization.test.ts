import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Action,
  type HttpAuthorization,
  type HttpAuthorizationRule,
  type Operation,
  type Source,
  type TextMatch,
} from '../../../common/codec/gen/waypoint.ts';
import { decideHttp, type ServerName } from '../../../common/decision/http-authorization.ts';
import { compileAuthorization, templateRegex } from '../../../common/decision/http-model.ts';

const is = (value: string): TextMatch => ({ type: { $case: 'exact', value } });
const startsWith = (value: string): TextMatch => ({ type: { $case: 'prefix', value } });

const source = (more: Partial<Source>): Source => ({
  principals: [],
  notPrincipals: [],
  namespaces: [],
  notNamespaces: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  ipBlocks: [],
  notIpBlocks: [],
  requestPrincipals: [],
  notRequestPrincipals: [],
  trustDomains: [],
  notTrustDomains: [],
  remoteIpBlocks: [],
  notRemoteIpBlocks: [],
  ...more,
});
const operation = (more: Partial<Operation>): Operation => ({
  hosts: [],
  notHosts: [],
  ports: [],
  notPorts: [],
  methods: [],
  notMethods: [],
  paths: [],
  notPaths: [],
  ...more,
});
const policy = (
  name: string,
  action: Action,
  rules: Partial<HttpAuthorizationRule>[],
  more: Partial<HttpAuthorization> = {},
): HttpAuthorization => ({
  namespace: 'shop',
  name,
  action,
  dryRun: false,
  targets: [{ type: { $case: 'everything', value: {} } }],
  rules: rules.map((rule) => ({ from: [], to: [], when: [], ...rule })),
  ...more,
});

interface Asked {
  method?: string;
  path?: string;
  host?: string;
  fields?: string[];
  caller?: string | undefined;
  ip?: string;
  port?: number;
  serverName?: ServerName;
}

function verdict(policies: HttpAuthorization[], asked: Asked = {}): string {
  const { method = 'GET', path = '/', host = 'orders', fields = [], ip = '10.0.0.1', port = 80 } = asked;
  const caller = 'caller' in asked ? asked.caller : 'frontend';
  const identity = caller === undefined ? undefined : { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: caller };
  const decided = decideHttp(
    policies.map(compileAuthorization),
    { method, scheme: 'http', authority: host, path, fields },
    { identity, ip, serverName: asked.serverName },
    { service: 'shop/orders.shop.svc.cluster.local', ip: '10.0.0.2', port },
  );
  return decided.allowed
    ? `allowed${decided.wouldDeny.length > 0 ? ` (would deny: ${decided.wouldDeny.join()})` : ''}`
    : `${decided.policy ?? 'nobody'}: ${decided.reason}`;
}

const FRONTEND = source({ principals: [is('cluster.local/ns/shop/sa/frontend')] });

test('without a policy everything is allowed; with an ALLOW only what it says', () => {
  assert.equal(verdict([]), 'allowed');
  const reads = policy('reads', Action.ALLOW, [{ from: [FRONTEND], to: [operation({ methods: [is('GET')] })] }]);
  assert.equal(verdict([reads]), 'allowed');
  assert.equal(verdict([reads], { method: 'POST' }), 'shop/reads: allow policies exist, but none allowed');
  assert.equal(verdict([reads], { caller: 'orders' }), 'shop/reads: allow policies exist, but none allowed');
  assert.equal(verdict([reads], { caller: undefined }), 'shop/reads: allow policies exist, but none allowed');
});

test('a DENY wins over every ALLOW and names itself', () => {
  const all = policy('all', Action.ALLOW, [{}]);
  const admin = policy('no-admin', Action.DENY, [{ to: [operation({ paths: [startsWith('/admin')] })] }]);
  assert.equal(verdict([all, admin], { path: '/admin/x?y' }), 'shop/no-admin: explicitly denied by: shop/no-admin');
  assert.equal(verdict([all, admin], { path: '/shop?admin' }), 'allowed');
});

test('no rule at all refuses everything as ALLOW and nothing as DENY', () => {
  assert.match(verdict([policy('nothing', Action.ALLOW, [])]), /^shop\/nothing/);
  assert.equal(verdict([policy('nothing', Action.DENY, [])]), 'allowed');
});

test('a policy holds for its targets only', () => {
  const targets = (service: string): HttpAuthorization['targets'] => [{ type: { $case: 'service', value: service } }];
  const deny = (service: string): HttpAuthorization => policy('deny', Action.DENY, [{}], { targets: targets(service) });
  assert.match(verdict([deny('shop/orders.shop.svc.cluster.local')]), /denied by/);
  assert.equal(verdict([deny('shop/payments.shop.svc.cluster.local')]), 'allowed');
});

test('hosts compare without case and without the port of the header', () => {
  const deny = policy('host', Action.DENY, [{ to: [operation({ hosts: [is('Orders.Example')] })] }]);
  for (const host of ['orders.example', 'ORDERS.example:8080']) assert.match(verdict([deny], { host }), /denied by/, host);
  assert.equal(verdict([deny], { host: 'other.example' }), 'allowed');
});

test('addresses, ports, headers and their negations', () => {
  const near = policy('near', Action.ALLOW, [{ from: [source({ ipBlocks: ['10.0.0.0/8'], notIpBlocks: ['10.9.0.0/16'] })] }]);
  assert.equal(verdict([near]), 'allowed');
  assert.match(verdict([near], { ip: '10.9.0.1' }), /none allowed/);
  assert.match(verdict([near], { ip: 'fd00::1' }), /none allowed/);
  const port = policy('port', Action.DENY, [{ to: [operation({ notPorts: [80] })] }]);
  assert.equal(verdict([port]), 'allowed');
  assert.match(verdict([port], { port: 81 }), /denied by/);
  const header = policy('header', Action.DENY, [{ when: [{ key: 'request.headers[X-Token]', values: [], notValues: [is('good')] }] }]);
  assert.equal(verdict([header], { fields: ['x-token', 'good'] }), 'allowed');
  assert.match(verdict([header]), /denied by/);
  const range = policy('range', Action.DENY, [{ when: [{ key: 'source.ip', values: [is('10.0.0.0/24')], notValues: [] }] }]);
  assert.match(verdict([range]), /denied by/);
  assert.equal(verdict([range], { ip: '10.0.1.1' }), 'allowed');
});

test('a condition that nobody can evaluate is read in the stricter way', () => {
  const when = [{ key: 'experimental.envoy.filters.network.mysql_proxy[db.table]', values: [is('me')], notValues: [] }];
  assert.match(verdict([policy('allow', Action.ALLOW, [{ when }])]), /none allowed/);
  assert.match(verdict([policy('deny', Action.DENY, [{ when }])]), /denied by/);
});

test('connection.sni is what a TLS client asks for, without regard to case, and nothing where there is no TLS', () => {
  const sni = (action: Action, values: TextMatch[], notValues: TextMatch[] = []) =>
    policy('sni', action, [{ when: [{ key: 'connection.sni', values, notValues }] }]);
  const below: TextMatch = { type: { $case: 'suffix', value: '.Shop.example' } };
  const deny = sni(Action.DENY, [is('Admin.example'), below]);
  assert.match(verdict([deny], { serverName: { is: 'admin.example' } }), /denied by/);
  assert.match(verdict([deny], { serverName: { is: 'a.shop.example' } }), /denied by/);
  assert.equal(verdict([deny], { serverName: { is: 'open.example' } }), 'allowed');
  assert.equal(verdict([deny], { serverName: { is: '' } }), 'allowed', 'TLS without a name');
  assert.equal(verdict([deny]), 'allowed', 'no TLS');
  const allow = sni(Action.ALLOW, [is('open.example')]);
  assert.equal(verdict([allow], { serverName: { is: 'open.example' } }), 'allowed');
  assert.match(verdict([allow]), /none allowed/);
  const others = sni(Action.DENY, [], [is('open.example')]);
  assert.equal(verdict([others], { serverName: { is: 'open.example' } }), 'allowed');
  assert.match(verdict([others], { serverName: { is: '' } }), /denied by/);
});

test('a client that does not say what it speaks gets past no rule about server names', () => {
  const when = [{ key: 'connection.sni', values: [is('me')], notValues: [] }];
  assert.match(verdict([policy('allow', Action.ALLOW, [{ when }])], { serverName: 'unknown' }), /none allowed/);
  assert.match(verdict([policy('deny', Action.DENY, [{ when }])], { serverName: 'unknown' }), /denied by/);
});

test('a template of a path stands for segments', () => {
  const path = (template: string, asked: string) => templateRegex(template).test(asked);
  assert.deepEqual([path('/a/{*}/c', '/a/b/c'), path('/a/{*}/c', '/a/b/x/c'), path('/a/{*}/c', '/a//c')], [true, false, false]);
  assert.deepEqual([path('/a/{**}', '/a/'), path('/a/{**}', '/a/b/c'), path('/a/{**}/z.x', '/a/b/zyx')], [true, true, false]);
});

test('dry run tells and does not refuse', () => {
  const trial = { dryRun: true };
  assert.equal(verdict([policy('deny', Action.DENY, [{}], trial)]), 'allowed (would deny: shop/deny)');
  assert.equal(
    verdict([policy('allow', Action.ALLOW, [{ from: [source({ namespaces: [is('other')] })] }], trial)]),
    'allowed (would deny: shop/allow)',
  );
});

test('half a policy is another policy: what cannot be compiled is refused whole', () => {
  assert.throws(
    () => compileAuthorization(policy('bad', Action.ALLOW, [{ from: [source({ ipBlocks: ['10.0.0.0/40'] })] }])),
    /10\.0\.0\.0\/40/,
  );
  assert.throws(() => compileAuthorization(policy('bad', Action.ALLOW, [{ from: [source({ principals: [{}] })] }])), /without a value/);
});
