/** Anybody may write objects; whatever they hold, the index neither throws nor publishes what a ztunnel would reject. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { HttpAuthorization, ServiceRoutes } from '../../../common/codec/gen/waypoint.ts';
import { compileAuthorization, compileRoutes } from '../../../common/decision/http-model.ts';
import { decodeAddress, decodePolicy } from '../../../common/state/decode.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { type WatchedKindName, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};
const L7 = {
  from: [{ source: { serviceAccounts: ['a', 'x/b'], notNamespaces: ['n'], notIpBlocks: ['10.0.0.0/8'] } }],
  to: [{ operation: { hosts: ['h'], methods: ['GET'], paths: ['/a*', '/{*}/b'], notPorts: ['80'] } }],
  when: [
    { key: 'request.headers[x]', values: ['v'], notValues: ['*'] },
    { key: 'destination.ip', notValues: ['::1'] },
  ],
};
const kinds = Object.keys(watchedKinds) as WatchedKindName[];

const whole: Readonly<Record<WatchedKindName, Record<string, unknown>>> = {
  Namespace: make.namespace('shop', { 'istio.io/use-waypoint': 'wp' }),
  Node: make.node('node-1', 'z'),
  Pod: make.pod({ name: 'a', labels: { app: 'a' }, ports: { web: 8080 } }),
  Service: make.service({ name: 'web', selector: { app: 'a' } }),
  EndpointSlice: make.endpointSlice({ name: 's', service: 'web', endpoints: [{ addresses: ['192.0.2.1'], conditions: { ready: true } }] }),
  ConfigMap: {
    metadata: { name: 'istio', namespace: 'istio-system' },
    data: {
      mesh: '{extensionProviders: [{name: a, opentelemetry: {service: b.c, port: 4317}}], outboundTrafficPolicy: {mode: ALLOW_ANY}}',
    },
  },
  Telemetry: {
    metadata: { name: 't', namespace: 'shop' },
    spec: {
      targetRefs: [{ kind: 'Service', group: '', name: 'web' }],
      metrics: [
        {
          providers: [{ name: 'prometheus' }],
          overrides: [{ match: { metric: 'REQUEST_COUNT' }, tagOverrides: { a: { value: 'request.host' } } }],
        },
      ],
      accessLogging: [{ providers: [{ name: 'envoy' }], filter: { expression: 'response.code >= 400' } }],
      tracing: [{ providers: [{ name: 'a' }], randomSamplingPercentage: 10, customTags: { t: { literal: { value: 'v' } } } }],
    },
  },
  AuthorizationPolicy: make.authorizationPolicy({
    name: 'p',
    spec: {
      action: 'DENY',
      selector: { matchLabels: { app: 'a' } },
      rules: [{ from: [{ source: { ipBlocks: ['10.0.0.0/8'], principals: ['*'] } }], when: [{ key: 'source.ip', values: ['::/0'] }] }],
    },
  }),
  BackendTLSPolicy: {
    metadata: { name: 'b', namespace: 'shop', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      targetRefs: [{ kind: 'Service', group: '', name: 'web', sectionName: 'http' }],
      validation: {
        caCertificateRefs: [{ kind: 'ConfigMap', group: '', name: 'ca' }],
        hostname: 'api.example',
        subjectAltNames: [
          { type: 'Hostname', hostname: 'a.example' },
          { type: 'URI', uri: 'spiffe://a' },
        ],
      },
    },
  },
  RateLimitPolicy: {
    metadata: { name: 'l', namespace: 'shop', creationTimestamp: '2026-01-01T00:00:00Z' },
    spec: {
      targetRefs: [
        { kind: 'Service', group: '', name: 'web' },
        { kind: 'HTTPRoute', group: 'gateway.networking.k8s.io', name: 'r', sectionName: 'n' },
      ],
      limits: [
        {
          name: 'a',
          requests: 5,
          per: '1s',
          burst: 9,
          by: ['source.principal', 'request.query[q]'],
          when: [{ key: 'request.path', values: ['/a*'], notValues: ['/a/{*}'] }],
          fairBetween: ['source.namespace'],
        },
      ],
    },
  },
  HTTPRoute: make.httpRoute({
    name: 'r',
    rules: [
      {
        name: 'n',
        matches: [
          {
            path: { type: 'Exact', value: '/a' },
            method: 'GET',
            headers: [{ name: 'x', value: 'y' }],
            queryParams: [{ name: 'q', value: 'v' }],
          },
          { path: { type: 'RegularExpression', value: '/a.*' } },
        ],
        filters: [
          { type: 'RequestHeaderModifier', requestHeaderModifier: { set: [{ name: 'a', value: 'b' }], remove: ['c'] } },
          { type: 'URLRewrite', urlRewrite: { hostname: 'h', path: { type: 'ReplacePrefixMatch', replacePrefixMatch: '/b' } } },
          { type: 'RequestMirror', requestMirror: { backendRef: { name: 'web', port: 80 }, fraction: { numerator: 1, denominator: 3 } } },
        ],
        timeouts: { request: '1s', backendRequest: '500ms' },
        retry: { attempts: 1, codes: [500], backoff: '10ms' },
        backendRefs: [{ name: 'web', port: 80, weight: 1, filters: [] }],
      },
    ],
  }),
  GRPCRoute: make.httpRoute({
    name: 'g',
    rules: [
      {
        matches: [{ method: { type: 'Exact', service: 's', method: 'm' }, headers: [{ name: 'x', value: 'y' }] }],
        backendRefs: [{ name: 'web', port: 80 }],
      },
    ],
  }),
  TCPRoute: make.httpRoute({ name: 't', rules: [{ backendRefs: [{ name: 'web', port: 80 }] }] }),
  TLSRoute: make.httpRoute({ name: 's', rules: [{ backendRefs: [{ name: 'web', port: 80 }] }] }),
  VirtualService: make.virtualService({
    name: 'v',
    spec: {
      hosts: ['web', '*.example.com'],
      gateways: ['mesh'],
      exportTo: ['*'],
      http: [
        {
          name: 'n',
          match: [
            { uri: { prefix: '/a' }, method: { exact: 'GET' }, headers: { x: { regex: 'a+' } }, sourceLabels: { app: 'a' }, port: 80 },
            { queryParams: { q: { exact: '1' } }, withoutHeaders: { y: {} }, authority: { prefix: 'web' }, ignoreUriCase: true },
          ],
          rewrite: { uri: '/b', uriRegexRewrite: { match: 'a', rewrite: 'b' } },
          headers: { request: { set: { a: 'b' }, remove: ['c'] } },
          fault: { delay: { fixedDelay: '1s', percentage: { value: 1 } }, abort: { httpStatus: 503, percentage: { value: 1 } } },
          corsPolicy: { allowOrigins: [{ exact: 'https://a' }], maxAge: '1m', allowMethods: ['GET'] },
          retries: { attempts: 2, perTryTimeout: '1s', retryOn: '5xx,503' },
          timeout: '5s',
          mirrors: [{ destination: { host: 'web', subset: 'v1' }, percentage: { value: 10 } }],
          route: [{ destination: { host: 'web', subset: 'v1', port: { number: 80 } }, weight: 100 }],
        },
        { match: [{ uri: { exact: '/d' } }], delegate: { name: 'other', namespace: 'shop' } },
        { redirect: { uri: '/x', authority: 'h', derivePort: 'FROM_PROTOCOL_DEFAULT', redirectCode: 302 } },
        { directResponse: { status: 418, body: { string: 'tea' } } },
      ],
      tcp: [{ match: [{ port: 80, destinationSubnets: ['10.0.0.0/8'] }], route: [{ destination: { host: 'web' } }] }],
      tls: [{ match: [{ port: 80, sniHosts: ['a.example.com'] }], route: [{ destination: { host: 'web' } }] }],
    },
  }),
  DestinationRule: make.destinationRule({
    name: 'd',
    spec: {
      host: 'web',
      trafficPolicy: {
        loadBalancer: { consistentHash: { httpCookie: { name: 'c', ttl: '1h' }, maglev: { tableSize: 101 } }, warmup: { duration: '1s' } },
        connectionPool: { tcp: { maxConnections: 1, connectTimeout: '1s' }, http: { http1MaxPendingRequests: 1, idleTimeout: '1s' } },
        outlierDetection: { consecutive5xxErrors: 1, interval: '1s', baseEjectionTime: '1s', maxEjectionPercent: 50 },
        tls: { mode: 'SIMPLE', sni: 'web', subjectAltNames: ['web'] },
        proxyProtocol: { version: 'V2' },
        portLevelSettings: [{ port: { number: 80 }, loadBalancer: { simple: 'RANDOM' } }],
      },
      subsets: [{ name: 'v1', labels: { app: 'a' }, trafficPolicy: { retryBudget: { percent: 10 } } }],
    },
  }),
  PeerAuthentication: make.peerAuthentication({ name: 'pa', mode: 'STRICT', selector: { app: 'a' }, ports: { 8080: 'PERMISSIVE' } }),
  RequestAuthentication: make.authorizationPolicy({
    name: 'ra',
    spec: {
      targetRefs: [{ group: '', kind: 'Service', name: 'web' }],
      jwtRules: [
        {
          issuer: 'https://i',
          jwksUri: 'https://i/keys',
          audiences: ['a'],
          fromHeaders: [{ name: 'x', prefix: 'p' }],
          outputClaimToHeaders: [{ header: 'h', claim: 'c' }],
        },
        { issuer: 'j', jwks: '{"keys":[]}' },
      ],
    },
  }),
  ServiceEntry: make.serviceEntry({
    name: 'e',
    spec: {
      hosts: ['e.example.com'],
      addresses: ['240.0.0.1'],
      ports: [{ number: 80, name: 'http', protocol: 'HTTP' }],
      resolution: 'STATIC',
      endpoints: [{ address: '192.0.2.2', ports: { http: 81 } }],
    },
  }),
  WorkloadEntry: make.workloadEntry({ name: 'w', spec: { address: '192.0.2.3', labels: { app: 'a' }, weight: 2, locality: 'r/z' } }),
  Gateway: make.gateway({ name: 'wp' }),
  GatewayClass: { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } },
};

const targeted = make.authorizationPolicy({
  name: 'l7',
  spec: { action: 'DENY', targetRefs: [{ group: '', kind: 'Service', name: 'web' }], rules: [L7] },
});

const nonsense = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.constantFrom<unknown>(
    '',
    'x',
    '1.2.3.4/99',
    '::1%eth0',
    '*',
    '-1',
    99999999,
    -1,
    0.5,
    null,
    [null],
    [[]],
    {},
    { '': '' },
    { __proto__: null },
    'constructor',
    'hasOwnProperty',
  ),
);

/** A copy with the value at one place, which `pick` chooses among all places, replaced. */
function spoiled(value: unknown, pick: number, replacement: unknown): unknown {
  const places: (string | number)[][] = [];
  const visit = (here: unknown, path: (string | number)[]): void => {
    if (path.length > 0) places.push(path);
    if (here !== null && typeof here === 'object')
      for (const key of Object.keys(here)) visit((here as Record<string, unknown>)[key], [...path, key]);
  };
  visit(value, []);
  const copy = structuredClone(value) as Record<string, unknown>;
  const path = places[pick % places.length] ?? [];
  let here: Record<string | number, unknown> = copy;
  for (const key of path.slice(0, -1)) here = here[key] as Record<string | number, unknown>;
  here[path.at(-1) ?? ''] = replacement;
  return copy;
}

