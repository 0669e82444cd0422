/**
 * A route of the Gateway API as the mesh reads it, whichever kind wrote it: what it attaches to, and rules whose backends are still names.
 * What a rule says that a waypoint cannot do is kept beside it: such a rule answers 500 and the route's status says why (decision 8), since
 * a filter that is passed over would let through what it was to change or to refuse.
 */
import type { Cors, HeaderChange, HttpMatch, Persistence, Redirect, Retry, Rewrite } from '../../common/codec/gen/waypoint.ts';
import type { MeshService } from './mesh-service.ts';

export type RouteKind = 'HTTPRoute' | 'GRPCRoute' | 'TCPRoute' | 'TLSRoute';

/** Routes of TCP and TLS are about connections, whatever is in them. */
export const isOfRequests = (kind: RouteKind): boolean => kind === 'HTTPRoute' || kind === 'GRPCRoute';

export interface Route {
  readonly kind: RouteKind;
  /** `namespace/name` */
  readonly key: string;
  readonly namespace: string;
  readonly createdAt: string;
  readonly generation: number;
  readonly parents: readonly ParentReference[];
  /** Which hosts of a ServiceEntry it is for, all where it is empty; a Service has one host, and these mean nothing there. Of a TLSRoute: server names. */
  readonly hostnames: readonly string[];
  readonly rules: readonly RouteRule[];
}

export interface ParentReference {
  /** The reference as it was written, for the status to repeat. */
  readonly written: Readonly<Record<string, unknown>>;
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  /** undefined for all ports of the parent. */
  readonly port: number | undefined;
}

export interface RouteRule {
  /** `HTTPRoute shop/split rule 0`, or with the rule's own name. */
  readonly name: string;
  /** Those that can be read; without any of them, no request takes the rule. */
  readonly matches: readonly HttpMatch[];
  readonly requestHeaders: HeaderChange | undefined;
  readonly responseHeaders: HeaderChange | undefined;
  readonly redirect: Redirect | undefined;
  readonly rewrite: Rewrite | undefined;
  readonly cors: Cors | undefined;
  readonly persistence: Persistence | undefined;
  readonly mirrors: readonly RouteMirror[];
  readonly requestTimeoutMs: number;
  readonly backendTimeoutMs: number;
  readonly retry: Retry | undefined;
  readonly backends: readonly RouteBackend[];
  /** What of the rule cannot be done; with any of it, the rule answers 500. */
  readonly unsupported: readonly string[];
  /** Matches that are left out, each with the reason. */
  readonly unreadable: readonly string[];
}

export interface RouteMirror {
  readonly to: BackendReference;
  readonly numerator: number;
  readonly denominator: number;
}

export interface RouteBackend {
  readonly to: BackendReference;
  readonly weight: number;
  readonly requestHeaders: HeaderChange | undefined;
  readonly responseHeaders: HeaderChange | undefined;
  readonly redirect?: Redirect | undefined;
  readonly rewrite?: Rewrite | undefined;
}

export interface BackendReference {
  readonly group: string;
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly port: number | undefined;
}

/** `Kind namespace/name` */
export const routeId = ({ kind, key }: Pick<Route, 'kind' | 'key'>): string => `${kind} ${key}`;

/** Whom a parent reference attaches to, `Service/namespace/name` or `ServiceEntry/namespace/name`; undefined for what is no part of the mesh. */
export function parentSource({ group, kind, namespace, name }: ParentReference): string | undefined {
  if (kind === 'Service' && group === '') return `Service/${namespace}/${name}`;
  if (kind === 'ServiceEntry' && group === 'networking.istio.io') return `ServiceEntry/${namespace}/${name}`;
  return undefined;
}

/** The Gateway that a parent reference names, `namespace/name`. */
export const parentGateway = ({ group, kind, namespace, name }: ParentReference): string | undefined =>
  kind === 'Gateway' && group === 'gateway.networking.k8s.io' ? `${namespace}/${name}` : undefined;

/** What a backend's reference is about: `Service/namespace/name`, or `Hostname/name`; undefined for kinds that nothing can be sent to. */
export function backendSource({ group, kind, namespace, name }: BackendReference): string | undefined {
  if (kind === 'Service' && group === '') return `Service/${namespace}/${name}`;
  if (kind === 'Hostname' && group === 'networking.istio.io') return `Hostname/${name}`;
  return undefined;
}

export const ruleReferences = ({ mirrors, backends }: RouteRule): BackendReference[] => [...mirrors, ...backends].map(({ to }) => to);

/** Whether a route that attaches to the service's object is for this one of its hosts. */
export function isForHost({ hostnames }: Route, { source, hostname }: MeshService): boolean {
  if (source === 'Service' || hostnames.length === 0) return true;
  return hostnames.some((name) => name === hostname || (name.startsWith('*.') && hostname.endsWith(name.slice(1))));
}
