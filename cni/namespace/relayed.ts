/**
 * How many connections ztunnel still relays for a pod, read from the pod's own socket tables: accepted ones on the capture ports, and those
 * that carry a client's address inside the pod. Pooled tunnels on 15008 are not counted: they stay open without a user.
 */
import { readFileSync } from 'node:fs';
import { ipFromBytes } from '../../common/base/address.ts';
import { INBOUND_PORT, OUTBOUND_PORT } from '../rules/constants.ts';
import type { PodNetns } from './run-inside.ts';

// States of include/net/tcp_states.h that have nobody's data in flight.
const OVER = new Set(['06', '07', '0A', '0C']);

/** @param podIps addresses of the pod, canonical */
export function countRelayed(netns: PodNetns, podIps: readonly string[]): number {
  const tables = netns.run(() => ['tcp', 'tcp6'].map((name) => readTable(`/proc/thread-self/net/${name}`)));
  return tables.reduce((sum, table) => sum + countInTable(table, podIps), 0);
}

/** @param table text of /proc/net/tcp or tcp6 */
export function countInTable(table: string, podIps: readonly string[]): number {
  let relayed = 0;
  for (const line of table.split('\n').slice(1)) {
    const [, local = '', , state = ''] = line.trim().split(/\s+/);
    const [address = '', port = ''] = local.split(':');
    if (address === '' || OVER.has(state)) continue;
    const number = Number.parseInt(port, 16);
    const captured = number === OUTBOUND_PORT || number === INBOUND_PORT;
    if (captured || isForeign(decodeAddress(address), podIps)) relayed++;
  }
  return relayed;
}

const isForeign = (ip: string, podIps: readonly string[]): boolean => !(ip.startsWith('127.') || ip === '::1' || podIps.includes(ip));

/** The kernel prints each word of the address as a number of the machine: little-endian. */
function decodeAddress(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  bytes.swap32();
  return ipFromBytes(bytes) ?? hex;
}

function readTable(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // No IPv6 in this kernel.
    return '';
  }
}
