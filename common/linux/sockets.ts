/**
 * Sockets that Node cannot make by itself: inside another network namespace, marked, transparent, bound to a foreign source address; and
 * the address that a redirected connection was meant for. Every descriptor is non-blocking and close-on-exec, and belongs to the caller
 * until it is handed to node:net or node:dgram (see node.ts).
 */
import { formatSocketAddress, type IpAddress, isIpv6, type SocketAddress } from '../base/address.ts';
import { closeFd } from './descriptor.ts';
import {
  AF_INET,
  AF_INET6,
  addressOf,
  call,
  EAGAIN,
  EINPROGRESS,
  ENOENT,
  ENOPROTOOPT,
  ENOTCONN,
  EOPNOTSUPP,
  errnoOf,
  IP_BIND_ADDRESS_NO_PORT,
  IP_FREEBIND,
  IP_TRANSPARENT,
  IPV6_FREEBIND,
  IPV6_TRANSPARENT,
  IPV6_V6ONLY,
  isLinuxError,
  libc,
  MSG_DONTWAIT,
  MSG_PEEK,
  SHUT_WR,
  SO_ATTACH_REUSEPORT_CBPF,
  SO_DETACH_REUSEPORT_BPF,
  SO_KEEPALIVE,
  SO_MARK,
  SO_ORIGINAL_DST,
  SO_REUSEADDR,
  SO_REUSEPORT,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_IP,
  SOL_IPV6,
  SOL_SOCKET,
  SOL_TCP,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINTVL,
  TCP_NODELAY,
  TCP_USER_TIMEOUT,
  tryCall,
} from './libc.ts';
import type { Netns } from './netns.ts';
import { decodeSocketAddress, encodeSocketAddress } from './sockaddr.ts';

export { closeFd } from './descriptor.ts';

const DEFAULT_BACKLOG = 1024;

export interface ListenOptions {
  /** The thread's own namespace where it is not given. */
  readonly netns?: Netns;
  /** `::` takes IPv4 as well; where the kernel has no IPv6 at all it means 0.0.0.0. */
  readonly address: IpAddress;
  readonly port: number;
  readonly reusePort?: boolean;
  /** `try` goes on without where the process lacks CAP_NET_ADMIN and CAP_NET_RAW. */
  readonly transparent?: 'try' | 'require' | 'no';
  /** SO_MARK of the listener, which accepted sockets inherit. */
  readonly mark?: number;
  readonly backlog?: number;
}

export interface Keepalive {
  /** Idle time before the first probe. */
  readonly timeS: number;
  readonly intervalS: number;
  readonly probes: number;
  /** How long what was sent may stay unacknowledged before the connection is given up; the kernel's own measure where absent. */
  readonly userTimeoutMs?: number;
}

export interface DialOptions {
  readonly netns?: Netns | undefined;
  readonly family: 4 | 6;
  readonly mark?: number | undefined;
  /** Binds to an address that need not be the machine's own. Port 0: any, chosen at connect, so that ports are shared by destinations. */
  readonly source?: SocketAddress | undefined;
  readonly keepalive?: Keepalive | undefined;
}

export interface UdpOptions {
  readonly netns?: Netns;
  readonly address: IpAddress;
  readonly port: number;
  readonly mark?: number;
  readonly reusePort?: boolean;
}

/** @returns a listening TCP descriptor. @throws {LinuxError} EADDRINUSE, EACCES, EPERM (mark, transparent), EADDRNOTAVAIL, naming the address */
export function listenTcp(options: ListenOptions): number {
  const { address, port, reusePort = false, transparent = 'no', mark, backlog = DEFAULT_BACKLOG } = options;
  return inside(options.netns, () =>
    bound(SOCK_STREAM, address, port, (fd, family) => {
      setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, 'SO_REUSEADDR');
      if (reusePort) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1, 'SO_REUSEPORT');
      if (mark !== undefined) setMark(fd, mark);
      if (transparent !== 'no') makeTransparent(fd, family, transparent);
      return () => call('listen', formatSocketAddress({ ip: address, port }), () => libc.listen(fd, backlog));
    }),
  );
}

/** @returns a TCP descriptor that is not yet connected, with TCP_NODELAY. @throws {LinuxError} EPERM (mark, source), EADDRINUSE, EADDRNOTAVAIL */
export function tcpSocket({ netns, family, mark, source, keepalive }: DialOptions): number {
  return inside(netns, () =>
    open(SOCK_STREAM, family, (fd) => {
      if (mark !== undefined) setMark(fd, mark);
      setOption(fd, SOL_TCP, TCP_NODELAY, 1, 'TCP_NODELAY');
      if (keepalive) setKeepalive(fd, keepalive);
      if (!source) return;
      makeTransparent(fd, family, 'require');
      setOption(fd, family === 4 ? SOL_IP : SOL_IPV6, family === 4 ? IP_FREEBIND : IPV6_FREEBIND, 1, 'IP_FREEBIND');
      setOption(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1, 'IP_BIND_ADDRESS_NO_PORT');
      bind(fd, family, source);
    }),
  );
}

