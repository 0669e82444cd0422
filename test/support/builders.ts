/** Workloads, services and policies for tests: everything has a sensible value, a test names only what it is about. */
import { parseCidr, parseIp } from '../../common/base/address.ts';
import type { GatewayAddress, Policy, PolicyMatch, Service, Workload } from '../../common/decision/mesh-view.ts';
import { NO_MATCH } from '../../common/decision/policy.ts';

export function workload(fields: Partial<Workload> & { name: string }): Workload {
  const namespace = fields.namespace ?? 'shop';
  return {
    uid: `Kubernetes//Pod/${namespace}/${fields.name}`,
    namespace,
    addresses: [],
    hostname: '',
    network: '',
    protocol: 'TCP',
    nativeTunnel: false,
    hostNetwork: false,
    trustDomain: 'cluster.local',
    serviceAccount: 'default',
    waypoint: undefined,
    networkGateway: undefined,
    applicationTunnel: undefined,
    node: 'node-1',
    clusterId: 'Kubernetes',
    locality: { region: '', zone: '', subzone: '' },
    canonicalName: '',
    canonicalRevision: '',
    workloadName: '',
    workloadType: 'pod',
    authorizationPolicies: [],
    healthy: true,
    capacity: 1,
    services: new Map(),
    ...fields,
  };
}

export function service(
  fields: Partial<Omit<Service, 'addresses' | 'ports'>> & { name: string; vips?: string[]; ports?: Record<number, number> },
): Service {
  const { vips = [], ports = { 80: 8080 }, ...rest } = fields;
  const namespace = fields.namespace ?? 'shop';
  return {
    namespace,
    hostname: `${fields.name}.${namespace}.svc.cluster.local`,
    addresses: vips.map((ip) => ({ network: '', ip })),
    ranges: [],
    appProtocols: new Map(),
    ports: new Map(Object.entries(ports).map(([from, to]) => [Number(from), to])),
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: { preferences: [], mode: 'STANDARD', allowUnhealthy: false },
    ipFamily: undefined,
    canonical: false,
    namespaceOnly: false,
    ...rest,
  };
}

/** Membership of services, for `Workload.services`: each key with its port map. */
export const memberOf = (...services: (Service | [Service, Record<number, number>])[]): Workload['services'] =>
  new Map(
    services.map((entry) => {
      const [own, ports] = Array.isArray(entry) ? entry : [entry, {}];
      return [`${own.namespace}/${own.hostname}`, new Map(Object.entries(ports).map(([from, to]) => [Number(from), to]))] as const;
    }),
  );

export const match = (fields: Partial<PolicyMatch>): PolicyMatch => ({ ...NO_MATCH, ...fields });

export const policy = (fields: Partial<Policy> & { name: string }): Policy => ({
  namespace: 'shop',
  scope: 'NAMESPACE',
  action: 'ALLOW',
  groups: [],
  dryRun: false,
  ...fields,
});

export const waypointAt = (ip: string, hbonePort = 15008, network = ''): GatewayAddress => ({
  destination: { address: { network, ip: parseIp(ip) ?? ip } },
  hbonePort,
});

export const waypointNamed = (namespace: string, hostname: string, hbonePort = 15008): GatewayAddress => ({
  destination: { namespace, hostname },
  hbonePort,
});

export function cidr(text: string): NonNullable<ReturnType<typeof parseCidr>> {
  const parsed = parseCidr(text);
  if (!parsed) throw new Error(`no CIDR: ${text}`);
  return parsed;
}
