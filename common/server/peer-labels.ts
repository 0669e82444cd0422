/**
 * Who was at the two ends of a connection or request, as labels of Istio's metrics (Istio's ztunnel, src/proxy/metrics.rs; istio's dashboards):
 * the same names in the same order in ztunnel and in a waypoint.
 */
import { formatSpiffeId } from '../base/spiffe.ts';
import type { Baggage } from '../decision/headers.ts';
import type { Service, Workload } from '../decision/mesh-view.ts';

export const PEER_LABELS = [
  'reporter',
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
  'destination_service',
  'destination_service_namespace',
  'destination_service_name',
  'destination_workload',
  'destination_canonical_service',
  'destination_canonical_revision',
  'destination_workload_namespace',
  'destination_principal',
  'destination_app',
  'destination_version',
  'destination_cluster',
] as const;

export interface LabelledPeers {
  readonly reporter: 'source' | 'destination' | 'waypoint';
  readonly from: Workload | undefined;
  /** What the caller says of itself, where nothing better is known. */
  readonly said: Baggage | undefined;
  /** SPIFFE ID that the caller has proved; '' and undefined where it has none. */
  readonly principal: string | undefined;
  readonly service: Pick<Service, 'hostname' | 'namespace' | 'name'> | undefined;
  readonly to: Workload | undefined;
}

export const UNKNOWN = 'unknown';
// Baggage is what a peer says of itself, at any length that fits into a header; names of Kubernetes have 253 characters at most.
const MAX_LABEL = 253;
export const orUnknown = (value: string | undefined): string => (value === undefined || value === '' ? UNKNOWN : value.slice(0, MAX_LABEL));

/** In the order of PEER_LABELS; what is not known is `unknown`. */
export function peerLabels({ reporter, from, said, principal, service, to }: LabelledPeers): string[] {
  const canonicalName = orUnknown(from?.canonicalName ?? said?.canonicalName);
  const canonicalRevision = orUnknown(from?.canonicalRevision ?? said?.canonicalRevision);
  return [
    reporter,
    orUnknown(from?.workloadName ?? said?.workloadName),
    canonicalName,
    canonicalRevision,
    orUnknown(from?.namespace ?? said?.namespace),
    orUnknown(principal),
    canonicalName,
    canonicalRevision,
    orUnknown(from?.clusterId ?? said?.clusterId),
    orUnknown(service?.hostname),
    orUnknown(service?.namespace),
    orUnknown(service?.name),
    orUnknown(to?.workloadName),
    orUnknown(to?.canonicalName),
    orUnknown(to?.canonicalRevision),
    orUnknown(to?.namespace),
    to ? formatSpiffeId(to) : UNKNOWN,
    orUnknown(to?.canonicalName),
    orUnknown(to?.canonicalRevision),
    orUnknown(to?.clusterId),
  ];
}
