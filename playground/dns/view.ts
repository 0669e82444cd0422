/** The cluster as the DNS sees it. */
import type { Cluster } from '../cluster/collections.ts';
import type { DnsView } from './records.ts';

export const dnsView = (cluster: Cluster): DnsView => ({
  service: (namespace, name) => cluster.services.get(namespace, name),
  slices: (namespace, name) =>
    cluster.endpointSlices.list(namespace).filter(({ metadata }) => metadata.labels?.['kubernetes.io/service-name'] === name),
  namespaceExists: (name) => cluster.namespaces.get('', name) !== undefined,
});
