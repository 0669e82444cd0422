/**
 * The nftables rules of an enrolled pod, as commands for `nft -f -`: one transaction, so the pod has either all rules or those from before.
 * Tables, order and marks are Istio's. On purpose different by default: a redirect takes connection starts only. Connection tracking begins
 * with the first nat rule and takes a packet in mid-stream for a new connection, so Istio's rules reset whatever was open when a running
 * pod was enrolled; with a match on SYN it goes on untouched. `captureOpenConnections` gives Istio's rules to the letter.
 */
import {
  DNS_PORT,
  HBONE_PORT,
  INBOUND_PORT,
  MANGLE_TABLE,
  MARK_MASK,
  NAT_TABLE,
  OUTBOUND_PORT,
  RAW_TABLE,
  RELAY_MARK,
  ZTUNNEL_MARK,
} from './constants.ts';

export interface PodRulesConfig {
  /** DNS of the pod goes to ztunnel: UDP and TCP port 53. */
  readonly redirectDns: boolean;
  /** Inbound connections are not captured (annotation `ambient.istio.io/bypass-inbound-capture`). */
  readonly ingressMode: boolean;
  /** TCP that comes in by these interfaces is treated as the pod's own outbound (`istio.io/reroute-virtual-interfaces`). */
  readonly virtualInterfaces: readonly string[];
  readonly ipv6: boolean;
  readonly probeSource: { readonly v4: string; readonly v6: string };
  readonly captureOpenConnections: boolean;
}

type Chain = 'prerouting' | 'output';

const hex = (value: number): string => `0x${value.toString(16)}`;
const MASK = hex(MARK_MASK);
const NOT_ZTUNNEL = `mark and ${MASK} != ${hex(ZTUNNEL_MARK)}`;
const CONNECTION_START = 'tcp flags & (fin | syn | rst | ack) == syn ';
const FAMILIES = [
  { ip: 'ip', loopback: '127.0.0.1/32', source: 'v4' },
  { ip: 'ip6', loopback: '::1/128', source: 'v6' },
] as const;

/** All commands, in order; running them again leaves the same rules. */
export function podRules(config: PodRulesConfig): string[] {
  return [...natTable(config), ...mangleTable(), ...(config.redirectDns ? rawTable() : [])];
}

/**
 * Rules of a pod that left the mesh while ztunnel still relays connections for it: nothing new is captured, but a redirect (which no packet
 * meets: nothing is sent to port 0) keeps connection tracking alive. Deleting the last nat rule would reset every relayed connection.
 * The mangle table stays, it brings replies back to ztunnel.
 */
export function drainingRules(): string[] {
  const { add, commands } = table(NAT_TABLE, 'nat', -100, { output: 'nat' });
  add('output', `meta l4proto tcp tcp dport 0 counter redirect to :${OUTBOUND_PORT}`);
  return commands;
}

/** Removes every table, and is content where there is none. */
export function noRules(): string[] {
  return [NAT_TABLE, MANGLE_TABLE, RAW_TABLE].flatMap((name) => [`add table inet ${name}`, `delete table inet ${name}`]);
}

function natTable(config: PodRulesConfig): string[] {
  const { add, commands } = table(NAT_TABLE, 'nat', -100, { output: 'nat' });
  const families = FAMILIES.slice(0, config.ipv6 ? 2 : 1);
  const start = config.captureOpenConnections ? '' : CONNECTION_START;
  for (const name of config.virtualInterfaces) {
    add('prerouting', `iifname ${name} meta l4proto tcp ${start}counter redirect to :${OUTBOUND_PORT}`);
    add('prerouting', `iifname ${name} meta l4proto tcp counter return`);
  }
  // Probes first: they must reach the application under STRICT too.
  if (!config.ingressMode) {
    for (const { ip, source } of families) add('prerouting', `meta l4proto tcp ${ip} saddr ${config.probeSource[source]} counter accept`);
  }
  for (const { ip, source } of families) add('output', `meta l4proto tcp ${ip} daddr ${config.probeSource[source]} counter accept`);
  if (!config.ingressMode) {
    for (const { ip, loopback } of families) {
      add(
        'prerouting',
        `${ip} daddr != ${loopback} tcp dport != ${HBONE_PORT} ${NOT_ZTUNNEL} ${start}counter redirect to :${INBOUND_PORT}`,
      );
    }
  }
  if (config.redirectDns) {
    add('output', `oifname != lo ${NOT_ZTUNNEL} udp dport 53 counter redirect to :${DNS_PORT}`);
    for (const { ip, loopback } of families) {
      add('output', `${ip} daddr != ${loopback} tcp dport 53 ${NOT_ZTUNNEL} ${start}counter redirect to :${DNS_PORT}`);
    }
  }
  add('output', `meta l4proto tcp mark and ${MASK} == ${hex(RELAY_MARK)} counter accept`);
  // The pod calling itself by its own address.
  for (const { ip, loopback } of families) add('output', `oifname lo ${ip} daddr != ${loopback} counter accept`);
  for (const { ip, loopback } of families) {
    add('output', `meta l4proto tcp ${ip} daddr != ${loopback} ${NOT_ZTUNNEL} ${start}counter redirect to :${OUTBOUND_PORT}`);
  }
  return commands;
}

// A reply to a socket that ztunnel opened with a client's address would leave the pod: the mark sends it back through loopback. The output
// chain must be of type route, or the kernel does not look for another route after the mark has changed.
function mangleTable(): string[] {
  const { add, commands } = table(MANGLE_TABLE, 'filter', -150, { output: 'route' });
  const kept = hex((~MARK_MASK & 0xffffffff) >>> 0);
  add('prerouting', `meta mark & ${MASK} == ${hex(ZTUNNEL_MARK)} counter ct mark set ct mark & ${kept} | ${hex(RELAY_MARK)}`);
  add('output', `ct mark and ${MASK} == ${hex(RELAY_MARK)} counter meta mark set ct mark`);
  return commands;
}

// ztunnel's own DNS queries get a connection tracking zone of their own, or their entries would collide with those of the captured ones.
function rawTable(): string[] {
  const { add, commands } = table(RAW_TABLE, 'filter', -300, { output: 'filter' });
  add('output', `udp dport 53 meta mark and ${MASK} == ${hex(ZTUNNEL_MARK)} counter ct zone set 1`);
  add('prerouting', `udp sport 53 meta mark and ${MASK} != ${hex(ZTUNNEL_MARK)} counter ct zone set 1`);
  return commands;
}

function table(
  name: string,
  prerouting: 'nat' | 'filter',
  priority: number,
  { output }: { output: 'nat' | 'filter' | 'route' },
): { commands: string[]; add(chain: Chain, rule: string): void } {
  const jumps: Chain[] = name === NAT_TABLE ? ['output', 'prerouting'] : ['prerouting', 'output'];
  const commands = [
    `add table inet ${name}`,
    `flush table inet ${name}`,
    `add chain inet ${name} prerouting { type ${prerouting} hook prerouting priority ${priority} ; }`,
    `add chain inet ${name} output { type ${output} hook output priority ${priority} ; }`,
    `add chain inet ${name} istio-prerouting`,
    `add chain inet ${name} istio-output`,
    ...jumps.map((chain) => `add rule inet ${name} ${chain} jump istio-${chain}`),
  ];
  return { commands, add: (chain, rule) => void commands.push(`add rule inet ${name} istio-${chain} ${rule}`) };
}
