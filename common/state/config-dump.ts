/**
 * What the state holds, as ztunnel's `config_dump` shows it and `istioctl ztunnel-config` reads it (Istio's ztunnel, src/admin.rs): workloads,
 * services, policies, and endpoints whose service has not come. Optional fields with their default value are left out, lists are sorted by
 * key, so that two dumps of one state are equal.
 */
import { formatCidr } from '../base/address.ts';
import { IPFamilies } from '../codec/gen/workload.ts';
import {
  type GatewayAddress,
  type LoadBalancing,
  type Policy,
  type PolicyMatch,
  policyKey,
  type Service,
  type StringMatch,
  serviceKey,
  type Workload,
} from '../decision/mesh-view.ts';
import type { MeshStateWriter } from './writer.ts';

type Fields = Record<string, unknown>;

/** The part of `config_dump` that is about the mesh; plain data, made for JSON (Istio's ztunnel, src/admin.rs). */
export interface StateDump {
  readonly workloads: readonly Fields[];
  readonly services: readonly Fields[];
  readonly policies: readonly Fields[];
  /** By service key, then by uid: endpoints that wait for their service. */
  readonly stagedServices: Readonly<Record<string, Fields>>;
}

/** Everything that the writer holds. Decodes every resource, so it is for people, not for timers. */
export function stateDump(writer: MeshStateWriter): StateDump {
  const workloads = [...writer.workloads()].sort(by(({ uid }) => uid));
  const services = [...writer.servicesWithFamilies()].sort(by(({ service }) => serviceKey(service)));
  const policies = [...writer.policies()].sort(by(policyKey));
  const endpoints = endpointsByService(workloads);
  const known = new Set(services.map(({ service }) => serviceKey(service)));
  const staged = [...endpoints].filter(([key]) => !known.has(key)).sort(by(([key]) => key));
  return {
    workloads: workloads.map(dumpWorkload),
    services: services.map(({ service, ipFamilies }) => dumpService(service, ipFamilies, endpoints.get(serviceKey(service)) ?? [])),
    policies: policies.map(dumpPolicy),
    stagedServices: Object.fromEntries(staged.map(([key, members]) => [key, dumpEndpoints(key, members)])),
  };
}

/** In one pass over the workloads: looking each service's endpoints up would decode every workload again for every service. */
function endpointsByService(workloads: readonly Workload[]): Map<string, Workload[]> {
  const endpoints = new Map<string, Workload[]>();
  for (const workload of workloads) {
    for (const key of workload.services.keys()) {
      const members = endpoints.get(key);
      if (members) members.push(workload);
      else endpoints.set(key, [workload]);
    }
  }
  return endpoints;
}

function dumpWorkload(workload: Workload): Fields {
  const { applicationTunnel: tunnel, locality } = workload;
  return {
    workloadIps: workload.addresses,
    ...optional('waypoint', workload.waypoint && dumpGateway(workload.waypoint)),
    ...optional('networkGateway', workload.networkGateway && dumpGateway(workload.networkGateway)),
    protocol: workload.protocol,
    networkMode: workload.hostNetwork ? 'HostNetwork' : 'Standard',
    uid: workload.uid,
    ...optional('name', workload.name),
    namespace: workload.namespace,
    trustDomain: workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    ...optional('network', workload.network),
    ...optional('workloadName', workload.workloadName),
    workloadType: workload.workloadType,
    ...optional('canonicalName', workload.canonicalName),
    ...optional('canonicalRevision', workload.canonicalRevision),
    ...optional('hostname', workload.hostname),
    ...optional('node', workload.node),
    ...optional('nativeTunnel', workload.nativeTunnel),
    ...optional('applicationTunnel', tunnel && { protocol: tunnel.protocol, ...(tunnel.port > 0 && { port: tunnel.port }) }),
    ...optional('authorizationPolicies', workload.authorizationPolicies),
    status: workload.healthy ? 'Healthy' : 'Unhealthy',
    clusterId: workload.clusterId,
    ...optional('locality', Object.values(locality).some((part) => part !== '') && locality),
    ...optional('services', [...workload.services.keys()].sort()),
    capacity: workload.capacity,
    ...optional('outboundTrafficPolicy', workload.outboundTrafficPolicy),
    ...optional('requireWaypoint', workload.requireWaypoint),
  };
}

const FAMILIES: Readonly<Record<number, string>> = {
  [IPFamilies.IPV4_ONLY]: 'IPv4',
  [IPFamilies.IPV6_ONLY]: 'IPv6',
  [IPFamilies.DUAL]: 'Dual',
};

