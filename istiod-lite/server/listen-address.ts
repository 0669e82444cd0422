/** The address that means all of them: `::` takes IPv4 too, where the kernel has IPv6 at all. */
import { existsSync } from 'node:fs';

export const anyAddress = (): string => (existsSync('/proc/net/if_inet6') ? '::' : '0.0.0.0');
