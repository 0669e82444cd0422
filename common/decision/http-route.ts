/**
 * Which rule a request takes, and what the rule makes of it: the first entry of the table that matches decides (istiod-lite has put them into
 * Gateway API's order of precedence). Pure: the data path and `meshctl explain` call the same functions.
 */
import type { Backend, HeaderChange, HttpRule, PathChange } from '../codec/gen/waypoint.ts';
import type { CompiledEntry, CompiledMatch, CompiledRoutes, PathTest, ValueTest } from './http-model.ts';

/** The part of a request that routes look at. Field names are in lower case; fields are flat: name, value, name, value. */
export interface RoutedRequest {
  readonly method: string;
  readonly scheme: string;
  readonly authority: string;
  /** Path and query. */
  readonly path: string;
  readonly fields: readonly string[];
}

export type RouteResult = { readonly entry: CompiledEntry } | 'no-routes' | 'no-match';

/** `no-routes`: nothing is attached to this port, so the service is served as it is. `no-match`: routes are, and none matches (404). */
export function matchRoute(routes: CompiledRoutes | undefined, port: number, request: RoutedRequest): RouteResult {
  const table = routes?.ports.get(port) ?? routes?.ports.get(0);
  if (table === undefined) return 'no-routes';
  const query = request.path.indexOf('?');
  const path = query < 0 ? request.path : request.path.slice(0, query);
  let params: URLSearchParams | undefined;
  for (const entry of table) {
    const { match } = entry;
    if (match.method !== '' && match.method !== request.method) continue;
    if (match.path !== undefined && !pathMatches(match.path, path)) continue;
    if (!headersMatch(match, request.fields)) continue;
    if (match.queryParams.length > 0) {
      params ??= new URLSearchParams(query < 0 ? '' : request.path.slice(query + 1));
      if (!queryMatches(match.queryParams, params)) continue;
    }
    return { entry };
  }
  return 'no-match';
}

function pathMatches(test: PathTest, path: string): boolean {
  if ('exact' in test) return path === test.exact;
  if ('prefix' in test) return path.startsWith(test.prefix) && (path.length === test.prefix.length || path[test.prefix.length] === '/');
  return test.regex.test(path);
}

function headersMatch({ headers }: CompiledMatch, fields: readonly string[]): boolean {
  for (const { name, test } of headers) {
    const value = fieldValue(fields, name);
    if (value === undefined || !valueMatches(test, value)) return false;
  }
  return true;
}

// Where a parameter comes several times, its first value counts (Gateway API leaves it open; Envoy does so).
const queryMatches = (tests: readonly ValueTest[], params: URLSearchParams): boolean =>
  tests.every(({ name, test }) => {
    const value = params.get(name);
    return value !== null && valueMatches(test, value);
  });

const valueMatches = (test: ValueTest['test'], value: string): boolean => ('exact' in test ? test.exact === value : test.regex.test(value));

/** The field's value; several of one name are joined with a comma (RFC 9110 §5.3). undefined where there is none. */
export function fieldValue(fields: readonly string[], name: string): string | undefined {
  let found: string | undefined;
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] === name) found = found === undefined ? fields[i + 1] : `${found},${fields[i + 1]}`;
  }
  return found;
}

/** Removes, sets, adds, in this order of effect (Gateway API: set replaces, add appends, remove takes away). Returns new fields. */
export function changeFields(fields: readonly string[], change: HeaderChange | undefined): string[] {
  if (change === undefined) return fields.slice();
  const gone = new Set([...change.remove.map((name) => name.toLowerCase()), ...change.set.map(({ name }) => name.toLowerCase())]);
  const changed: string[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    if (!gone.has(name)) changed.push(name, fields[i + 1] ?? '');
  }
  for (const { name, value } of [...change.set, ...change.add]) changed.push(name.toLowerCase(), value);
  return changed;
}

/** By weight; `random` is uniform in [0, 1). undefined where no backend has a weight: the request is a 500. */
export function chooseBackend(rule: HttpRule, random: () => number): Backend | undefined {
  const { backends } = rule;
  if (backends.length === 1 && (backends[0]?.weight ?? 0) > 0) return backends[0];
  let total = 0;
  for (const { weight } of backends) total += weight;
  let point = random() * total;
  for (const backend of backends) {
    if (point < backend.weight) return backend;
    point -= backend.weight;
  }
  return undefined;
}

/** The path and query after a URLRewrite or redirect; the query stays. `entry` is the one that matched. */
export function changePath(path: string, change: PathChange | undefined, { match }: CompiledEntry): string {
  const type = change?.type;
  if (type === undefined) return path;
  const query = path.indexOf('?');
  const [bare, rest] = query < 0 ? [path, ''] : [path.slice(0, query), path.slice(query)];
  if (type.$case === 'full') return `${type.value === '' ? '/' : type.value}${rest}`;
  const matched = match.path !== undefined && 'prefix' in match.path ? match.path.prefix : '';
  const tail = bare.slice(matched.length).replace(/^\/+/, '');
  const head = type.value.replace(/\/+$/, '');
  const joined = tail === '' ? head : `${head}/${tail}`;
  return `${joined === '' ? '/' : joined}${rest}`;
}

export interface RedirectAnswer {
  readonly status: number;
  readonly location: string;
}

const DEFAULT_PORTS: Readonly<Record<string, number>> = { http: 80, https: 443 };

/**
 * What a RequestRedirect answers. The port is the filter's; without one it is the well-known port of the filter's scheme; without a scheme
 * the port that the request came to (Gateway API, HTTPRequestRedirectFilter). Well-known ports are left out.
 */
export function redirectAnswer(entry: CompiledEntry, request: RoutedRequest, listenerPort: number): RedirectAnswer | undefined {
  const { redirect } = entry.rule;
  if (redirect === undefined) return undefined;
  const scheme = redirect.scheme || request.scheme;
  const host = redirect.hostname || request.authority.replace(/:\d+$/, '');
  const port = redirect.port || (redirect.scheme ? (DEFAULT_PORTS[scheme] ?? listenerPort) : listenerPort);
  const authority = port === DEFAULT_PORTS[scheme] ? host : `${host}:${port}`;
  return { status: redirect.status || 302, location: `${scheme}://${authority}${changePath(request.path, redirect.path, entry)}` };
}
