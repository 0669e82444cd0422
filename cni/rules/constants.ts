/** Numbers that the node agent, ztunnel and Istio's own programs agree on (Istio, cni/pkg/config). */

/** SO_MARK of ztunnel's own sockets. Only the low twelve bits are ours: other software marks packets too. */
export const ZTUNNEL_MARK = 0x539;
/** Connection mark of what ztunnel opened with a foreign source address, and the packet mark that brings the replies back to it. */
export const RELAY_MARK = 0x111;
export const MARK_MASK = 0xfff;
export const RELAY_TABLE = 100;
export const RELAY_RULE_PRIORITY = 32764;

export const OUTBOUND_PORT = 15001;
export const INBOUND_PORT = 15006;
export const HBONE_PORT = 15008;
export const DNS_PORT = 15053;

/** Source addresses that the node gives to its own probes of pods, which pass the pod's capture. */
export const DEFAULT_PROBE_SOURCE = { v4: '169.254.7.127', v6: 'fd16:9254:7127:1337:ffff:ffff:ffff:ffff' } as const;

export const NAT_TABLE = 'istio-ambient-nat';
export const MANGLE_TABLE = 'istio-ambient-mangle';
export const RAW_TABLE = 'istio-ambient-raw';
export const PROBE_SET_V4 = 'istio-inpod-probes-v4';
export const PROBE_SET_V6 = 'istio-inpod-probes-v6';
