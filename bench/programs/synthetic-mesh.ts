/** A made-up cluster of any size, as a control plane would push it: pods with names, labels and addresses as long as real ones. */
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import { encodeService, encodeWorkload } from '../../common/state/encode.ts';
import { ADDRESS_TYPE, type ListedPush } from '../../common/state/writer.ts';

export const PODS_PER_SERVICE = 20;
const NAMESPACES = 50;
const NODES = 200;

export const podIp = (i: number): string => `10.${128 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
export const serviceVip = (i: number): string => `10.96.${(i >> 8) & 255}.${i & 255}`;
const namespaceOf = (service: number): string => `team-${service % NAMESPACES}-production`;
const hostnameOf = (service: number): string => `backend-service-${service}.${namespaceOf(service)}.svc.cluster.local`;

function syntheticWorkload(i: number, podsPerService = PODS_PER_SERVICE): Workload {
  const owner = Math.floor(i / podsPerService);
  const namespace = namespaceOf(owner);
  const name = `backend-service-${owner}-6d4cf56db6-${(i % 1e5).toString(36).padStart(5, '0')}`;
  return {
    uid: `Kubernetes//Pod/${namespace}/${name}`,
    name,
    namespace,
    addresses: [podIp(i)],
    hostname: '',
    network: '',
    protocol: 'HBONE',
    nativeTunnel: false,
    hostNetwork: false,
    trustDomain: 'cluster.local',
    serviceAccount: `backend-service-${owner}`,
    waypoint: undefined,
    networkGateway: undefined,
    applicationTunnel: undefined,
    node: `ip-10-0-${i % NODES}-17.eu-central-1.compute.internal`,
    clusterId: 'Kubernetes',
    locality: { region: 'eu-central-1', zone: `eu-central-1${'abc'[i % 3]}`, subzone: '' },
    canonicalName: `backend-service-${owner}`,
    canonicalRevision: 'v1',
    workloadName: `backend-service-${owner}`,
    workloadType: 'deployment',
    authorizationPolicies: [],
    healthy: true,
    capacity: 1,
    services: new Map([
      [
        `${namespace}/${hostnameOf(owner)}`,
        new Map([
          [80, 8080],
          [9090, 9090],
        ]),
      ],
    ]),
  };
}

function syntheticService(i: number, loadBalancing?: Service['loadBalancing']): Service {
  return {
    name: `backend-service-${i}`,
    namespace: namespaceOf(i),
    hostname: hostnameOf(i),
    addresses: [{ network: '', ip: serviceVip(i) }],
    ranges: [],
    ports: new Map([
      [80, 8080],
      [9090, 9090],
    ]),
    appProtocols: new Map(),
    subjectAltNames: [],
    waypoint: undefined,
    weightedWaypoints: [],
    loadBalancing: loadBalancing ?? { preferences: [], mode: 'STANDARD', allowUnhealthy: false },
    ipFamily: 'IPV4',
    canonical: true,
    namespaceOnly: false,
  };
}

/** Everything in one push, as the first answer of a control plane is. */
export function syntheticPush(workloads: number, podsPerService = PODS_PER_SERVICE): ListedPush {
  const services = Math.ceil(workloads / podsPerService);
  return {
    typeUrl: ADDRESS_TYPE,
    resources: [
      ...Array.from({ length: services }, (_, i) => {
        const service = syntheticService(i);
        return { name: `${service.namespace}/${service.hostname}`, version: versionOf(i), bytes: encodeService(service) };
      }),
      ...Array.from({ length: workloads }, (_, i) => {
        const workload = syntheticWorkload(i, podsPerService);
        return { name: workload.uid, version: versionOf(i), bytes: encodeWorkload(workload) };
      }),
    ],
    removed: [],
  };
}

// As istiod makes them: 64 bits in hexadecimal.
const versionOf = (i: number): string => (BigInt(i) * 0x9e3779b97f4a7c15n).toString(16).slice(-16).padStart(16, '0');
