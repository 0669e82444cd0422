import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type HttpMatch, type HttpRule, type PortRoutes, RedirectPort } from '../../../common/codec/gen/waypoint.ts';
import { readDuration } from '../../../istiod-lite/model/read-route.ts';
import { byPrecedence } from '../../../istiod-lite/model/route-table.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;

const backend = { name: 'web', port: 80 };

/** The rule that a route with one rule becomes. */
function ruleOf(rule: Json): HttpRule | undefined {
  const mesh = TranslatedMesh.shop().set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{ backendRefs: [backend], ...rule }] }));
  return mesh.routes()[0]?.ports[0]?.rules[0];
}

/** `path method headers params > rule` for each entry, in order. */
const entries = (port: PortRoutes | undefined): string[] =>
  (port?.table ?? []).map(({ match, rule }) => {
    const path = match?.path?.type;
    const words = [path && `${path.$case} ${path.value}`, match?.method, ...(match?.headers ?? []).map(({ name }) => `h:${name}`)];
    const params = (match?.queryParams ?? []).map(({ name }) => `q:${name}`);
    return `${[...words, ...params].filter((word) => word).join(' ')} > ${port?.rules[rule]?.name.replace('HTTPRoute shop/', '')}`;
  });

const path = (type: string, value: string): Json => ({ path: { type, value } });

test('entries stand in the order of precedence of the Gateway API, whatever the order in which they were written', () => {
  const mesh = TranslatedMesh.shop().set(
    'HTTPRoute',
    make.httpRoute({
      name: 'r',
      rules: [
        {},
        { matches: [path('RegularExpression', '/v[0-9]+/.*')] },
        { matches: [path('PathPrefix', '/a'), path('PathPrefix', '/a/long')] },
        { matches: [{ headers: [{ name: 'X-One', value: '1' }] }, { queryParams: [{ name: 'q', value: '1' }] }] },
        {
          matches: [
            { method: 'POST' },
            {
              headers: [
                { name: 'x', value: '1' },
                { name: 'y', value: '2' },
              ],
            },
          ],
        },
        { matches: [{ ...path('Exact', '/a'), headers: [{ name: 'x', value: '1' }] }, path('Exact', '/a')] },
        { matches: [{ ...path('PathPrefix', '/a'), method: 'GET' }] },
      ],
    }),
  );
  assert.deepEqual(entries(mesh.routes()[0]?.ports[0]), [
    'exact /a h:x > r rule 5',
    'exact /a > r rule 5',
    'prefix /a/long > r rule 2',
    'prefix /a GET > r rule 6',
    'prefix /a > r rule 2',
    'regex /v[0-9]+/.* > r rule 1',
    'prefix / POST > r rule 4',
    'prefix / h:x h:y > r rule 4',
    'prefix / h:x-one > r rule 3',
    'prefix / q:q > r rule 3',
    'prefix / > r rule 0',
  ]);
});

test('between routes that match alike the oldest goes first, then the first by name', () => {
  const route = (name: string, createdAt: string) => make.httpRoute({ name, createdAt, rules: [{ backendRefs: [backend] }] });
  const mesh = TranslatedMesh.shop();
  mesh.set('HTTPRoute', route('a', '2026-01-02T00:00:00Z')).set('HTTPRoute', route('c', '2026-01-01T00:00:00Z'));
  mesh.set('HTTPRoute', route('b', '2026-01-01T00:00:00Z'));
  assert.deepEqual(entries(mesh.routes()[0]?.ports[0]), ['prefix / > b rule 0', 'prefix / > c rule 0', 'prefix / > a rule 0']);
});

