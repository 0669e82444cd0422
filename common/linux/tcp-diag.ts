/**
 * The TCP sockets of a network namespace, and ending one of them from outside its process (sock_diag(7); Linux, net/ipv4/inet_diag.c).
 * What the kernel ends that way is reset towards the other end too, and the program that had it reads ECONNABORTED.
 */
import { type IpAddress, ipFromBytes } from '../base/address.ts';
import { AF_INET, AF_INET6, isLinuxError } from './libc.ts';
import { findAttribute, NETLINK_SOCK_DIAG, type NetlinkSocket, NLM_F_ACK, NLM_F_DUMP, withNetlink } from './netlink.ts';

/** States of include/net/tcp_states.h. */
export const TCP_STATE = {
  established: 1,
  synSent: 2,
  synReceived: 3,
  finWait1: 4,
  finWait2: 5,
  closeWait: 8,
  newSynReceived: 12,
} as const;

export interface TcpSocket {
  readonly family: 4 | 6;
  readonly state: number;
  readonly local: { readonly ip: IpAddress; readonly port: number };
  readonly remote: { readonly ip: IpAddress; readonly port: number };
  /** SO_MARK; 0 where the kernel does not tell (it wants CAP_NET_ADMIN). */
  readonly mark: number;
  /** Names the socket, and no other one ever after; the kernel's own bytes. */
  readonly cookie: string;
  /** 0 where no process has it: not yet accepted, or closed and still sending. */
  readonly inode: number;
  /** The kernel's whole name for it, to be given back. */
  readonly id: Buffer;
}

const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const IPPROTO_TCP = 6;
const INET_DIAG_MARK = 15;
const REQUEST_BYTES = 56;
const AT_STATES = 4;
const AT_ID = 8;
const ID_BYTES = 48;
const ANSWER_BYTES = 72;
const DUMP_ATTEMPTS = 5;

/**
 * All TCP sockets in one of `states`, of the namespace that the thread is in. Kernels without IPv6 have none of that family.
 * @throws {LinuxError}
 */
export function listTcpSockets(states: readonly number[]): TcpSocket[] {
  const mask = states.reduce((bits, state) => bits | (1 << state), 0);
  return withNetlink(NETLINK_SOCK_DIAG, (socket) =>
    [AF_INET, AF_INET6].flatMap((family) => {
      const payload = Buffer.alloc(REQUEST_BYTES);
      payload[0] = family;
      payload[1] = IPPROTO_TCP;
      payload.writeUInt32LE(mask, AT_STATES);
      return dump(socket, payload).flatMap((answer) => decode(answer) ?? []);
    }),
  );
}

/**
 * Ends a socket. @returns false where it has ended by itself meanwhile
 * @throws {LinuxError} EOPNOTSUPP where the kernel was built without CONFIG_INET_DIAG_DESTROY, EPERM without CAP_NET_ADMIN
 */
export function destroyTcpSocket({ family, id, local, remote }: TcpSocket): boolean {
  const payload = Buffer.alloc(REQUEST_BYTES);
  payload[0] = family === 4 ? AF_INET : AF_INET6;
  payload[1] = IPPROTO_TCP;
  payload.set(id, AT_ID);
  const about = `end connection ${local.ip}:${local.port} - ${remote.ip}:${remote.port}`;
  try {
    withNetlink(NETLINK_SOCK_DIAG, (socket) => socket.request({ type: SOCK_DESTROY, flags: NLM_F_ACK, payload, about }));
    return true;
  } catch (error) {
    if (isLinuxError(error, 'ENOENT')) return false;
    throw error;
  }
}

/** A table that changed while it was read is read again: a socket may have been skipped. */
function dump(socket: NetlinkSocket, payload: Buffer): Buffer[] {
  for (let attempt = 1; ; attempt++) {
    try {
      return socket.request({ type: SOCK_DIAG_BY_FAMILY, flags: NLM_F_DUMP, payload, about: 'list TCP sockets' });
    } catch (error) {
      if (isLinuxError(error, 'ENOENT', 'EAFNOSUPPORT')) return [];
      if (!isLinuxError(error, 'EINTR') || attempt === DUMP_ATTEMPTS) throw error;
    }
  }
}

// struct inet_diag_msg: family, state, timer, retransmits, then the id (ports, addresses, interface, cookie), then five numbers.
function decode(answer: Buffer): TcpSocket | undefined {
  if (answer.length < ANSWER_BYTES) return undefined;
  const family = answer[0] === AF_INET ? 4 : 6;
  const id = answer.subarray(4, 4 + ID_BYTES);
  const width = family === 4 ? 4 : 16;
  const local = ipFromBytes(id.subarray(4, 4 + width));
  const remote = ipFromBytes(id.subarray(20, 20 + width));
  if (local === undefined || remote === undefined) return undefined;
  const mark = findAttribute(answer, ANSWER_BYTES, INET_DIAG_MARK);
  return {
    family,
    state: answer[1] ?? 0,
    local: { ip: local, port: id.readUInt16BE(0) },
    remote: { ip: remote, port: id.readUInt16BE(2) },
    mark: mark && mark.length >= 4 ? mark.readUInt32LE(0) : 0,
    cookie: id.subarray(40, 48).toString('hex'),
    inode: answer.readUInt32LE(68),
    id,
  };
}
