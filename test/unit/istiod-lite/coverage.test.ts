import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KindName, WatchedKindName } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const web = { group: '', kind: 'Service', name: 'web' };

/** Namespace shop: pods web-1 and web-2 in the mesh and old outside of it; Services web, bound to the waypoint wp, and bare, bound to none. */
function shop(): TranslatedMesh {
  const mesh = TranslatedMesh.shop();
  mesh.set('Service', make.service({ name: 'bare', vip: '10.96.0.9', labels: { 'istio.io/use-waypoint': 'none' } }));
  mesh.set('Pod', make.pod({ name: 'web-1', ip: '10.0.0.1', labels: { app: 'web' } }));
  mesh.set('Pod', make.pod({ name: 'web-2', ip: '10.0.0.2', labels: { app: 'web' } }));
  mesh.set('Pod', make.pod({ name: 'old', ip: '10.0.0.3', labels: { app: 'old' }, enrolled: false }));
  const gateway = { app: 'wp', 'gateway.networking.k8s.io/gateway-name': 'wp' };
  mesh.set('Pod', make.pod({ name: 'wp-1', ip: '10.0.0.4', labels: gateway, enrolled: false }));
  return mesh;
}

/** `RULE ENFORCED [AT] BECAUSE`, of an object that is stored. */
function lines(kind: WatchedKindName, object: unknown, mesh = shop()): string[] {
  return told(mesh.set(kind, object), kind, object);
}

function told(mesh: TranslatedMesh, kind: KindName, object: unknown): string[] {
  const rules = mesh.flush().index.coverage().of(kind, object);
  return rules.map(({ rule, enforced, at, because }) => `${rule || '-'} ${enforced} [${at.join(' ')}] ${because}`);
}

function matches(found: readonly string[], ...wanted: readonly RegExp[]): void {
  assert.equal(found.length, wanted.length, found.join('\n'));
  for (const [i, pattern] of wanted.entries()) assert.match(found[i] ?? '', pattern);
}

const policy = (spec: Record<string, unknown>, name = 'p', annotations = {}) => make.authorizationPolicy({ name, spec, annotations });
const from = { from: [{ source: { principals: ['cluster.local/ns/shop/sa/a'] } }] };
const get = { to: [{ operation: { methods: ['GET'] } }] };
const select = (app: string) => ({ selector: { matchLabels: { app } } });

test('each rule of a policy without targets is enforced at the pods that it selects, or less than written and why', () => {
  matches(
    lines('AuthorizationPolicy', policy({ ...select('web'), rules: [from, { ...from, ...get }] })),
    /^rules\[0\] node \[shop\/web-1 shop\/web-2\] at 2 pods: shop\/web-1, shop\/web-2$/,
    /^rules\[1\] in part \[shop\/web-1 shop\/web-2\] UnsupportedValue: ztunnel sees no HTTP and cannot match methods: the rules that use them are left out/,
  );
  matches(lines('AuthorizationPolicy', policy({ rules: [from] })), /^rules\[0\] in part .*not in the mesh: 1 pod: shop\/old; at 2 pods/);
  matches(lines('AuthorizationPolicy', policy({ ...select('old'), rules: [from] })), /nowhere \[\] not in the mesh: 1 pod: shop\/old/);
  matches(lines('AuthorizationPolicy', policy({ ...select('typo'), rules: [from] })), /nowhere \[\] no pod has app=typo/);
  matches(lines('AuthorizationPolicy', policy({ ...select('web') })), /^- node /);
  const bad = { from: [{ source: { ipBlocks: ['10.0.0.0/99'] } }] };
  matches(
    lines('AuthorizationPolicy', policy({ ...select('web'), action: 'DENY', rules: [bad, from] })),
    /^rules\[0\] in part .*ipBlocks: "10.0.0.0\/99" cannot be read/,
    /^rules\[1\] node/,
  );
  matches(
    lines('AuthorizationPolicy', policy({ ...select('web'), rules: [from] }, 'p', { 'istio.io/dry-run': 'true' })),
    /nowhere .*dry run/,
  );
});

