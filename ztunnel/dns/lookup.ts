/** What the mesh itself knows about a name (Istio's ztunnel, src/dns). Pure: no packet, no socket. */
import { type IpAddress, isIpv6 } from '../../common/base/address.ts';
import { chooseServiceByHostname } from '../../common/decision/choose-service.ts';
import type { MeshView, Service, Workload } from '../../common/decision/mesh-view.ts';
import { candidates, withWildcards } from './names.ts';

export interface DnsRequest {
  /** Lower case, without the final dot. */
  readonly name: string;
  readonly type: 'A' | 'AAAA';
  /** The pod that asks. */
  readonly client: Workload;
  readonly clusterDomain: string;
  /** PREFERED_SERVICE_NAMESPACE, which decides between services that are otherwise equal. */
  readonly preferredNamespace: string | undefined;
  readonly ipv6: boolean;
}

export interface DnsFound {
  readonly service: Service;
  /** The requested name is an alias of this one, and the addresses are this one's; undefined where they are the requested name's own. */
  readonly alias: string | undefined;
  /** None where the name is known and has no address of the family that was asked for. */
  readonly addresses: readonly IpAddress[];
}

/** @returns undefined for a name that the mesh does not know: somebody else is to be asked */
export function lookupName(view: MeshView, request: DnsRequest): DnsFound | undefined {
  const { name, client, clusterDomain, preferredNamespace } = request;
  const headlessSuffix = `.svc.${clusterDomain}`;
  // Without an address of its own a service can be answered for only where it is a headless one of Kubernetes.
  const answerable = (service: Service): boolean => service.addresses.length > 0 || service.hostname.endsWith(headlessSuffix);
  const known = { servicesByHostname: (hostname: string) => view.servicesByHostname(hostname).filter(answerable) };
  for (const { hostname, stripped } of candidates(name, { clientNamespace: client.namespace, clusterDomain })) {
    for (const spelling of withWildcards(hostname)) {
      const service = chooseServiceByHostname(known, spelling, client.namespace, preferredNamespace);
      if (!service) continue;
      const alias = stripped !== undefined && !spelling.startsWith('*.') ? stripped : undefined;
      return { service, alias, addresses: addressesOf(view, service, request) };
    }
  }
  return undefined;
}

function addressesOf(view: MeshView, service: Service, { type, client, ipv6 }: DnsRequest): IpAddress[] {
  const wantsIpv6 = type === 'AAAA';
  if (wantsIpv6 && !ipv6) return [];
  if (service.ipFamily !== undefined && (service.ipFamily === 'IPV6') !== wantsIpv6) return [];
  const ofFamily = (ip: IpAddress): boolean => isIpv6(ip) === wantsIpv6;
  if (service.addresses.length > 0) {
    return service.addresses.filter(({ network, ip }) => network === client.network && ofFamily(ip)).map(({ ip }) => ip);
  }
  return view.endpoints(service).flatMap(({ workload }) => workload.addresses.find(ofFamily) ?? []);
}
