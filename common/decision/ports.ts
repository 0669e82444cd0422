/** The ports on which a ztunnel listens in each pod, as far as decisions ask for them (istio-data-plane.md §1.1). */
import type { IpAddress } from '../base/address.ts';

export const HBONE_PORT = 15008;

/** A connection to one of these is a connection to ourselves: outbound capture, plaintext inbound capture, tunnels. */
export const OWN_PORTS: ReadonlySet<number> = new Set([15001, 15006, HBONE_PORT]);

export const isLoopback = (ip: IpAddress): boolean => ip === '::1' || ip.startsWith('127.');