test('objects with any of their values replaced by nonsense do no harm', () => {
  const changes = fc.array(fc.record({ kind: fc.constantFrom(...kinds), pick: fc.nat(), replacement: nonsense }), {
    minLength: 1,
    maxLength: 6,
  });
  fc.assert(
    fc.property(changes, (spoilings) => {
      const index = new MeshIndex(config);
      for (const kind of kinds) index.apply({ type: 'added', kind, object: whole[kind] });
      index.apply({ type: 'added', kind: 'AuthorizationPolicy', object: targeted });
      for (const { kind, pick, replacement } of spoilings)
        index.apply({
          type: 'modified',
          kind,
          object: spoiled(pick % 2 === 0 && kind === 'AuthorizationPolicy' ? targeted : whole[kind], pick, replacement),
        });
      index.flush();
      for (const { bytes } of index.addresses()) decodeAddress(bytes);
      for (const { bytes } of index.authorizations()) decodePolicy(bytes);
      // A waypoint refuses what it cannot compile, and would keep what it had.
      const { routes, httpAuthorizations } = index.waypointResources('shop', 'wp');
      for (const { bytes } of routes) compileRoutes(ServiceRoutes.decode(bytes));
      for (const { bytes } of httpAuthorizations) compileAuthorization(HttpAuthorization.decode(bytes));
      // What admission and analysis say of them.
      for (const { kind, pick, replacement } of spoilings) {
        const found = index.findings(kind, spoiled(whole[kind], pick, replacement));
        assert.deepEqual(
          found.filter(({ message }) => /could not be read:|is not a function|Cannot read/.test(message)),
          [],
        );
      }
      assert.deepEqual(
        [...index.problems()].filter(({ message }) => /could not be read:|is not a function|Cannot read|undefined/.test(message)),
        [],
      );
    }),
    { numRuns: 300 },
  );
});

