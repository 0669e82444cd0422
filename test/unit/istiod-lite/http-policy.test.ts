import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Action, type HttpAuthorizationRule } from '../../../common/codec/gen/waypoint.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;

const WEB = { group: '', kind: 'Service', name: 'web' };
const WP = { group: 'gateway.networking.k8s.io', kind: 'Gateway', name: 'wp' };

function meshWith(spec: Json, annotations: Record<string, string> = {}): TranslatedMesh {
  const policy = make.authorizationPolicy({ name: 'p', annotations, spec: { targetRefs: [WEB], ...spec } });
  return TranslatedMesh.shop().set('AuthorizationPolicy', policy);
}

const rulesOf = (action: string, rule: Json): HttpAuthorizationRule[] | undefined =>
  meshWith({ action, rules: [rule] }).policies()[0]?.rules;

/** The fields of a source or operation that say something. */
const said = (item: object | undefined): Json => Object.fromEntries(Object.entries(item ?? {}).filter(([, values]) => values.length > 0));

const exact = (value: string) => ({ type: { $case: 'exact', value } });

const ACCEPTED = 'WaypointAccepted=True Accepted';
const UNSUPPORTED = 'WaypointAccepted=True UnsupportedValue';
const POLICY = 'AuthorizationPolicy shop/p istio-ambient-waypoint-policy';

test('all that a waypoint can match goes over: sources, operations, conditions', () => {
  const source = {
    principals: ['cluster.local/ns/a/sa/b', 'x/*', '*/sa/c', '*'],
    notNamespaces: ['n'],
    serviceAccounts: ['mine', 'other/theirs'],
    ipBlocks: ['10.0.0.0/8', '::1'],
  };
  const operation = { hosts: ['h'], notMethods: ['POST'], paths: ['/a', '/b*'], ports: ['80'] };
  const when = [
    { key: 'request.headers[x-token]', values: ['t'] },
    { key: 'source.ip', notValues: ['10.1.0.0/16'] },
    { key: 'destination.port', values: ['80'] },
  ];
  const mesh = meshWith({ rules: [{ from: [{ source }], to: [{ operation }], when }] });
  const [policy] = mesh.policies();
  assert.equal(policy?.action, Action.ALLOW);
  assert.deepEqual(policy?.targets, [{ type: { $case: 'service', value: 'shop/web.shop.svc.cluster.local' } }]);
  const [rule] = policy?.rules ?? [];
  assert.deepEqual(said(rule?.from[0]), {
    principals: [
      exact('cluster.local/ns/a/sa/b'),
      { type: { $case: 'prefix', value: 'x/' } },
      { type: { $case: 'suffix', value: '/sa/c' } },
      { type: { $case: 'presence', value: {} } },
    ],
    notNamespaces: [exact('n')],
    serviceAccounts: [exact('shop/mine'), exact('other/theirs')],
    ipBlocks: ['10.0.0.0/8', '::1'],
  });
  assert.deepEqual(said(rule?.to[0]), {
    hosts: [exact('h')],
    ports: [80],
    notMethods: [exact('POST')],
    paths: [exact('/a'), { type: { $case: 'prefix', value: '/b' } }],
  });
  assert.deepEqual(rule?.when, [
    { key: 'request.headers[x-token]', values: [exact('t')], notValues: [] },
    { key: 'source.ip', values: [], notValues: [exact('10.1.0.0/16')] },
    { key: 'destination.port', values: [exact('80')], notValues: [] },
  ]);
  assert.deepEqual(mesh.conditions(POLICY), [ACCEPTED]);
});

test('no rules at all, and a rule that is empty, are different things', () => {
  assert.deepEqual(meshWith({}).policies()[0]?.rules, []);
  assert.deepEqual(rulesOf('ALLOW', {}), [{ from: [], to: [], when: [] }]);
});

const unsupported: readonly [name: string, rule: Json][] = [
  ['a field that nobody knows', { from: [{ source: { planets: ['mars'], namespaces: ['a'] } }] }],
  [
    'a condition of an Envoy filter',
    { from: [{ source: { namespaces: ['a'] } }], when: [{ key: 'experimental.envoy.filters.x[y]', values: ['x'] }] },
  ],
  ['a pseudo header', { from: [{ source: { namespaces: ['a'] } }], when: [{ key: 'request.headers[:path]', values: ['/'] }] }],
];

