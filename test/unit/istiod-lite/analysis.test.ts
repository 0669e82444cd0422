/** What analysis says of objects, each with the smallest set of objects that shows it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { analyze } from '../../../istiod-lite/analysis/analyze.ts';
import { objectChecks, setChecks } from '../../../istiod-lite/analysis/analyzers.ts';
import { friendlyName, messageTypes } from '../../../istiod-lite/analysis/messages.ts';
import { ObjectSet } from '../../../istiod-lite/analysis/object-set.ts';
import { shadows } from '../../../istiod-lite/analysis/routes.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
  guardClaims: true,
};

type Json = Record<string, unknown>;

const GROUPS: Readonly<Record<string, string>> = {
  Namespace: 'v1',
  Pod: 'v1',
  Service: 'v1',
  Deployment: 'apps/v1',
  AuthorizationPolicy: 'security.istio.io/v1',
  PeerAuthentication: 'security.istio.io/v1',
  RequestAuthentication: 'security.istio.io/v1',
  ServiceEntry: 'networking.istio.io/v1',
  VirtualService: 'networking.istio.io/v1',
  DestinationRule: 'networking.istio.io/v1',
  EnvoyFilter: 'networking.istio.io/v1alpha3',
  WasmPlugin: 'extensions.istio.io/v1alpha1',
  Gateway: 'gateway.networking.k8s.io/v1',
  HTTPRoute: 'gateway.networking.k8s.io/v1',
};

/** `CODE Kind namespace/name` of all that is said; objects come from a file unless `live` says otherwise. */
function said(objects: readonly (readonly [kind: string, object: Json])[], { live = false } = {}): string[] {
  return messages(objects, live).map(({ type, origin }) => `${type.code} ${friendlyName(origin)}`);
}

function messages(objects: readonly (readonly [kind: string, object: Json])[], live = false) {
  const set = new ObjectSet();
  for (const [kind, object] of objects)
    set.add({ apiVersion: GROUPS[kind], kind, ...object }, { defaultNamespace: 'shop', ...(live ? {} : { reference: 'shop.yaml:1' }) });
  return analyze(set, { config });
}

const ambient = (labels: Record<string, string> = {}): [string, Json] => [
  'Namespace',
  make.namespace('shop', { 'istio.io/dataplane-mode': 'ambient', ...labels }),
];
const web: [string, Json] = ['Pod', make.pod({ name: 'web', labels: { app: 'web' } })];
const webService: [string, Json] = [
  'Service',
  make.service({ name: 'web', selector: { app: 'web' }, ports: [{ name: 'http', port: 80, targetPort: 8080 }] }),
];
const waypoint = (name = 'waypoint'): [string, Json] => ['Gateway', make.gateway({ name, ready: false })];
const policy = (name: string, spec: Json): [string, Json] => ['AuthorizationPolicy', make.authorizationPolicy({ name, spec })];
const selecting = { selector: { matchLabels: { app: 'web' } } };
const service = { targetRefs: [{ group: '', kind: 'Service', name: 'web' }] };
const GET = { to: [{ operation: { methods: ['GET'] } }] };
const FROM = { from: [{ source: { namespaces: ['shop'] } }] };

test('nothing is said of a mesh in which everything is enforced', () => {
  const objects = [
    ambient({ 'istio.io/use-waypoint': 'waypoint' }),
    web,
    webService,
    waypoint(),
    policy('l4', { ...selecting, rules: [FROM] }),
    policy('l7', { ...service, rules: [{ ...FROM, ...GET }] }),
  ];
  assert.deepEqual(said(objects), []);
});

test('an HTTP rule without a waypoint is told of, and an ALLOW of which nothing is left is an error', () => {
  const objects = [ambient(), web, policy('some', { ...selecting, rules: [FROM, GET] }), policy('none', { ...selecting, rules: [GET] })];
  assert.deepEqual(said(objects), [
    'WRN0203 AuthorizationPolicy shop/none',
    'WRN0202 AuthorizationPolicy shop/none',
    'WRN0202 AuthorizationPolicy shop/some',
  ]);
});

test('whoever allows nobody on purpose is not told of it', () => {
  assert.deepEqual(said([ambient(), web, policy('nobody', {})]), []);
});

