/**
 * One rule of policy routing with its table: packets with a mark are delivered locally, whatever their destination (ip-rule(8), ip-route(8):
 * `local 0.0.0.0/0 dev lo`). For the network namespace that the thread is in. Both directions can be repeated.
 */
import { AF_INET, AF_INET6 } from './libc.ts';
import {
  attributeU32,
  NETLINK_ROUTE,
  type NetlinkSocket,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  unless,
  withNetlink,
} from './netlink.ts';

export interface MarkedDelivery {
  readonly mark: number;
  readonly mask: number;
  /** Routing table, below 256. */
  readonly table: number;
  readonly priority: number;
}

const RTM = { newRoute: 24, deleteRoute: 25, newRule: 32, deleteRule: 33 } as const;
const RTA_OIF = 4;
const FRA = { priority: 6, fwmark: 10, table: 15, fwmask: 16 } as const;
const RTPROT_BOOT = 3;
const RT_SCOPE_HOST = 254;
const RTN_LOCAL = 2;
const FR_ACT_TO_TBL = 1;
// Loopback is the first interface of every network namespace.
const LOOPBACK_INDEX = 1;

/** @param ipv6 false where loopback has IPv6 disabled: the kernel would refuse the route. @throws {LinuxError} */
export function addMarkedDelivery(delivery: MarkedDelivery, ipv6: boolean): void {
  withNetlink(NETLINK_ROUTE, (socket) => {
    for (const family of families(ipv6)) {
      const route = routeMessage(family, delivery);
      const flags = NLM_F_ACK | NLM_F_CREATE;
      unless(['EEXIST'], () => void socket.request({ type: RTM.newRoute, flags: flags | NLM_F_REPLACE, payload: route, about: ROUTE }));
      const rule = ruleMessage(family, delivery);
      unless(['EEXIST'], () => void socket.request({ type: RTM.newRule, flags: flags | NLM_F_EXCL, payload: rule, about: RULE }));
    }
  });
}

/** @throws {LinuxError} */
export function removeMarkedDelivery(delivery: MarkedDelivery, ipv6: boolean): void {
  withNetlink(NETLINK_ROUTE, (socket) => {
    for (const family of families(ipv6)) {
      remove(socket, RTM.deleteRule, ruleMessage(family, delivery), RULE);
      remove(socket, RTM.deleteRoute, routeMessage(family, delivery), ROUTE);
    }
  });
}

const ROUTE = 'the local route of marked packets';
const RULE = 'the routing rule of marked packets';
const families = (ipv6: boolean): readonly number[] => (ipv6 ? [AF_INET, AF_INET6] : [AF_INET]);

function remove(socket: NetlinkSocket, type: number, payload: Buffer, about: string): void {
  unless(['ENOENT', 'ESRCH', 'EAFNOSUPPORT'], () => void socket.request({ type, flags: NLM_F_ACK, payload, about }));
}

// struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
function routeMessage(family: number, { table }: MarkedDelivery): Buffer {
  const header = Buffer.from([family, 0, 0, 0, table, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0]);
  return Buffer.concat([header, attributeU32(RTA_OIF, LOOPBACK_INDEX)]);
}

// struct fib_rule_hdr: family, lengths of destination and source, tos, table, two reserved, action, flags.
function ruleMessage(family: number, { mark, mask, table, priority }: MarkedDelivery): Buffer {
  const header = Buffer.from([family, 0, 0, 0, table, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0]);
  return Buffer.concat([
    header,
    attributeU32(FRA.priority, priority),
    attributeU32(FRA.fwmark, mark),
    attributeU32(FRA.fwmask, mask),
    attributeU32(FRA.table, table),
  ]);
}
