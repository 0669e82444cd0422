import assert from 'node:assert/strict';
import { test } from 'node:test';
import { boundBacktracking } from '../../../common/base/regex-engine.ts';
import {
  type Backend,
  type HttpMatch,
  type HttpRule,
  type PathChange,
  RedirectPort,
  type ServiceRoutes,
} from '../../../common/codec/gen/waypoint.ts';
import { compileRegex, compileRoutes } from '../../../common/decision/http-model.ts';
import {
  changeFields,
  changePath,
  chooseBackend,
  matchRoute,
  type RoutedRequest,
  redirectAnswer,
} from '../../../common/decision/http-route.ts';

const rule = (name: string, more: Partial<HttpRule> = {}): HttpRule => ({
  name,
  mirrors: [],
  requestTimeoutMs: 0,
  backendTimeoutMs: 0,
  backends: [],
  ...more,
});

const match = (more: Partial<HttpMatch> = {}): HttpMatch => ({
  method: '',
  headers: [],
  queryParams: [],
  withoutHeaders: [],
  ...more,
});
const exact = (value: string): HttpMatch['path'] => ({ type: { $case: 'exact', value }, ignoreCase: false });
const prefix = (value: string): HttpMatch['path'] => ({ type: { $case: 'prefix', value }, ignoreCase: false });
const regex = (value: string): HttpMatch['path'] => ({ type: { $case: 'regex', value }, ignoreCase: false });

const routes = (...table: [HttpMatch, HttpRule][]): ReturnType<typeof compileRoutes> => {
  const resource: ServiceRoutes = {
    namespace: 'shop',
    hostname: 'orders.shop.svc.cluster.local',
    ports: [
      {
        port: 80,
        table: table.map(([entry], index) => ({ match: entry, rule: index })),
        rules: table.map(([, one]) => one),
        connections: [],
      },
    ],
  };
  return compileRoutes(resource);
};

const get = (path: string, fields: string[] = [], method = 'GET'): RoutedRequest => ({
  method,
  scheme: 'http',
  authority: 'orders',
  path,
  fields,
});

const taken = (compiled: ReturnType<typeof routes>, request: RoutedRequest, port = 80): string => {
  const result = matchRoute(compiled, port, request);
  return typeof result === 'string' ? result : result.entry.rule.name;
};

test('a service without routes is served as it is; a service with routes answers only what matches', () => {
  assert.equal(taken(routes([match({ path: exact('/a') }), rule('a')]), get('/b')), 'no-match');
  assert.equal(taken(routes(), get('/b'), 81), 'no-routes');
  assert.equal(matchRoute(undefined, 80, get('/')), 'no-routes');
});

test('a path prefix matches whole segments', () => {
  const compiled = routes([match({ path: prefix('/a/b/') }), rule('ab')], [match({ path: prefix('/') }), rule('all')]);
  for (const path of ['/a/b', '/a/b/', '/a/b/c', '/a/b?x=1']) assert.equal(taken(compiled, get(path)), 'ab', path);
  for (const path of ['/a/bc', '/a', '/']) assert.equal(taken(compiled, get(path)), 'all', path);
});

test('exact paths, expressions, methods, headers and query parameters must all hold', () => {
  const compiled = routes([
    match({
      path: regex('/v[0-9]+/x'),
      method: 'POST',
      headers: [{ name: 'version', type: { $case: 'exact', value: 'two' } }],
      queryParams: [{ name: 'animal', type: { $case: 'regex', value: 'd.*' } }],
    }),
    rule('all-of-them'),
  ]);
  assert.equal(taken(compiled, get('/v1/x?animal=dog', ['version', 'two'], 'POST')), 'all-of-them');
  assert.equal(taken(compiled, get('/v1/xy?animal=dog', ['version', 'two'], 'POST')), 'no-match');
  assert.equal(taken(compiled, get('/v1/x?animal=dog', ['version', 'two'])), 'no-match');
  assert.equal(taken(compiled, get('/v1/x?animal=dog', ['version', 'one'], 'POST')), 'no-match');
  assert.equal(taken(compiled, get('/v1/x?animal=cat', ['version', 'two'], 'POST')), 'no-match');
  assert.equal(taken(compiled, get('/v1/x', ['version', 'two'], 'POST')), 'no-match');
});

test('the first entry wins', () => {
  const compiled = routes([match({ path: exact('/a') }), rule('first')], [match({ path: exact('/a') }), rule('second')]);
  assert.equal(taken(compiled, get('/a')), 'first');
});

