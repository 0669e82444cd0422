/**
 * The same rules as pod-rules.ts and host-rules.ts for iptables, one list for each address family (Istio, cni/pkg/iptables). A chain of a
 * table is made when its first rule names it, and its jump stands before all rules, which is the order of Istio's golden files. The
 * difference on purpose is the same too: without `captureOpenConnections` a redirect takes connection starts only.
 */
import {
  DNS_PORT,
  HBONE_PORT,
  INBOUND_PORT,
  MARK_MASK,
  OUTBOUND_PORT,
  PROBE_SET_V4,
  PROBE_SET_V6,
  RELAY_MARK,
  ZTUNNEL_MARK,
} from './constants.ts';
import type { HostRulesConfig } from './host-rules.ts';
import type { PodRulesConfig } from './pod-rules.ts';

export type Family = 'v4' | 'v6';
export type TableName = 'mangle' | 'nat' | 'raw';
export type OwnChain = 'ISTIO_PRERT' | 'ISTIO_OUTPUT' | 'ISTIO_POSTRT';

/** What is to be in one table: jumps from the built-in chains, then rules, each with its chain. */
export interface TableRules {
  readonly table: TableName;
  readonly jumps: readonly string[];
  readonly rules: readonly (readonly [chain: OwnChain, rule: string])[];
}

/** Where a jump to each of our chains stands. */
export const JUMP_FROM = { ISTIO_PRERT: 'PREROUTING', ISTIO_OUTPUT: 'OUTPUT', ISTIO_POSTRT: 'POSTROUTING' } as const satisfies Record<
  OwnChain,
  string
>;

const hex = (value: number): string => `0x${value.toString(16)}`;
const masked = (mark: number): string => `${hex(mark)}/${hex(MARK_MASK)}`;
const NOT_ZTUNNEL = `-m mark ! --mark ${masked(ZTUNNEL_MARK)}`;
const LOOPBACK = { v4: '127.0.0.1/32', v6: '::1/128' } as const;
const CONNECTION_START = '--syn ';
const PREROUTING_FIRST = ['-A PREROUTING -j ISTIO_PRERT', '-A OUTPUT -j ISTIO_OUTPUT'];
const OUTPUT_FIRST = PREROUTING_FIRST.toReversed();

export function iptablesPodRules(config: PodRulesConfig, family: Family): TableRules[] {
  return [MANGLE, { table: 'nat', jumps: OUTPUT_FIRST, rules: natRules(config, family) }, ...(config.redirectDns ? [RAW] : [])];
}

/** As `drainingRules`: nothing new is captured, and what is relayed goes on. */
export const iptablesDrainingRules = (): TableRules[] => [
  MANGLE,
  {
    table: 'nat',
    jumps: OUTPUT_FIRST,
    rules: [['ISTIO_OUTPUT', `-p tcp --dport 0 -j REDIRECT --to-ports ${OUTBOUND_PORT}`]],
  },
];

/** The sets must be there before (`probeIpSets`). */
export function iptablesHostRules({ probeSource }: HostRulesConfig, family: Family): TableRules[] {
  const set = family === 'v4' ? PROBE_SET_V4 : PROBE_SET_V6;
  const rule = `-m owner --socket-exists -p tcp -m set --match-set ${set} dst -j SNAT --to-source ${probeSource[family]}`;
  return [{ table: 'nat', jumps: ['-I POSTROUTING 1 -j ISTIO_POSTRT'], rules: [['ISTIO_POSTRT', rule]] }];
}

function natRules(config: PodRulesConfig, family: Family): TableRules['rules'] {
  const { ingressMode, redirectDns, virtualInterfaces } = config;
  const start = config.captureOpenConnections ? '' : CONNECTION_START;
  const probe = config.probeSource[family];
  const elsewhere = `! -d ${LOOPBACK[family]}`;
  const rules: [OwnChain, string][] = [];
  for (const name of virtualInterfaces) {
    rules.push(['ISTIO_PRERT', `-i ${name} -p tcp ${start}-j REDIRECT --to-ports ${OUTBOUND_PORT}`]);
    rules.push(['ISTIO_PRERT', `-i ${name} -p tcp -j RETURN`]);
  }
  // Probes first: they must reach the application under STRICT too.
  if (!ingressMode) rules.push(['ISTIO_PRERT', `-s ${probe} -p tcp -m tcp -j ACCEPT`]);
  rules.push(['ISTIO_OUTPUT', `-d ${probe} -p tcp -m tcp -j ACCEPT`]);
  if (!ingressMode) {
    rules.push([
      'ISTIO_PRERT',
      `${elsewhere} -p tcp ! --dport ${HBONE_PORT} ${start}${NOT_ZTUNNEL} -j REDIRECT --to-ports ${INBOUND_PORT}`,
    ]);
  }
  if (redirectDns) {
    rules.push(['ISTIO_OUTPUT', `! -o lo -p udp ${NOT_ZTUNNEL} -m udp --dport 53 -j REDIRECT --to-port ${DNS_PORT}`]);
    rules.push(['ISTIO_OUTPUT', `${elsewhere} -p tcp --dport 53 ${start}${NOT_ZTUNNEL} -j REDIRECT --to-ports ${DNS_PORT}`]);
  }
  rules.push(['ISTIO_OUTPUT', `-p tcp -m mark --mark ${masked(RELAY_MARK)} -j ACCEPT`]);
  rules.push(['ISTIO_OUTPUT', `${elsewhere} -o lo -j ACCEPT`]);
  rules.push(['ISTIO_OUTPUT', `${elsewhere} -p tcp ${start}${NOT_ZTUNNEL} -j REDIRECT --to-ports ${OUTBOUND_PORT}`]);
  return rules;
}

// Replies to what ztunnel opened with a client's address come back through loopback.
const MANGLE: TableRules = {
  table: 'mangle',
  jumps: PREROUTING_FIRST,
  rules: [
    ['ISTIO_PRERT', `-m mark --mark ${masked(ZTUNNEL_MARK)} -j CONNMARK --set-xmark ${masked(RELAY_MARK)}`],
    ['ISTIO_OUTPUT', `-m connmark --mark ${masked(RELAY_MARK)} -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff`],
  ],
};

// ztunnel's own DNS queries get a connection tracking zone of their own.
const RAW: TableRules = {
  table: 'raw',
  jumps: PREROUTING_FIRST,
  rules: [
    ['ISTIO_OUTPUT', `-p udp -m mark --mark ${masked(ZTUNNEL_MARK)} -m udp --dport 53 -j CT --zone 1`],
    ['ISTIO_PRERT', `-p udp ${NOT_ZTUNNEL} -m udp --sport 53 -j CT --zone 1`],
  ],
};

/** Commands for `ipset -exist restore`: one set with exactly these addresses, swapped in as a whole. @param pods as `probeSets` */
export function probeIpSet(pods: ReadonlyMap<string, string>, family: Family): string[] {
  const name = family === 'v4' ? PROBE_SET_V4 : PROBE_SET_V6;
  const next = `${name}-next`;
  const form = `hash:ip family ${family === 'v4' ? 'inet' : 'inet6'} comment`;
  const wanted = [...pods].filter(([ip]) => ip.includes(':') === (family === 'v6'));
  return [
    `create ${name} ${form}`,
    `create ${next} ${form}`,
    `flush ${next}`,
    ...wanted.map(([ip, uid]) => `add ${next} ${ip} comment "${uid}"`),
    `swap ${next} ${name}`,
    `destroy ${next}`,
  ];
}
