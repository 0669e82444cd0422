/** What the kubelet writes into every container's /etc: hosts, resolv.conf, hostname. Pure. */
import { CLUSTER_DOMAIN, DNS_SERVICE_IP } from '../network/plan.ts';
import type { Pod } from '../objects.ts';

const KUBELET_SEARCH_LIMIT = 32;

export function podHostname(pod: Pod, nodeName: string): string {
  // The kernel takes 64 characters; Kubernetes cuts at 63, and not after a dash or dot.
  return pod.spec.hostNetwork ? nodeName : (pod.spec.hostname ?? pod.metadata.name).slice(0, 63).replace(/[-.]+$/, '');
}

export function etcFiles(pod: Pod, nodeName: string, ips: readonly string[]): Record<string, string> {
  const hostname = podHostname(pod, nodeName);
  return {
    '/etc/hostname': `${hostname}\n`,
    '/etc/hosts': hosts(pod, hostname, ips),
    '/etc/resolv.conf': resolvConf(pod),
  };
}

function hosts(pod: Pod, hostname: string, ips: readonly string[]): string {
  const { subdomain, hostAliases = [] } = pod.spec;
  const domain = subdomain && !pod.spec.hostNetwork ? `${hostname}.${subdomain}.${pod.metadata.namespace}.svc.${CLUSTER_DOMAIN}\t` : '';
  const lines = ['127.0.0.1\tlocalhost', '::1\tlocalhost ip6-localhost ip6-loopback', ...ips.map((ip) => `${ip}\t${domain}${hostname}`)];
  for (const { ip, hostnames = [] } of hostAliases) lines.push([ip, ...hostnames].join('\t'));
  return `${lines.join('\n')}\n`;
}

function resolvConf(pod: Pod): string {
  const { dnsPolicy = 'ClusterFirst', dnsConfig, hostNetwork } = pod.spec;
  const clusterFirst = dnsPolicy === 'ClusterFirstWithHostNet' || (dnsPolicy === 'ClusterFirst' && !hostNetwork);
  // A node has no resolver besides the cluster's: nothing leads out of the playground.
  const nameservers = dnsPolicy === 'None' ? [] : [DNS_SERVICE_IP];
  const searches = clusterFirst ? [`${pod.metadata.namespace}.svc.${CLUSTER_DOMAIN}`, `svc.${CLUSTER_DOMAIN}`, CLUSTER_DOMAIN] : [];
  const options = clusterFirst ? ['ndots:5'] : [];
  nameservers.push(...(dnsConfig?.nameservers ?? []));
  searches.push(...(dnsConfig?.searches ?? []));
  options.push(...(dnsConfig?.options ?? []).map(({ name, value }) => (value === undefined ? name : `${name}:${value}`)));
  return [
    ...(searches.length > 0 ? [`search ${searches.slice(0, KUBELET_SEARCH_LIMIT).join(' ')}`] : []),
    ...nameservers.map((ip) => `nameserver ${ip}`),
    ...(options.length > 0 ? [`options ${options.join(' ')}`] : []),
    '',
  ].join('\n');
}
