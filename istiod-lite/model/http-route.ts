/** HTTPRoute (gateway.networking.k8s.io/v1) → the mesh's reading of a route. Hostnames mean nothing where the parent is a Service. */
import { errorMessage } from '../../common/base/errors.ts';
import type { HttpMatch, PathChange, PathMatch, Redirect, Retry, Rewrite, ValueMatch } from '../../common/codec/gen/waypoint.ts';
import { compileRegex } from '../../common/decision/http-model.ts';
import { at, isRecord, objectKey, portOf, quote, type Report, readMeta, records, text, texts, whole } from './objects.ts';
import { filterType, type HeaderChanges, readBackends, readDuration, readHeaderFilter, readMirror, readParents } from './read-route.ts';
import type { Route, RouteMirror, RouteRule } from './routes.ts';

export function readHttpRoute(object: unknown, report: Report): Route | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const key = objectKey(meta);
  const rules = records(at(object, 'spec', 'rules'));
  return {
    kind: 'HTTPRoute',
    key,
    namespace: meta.namespace,
    createdAt: meta.createdAt,
    generation: meta.generation,
    parents: readParents(object, meta, report),
    hostnames: texts(at(object, 'spec', 'hostnames')),
    rules: rules.map((rule, index) => readRule(rule, `HTTPRoute ${key} rule ${text(rule.name) || index}`, meta.namespace, report)),
  };
}

function readRule(rule: Record<string, unknown>, name: string, namespace: string, report: Report): RouteRule {
  const unsupported = new Set<string>();
  const tell: Report = (message) => report(`${name}: ${message}`);
  const unreadable = new Set<string>();
  const written = records(rule.matches);
  const matches = written.flatMap((match) => {
    const problems: string[] = [];
    const read = readMatch(match, problems);
    for (const problem of problems) unreadable.add(problem);
    return problems.length > 0 ? [] : [read];
  });
  if (isRecord(rule.sessionPersistence)) tell('sessionPersistence is not supported: requests of one session may reach several endpoints');
  return {
    name,
    matches: written.length > 0 ? matches : [EVERY_REQUEST],
    ...readFilters(rule, namespace, unsupported),
    requestTimeoutMs: readDuration(at(rule, 'timeouts', 'request'), 'timeouts.request', tell),
    backendTimeoutMs: readDuration(at(rule, 'timeouts', 'backendRequest'), 'timeouts.backendRequest', tell),
    retry: readRetry(rule.retry, tell),
    backends: readBackends(rule, namespace, unsupported),
    unsupported: [...unsupported].sort(),
    unreadable: [...unreadable].sort(),
  };
}

const prefixPath = (value: string): PathMatch => ({ type: { $case: 'prefix', value } });

const EVERY_REQUEST: HttpMatch = { path: prefixPath('/'), method: '', headers: [], queryParams: [] };

function readMatch(match: Record<string, unknown>, problems: string[]): HttpMatch {
  return {
    path: readPath(match.path, problems),
    method: text(match.method),
    headers: records(match.headers).map((item) => readValue(item, 'headers', problems)),
    queryParams: records(match.queryParams).map((item) => readValue(item, 'queryParams', problems)),
  };
}

function readPath(path: unknown, problems: string[]): PathMatch {
  const value = text(at(path, 'value')) || '/';
  switch (at(path, 'type') ?? 'PathPrefix') {
    case 'Exact':
      return { type: { $case: 'exact', value } };
    case 'RegularExpression':
      checkRegex(value, 'matches.path', problems);
      return { type: { $case: 'regex', value } };
    case 'PathPrefix':
      return prefixPath(value);
    default:
      problems.push(`matches.path.type ${quote(at(path, 'type'))}`);
      return prefixPath(value);
  }
}

function readValue(item: Record<string, unknown>, field: 'headers' | 'queryParams', problems: string[]): ValueMatch {
  const value = text(item.value);
  // Names of headers have no case (RFC 9110 §5.1); those of query parameters have.
  const name = field === 'headers' ? text(item.name).toLowerCase() : text(item.name);
  const type = item.type ?? 'Exact';
  if (type === 'RegularExpression') {
    checkRegex(value, `matches.${field} ${name}`, problems);
    return { name, type: { $case: 'regex', value } };
  }
  if (type !== 'Exact') problems.push(`matches.${field}.type ${quote(type)}`);
  return { name, type: { $case: 'exact', value } };
}

/** A waypoint refuses a table with an expression that it cannot compile, and with it everybody else's routes. */
export function checkRegex(value: string, where: string, problems: string[]): void {
  try {
    compileRegex(value, where);
  } catch (error) {
    problems.push(errorMessage(error));
  }
}

type Filters = HeaderChanges & { redirect: Redirect | undefined; rewrite: Rewrite | undefined; mirrors: RouteMirror[] };

function readFilters(rule: Record<string, unknown>, namespace: string, unsupported: Set<string>): Filters {
  const read: Filters = { requestHeaders: undefined, responseHeaders: undefined, redirect: undefined, rewrite: undefined, mirrors: [] };
  for (const filter of records(rule.filters)) {
    if (readHeaderFilter(filter, read)) continue;
    switch (filter.type) {
      case 'RequestRedirect':
        read.redirect = readRedirect(filter.requestRedirect, unsupported);
        break;
      case 'URLRewrite':
        read.rewrite = {
          hostname: text(at(filter, 'urlRewrite', 'hostname')),
          path: readPathChange(at(filter, 'urlRewrite', 'path'), unsupported),
        };
        break;
      case 'RequestMirror':
        read.mirrors.push(readMirror(filter, namespace));
        break;
      default:
        unsupported.add(`filters: ${filterType(filter)}`);
    }
  }
  return read;
}

function readRedirect(redirect: unknown, unsupported: Set<string>): Redirect {
  return {
    scheme: text(at(redirect, 'scheme')),
    hostname: text(at(redirect, 'hostname')),
    port: portOf(at(redirect, 'port')) ?? 0,
    status: whole(at(redirect, 'statusCode')) ?? 302,
    path: readPathChange(at(redirect, 'path'), unsupported),
  };
}

function readPathChange(path: unknown, unsupported: Set<string>): PathChange | undefined {
  if (!isRecord(path)) return undefined;
  if (path.type === 'ReplaceFullPath') return { type: { $case: 'full', value: text(path.replaceFullPath) } };
  if (path.type === 'ReplacePrefixMatch') return { type: { $case: 'prefix', value: text(path.replacePrefixMatch) } };
  unsupported.add(`filters.path.type ${quote(path.type)}`);
  return undefined;
}

// Istio's default, and the first wait of its backoff.
const DEFAULT_ATTEMPTS = 2;
const DEFAULT_BACKOFF_MS = 25;

function readRetry(retry: unknown, report: Report): Retry | undefined {
  if (!isRecord(retry)) return undefined;
  const codes = Array.isArray(retry.codes) ? retry.codes : [];
  return {
    attempts: Math.min(Math.max(whole(retry.attempts) ?? DEFAULT_ATTEMPTS, 0), MOST_ATTEMPTS),
    statusCodes: codes.flatMap((code) => {
      const number = whole(code);
      if (number !== undefined && number >= 400 && number <= 599) return [number];
      report(`retry.codes: ${quote(code)} is no status of an error`);
      return [];
    }),
    backoffMs: readDuration(retry.backoff, 'retry.backoff', report) || DEFAULT_BACKOFF_MS,
  };
}

// The schema has no upper bound, and each attempt is another request.
const MOST_ATTEMPTS = 1000;