test('precedence is an order: it never says of two matches that each goes before the other, nor runs in circles', () => {
  const match: fc.Arbitrary<HttpMatch> = fc.record({
    path: fc.option(
      fc
        .record({
          $case: fc.constantFrom('exact' as const, 'prefix' as const, 'regex' as const),
          value: fc.constantFrom('/', '/a', '/b/c', '/a/'),
        })
        .map((type) => ({ type, ignoreCase: false })),
      { nil: undefined },
    ),
    method: fc.constantFrom('', 'GET'),
    headers: fc.array(fc.constant({ name: 'h', type: undefined }), { maxLength: 2 }),
    queryParams: fc.array(fc.constant({ name: 'q', type: undefined }), { maxLength: 2 }),
    withoutHeaders: fc.constant([]),
  });
  fc.assert(
    fc.property(match, match, match, (a, b, c) => {
      assert.equal(Math.sign(byPrecedence(a, b)), -Math.sign(byPrecedence(b, a)) + 0);
      if (byPrecedence(a, b) < 0 && byPrecedence(b, c) < 0) assert.ok(byPrecedence(a, c) < 0);
    }),
  );
});

test('a route for a port joins the routes for all ports there, and leaves the other ports to them', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('HTTPRoute', make.httpRoute({ name: 'one', port: 80, rules: [{ matches: [path('Exact', '/x')] }] }));
  assert.deepEqual(
    mesh.routes()[0]?.ports.map(({ port }) => port),
    [80],
    'a port that no route is for is served without rules',
  );
  mesh.set('HTTPRoute', make.httpRoute({ name: 'all', rules: [{}] }));
  assert.deepEqual(
    mesh.routes()[0]?.ports.map((port) => [port.port, entries(port)]),
    [
      [0, ['prefix / > all rule 0']],
      [80, ['exact /x > one rule 0', 'prefix / > all rule 0']],
    ],
  );
});

test('a rule carries its filters, timeouts and retries', () => {
  const rule = ruleOf({
    name: 'checkout',
    filters: [
      {
        type: 'RequestHeaderModifier',
        requestHeaderModifier: { set: [{ name: 'a', value: '1' }], add: [{ name: 'b', value: '2' }], remove: ['c'] },
      },
      { type: 'ResponseHeaderModifier', responseHeaderModifier: { remove: ['server'] } },
      { type: 'URLRewrite', urlRewrite: { hostname: 'h', path: { type: 'ReplacePrefixMatch', replacePrefixMatch: '/v2' } } },
    ],
    timeouts: { request: '10s', backendRequest: '1m500ms' },
    retry: { codes: [500, 503], backoff: '10ms' },
  });
  assert.equal(rule?.name, 'HTTPRoute shop/r rule checkout');
  assert.deepEqual(rule?.requestHeaders, { set: [{ name: 'a', value: '1' }], add: [{ name: 'b', value: '2' }], remove: ['c'] });
  assert.deepEqual(rule?.responseHeaders, { set: [], add: [], remove: ['server'] });
  assert.deepEqual(rule?.rewrite, { hostname: 'h', path: { type: { $case: 'prefix', value: '/v2' } } });
  assert.deepEqual([rule?.requestTimeoutMs, rule?.backendTimeoutMs], [10_000, 60_500]);
  const { attempts, statusCodes, backoffMs } = rule?.retry ?? {};
  assert.deepEqual([attempts, statusCodes, backoffMs], [2, [500, 503], 10]);
});

test('retries are as many as are asked for, and none where none are', () => {
  assert.equal(ruleOf({ retry: { attempts: 5 } })?.retry?.attempts, 5);
  assert.equal(ruleOf({})?.retry, undefined);
});

test('a redirect needs no backend and answers 302 unless it says otherwise', () => {
  const redirect = { scheme: 'https', hostname: 'shop.example', port: 8443, path: { type: 'ReplaceFullPath', replaceFullPath: '/new' } };
  const rule = ruleOf({ backendRefs: [], filters: [{ type: 'RequestRedirect', requestRedirect: redirect }] });
  assert.deepEqual(rule?.redirect, {
    scheme: 'https',
    hostname: 'shop.example',
    port: 8443,
    status: 302,
    path: { type: { $case: 'full', value: '/new' } },
    portFrom: RedirectPort.LISTENER,
  });
  assert.equal(ruleOf({ filters: [{ type: 'RequestRedirect', requestRedirect: { statusCode: 308 } }] })?.redirect?.status, 308);
});

