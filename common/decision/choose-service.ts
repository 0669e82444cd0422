/**
 * Which service is meant when several claim one address or hostname (Istio's ztunnel, src/state/service.rs): only what the client's namespace may see;
 * then a service of the client's own namespace, then a canonical one (a Kubernetes Service, not somebody's ServiceEntry), then the first.
 */
import type { IpAddress } from '../base/address.ts';
import { cidrContains, ipBytes } from '../base/address.ts';
import type { MeshView, Service } from './mesh-view.ts';

/** Exact addresses come first; only where no visible service has one are ranges looked at, the longest prefix first within one rank. */
export function chooseServiceByAddress(view: MeshView, network: string, ip: IpAddress, clientNamespace: string): Service | undefined {
  const visible = view.servicesByAddress(network, ip).filter((service) => isVisible(service, clientNamespace));
  if (visible.length === 0) return undefined;
  const exact = visible.filter((service) => service.addresses.some((address) => address.ip === ip && address.network === network));
  if (exact.length > 0) return chooseService(exact, clientNamespace);
  const bytes = ipBytes(ip);
  const prefix = (service: Service): number =>
    service.ranges.reduce(
      (longest, range) =>
        range.network === network && bytes && cidrContains(range.cidr, bytes) ? Math.max(longest, range.cidr.length) : longest,
      0,
    );
  return first(visible, [(service) => service.namespace === clientNamespace, prefix, (service) => service.canonical]);
}

/** @param preferredNamespace wins over "first" only (ztunnel's PREFERED_SERVICE_NAMESPACE, used for DNS) */
export function chooseServiceByHostname(
  view: Pick<MeshView, 'servicesByHostname'>,
  hostname: string,
  clientNamespace: string,
  preferredNamespace?: string,
): Service | undefined {
  const visible = view.servicesByHostname(hostname).filter((service) => isVisible(service, clientNamespace));
  return chooseService(visible, clientNamespace, preferredNamespace);
}

/** Whether a client in this namespace may see the service at all. */
export const isVisible = (service: Service, clientNamespace: string): boolean =>
  !service.namespaceOnly || service.namespace === clientNamespace;

const chooseService = (services: readonly Service[], clientNamespace: string, preferredNamespace?: string): Service | undefined =>
  first(services, [
    (service) => service.namespace === clientNamespace,
    (service) => service.canonical,
    (service) => service.namespace === preferredNamespace,
  ]);

/** The first of those that no other one beats, criterion by criterion. */
function first(services: readonly Service[], criteria: readonly ((service: Service) => number | boolean)[]): Service | undefined {
  let left = services;
  for (const criterion of criteria) {
    if (left.length < 2) break;
    const best = Math.max(...left.map((service) => Number(criterion(service))));
    left = left.filter((service) => Number(criterion(service)) === best);
  }
  return left[0];
}