/** @returns a bound UDP descriptor, for `dgram.createSocket(…).bind({ fd })`. @throws {LinuxError} as listenTcp */
export function udpSocket({ netns, address, port, mark, reusePort = false }: UdpOptions): number {
  return inside(netns, () =>
    bound(SOCK_DGRAM, address, port, (fd) => {
      if (reusePort) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1, 'SO_REUSEPORT');
      if (mark !== undefined) setMark(fd, mark);
      return undefined;
    }),
  );
}

/**
 * Where a connection was going before a REDIRECT rule took it.
 * @returns undefined where connection tracking does not know the connection; for one that no rule touched, its own destination
 * @throws {LinuxError} EBADF, ENOTSOCK
 */
export function originalDestination(fd: number): SocketAddress | undefined {
  // IPv4 first: a dual-stack socket holds IPv4 connections too, and the IPv6 question is answered ENOENT for them.
  return originalAt(fd, SOL_IP) ?? originalAt(fd, SOL_IPV6);
}

/** Takes a connection that waits. @returns its descriptor and who it is from; undefined where there is none, or where it cannot be taken */
export function acceptAtOnce(listener: number): { readonly fd: number; readonly remote: SocketAddress | undefined } | undefined {
  optionValue.writeUInt32LE(address.length);
  const fd = libc.accept4(listener, address, optionValue, SOCK_NONBLOCK | SOCK_CLOEXEC);
  return fd < 0 ? undefined : { fd, remote: decodeSocketAddress(address, optionValue.readUInt32LE()) };
}

/** Who a connected socket's peer is; undefined where it is connected no more. */
export const peerAddress = (fd: number): SocketAddress | undefined => nameOf(() => libc.getpeername(fd, address, optionValue));

/** A socket's own address; undefined where the descriptor is none. */
export const ownAddress = (fd: number): SocketAddress | undefined => nameOf(() => libc.getsockname(fd, address, optionValue));

/**
 * Connects, where that is over before the call returns: so it is with a listener of the same namespace, whose answer the kernel handles as it lets
 * go of the socket.
 * @param fd of tcpSocket
 * @returns 0 when it is connected, EALREADY where it takes longer (it goes on), another errno where it has failed
 */
export function connectAtOnce(fd: number, { ip, port }: SocketAddress): number {
  const sockaddr = lastDialled.encode(ip, port, isIpv6(ip) ? 6 : 4);
  const connect = (): number => errnoOf(() => libc.connect(fd, sockaddr, sockaddr.length));
  const errno = connect();
  // The second call says what has come of the first one.
  return errno === EINPROGRESS ? connect() : errno;
}

/**
 * Whether the peer of a connected socket has ended its direction and everything before that was read. Takes nothing away but an error.
 * @throws {LinuxError} the socket's, ECONNRESET above all
 */
export const hasEnded = (fd: number): boolean =>
  tryCall('recv', undefined, NOTHING_YET, () => libc.recv(fd, optionValue, 1, MSG_PEEK | MSG_DONTWAIT)) === 0;

/** Ends our direction of a connected socket, with FIN. @returns false where it is connected no more */
export const endSending = (fd: number): boolean => tryCall('shutdown', undefined, GONE, () => libc.shutdown(fd, SHUT_WR)) === 0;

/**
 * Has the kernel give new connections to one of the listeners that share a port by SO_REUSEPORT, for all of them (socket(7)).
 * @param index which, in the order in which they began; where there are fewer, all have connections as before
 * @throws {LinuxError} EINVAL where the port is not shared; ENOPROTOOPT where the kernel has no such programs
 */
export function gatherConnections(fd: number, index: number): void {
  // struct sock_filter: BPF_RET | BPF_K, no jumps, the value.
  const program = Buffer.alloc(8);
  program.writeUInt16LE(BPF_RETURN);
  program.writeUInt32LE(index, 4);
  // struct sock_fprog: how many instructions, and where.
  const programs = Buffer.alloc(16);
  programs.writeUInt16LE(1);
  programs.writeBigUInt64LE(addressOf(program), 8);
  const name = 'SO_ATTACH_REUSEPORT_CBPF';
  call('setsockopt', name, () => libc.setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, programs, programs.length));
}

/** Undoes gatherConnections. @throws {LinuxError} EINVAL, ENOPROTOOPT */
export function spreadConnections(fd: number): void {
  optionValue.writeUInt32LE(0);
  const name = 'SO_DETACH_REUSEPORT_BPF';
  tryCall('setsockopt', name, NOTHING_ATTACHED, () => libc.setsockopt(fd, SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, optionValue, 4));
}

/** Sets SO_MARK. @throws {LinuxError} EPERM without CAP_NET_ADMIN */
export function setMark(fd: number, mark: number): void {
  setOption(fd, SOL_SOCKET, SO_MARK, mark, 'SO_MARK');
}

