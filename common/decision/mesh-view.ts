/**
 * What decisions are made from: workloads, services and policies as ztunnel knows them, behind one read-only view. The data workers look
 * into packed memory that they share, tests and `meshctl explain` into plain objects; the decision code cannot tell the difference.
 */
import type { Cidr, IpAddress } from '../base/address.ts';

export interface Locality {
  readonly region: string;
  readonly zone: string;
  readonly subzone: string;
}

export interface NetworkAddress {
  readonly network: string;
  readonly ip: IpAddress;
}

/** Where a waypoint or a network's gateway is: by address, or as `namespace` and `hostname` of a service (or of a workload). */
export type GatewayDestination = { readonly address: NetworkAddress } | { readonly namespace: string; readonly hostname: string };

export interface GatewayAddress {
  readonly destination: GatewayDestination;
  readonly hbonePort: number;
}

export interface ApplicationTunnel {
  readonly protocol: 'NONE' | 'PROXY';
  /** 0 where the tunnel keeps the port of the CONNECT. */
  readonly port: number;
}

/** What becomes of a connection to somewhere that is no service and no workload (Istio, MeshConfig.OutboundTrafficPolicy). */
export const outboundTrafficPolicies = ['ALLOW_ANY', 'REGISTRY_ONLY'] as const;
export type OutboundTrafficPolicy = (typeof outboundTrafficPolicies)[number];

export interface Workload {
  /** Primary key: `CLUSTER//Pod/NAMESPACE/NAME` and its siblings. */
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly addresses: readonly IpAddress[];
  /** Resolved on demand where there are no addresses; empty otherwise. */
  readonly hostname: string;
  readonly network: string;
  readonly protocol: 'TCP' | 'HBONE';
  readonly nativeTunnel: boolean;
  readonly hostNetwork: boolean;
  readonly trustDomain: string;
  readonly serviceAccount: string;
  readonly waypoint: GatewayAddress | undefined;
  readonly networkGateway: GatewayAddress | undefined;
  readonly applicationTunnel: ApplicationTunnel | undefined;
  readonly node: string;
  readonly clusterId: string;
  readonly locality: Locality;
  readonly canonicalName: string;
  readonly canonicalRevision: string;
  readonly workloadName: string;
  readonly workloadType: 'deployment' | 'cronjob' | 'pod' | 'job';
  /** namespace/name of the policies with a selector that picked this workload. */
  readonly authorizationPolicies: readonly string[];
  readonly healthy: boolean;
  /** Its namespace's; absent where the proxy's own holds. */
  readonly outboundTrafficPolicy?: OutboundTrafficPolicy | undefined;
  /** Refuses what dials it past its waypoint; absent where it does not. */
  readonly requireWaypoint?: RequiredWaypoint | undefined;
  /** Load-balancing weight; 0 is never picked. */
  readonly capacity: number;
  /** `namespace/hostname` of each service to its map of service port to this workload's port. */
  readonly services: ReadonlyMap<string, ReadonlyMap<number, number>>;
}

export interface RequiredWaypoint {
  /** The pod itself asks for it: without any waypoint, nobody may dial it. Else its namespace does, of the pods that have one. */
  readonly always: boolean;
  /** Ports that may be dialled by anybody whom policies allow. */
  readonly exceptPorts: readonly number[];
}

export type Scope = 'REGION' | 'ZONE' | 'SUBZONE' | 'NODE' | 'CLUSTER' | 'NETWORK';

export interface LoadBalancing {
  readonly preferences: readonly Scope[];
  readonly mode: 'STANDARD' | 'STRICT' | 'FAILOVER' | 'PASSTHROUGH';
  readonly allowUnhealthy: boolean;
}

/** What a port speaks, as somebody declared it; a port that nobody declared is not in `Service.appProtocols`. */
export type AppProtocol = 'HTTP11' | 'HTTP2' | 'GRPC' | 'TCP' | 'TLS';

