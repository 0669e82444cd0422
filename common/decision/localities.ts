/**
 * Endpoints by where they are (Istio, DestinationRule.localityLbSetting): shares for named localities, or tiers from near to far of which the
 * next one is used where the nearer ones are not well.
 */
import type { Locality as LocalityRules } from '../codec/gen/waypoint.ts';
import type { Workload } from './mesh-view.ts';

/** Endpoints that share a part of the traffic, in tiers from near to far. */
export interface Share<T> {
  readonly weight: number;
  readonly tiers: readonly (readonly T[])[];
}

export interface Placed {
  readonly workload: Workload;
}

/** @param label of a workload, as WorkloadLabels tells it */
export function sharesOf<T extends Placed>(
  rules: LocalityRules,
  self: Workload,
  endpoints: readonly T[],
  label: (workload: Workload, name: string) => string | undefined,
): Share<T>[] {
  const here = pathOf(self);
  const distribute = rules.distribute.find(({ from }) => covers(from, here));
  if (distribute) {
    const taken = new Set<T>();
    return Object.entries(distribute.to).flatMap(([to, weight]) => {
      const own = endpoints.filter((one) => !taken.has(one) && covers(to, pathOf(one.workload)));
      for (const one of own) taken.add(one);
      return own.length > 0 && weight > 0 ? [{ weight, tiers: [own] }] : [];
    });
  }
  const distance = rules.failoverPriority.length > 0 ? byLabels(rules.failoverPriority, self, label) : byPlace(rules, self);
  const tiers = new Map<number, T[]>();
  for (const one of endpoints) {
    const at = distance(one.workload);
    const tier = tiers.get(at);
    if (tier) tier.push(one);
    else tiers.set(at, [one]);
  }
  return [{ weight: 100, tiers: [...tiers].sort(([a], [b]) => a - b).map(([, tier]) => tier) }];
}

const pathOf = ({ locality: { region, zone, subzone } }: Workload): readonly string[] => [region, zone, subzone];

/** Whether `region/zone/subzone`, with `*` at the end or the rest left out, is about this place. */
export function covers(pattern: string, place: readonly string[]): boolean {
  const pieces = pattern.split('/');
  return pieces.every((piece, i) => piece === '*' || (piece === (place[i] ?? '') && piece !== ''));
}

/** 0 is the same subzone, 3 the region that traffic fails over to, 4 anywhere else. */
function byPlace({ failover }: LocalityRules, self: Workload): (workload: Workload) => number {
  const here = self.locality;
  const next = failover.find(({ from }) => from === here.region)?.to;
  return ({ locality }) => {
    if (locality.region !== here.region) return locality.region === next ? 3 : 4;
    if (locality.zone !== here.zone) return 2;
    return locality.subzone === here.subzone ? 0 : 1;
  };
}

/** How many of the labels are left after the first that differs. `name=value` asks for a value of its own. */
function byLabels(
  priority: readonly string[],
  self: Workload,
  label: (workload: Workload, name: string) => string | undefined,
): (workload: Workload) => number {
  const value = (workload: Workload, name: string): string => {
    switch (name) {
      case 'topology.kubernetes.io/region':
        return workload.locality.region;
      case 'topology.kubernetes.io/zone':
        return workload.locality.zone;
      case 'topology.istio.io/subzone':
        return workload.locality.subzone;
      case 'topology.istio.io/network':
        return workload.network;
      case 'topology.istio.io/cluster':
        return workload.clusterId;
      default:
        return label(workload, name) ?? '';
    }
  };
  const wanted = priority.map((entry) => {
    const equals = entry.indexOf('=');
    return equals < 0 ? { name: entry, value: value(self, entry) } : { name: entry.slice(0, equals), value: entry.slice(equals + 1) };
  });
  return (workload) => {
    const first = wanted.findIndex(({ name, value: own }) => value(workload, name) !== own);
    return first < 0 ? 0 : wanted.length - first;
  };
}
