/** VirtualServices from the object to the decision on a request, and what their status says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { compileRoutes } from '../../../common/decision/http-model.ts';
import { changePath, chooseBackend, matchRoute, type RoutedRequest, redirectAnswer } from '../../../common/decision/http-route.ts';
import type { RouteSource } from '../../../common/decision/route-source.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;

const to = (host: string, more: Json = {}): Json => ({ route: [{ destination: { host, ...more } }] });
const virtual = (http: readonly Json[], more: Json = {}, meta: { name?: string; namespace?: string; createdAt?: string } = {}): Json =>
  make.virtualService({ name: meta.name ?? 'v', ...meta, spec: { hosts: ['web'], http, ...more } });

const shop = (http: readonly Json[], more: Json = {}): TranslatedMesh =>
  TranslatedMesh.shop()
    .set('Service', make.service({ name: 'v2' }))
    .set('VirtualService', virtual(http, more));

const request = (path: string, more: Partial<RoutedRequest> = {}): RoutedRequest => ({
  method: 'GET',
  scheme: 'http',
  authority: 'web',
  path,
  fields: [],
  ...more,
});

/** The first word of the rule that a request to web:80 takes. */
function taken(mesh: TranslatedMesh, asked: RoutedRequest, source?: RouteSource): string {
  const compiled = mesh.routes().map(compileRoutes);
  const result = matchRoute(
    compiled.find(({ service }) => service === 'shop/web.shop.svc.cluster.local'),
    80,
    asked,
    source,
  );
  return typeof result === 'string' ? result : result.entry.rule.name.replace('VirtualService shop/v rule ', '');
}

const entryOf = (mesh: TranslatedMesh, path: string) => {
  const [routes] = mesh.routes();
  const result = routes && matchRoute(compileRoutes(routes), 80, request(path));
  return result === undefined || typeof result === 'string' ? assert.fail(String(result)) : result.entry;
};

test('rules are tried in the order in which they are written, and what none of them matches is 404', () => {
  const mesh = shop([
    { name: 'letters', match: [{ uri: { prefix: '/ab' } }], ...to('web') },
    { name: 'exact', match: [{ uri: { exact: '/ab' } }, { uri: { exact: '/Q' }, ignoreUriCase: true }], ...to('web') },
    { name: 'regex', match: [{ uri: { regex: '/r[0-9]+' } }], ...to('web') },
  ]);
  assert.equal(taken(mesh, request('/abc')), 'letters', 'a prefix is of letters, not of segments');
  assert.equal(taken(mesh, request('/ab')), 'letters');
  assert.equal(taken(mesh, request('/q')), 'exact');
  assert.equal(taken(mesh, request('/r12?x')), 'regex');
  assert.equal(taken(mesh, request('/other')), 'no-match');
});

test('all parts of a match must hold: method, headers, parameters, authority, scheme, headers that must not be there', () => {
  const mesh = shop([
    { name: 'method', match: [{ method: { regex: 'PUT|PATCH' } }], ...to('web') },
    {
      name: 'headers',
      match: [{ headers: { 'X-A': { prefix: 'a' }, 'x-b': {} }, withoutHeaders: { 'x-c': { exact: 'no' } } }],
      ...to('web'),
    },
    { name: 'query', match: [{ queryParams: { q: { exact: '1' } } }], ...to('web') },
    { name: 'authority', match: [{ authority: { exact: 'other' }, scheme: { exact: 'http' } }], ...to('web') },
  ]);
  assert.equal(taken(mesh, request('/', { method: 'PATCH' })), 'method');
  assert.equal(taken(mesh, request('/', { fields: ['x-a', 'abc', 'x-b', ''] })), 'headers');
  assert.equal(taken(mesh, request('/', { fields: ['x-a', 'abc', 'x-b', '', 'x-c', 'no'] })), 'no-match');
  assert.equal(taken(mesh, request('/?q=1')), 'query');
  assert.equal(taken(mesh, request('/', { authority: 'other:8080' })), 'authority');
  assert.equal(taken(mesh, request('/', { authority: 'other', scheme: 'https' })), 'no-match');
});

