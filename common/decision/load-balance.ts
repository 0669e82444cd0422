/**
 * Which endpoint of a service gets a connection (Istio's ztunnel, src/state.rs): candidates that can be reached on the port, the best tier by
 * locality where the service asks for that, and a random one of them, weighted by capacity; where the caller knows how busy they are, the least
 * busy one.
 */
import type { Endpoint, EndpointTable, LoadBalancing, MeshView, Scope, Service, Workload } from './mesh-view.ts';

/** Who asks for an endpoint, for which port. */
export interface LoadBalanceRequest {
  readonly source: Workload;
  /** The service's port. */
  readonly port: number;
  /** A waypoint may be reached on a port that its service does not list, where it takes traffic by an application tunnel. */
  readonly purpose: 'standard' | 'waypoint';
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Work in flight at an endpoint, as far as the caller knows; Infinity for one that is not to be chosen while there is another. */
  readonly load?: Load | undefined;
}

export type Load = (workload: Workload) => number;

/** An endpoint that was chosen, or a workload that was addressed itself. */
export interface Upstream {
  readonly workload: Workload;
  /** The port of the workload, after the service's and the endpoint's mapping. */
  readonly port: number;
  /** undefined where the workload was addressed by its own address. */
  readonly service: Service | undefined;
}

/** @returns undefined where the service has no such port, or no endpoint that can serve it */
export function loadBalance(view: MeshView, service: Service, request: LoadBalanceRequest): Upstream | undefined {
  const { source, port, purpose, random, load } = request;
  if (purpose === 'standard' && !service.ports.has(port)) return undefined;
  const table = view.endpointTable?.(service, source) ?? tableOf(view.endpoints(service), source);
  const isCandidate = candidates(table, service, request);
  const chosen = load
    ? leastBusy(table, isCandidate, service.loadBalancing, random, load)
    : draw(table, isCandidate, service.loadBalancing, random);
  if (chosen === undefined) return undefined;
  const endpoint = table.endpoint(chosen);
  const target = targetPort(service, endpoint, port);
  return target === undefined ? undefined : { workload: endpoint.workload, port: target, service };
}

/** One of the endpoints that a proxy which balances requests itself may choose from. */
export interface Eligible {
  readonly workload: Workload;
  /** The port of the workload. */
  readonly port: number;
  readonly weight: number;
}

/** All endpoints that `loadBalance` would choose from, for those who choose for each request. Empty where there is none, or no such port. */
export function eligibleEndpoints(view: MeshView, service: Service, source: Workload, port: number): Eligible[] {
  return eligibleTiers(view, service, source, port)[0] ?? [];
}

