/** Workloads and services as the Go tables expect them, and ours in the same shape: without what is empty, enums by name. */
import { ipBytes, ipFromBytes } from '../../common/base/address.ts';
import * as wire from '../../common/codec/gen/workload.ts';
import { isJson, type Json } from './go-objects.ts';

export function gatewayAddress(value: unknown): wire.GatewayAddress | undefined {
  const destination = isJson(value) && isJson(value.Destination) ? value.Destination : undefined;
  if (!destination) return undefined;
  if (isJson(destination.Hostname)) {
    const { Namespace, Hostname } = destination.Hostname;
    return {
      destination: { $case: 'hostname', value: { namespace: String(Namespace), hostname: String(Hostname) } },
      hboneMtlsPort: 15008,
    };
  }
  const { Network, Address } = destination.Address as { Network: string; Address: string };
  const address = ipBytes(Address) ?? new Uint8Array();
  return { destination: { $case: 'address', value: { network: Network, address, length: undefined } }, hboneMtlsPort: 15008 };
}

/** An expectation of a table in the shape of `plain`. */
export function expected(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(expected);
  if (!isJson(value)) return value;
  // Some fixtures leave the port out; on the wire it is 15008, always.
  const fields = isJson(value.Destination) && !('Weight' in value) ? { ...value, HboneMtlsPort: 15008 } : value;
  const kept = Object.entries(fields).filter(([key, inner]) => key !== '_t' && !isZero(inner));
  return Object.fromEntries(kept.map(([key, inner]) => [key, expected(inner)]).sort(([a], [b]) => (String(a) < String(b) ? -1 : 1)));
}

const isZero = (value: unknown): boolean =>
  value === null ||
  value === undefined ||
  value === '' ||
  value === 0 ||
  value === false ||
  ZEROS.has(String(value)) ||
  (Array.isArray(value) && value.length === 0) ||
  (isJson(value) && Object.keys(value).length === 0);

/** Names of the enums' zero values, which Go writes or leaves out as it likes. */
const ZEROS = new Set(['HEALTHY', 'NONE', 'STANDARD', 'PUBLIC', 'AUTOMATIC', 'UNKNOWN', 'DEPLOYMENT', 'UNSPECIFIED_MODE', 'ONLY_HEALTHY']);

export const plainWorkload = (workload: wire.Workload): unknown =>
  expected({
    Uid: workload.uid,
    Name: workload.name,
    Namespace: workload.namespace,
    Addresses: workload.addresses.map((address) => ipFromBytes(address)),
    Hostname: workload.hostname,
    Network: workload.network,
    TunnelProtocol: nameOf(wire.TunnelProtocol, workload.tunnelProtocol),
    TrustDomain: workload.trustDomain,
    ServiceAccount: workload.serviceAccount,
    Waypoint: plainGateway(workload.waypoint),
    NetworkGateway: plainGateway(workload.networkGateway),
    Node: workload.node,
    CanonicalName: workload.canonicalName,
    CanonicalRevision: workload.canonicalRevision,
    WorkloadType: nameOf(wire.WorkloadType, workload.workloadType),
    WorkloadName: workload.workloadName,
    NativeTunnel: workload.nativeTunnel,
    AuthorizationPolicies: workload.authorizationPolicies,
    Status: nameOf(wire.WorkloadStatus, workload.status),
    ClusterId: workload.clusterId,
    Services: Object.fromEntries(Object.entries(workload.services).map(([key, { ports }]) => [key, { Ports: ports.map(plainPort) }])),
    ApplicationTunnel: workload.applicationTunnel && {
      Protocol: nameOf(wire.ApplicationTunnel_Protocol, workload.applicationTunnel.protocol),
      Port: workload.applicationTunnel.port,
    },
    Locality: workload.locality && { Region: workload.locality.region, Zone: workload.locality.zone, Subzone: workload.locality.subzone },
    NetworkMode: nameOf(wire.NetworkMode, workload.networkMode),
    Capacity: workload.capacity,
  });

export const plainService = (service: wire.Service): unknown =>
  expected({
    Name: service.name,
    Namespace: service.namespace,
    Hostname: service.hostname,
    Addresses: service.addresses.map(({ network, address, length }) => ({
      Network: network,
      Address: ipFromBytes(address),
      Length: length,
    })),
    Ports: service.ports.map(plainPort),
    SubjectAltNames: service.subjectAltNames,
    Waypoint: plainGateway(service.waypoint),
    LoadBalancing: service.loadBalancing && {
      RoutingPreference: service.loadBalancing.routingPreference.map((scope) => nameOf(wire.LoadBalancing_Scope, scope)),
      Mode: nameOf(wire.LoadBalancing_Mode, service.loadBalancing.mode),
      HealthPolicy: nameOf(wire.LoadBalancing_HealthPolicy, service.loadBalancing.healthPolicy),
    },
    IpFamilies: nameOf(wire.IPFamilies, service.ipFamilies),
    Canonical: service.canonical,
    IngressUseWaypoint: service.ingressUseWaypoint,
    WeightedWaypoints: service.weightedWaypoints.map(({ destination, weight }) => ({
      Destination: plainGateway(destination),
      Weight: weight,
    })),
    Visibility: nameOf(wire.Service_Visibility, service.visibility),
  });

const plainPort = ({ servicePort, targetPort, appProtocol }: wire.Port): Json => ({
  ServicePort: servicePort,
  TargetPort: targetPort,
  AppProtocol: nameOf(wire.AppProtocol, appProtocol),
});

function plainGateway(gateway: wire.GatewayAddress | undefined): Json | undefined {
  if (!gateway?.destination) return undefined;
  const { $case, value } = gateway.destination;
  const destination =
    $case === 'hostname'
      ? { Hostname: { Namespace: value.namespace, Hostname: value.hostname } }
      : { Address: { Network: value.network, Address: ipFromBytes(value.address) } };
  return { Destination: destination, HboneMtlsPort: gateway.hboneMtlsPort };
}

const nameOf = (names: Readonly<Record<string, number>>, value: number): string | undefined =>
  Object.keys(names).find((name) => names[name] === value);