test('a single backend has header changes, a redirect and a rewrite of its own', () => {
  const filters = [
    { type: 'RequestHeaderModifier', requestHeaderModifier: { remove: ['c'] } },
    { type: 'RequestRedirect', requestRedirect: { statusCode: 301 } },
    { type: 'URLRewrite', urlRewrite: { hostname: 'h' } },
  ];
  const [backend] = ruleOf({ backendRefs: [{ name: 'web', port: 80, filters }] })?.backends ?? [];
  assert.deepEqual(backend?.requestHeaders?.remove, ['c']);
  assert.deepEqual([backend?.redirect?.status, backend?.rewrite?.hostname], [301, 'h']);
  const copied = { name: 'web', port: 80, filters: [{ type: 'RequestMirror', requestMirror: { backendRef: { name: 'web', port: 80 } } }] };
  assert.deepEqual(ruleOf({ backendRefs: [copied] })?.backends, [], 'a copy for one backend alone: the rule answers 500');
});

test('several mirrors each have a share; one whose backend is not there is left out', () => {
  const mirror = (more: Json, name = 'web') => ({ type: 'RequestMirror', requestMirror: { backendRef: { name, port: 80 }, ...more } });
  const rule = ruleOf({
    filters: [
      mirror({}),
      mirror({ percent: 10 }),
      mirror({ fraction: { numerator: 1, denominator: 1000 } }),
      mirror({ percent: 0 }),
      mirror({}, 'ghost'),
    ],
  });
  assert.deepEqual(
    rule?.mirrors.map(({ to, numerator, denominator }) => `${to?.hostname} ${numerator}/${denominator}`),
    ['web.shop.svc.cluster.local 100/100', 'web.shop.svc.cluster.local 10/100', 'web.shop.svc.cluster.local 1/1000'],
  );
});

test('backends have weights and header changes of their own, in any namespace; what is not there keeps its share', () => {
  const mesh = TranslatedMesh.shop().set('Service', make.service({ name: 'far', namespace: 'other', ports: [{ port: 8080 }] }));
  const filters = [{ type: 'RequestHeaderModifier', requestHeaderModifier: { set: [{ name: 'v', value: '2' }] } }];
  const backends = [
    { ...backend, weight: 9 },
    { name: 'far', namespace: 'other', port: 8080, filters },
    { name: 'ghost', port: 80, weight: 0 },
    { name: 'web', port: 81 },
  ];
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{ backendRefs: backends }] }));
  const rule = mesh.routes()[0]?.ports[0]?.rules[0];
  assert.deepEqual(
    rule?.backends.map(({ to, weight }) => `${to ? `${to.namespace} ${to.hostname}:${to.port}` : '500'} ${weight}`),
    ['shop web.shop.svc.cluster.local:80 9', 'other far.other.svc.cluster.local:8080 1', '500 0', '500 1'],
  );
  assert.deepEqual(rule?.backends[1]?.requestHeaders?.set, [{ name: 'v', value: '2' }]);
});

test('a rule with a filter that no waypoint has answers 500, and the others of the route go on', () => {
  const mesh = TranslatedMesh.shop();
  const filters = [{ type: 'ExtensionRef', extensionRef: { group: 'x', kind: 'Limiter', name: 'tight' } }];
  mesh.set(
    'HTTPRoute',
    make.httpRoute({ name: 'r', rules: [{ matches: [path('Exact', '/a')], filters, backendRefs: [backend] }, { backendRefs: [backend] }] }),
  );
  assert.deepEqual(
    mesh.routes()[0]?.ports[0]?.rules.map(({ backends }) => backends.length),
    [0, 1],
  );
  assert.ok(mesh.conditions('HTTPRoute shop/r').includes('Accepted=False UnsupportedValue'));
  assert.match(mesh.message('HTTPRoute shop/r', 'Accepted') ?? '', /rule 0 answers 500.*ExtensionRef Limiter tight/);
});