function dumpService(service: Service, ipFamilies: IPFamilies, members: readonly Workload[]): Fields {
  const { allowUnhealthy } = service.loadBalancing;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.addresses.map(({ network, ip }) => `${network}/${ip}`),
    ...optional(
      'cidrVips',
      service.ranges.map(({ network, cidr }) => ({ network, cidr: formatCidr(cidr) })),
    ),
    ports: dumpPorts(service.ports),
    endpoints: dumpEndpoints(
      serviceKey(service),
      members.filter(({ healthy }) => healthy || allowUnhealthy),
    ),
    subjectAltNames: service.subjectAltNames,
    ...optional('waypoint', service.waypoint && dumpGateway(service.waypoint)),
    ...optional(
      'weightedWaypoints',
      service.weightedWaypoints.map(({ gateway, weight }) => ({ destination: dumpGateway(gateway), weight })),
    ),
    ...optional('loadBalancer', dumpBalancing(service.loadBalancing)),
    ...optional('ipFamilies', FAMILIES[ipFamilies]),
    canonical: service.canonical,
    visibility: service.namespaceOnly ? 'Namespace' : 'Public',
  };
}

function dumpEndpoints(key: string, members: readonly Workload[]): Fields {
  return Object.fromEntries(
    members.map(({ uid, healthy, services }) => [
      uid,
      { workloadUid: uid, port: dumpPorts(services.get(key) ?? new Map()), status: healthy ? 'Healthy' : 'Unhealthy' },
    ]),
  );
}

const SCOPES = { REGION: 'Region', ZONE: 'Zone', SUBZONE: 'Subzone', NODE: 'Node', CLUSTER: 'Cluster', NETWORK: 'Network' } as const;
const MODES = { STANDARD: 'Standard', STRICT: 'Strict', FAILOVER: 'Failover', PASSTHROUGH: 'Passthrough' } as const;

function dumpBalancing({ preferences, mode, allowUnhealthy }: LoadBalancing): Fields | undefined {
  if (preferences.length === 0 && mode === 'STANDARD' && !allowUnhealthy) return undefined;
  return {
    routingPreferences: preferences.map((scope) => SCOPES[scope]),
    mode: MODES[mode],
    healthPolicy: allowUnhealthy ? 'AllowAll' : 'OnlyHealthy',
  };
}

function dumpGateway({ destination, hbonePort }: GatewayAddress): Fields {
  const name = 'hostname' in destination ? `${destination.namespace}/${destination.hostname}` : addressKey(destination.address);
  return { destination: name, hboneMtlsPort: hbonePort };
}

const addressKey = ({ network, ip }: { network: string; ip: string }): string => `${network}/${ip}`;

const dumpPorts = (ports: ReadonlyMap<number, number>): Fields => Object.fromEntries(ports);

const POLICY_SCOPES = { GLOBAL: 'Global', NAMESPACE: 'Namespace', WORKLOAD_SELECTOR: 'WorkloadSelector' } as const;

function dumpPolicy(policy: Policy): Fields {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: POLICY_SCOPES[policy.scope],
    action: policy.action === 'ALLOW' ? 'Allow' : 'Deny',
    rules: policy.groups.map((rules) => rules.map((matches) => matches.map(dumpMatch))),
    dryRun: policy.dryRun,
  };
}

function dumpMatch(match: PolicyMatch): Fields {
  return {
    ...optional('namespaces', match.namespaces.map(dumpStringMatch)),
    ...optional('notNamespaces', match.notNamespaces.map(dumpStringMatch)),
    ...optional('principals', match.principals.map(dumpStringMatch)),
    ...optional('notPrincipals', match.notPrincipals.map(dumpStringMatch)),
    ...optional('serviceAccounts', match.serviceAccounts),
    ...optional('notServiceAccounts', match.notServiceAccounts),
    ...optional('sourceIps', match.sourceIps.map(formatCidr)),
    ...optional('notSourceIps', match.notSourceIps.map(formatCidr)),
    ...optional('destinationIps', match.destinationIps.map(formatCidr)),
    ...optional('notDestinationIps', match.notDestinationIps.map(formatCidr)),
    ...optional('destinationPorts', match.destinationPorts),
    ...optional('notDestinationPorts', match.notDestinationPorts),
  };
}

function dumpStringMatch(match: StringMatch): Fields {
  if ('exact' in match) return { Exact: match.exact };
  if ('prefix' in match) return { Prefix: match.prefix };
  return 'suffix' in match ? { Suffix: match.suffix } : { Presence: [] };
}

/** The field, unless it has nothing to say. */
function optional(name: string, value: unknown): Fields {
  const empty = value === undefined || value === '' || value === false || (Array.isArray(value) && value.length === 0);
  return empty ? {} : { [name]: value };
}

const by =
  <T>(key: (item: T) => string) =>
  (a: T, b: T): number => {
    const [left, right] = [key(a), key(b)];
    return left < right ? -1 : Number(left > right);
  };
