/**
 * Routes attached to one service → the one table that a waypoint matches requests against, in the order of precedence of the Gateway API
 * (HTTPRouteRule.matches). Routes that name a port and routes for all ports share that port's table.
 */
import type { Backend, BackendRef, ConnectionRule, HttpMatch, HttpRule, Mirror, PortRoutes } from '../../common/codec/gen/waypoint.ts';
import { type BackendReference, isOfRequests, type Route, type RouteRule } from './routes.ts';

/** A route with the port of the parent reference that attached it. */
export interface Attachment {
  readonly route: Route;
  readonly port: number | undefined;
}

/** @returns undefined where nothing valid is there to send to */
export type ResolveBackend = (reference: BackendReference, route: Route) => BackendRef | undefined;

export function portRoutes(attachments: readonly Attachment[], resolve: ResolveBackend): PortRoutes[] {
  const ports = new Set(attachments.map(({ port }) => port ?? EVERY_PORT));
  return [...ports]
    .sort((a, b) => a - b)
    .map((port) => {
      const routes = new Set(attachments.flatMap((attached) => ([port, undefined].includes(attached.port) ? [attached.route] : [])));
      const all = [...routes].sort(olderFirst);
      return {
        port,
        ...table(
          all.filter(({ kind }) => isOfRequests(kind)),
          resolve,
        ),
        connections: connectionRules(all, resolve),
      };
    });
}

/** What `PortRoutes.port` says of routes that name no port. */
const EVERY_PORT = 0;

interface Candidate {
  readonly match: HttpMatch;
  readonly rule: number;
}

function table(routes: readonly Route[], resolve: ResolveBackend): Pick<PortRoutes, 'table' | 'rules'> {
  const rules: HttpRule[] = [];
  const candidates: Candidate[] = [];
  // Candidates come in the order that breaks ties, and sorting is stable.
  for (const route of routes) {
    for (const rule of route.rules) {
      for (const match of rule.matches) candidates.push({ match, rule: rules.length });
      rules.push(httpRule(rule, (reference) => resolve(reference, route)));
    }
  }
  return { table: candidates.sort((a, b) => byPrecedence(a.match, b.match)), rules };
}

/** The most exact server name goes first, and what asks for none last; of equals the oldest. */
function connectionRules(routes: readonly Route[], resolve: ResolveBackend): ConnectionRule[] {
  const rules = routes
    .filter(({ kind }) => !isOfRequests(kind))
    .flatMap((route) =>
      route.rules.map(({ name, backends }): ConnectionRule => {
        const serverNames = route.kind === 'TCPRoute' ? [] : route.hostnames.length > 0 ? [...route.hostnames] : ['*'];
        return {
          name,
          serverNames,
          destinationRanges: [],
          backends: backends.map(({ to, weight }) => ({ to: resolve(to, route), weight })),
        };
      }),
    );
  // One with several names has the place of each.
  const single = rules.flatMap((rule) =>
    rule.serverNames.length > 1 ? rule.serverNames.map((name) => ({ ...rule, serverNames: [name] })) : [rule],
  );
  return single.sort((a, b) => nameRank(b.serverNames[0]) - nameRank(a.serverNames[0]));
}

function nameRank(name: string | undefined): number {
  if (name === undefined) return 0;
  return name.startsWith('*') ? name.length : 1000 + name.length;
}

function olderFirst(a: Route, b: Route): number {
  if (a.createdAt !== b.createdAt) return a.createdAt < b.createdAt ? -1 : 1;
  if (a.key !== b.key) return a.key < b.key ? -1 : 1;
  return a.kind < b.kind ? -1 : a.kind > b.kind ? 1 : 0;
}

/** Negative where `a` goes first. */
export function byPrecedence(a: HttpMatch, b: HttpMatch): number {
  const [first, second] = [pathRank(a), pathRank(b)];
  return (
    second.rank - first.rank ||
    second.length - first.length ||
    Number(b.method !== '') - Number(a.method !== '') ||
    b.headers.length - a.headers.length ||
    b.queryParams.length - a.queryParams.length
  );
}

/**
 * Where regular expressions stand is for each implementation to say. Istio puts them after every prefix; here they go before the prefix
 * `/`, which matches everything and would leave them no request at all.
 */
function pathRank({ path }: HttpMatch): { rank: number; length: number } {
  switch (path?.type?.$case) {
    case 'exact':
      return { rank: 3, length: path.type.value.length };
    case 'prefix': {
      const { length } = path.type.value.replace(/\/+$/, '');
      return { rank: length === 0 ? 0 : 2, length };
    }
    case 'regex':
      return { rank: 1, length: path.type.value.length };
    default:
      return { rank: 0, length: 0 };
  }
}

function httpRule(rule: RouteRule, resolve: (reference: BackendReference) => BackendRef | undefined): HttpRule {
  const { name, unsupported } = rule;
  const blank = { requestHeaders: undefined, responseHeaders: undefined, redirect: undefined, rewrite: undefined, retry: undefined };
  if (unsupported.length > 0) return { ...blank, name, mirrors: [], requestTimeoutMs: 0, backendTimeoutMs: 0, backends: [] };
  const { requestHeaders, responseHeaders, redirect, rewrite, cors, persistence, requestTimeoutMs, backendTimeoutMs, retry } = rule;
  return {
    name,
    requestHeaders,
    responseHeaders,
    redirect,
    rewrite,
    cors,
    persistence,
    // The original is served whatever becomes of its copy.
    mirrors: rule.mirrors.flatMap(({ to, numerator, denominator }): Mirror[] => {
      const found = numerator > 0 ? resolve(to) : undefined;
      return found ? [{ to: found, numerator, denominator }] : [];
    }),
    requestTimeoutMs,
    backendTimeoutMs,
    retry,
    backends: rule.backends.map(
      (backend): Backend => ({
        to: resolve(backend.to),
        weight: backend.weight,
        requestHeaders: backend.requestHeaders,
        responseHeaders: backend.responseHeaders,
        redirect: backend.redirect,
        rewrite: backend.rewrite,
      }),
    ),
  };
}