test('each rule of a policy with targets is enforced at the waypoints that have it', () => {
  const odd = { when: [{ key: 'experimental.envoy.filters.x[y]', values: ['x'] }] };
  matches(
    lines('AuthorizationPolicy', policy({ targetRefs: [web], rules: [get, odd] })),
    /^rules\[0\] waypoint \[shop\/wp\] bound to shop\/wp/,
    /^rules\[1\] in part \[shop\/wp\] UnsupportedValue: waypoints cannot match experimental/,
  );
  matches(
    lines('AuthorizationPolicy', policy({ targetRefs: [{ ...web, name: 'bare' }], rules: [get] })),
    /^rules\[0\] nowhere \[\] AncestorNotBound: Service shop\/bare names no waypoint/,
  );
  matches(
    lines('AuthorizationPolicy', policy({ targetRefs: [web], action: 'CUSTOM', provider: { name: 'nobody' }, rules: [get] })),
    /^rules\[0\] in part .*nobody.*what the rules match is refused/,
  );
});

test('the services that a waypoint rule is about are named, also where it targets the waypoint', () => {
  const mesh = shop();
  const of = (targetRefs: unknown[]) =>
    mesh
      .flush()
      .index.coverage()
      .of('AuthorizationPolicy', policy({ targetRefs, rules: [get] }))
      .flatMap(({ services }) => services);
  assert.deepEqual(of([web]), ['shop/web.shop.svc.cluster.local']);
  assert.deepEqual(of([{ kind: 'Gateway', group: 'gateway.networking.k8s.io', name: 'wp' }]), ['shop/web.shop.svc.cluster.local']);
});

test('each issuer of a RequestAuthentication has a line: its keys may be missing, and a selector is never read', () => {
  const jwks = '{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256","kid":"a"}]}';
  const object = (spec: Record<string, unknown>) => ({ metadata: { name: 't', namespace: 'shop' }, spec });
  const jwtRules = [{ issuer: 'a', jwks }, { issuer: 'b', jwksUri: 'https://keys.example/b' }, { jwks }];
  const found = lines('RequestAuthentication', object({ targetRefs: [web], jwtRules }));
  matches(
    found,
    /^jwtRules\[0\] (waypoint|in part) \[shop\/wp\]/,
    /^jwtRules\[1\] in part \[shop\/wp\] UnsupportedValue: the keys of b are not fetched yet: no token of it is valid/,
    /^jwtRules\[2\] in part \[shop\/wp\] UnsupportedValue: no issuer, so no token is valid/,
  );
  matches(
    lines('RequestAuthentication', object({ ...select('web'), jwtRules: [{ issuer: 'a', jwks }] })),
    /^jwtRules\[0\] nowhere \[\] only targetRefs are read/,
  );
});

test('the mode of a PeerAuthentication and that of each of its ports have a line each', () => {
  const peer = make.peerAuthentication;
  const strict = peer({ name: 'm', mode: 'STRICT', selector: { app: 'web' }, ports: { 8080: 'PERMISSIVE', 9090: 'DISABLE', x: 'STRICT' } });
  matches(
    lines('PeerAuthentication', strict),
    /^mtls node \[shop\/web-1 shop\/web-2\] at 2 pods: .*; plaintext is refused/,
    /^portLevelMtls\[8080\] node .*plaintext is let in as well/,
    /^portLevelMtls\[9090\] in part .*DISABLE: peers in the mesh go on coming by mTLS/,
    /^portLevelMtls nowhere .*"x" is no port/,
  );
  matches(
    lines('PeerAuthentication', peer({ name: 'm', mode: 'STRICT', ports: { 8080: 'PERMISSIVE' } })),
    /^mtls in part .*not in the mesh: 1 pod: shop\/old/,
    /^portLevelMtls\[8080\] nowhere \[\] portLevelMtls has no effect without a selector/,
  );
  const mesh = shop().set('PeerAuthentication', peer({ name: 'first', mode: 'STRICT', createdAt: '2025-01-01T00:00:00Z' }));
  matches(lines('PeerAuthentication', peer({ name: 'second', mode: 'STRICT' }), mesh), /nowhere \[\] shop\/first is older and counts/);
  const own = shop().set('PeerAuthentication', peer({ name: 'own', mode: 'PERMISSIVE', selector: { app: 'web' } }));
  matches(lines('PeerAuthentication', peer({ name: 'all', mode: 'STRICT' }), own), /^mtls nowhere \[\] not in the mesh: 1 pod: shop\/old/);
  const root = peer({ name: 'mesh', namespace: 'istio-system', mode: 'STRICT' });
  matches(lines('PeerAuthentication', root, own), /^mtls nowhere \[\] every pod that it could be for has a more specific mode/);
  const unset = peer({ name: 'unset', selector: { app: 'web' } });
  matches(lines('PeerAuthentication', unset, shop().set('PeerAuthentication', root)), /^mtls node .*UNSET: STRICT is inherited; at 2 pods/);
});

