/**
 * Resources in the shape of ztunnel's `/config_dump` (data-plane facts §10), made from the bytes that a control plane publishes: what the
 * recorded cluster states are compared in. Lists without an order are sorted; what ztunnel leaves out is left out.
 */
import { ipFromBytes } from '../../common/base/address.ts';
import * as authorization from '../../common/codec/gen/authorization.ts';
import * as wire from '../../common/codec/gen/workload.ts';
import { decodeAddress, decodePolicy } from '../../ztunnel/state/decode.ts';

type Json = Record<string, unknown>;

export interface ConfigDump {
  readonly workloads: Json[];
  readonly services: Json[];
  readonly policies: Json[];
}

interface Encoded {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** @throws where our own ztunnel would reject one of the resources */
export function configDump(addresses: Iterable<Encoded>, authorizations: Iterable<Encoded>): ConfigDump {
  const workloads: wire.Workload[] = [];
  const services: wire.Service[] = [];
  for (const { bytes } of addresses) {
    decodeAddress(bytes);
    const { type } = wire.Address.decode(bytes);
    if (type?.$case === 'workload') workloads.push(type.value);
    if (type?.$case === 'service') services.push(type.value);
  }
  const policies = [...authorizations].map(({ bytes }) => {
    decodePolicy(bytes);
    return policyJson(authorization.Authorization.decode(bytes));
  });
  return sortDump({
    workloads: workloads.map(workloadJson),
    services: services.map((service) => serviceJson(service, workloads)),
    policies,
  });
}

/** Sorts every list that has no order, so that two dumps can be compared. */
export function sortDump({ workloads, services, policies }: ConfigDump): ConfigDump {
  const by =
    (...keys: string[]) =>
    (a: Json, b: Json): number =>
      keys.map((key) => String(a[key])).join('/') < keys.map((key) => String(b[key])).join('/') ? -1 : 1;
  return {
    workloads: workloads.map((workload) => withSorted(workload, ['workloadIps', 'services', 'authorizationPolicies'])).sort(by('uid')),
    services: services.map((service) => withSorted(service, ['vips', 'cidrVips', 'subjectAltNames'])).sort(by('namespace', 'hostname')),
    policies: policies.map((policy) => ({ ...policy, rules: sortRules(policy.rules) })).sort(by('namespace', 'name')),
  };
}

const text = (value: unknown): string => JSON.stringify(value) ?? '';

function withSorted(item: Json, lists: readonly string[]): Json {
  const sorted = lists.flatMap((key) => (Array.isArray(item[key]) ? [[key, sortedList(item[key])]] : []));
  return { ...item, ...Object.fromEntries(sorted) };
}

const sortedList = (items: readonly unknown[]): unknown[] => [...items].sort((a, b) => (text(a) < text(b) ? -1 : 1));

/** Rules, clauses, matches and values are alternatives or all needed; none has an order. */
function sortRules(value: unknown): unknown {
  if (Array.isArray(value)) return sortedList(value.map(sortRules));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, inner]) => [key, sortRules(inner)] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** Without fields that are empty, as serde's `skip_serializing_if` has it. */
const present = (fields: Json): Json =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== '' && value !== false));

const some = <T>(items: readonly T[]): readonly T[] | undefined => (items.length > 0 ? items : undefined);

function workloadJson(workload: wire.Workload): Json {
  const { locality, applicationTunnel } = workload;
  return present({
    workloadIps: workload.addresses.map((address) => ipFromBytes(address)),
    hostname: workload.hostname,
    network: workload.network,
    waypoint: gatewayJson(workload.waypoint),
    networkGateway: gatewayJson(workload.networkGateway),
    applicationTunnel: applicationTunnel && { protocol: applicationTunnel.protocol === 1 ? 'PROXY' : 'NONE', port: applicationTunnel.port },
    protocol: workload.tunnelProtocol === wire.TunnelProtocol.HBONE ? 'HBONE' : 'TCP',
    networkMode: workload.networkMode === wire.NetworkMode.HOST_NETWORK ? 'HostNetwork' : 'Standard',
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: workload.trustDomain || 'cluster.local',
    serviceAccount: workload.serviceAccount || 'default',
    workloadName: workload.workloadName,
    workloadType: ['deployment', 'cronjob', 'pod', 'job'][workload.workloadType],
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    node: workload.node,
    nativeTunnel: workload.nativeTunnel,
    authorizationPolicies: some(workload.authorizationPolicies),
    status: workload.status === wire.WorkloadStatus.HEALTHY ? 'Healthy' : 'Unhealthy',
    clusterId: workload.clusterId || 'Kubernetes',
    locality: locality && { region: locality.region, zone: locality.zone, subzone: locality.subzone },
    services: some(Object.keys(workload.services)),
    capacity: workload.capacity ?? 1,
  });
}

