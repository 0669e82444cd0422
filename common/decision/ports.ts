/** The ports on which a ztunnel listens in each pod, as far as decisions ask for them (Istio's ztunnel, ARCHITECTURE.md). */
import type { IpAddress } from '../base/address.ts';

/** Where every workload of the mesh takes tunnels. */
export const HBONE_PORT = 15008;

/** Where redirection rules send what a pod opens, and what reaches it in the clear. */
export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;

/** A connection to one of these is a connection to ourselves: outbound capture, plaintext inbound capture, tunnels. */
export const OWN_PORTS: ReadonlySet<number> = new Set([OUTBOUND_PORT, INBOUND_PLAINTEXT_PORT, HBONE_PORT]);

/** Where a pod's SOCKS server listens, on loopback. */
export const SOCKS5_PORT = 15080;

/** 127.0.0.0/8 or ::1. */
export const isLoopback = (ip: IpAddress): boolean => ip === '::1' || ip.startsWith('127.');
