/**
 * Which of a pod's open connections the mesh does not carry: those that were there before its rules. Read from the sockets alone, so that
 * an agent that was restarted finds the same: a connection that the mesh carries has ztunnel's other half in the same namespace.
 */
import { isLinuxError } from '../../common/linux/libc.ts';
import { destroyTcpSocket, listTcpSockets, TCP_STATE, type TcpSocket } from '../../common/linux/tcp-diag.ts';
import { DNS_PORT, HBONE_PORT, INBOUND_PORT, MARK_MASK, OUTBOUND_PORT, ZTUNNEL_MARK } from '../rules/constants.ts';
import type { PodRulesConfig } from '../rules/pod-rules.ts';
import type { PodNetns } from './run-inside.ts';

/** What of the rules decides which connections they would have taken. */
export type CapturedTraffic = Pick<PodRulesConfig, 'ingressMode' | 'ipv6' | 'probeSource'>;

const LISTEN = 10;
const OPEN = [
  TCP_STATE.established,
  TCP_STATE.synSent,
  TCP_STATE.synReceived,
  TCP_STATE.newSynReceived,
  TCP_STATE.finWait1,
  TCP_STATE.finWait2,
  TCP_STATE.closeWait,
];
const OWN_PORTS = new Set([OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT, DNS_PORT]);

/** @throws {LinuxError} */
export function findOutside(netns: PodNetns, captured: CapturedTraffic): TcpSocket[] {
  return outsideMesh(
    netns.run(() => listTcpSockets([...OPEN, LISTEN])),
    captured,
  );
}

/** @param sockets of the whole namespace, with those that listen */
export function outsideMesh(sockets: readonly TcpSocket[], captured: CapturedTraffic): TcpSocket[] {
  const listening = new Set(sockets.filter(({ state }) => state === LISTEN).map(({ local }) => local.port));
  const open = sockets.filter(({ state }) => state !== LISTEN);
  // Ends whose other end is in the same namespace: the pod talking to itself, and what ztunnel delivers with the caller's address.
  const ends = new Set(open.map(({ local, remote }) => `${end(local)} ${end(remote)}`));
  const takenOut = new Set(open.filter(({ local }) => OWN_PORTS.has(local.port)).map(({ remote }) => end(remote)));
  return open.filter((socket) => {
    const { local, remote, mark, inode, state } = socket;
    if ((mark & MARK_MASK) === ZTUNNEL_MARK || OWN_PORTS.has(local.port)) return false;
    if (isLoopback(local.ip) || isLoopback(remote.ip)) return false;
    if (!captured.ipv6 && remote.ip.includes(':')) return false;
    if (Object.values(captured.probeSource).includes(remote.ip)) return false;
    if (captured.ingressMode && listening.has(local.port)) return false;
    // Closed by its program, and only the kernel still says goodbye.
    if (inode === 0 && (state === TCP_STATE.finWait1 || state === TCP_STATE.finWait2)) return false;
    return !takenOut.has(end(local)) && !ends.has(`${end(remote)} ${end(local)}`);
  });
}

/**
 * Ends connections at once; the pod's program and the other side are told (a reset).
 * @returns how many were still there
 * @throws {LinuxError}; {Error} where the kernel cannot, saying what to do
 */
export function cutConnections(netns: PodNetns, connections: readonly TcpSocket[]): number {
  try {
    return netns.run(() => connections.filter((connection) => destroyTcpSocket(connection)).length);
  } catch (error) {
    if (!isLinuxError(error, 'EOPNOTSUPP')) throw error;
    const count = connections.length;
    throw new Error(
      `${count} connections from before it joined the mesh should end and cannot: this kernel lacks CONFIG_INET_DIAG_DESTROY; restart the pod`,
      { cause: error },
    );
  }
}

const end = ({ ip, port }: { readonly ip: string; readonly port: number }): string => `${ip} ${port}`;
const isLoopback = (ip: string): boolean => ip.startsWith('127.') || ip === '::1';
