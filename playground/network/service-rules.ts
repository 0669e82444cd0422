/**
 * Services as nftables rules: what each node's kernel does with a packet for a virtual address. One table, written anew as a whole in one
 * transaction; connections that are already tracked keep their endpoint. Pure text, so that it is tested without a kernel.
 */
import { type IpAddress, isIpv6 } from '../../common/base/address.ts';
import type { EndpointSlice, Service } from '../objects.ts';

/** One virtual address and port, and the endpoints behind it. */
export interface VirtualPort {
  readonly ip: IpAddress;
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  readonly endpoints: readonly { readonly ip: IpAddress; readonly port: number }[];
  /** For the comment in the rules: namespace/name:port. */
  readonly about: string;
}

export interface RulesOptions {
  /** Of the node (or the playground's own end) whose rules these are: the source of a pod's connection to itself. */
  readonly own: { readonly v4: IpAddress; readonly v6: IpAddress | undefined };
}

const TABLE = 'inet warren-services';

/** Ready endpoints behind every port of every service with a virtual address; terminating ones where nothing else serves. */
export function virtualPorts(services: readonly Service[], slices: readonly EndpointSlice[], node?: string): VirtualPort[] {
  const byService = new Map<string, EndpointSlice[]>();
  for (const slice of slices) {
    const name = slice.metadata.labels?.['kubernetes.io/service-name'];
    if (name === undefined) continue;
    const key = `${slice.metadata.namespace}/${name}`;
    byService.set(key, [...(byService.get(key) ?? []), slice]);
  }
  return services.flatMap((service) => {
    const key = `${service.metadata.namespace}/${service.metadata.name}`;
    const ips = (service.spec.clusterIPs ?? [service.spec.clusterIP ?? '']).filter((ip) => ip !== '' && ip !== 'None');
    const local = service.spec.internalTrafficPolicy === 'Local' ? node : undefined;
    return ips.flatMap((ip) => {
      const family = isIpv6(ip) ? 'IPv6' : 'IPv4';
      const own = (byService.get(key) ?? []).filter((slice) => slice.addressType === family);
      return (service.spec.ports ?? []).flatMap((port) => {
        const protocol = (port.protocol ?? 'TCP').toLowerCase();
        if (protocol !== 'tcp' && protocol !== 'udp') return [];
        const endpoints = own.flatMap((slice) => endpointsOf(slice, port.name ?? '', port.protocol ?? 'TCP', local));
        return [{ ip, protocol, port: port.port, endpoints: unique(endpoints), about: `${key}:${port.port}` } as const];
      });
    });
  });
}