test('a rule can be for callers of a namespace, or with a label, and waypoints are told the labels that this takes and no others', () => {
  const mesh = shop([
    { name: 'namespace', match: [{ sourceNamespace: 'near' }], ...to('web') },
    { name: 'labels', match: [{ sourceLabels: { tier: 'front' } }], ...to('web') },
  ]);
  mesh.set('Pod', make.pod({ name: 'front', namespace: 'far', labels: { tier: 'front', app: 'x' } }));
  mesh.set('Pod', make.pod({ name: 'back', namespace: 'far', labels: { app: 'x' } }));
  const source = (namespace: string, labels: Record<string, string> = {}): RouteSource => ({ namespace, label: (name) => labels[name] });
  assert.equal(taken(mesh, request('/'), source('near')), 'namespace');
  assert.equal(taken(mesh, request('/'), source('far', { tier: 'front' })), 'labels');
  assert.equal(taken(mesh, request('/'), source('far')), 'no-match');
  assert.deepEqual(
    mesh.labels().map(({ uid, labels }) => [uid, labels]),
    [['Kubernetes//Pod/far/front', { tier: 'front' }]],
  );
  mesh.remove('VirtualService', virtual([]));
  assert.deepEqual(mesh.labels(), []);
});

test('rules of one port are not tried at another one', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('Service', make.service({ name: 'web', ports: [80, 81].map((port) => ({ name: `http-${port}`, port, targetPort: 8080 })) }));
  mesh.set(
    'VirtualService',
    virtual([
      { name: 'one', match: [{ port: 81 }], ...to('web') },
      { name: 'all', ...to('web') },
    ]),
  );
  const ports = mesh
    .routes()[0]
    ?.ports.map(({ port, rules }) => [port, ...rules.map(({ name, backends }) => `${name.split(' ').at(-1)}>${backends[0]?.to?.port}`)]);
  assert.deepEqual(ports, [
    [80, 'all>80'],
    [81, 'one>81', 'all>81'],
  ]);
});

test('a subset that comes later, or goes, is said in the status of who sends to it, a delegate too', () => {
  const sending = to('v2', { subset: 'new' });
  const mesh = shop([sending]).set('VirtualService', make.virtualService({ name: 'part', spec: { http: [sending] } }));
  const said = (): (string | undefined)[] => ['v', 'part'].map((name) => mesh.message(`VirtualService shop/${name}`, 'WaypointAccepted'));
  for (const message of said()) assert.match(message ?? '', /v2\.shop\.svc\.cluster\.local has no subset new/);
  for (const host of ['v2', '*.shop.svc.cluster.local']) {
    const rule = make.destinationRule({ name: 'v2', spec: { host, subsets: [{ name: 'new', labels: { version: 'new' } }] } });
    mesh.set('DestinationRule', rule);
    for (const message of said()) assert.doesNotMatch(message ?? '', /no subset/, host);
    mesh.remove('DestinationRule', rule);
    for (const message of said()) assert.match(message ?? '', /no subset new/, host);
  }
});

test('weights, subsets and ports of destinations become backends, a host that is not there an invalid one', () => {
  const mesh = shop([
    {
      route: [
        { destination: { host: 'v2', subset: 'new', port: { number: 80 } }, weight: 25, headers: { request: { add: { a: '1' } } } },
        { destination: { host: 'ghost' }, weight: 75 },
      ],
    },
  ]);
  const { rule } = entryOf(mesh, '/');
  assert.deepEqual(
    rule.backends.map(({ to: backend, weight }) => [backend?.hostname, backend?.subset, backend?.port, weight]),
    [
      ['v2.shop.svc.cluster.local', 'new', 80, 25],
      [undefined, undefined, undefined, 75],
    ],
  );
  assert.deepEqual(rule.backends[0]?.requestHeaders, { set: [], add: [{ name: 'a', value: '1' }], remove: [] });
  assert.equal(chooseBackend(rule, () => 0.1)?.to?.hostname, 'v2.shop.svc.cluster.local');
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=True UnsupportedValue']);
  assert.match(mesh.message('VirtualService shop/v', 'WaypointAccepted') ?? '', /no subset new.*no service ghost\.shop/s);
});

test('rewrites replace letters, or what an expression finds', () => {
  const mesh = shop([
    { match: [{ uri: { prefix: '/old' } }], rewrite: { uri: '/new', authority: 'inner' }, ...to('web') },
    { match: [{ uri: { prefix: '/r' } }], rewrite: { uriRegexRewrite: { match: '^/r/([^/]+)/(.*)$', rewrite: '/\\2/\\1' } }, ...to('web') },
    { match: [{ uri: { exact: '/e' } }], rewrite: { uri: '/whole' }, ...to('web') },
  ]);
  const changed = (path: string): string => {
    const entry = entryOf(mesh, path);
    return changePath(path, entry.rule.rewrite?.path, entry);
  };
  assert.equal(changed('/older/x?q'), '/newer/x?q');
  assert.equal(changed('/r/a/b/c?q'), '/b/c/a?q');
  assert.equal(changed('/e'), '/whole');
  assert.equal(entryOf(mesh, '/old').rule.rewrite?.hostname, 'inner');
});

