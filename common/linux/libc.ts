/**
 * The C library functions that the mesh needs and Node does not offer, declared once, with the numbers of Linux on x86-64 and arm64
 * (little-endian, 64-bit; both have the same values here). Buffers are passed as they are: marshalled out-parameters cost twice as much.
 * Nothing here is called asynchronously: koffi's pool threads would keep the namespace that such a call left them in.
 */
import { getSystemErrorMessage, getSystemErrorName } from 'node:util';
import koffi from 'koffi';

const library = koffi.load('libc.so.6');

export const libc = {
  socket: library.func('int socket(int domain, int type, int protocol)') as (domain: number, type: number, protocol: number) => number,
  bind: library.func('int bind(int fd, const void *addr, uint32_t len)') as (fd: number, address: Buffer, length: number) => number,
  connect: library.func('int connect(int fd, const void *addr, uint32_t len)') as (fd: number, address: Buffer, length: number) => number,
  listen: library.func('int listen(int fd, int backlog)') as (fd: number, backlog: number) => number,
  accept4: library.func('int accept4(int fd, void *addr, void *len, int flags)') as (
    fd: number,
    address: Buffer | null,
    length: Buffer | null,
    flags: number,
  ) => number,
  getsockname: library.func('int getsockname(int fd, void *addr, void *len)') as (fd: number, address: Buffer, length: Buffer) => number,
  getpeername: library.func('int getpeername(int fd, void *addr, void *len)') as (fd: number, address: Buffer, length: Buffer) => number,
  setsockopt: library.func('int setsockopt(int fd, int level, int name, const void *value, uint32_t len)') as (
    fd: number,
    level: number,
    name: number,
    value: Buffer,
    length: number,
  ) => number,
  getsockopt: library.func('int getsockopt(int fd, int level, int name, void *value, void *len)') as (
    fd: number,
    level: number,
    name: number,
    value: Buffer,
    length: Buffer,
  ) => number,
  sendmsg: library.func('long sendmsg(int fd, const void *message, int flags)') as (fd: number, header: Buffer, flags: number) => number,
  recvmsg: library.func('long recvmsg(int fd, void *message, int flags)') as (fd: number, header: Buffer, flags: number) => number,
  send: library.func('long send(int fd, const void *data, size_t length, int flags)') as (
    fd: number,
    data: Buffer,
    length: number,
    flags: number,
  ) => number,
  recv: library.func('long recv(int fd, void *data, size_t length, int flags)') as (
    fd: number,
    data: Buffer,
    length: number,
    flags: number,
  ) => number,
  shutdown: library.func('int shutdown(int fd, int how)') as (fd: number, how: number) => number,
  unshare: library.func('int unshare(int flags)') as (flags: number) => number,
  setns: library.func('int setns(int fd, int type)') as (fd: number, type: number) => number,
  ioctl: library.func('int ioctl(int fd, unsigned long request, uint64_t argument)') as (
    fd: number,
    request: number,
    argument: number,
  ) => number,
  open: library.func('int open(const char *path, int flags)') as (path: string, flags: number) => number,
  close: library.func('int close(int fd)') as (fd: number) => number,
  getrlimit: library.func('int getrlimit(int resource, void *limit)') as (resource: number, limit: Buffer) => number,
  setrlimit: library.func('int setrlimit(int resource, const void *limit)') as (resource: number, limit: Buffer) => number,
  prctl: library.func('int prctl(int option, uint64_t a, uint64_t b, uint64_t c, uint64_t d)') as (
    option: number,
    a: number,
    b: number,
    c: number,
    d: number,
  ) => number,
  // For calls that the C library has no function for.
  syscall: library.func('long syscall(long number, uint64_t a, uint64_t b, const void *c)') as (
    number: number,
    a: number,
    b: number,
    c: Buffer,
  ) => number,
  madvise: library.func('int madvise(uint64_t address, size_t length, int advice)') as (
    address: number,
    length: number,
    advice: number,
  ) => number,
  malloc_trim: library.func('int malloc_trim(size_t pad)') as (pad: number) => number,
  // process.abort() is refused in worker threads.
  abort: library.func('void abort()') as () => void,
} as const;

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_SEQPACKET = 5;
export const AF_NETLINK = 16;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0o4000;
export const SOCK_CLOEXEC = 0o2000000;
export const O_CLOEXEC = 0o2000000;
export const CLONE_NEWNET = 0x40000000;
export const SHUT_WR = 1;
export const MSG_PEEK = 0x2;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const NS_GET_NSTYPE = 0xb703;