for (const [name, rule] of unsupported) {
  test(`an ALLOW rule with ${name} allows nothing, a DENY rule denies what is left of it`, () => {
    const allow = meshWith({ rules: [rule, { to: [{ operation: { methods: ['GET'] } }] }] });
    assert.equal(allow.policies()[0]?.rules.length, 1, 'the other rule goes on');
    assert.deepEqual(allow.conditions(POLICY), [UNSUPPORTED]);
    const deny = meshWith({ action: 'DENY', rules: [rule] });
    const [left] = deny.policies()[0]?.rules ?? [];
    assert.deepEqual([left?.from.map(said), left?.to, left?.when], [[{ namespaces: [exact('a')] }], [], []]);
    assert.deepEqual(deny.conditions(POLICY), [UNSUPPORTED]);
  });
}

test('values that cannot be read make an ALLOW match less and a DENY match more', () => {
  const paths = (field: string) => ({ to: [{ operation: { [field]: ['/a', ''] } }] });
  assert.deepEqual(
    rulesOf('ALLOW', paths('paths'))?.map(({ to }) => to.map(said)),
    [[{ paths: [exact('/a')] }]],
  );
  assert.deepEqual(rulesOf('ALLOW', paths('notPaths')), [], 'what must not match is not known');
  assert.deepEqual(rulesOf('DENY', paths('paths')), [{ from: [], to: [], when: [] }]);
  assert.deepEqual(
    rulesOf('DENY', paths('notPaths'))?.map(({ to }) => to.map(said)),
    [[{ notPaths: [exact('/a')] }]],
  );
  assert.deepEqual(rulesOf('ALLOW', { from: [{ source: { ipBlocks: ['nowhere'] } }] }), []);
  assert.deepEqual(rulesOf('DENY', { when: [{ key: 'source.ip', notValues: ['nowhere'] }] }), [{ from: [], to: [], when: [] }]);
  assert.deepEqual(meshWith({ rules: [paths('paths')] }).conditions(POLICY), [UNSUPPORTED]);
});

test('an alternative that says nothing allows nothing, and denies whatever comes', () => {
  const empty = { from: [{ source: {} }, { source: { namespaces: ['a'] } }] };
  assert.deepEqual(
    rulesOf('ALLOW', empty)?.map(({ from }) => from.map(said)),
    [[{ namespaces: [exact('a')] }]],
  );
  assert.deepEqual(rulesOf('DENY', empty), [{ from: [], to: [], when: [] }]);
});

test('tokens, both kinds of addresses, trust domains and templates of paths go over', () => {
  const rule = {
    from: [
      { source: { requestPrincipals: ['iss/*'], ipBlocks: ['10.0.0.0/8'], remoteIpBlocks: ['10.1.0.0/16'], notTrustDomains: ['td*'] } },
    ],
    to: [{ operation: { paths: ['/{*}/b'] } }],
    when: [
      { key: 'request.auth.claims[realm][roles]', values: ['admin'] },
      { key: 'connection.sni', notValues: ['*.example'] },
    ],
  };
  const mesh = meshWith({ rules: [rule] });
  const [made] = mesh.policies()[0]?.rules ?? [];
  assert.deepEqual(said(made?.from[0]), {
    requestPrincipals: [{ type: { $case: 'prefix', value: 'iss/' } }],
    ipBlocks: ['10.0.0.0/8'],
    remoteIpBlocks: ['10.1.0.0/16'],
    notTrustDomains: [{ type: { $case: 'prefix', value: 'td' } }],
  });
  assert.deepEqual(said(made?.to[0]), { paths: [{ type: { $case: 'template', value: '/{*}/b' } }] });
  assert.deepEqual(made?.when[0]?.key, 'request.auth.claims[realm][roles]');
  assert.deepEqual(mesh.conditions(POLICY), [ACCEPTED]);
});

const meshConfig = (extensionProviders: Json[]): Json => ({
  metadata: { name: 'istio', namespace: 'istio-system' },
  data: { mesh: JSON.stringify({ extensionProviders }) },
});
const http = { service: 'opa.auth.svc.cluster.local', port: 8000 };
const CUSTOM = { action: 'CUSTOM', provider: { name: 'opa' }, rules: [{ to: [{ operation: { paths: ['/admin*'] } }] }] };
const opa = make.service({ name: 'opa', namespace: 'auth', vip: '10.96.0.9', ports: [{ name: 'http', port: 8000 }] });