test('a match with an expression that cannot be compiled is left out and named; it costs no other match', () => {
  const mesh = TranslatedMesh.shop();
  const matches = [path('RegularExpression', '/a('), path('RegularExpression', '(?=x)'), path('Exact', '/b')];
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{ matches, backendRefs: [backend] }] }));
  assert.deepEqual(entries(mesh.routes()[0]?.ports[0]), ['exact /b > r rule 0']);
  assert.match(mesh.message('HTTPRoute shop/r', 'Accepted') ?? '', /left without matches that cannot be read/);
});

test('a gRPC route matches on the path of the call', () => {
  const mesh = TranslatedMesh.shop();
  const matches = [
    { method: { service: 'a.B', method: 'Get' }, headers: [{ name: 'x', value: '1' }] },
    { method: { service: 'a.B' } },
    { method: { method: 'List' } },
    { method: { type: 'RegularExpression', service: 'a\\..*' } },
  ];
  mesh.set('GRPCRoute', make.httpRoute({ name: 'g', rules: [{ matches, backendRefs: [backend] }] }));
  assert.deepEqual(entries(mesh.routes()[0]?.ports[0]), [
    'exact /a.B/Get h:x > GRPCRoute shop/g rule 0',
    'prefix /a.B > GRPCRoute shop/g rule 0',
    'regex /a\\..*/[^/]+ > GRPCRoute shop/g rule 0',
    'regex /[^/]+/List > GRPCRoute shop/g rule 0',
  ]);
});

test('durations are those of GEP-2257; others are reported and mean none', () => {
  const problems: string[] = [];
  const read = (value: unknown) => readDuration(value, 'timeouts.request', (message) => problems.push(message));
  assert.deepEqual(['1h', '1m', '1s', '1ms', '1h2m3s4ms', '0s', undefined].map(read), [3_600_000, 60_000, 1000, 1, 3_723_004, 0, 0]);
  assert.equal(read('99999h'), 0xffff_ffff, 'as long as the field can say');
  assert.deepEqual(problems, []);
  assert.deepEqual(['1', 's', '1.5s', '-1s', '1d', '123456s', 5, '1s1s1s1s1s'].map(read), [0, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(problems.length, 8);
});

test('CORS of a route: origins with a star are expressions, and preflights of others are answered and not sent on', () => {
  const filter = (cors: Json) => ruleOf({ filters: [{ type: 'CORS', cors }] })?.cors;
  const cors = filter({ allowOrigins: ['https://*.example.com', 'https://a'], allowMethods: ['GET'], maxAge: 60, allowCredentials: true });
  assert.deepEqual(
    cors?.allowOrigins.map(({ type }) => type?.value),
    ['https:\\/\\/[^/]+\\.example\\.com', 'https://a'],
  );
  assert.deepEqual([cors?.maxAgeS, cors?.allowCredentials, cors?.answerAllPreflights], [60, true, true]);
  assert.equal(filter({ allowOrigins: ['*'] })?.maxAgeS, 5);
});

test('a session is a cookie of the browser or one that lasts, or a header', () => {
  const carrier = (sessionPersistence: Json) => ruleOf({ sessionPersistence })?.persistence?.carrier;
  assert.deepEqual(carrier({ sessionName: 's' }), { $case: 'cookie', value: { name: 's', path: '', ttlS: 0 } });
  const lasting = { sessionName: 's', absoluteTimeout: '1h', cookieConfig: { lifetimeType: 'Permanent' } };
  assert.deepEqual(carrier(lasting), { $case: 'cookie', value: { name: 's', path: '', ttlS: 3600 } });
  assert.deepEqual(carrier({ type: 'Header', sessionName: 'X-S' }), { $case: 'header', value: 'x-s' });
});
