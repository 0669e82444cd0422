/**
 * Routing inside an enrolled pod: packets with the relay mark are delivered locally whatever their destination, so that replies reach
 * ztunnel's sockets that carry a client's address (Istio, cni/pkg/iptables). Argument lists for `ip`.
 */
import { MARK_MASK, RELAY_MARK, RELAY_RULE_PRIORITY, RELAY_TABLE } from './constants.ts';

export interface IpCommand {
  readonly arguments: readonly string[];
  /** What `ip` says on standard error when there was nothing to do. */
  readonly doneAlready: RegExp;
}

const RULE = `fwmark 0x${RELAY_MARK.toString(16)}/0x${MARK_MASK.toString(16)} priority ${RELAY_RULE_PRIORITY} lookup ${RELAY_TABLE}`.split(
  ' ',
);
const families = (ipv6: boolean): readonly (readonly [flag: string, everything: string])[] =>
  ipv6
    ? [
        ['-4', '0.0.0.0/0'],
        ['-6', '::/0'],
      ]
    : [['-4', '0.0.0.0/0']];

/** @param ipv6 false where loopback has IPv6 disabled: the kernel would refuse the route */
export function addRoutes(ipv6: boolean): IpCommand[] {
  return families(ipv6).flatMap(([flag, everything]) => [
    { arguments: [flag, 'route', 'replace', ...localRoute(everything)], doneAlready: /File exists/ },
    { arguments: [flag, 'rule', 'add', ...RULE], doneAlready: /File exists/ },
  ]);
}

export function removeRoutes(ipv6: boolean): IpCommand[] {
  return families(ipv6).flatMap(([flag, everything]) => [
    { arguments: [flag, 'rule', 'del', ...RULE], doneAlready: /No such file|No such process|does not exist/ },
    { arguments: [flag, 'route', 'del', ...localRoute(everything)], doneAlready: /No such file|No such process|does not exist/ },
  ]);
}

const localRoute = (everything: string): string[] => ['local', everything, 'dev', 'lo', 'table', String(RELAY_TABLE), 'scope', 'host'];
