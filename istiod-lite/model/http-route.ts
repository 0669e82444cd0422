/**
 * HTTPRoute, GRPCRoute, TCPRoute and TLSRoute (gateway.networking.k8s.io/v1) → the mesh's reading of a route. The first two differ in what a
 * match looks like: a gRPC call is a POST to /SERVICE/METHOD. Hostnames mean nothing where the parent is a Service, except as the server names
 * of a TLSRoute.
 */
import {
  type Cors,
  type PathChange,
  type Persistence,
  type Redirect,
  RedirectPort,
  type Retry,
  type Rewrite,
} from '../../common/codec/gen/waypoint.ts';
import { at, isRecord, objectKey, portOf, quote, type Report, readMeta, records, text, texts, whole } from './objects.ts';
import { filterType, type HeaderChanges, readBackends, readDuration, readHeaderFilter, readMirror, readParents } from './read-route.ts';
import { EVERY_REQUEST, readGrpcMatch, readHttpMatch } from './route-match.ts';
import { isOfRequests, parentSource, type Route, type RouteBackend, type RouteKind, type RouteMirror, type RouteRule } from './routes.ts';

export function readRoute(kind: RouteKind, object: unknown, report: Report): Route | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const key = objectKey(meta);
  const parents = readParents(object, meta, report);
  const hostnames = texts(at(object, 'spec', 'hostnames'));
  if (kind !== 'TLSRoute' && hostnames.length > 0 && parents.every((parent) => parentSource(parent)?.startsWith('Service/'))) {
    report('spec.hostnames: a Service has its own names, and where all parents are Services these restrict nothing', 'mild');
  }
  const rules = records(at(object, 'spec', 'rules'));
  return {
    kind,
    key,
    namespace: meta.namespace,
    createdAt: meta.createdAt,
    generation: meta.generation,
    parents,
    hostnames,
    rules: rules.map((rule, index) => {
      const name = `${kind} ${key} rule ${text(rule.name) || index}`;
      return readRule(rule, { kind, name, namespace: meta.namespace, report: (message, weight) => report(`${name}: ${message}`, weight) });
    }),
  };
}

interface RuleContext {
  readonly kind: RouteKind;
  readonly name: string;
  readonly namespace: string;
  readonly report: Report;
}

function readRule(rule: Record<string, unknown>, { kind, name, namespace, report }: RuleContext): RouteRule {
  const unsupported = new Set<string>();
  const unreadable = new Set<string>();
  const written = records(rule.matches);
  const matches = written.flatMap((match) => {
    const problems: string[] = [];
    const read = (kind === 'GRPCRoute' ? readGrpcMatch : readHttpMatch)(match, problems);
    for (const problem of problems) unreadable.add(problem);
    return problems.length > 0 ? [] : [read];
  });
  return {
    name,
    matches: !isOfRequests(kind) ? [] : written.length > 0 ? matches : [EVERY_REQUEST],
    ...readFilters(rule, namespace, unsupported),
    requestTimeoutMs: readDuration(at(rule, 'timeouts', 'request'), 'timeouts.request', report),
    backendTimeoutMs: readDuration(at(rule, 'timeouts', 'backendRequest'), 'timeouts.backendRequest', report),
    persistence: readPersistence(rule.sessionPersistence, report),
    retry: readRetry(rule.retry, report),
    backends: readBackends(rule, namespace, unsupported, backendFilter(unsupported)),
    unsupported: [...unsupported].sort(),
    unreadable: [...unreadable].sort(),
  };
}

type Filters = HeaderChanges & {
  redirect: Redirect | undefined;
  rewrite: Rewrite | undefined;
  cors: Cors | undefined;
  mirrors: RouteMirror[];
};