test('each rule of a route says which waypoint reads it, what of it answers 500, and why nobody reads it', () => {
  const backendRefs = [{ name: 'web', port: 80 }];
  const rules = [
    { backendRefs },
    { backendRefs: [{ name: 'gone', port: 80 }] },
    { filters: [{ type: 'ExtensionRef', extensionRef: { kind: 'Magic', name: 'x', group: 'x' } }], backendRefs },
  ];
  matches(
    lines('HTTPRoute', make.httpRoute({ name: 'r', rules })),
    /^rules\[0\] waypoint \[shop\/wp\] read by waypoint shop\/wp/,
    /^rules\[1\] in part \[shop\/wp\] there is no Service shop\/gone: its share of requests is refused/,
    /^rules\[2\] in part \[shop\/wp\] it answers 500, as waypoints do not support filters: ExtensionRef/,
  );
  matches(lines('HTTPRoute', make.httpRoute({ name: 'r', service: 'bare', rules: [{}] })), /nowhere \[\] neither Service shop\/bare nor/);
  matches(
    lines('TCPRoute', make.httpRoute({ name: 'r', service: 'late', rules: [{}] })),
    /nowhere \[\] NoMatchingParent: there is no Service/,
  );
  const gateway = (name: string) => [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', name }];
  matches(
    lines('GRPCRoute', make.httpRoute({ name: 'r', parents: gateway('wp'), rules: [{}] })),
    /nowhere .*Gateway shop\/wp is a waypoint/,
  );
  matches(
    lines('HTTPRoute', make.httpRoute({ name: 'r', parents: gateway('edge'), rules: [{}] })),
    /elsewhere .*shop\/edge is not the mesh/,
  );
  const both = [web, { ...web, name: 'bare' }];
  matches(
    lines('HTTPRoute', make.httpRoute({ name: 'r', parents: both, rules: [{}] })),
    /in part \[shop\/wp\] read by .*; neither Service/,
  );
});

test('each rule of a VirtualService has a line: delegates, missing hosts, gateways alone', () => {
  const to = (host: string, subset?: string) => [{ destination: { host, ...(subset === undefined ? {} : { subset }) } }];
  const virtual = (spec: Record<string, unknown>, name = 'v') => make.virtualService({ name, spec });
  const http = [
    { route: to('web') },
    { route: to('gone') },
    { route: to('web'), timeout: 'soon' },
    { match: [{ gateways: ['edge'] }], route: to('web') },
    { delegate: { name: 'nobody' } },
  ];
  const tcp = [{ match: [{ port: 80 }], route: to('web') }];
  matches(
    lines('VirtualService', virtual({ hosts: ['web'], http, tls: [{ route: to('web') }], tcp })),
    /^http\[0\] waypoint \[shop\/wp\] shop\/web\.shop\.svc\.cluster\.local at waypoint shop\/wp/,
    /^http\[1\] in part \[shop\/wp\] UnsupportedValue: there is no service gone\.shop/,
    /^http\[2\] in part \[shop\/wp\] UnsupportedValue: .*answers 500: timeout/,
    /^http\[3\] nowhere \[\] none of its matches is for the mesh/,
    /^http\[4\] nowhere \[\] .*its delegate shop\/nobody is not there/,
    /^tls\[0\] nowhere \[\] none of its matches is for the mesh/,
    /^tcp\[0\] waypoint \[shop\/wp\]/,
  );
  matches(lines('VirtualService', virtual({ hosts: ['bare'], http: [{ route: to('web') }] })), /nowhere \[\] AncestorNotBound/);
  matches(
    lines('VirtualService', virtual({ hosts: ['web'], gateways: ['edge'], http: [{ route: to('web') }] })),
    /nowhere .*gateways alone/,
  );
  const delegate = virtual({ http: [{ route: to('web') }] }, 'inner');
  matches(lines('VirtualService', delegate), /nowhere \[\] it has no hosts, and no VirtualService delegates to it/);
  const mesh = shop().set('VirtualService', virtual({ hosts: ['web'], http: [{ delegate: { name: 'inner' } }] }));
  matches(lines('VirtualService', delegate, mesh), /^http\[0\] waypoint \[shop\/wp\] VirtualService shop\/v delegates to it/);
  const older = shop().set('VirtualService', virtual({ hosts: ['web'], http }, 'a'));
  matches(lines('VirtualService', virtual({ hosts: ['web'], http: [{}] }, 'b'), older), /nowhere \[\] Conflicted: .*shop\/a counts there/);
});

test('each setting, port and subset of a DestinationRule has a line', () => {
  const rule = (spec: Record<string, unknown>, name = 'd') => make.destinationRule({ name, spec: { host: 'web', ...spec } });
  const trafficPolicy = {
    connectionPool: { tcp: { maxConnections: 1 } },
    loadBalancer: { simple: 'MAGIC' },
    tls: { mode: 'MUTUAL' },
    sorcery: {},
    portLevelSettings: [{ port: { number: 80 }, outlierDetection: {} }],
  };
  const subsets = [
    { name: 'v1', labels: { version: 'v1' } },
    { name: 'v2', labels: { version: 'v2' } },
    { name: 'v1', labels: {} },
  ];
  const mesh = shop().set(
    'VirtualService',
    make.virtualService({ name: 'v', spec: { hosts: ['web'], http: [{ route: [{ destination: { host: 'web', subset: 'v1' } }] }] } }),
  );
  matches(
    lines('DestinationRule', rule({ trafficPolicy, subsets }), mesh),
    /^trafficPolicy\.connectionPool waypoint \[shop\/wp\]/,
    /^trafficPolicy\.loadBalancer in part \[shop\/wp\] loadBalancer\.simple "MAGIC"/,
    /^trafficPolicy\.tls in part \[shop\/wp\] tls\.mode MUTUAL needs tls\.credentialName/,
    /^trafficPolicy\.sorcery nowhere/,
    /^trafficPolicy\.portLevelSettings\[0\] waypoint \[shop\/wp\]/,
    /^subsets\[0\] waypoint \[shop\/wp\]/,
    /^subsets\[1\] nowhere \[\] no VirtualService sends to subset v2/,
    /^subsets\[2\] nowhere \[\] subset v1 is there twice/,
  );
  matches(lines('DestinationRule', rule({ host: 'gone', trafficPolicy: { tls: {} } })), /nowhere \[\] TargetNotFound/);
  const first = shop().set('DestinationRule', rule({ trafficPolicy: { connectionPool: {} } }, 'a'));
  matches(
    lines('DestinationRule', rule({ trafficPolicy: { connectionPool: {} } }, 'b'), first),
    /^trafficPolicy\.connectionPool nowhere \[\] Conflicted: .*that of DestinationRule shop\/a counts there/,
  );
});

test('limits, telemetry and the TLS of backends have a line for each part; kinds that nothing carries out have one', () => {
  const object = (spec: Record<string, unknown>, name = 'x') => ({ metadata: { name, namespace: 'shop', generation: 1 }, spec });
  const limit = { name: 'a', requests: 5, per: '1s' };
  matches(
    lines('RateLimitPolicy', object({ targetRefs: [web], limits: [limit, { name: 'b' }, { ...limit }] })),
    /^limits\[0\] waypoint \[shop\/wp\] bound to shop\/wp/,
    /^limits\[1\] nowhere \[\] Invalid: .*limit b: requests/,
    /^limits\[2\] nowhere \[\] Invalid: .*limit a: there is another one of this name/,
  );
  matches(
    lines('Telemetry', object({ accessLogging: [{}, { match: { mode: 'CLIENT' } }], tracing: [{ randomSamplingPercentage: 1 }] })),
    /^accessLogging\[0\] waypoint \[shop\/wp\] bound to shop\/wp/,
    /^accessLogging\[1\] nowhere .*accessLogging\[1\]/,
    /^tracing\[0\] in part \[shop\/wp\] UnsupportedValue: tracing names no provider/,
  );
  matches(lines('Telemetry', object({ ...select('web'), metrics: [{}] })), /^metrics\[0\] nowhere \[\] UnsupportedValue: spec\.selector/);
  const validation = { hostname: 'web.example', wellKnownCACertificates: 'System' };
  matches(
    lines('BackendTLSPolicy', object({ targetRefs: [web, { ...web, name: 'bare' }], validation })),
    /^targetRefs\[0\] waypoint \[shop\/wp\] TLS is begun by shop\/wp/,
    /^targetRefs\[1\] nowhere \[\] AncestorNotBound/,
  );
  matches(told(shop(), 'EnvoyFilter', object({})), /^- nowhere \[\] it changes the configuration of Envoy/);
});

test('a namespace or pod that insists on its waypoint has a line', () => {
  const mesh = shop().set('Pod', make.pod({ name: 'free', ip: '10.0.0.8', annotations: { 'warren.dev/require-waypoint': 'false' } }));
  const words = { 'warren.dev/require-waypoint': 'true', 'warren.dev/require-waypoint-except-ports': '9090' };
  const namespace = make.namespace('shop', { 'istio.io/use-waypoint': 'wp' }, words);
  matches(
    lines('Namespace', namespace, mesh),
    /^annotation warren\.dev\/require-waypoint in part \[shop\/web-1 shop\/web-2\] not in the mesh: 1 pod: shop\/old; at 2 pods: .*; who dials them past a waypoint is refused, but on port 9090/,
  );
  mesh.set('Pod', make.pod({ name: 'web-1', ip: '10.0.0.1', labels: { app: 'web' }, annotations: words })).flush();
  const [pod] = mesh.index.coverage().pods();
  assert.equal(pod?.metadata.name, 'web-1');
  matches(told(mesh, 'Pod', pod), /^annotation warren\.dev\/require-waypoint node \[shop\/web-1\] at 1 pod/);
});

test('coverage agrees with the status that istiod writes, and changes nothing of it', () => {
  const mesh = shop();
  const rules = [get, { when: [{ key: 'experimental.envoy.filters.x[y]', values: ['x'] }] }];
  const object = policy({ targetRefs: [web], rules });
  mesh.set('AuthorizationPolicy', object).flush();
  const before = mesh.status('AuthorizationPolicy shop/p')?.conditions;
  const found = mesh.index.coverage().of('AuthorizationPolicy', object);
  assert.deepEqual(
    before?.map(({ status, reason }) => `${status} ${reason}`),
    ['True UnsupportedValue'],
  );
  assert.ok(found.some(({ enforced }) => enforced === 'in part'));
  assert.deepEqual(mesh.index.flush().statuses, []);
});

test('what nobody can read breaks nothing', () => {
  const mesh = shop();
  const odd = [
    null,
    1,
    'x',
    [],
    {},
    { spec: 7 },
    { metadata: 4 },
    { metadata: { name: 'x', namespace: 'shop' }, spec: { rules: 'no', http: {} } },
  ];
  for (const kind of ['AuthorizationPolicy', 'HTTPRoute', 'VirtualService', 'DestinationRule', 'Telemetry', 'PeerAuthentication'] as const)
    for (const object of odd) assert.ok(Array.isArray(mesh.index.coverage().of(kind, object)));
});