test('use-waypoint that names nothing is an error on the namespace and on each service of it', () => {
  assert.deepEqual(said([ambient({ 'istio.io/use-waypoint': 'gone' }), web, webService]), [
    'WRN0101 Namespace shop',
    'WRN0101 Service shop/web',
  ]);
});

test('a waypoint of a file counts as deployed; one of a cluster that has no address does not', () => {
  const objects = [ambient({ 'istio.io/use-waypoint': 'waypoint' }), webService, waypoint()];
  assert.deepEqual(said(objects), []);
  assert.deepEqual(said(objects, { live: true }), ['IST0171 Namespace shop', 'IST0171 Service shop/web']);
});

test('a file laid over a cluster keeps the address of the waypoint that is there', () => {
  const set = new ObjectSet();
  const running = { kind: 'Gateway', apiVersion: GROUPS.Gateway, ...make.gateway({ name: 'waypoint', ready: true }) };
  const { status: _, ...written } = running as Json;
  for (const [kind, object] of [ambient({ 'istio.io/use-waypoint': 'waypoint' }), webService])
    set.add({ kind, apiVersion: 'v1', ...object }, { defaultNamespace: 'shop' });
  set.add(running, { defaultNamespace: 'shop' });
  set.add(written, { defaultNamespace: 'shop', reference: 'waypoint.yaml:1' });
  assert.deepEqual(analyze(set, { config }), []);
});

test('a policy for a service without a waypoint, or for one that is not there, is told of', () => {
  const objects = [
    ambient(),
    web,
    webService,
    policy('unbound', { ...service, rules: [FROM] }),
    policy('missing', { targetRefs: [{ group: '', kind: 'Service', name: 'wed' }], rules: [FROM] }),
    policy('never', { targetRefs: [{ group: 'apps', kind: 'Deployment', name: 'web' }], rules: [FROM] }),
    policy('far', { targetRefs: [{ group: '', kind: 'Service', name: 'web', namespace: 'other' }], rules: [FROM] }),
  ];
  assert.deepEqual(said(objects), [
    'IST0101 AuthorizationPolicy shop/missing',
    'WRN0201 AuthorizationPolicy shop/far',
    'WRN0201 AuthorizationPolicy shop/never',
    'WRN0204 AuthorizationPolicy shop/unbound',
  ]);
});

test('a policy that selects nothing, or workloads outside of the mesh, is told of; Deployments count as workloads', () => {
  const template = { metadata: { labels: { app: 'api' } }, spec: {} };
  const deployment: [string, Json] = ['Deployment', { metadata: { name: 'api', namespace: 'shop' }, spec: { template } }];
  const outside: [string, Json] = [
    'Pod',
    make.pod({ name: 'old', labels: { app: 'old', 'istio.io/dataplane-mode': 'none' }, enrolled: false }),
  ];
  const select = (app: string): Json => ({ selector: { matchLabels: { app } }, rules: [FROM] });
  assert.deepEqual(
    said([ambient(), deployment, outside, policy('api', select('api')), policy('old', select('old')), policy('typo', select('apj'))]),
    ['IST0127 AuthorizationPolicy shop/typo', 'WRN0207 AuthorizationPolicy shop/old'],
  );
});

test('a selector that picks the proxy of a Gateway has no effect', () => {
  const proxy: [string, Json] = ['Pod', make.pod({ name: 'waypoint-1', labels: { 'gateway.networking.k8s.io/gateway-name': 'waypoint' } })];
  const selector = { matchLabels: { 'gateway.networking.k8s.io/gateway-name': 'waypoint' } };
  assert.ok(said([ambient(), proxy, policy('p', { selector, rules: [FROM] })]).includes('IST0166 AuthorizationPolicy shop/p'));
});

test('STRICT is told of where callers beside it or from outside have no identity', () => {
  const strict: [string, Json] = ['PeerAuthentication', make.peerAuthentication({ name: 'strict', mode: 'STRICT' })];
  const open: [string, Json] = [
    'Service',
    make.service({ name: 'web', selector: { app: 'web' }, ports: [{ name: 'http', port: 80 }], spec: { type: 'LoadBalancer' } }),
  ];
  const outside: [string, Json] = ['Pod', make.pod({ name: 'job', labels: { 'istio.io/dataplane-mode': 'none' }, enrolled: false })];
  assert.deepEqual(said([ambient(), web, webService, strict]), []);
  const found = messages([ambient(), web, open, outside, strict]);
  assert.deepEqual(
    found.map(({ type, text }) => `${type.code} ${text}`),
    [
      'WRN0209 STRICT refuses callers of its namespace that are not in the mesh: Pod shop/job',
      'WRN0209 STRICT refuses whoever comes from outside of the cluster through Service shop/web',
    ],
  );
});