function readFilters(rule: Record<string, unknown>, namespace: string, unsupported: Set<string>): Filters {
  const read: Filters = {
    requestHeaders: undefined,
    responseHeaders: undefined,
    redirect: undefined,
    rewrite: undefined,
    cors: undefined,
    mirrors: [],
  };
  for (const filter of records(rule.filters)) {
    if (readHeaderFilter(filter, read)) continue;
    switch (filter.type) {
      case 'RequestRedirect':
        read.redirect = readRedirect(filter.requestRedirect, unsupported);
        break;
      case 'URLRewrite':
        read.rewrite = readRewrite(filter.urlRewrite, unsupported);
        break;
      case 'CORS':
        read.cors = readCors(filter.cors);
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

/** Seconds that a preflight's answer holds where the route does not say (Gateway API, HTTPCORSFilter). */
const DEFAULT_MAX_AGE_S = 5;

function readCors(cors: unknown): Cors {
  return {
    allowOrigins: texts(at(cors, 'allowOrigins')).map(originMatch),
    allowMethods: [...texts(at(cors, 'allowMethods'))],
    allowHeaders: [...texts(at(cors, 'allowHeaders'))],
    exposeHeaders: [...texts(at(cors, 'exposeHeaders'))],
    maxAgeS: whole(at(cors, 'maxAge')) ?? DEFAULT_MAX_AGE_S,
    allowCredentials: at(cors, 'allowCredentials') === true,
    answerAllPreflights: true,
  };
}

/** `https://*.example.com`: the star is any number of labels. */
function originMatch(origin: string): Cors['allowOrigins'][number] {
  if (origin === '*' || !origin.includes('*')) return { name: '', type: { $case: 'exact', value: origin } };
  const pieces = origin.split('*').map((piece) => piece.replace(/[.+?^${}()|[\]\\/]/g, '\\$&'));
  return { name: '', type: { $case: 'regex', value: pieces.join('[^/]+') } };
}

/** A cookie of the browser's session unless it is asked to last, or a header of that name. */
function readPersistence(written: unknown, report: Report): Persistence | undefined {
  if (!isRecord(written)) return undefined;
  const name = text(written.sessionName) || DEFAULT_SESSION;
  if (written.idleTimeout !== undefined)
    report('sessionPersistence.idleTimeout is not kept: a session lasts as absoluteTimeout says', 'mild');
  if (written.type === 'Header') return { carrier: { $case: 'header', value: name.toLowerCase() } };
  const lasting = at(written, 'cookieConfig', 'lifetimeType') === 'Permanent';
  const seconds = Math.floor(readDuration(written.absoluteTimeout, 'sessionPersistence.absoluteTimeout', report) / 1000);
  return { carrier: { $case: 'cookie', value: { name, path: '', ttlS: lasting ? seconds : 0 } } };
}

const DEFAULT_SESSION = 'warren-session';

const readRewrite = (rewrite: unknown, unsupported: Set<string>): Rewrite => ({
  hostname: text(at(rewrite, 'hostname')),
  path: readPathChange(at(rewrite, 'path'), unsupported),
});

/** Of a single backend, beside header changes. */
const backendFilter =
  (unsupported: Set<string>) =>
  ({ type, requestRedirect, urlRewrite }: Record<string, unknown>): Pick<RouteBackend, 'redirect' | 'rewrite'> | undefined => {
    if (type === 'RequestRedirect') return { redirect: readRedirect(requestRedirect, unsupported) };
    return type === 'URLRewrite' ? { rewrite: readRewrite(urlRewrite, unsupported) } : undefined;
  };

function readRedirect(redirect: unknown, unsupported: Set<string>): Redirect {
  return {
    scheme: text(at(redirect, 'scheme')),
    hostname: text(at(redirect, 'hostname')),
    port: portOf(at(redirect, 'port')) ?? 0,
    status: whole(at(redirect, 'statusCode')) ?? 302,
    path: readPathChange(at(redirect, 'path'), unsupported),
    portFrom: RedirectPort.LISTENER,
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
    conditions: [],
    sameEndpoint: false,
  };
}

// The schema has no upper bound, and each attempt is another request.
const MOST_ATTEMPTS = 1000;
