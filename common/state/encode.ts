/** The way back from decode.ts: bytes of an xDS resource from an object. What a static configuration and tests feed into the state. */
import { ipBytes } from '../base/address.ts';
import * as authorization from '../codec/gen/authorization.ts';
import * as wire from '../codec/gen/workload.ts';
import type { GatewayAddress, Policy, PolicyMatch, Service, StringMatch, Workload } from '../decision/mesh-view.ts';
import { outboundPolicyExtension } from './outbound-policy.ts';
import { requiredWaypointExtension } from './required-waypoint.ts';

/** Bytes of an istio.workload.Address. */
export function encodeWorkload(workload: Workload): Uint8Array {
  const value: wire.Workload = {
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    addresses: workload.addresses.map(bytesOf),
    hostname: workload.hostname,
    network: workload.network,
    tunnelProtocol: workload.protocol === 'HBONE' ? wire.TunnelProtocol.HBONE : wire.TunnelProtocol.NONE,
    nativeTunnel: workload.nativeTunnel,
    networkMode: workload.hostNetwork ? wire.NetworkMode.HOST_NETWORK : wire.NetworkMode.STANDARD,
    trustDomain: workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    waypoint: workload.waypoint && gatewayOf(workload.waypoint),
    networkGateway: workload.networkGateway && gatewayOf(workload.networkGateway),
    applicationTunnel: workload.applicationTunnel && {
      protocol: wire.ApplicationTunnel_Protocol[workload.applicationTunnel.protocol],
      port: workload.applicationTunnel.port,
    },
    node: workload.node,
    clusterId: workload.clusterId,
    locality: Object.values(workload.locality).some((part) => part !== '') ? { ...workload.locality } : undefined,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    workloadName: workload.workloadName,
    workloadType: WORKLOAD_TYPES[workload.workloadType],
    authorizationPolicies: [...workload.authorizationPolicies],
    status: workload.healthy ? wire.WorkloadStatus.HEALTHY : wire.WorkloadStatus.UNHEALTHY,
    capacity: workload.capacity === 1 ? undefined : workload.capacity,
    services: Object.fromEntries([...workload.services].map(([key, ports]) => [key, { ports: portsOf(ports) }])),
    extensions: [...outboundPolicyExtension(workload.outboundTrafficPolicy), ...requiredWaypointExtension(workload.requireWaypoint)],
  };
  return wire.Address.encode({ type: { $case: 'workload', value } }).finish();
}

/** Bytes of an istio.workload.Address. */
export function encodeService(service: Service): Uint8Array {
  const { preferences, mode, allowUnhealthy } = service.loadBalancing;
  const plain = preferences.length === 0 && mode === 'STANDARD' && !allowUnhealthy;
  const value: wire.Service = {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: [
      ...service.addresses.map(({ network, ip }) => ({ network, address: bytesOf(ip), length: undefined })),
      ...service.ranges.map(({ network, cidr }) => ({ network, address: cidr.bytes, length: cidr.length })),
    ],
    ports: portsOf(service.ports, service.appProtocols),
    subjectAltNames: [...service.subjectAltNames],
    waypoint: service.waypoint && gatewayOf(service.waypoint),
    weightedWaypoints: service.weightedWaypoints.map(({ gateway, weight }) => ({ destination: gatewayOf(gateway), weight })),
    loadBalancing: plain
      ? undefined
      : {
          routingPreference: preferences.map((scope) => wire.LoadBalancing_Scope[scope]),
          mode: mode === 'STANDARD' ? wire.LoadBalancing_Mode.UNSPECIFIED_MODE : wire.LoadBalancing_Mode[mode],
          healthPolicy: allowUnhealthy ? wire.LoadBalancing_HealthPolicy.ALLOW_ALL : wire.LoadBalancing_HealthPolicy.ONLY_HEALTHY,
        },
    ipFamilies: service.ipFamily ? wire.IPFamilies[`${service.ipFamily}_ONLY`] : wire.IPFamilies.AUTOMATIC,
    canonical: service.canonical,
    ingressUseWaypoint: false,
    visibility: service.namespaceOnly ? wire.Service_Visibility.NAMESPACE : wire.Service_Visibility.PUBLIC,
    extensions: [],
  };
  return wire.Address.encode({ type: { $case: 'service', value } }).finish();
}

/** Bytes of an istio.security.Authorization. */
export function encodePolicy(policy: Policy): Uint8Array {
  return authorization.Authorization.encode({
    name: policy.name,
    namespace: policy.namespace,
    scope: authorization.Scope[policy.scope],
    action: authorization.Action[policy.action],
    groups: policy.groups.map((rules) => ({ rules: rules.map((matches) => ({ matches: matches.map(matchOf) })) })),
    dryRun: policy.dryRun,
    extensions: [],
  }).finish();
}

const WORKLOAD_TYPES = {
  deployment: wire.WorkloadType.DEPLOYMENT,
  cronjob: wire.WorkloadType.CRONJOB,
  pod: wire.WorkloadType.POD,
  job: wire.WorkloadType.JOB,
} as const;

function gatewayOf({ destination, hbonePort }: GatewayAddress): wire.GatewayAddress {
  if ('hostname' in destination) return { destination: { $case: 'hostname', value: { ...destination } }, hboneMtlsPort: hbonePort };
  const { network, ip } = destination.address;
  return { destination: { $case: 'address', value: { network, address: bytesOf(ip), length: undefined } }, hboneMtlsPort: hbonePort };
}

const portsOf = (ports: ReadonlyMap<number, number>, protocols?: Service['appProtocols']): wire.Port[] =>
  [...ports].map(([servicePort, targetPort]) => ({
    servicePort,
    targetPort,
    appProtocol: wire.AppProtocol[protocols?.get(servicePort) ?? 'UNKNOWN'],
  }));

function bytesOf(ip: string): Uint8Array {
  const bytes = ipBytes(ip);
  if (!bytes) throw new TypeError(`no IP address: ${JSON.stringify(ip)}`);
  return bytes;
}

function matchOf(match: PolicyMatch): authorization.Match {
  return {
    namespaces: match.namespaces.map(stringMatchOf),
    notNamespaces: match.notNamespaces.map(stringMatchOf),
    principals: match.principals.map(stringMatchOf),
    notPrincipals: match.notPrincipals.map(stringMatchOf),
    sourceIps: match.sourceIps.map(({ bytes, length }) => ({ address: bytes, length })),
    notSourceIps: match.notSourceIps.map(({ bytes, length }) => ({ address: bytes, length })),
    destinationIps: match.destinationIps.map(({ bytes, length }) => ({ address: bytes, length })),
    notDestinationIps: match.notDestinationIps.map(({ bytes, length }) => ({ address: bytes, length })),
    destinationPorts: [...match.destinationPorts],
    notDestinationPorts: [...match.notDestinationPorts],
    serviceAccounts: match.serviceAccounts.map((account) => ({ ...account })),
    notServiceAccounts: match.notServiceAccounts.map((account) => ({ ...account })),
    extensions: [],
  };
}

function stringMatchOf(match: StringMatch): authorization.StringMatch {
  if ('exact' in match) return { matchType: { $case: 'exact', value: match.exact } };
  if ('prefix' in match) return { matchType: { $case: 'prefix', value: match.prefix } };
  if ('suffix' in match) return { matchType: { $case: 'suffix', value: match.suffix } };
  return { matchType: { $case: 'presence', value: {} } };
}
