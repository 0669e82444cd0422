/** What a waypoint says that it would do, on objects as users write them: translated as istiod does, judged as workers do. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, sign } from 'node:crypto';
import { test } from 'node:test';
import type { MeshView } from '../../../common/decision/mesh-view.ts';
import { unchanged } from '../../../common/decision/rate-limit.ts';
import { decodeAddress } from '../../../common/state/decode.ts';
import { createBuckets, SharedBuckets } from '../../../waypoint/http/buckets.ts';
import { explainRequestCall } from '../../../waypoint/supervisor/explain.ts';
import type { ConfigurationPush } from '../../../waypoint/worker/configuration.ts';
import * as make from '../../support/kube-objects.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const NOW = 1_700_000_000_000;
const web = { group: '', kind: 'Service', name: 'web' };
const { privateKey, publicKey } = generateKeyPairSync('ed25519');
const jwks = JSON.stringify({ keys: [publicKey.export({ format: 'jwk' })] });

/** Service web over pods of two versions, bound to the waypoint wp; a client outside of it. */
function shop(): TranslatedMesh {
  const mesh = TranslatedMesh.shop();
  const ports = [
    { name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' },
    { name: 'tcp-db', port: 90, targetPort: 9090, protocol: 'TCP' },
    { name: 'tls-api', port: 443, targetPort: 8443, protocol: 'TCP' },
  ];
  mesh.set('Service', make.service({ name: 'web', selector: { app: 'web' }, ports }));
  for (const version of ['v1', 'v2'])
    mesh.set(
      'Pod',
      make.pod({ name: `web-${version}`, ip: `10.0.0.${version.slice(1)}`, labels: { app: 'web', version }, serviceAccount: 'web' }),
    );
  mesh.set('Pod', make.pod({ name: 'client', ip: '10.0.0.9', serviceAccount: 'client' }));
  return mesh;
}

const KINDS = [
  ['labels', 'labels'],
  ['traffic', 'traffic'],
  ['jwtAuthentications', 'authentications'],
  ['httpAuthorizations', 'policies'],
  ['rateLimits', 'limits'],
  ['routes', 'routes'],
] as const;

interface Asked {
  readonly headers?: readonly string[];
  readonly path?: string;
  readonly port?: number;
  readonly buckets?: SharedBuckets;
}

const newBuckets = (): SharedBuckets => new SharedBuckets(createBuckets(64), () => NOW * 1000);

function explain(mesh: TranslatedMesh, { headers = [], path = '/', port = 80, buckets = newBuckets() }: Asked = {}) {
  const told = mesh.flush().index.waypointResources('shop', 'wp');
  const view: MeshView = new PlainMesh();
  for (const { bytes } of mesh.index.addresses()) (view as PlainMesh).put(decodeAddress(bytes));
  return explainRequestCall(
    {
      view,
      configuration: KINDS.map(([table, kind]): ConfigurationPush => ({ kind, resources: told[table], removed: [] })),
      buckets,
      clock: { now: () => NOW },
      settings: { network: '', podName: 'wp-1', podNamespace: 'shop', serviceAccount: 'wp', instanceIp: '10.0.0.4', host: 'wp.shop.svc' },
    },
    {
      authority: `10.96.0.1:${port}`,
      source: '10.0.0.9:40000',
      identity: 'spiffe://cluster.local/ns/shop/sa/client',
      method: 'GET',
      path,
      host: 'web',
      headers: headers.map((text) => ({ name: text.split(': ')[0] ?? '', value: text.split(': ')[1] ?? '' })),
    },
  );
}

test('a backend that redirects takes its share, and what goes to the others is told with the path that they get', () => {
  const backend = (weight: number, ...filters: object[]) => ({ name: 'web', port: 80, weight, filters });
  const rules = [
    {
      backendRefs: [
        backend(1, { type: 'RequestRedirect', requestRedirect: { hostname: 'there', statusCode: 301 } }),
        backend(3, { type: 'URLRewrite', urlRewrite: { path: { type: 'ReplaceFullPath', replaceFullPath: '/its' } } }),
      ],
    },
  ];
  const mesh = shop().set('HTTPRoute', make.httpRoute({ name: 'r', rules }));
  const { routes, steps } = explain(mesh, { path: '/x' });
  assert.deepEqual(
    routes.map(({ via, share, status }) => [via, share, status]).filter(([via]) => via === 'answer'),
    [['answer', 0.25, 301]],
  );
  assert.equal(
    routes.reduce((sum, { share }) => sum + share, 0),
    1,
  );
  assert.ok(steps.some(({ text }) => text.includes('has the path /its')));
});

const podsOf = ({ routes }: ReturnType<typeof explain>): string[] => routes.map(({ pod, code }) => pod?.name ?? code ?? '').sort();

test('a route to a subset leads to the pods that have its labels, and to nobody where none has, or nobody says what the subset is', () => {
  const to = (subset: string) => ({ destination: { host: 'web', subset } });
  const virtual = (subset: string) => make.virtualService({ name: 'v', spec: { hosts: ['web'], http: [{ route: [to(subset)] }] } });
  const subsets = ['v1', 'v2', 'v3'].map((version) => ({ name: version, labels: { version } }));
  const mesh = shop().set('DestinationRule', make.destinationRule({ name: 'd', spec: { host: 'web', subsets } }));
  assert.deepEqual(podsOf(explain(mesh.set('VirtualService', virtual('v1')))), ['web-v1']);
  assert.deepEqual(podsOf(explain(mesh.set('VirtualService', virtual('v2')))), ['web-v2']);
  const [none] = explain(mesh.set('VirtualService', virtual('v3'))).routes;
  assert.deepEqual([none?.code, none?.message], ['NO_HEALTHY_UPSTREAM', 'no healthy upstream: shop/web.shop.svc.cluster.local, subset v3']);
  assert.deepEqual(podsOf(explain(mesh.set('VirtualService', virtual('unheard-of')))), ['NO_HEALTHY_UPSTREAM']);
  assert.deepEqual(podsOf(explain(shop())), ['web-v1', 'web-v2']);
});

test('traffic settings that cannot be carried out refuse, and explain names the object', () => {
  const spec = { host: 'web', trafficPolicy: { tls: { mode: 'MUTUAL' } } };
  const [route] = explain(shop().set('DestinationRule', make.destinationRule({ name: 'd', spec }))).routes;
  assert.equal(route?.code, 'BACKEND_INVALID');
  assert.match(route?.message ?? '', /^DestinationRule shop\/d: tls\.mode MUTUAL needs/);
});

function token(claims: object): string {
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'EdDSA' })}.${part({ iss: 'me', sub: 'ann', exp: NOW / 1000 + 600, ...claims })}`;
  return `${text}.${sign(null, Buffer.from(text), privateKey).toString('base64url')}`;
}

function withTokens(): TranslatedMesh {
  const spec = { targetRefs: [web], jwtRules: [{ issuer: 'me', jwks }] };
  const rules = [{ from: [{ source: { requestPrincipals: ['me/*'] } }], when: [{ key: 'request.auth.claims[role]', values: ['clerk'] }] }];
  return shop()
    .set('RequestAuthentication', make.authorizationPolicy({ name: 'ra', spec }))
    .set('AuthorizationPolicy', make.authorizationPolicy({ name: 'clerks', spec: { targetRefs: [web], rules } }));
}

test('a token is judged with the code of the data path, and what it says is seen by policies', () => {
  const mesh = withTokens();
  const asked = (text: string) => explain(mesh, { headers: [`authorization: Bearer ${text}`] });
  const good = asked(token({ role: 'clerk' }));
  assert.equal(good.allowed, true);
  assert.ok(good.steps.some(({ stage, text }) => stage === 'token' && text === 'its token is good: it is of me/ann'));
  assert.deepEqual(good.token?.claims['["role"]'], ['clerk']);
  assert.deepEqual([asked(token({ role: 'guest' })).allowed, asked(token({ role: 'guest' })).code], [false, 'POLICY_DENIED']);
  const expired = asked(token({ role: 'clerk', exp: NOW / 1000 - 3600 }));
  assert.deepEqual([expired.code, expired.status, expired.reason], ['TOKEN_INVALID', 401, 'Jwt is expired']);
  const forged = asked(`${token({}).split('.').slice(0, 2).join('.')}.AAAA`);
  assert.deepEqual([forged.code, forged.reason], ['TOKEN_INVALID', 'Jwt verification fails']);
  const none = explain(mesh);
  assert.deepEqual([none.allowed, none.code], [false, 'POLICY_DENIED']);
  assert.ok(none.steps.some(({ text }) => text === 'it brings no token (of me), and has no request principal'));
  assert.ok(!JSON.stringify(good).includes(token({ role: 'clerk' })), 'the token itself is repeated nowhere');
});

test('a limit is looked at as it is now, and nothing is taken from it', () => {
  const object = {
    metadata: { name: 'few', namespace: 'shop' },
    spec: { targetRefs: [web], limits: [{ name: 'two', requests: 2, per: '1h' }] },
  };
  const mesh = shop().set('RateLimitPolicy', object);
  const buckets = newBuckets();
  const limitOf = (explained: ReturnType<typeof explain>) => explained.steps.find(({ stage }) => stage === 'limit')?.text;
  for (let i = 0; i < 5; i++)
    assert.match(limitOf(explain(mesh, { buckets })) ?? '', /limit two of shop\/few: 2 requests in 3600 s, of which there are 2 now/);
  const drained = {
    ...buckets,
    now: () => NOW * 1000,
    bucket: () => ({ fullAt: () => NOW * 1000 + 7_200_000_000, take: () => false, companions: () => 1 }),
  };
  const refused = explain(mesh, { buckets: unchanged(drained) as SharedBuckets });
  assert.deepEqual([refused.allowed, refused.code, refused.status, refused.policy], [false, 'RATE_LIMITED', 429, 'shop/few']);
});

test('what an authorization server is asked about is not predicted, and who is asked is named', () => {
  const provider = { name: 'asker', envoyExtAuthzHttp: { service: 'web.shop.svc.cluster.local', port: 80 } };
  const mesh = shop().set('ConfigMap', {
    metadata: { name: 'istio', namespace: 'istio-system' },
    data: { mesh: JSON.stringify({ extensionProviders: [provider] }) },
  });
  const rules = [{ to: [{ operation: { paths: ['/admin*'] } }] }];
  const spec = { targetRefs: [web], action: 'CUSTOM', provider: { name: 'asker' }, rules };
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'ask', spec }));
  assert.equal(explain(mesh, { path: '/admin' }).unknown, 'shop/ask asks asker, and what that will say cannot be predicted');
  assert.equal(explain(mesh, { path: '/' }).unknown, undefined);
  const deny = { targetRefs: [web], action: 'DENY', rules };
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'no', spec: deny }));
  const refused = explain(mesh, { path: '/admin' });
  assert.deepEqual([refused.allowed, refused.policy], [false, 'shop/no'], 'whatever it says, this one refuses');
});

test('a port that is declared to carry bytes is judged as a connection: no path is seen, and rules for connections lead it', () => {
  const rules = [{ to: [{ operation: { paths: ['/x'] } }] }];
  const mesh = shop().set('AuthorizationPolicy', make.authorizationPolicy({ name: 'paths', spec: { targetRefs: [web], rules } }));
  const refused = explain(mesh, { port: 90, path: '/x' });
  assert.deepEqual([refused.allowed, refused.code], [false, 'POLICY_DENIED'], 'a rule about paths allows no connection');
  const tcp = [{ match: [{ port: 90 }], route: [{ destination: { host: 'web', port: { number: 90 }, subset: 'v2' } }] }];
  const subsets = [{ name: 'v2', labels: { version: 'v2' } }];
  const routed = shop()
    .set('DestinationRule', make.destinationRule({ name: 'd', spec: { host: 'web', subsets } }))
    .set('VirtualService', make.virtualService({ name: 'v', spec: { hosts: ['web'], tcp } }));
  const explained = explain(routed, { port: 90 });
  assert.equal(explained.rule, 'VirtualService shop/v tcp rule 0');
  assert.deepEqual(podsOf(explained), ['web-v2']);
  assert.equal(explained.routes[0]?.authority, '10.0.0.2:9090');
});

test('on a port of TLS policies and rules see the name that the client asks for', () => {
  const sni = (value: string) => [{ when: [{ key: 'connection.sni', values: [value] }] }];
  const policy = (value: string) => make.authorizationPolicy({ name: 'names', spec: { targetRefs: [web], rules: sni(value) } });
  assert.equal(explain(shop().set('AuthorizationPolicy', policy('web')), { port: 443 }).allowed, true);
  assert.equal(explain(shop().set('AuthorizationPolicy', policy('other')), { port: 443 }).code, 'POLICY_DENIED');
  const rule = (name: string) => ({
    match: [{ port: 443, sniHosts: [name] }],
    route: [{ destination: { host: 'web', port: { number: 443 } } }],
  });
  const routed = (name: string) => make.virtualService({ name: 'v', spec: { hosts: ['web'], tls: [rule(name)] } });
  assert.equal(explain(shop().set('VirtualService', routed('web')), { port: 443 }).rule, 'VirtualService shop/v tls rule 0');
  assert.equal(explain(shop().set('VirtualService', routed('other')), { port: 443 }).code, 'ROUTE_UNMATCHED');
});