test('what CUSTOM would ask about is refused as long as there is nobody to ask, and the status says who is missing', () => {
  const mesh = meshWith(CUSTOM);
  assert.equal(mesh.policies()[0]?.action, Action.DENY);
  assert.deepEqual(mesh.conditions(POLICY), [UNSUPPORTED]);
  assert.match(mesh.message(POLICY, 'WaypointAccepted') ?? '', /no extension provider opa: what the rules match is refused/);
  mesh.set('ConfigMap', meshConfig([{ name: 'opa', envoyExtAuthzHttp: http }]));
  assert.match(mesh.message(POLICY, 'WaypointAccepted') ?? '', /provider opa: there is no service opa.auth.svc.cluster.local/);
  assert.equal(mesh.policies()[0]?.action, Action.DENY);
  mesh.set('Service', opa);
  assert.deepEqual(mesh.conditions(POLICY), [ACCEPTED]);
  assert.equal(mesh.policies()[0]?.action, Action.CUSTOM);
  mesh.set('ConfigMap', meshConfig([{ name: 'opa', envoyExtAuthzHttp: { ...http, port: 8001 } }]));
  assert.match(mesh.message(POLICY, 'WaypointAccepted') ?? '', /has no port 8001/);
  mesh.set('ConfigMap', meshConfig([{ name: 'opa', zipkin: http }]));
  assert.match(mesh.message(POLICY, 'WaypointAccepted') ?? '', /is of kind zipkin, which authorizes nothing/);
  mesh.set('ConfigMap', meshConfig([{ name: 'opa', envoyExtAuthzHttp: { ...http, statusOnError: 'maybe' } }]));
  assert.match(mesh.message(POLICY, 'WaypointAccepted') ?? '', /statusOnError/);
  assert.equal(mesh.policies()[0]?.action, Action.DENY);
  mesh.remove('Service', opa);
});

test('everything that a provider says goes over to the waypoint', () => {
  const written = {
    ...http,
    timeout: '1.5s',
    failOpen: true,
    statusOnError: '503',
    pathPrefix: '/check',
    includeRequestHeadersInCheck: ['X-User', 'x-org-*'],
    includeAdditionalHeadersInCheck: { 'x-from': 'mesh' },
    includeRequestBodyInCheck: { maxRequestBytes: 1024, allowPartialMessage: true, packAsBytes: true },
    headersToUpstreamOnAllow: ['x-user'],
    headersToDownstreamOnDeny: ['*-reason'],
    headersToDownstreamOnAllow: ['set-cookie'],
  };
  const mesh = meshWith(CUSTOM)
    .set('ConfigMap', meshConfig([{ name: 'opa', envoyExtAuthzHttp: written }]))
    .set('Service', opa);
  assert.deepEqual(mesh.policies()[0]?.authorizer, {
    name: 'opa',
    to: { namespace: 'auth', hostname: 'opa.auth.svc.cluster.local', port: 8000, subset: '' },
    timeoutMs: 1500,
    failOpen: true,
    statusOnError: 503,
    grpc: false,
    pathPrefix: '/check',
    includeHeaders: [exact('x-user'), { type: { $case: 'prefix', value: 'x-org-' } }],
    additionalHeaders: [{ name: 'x-from', value: 'mesh' }],
    body: { maxBytes: 1024, allowPartial: true, packAsBytes: true },
    toUpstreamOnAllow: [exact('x-user')],
    toDownstreamOnDeny: [{ type: { $case: 'suffix', value: '-reason' } }],
    toDownstreamOnAllow: [exact('set-cookie')],
  });
  mesh.set('ConfigMap', meshConfig([{ name: 'opa', envoyExtAuthzGrpc: { service: 'auth/opa.auth.svc.cluster.local', port: 8000 } }]));
  const [policy] = mesh.policies();
  assert.deepEqual([policy?.authorizer?.grpc, policy?.authorizer?.statusOnError, policy?.authorizer?.timeoutMs], [true, 403, 600_000]);
});

test('a service that a policy asks has its traffic settings at the waypoint too, as long as the policy is there', () => {
  const mesh = meshWith(CUSTOM)
    .set('ConfigMap', meshConfig([{ name: 'opa', envoyExtAuthzHttp: http }]))
    .set('Service', opa)
    .set('DestinationRule', {
      metadata: { name: 'opa', namespace: 'shop', creationTimestamp: '2026-01-01T00:00:00Z' },
      spec: { host: 'opa.auth.svc.cluster.local', trafficPolicy: { connectionPool: { tcp: { connectTimeout: '1s' } } } },
    });
  assert.deepEqual(
    mesh.traffic().map(({ hostname }) => hostname),
    ['opa.auth.svc.cluster.local'],
  );
  mesh.remove('AuthorizationPolicy', make.authorizationPolicy({ name: 'p', spec: {} }));
  assert.deepEqual(mesh.traffic(), []);
});

