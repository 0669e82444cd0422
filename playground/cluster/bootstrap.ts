/** What a cluster has before anybody asks for anything: the API's and the DNS's Services, with endpoints at the playground's own address. */
import { API_PORT, API_SERVICE_IP, DNS_PORT, DNS_SERVICE_IP, FABRIC } from '../network/plan.ts';
import type { EndpointSlice, Service, ServicePort } from '../objects.ts';
import type { Cluster } from './collections.ts';

export async function createSystemObjects(cluster: Cluster, ipv6: boolean): Promise<void> {
  await createService(cluster, {
    namespace: 'default',
    name: 'kubernetes',
    ip: API_SERVICE_IP,
    labels: { component: 'apiserver', provider: 'kubernetes' },
    ports: [{ name: 'https', port: 443, targetPort: API_PORT, protocol: 'TCP' }],
    endpoints: [{ family: 'IPv4', ip: FABRIC.v4, port: () => API_PORT }],
  });
  await createService(cluster, {
    namespace: 'kube-system',
    name: 'kube-dns',
    ip: DNS_SERVICE_IP,
    labels: { 'k8s-app': 'kube-dns', 'kubernetes.io/name': 'CoreDNS' },
    ports: [
      { name: 'dns', port: 53, targetPort: DNS_PORT, protocol: 'UDP' },
      { name: 'dns-tcp', port: 53, targetPort: DNS_PORT, protocol: 'TCP' },
    ],
    endpoints: [
      { family: 'IPv4', ip: FABRIC.v4, port: () => DNS_PORT },
      ...(ipv6 ? [{ family: 'IPv6', ip: FABRIC.v6, port: () => DNS_PORT } as const] : []),
    ],
  });
}

interface SystemService {
  readonly namespace: string;
  readonly name: string;
  readonly ip: string;
  readonly labels: Record<string, string>;
  readonly ports: readonly ServicePort[];
  readonly endpoints: readonly { readonly family: 'IPv4' | 'IPv6'; readonly ip: string; port(of: ServicePort): number }[];
}

/** Without a selector, so that no controller touches its slices. */
async function createService(cluster: Cluster, { namespace, name, ip, labels, ports, endpoints }: SystemService): Promise<void> {
  if (cluster.services.get(namespace, name)) return;
  const service: Service = {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, labels },
    spec: { type: 'ClusterIP', clusterIP: ip, clusterIPs: [ip], ipFamilies: ['IPv4'], ports },
  };
  await cluster.services.create(service);
  for (const { family, ip: address, port } of endpoints) {
    const slice: EndpointSlice = {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name: family === 'IPv4' ? name : `${name}-v6`, namespace, labels: { 'kubernetes.io/service-name': name } },
      addressType: family,
      endpoints: [{ addresses: [address], conditions: { ready: true, serving: true, terminating: false } }],
      ports: ports.map((each) => ({ name: each.name ?? '', port: port(each), protocol: each.protocol ?? 'TCP' })),
    };
    await cluster.endpointSlices.create(slice);
  }
}