export interface Service {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly addresses: readonly NetworkAddress[];
  readonly ranges: readonly { readonly network: string; readonly cidr: Cidr }[];
  /** Service port to target port; 0 where each endpoint has its own (a named target port). */
  readonly ports: ReadonlyMap<number, number>;
  /** By service port. */
  readonly appProtocols: ReadonlyMap<number, AppProtocol>;
  readonly subjectAltNames: readonly string[];
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: readonly { readonly gateway: GatewayAddress; readonly weight: number }[];
  readonly loadBalancing: LoadBalancing;
  /** undefined allows both. */
  readonly ipFamily: 'IPV4' | 'IPV6' | undefined;
  readonly canonical: boolean;
  readonly namespaceOnly: boolean;
}

/** `namespace/hostname`: the service's primary key, also the key of `Workload.services`. */
export const serviceKey = (service: { namespace: string; hostname: string }): string => `${service.namespace}/${service.hostname}`;

export type StringMatch =
  | { readonly exact: string }
  | { readonly prefix: string }
  | { readonly suffix: string }
  | { readonly presence: true };

/** All fields that are set must hold; the values of one field are alternatives; `not*` holds when none of them does. No field at all never holds. */
export interface PolicyMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly sourceIps: readonly Cidr[];
  readonly notSourceIps: readonly Cidr[];
  readonly destinationIps: readonly Cidr[];
  readonly notDestinationIps: readonly Cidr[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
  readonly serviceAccounts: readonly { readonly namespace: string; readonly serviceAccount: string }[];
  readonly notServiceAccounts: readonly { readonly namespace: string; readonly serviceAccount: string }[];
}

export interface Policy {
  readonly name: string;
  readonly namespace: string;
  readonly scope: 'GLOBAL' | 'NAMESPACE' | 'WORKLOAD_SELECTOR';
  readonly action: 'ALLOW' | 'DENY';
  /** Any group, all of its rules, any match of each (istio.security.Authorization). */
  readonly groups: readonly (readonly (readonly PolicyMatch[])[])[];
  readonly dryRun: boolean;
}

export const policyKey = (policy: { namespace: string; name: string }): string => `${policy.namespace}/${policy.name}`;

/** One service's endpoint: the workload and its port map for that service. */
export interface Endpoint {
  readonly workload: Workload;
  readonly ports: ReadonlyMap<number, number>;
}

/**
 * What load balancing asks about a service's endpoints, as seen from one source: enough to choose one of ten thousand without decoding
 * the others. Endpoints have numbers from 0 to `size` - 1; unhealthy ones weigh 0 where the service does not allow them.
 */
export interface EndpointTable {
  readonly size: number;
  /** No endpoint weighs more. */
  readonly maxWeight: number;
  weight(i: number): number;
  /** It has an address or a hostname, or is in another network with a gateway. */
  isReachable(i: number): boolean;
  hasTunnel(i: number): boolean;
  /** Whether the source is in the same region, on the same node and so on. */
  isNear(i: number, scope: Scope): boolean;
  /** Endpoints with equal keys have equal ports. */
  portsKey(i: number): number;
  endpoint(i: number): Endpoint;
}

/** A consistent picture. Look-ups never block and never do I/O; results may be kept for the length of one decision. */
export interface MeshView {
  workloadByUid(uid: string): Workload | undefined;
  /** Never a workload of the host network. Where several claim the address: pod over others, HBONE over TCP. */
  workloadByAddress(network: string, ip: IpAddress): Workload | undefined;
  /** By name, namespace and service account: how a node agent names a pod. */
  workloadByPod(pod: { name: string; namespace: string; serviceAccount: string }): Workload | undefined;
  workloadByHostname(namespace: string, hostname: string): Workload | undefined;
  serviceByKey(namespace: string, hostname: string): Service | undefined;
  /** All services that claim this virtual address, exact ones first, then ranges from the most specific; not filtered by visibility. */
  servicesByAddress(network: string, ip: IpAddress): readonly Service[];
  /** All services with this hostname, in the order in which they came. */
  servicesByHostname(hostname: string): readonly Service[];
  /** Healthy endpoints (all, where the service allows unhealthy ones). */
  endpoints(service: Service): readonly Endpoint[];
  /** Where it is cheaper than looking at all `endpoints`. */
  endpointTable?(service: Service, source: Workload): EndpointTable;
  policyByKey(key: string): Policy | undefined;
  globalPolicies(): readonly Policy[];
  namespacePolicies(namespace: string): readonly Policy[];
}
