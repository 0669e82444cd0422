/**
 * How many connections ztunnel still relays for a pod, read from the pod's own socket tables: accepted ones on the capture ports, and those
 * that carry a client's address inside the pod. Pooled tunnels on 15008 are not counted: they stay open without a user.
 */
import { readFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { ipFromBytes } from '../../common/base/address.ts';
import { INBOUND_PORT, OUTBOUND_PORT } from '../rules/constants.ts';
import type { PodNetns } from './run-inside.ts';

// States of include/net/tcp_states.h that have nobody's data in flight.
const OVER = new Set(['06', '07', '0A', '0C']);

export function countRelayed(netns: PodNetns): number {
  return netns.run(() => {
    // The interfaces, not the pod's status: a pod may have addresses that Kubernetes does not know.
    const own = new Set(Object.values(networkInterfaces()).flatMap((addresses = []) => addresses.map(({ address }) => address)));
    const tables = ['tcp', 'tcp6'].map((name) => readTable(`/proc/thread-self/net/${name}`));
    return tables.reduce((sum, table) => sum + countInTable(table, own), 0);
  });
}

/**
 * @param table text of /proc/net/tcp or tcp6
 * @param own addresses of the pod's interfaces, canonical
 */
export function countInTable(table: string, own: ReadonlySet<string>): number {
  let relayed = 0;
  for (const line of table.split('\n').slice(1)) {
    const [, local = '', , state = ''] = line.trim().split(/\s+/);
    const [address = '', port = ''] = local.split(':');
    if (address === '' || OVER.has(state)) continue;
    const number = Number.parseInt(port, 16);
    const captured = number === OUTBOUND_PORT || number === INBOUND_PORT;
    if (captured || isForeign(decodeAddress(address), own)) relayed++;
  }
  return relayed;
}

const isForeign = (ip: string, own: ReadonlySet<string>): boolean => !(ip.startsWith('127.') || ip === '::1' || own.has(ip));

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
