/**
 * What a ServiceEntry may not claim, lest one tenant take another one's traffic: names of the cluster's domain in other namespaces, addresses of
 * Services of other namespaces (the API server's among them), and addresses that only a machine or its neighbours answer. Such a claim counts for
 * nothing and is told in the object's status. What it may claim it claims for clients of its own namespace, unless the name is the namespace's own
 * or the administrator grants it. The root namespace is the administrator's, and may claim what it likes, for everybody.
 */
import { type Cidr, cidrContains, ipFromBytes, parseCidr } from '../../common/base/address.ts';
import type { NetworkAddress } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig } from './config.ts';

/** Whether a host may be claimed by objects of a namespace. */
export function mayClaimHost(config: MeshModelConfig, namespace: string, host: string): boolean {
  if (!config.guardClaims || namespace === config.rootNamespace || isGranted(config, namespace, host)) return true;
  const lower = host.toLowerCase();
  const suffix = `.svc.${config.domain}`;
  // `*.local` would stand for all of them.
  if (lower.startsWith('*') && (suffix.endsWith(lower.slice(1)) || lower === '*')) return false;
  return !lower.endsWith(suffix) || lower.endsWith(`.${namespace}${suffix}`);
}

/** Whether a ServiceEntry's host is meant for clients of all namespaces; else for those of its own. */
export function isForEverybody(config: MeshModelConfig, namespace: string, host: string): boolean {
  if (!config.guardClaims || namespace === config.rootNamespace || isGranted(config, namespace, host)) return true;
  return host.toLowerCase().endsWith(`.${namespace}.svc.${config.domain}`);
}

/** Setting of the administrator: `namespace=host`, the host maybe with a wildcard; `*` alone is every host outside of the cluster. */
function isGranted({ grantedHosts, domain }: MeshModelConfig, namespace: string, host: string): boolean {
  return (grantedHosts ?? []).some((grant) => {
    const [to, pattern = ''] = grant.split('=', 2);
    if (to !== namespace && to !== '*') return false;
    if (pattern === '*') return !`.${domain}`.endsWith(host.replace(/^\*/, '')) && !host.toLowerCase().endsWith(`.${domain}`);
    return pattern === host || (pattern.startsWith('*.') && host.endsWith(pattern.slice(1)));
  });
}

const FORBIDDEN: readonly Cidr[] = [
  '169.254.0.0/16',
  'fe80::/10',
  '127.0.0.0/8',
  '::1/128',
  '0.0.0.0/8',
  '224.0.0.0/4',
  'ff00::/8',
].flatMap((range) => parseCidr(range) ?? []);

/** Whether an address, or any of a range, is one that nobody may claim. */
export function isForbiddenAddress({ address, length }: Pick<NetworkAddress, 'address' | 'length'>): boolean {
  return FORBIDDEN.some((range) => {
    if (range.bytes.length !== address.length) return false;
    if (length === undefined || length >= range.length) return cidrContains(range, address);
    return cidrContains({ bytes: address, length }, range.bytes);
  });
}

/** A Service's address that lies within a claim. */
export function covers({ address, length }: Pick<NetworkAddress, 'address' | 'length'>, other: Uint8Array): boolean {
  if (address.length !== other.length) return false;
  return cidrContains({ bytes: address, length: length ?? address.length * 8 }, other);
}

export const addressText = ({ address, length }: Pick<NetworkAddress, 'address' | 'length'>): string =>
  length === undefined ? (ipFromBytes(address) ?? '') : `${ipFromBytes(address)}/${length}`;