test('redirects keep the authority unless they name one, and derive the port as they are told', () => {
  const location = (redirect: Json, asked = request('/a/b?q', { authority: 'web:8080' })): string | undefined => {
    const mesh = shop([{ match: [{ uri: { prefix: '/a' } }], redirect }]);
    return redirectAnswer(entryOf(mesh, '/a'), asked, 81)?.location;
  };
  assert.equal(location({ uri: '/x' }), 'http://web:8080/x?q');
  assert.equal(location({ authority: 'other', scheme: 'https' }), 'https://other/a/b?q');
  assert.equal(location({ derivePort: 'FROM_REQUEST_PORT' }), 'http://web:81/a/b?q');
  assert.equal(location({ derivePort: 'FROM_PROTOCOL_DEFAULT', scheme: 'https' }), 'https://web/a/b?q');
  assert.equal(location({ port: 9000 }), 'http://web:9000/a/b?q');
  assert.equal(entryOf(shop([{ redirect: { redirectCode: 307 } }]), '/').rule.redirect?.status, 307);
});

test("a delegate's rules stand within the matches of the rule that delegates, and inherit what they leave open", () => {
  const mesh = shop([
    { name: 'root', match: [{ uri: { prefix: '/d' }, headers: { x: { exact: '1' } } }], delegate: { name: 'inner' }, timeout: '3s' },
    { name: 'rest', ...to('web') },
  ]);
  const inner = [
    { name: 'in', match: [{ uri: { prefix: '/d/in' } }], ...to('v2') },
    { name: 'out', match: [{ uri: { prefix: '/elsewhere' } }], ...to('v2') },
  ];
  assert.match(mesh.message('VirtualService shop/v', 'WaypointAccepted') ?? '', /delegate shop\/inner is not there/);
  mesh.set('VirtualService', make.virtualService({ name: 'inner', spec: { http: inner } }));
  const first = mesh.routes()[0]?.ports[0]?.rules.map(({ name, requestTimeoutMs }) => [name, requestTimeoutMs]);
  assert.deepEqual(first, [
    ['VirtualService shop/inner rule in', 3000],
    ['VirtualService shop/v rule rest', 0],
  ]);
  assert.equal(taken(mesh, request('/d/in', { fields: ['x', '1'] })), 'VirtualService shop/inner rule in');
  assert.equal(taken(mesh, request('/d/in')), 'rest');
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=True Accepted']);
  mesh.set('VirtualService', make.virtualService({ name: 'inner', spec: { http: [{ delegate: { name: 'v' } }] } }));
  assert.match(mesh.message('VirtualService shop/v', 'WaypointAccepted') ?? '', /delegates again/);
});

test('what a rule asks for that is not carried out makes it answer 500, and the status says so', () => {
  const mesh = shop([
    { name: 'odd', match: [{ uri: { exact: '/odd' } }], retries: { attempts: 1, retryOn: 'full-moon' }, ...to('web') },
    { name: 'rest', match: [{ uri: { regex: '(?=x)' } }, { uri: { exact: '/ok' } }], ...to('web') },
  ]);
  assert.deepEqual(entryOf(mesh, '/odd').rule.backends, []);
  assert.equal(taken(mesh, request('/ok')), 'rest');
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=True UnsupportedValue']);
  assert.match(
    mesh.message('VirtualService shop/v', 'WaypointAccepted') ?? '',
    /rule odd answers 500: retries.retryOn "full-moon".*look-around/s,
  );
});

test('faults, CORS, retries, mirrors and timeouts arrive as they were written', () => {
  const { rule } = entryOf(
    shop([
      {
        fault: {
          delay: { fixedDelay: '1.5s', percentage: { value: 0.1 } },
          abort: { grpcStatus: 'UNAVAILABLE', percentage: { value: 100 } },
        },
        corsPolicy: { allowOrigins: [{ regex: 'https://.*' }], allowMethods: ['GET'], maxAge: '24h', unmatchedPreflights: 'IGNORE' },
        retries: { attempts: 3, perTryTimeout: '250ms', retryOn: 'gateway-error,reset,418', backoff: '10ms' },
        mirror: { host: 'v2' },
        mirrorPercentage: { value: 12.5 },
        timeout: '1m',
        ...to('web'),
      },
    ]),
    '/',
  );
  assert.deepEqual(rule.fault, { delayMs: 1500, delayPerMillion: 1000, abortStatus: 0, abortGrpcStatus: 14, abortPerMillion: 1_000_000 });
  assert.deepEqual([rule.cors?.maxAgeS, rule.cors?.answerAllPreflights], [86_400, true]);
  assert.deepEqual([rule.retry?.attempts, rule.retry?.statusCodes, rule.retry?.conditions], [3, [418], ['gateway-error', 'reset']]);
  assert.deepEqual([rule.requestTimeoutMs, rule.backendTimeoutMs], [60_000, 250]);
  assert.deepEqual(
    rule.mirrors.map(({ numerator, denominator }) => numerator / denominator),
    [0.125],
  );
});