test('AUDIT is sent as it is', () => {
  const rules = [{ to: [{ operation: { paths: ['/admin*'] } }] }];
  const audit = meshWith({ action: 'AUDIT', rules });
  assert.equal(audit.policies()[0]?.action, Action.AUDIT);
  assert.deepEqual(audit.conditions(POLICY), [ACCEPTED]);
  assert.deepEqual(meshWith({ action: 'PRAY', rules }).conditions(POLICY), ['WaypointAccepted=False UnsupportedValue']);
});

test('a dry run is sent as one', () => {
  assert.equal(meshWith({ rules: [{}] }, { 'istio.io/dry-run': 'true' }).policies()[0]?.dryRun, true);
});

test('a Gateway stands for everything that it serves, its class for all waypoints, and only for policies of the root namespace', () => {
  const mesh = TranslatedMesh.shop().set('Gateway', make.gateway({ name: 'second', namespace: 'other' }));
  const CLASS = { group: 'gateway.networking.k8s.io', kind: 'GatewayClass', name: 'istio-waypoint' };
  const policy = (name: string, namespace: string, target: object) =>
    mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name, namespace, spec: { targetRefs: [target], rules: [{}] } }));
  policy('one', 'shop', WP);
  policy('all', 'istio-system', CLASS);
  policy('none', 'shop', CLASS);
  const told = (waypoint: string) =>
    mesh.policies(waypoint).map(({ name, targets }) => `${name} ${targets.map(({ type }) => type?.$case)}`);
  assert.deepEqual(told('shop/wp').sort(), ['all everything', 'one everything']);
  assert.deepEqual(told('other/second'), ['all everything']);
  mesh.set('Gateway', make.gateway({ name: 'third', namespace: 'other' }));
  assert.deepEqual(told('other/third'), ['all everything'], 'a Gateway that comes later');
});

test('each waypoint is told its own targets only', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('Gateway', make.gateway({ name: 'second' }));
  mesh.set('Service', make.service({ name: 'pay', labels: { 'istio.io/use-waypoint': 'second' } }));
  const PAY = { group: '', kind: 'Service', name: 'pay' };
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'p', spec: { targetRefs: [WP, PAY], rules: [{}] } }));
  assert.deepEqual(
    mesh.policies('shop/wp').map(({ targets }) => targets),
    [[{ type: { $case: 'everything', value: {} } }]],
  );
  assert.deepEqual(
    mesh.policies('shop/second').map(({ targets }) => targets),
    [[{ type: { $case: 'service', value: 'shop/pay.shop.svc.cluster.local' } }]],
  );
});

test('a waypoint is told before it is ready, or is even there; its canary too', () => {
  const mesh = TranslatedMesh.shop().set('Gateway', make.gateway({ name: 'wp', ready: false }));
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'p', spec: { targetRefs: [WEB], rules: [{}] } }));
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{}] }));
  assert.deepEqual([mesh.policies().length, mesh.routes().length], [1, 1]);
  assert.deepEqual(mesh.conditions(POLICY), ['WaypointAccepted=False AncestorNotBound'], 'its status waits for the waypoint all the same');
  mesh.set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'wp', 'istio.io/use-waypoint-canary': 'next' }));
  assert.deepEqual([mesh.policies('shop/next').length, mesh.routes('shop/next').length], [1, 1]);
  mesh.set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'elsewhere' }));
  assert.deepEqual([mesh.policies().length, mesh.routes().length, mesh.routes('shop/next').length], [0, 0, 0]);
  assert.equal(mesh.routes('shop/elsewhere').length, 1);
});

test('a waypoint that does not take the service is told nothing of it', () => {
  const mesh = TranslatedMesh.shop().set('Gateway', make.gateway({ name: 'wp', labels: { 'istio.io/waypoint-for': 'workload' } }));
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'p', spec: { targetRefs: [WEB], rules: [{}] } }));
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{}] }));
  assert.deepEqual([mesh.policies().length, mesh.routes().length], [0, 0]);
});
