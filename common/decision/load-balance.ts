/**
 * Which endpoint of a service gets a connection (istio-data-plane.md §6.2): candidates that can be reached on the port, the best tier by
 * locality where the service asks for that, and a random one of them, weighted by capacity.
 */
import type { Endpoint, LoadBalancing, MeshView, Scope, Service, Workload } from './mesh-view.ts';

export interface LoadBalanceRequest {
  readonly source: Workload;
  /** The service's port. */
  readonly port: number;
  /** A waypoint may be reached on a port that its service does not list, where it takes traffic by an application tunnel. */
  readonly purpose: 'standard' | 'waypoint';
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export interface Upstream {
  readonly workload: Workload;
  /** The port of the workload, after the service's and the endpoint's mapping. */
  readonly port: number;
  /** undefined where the workload was addressed by its own address. */
  readonly service: Service | undefined;
}

/** @returns undefined where the service has no such port, or no endpoint that can serve it */
export function loadBalance(view: MeshView, service: Service, request: LoadBalanceRequest): Upstream | undefined {
  if (request.purpose === 'standard' && !service.ports.has(request.port)) return undefined;
  const candidates = view.endpoints(service).filter((endpoint) => isCandidate(service, endpoint, request));
  const tier = bestTier(service.loadBalancing, request.source, candidates);
  const chosen = pickWeighted(tier, ({ workload }) => workload.capacity, request.random);
  if (!chosen) return undefined;
  const port = targetPort(service, chosen, request.port);
  return port === undefined ? undefined : { workload: chosen.workload, port, service };
}

/** The endpoint's own port, else the service's number, else (an application tunnel needs no mapping) the service port itself. */
export function targetPort(service: Service, endpoint: Endpoint, servicePort: number): number | undefined {
  const own = endpoint.ports.get(servicePort);
  if (own !== undefined && own > 0) return own;
  const numeric = service.ports.get(servicePort) ?? 0;
  if (numeric > 0) return numeric;
  const tunnel = endpoint.workload.applicationTunnel;
  return tunnel !== undefined && tunnel.port > 0 ? servicePort : undefined;
}

function isCandidate(service: Service, { workload, ports }: Endpoint, { source, port, purpose }: LoadBalanceRequest): boolean {
  if (workload.capacity <= 0) return false;
  const hasAddress = workload.addresses.length > 0 || workload.hostname !== '';
  const behindGateway = workload.network !== source.network && workload.networkGateway !== undefined;
  if (!hasAddress && !behindGateway) return false;
  const target = service.ports.get(port);
  if (purpose === 'waypoint') return target !== undefined || workload.applicationTunnel !== undefined;
  return (target ?? 0) > 0 || (ports.get(port) ?? 0) > 0;
}

/** The endpoints that match the most preferences; with STRICT those that match all of them, which may be none. */
export function bestTier(balancing: LoadBalancing, source: Workload, endpoints: readonly Endpoint[]): readonly Endpoint[] {
  const { mode, preferences } = balancing;
  if (mode === 'STRICT') return endpoints.filter(({ workload }) => preferences.every((scope) => matches(scope, source, workload)));
  if (mode !== 'FAILOVER') return endpoints;
  let best = -1;
  let tier: Endpoint[] = [];
  for (const endpoint of endpoints) {
    const score = scoreOf(preferences, source, endpoint.workload);
    if (score > best) tier = [];
    best = Math.max(best, score);
    if (score === best) tier.push(endpoint);
  }
  return tier;
}

/**
 * How many preferences hold from the first on, up to the first that does not. Where the first is NETWORK, failing it does not end the
 * count, and holding it adds enough that any endpoint of the own network beats any other.
 */
export function scoreOf(preferences: readonly Scope[], source: Workload, endpoint: Workload): number {
  let score = 0;
  for (const [i, scope] of preferences.entries()) {
    const networkFirst = i === 0 && scope === 'NETWORK';
    if (matches(scope, source, endpoint)) score += networkFirst ? preferences.length : 1;
    else if (!networkFirst) break;
  }
  return score;
}

function matches(scope: Scope, source: Workload, endpoint: Workload): boolean {
  switch (scope) {
    case 'REGION':
      return source.locality.region === endpoint.locality.region;
    case 'ZONE':
      return source.locality.zone === endpoint.locality.zone;
    case 'SUBZONE':
      return source.locality.subzone === endpoint.locality.subzone;
    case 'NODE':
      return source.node === endpoint.node;
    case 'CLUSTER':
      return source.clusterId === endpoint.clusterId;
    case 'NETWORK':
      return source.network === endpoint.network;
  }
}

/** A random item in proportion to its weight. @returns undefined where nothing has any weight */
export function pickWeighted<T>(items: readonly T[], weight: (item: T) => number, random: () => number): T | undefined {
  let left = random() * items.reduce((sum, item) => sum + weight(item), 0);
  let last: T | undefined;
  for (const item of items) {
    const own = weight(item);
    if (own <= 0) continue;
    if (left < own) return item;
    left -= own;
    // Rounding may leave a hair of `left` after the last item.
    last = item;
  }
  return last;
}
