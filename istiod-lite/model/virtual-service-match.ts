/** Which requests a rule of a VirtualService is for (Istio, networking/v1 HTTPMatchRequest), and how a delegate's matches stand within its root's. */
import type { HttpMatch, PathMatch, SourceMatch } from '../../common/codec/gen/waypoint.ts';
import { claimPath } from '../../common/decision/http-model.ts';
import { checkRegex, type Problems, stringMatch } from './istio-values.ts';
import { at, isRecord, portOf, quote, text, textMap, texts } from './objects.ts';

export interface VirtualMatch {
  readonly match: HttpMatch;
  /** Of the service; undefined for any. */
  readonly port: number | undefined;
}

/** What a rule without matches stands for. */
export const ANY_REQUEST: VirtualMatch = {
  match: { path: undefined, method: '', headers: [], queryParams: [], withoutHeaders: [] },
  port: undefined,
};

/** @param problems takes why the match cannot be read; with any, it must not be used @returns undefined where it is for gateways alone */
export function readVirtualMatch(match: Record<string, unknown>, problems: Problems): VirtualMatch | undefined {
  const gateways = texts(match.gateways);
  if (gateways.length > 0 && !gateways.includes('mesh')) return undefined;
  const values = (field: string): HttpMatch['headers'] =>
    Object.entries(isRecord(match[field]) ? match[field] : {}).map(([name, value]) =>
      stringMatch(field === 'queryParams' || claimPath(name) ? name : name.toLowerCase(), value, `match.${field} ${name}`, problems),
    );
  const method = isRecord(match.method) ? stringMatch('', match.method, 'match.method', problems) : undefined;
  const exactMethod = method?.type?.$case === 'exact' ? method.type.value : undefined;
  const read: HttpMatch = {
    path: readUri(match.uri, match.ignoreUriCase === true, problems),
    method: exactMethod ?? '',
    headers: values('headers').filter(({ name }) => !PSEUDO.has(name)),
    queryParams: values('queryParams'),
    withoutHeaders: values('withoutHeaders'),
    authority: isRecord(match.authority) ? stringMatch('', match.authority, 'match.authority', problems) : undefined,
    scheme: isRecord(match.scheme) ? stringMatch('', match.scheme, 'match.scheme', problems) : undefined,
    methodPattern: exactMethod === undefined ? method : undefined,
    source: readSource(match),
  };
  const port = match.port === undefined ? undefined : portOf(match.port);
  if (match.port !== undefined && port === undefined) problems.push(`match.port: ${quote(match.port)} is no port`);
  return { match: read, port };
}

/** What Istio ignores among headers: these have fields of their own. */
const PSEUDO: ReadonlySet<string> = new Set(['uri', 'scheme', 'method', 'authority']);

export function readSource(match: Record<string, unknown>): SourceMatch | undefined {
  const labels = textMap(match.sourceLabels);
  const namespace = text(match.sourceNamespace);
  return namespace === '' && Object.keys(labels).length === 0 ? undefined : { namespace, labels: { ...labels } };
}

function readUri(uri: unknown, ignoreCase: boolean, problems: Problems): PathMatch | undefined {
  if (!isRecord(uri)) return undefined;
  const [exact, prefix, regex] = [at(uri, 'exact'), at(uri, 'prefix'), at(uri, 'regex')];
  if (typeof exact === 'string') return { type: { $case: 'exact', value: exact }, ignoreCase };
  if (typeof prefix === 'string') return prefix === '/' ? undefined : { type: { $case: 'textPrefix', value: prefix }, ignoreCase };
  if (typeof regex !== 'string') return undefined;
  checkRegex(regex, 'match.uri', problems);
  return { type: { $case: 'regex', value: regex }, ignoreCase: false };
}

/** Both must hold (Istio, delegate virtual services). @returns undefined where no request is both */
export function within(root: VirtualMatch, inner: VirtualMatch): VirtualMatch | undefined {
  if (root.port !== undefined && inner.port !== undefined && root.port !== inner.port) return undefined;
  const path = narrowerPath(root.match.path, inner.match.path);
  if (path === 'none') return undefined;
  const [a, b] = [root.match, inner.match];
  if (a.method !== '' && b.method !== '' && a.method !== b.method) return undefined;
  // Of two that stand for one thing each, only an equal one can be kept as one.
  if ((a.authority && b.authority) || (a.scheme && b.scheme) || (a.methodPattern && b.methodPattern) || (a.source && b.source)) {
    return undefined;
  }
  const authority = a.authority ?? b.authority;
  const scheme = a.scheme ?? b.scheme;
  const methodPattern = a.methodPattern ?? b.methodPattern;
  const source = a.source ?? b.source;
  return {
    port: root.port ?? inner.port,
    match: {
      path,
      method: a.method || b.method,
      headers: [...a.headers, ...b.headers],
      queryParams: [...a.queryParams, ...b.queryParams],
      withoutHeaders: [...a.withoutHeaders, ...b.withoutHeaders],
      authority,
      scheme,
      methodPattern,
      source,
    },
  };
}

/** The inner one where it lies within the outer one; expressions lie within nothing that can be told. */
function narrowerPath(outer: PathMatch | undefined, inner: PathMatch | undefined): PathMatch | undefined | 'none' {
  if (!outer) return inner;
  if (!inner) return outer;
  const [a, b] = [outer.type, inner.type];
  if (!a || !b || a.$case === 'regex' || b.$case === 'regex') return 'none';
  const fits = a.$case === 'exact' ? b.$case === 'exact' && a.value === b.value : b.value.startsWith(a.value);
  return fits ? inner : 'none';
}
