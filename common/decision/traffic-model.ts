/**
 * How a service's endpoints are chosen and spoken to, compiled once when the resource arrives: by port and subset, with everything that a
 * request would otherwise have to work out.
 */
import {
  Balancing,
  type ConnectionPool,
  type ConsistentHash,
  type LoadBalancer,
  type Locality,
  type Persistence,
  type PortTraffic,
  type RetryBudget,
  type ServiceTraffic,
  type TrafficPolicy,
  type UpstreamTls,
  type Warmup,
} from '../codec/gen/waypoint.ts';
import { primeFrom } from './hash-tables.ts';
import { type OutlierSettings, outlierSettings } from './outliers.ts';

export type BalancingName = 'round_robin' | 'least_request' | 'random' | 'passthrough' | 'peak_ewma' | 'ring' | 'maglev';

export interface CompiledTraffic {
  /** `namespace/hostname` */
  readonly service: string;
  readonly policy: CompiledPolicy | undefined;
  readonly ports: ReadonlyMap<number, CompiledPolicy>;
  readonly subsets: ReadonlyMap<string, CompiledSubset>;
}

export interface CompiledSubset {
  readonly labels: readonly (readonly [name: string, value: string])[];
  readonly policy: CompiledPolicy | undefined;
  readonly ports: ReadonlyMap<number, CompiledPolicy>;
}

export interface CompiledPolicy {
  /** The object that says so. */
  readonly origin: string;
  /** undefined leaves it to the waypoint's own setting. */
  readonly balancing: BalancingName | undefined;
  readonly hash: { readonly key: HashKey; readonly size: number } | undefined;
  readonly locality: Locality | undefined;
  readonly warmup: Warmup | undefined;
  readonly pool: ConnectionPool | undefined;
  readonly outliers: OutlierSettings | undefined;
  readonly tls: UpstreamTls | undefined;
  readonly proxyProtocol: 0 | 1 | 2;
  readonly retryBudget: RetryBudget | undefined;
  readonly persistence: Persistence['carrier'];
  /** Why nothing may be sent; empty mostly. */
  readonly refuse: string;
}

export type HashKey = NonNullable<ConsistentHash['key']>;

const DEFAULT_RING = 1024;
const DEFAULT_MAGLEV = 65_537;
const LARGEST_TABLE = 1 << 20;

/** @throws {Error} that says what cannot be used; the resource is then rejected as a whole */
export function compileTraffic(traffic: ServiceTraffic): CompiledTraffic {
  return {
    service: `${traffic.namespace}/${traffic.hostname}`,
    policy: traffic.policy && compilePolicy(traffic.policy),
    ports: compilePorts(traffic.ports),
    subsets: new Map(
      traffic.subsets.map(({ name, labels, policy, ports }) => [
        name,
        { labels: Object.entries(labels), policy: policy && compilePolicy(policy), ports: compilePorts(ports) },
      ]),
    ),
  };
}

/** What holds for a port of a service, or of one of its subsets. */
export function policyOf(traffic: CompiledTraffic | undefined, port: number, subset: string): CompiledPolicy | undefined {
  if (!traffic) return undefined;
  const found = subset === '' ? traffic : traffic.subsets.get(subset);
  return found?.ports.get(port) ?? found?.policy;
}

const compilePorts = (ports: readonly PortTraffic[]): ReadonlyMap<number, CompiledPolicy> =>
  new Map(ports.flatMap(({ port, policy }) => (policy ? [[port, compilePolicy(policy)] as const] : [])));

function compilePolicy(policy: TrafficPolicy): CompiledPolicy {
  const { loadBalancer, connectionPool: pool, outlierDetection, proxyProtocol } = policy;
  if (proxyProtocol > 2) throw new Error(`${policy.origin}: PROXY protocol has no version ${proxyProtocol}`);
  return {
    origin: policy.origin,
    ...balancingOf(loadBalancer, policy.origin),
    locality: loadBalancer?.locality,
    warmup: loadBalancer?.warmup && loadBalancer.warmup.durationMs > 0 ? loadBalancer.warmup : undefined,
    pool,
    outliers: outlierDetection && outlierSettings(outlierDetection),
    tls: policy.tls,
    proxyProtocol: proxyProtocol as 0 | 1 | 2,
    retryBudget: policy.retryBudget,
    persistence: policy.persistence?.carrier,
    refuse: policy.refuse,
  };
}

const NAMES: Readonly<Partial<Record<Balancing, BalancingName>>> = {
  [Balancing.ROUND_ROBIN]: 'round_robin',
  [Balancing.LEAST_REQUEST]: 'least_request',
  [Balancing.RANDOM]: 'random',
  [Balancing.PASSTHROUGH]: 'passthrough',
  [Balancing.PEAK_EWMA]: 'peak_ewma',
};

function balancingOf(balancer: LoadBalancer | undefined, origin: string): Pick<CompiledPolicy, 'balancing' | 'hash'> {
  const hash = balancer?.consistentHash;
  if (!hash) return { balancing: balancer && NAMES[balancer.balancing], hash: undefined };
  if (!hash.key) throw new Error(`${origin}: consistent hashing without a key`);
  const maglev = hash.table?.$case === 'maglevSize';
  const size = Math.min(hash.table?.value || (maglev ? DEFAULT_MAGLEV : DEFAULT_RING), LARGEST_TABLE);
  return { balancing: maglev ? 'maglev' : 'ring', hash: { key: hash.key, size: maglev ? primeFrom(size) : size } };
}

/** How much of its weight an endpoint has so long after it came: Envoy's slow start. At least a hundredth, so that it is found at all. */
export function warmupFactor({ durationMs, minimumPercent, aggressionMilli }: Warmup, ageMs: number): number {
  if (ageMs >= durationMs) return 1;
  const power = aggressionMilli === 0 ? 1 : 1000 / aggressionMilli;
  const least = Math.max(0.01, (minimumPercent || 10) / 100);
  return Math.max(least, (Math.max(ageMs, 1) / durationMs) ** power);
}