/** Input for `nft -f -`: replaces the table. */
export function serviceRules(ports: readonly VirtualPort[], { own }: RulesOptions): string {
  const served = ports.filter(({ endpoints }) => endpoints.length > 0);
  const empty = ports.filter(({ endpoints }) => endpoints.length === 0);
  const hairpins = [...new Set(served.flatMap(({ endpoints }) => endpoints.map(({ ip }) => ip)))];
  const chains = served.map(
    ({ ip, endpoints, about }, i) => `  chain port-${i} {\n    ${spread(ip, endpoints)} comment "${about.replaceAll('"', '')}"\n  }`,
  );
  const verdicts = (v6: boolean): string[] =>
    served.flatMap((port, i) => (isIpv6(port.ip) === v6 ? [`${port.ip} . ${port.protocol} . ${port.port} : goto port-${i}`] : []));
  const refused = (v6: boolean): string[] =>
    empty.flatMap((port) => (isIpv6(port.ip) === v6 ? [`${port.ip} . ${port.protocol} . ${port.port}`] : []));
  const loops = (v6: boolean): string[] => hairpins.flatMap((ip) => (isIpv6(ip) === v6 ? [`${ip} . ${ip}`] : []));
  return [
    `table ${TABLE}`,
    `delete table ${TABLE}`,
    `table ${TABLE} {`,
    ...chains,
    verdictMap('served4', 'ipv4_addr', verdicts(false)),
    verdictMap('served6', 'ipv6_addr', verdicts(true)),
    addressSet('empty4', 'ipv4_addr . inet_proto . inet_service', refused(false)),
    addressSet('empty6', 'ipv6_addr . inet_proto . inet_service', refused(true)),
    addressSet('self4', 'ipv4_addr . ipv4_addr', loops(false)),
    addressSet('self6', 'ipv6_addr . ipv6_addr', loops(true)),
    '  chain services {',
    '    ip daddr . meta l4proto . th dport vmap @served4',
    '    ip6 daddr . meta l4proto . th dport vmap @served6',
    '  }',
    '  chain refuse {',
    '    meta l4proto tcp ip daddr . meta l4proto . th dport @empty4 reject with tcp reset',
    '    meta l4proto tcp ip6 daddr . meta l4proto . th dport @empty6 reject with tcp reset',
    '    ip daddr . meta l4proto . th dport @empty4 reject with icmpx port-unreachable',
    '    ip6 daddr . meta l4proto . th dport @empty6 reject with icmpx port-unreachable',
    '  }',
    '  chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }',
    '  chain nat-output { type nat hook output priority -100; jump services; }',
    '  chain refuse-prerouting { type filter hook prerouting priority -110; jump refuse; }',
    '  chain refuse-output { type filter hook output priority -110; jump refuse; }',
    '  chain nat-postrouting {',
    '    type nat hook postrouting priority srcnat;',
    // A pod that reached itself through its service would take the packet for its own and drop it.
    `    ip saddr . ip daddr @self4 snat ip to ${own.v4}`,
    ...(own.v6 ? [`    ip6 saddr . ip6 daddr @self6 snat ip6 to ${own.v6}`] : []),
    '  }',
    '}',
    '',
  ].join('\n');
}

function endpointsOf(
  slice: EndpointSlice,
  portName: string,
  protocol: string,
  node: string | undefined,
): { ip: IpAddress; port: number }[] {
  const port = slice.ports?.find((candidate) => (candidate.name ?? '') === portName && (candidate.protocol ?? 'TCP') === protocol)?.port;
  if (port === undefined || port === null) return [];
  const candidates = (slice.endpoints ?? []).filter((endpoint) => node === undefined || endpoint.nodeName === node);
  const ready = candidates.filter(({ conditions }) => conditions?.ready !== false);
  // As kube-proxy: a service whose last endpoints are leaving sends to them for as long as they serve.
  const chosen =
    ready.length > 0 ? ready : candidates.filter(({ conditions }) => conditions?.serving === true && conditions.terminating === true);
  return chosen.flatMap(({ addresses }) => (addresses[0] === undefined ? [] : [{ ip: addresses[0], port }]));
}

function spread(ip: IpAddress, endpoints: readonly { ip: IpAddress; port: number }[]): string {
  const family = isIpv6(ip) ? 'ip6' : 'ip';
  const targets = endpoints.map((endpoint, i) => `${i} : ${endpoint.ip} . ${endpoint.port}`);
  const protocol = `meta l4proto { tcp, udp }`;
  return `${protocol} dnat ${family} to numgen random mod ${endpoints.length} map { ${targets.join(', ')} }`;
}

const verdictMap = (name: string, type: string, elements: readonly string[]): string =>
  `  map ${name} { type ${type} . inet_proto . inet_service : verdict; ${listed(elements)} }`;

const addressSet = (name: string, type: string, elements: readonly string[]): string =>
  `  set ${name} { type ${type}; ${listed(elements)} }`;

const listed = (elements: readonly string[]): string => (elements.length === 0 ? '' : `elements = { ${elements.join(', ')} };`);

function unique<T extends { ip: IpAddress; port: number }>(endpoints: readonly T[]): T[] {
  const seen = new Set<string>();
  return endpoints.filter(({ ip, port }) => !seen.has(`${ip} ${port}`) && seen.add(`${ip} ${port}`));
}
