/**
 * Rules in the node's own network namespace (Istio, cni/pkg/nodeagent). The kubelet probes pods from the node; under STRICT a pod
 * refuses plaintext, so probes get a source address that the pod's own rules let through. Only packets of a local socket qualify: what the
 * node merely forwards (kube-proxy's traffic among it) has none, and stays under policy.
 */
import { isIpv6 } from '../../common/base/address.ts';
import { NAT_TABLE, PROBE_SET_V4, PROBE_SET_V6 } from './constants.ts';

export interface HostRulesConfig {
  readonly ipv6: boolean;
  readonly probeSource: { readonly v4: string; readonly v6: string };
  /** Owner of the probing sockets; any owner where the kubelet was not found. */
  readonly kubeletUid: number | undefined;
}

/** Table and chain; the sets are made, and filled, by `probeSets`, which must have run before. */
export function hostRules({ ipv6, probeSource, kubeletUid }: HostRulesConfig): string[] {
  // A packet without a socket has no owner and matches no range of owners.
  const owner = `skuid ${kubeletUid ?? '0-4294967295'}`;
  const rule = (match: string, set: string, source: string): string =>
    `add rule inet ${NAT_TABLE} postrouting meta l4proto tcp ${owner} ${match} @${set} counter snat to ${source}`;
  return [
    `add table inet ${NAT_TABLE}`,
    `flush table inet ${NAT_TABLE}`,
    `add chain inet ${NAT_TABLE} postrouting { type nat hook postrouting priority 100 ; }`,
    rule('ip daddr', PROBE_SET_V4, probeSource.v4),
    ...(ipv6 ? [rule('ip6 daddr', PROBE_SET_V6, probeSource.v6)] : []),
  ];
}

/** Both sets with exactly these addresses, in one transaction. @param pods UID of the pod for each address, kept as the element's comment */
export function probeSets(pods: ReadonlyMap<string, string>): string[] {
  const elements = (set: string, wanted: boolean): string[] => {
    const entries = [...pods].filter(([ip]) => isIpv6(ip) === wanted).map(([ip, uid]) => `${ip} comment "${uid}"`);
    return [
      `flush set inet ${NAT_TABLE} ${set}`,
      ...(entries.length > 0 ? [`add element inet ${NAT_TABLE} ${set} { ${entries.join(', ')} }`] : []),
    ];
  };
  return [
    `add table inet ${NAT_TABLE}`,
    `add set inet ${NAT_TABLE} ${PROBE_SET_V4} { type ipv4_addr ; }`,
    `add set inet ${NAT_TABLE} ${PROBE_SET_V6} { type ipv6_addr ; }`,
    ...elements(PROBE_SET_V4, false),
    ...elements(PROBE_SET_V6, true),
  ];
}

export const noHostRules = (): string[] => [`add table inet ${NAT_TABLE}`, `delete table inet ${NAT_TABLE}`];