/** @throws {LinuxError} EINVAL for times out of the kernel's range */
export function setKeepalive(fd: number, { timeS, intervalS, probes, userTimeoutMs }: Keepalive): void {
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1, 'SO_KEEPALIVE');
  setOption(fd, SOL_TCP, TCP_KEEPIDLE, timeS, 'TCP_KEEPIDLE');
  setOption(fd, SOL_TCP, TCP_KEEPINTVL, intervalS, 'TCP_KEEPINTVL');
  setOption(fd, SOL_TCP, TCP_KEEPCNT, probes, 'TCP_KEEPCNT');
  if (userTimeoutMs !== undefined) setOption(fd, SOL_TCP, TCP_USER_TIMEOUT, userTimeoutMs, 'TCP_USER_TIMEOUT');
}

const inside = <T>(netns: Netns | undefined, fn: () => T): T => (netns ? netns.run(fn) : fn());

/** Opens a socket, prepares it, binds it, and finishes with what `prepare` returned. */
function bound(type: number, address: IpAddress, port: number, prepare: (fd: number, family: 4 | 6) => (() => void) | undefined): number {
  const attempt = (ip: IpAddress): number => {
    const family = isIpv6(ip) ? 6 : 4;
    return open(type, family, (fd) => {
      if (ip === '::') setOption(fd, SOL_IPV6, IPV6_V6ONLY, 0, 'IPV6_V6ONLY');
      const finish = prepare(fd, family);
      bind(fd, family, { ip, port });
      finish?.();
    });
  };
  try {
    return attempt(address);
  } catch (error) {
    if (address === '::' && isLinuxError(error, 'EAFNOSUPPORT')) return attempt('0.0.0.0');
    throw error;
  }
}

function open(type: number, family: 4 | 6, prepare: (fd: number) => void): number {
  const fd = call('socket', undefined, () => libc.socket(family === 4 ? AF_INET : AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  try {
    prepare(fd);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

function bind(fd: number, family: 4 | 6, address: SocketAddress): void {
  const sockaddr = lastBound.encode(address.ip, address.port, family);
  call('bind', formatSocketAddress(address), () => libc.bind(fd, sockaddr, sockaddr.length));
}

function makeTransparent(fd: number, family: 4 | 6, need: 'try' | 'require'): void {
  try {
    if (family === 4) setOption(fd, SOL_IP, IP_TRANSPARENT, 1, 'IP_TRANSPARENT');
    else setOption(fd, SOL_IPV6, IPV6_TRANSPARENT, 1, 'IPV6_TRANSPARENT');
  } catch (error) {
    if (need === 'require' || !isLinuxError(error, 'EPERM')) throw error;
  }
}

function setOption(fd: number, level: number, option: number, value: number, name: string): void {
  optionValue.writeUInt32LE(value >>> 0);
  call('setsockopt', name, () => libc.setsockopt(fd, level, option, optionValue, 4));
}

function originalAt(fd: number, level: number): SocketAddress | undefined {
  optionValue.writeUInt32LE(address.length);
  const found = tryCall('getsockopt', 'SO_ORIGINAL_DST', NO_ORIGINAL, () =>
    libc.getsockopt(fd, level, SO_ORIGINAL_DST, address, optionValue),
  );
  return found === undefined ? undefined : decodeSocketAddress(address, optionValue.readUInt32LE());
}

// EOPNOTSUPP: the level is not the socket's family. The others: no connection tracking in this namespace, or not for this connection.
const NO_ORIGINAL: ReadonlySet<number> = new Set([ENOENT, ENOPROTOOPT, EOPNOTSUPP]);

const BPF_RETURN = 0x06;
const NOTHING_ATTACHED: ReadonlySet<number> = new Set([ENOENT]);

const GONE: ReadonlySet<number> = new Set([ENOTCONN]);
const NOTHING_YET: ReadonlySet<number> = new Set([EAGAIN]);

/** Each connection asks several of these; the kernel is done with the memory when it has answered. */
const optionValue = Buffer.alloc(4);
const address = Buffer.alloc(28);

function nameOf(ask: () => number): SocketAddress | undefined {
  optionValue.writeUInt32LE(address.length);
  return ask() < 0 ? undefined : decodeSocketAddress(address, optionValue.readUInt32LE());
}

/** The last address of its kind: whoever is dialled next, or dials, is the same one more often than not. */
class LastAddress {
  #ip: IpAddress | undefined;
  #port = 0;
  #family: 4 | 6 = 4;
  #sockaddr: Buffer = Buffer.alloc(0);

  encode(ip: IpAddress, port: number, family: 4 | 6): Buffer {
    if (ip === this.#ip && port === this.#port && family === this.#family) return this.#sockaddr;
    this.#sockaddr = encodeSocketAddress(ip, port, family);
    this.#ip = ip;
    this.#port = port;
    this.#family = family;
    return this.#sockaddr;
  }
}

const lastDialled = new LastAddress();
const lastBound = new LastAddress();
