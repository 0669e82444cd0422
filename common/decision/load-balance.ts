/**
 * Which endpoint of a service gets a connection (Istio's ztunnel, src/state.rs): candidates that can be reached on the port, the best tier by
 * locality where the service asks for that, and a random one of them, weighted by capacity; where the caller knows how busy they are, the less
 * busy one of two.
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
  const { source, port, purpose, load } = request;
  if (purpose === 'standard' && !service.ports.has(port)) return undefined;
  const table = view.endpointTable?.(service, source) ?? tableOf(view.endpoints(service), source);
  const isCandidate = candidates(table, service, request);
  const first = draw(table, isCandidate, service.loadBalancing, request);
  if (first === undefined) return undefined;
  const chosen = load ? lessBusy(table, isCandidate, service.loadBalancing, { ...request, load }, first) : first;
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

/** One of those that locality leaves, at random and by weight. @param except not this one */
function draw(
  table: EndpointTable,
  isCandidate: (i: number) => boolean,
  { mode, preferences }: LoadBalancing,
  { random }: Pick<LoadBalanceRequest, 'random'>,
  except?: number,
): number | undefined {
  const isOther = except === undefined ? isCandidate : (i: number) => i !== except && isCandidate(i);
  const sampled = mode === 'STRICT' || mode === 'FAILOVER' ? undefined : sample(table, isOther, random);
  if (sampled !== undefined) return sampled;
  // The tier is of all of them: without the only near one the far ones are still not to be chosen.
  const tier = bestTier(table, isCandidate, mode, preferences);
  return pickWeighted(except === undefined ? tier : tier.filter(isOther), (i) => table.weight(i), random);
}

/**
 * Two choices at random and the better of them: nearly as even as looking at all, and callers that know nothing of each other do not all
 * fall upon the one that has just come (Mitzenmacher, "The power of two choices in randomized load balancing").
 */
function lessBusy(
  table: EndpointTable,
  isCandidate: (i: number) => boolean,
  balancing: LoadBalancing,
  request: { readonly random: () => number; readonly load: Load },
  first: number,
): number {
  const second = draw(table, isCandidate, balancing, request, first);
  if (second === undefined) return first;
  const busy = (i: number): number => request.load(table.endpoint(i).workload) / table.weight(i);
  return busy(second) < busy(first) ? second : first;
}

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