/** The same by how near they are: the first tier is chosen from as long as enough of it can be used. No tier is empty. */
export function eligibleTiers(view: MeshView, service: Service, source: Workload, port: number): Eligible[][] {
  if (!service.ports.has(port)) return [];
  const table = view.endpointTable?.(service, source) ?? tableOf(view.endpoints(service), source);
  const isCandidate = candidates(table, service, { source, port, purpose: 'standard', random: () => 0 });
  const { mode, preferences } = service.loadBalancing;
  const byScore = new Map<number, Eligible[]>();
  for (let i = 0; i < table.size; i++) {
    if (!isCandidate(i)) continue;
    const score = mode === 'STRICT' || mode === 'FAILOVER' ? scoreOf(preferences, (scope) => table.isNear(i, scope)) : 0;
    if (mode === 'STRICT' && score < fullScore(preferences)) continue;
    const endpoint = table.endpoint(i);
    const target = targetPort(service, endpoint, port);
    if (target === undefined) continue;
    const tier = byScore.get(score);
    const one = { workload: endpoint.workload, port: target, weight: table.weight(i) };
    if (tier) tier.push(one);
    else byScore.set(score, [one]);
  }
  return [...byScore].sort(([a], [b]) => b - a).map(([, tier]) => tier);
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

function candidates(table: EndpointTable, service: Service, { port, purpose }: LoadBalanceRequest): (i: number) => boolean {
  const isUsable = (i: number): boolean => table.weight(i) > 0 && table.isReachable(i);
  const target = service.ports.get(port);
  if (purpose === 'waypoint') return target === undefined ? (i) => isUsable(i) && table.hasTunnel(i) : isUsable;
  if (target !== undefined && target > 0) return isUsable;
  // A named target port: only endpoints that have it. They mostly have the same ones, so few are looked at.
  const known = new Map<number, boolean>();
  const hasPort = (i: number): boolean => {
    const key = table.portsKey(i);
    const has = known.get(key) ?? (table.endpoint(i).ports.get(port) ?? 0) > 0;
    known.set(key, has);
    return has;
  };
  return (i) => isUsable(i) && hasPort(i);
}

/** One of those that locality leaves, at random and by weight. */
function draw(
  table: EndpointTable,
  isCandidate: (i: number) => boolean,
  { mode, preferences }: LoadBalancing,
  random: () => number,
): number | undefined {
  const sampled = mode === 'STRICT' || mode === 'FAILOVER' ? undefined : sample(table, isCandidate, random);
  return sampled ?? pickWeighted(bestTier(table, isCandidate, mode, preferences), (i) => table.weight(i), random);
}

/**
 * The one of those that locality leaves with the least to do for its weight; of several such ones any. Of two choices at random the better
 * one is not enough here: of connections that are asked to leave an old endpoint most would come back to old ones, because the new one is
 * seldom among the two (1 → 5 endpoints: the busiest keeps 1.6 times the mean, and 1.1 where all are looked at). Of a large set some are.
 */
function leastBusy(
  table: EndpointTable,
  isCandidate: (i: number) => boolean,
  balancing: LoadBalancing,
  random: () => number,
  load: Load,
): number | undefined {
  const { mode, preferences } = balancing;
  const some =
    table.size <= MAX_COMPARED
      ? bestTier(table, isCandidate, mode, preferences)
      : Array.from({ length: MAX_COMPARED / 2 }, () => draw(table, isCandidate, balancing, random) ?? -1).filter((i) => i >= 0);
  let least = Infinity;
  let best: number[] = [];
  for (const i of some) {
    const weight = table.weight(i);
    const busy = weight > 0 ? load(table.endpoint(i).workload) / weight : Infinity;
    if (busy < least) {
      least = busy;
      best = [];
    }
    if (busy === least) best.push(i);
  }
  return pickWeighted(best, (i) => table.weight(i), random);
}

const MAX_COMPARED = 32;

/**
 * Some endpoint at random, taken with the probability of its weight: in one step mostly, however many there are. Gives up where too few of
 * them are candidates; the answer to that is to look at all.
 */
function sample(table: EndpointTable, isCandidate: (i: number) => boolean, random: () => number): number | undefined {
  for (let attempt = 0; attempt < SAMPLE_ATTEMPTS && table.size > 0; attempt++) {
    const i = Math.floor(random() * table.size);
    if (!isCandidate(i)) continue;
    const weight = table.weight(i);
    if (weight === table.maxWeight || random() * table.maxWeight < weight) return i;
  }
  return undefined;
}

const SAMPLE_ATTEMPTS = 8;

/** The candidates that match the most preferences; with STRICT those that match all of them, which may be none. */
function bestTier(
  table: EndpointTable,
  isCandidate: (i: number) => boolean,
  mode: LoadBalancing['mode'],
  preferences: readonly Scope[],
): readonly number[] {
  let best = mode === 'STRICT' ? fullScore(preferences) : 0;
  let tier: number[] = [];
  for (let i = 0; i < table.size; i++) {
    if (!isCandidate(i)) continue;
    const score = mode === 'STRICT' || mode === 'FAILOVER' ? scoreOf(preferences, (scope) => table.isNear(i, scope)) : 0;
    if (score > best) {
      tier = [];
      best = score;
    }
    if (score === best) tier.push(i);
  }
  return tier;
}

const fullScore = (preferences: readonly Scope[]): number => scoreOf(preferences, () => true);

/**
 * How many preferences hold from the first on, up to the first that does not. Where the first is NETWORK, failing it does not end the
 * count, and holding it adds enough that any endpoint of the own network beats any other.
 */
export function scoreOf(preferences: readonly Scope[], isNear: (scope: Scope) => boolean): number {
  let score = 0;
  for (const [i, scope] of preferences.entries()) {
    const networkFirst = i === 0 && scope === 'NETWORK';
    if (isNear(scope)) score += networkFirst ? preferences.length : 1;
    else if (!networkFirst) break;
  }
  return score;
}

/** What two workloads are compared by in a scope. */
export function placement(workload: Workload, scope: Scope): string {
  switch (scope) {
    case 'REGION':
      return workload.locality.region;
    case 'ZONE':
      return workload.locality.zone;
    case 'SUBZONE':
      return workload.locality.subzone;
    case 'NODE':
      return workload.node;
    case 'CLUSTER':
      return workload.clusterId;
    case 'NETWORK':
      return workload.network;
  }
}

/** Whether there is anything to dial: an address, or a hostname to resolve. */
export const hasAddress = (workload: Workload): boolean => workload.addresses.length > 0 || workload.hostname !== '';

function tableOf(endpoints: readonly Endpoint[], source: Workload): EndpointTable {
  const workload = (i: number): Workload | undefined => endpoints[i]?.workload;
  return {
    size: endpoints.length,
    maxWeight: endpoints.reduce((max, endpoint) => Math.max(max, endpoint.workload.capacity), 0),
    weight: (i) => workload(i)?.capacity ?? 0,
    isReachable(i) {
      const own = workload(i);
      return own !== undefined && (hasAddress(own) || (own.network !== source.network && own.networkGateway !== undefined));
    },
    hasTunnel: (i) => workload(i)?.applicationTunnel !== undefined,
    isNear(i, scope) {
      const own = workload(i);
      return own !== undefined && placement(own, scope) === placement(source, scope);
    },
    portsKey: (i) => i,
    endpoint(i) {
      const found = endpoints[i];
      if (!found) throw new RangeError(`no endpoint ${i} of ${endpoints.length}`);
      return found;
    },
  };
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