export const SOL_IP = 0;
export const IP_FREEBIND = 15;
export const IP_TRANSPARENT = 19;
export const IP_BIND_ADDRESS_NO_PORT = 24;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_KEEPALIVE = 9;
export const SO_REUSEPORT = 15;
export const SO_PEERCRED = 17;
export const SO_MARK = 36;
/** Of those that share a port by SO_REUSEPORT: a classic BPF program says which of them has a connection. */
export const SO_ATTACH_REUSEPORT_CBPF = 51;
export const SO_DETACH_REUSEPORT_BPF = 68;
/** Read of the address that a REDIRECT replaced; the same number at level SOL_IP and SOL_IPV6. */
export const SO_ORIGINAL_DST = 80;
export const SOL_TCP = 6;
export const TCP_NODELAY = 1;
export const TCP_KEEPIDLE = 4;
export const TCP_KEEPINTVL = 5;
export const TCP_KEEPCNT = 6;
export const TCP_USER_TIMEOUT = 18;
export const SOL_IPV6 = 41;
export const IPV6_V6ONLY = 26;
export const IPV6_TRANSPARENT = 75;
export const IPV6_FREEBIND = 78;
export const RLIMIT_CORE = 4;
export const RLIMIT_NOFILE = 7;
export const MADV_DONTNEED = 4;
export const PR_SET_DUMPABLE = 4;
export const PR_SET_NO_NEW_PRIVS = 38;

const EINTR = 4;
export const ENOENT = 2;
export const EAGAIN = 11;
export const ENOTCONN = 107;
export const EALREADY = 114;
export const EINPROGRESS = 115;
export const ENOPROTOOPT = 92;
export const EOPNOTSUPP = 95;

/** A system call that failed. `code` is the symbolic name (`EADDRINUSE`), `errno` the number; the message says what it was about. */
export class LinuxError extends Error {
  readonly syscall: string;
  readonly errno: number;
  readonly code: string;

  constructor(syscall: string, errno: number, about?: string) {
    const code = errnoName(errno);
    super(`${syscall}${about === undefined ? '' : ` ${about}`}: ${code} (${errnoText(errno)})`);
    this.name = 'LinuxError';
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
  }
}

/**
 * Runs one system call, again if a signal interrupted it, and returns its result.
 * @param about what the call was about, for the error's message
 * @throws {LinuxError} where the result is negative
 */
export function call(syscall: string, about: string | undefined, run: () => number): number {
  for (;;) {
    const result = run();
    if (result >= 0) return result;
    const errno = koffi.errno();
    if (errno !== EINTR) throw new LinuxError(syscall, errno, about);
  }
}

/** As `call`, with undefined for errors that are an answer: making an Error of one costs more than asking. */
export function tryCall(syscall: string, about: string | undefined, answers: ReadonlySet<number>, run: () => number): number | undefined {
  for (;;) {
    const result = run();
    if (result >= 0) return result;
    const errno = koffi.errno();
    if (answers.has(errno)) return undefined;
    if (errno !== EINTR) throw new LinuxError(syscall, errno, about);
  }
}

/** As `call`, for those whose errors are answers. @returns 0 where the result is not negative, else the errno */
export function errnoOf(run: () => number): number {
  for (;;) {
    if (run() >= 0) return 0;
    const errno = koffi.errno();
    if (errno !== EINTR) return errno;
  }
}

export const isLinuxError = (reason: unknown, ...codes: readonly string[]): reason is LinuxError =>
  reason instanceof LinuxError && (codes.length === 0 || codes.includes(reason.code));

/** Where the bytes of a buffer lie in memory; valid as long as the buffer is referenced. Never for zero-length buffers. */
export const addressOf = (buffer: Buffer): bigint => koffi.address(buffer);

function errnoName(errno: number): string {
  const name = getSystemErrorName(-errno);
  if (!name.startsWith('Unknown')) return name;
  // libuv does not know them all (ENOPROTOOPT since 1.45, never EUCLEAN); koffi has the C library's list.
  return Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`;
}

function errnoText(errno: number): string {
  const text = getSystemErrorMessage(-errno);
  return text === undefined || text.startsWith('Unknown') ? `error ${errno}` : text;
}