test('portLevelMtls without a selector, and a selector in the root namespace, are never enforced', () => {
  const ports = make.peerAuthentication({ name: 'ports', ports: { 80: 'STRICT' } });
  const root = make.peerAuthentication({ name: 'root', namespace: 'istio-system', mode: 'STRICT', selector: { app: 'web' } });
  assert.deepEqual(
    said([ambient(), web, ['PeerAuthentication', ports], ['PeerAuthentication', root]]).filter((line) => line.startsWith('WRN0201')),
    ['WRN0201 PeerAuthentication istio-system/root', 'WRN0201 PeerAuthentication shop/ports'],
  );
});

test('a route that no waypoint reads is told of: without a waypoint, and attached to the waypoint itself', () => {
  const rules = [{ backendRefs: [{ name: 'web', port: 80 }] }];
  const route: [string, Json] = ['HTTPRoute', make.httpRoute({ name: 'r', rules })];
  assert.deepEqual(said([ambient(), web, webService, route]), ['WRN0302 HTTPRoute shop/r']);
  const spec = { parentRefs: [{ name: 'waypoint' }], rules };
  const inVain: [string, Json] = ['HTTPRoute', { metadata: { name: 'v', namespace: 'shop' }, spec }];
  assert.deepEqual(said([ambient({ 'istio.io/use-waypoint': 'waypoint' }), web, webService, waypoint(), inVain]), [
    'WRN0302 HTTPRoute shop/v',
  ]);
});

test('a route whose rules an older route takes all of is shadowed', () => {
  const rule = (value: string): Json => ({
    matches: [{ path: { type: 'PathPrefix', value } }],
    backendRefs: [{ name: 'web', port: 80 }],
  });
  const older: [string, Json] = ['HTTPRoute', make.httpRoute({ name: 'a', createdAt: '2026-01-01T00:00:00Z', rules: [rule('/api')] })];
  const newer: [string, Json] = [
    'HTTPRoute',
    make.httpRoute({ name: 'b', createdAt: '2026-01-02T00:00:00Z', rules: [rule('/api'), rule('/api/v2')] }),
  ];
  const found = messages([ambient({ 'istio.io/use-waypoint': 'waypoint' }), web, webService, waypoint(), older, newer]);
  assert.deepEqual(
    found.map(({ type, text }) => `${type.code} ${text}`),
    ['WRN0301 HTTPRoute shop/b rule 0 is never reached: HTTPRoute shop/a rule 0 takes all of its requests'],
  );
});

test('a rule with a match of its own beside a shadowed one is reached', () => {
  const path = (value: string) => ({ type: { $case: 'prefix' as const, value }, ignoreCase: false });
  const match = (value: string) => ({ path: path(value), method: '', headers: [], queryParams: [], withoutHeaders: [] });
  const rule = (name: string) => ({ name, mirrors: [], requestTimeoutMs: 0, backendTimeoutMs: 0, backends: [] });
  const table = [
    { match: match('/a'), rule: 0 },
    { match: match('/a/b'), rule: 1 },
    { match: match('/c'), rule: 1 },
    { match: match('/ab'), rule: 2 },
    { match: match('/a/d'), rule: 3 },
  ];
  assert.deepEqual(
    [...shadows({ table, rules: ['0', '1', '2', '3'].map(rule) })],
    [
      ['1', undefined],
      ['3', '0'],
      ['0', undefined],
      ['2', undefined],
    ],
  );
});

test('each object of a kind that nobody enforces is told of', () => {
  const filter: [string, Json] = ['EnvoyFilter', { metadata: { name: 'f', namespace: 'shop' }, spec: {} }];
  const plugin: [string, Json] = ['WasmPlugin', { metadata: { name: 'w', namespace: 'shop' }, spec: {} }];
  assert.deepEqual(said([filter, plugin]), ['WRN0401 EnvoyFilter shop/f', 'WRN0401 WasmPlugin shop/w']);
});

