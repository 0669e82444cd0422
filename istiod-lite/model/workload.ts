/** What every kind of workload has in common, whichever object it was made from (Istio, pilot/pkg/serviceregistry/ambient). */

import type { Port } from '../../common/codec/gen/workload.ts';
import {
  type ApplicationTunnel,
  type GatewayAddress,
  type Locality,
  NetworkMode,
  type PortList,
  TunnelProtocol,
  type Workload,
  WorkloadStatus,
  WorkloadType,
} from '../../common/codec/gen/workload.ts';
import type { OutboundTrafficPolicy, RequiredWaypoint } from '../../common/decision/mesh-view.ts';
import { outboundPolicyExtension } from '../../common/state/outbound-policy.ts';
import { requiredWaypointExtension } from '../../common/state/required-waypoint.ts';
import { type MeshModelConfig, sentTrustDomain } from './config.ts';
import { type MeshService, serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import { type Labels, readMeta } from './objects.ts';

/** What other objects add to a workload. */
export interface Surroundings {
  /** Published services that this workload is an endpoint of. */
  readonly services: readonly MeshService[];
  /** `namespace/name` of the selecting policies. */
  readonly policies: readonly string[];
  readonly waypoint: GatewayAddress | undefined;
  readonly applicationTunnel: ApplicationTunnel | undefined;
  readonly networkGateway: GatewayAddress | undefined;
  /** Of the namespace, where it has one. */
  readonly outboundTrafficPolicy?: OutboundTrafficPolicy | undefined;
  /** Of the pod, else of its namespace. */
  readonly requireWaypoint?: RequiredWaypoint | undefined;
}

export const ALONE: Surroundings = {
  services: [],
  policies: [],
  waypoint: undefined,
  applicationTunnel: undefined,
  networkGateway: undefined,
};

/** A workload with nothing but its mesh-wide fields; the caller fills in its own. */
export function blankWorkload(config: MeshModelConfig, surroundings: Surroundings): Workload {
  return {
    name: '',
    namespace: '',
    addresses: [],
    network: config.network,
    tunnelProtocol: TunnelProtocol.NONE,
    trustDomain: sentTrustDomain(config),
    serviceAccount: '',
    waypoint: surroundings.waypoint,
    node: '',
    canonicalName: '',
    canonicalRevision: '',
    workloadType: WorkloadType.POD,
    workloadName: '',
    nativeTunnel: false,
    authorizationPolicies: [...surroundings.policies],
    status: WorkloadStatus.HEALTHY,
    clusterId: config.clusterId,
    networkGateway: surroundings.networkGateway,
    uid: '',
    hostname: '',
    services: {},
    applicationTunnel: surroundings.applicationTunnel,
    locality: undefined,
    networkMode: NetworkMode.STANDARD,
    extensions: [
      ...outboundPolicyExtension(surroundings.outboundTrafficPolicy),
      ...requiredWaypointExtension(surroundings.requireWaypoint),
    ],
    capacity: undefined,
  };
}

/** What a namespace says of connections to nowhere known; a word that is none of Istio's is taken for the stricter one. */
export function outboundTrafficPolicyOf({ annotations }: { readonly annotations: Labels }): OutboundTrafficPolicy | undefined {
  const word = annotations[names.OUTBOUND_TRAFFIC_POLICY];
  if (word === undefined) return undefined;
  return word === 'ALLOW_ANY' ? 'ALLOW_ANY' : 'REGISTRY_ONLY';
}

/** Sorted by name: equal inputs must give equal bytes, whatever the order in which objects came. */
export function servicePorts(services: readonly MeshService[], ports: (service: MeshService) => Port[]): Record<string, PortList> {
  const sorted = services.map((service) => [serviceKeyOf(service), service] as const).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(sorted.map(([key, service]) => [key, { ports: ports(service) }]));
}

/** Whether the workload ends HBONE tunnels by itself. */
export const endsTunnels = (labels: Labels): boolean => (labels[names.TUNNEL] ?? '').split(',').includes('http');

export function localityOf(region: string, zone: string, subzone: string): Locality | undefined {
  return region === '' && zone === '' && subzone === '' ? undefined : { region, zone, subzone };
}

/** Of a Node, by its labels. */
export function nodeLocality(object: unknown): Locality | undefined {
  const labels = readMeta(object)?.labels ?? {};
  return localityOf(labels[names.REGION] ?? '', labels[names.ZONE] ?? '', labels[names.SUBZONE] ?? '');
}
