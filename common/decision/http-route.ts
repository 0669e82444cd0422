/**
 * Which rule a request takes, and what the rule makes of it: the first entry of the table that matches decides (istiod-lite has put them into
 * Gateway API's order of precedence). Pure: the data path and `meshctl explain` call the same functions.
 */
import { type Backend, type HeaderChange, type PathChange, type Redirect, RedirectPort } from '../codec/gen/waypoint.ts';
import { claimValues } from './claims.ts';
import type { CompiledEntry, CompiledMatch, CompiledRoutes, MoreMatch, PathTest, TextPattern, ValueTest } from './http-model.ts';
import { NO_SOURCE, type RouteSource, sourceHolds } from './route-source.ts';

/** The part of a request that routes look at. Field names are in lower case; fields are flat: name, value, name, value. */
export interface RoutedRequest {
  readonly method: string;
  readonly scheme: string;
  readonly authority: string;
  /** Path and query. */
  readonly path: string;
  readonly fields: readonly string[];
  /** Of a token that was found good. */
  readonly claims?: Readonly<Record<string, unknown>> | undefined;
}

export type RouteResult = { readonly entry: CompiledEntry } | 'no-routes' | 'no-match';

/** `no-routes`: nothing is attached to this port, so the service is served as it is. `no-match`: routes are, and none matches (404). */
export function matchRoute(
  routes: CompiledRoutes | undefined,
  port: number,
  request: RoutedRequest,
  source: RouteSource = NO_SOURCE,
): RouteResult {
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
    if (match.more !== undefined && !moreHolds(match.more, request, source)) continue;
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
  if ('textPrefix' in test) return test.pattern ? test.pattern.test(path) : path.startsWith(test.textPrefix);
  return test.regex.test(path);
}

function moreHolds(
  { withoutHeaders, authority, scheme, method, source: from, claims }: MoreMatch,
  request: RoutedRequest,
  source: RouteSource,
): boolean {
  if (scheme && !valueMatches(scheme, request.scheme)) return false;
  if (method && !valueMatches(method, request.method)) return false;
  if (authority && !valueMatches(authority, request.authority) && !valueMatches(authority, hostOf(request.authority))) return false;
  if (from && !sourceHolds(from, source)) return false;
  for (const { path, test, wanted } of claims) {
    const said = request.claims ? claimValues(request.claims, path) : [];
    if (said.some((value) => valueMatches(test, value)) !== wanted) return false;
  }
  return !withoutHeaders.some(({ name, test }) => {
    const value = fieldValue(request.fields, name);
    return value !== undefined && valueMatches(test, value);
  });
}

const hostOf = (authority: string): string => authority.replace(/:\d+$/, '');

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

function valueMatches(test: TextPattern, value: string): boolean {
  if ('exact' in test) return test.exact === value;
  if ('regex' in test) return test.regex.test(value);
  return 'prefix' in test ? value.startsWith(test.prefix) : true;
}

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
export function chooseBackend({ backends }: { readonly backends: readonly Backend[] }, random: () => number): Backend | undefined {
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
export function changePath(path: string, change: PathChange | undefined, entry: Pick<CompiledEntry, 'match' | 'plan'>): string {
  const { match } = entry;
  const type = change?.type;
  if (type === undefined) return path;
  const query = path.indexOf('?');
  const [bare, rest] = query < 0 ? [path, ''] : [path.slice(0, query), path.slice(query)];
  if (type.$case === 'full') return `${type.value === '' ? '/' : type.value}${rest}`;
  if (type.$case === 'regex') {
    const { rewritePattern } = entry.plan;
    return rewritePattern ? `${bare.replace(rewritePattern, (...found) => substituted(type.value.substitution, found))}${rest}` : path;
  }
  if (type.$case === 'textPrefix') {
    const changed = `${type.value}${bare.slice(lettersMatched(match.path, bare))}`;
    return `${changed.startsWith('/') ? changed : `/${changed}`}${rest}`;
  }
  const matched = match.path !== undefined && 'prefix' in match.path ? match.path.prefix : '';
  const tail = bare.slice(matched.length).replace(/^\/+/, '');
  const head = type.value.replace(/\/+$/, '');
  const joined = tail === '' ? head : `${head}/${tail}`;
  return `${joined === '' ? '/' : joined}${rest}`;
}

/** How much of the path a test stands for, where letters are replaced (Envoy's prefix_rewrite): an expression stands for all of it. */
function lettersMatched(test: PathTest | undefined, path: string): number {
  if (test === undefined) return 1;
  if ('prefix' in test) return test.prefix.length;
  return 'textPrefix' in test ? test.textPrefix.length : path.length;
}

/** RE2's form: \0 is all that was found, \1 to \9 are groups. @param found what String.replace tells: match, groups, and then a number */
function substituted(substitution: string, found: readonly unknown[]): string {
  const groups = found.slice(
    0,
    found.findIndex((value) => typeof value === 'number'),
  );
  return substitution.replace(/\\(\d)/g, (_, digit: string) => {
    const group = groups[Number(digit)];
    return typeof group === 'string' ? group : '';
  });
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
export function redirectAnswer(
  entry: CompiledEntry,
  request: RoutedRequest,
  listenerPort: number,
  redirect: Redirect | undefined = entry.rule.redirect,
): RedirectAnswer | undefined {
  if (redirect === undefined) return undefined;
  const scheme = redirect.scheme || request.scheme;
  const status = redirect.status || 302;
  const location = (authority: string): string => `${scheme}://${authority}${changePath(request.path, redirect.path, entry)}`;
  if (redirect.port === 0 && redirect.portFrom === RedirectPort.AUTHORITY)
    return { status, location: location(redirect.hostname || request.authority) };
  const host = redirect.hostname || hostOf(request.authority);
  if (redirect.port === 0 && redirect.portFrom === RedirectPort.SCHEME_DEFAULT) return { status, location: location(host) };
  const port = redirect.port || (redirect.scheme ? (DEFAULT_PORTS[scheme] ?? listenerPort) : listenerPort);
  return { status, location: location(port === DEFAULT_PORTS[scheme] ? host : `${host}:${port}`) };
}