test('expressions that RE2 does not have are refused, by name of the place', () => {
  for (const bad of ['(?=a)', '(?<!a)b', '(a)\\1', '[', 'x'.repeat(2000)])
    assert.throws(() => compileRegex(bad, 'rule r, path'), /rule r, path/);
});

test('an expression that explodes costs milliseconds, not the proxy', () => {
  boundBacktracking();
  // With plain backtracking this is 2^40 steps: the test would not end.
  assert.equal(compileRegex('(a+)+b', 'rule r, path').test('a'.repeat(40)), false);
  assert.equal(compileRegex('(a+)+b', 'rule r, path').test(`${'a'.repeat(40)}b`), true);
});

test('headers are removed, set and added', () => {
  const change = { remove: ['X-Gone'], set: [{ name: 'X-Set', value: 'new' }], add: [{ name: 'x-add', value: '2' }] };
  assert.deepEqual(changeFields(['x-gone', 'a', 'x-set', 'old', 'x-add', '1', 'other', 'o'], change), [
    'x-add',
    '1',
    'other',
    'o',
    'x-set',
    'new',
    'x-add',
    '2',
  ]);
});

test('a rewrite replaces the whole path or the prefix that matched, and keeps the query', () => {
  const entry = (path: HttpMatch['path']): Parameters<typeof changePath>[2] => {
    const found = matchRoute(routes([match({ path }), rule('r')]), 80, get(path?.type?.value ?? '/'));
    return typeof found === 'string' ? assert.fail(found) : found.entry;
  };
  const to = (value: string): PathChange => ({ type: { $case: 'prefix', value } });
  const cases: [string, string, string, string][] = [
    ['/foo', '/xyz', '/foo/bar', '/xyz/bar'],
    ['/foo', '/xyz/', '/foo/bar', '/xyz/bar'],
    ['/foo/', '/xyz', '/foo/bar?q=1', '/xyz/bar?q=1'],
    ['/foo', '/xyz', '/foo', '/xyz'],
    ['/foo', '/', '/foo/bar', '/bar'],
    ['/foo', '', '/foo', '/'],
    ['/foo', '/xyz', '/foo/', '/xyz'],
  ];
  for (const [from, replacement, path, expected] of cases)
    assert.equal(changePath(path, to(replacement), entry(prefix(from))), expected, `${from} → ${replacement}: ${path}`);
  assert.equal(changePath('/a/b?q', { type: { $case: 'full', value: '/c' } }, entry(exact('/a/b'))), '/c?q');
});

test('a redirect leaves well-known ports out and keeps the port that the request came to', () => {
  const location = (redirect: HttpRule['redirect'], port = 80): string | undefined => {
    const found = matchRoute(routes([match({ path: prefix('/old') }), rule('r', { redirect })]), 80, get('/old/x?q=1'));
    return typeof found === 'string' ? found : redirectAnswer(found.entry, get('/old/x?q=1'), port)?.location;
  };
  const nothing = { scheme: '', hostname: '', port: 0, status: 0, portFrom: RedirectPort.LISTENER };
  assert.equal(location({ ...nothing, hostname: 'example.org' }), 'http://example.org/old/x?q=1');
  assert.equal(location({ ...nothing, hostname: 'example.org' }, 8080), 'http://example.org:8080/old/x?q=1');
  assert.equal(location({ ...nothing, scheme: 'https' }, 8080), 'https://orders/old/x?q=1');
  assert.equal(location({ ...nothing, scheme: 'https', port: 8443 }), 'https://orders:8443/old/x?q=1');
  assert.equal(location({ ...nothing, port: 80 }, 8080), 'http://orders/old/x?q=1');
  assert.equal(location({ ...nothing, path: { type: { $case: 'prefix', value: '/new' } } }), 'http://orders/new/x?q=1');
  assert.equal(location(undefined), undefined);
});

test('backends are chosen by weight, and weight 0 is never chosen', () => {
  const backend = (name: string, weight: number): Backend => ({ to: { namespace: 'shop', hostname: name, port: 80, subset: '' }, weight });
  const split = rule('split', { backends: [backend('old', 90), backend('none', 0), backend('new', 10)] });
  const count = new Map<string, number>();
  for (let i = 0; i < 1000; i++) {
    const name = chooseBackend(split, () => i / 1000)?.to?.hostname ?? 'nobody';
    count.set(name, (count.get(name) ?? 0) + 1);
  }
  assert.deepEqual(Object.fromEntries(count), { old: 900, new: 100 });
  assert.equal(
    chooseBackend(rule('empty'), () => 0),
    undefined,
  );
  assert.equal(
    chooseBackend(rule('zero', { backends: [backend('a', 0)] }), () => 0),
    undefined,
  );
});