test('require-waypoint without a waypoint is an error, on the pod and on its namespace', () => {
  const annotations = { 'warren.dev/require-waypoint': 'true' };
  const asking: [string, Json] = ['Namespace', make.namespace('shop', { 'istio.io/dataplane-mode': 'ambient' }, annotations)];
  assert.deepEqual(said([asking, web, webService]), ['WRN0104 Pod shop/web']);
  const pod: [string, Json] = ['Pod', make.pod({ name: 'web', labels: { app: 'web' }, annotations })];
  assert.deepEqual(said([ambient(), pod, webService]), ['WRN0104 Pod shop/web']);
  const bound: [string, Json] = [
    'Namespace',
    make.namespace('shop', { 'istio.io/dataplane-mode': 'ambient', 'istio.io/use-waypoint': 'waypoint' }, annotations),
  ];
  assert.deepEqual(said([bound, web, webService, waypoint()]), []);
});

test('a ServiceEntry that claims a name of another namespace is told of', () => {
  const entry = make.serviceEntry({
    name: 'thief',
    spec: { hosts: ['web.other.svc.cluster.local'], ports: [{ number: 80, name: 'http', protocol: 'HTTP' }], resolution: 'STATIC' },
  });
  assert.deepEqual(said([['ServiceEntry', entry]]), ['WRN0501 ServiceEntry shop/thief']);
});

test('codes on the object itself are not told of', () => {
  const quiet = { ...make.authorizationPolicy({ name: 'p', spec: { ...selecting, rules: [GET] } }) };
  const metadata = { ...(quiet.metadata as Json), annotations: { 'galley.istio.io/analyze-suppress': 'WRN0203, WRN0202' } };
  assert.deepEqual(said([ambient(), web, ['AuthorizationPolicy', { ...quiet, metadata }]]), []);
});

test('what the status of a live object says is told only where nothing better is said of it', () => {
  const conditions = [{ type: 'ZtunnelAccepted', status: 'False', reason: 'Whatever', message: 'no' }];
  const status = { status: { conditions } };
  const good: [string, Json] = [
    'AuthorizationPolicy',
    { ...make.authorizationPolicy({ name: 'a', spec: { ...selecting, rules: [FROM] } }), ...status },
  ];
  const bad: [string, Json] = [
    'AuthorizationPolicy',
    { ...make.authorizationPolicy({ name: 'b', spec: { ...selecting, rules: [FROM, GET] } }), ...status },
  ];
  assert.deepEqual(said([ambient(), web, good, bad], { live: true }), [
    'IST0171 AuthorizationPolicy shop/a',
    'WRN0202 AuthorizationPolicy shop/b',
  ]);
});

test('every code, name and analyzer is there once', () => {
  const types = Object.values(messageTypes);
  assert.equal(new Set(types.map(({ code }) => code)).size, types.length);
  assert.equal(new Set(types.map(({ name }) => name)).size, types.length);
  const names = [...objectChecks, ...setChecks].map(({ name }) => name);
  assert.equal(new Set(names).size, names.length);
});