const SCOPES = ['', 'Region', 'Zone', 'Subzone', 'Node', 'Cluster', 'Network'];

function serviceJson(service: wire.Service, workloads: readonly wire.Workload[]): Json {
  const key = `${service.namespace}/${service.hostname}`;
  const balancing = service.loadBalancing;
  const allowAll = balancing?.healthPolicy === wire.LoadBalancing_HealthPolicy.ALLOW_ALL;
  const ranges = service.addresses.filter(({ length }) => length !== undefined);
  const endpoints = workloads.filter(
    ({ services, status }) => Object.hasOwn(services, key) && (allowAll || status === wire.WorkloadStatus.HEALTHY),
  );
  const families: Readonly<Record<number, string>> = { 1: 'IPv4', 2: 'IPv6', 3: 'Dual' };
  return {
    ...present({
      name: service.name,
      namespace: service.namespace,
      hostname: service.hostname,
      waypoint: gatewayJson(service.waypoint),
      weightedWaypoints: some(
        service.weightedWaypoints.map(({ destination, weight }) => ({ destination: gatewayJson(destination), weight })),
      ),
      ipFamilies: families[service.ipFamilies],
      loadBalancer: balancing && {
        mode: ['Standard', 'Strict', 'Failover', 'Passthrough'][balancing.mode],
        healthPolicy: allowAll ? 'AllowAll' : 'OnlyHealthy',
        routingPreferences: balancing.routingPreference.map((scope) => SCOPES[scope]),
      },
      visibility: service.visibility === wire.Service_Visibility.NAMESPACE ? 'Namespace' : 'Public',
      cidrVips: some(ranges.map(({ network, address, length }) => ({ cidr: `${ipFromBytes(address)}/${length}`, network }))),
    }),
    vips: service.addresses
      .filter(({ length }) => length === undefined)
      .map(({ network, address }) => `${network}/${ipFromBytes(address)}`),
    ports: portsJson(service.ports),
    subjectAltNames: service.subjectAltNames,
    canonical: service.canonical,
    endpoints: Object.fromEntries(
      endpoints.map(({ uid, services, status }) => [
        uid,
        {
          workloadUid: uid,
          port: portsJson(services[key]?.ports ?? []),
          status: status === wire.WorkloadStatus.HEALTHY ? 'Healthy' : 'Unhealthy',
        },
      ]),
    ),
  };
}

const portsJson = (ports: readonly wire.Port[]): Json =>
  Object.fromEntries(ports.map(({ servicePort, targetPort }) => [String(servicePort), targetPort]));

function gatewayJson(gateway: wire.GatewayAddress | undefined): Json | undefined {
  if (!gateway?.destination) return undefined;
  const { destination } = gateway;
  const place =
    destination.$case === 'hostname'
      ? `${destination.value.namespace}/${destination.value.hostname}`
      : `${destination.value.network}/${ipFromBytes(destination.value.address)}`;
  return { destination: place, hboneMtlsPort: gateway.hboneMtlsPort };
}

export function policyJson(policy: authorization.Authorization): Json {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: ['Global', 'Namespace', 'WorkloadSelector'][policy.scope],
    action: policy.action === authorization.Action.DENY ? 'Deny' : 'Allow',
    dryRun: policy.dryRun,
    rules: policy.groups.map(({ rules }) => rules.map(({ matches }) => matches.map(matchJson))),
  };
}

function matchJson(match: authorization.Match): Json {
  const ranges = (items: readonly authorization.Address[]) => some(items.map(({ address, length }) => `${ipFromBytes(address)}/${length}`));
  const strings = (items: readonly authorization.StringMatch[]) => some(items.map(stringJson));
  return present({
    namespaces: strings(match.namespaces),
    notNamespaces: strings(match.notNamespaces),
    principals: strings(match.principals),
    notPrincipals: strings(match.notPrincipals),
    sourceIps: ranges(match.sourceIps),
    notSourceIps: ranges(match.notSourceIps),
    destinationIps: ranges(match.destinationIps),
    notDestinationIps: ranges(match.notDestinationIps),
    destinationPorts: some(match.destinationPorts),
    notDestinationPorts: some(match.notDestinationPorts),
    serviceAccounts: some(match.serviceAccounts.map((account) => ({ ...account }))),
    notServiceAccounts: some(match.notServiceAccounts.map((account) => ({ ...account }))),
  });
}

function stringJson({ matchType }: authorization.StringMatch): Json {
  switch (matchType?.$case) {
    case 'exact':
      return { Exact: matchType.value };
    case 'prefix':
      return { Prefix: matchType.value };
    case 'suffix':
      return { Suffix: matchType.value };
    default:
      return { Presence: [] };
  }
}
