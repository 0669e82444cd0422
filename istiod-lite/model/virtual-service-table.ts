/**
 * A VirtualService for one service → the table that a waypoint matches requests against, for each of the service's ports: rules in the order
 * in which they are written, each delegating rule replaced by those of its delegate that lie within its matches.
 */
import type { Backend, BackendRef, ConnectionRule, HttpRule, Mirror, PortRoutes, RouteEntry } from '../../common/codec/gen/waypoint.ts';
import type { MeshService } from './mesh-service.ts';
import type { VirtualDestination, VirtualRule, VirtualService } from './virtual-service.ts';
import { type VirtualMatch, within } from './virtual-service-match.ts';

export interface VirtualView {
  /** The service that a destination's host names, as this VirtualService sees it. */
  service(host: string, from: VirtualService): MeshService | undefined;
  /** By `namespace/name`. */
  delegate(key: string): VirtualService | undefined;
}

export function virtualPorts(service: MeshService, virtual: VirtualService, view: VirtualView): PortRoutes[] {
  return service.ports.map(({ port }) => virtualPort(port, virtual, view));
}

function virtualPort(port: number, virtual: VirtualService, view: VirtualView): PortRoutes {
  const resolve = (to: VirtualDestination, from: VirtualService): BackendRef | undefined => resolveDestination(view, to, from, port);
  const rules: HttpRule[] = [];
  const table: RouteEntry[] = [];
  for (const { rule, from } of expanded(virtual, view)) {
    const matches = rule.matches.filter((match) => match.port === undefined || match.port === port);
    if (matches.length === 0) continue;
    for (const { match } of matches) table.push({ match, rule: rules.length });
    rules.push(httpRule(rule, (to) => resolve(to, from)));
  }
  const connections = virtual.connections
    .filter((connection) => connection.port === undefined || connection.port === port)
    .map(
      ({ name, serverNames, source, destinationRanges, route }): ConnectionRule => ({
        name,
        serverNames: [...serverNames],
        source: source && { namespace: source.namespace, labels: { ...source.labels } },
        destinationRanges: [...destinationRanges],
        backends: route.map(({ to, weight }) => ({ to: resolve(to, virtual), weight })),
      }),
    );
  return { port, table, rules, connections };
}

/** Rules with their delegates in place; one that delegates to nobody, or to one that delegates again, stands for no request. */
function expanded(virtual: VirtualService, view: VirtualView): { readonly rule: VirtualRule; readonly from: VirtualService }[] {
  return virtual.http.flatMap((rule) => {
    if (rule.delegate === undefined) return [{ rule, from: virtual }];
    const delegate = view.delegate(rule.delegate);
    if (delegateProblem(delegate) !== undefined || !delegate) return [];
    return delegate.http.flatMap((inner) => {
      if (inner.delegate !== undefined) return [];
      const matches = rule.matches.flatMap((outer) => inner.matches.flatMap((match) => within(outer, match) ?? []));
      return matches.length === 0 ? [] : [{ rule: merged(rule, inner, matches), from: delegate }];
    });
  });
}

/** Why nothing can be delegated to it. */
export function delegateProblem(delegate: VirtualService | undefined): string | undefined {
  if (!delegate) return 'is not there';
  if (delegate.hosts.length > 0) return 'has hosts of its own';
  return delegate.http.some((rule) => rule.delegate !== undefined) ? 'delegates again' : undefined;
}

/** What the inner rule leaves open, the outer one says. */
const merged = (outer: VirtualRule, inner: VirtualRule, matches: readonly VirtualMatch[]): VirtualRule => ({
  ...inner,
  matches,
  requestHeaders: inner.requestHeaders ?? outer.requestHeaders,
  responseHeaders: inner.responseHeaders ?? outer.responseHeaders,
  rewrite: inner.rewrite ?? outer.rewrite,
  timeoutMs: inner.timeoutMs || outer.timeoutMs,
  perTryTimeoutMs: inner.perTryTimeoutMs || outer.perTryTimeoutMs,
  retry: inner.retry ?? outer.retry,
  fault: inner.fault ?? outer.fault,
  cors: inner.cors ?? outer.cors,
  mirrors: inner.mirrors.length > 0 ? inner.mirrors : outer.mirrors,
  problems: [...outer.problems, ...inner.problems],
});

function httpRule(rule: VirtualRule, resolve: (to: VirtualDestination) => BackendRef | undefined): HttpRule {
  const blank: HttpRule = { name: rule.name, mirrors: [], requestTimeoutMs: 0, backendTimeoutMs: 0, backends: [] };
  // A filter that is passed over would let through what it was to change: such a rule answers 500.
  if (rule.problems.length > 0) return blank;
  return {
    name: rule.name,
    requestHeaders: rule.requestHeaders,
    responseHeaders: rule.responseHeaders,
    redirect: rule.redirect,
    directAnswer: rule.directAnswer,
    rewrite: rule.rewrite,
    fault: rule.fault,
    cors: rule.cors,
    retry: rule.retry,
    requestTimeoutMs: rule.timeoutMs,
    backendTimeoutMs: rule.perTryTimeoutMs,
    mirrors: rule.mirrors.flatMap(({ to, perMillion }): Mirror[] => {
      const found = perMillion > 0 ? resolve(to) : undefined;
      return found ? [{ to: found, numerator: perMillion, denominator: 1_000_000 }] : [];
    }),
    backends: rule.route.map(
      ({ to, weight, requestHeaders, responseHeaders }): Backend => ({ to: resolve(to), weight, requestHeaders, responseHeaders }),
    ),
  };
}

/** Without a port it is the one that was asked for, or the only one that the service has. */
export function resolveDestination(
  view: VirtualView,
  { host, subset, port }: VirtualDestination,
  from: VirtualService,
  asked: number,
): BackendRef | undefined {
  const service = view.service(host, from);
  if (!service) return undefined;
  const number = port ?? (service.ports.length === 1 ? service.ports[0]?.port : asked);
  if (number === undefined || !service.ports.some((known) => known.port === number)) return undefined;
  return { namespace: service.namespace, hostname: service.hostname, port: number, subset };
}

/** Hosts that a VirtualService sends to, its delegates' not among them. */
export const destinationsOf = (virtual: VirtualService): VirtualDestination[] => [
  ...virtual.http.flatMap(({ route, mirrors }) => [...route, ...mirrors].map(({ to }) => to)),
  ...virtual.connections.flatMap(({ route }) => route.map(({ to }) => to)),
];