test('a word of the mesh that there is not, or that nobody reads there, is named with the one that was meant', () => {
  const deployment = { metadata: { name: 'web', labels: { app: 'web', 'istio.io/dataplane-mode': 'none' } }, spec: {} };
  const service = {
    metadata: {
      name: 'web',
      labels: {
        'istio.io/use-waypiont': 'waypoint',
        'istio.io/waypoint-for': 'all',
        'istio.io/rev': 'canary',
        'example.com/use-waypoint': 'x',
      },
      annotations: { 'istio.io/use-waypoint': 'waypoint', 'ambient.istio.io/dns-captur': 'true', 'networking.istio.io/exportTo': '.' },
    },
    spec: { ports: [] },
  };
  const pod = {
    metadata: {
      name: 'web',
      labels: { 'warren.dev/require-waypoint': 'true', 'istio.io/dataplane-mode': 'ambient' },
      annotations: {
        'ambient.istio.io/waypoint-inbound-binding': 'PROXY',
        'sidecar.istio.io/proxyCPU': '1',
        'ambient.istio.io/redirection': 'enabled',
      },
    },
    spec: {},
  };
  const made = {
    metadata: { name: 'web-waypoint', labels: { 'gateway.networking.k8s.io/gateway-name': 'w', 'istio.io/waypoint-for': 'all' } },
  };
  const found = messages([
    ['Deployment', deployment],
    ['Service', service],
    ['Pod', pod],
    ['Deployment', made],
  ]);
  const said = found.map(({ type, origin, text }) => `${type.code} ${friendlyName(origin)}: ${text}`);
  assert.deepEqual(said.filter((line) => /IST010[78]|WRN010[56]/.test(line)).sort(), [
    'IST0107 Pod shop/web: misplaced: annotation ambient.istio.io/waypoint-inbound-binding is read from GatewayClass and Gateway objects',
    'IST0107 Service shop/web: misplaced: annotation istio.io/use-waypoint: it is read as a label, and as an annotation by nobody',
    'IST0108 Service shop/web: unknown annotation ambient.istio.io/dns-captur: did you mean ambient.istio.io/dns-capture?',
    'WRN0105 Service shop/web: unknown label istio.io/use-waypiont: did you mean istio.io/use-waypoint?',
    'WRN0106 Deployment shop/web: misplaced: label istio.io/dataplane-mode on a Deployment: it is read from Pod and Namespace objects',
    'WRN0106 Pod shop/web: misplaced: label warren.dev/require-waypoint: it is read as an annotation, and as a label by nobody',
    'WRN0106 Service shop/web: misplaced: label istio.io/waypoint-for on a Service: it is read from GatewayClass and Gateway objects',
  ]);
});

test('a ReferenceGrant that the mesh has no need of is told of, and one of a namespace to itself', () => {
  const grant = (namespace: string): [string, Json] => [
    'ReferenceGrant',
    {
      apiVersion: 'gateway.networking.k8s.io/v1',
      metadata: { name: `from-${namespace}`, namespace: 'shop' },
      spec: { from: [{ group: 'gateway.networking.k8s.io', kind: 'HTTPRoute', namespace }], to: [{ group: '', kind: 'Service' }] },
    },
  ];
  const secrets: [string, Json] = [
    'ReferenceGrant',
    {
      apiVersion: 'gateway.networking.k8s.io/v1',
      metadata: { name: 'secrets', namespace: 'shop' },
      spec: { from: [{ group: 'gateway.networking.k8s.io', kind: 'Gateway', namespace: 'edge' }], to: [{ group: '', kind: 'Secret' }] },
    },
  ];
  assert.deepEqual(said([grant('billing'), grant('shop'), secrets]), [
    'IST0133 ReferenceGrant shop/from-shop',
    'WRN0303 ReferenceGrant shop/from-billing',
  ]);
});

test('a VirtualService that routes by claims is told of where nobody verifies a token', () => {
  const bound: [string, Json] = [
    'Namespace',
    make.namespace('shop', { 'istio.io/dataplane-mode': 'ambient', 'istio.io/use-waypoint': 'waypoint' }),
  ];
  const claims: [string, Json] = [
    'VirtualService',
    {
      metadata: { name: 'web', namespace: 'shop' },
      spec: {
        hosts: ['web'],
        http: [
          { match: [{ headers: { '@request.auth.claims.group': { exact: 'beta' } } }], route: [{ destination: { host: 'web' } }] },
          { route: [{ destination: { host: 'web' } }] },
        ],
      },
    },
  ];
  const verified = (kind: string, name: string): [string, Json] => [
    'RequestAuthentication',
    {
      metadata: { name: 'tokens', namespace: 'shop' },
      spec: {
        targetRefs: [{ group: kind === 'Gateway' ? 'gateway.networking.k8s.io' : '', kind, name }],
        jwtRules: [{ issuer: 'me', jwks: '{"keys":[]}' }],
      },
    },
  ];
  const world = [bound, web, webService, waypoint(), claims];
  const codes = (more: readonly (readonly [string, Json])[]): string[] =>
    said([...world, ...more]).filter((line) => line.startsWith('IST0149'));
  assert.deepEqual(codes([]), ['IST0149 VirtualService shop/web']);
  assert.deepEqual(codes([verified('Service', 'other')]), ['IST0149 VirtualService shop/web']);
  assert.deepEqual(codes([verified('Service', 'web')]), []);
  assert.deepEqual(codes([verified('Gateway', 'waypoint')]), []);
});
