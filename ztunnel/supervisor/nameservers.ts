/** The node's nameservers, as resolv.conf(5) names them. */
import { readFileSync } from 'node:fs';
import { parseIp, type SocketAddress } from '../../common/base/address.ts';

const DNS_PORT = 53;
/** The resolver of the C library uses no more either. */
const MAX_NAMESERVERS = 3;

/** Empty where the file cannot be read or names none. */
export function nameserversOf(path: string): SocketAddress[] {
  try {
    return parseResolvConf(readFileSync(path, 'utf8'));
  } catch {
    // Without the file there is nobody to ask; a query for what the mesh does not know is then answered SERVFAIL.
    return [];
  }
}

export function parseResolvConf(text: string): SocketAddress[] {
  return text
    .split('\n')
    .flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? [])
    .flatMap((address) => {
      const ip = parseIp(address);
      return ip === undefined ? [] : [{ ip, port: DNS_PORT }];
    })
    .slice(0, MAX_NAMESERVERS);
}