test('values that are no objects at all are problems', () => {
  const index = new MeshIndex(config);
  for (const object of [undefined, null, 7, 'x', [], {}, { metadata: null }, { metadata: { name: 5 } }])
    index.apply({ type: 'added', kind: 'Pod', object });
  assert.deepEqual(index.flush().problems, [{ object: 'Pod without a name', message: 'an object has no metadata.name' }]);
});

test('an object with thousands of mistakes is shown with a few of them', () => {
  const index = new MeshIndex(config);
  const ports = Array.from({ length: 5000 }, (_, i) => ({ port: -i - 1 }));
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web', ports }) });
  assert.equal(index.flush().problems.length, 20);
});

test('a selector that cannot be read never makes anything apply to less protection', () => {
  const index = new MeshIndex(config);
  const unreadable = { app: 5 } as unknown as Record<string, string>;
  index.apply({ type: 'added', kind: 'Pod', object: whole.Pod });
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web', selector: unreadable }) });
  index.apply({
    type: 'added',
    kind: 'AuthorizationPolicy',
    object: make.authorizationPolicy({ name: 'p', spec: { action: 'DENY', selector: { matchLabels: unreadable }, rules: [{}] } }),
  });
  index.apply({
    type: 'added',
    kind: 'PeerAuthentication',
    object: make.peerAuthentication({ name: 'mesh', namespace: 'istio-system', mode: 'STRICT' }),
  });
  index.apply({
    type: 'added',
    kind: 'PeerAuthentication',
    object: make.peerAuthentication({ name: 'loose', mode: 'PERMISSIVE', selector: unreadable }),
  });
  index.flush();
  const address = index.address('Kubernetes//Pod/shop/a');
  assert.ok(address);
  const decoded = decodeAddress(address.bytes);
  assert.ok('workload' in decoded);
  assert.deepEqual([...decoded.workload.services.keys()], [], 'the service selects nobody');
  assert.deepEqual(decoded.workload.authorizationPolicies, ['istio-system/istio_converted_static_strict'], 'the looser mode is left aside');
  const policy = index.authorization('shop/p');
  assert.equal(policy && decodePolicy(policy.bytes).scope, 'NAMESPACE');
  assert.equal([...index.problems()].length, 3);
});