test('bytes are routed by port, address and server name', () => {
  const mesh = shop([], {
    tcp: [
      {
        match: [{ port: 80, destinationSubnets: ['10.0.0.0/8'] }],
        route: [
          { destination: { host: 'v2' }, weight: 3 },
          { destination: { host: 'web' }, weight: 1 },
        ],
      },
    ],
    tls: [{ match: [{ sniHosts: ['*.example.com'] }], ...to('v2') }],
  });
  const [port] = mesh.routes()[0]?.ports ?? [];
  assert.deepEqual(port?.table, []);
  assert.deepEqual(
    port?.connections.map(({ serverNames, destinationRanges, backends }) => [
      serverNames,
      destinationRanges,
      backends.map(({ weight }) => weight),
    ]),
    [
      [['*.example.com'], [], [1]],
      [[], ['10.0.0.0/8'], [3, 1]],
    ],
  );
});

test('an address range that cannot be read makes its match hold never, and the others of the rule are kept', () => {
  const mesh = shop([], {
    tcp: [
      {
        match: [
          { port: 80, destinationSubnets: [''] },
          { port: 80, destinationSubnets: ['10.1.0.0/16'] },
        ],
        ...to('v2'),
      },
    ],
  });
  const [port] = mesh.routes()[0]?.ports ?? [];
  assert.deepEqual(
    port?.connections.map(({ destinationRanges }) => destinationRanges),
    [['10.1.0.0/16']],
  );
  assert.match([...mesh.index.problems()].map(({ message }) => message).join(), /destinationSubnets has "", which is no address range/);
});

test('of several for one host the most exact counts, then the oldest; the others say so', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set(
    'VirtualService',
    virtual([{ ...to('web') }], { hosts: ['*.shop.svc.cluster.local'] }, { name: 'wide', createdAt: '2026-01-01T00:00:00Z' }),
  );
  mesh.set('VirtualService', virtual([{ ...to('web') }], {}, { name: 'young', createdAt: '2026-01-03T00:00:00Z' }));
  mesh.set('VirtualService', virtual([{ ...to('web') }], {}, { name: 'old', createdAt: '2026-01-02T00:00:00Z' }));
  assert.equal(entryOf(mesh, '/').rule.name, 'VirtualService shop/old rule 0');
  assert.deepEqual(mesh.conditions('VirtualService shop/old'), ['WaypointAccepted=True Accepted']);
  assert.deepEqual(mesh.conditions('VirtualService shop/young'), ['WaypointAccepted=False Conflicted']);
  mesh.remove('VirtualService', virtual([], {}, { name: 'old' }));
  assert.equal(entryOf(mesh, '/').rule.name, 'VirtualService shop/young rule 0');
  assert.deepEqual(mesh.conditions('VirtualService shop/young'), ['WaypointAccepted=True Accepted']);
});

test('routes of the Gateway API count before a VirtualService', () => {
  const mesh = shop([{ ...to('web') }]);
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{ backendRefs: [{ name: 'v2', port: 80 }] }] }));
  assert.match(entryOf(mesh, '/').rule.name, /^HTTPRoute/);
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=False Conflicted']);
});

test("a VirtualService of another namespace says nothing of a service, unless it is the waypoint's own or the root's", () => {
  const mesh = TranslatedMesh.shop();
  const foreign = virtual([{ ...to('web.shop.svc.cluster.local') }], { hosts: ['web.shop.svc.cluster.local'] }, { namespace: 'other' });
  mesh.set('VirtualService', foreign);
  assert.deepEqual(mesh.routes(), []);
  assert.deepEqual(mesh.conditions('VirtualService other/v'), ['WaypointAccepted=False Invalid']);
});

test('a status claims nothing where nobody enforces it', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('VirtualService', virtual([], { hosts: ['ghost'] }));
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=False TargetNotFound']);
  mesh.set('VirtualService', virtual([], { gateways: ['ingress'] }));
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=False Invalid']);
  mesh.set('Namespace', make.namespace('shop')).set('VirtualService', virtual([{ ...to('web') }]));
  assert.deepEqual(mesh.conditions('VirtualService shop/v'), ['WaypointAccepted=False AncestorNotBound']);
});
