/**
 * The endpoints among which a waypoint chooses for one port of a service, or for a subset of it: shares by locality, tiers from near to far.
 * The data path and `meshctl explain` ask the same function. Pure.
 */
import type { Locality } from '../codec/gen/waypoint.ts';
import { type Eligible, eligibleEndpoints, eligibleTiers } from './load-balance.ts';
import { type Share, sharesOf } from './localities.ts';
import type { MeshView, Service, Workload } from './mesh-view.ts';

export interface MembersRequest {
  /** The waypoint's own workload: whose neighbours are near. */
  readonly source: Workload;
  /** Of the service. */
  readonly port: number;
  /** That the subset's endpoints have; undefined for all of the service. */
  readonly labels: readonly (readonly [name: string, value: string])[] | undefined;
  /** What the service's settings say of places. */
  readonly locality: Locality | undefined;
  /** As the waypoint was told. */
  label(workload: Workload, name: string): string | undefined;
}

/** No tier is empty; no share where there is no endpoint. */
export function clusterMembers(view: MeshView, service: Service, request: MembersRequest): Share<Eligible>[] {
  const { source, port, labels, locality, label } = request;
  const isMember = ({ workload }: Eligible): boolean =>
    // Another network's pods cannot be reached from here; the gateway in between is not ours to choose.
    workload.network === source.network && (!labels || labels.every(([name, value]) => label(workload, name) === value));
  if (locality) {
    const everywhere = { ...service, loadBalancing: { ...service.loadBalancing, mode: 'STANDARD' as const } };
    return sharesOf(locality, source, eligibleEndpoints(view, everywhere, source, port).filter(isMember), label);
  }
  const tiers = eligibleTiers(view, service, source, port)
    .map((tier) => tier.filter(isMember))
    .filter((tier) => tier.length > 0);
  // Farther ones are for when everybody near has refused, or is put aside.
  return tiers.length > 0 ? [{ weight: 1, tiers }] : [];
}
