/**
 * One datagram with descriptors beside it: sendmsg and recvmsg with SCM_RIGHTS, the structures laid out by hand (LP64, little-endian).
 * A message that does not fit is an error, never a prefix, and whatever descriptors came with it are closed.
 */
import { closeFd } from './descriptor.ts';
import { addressOf, call, libc, MSG_DONTWAIT, MSG_TRUNC, SOL_SOCKET } from './libc.ts';

const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

// struct msghdr: name, namelen, iov, iovlen, control, controllen, flags.
const HEADER_BYTES = 56;
const AT_IOV = 16;
const AT_IOV_COUNT = 24;
const AT_CONTROL = 32;
const AT_CONTROL_LENGTH = 40;
const AT_FLAGS = 48;
// struct cmsghdr: len, level, type; then the data, padded to 8.
const CMSG_HEADER_BYTES = 16;
const CONTROL_FDS = 4;

/** A received message that broke the rules of its socket: too long, or with more descriptors than anybody sends. */
export class MessageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'MessageError';
  }
}

export interface Message {
  readonly data: Buffer;
  /** Close-on-exec; the receiver's to close. */
  readonly fds: readonly number[];
}

/**
 * Sends and receives messages of up to `maxBytes` on one socket. It holds its buffers, whose addresses only the kernel sees: nothing that
 * is passed to a call may be collected before the call is over.
 */
export class MessageChannel {
  readonly #fd: number;
  readonly #incoming: Buffers;
  readonly #outgoing: Buffers;

  /** Does not take the descriptor over. */
  constructor(fd: number, maxBytes: number) {
    this.#fd = fd;
    this.#incoming = new Buffers(maxBytes, CONTROL_FDS);
    this.#outgoing = new Buffers(maxBytes, 1);
  }

  /**
   * Sends one message, with at most one descriptor, which stays the caller's.
   * @throws {LinuxError} EAGAIN where the peer does not read, EPIPE where it is gone; {RangeError} for empty or too long data
   */
  send(data: Uint8Array, fd?: number): void {
    const { body, iov, control, header } = this.#outgoing;
    if (data.length === 0) throw new RangeError('an empty message would read as the end of the connection');
    if (data.length > body.length) throw new RangeError(`a message of ${data.length} bytes; the limit is ${body.length}`);
    body.set(data);
    iov.writeBigUInt64LE(BigInt(data.length), 8);
    header.writeBigUInt64LE(fd === undefined ? 0n : BigInt(control.length), AT_CONTROL_LENGTH);
    if (fd !== undefined) {
      control.writeBigUInt64LE(BigInt(CMSG_HEADER_BYTES + 4), 0);
      control.writeInt32LE(SOL_SOCKET, 8);
      control.writeInt32LE(SCM_RIGHTS, 12);
      control.writeInt32LE(fd, CMSG_HEADER_BYTES);
    }
    call('sendmsg', fd === undefined ? undefined : `with descriptor ${fd}`, () =>
      libc.sendmsg(this.#fd, header, MSG_DONTWAIT | MSG_NOSIGNAL),
    );
  }

  /**
   * @returns the next message (its data is a copy), or undefined at the end of the connection
   * @throws {LinuxError} EAGAIN where nothing has come, ECONNRESET; {MessageError} for a message that was cut off
   */
  receive(): Message | undefined {
    const { body, control, header } = this.#incoming;
    header.writeBigUInt64LE(BigInt(control.length), AT_CONTROL_LENGTH);
    header.writeInt32LE(0, AT_FLAGS);
    const length = call('recvmsg', undefined, () => libc.recvmsg(this.#fd, header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC));
    const fds = receivedFds(control.subarray(0, Number(header.readBigUInt64LE(AT_CONTROL_LENGTH))));
    const problem = problemOf(header.readInt32LE(AT_FLAGS), length, body.length, fds.length);
    if (problem === undefined) return length === 0 ? undefined : { data: Buffer.from(body.subarray(0, length)), fds };
    for (const fd of fds) closeFd(fd);
    throw new MessageError(problem);
  }
}

/** The memory of one direction: a body, the vector that points to it, room for descriptors, and the header that points to all three. */
class Buffers {
  readonly body: Buffer;
  readonly iov = Buffer.alloc(16);
  readonly control: Buffer;
  readonly header = Buffer.alloc(HEADER_BYTES);

  constructor(maxBytes: number, fds: number) {
    this.body = Buffer.alloc(maxBytes);
    this.control = Buffer.alloc((CMSG_HEADER_BYTES + 4 * fds + 7) & ~7);
    this.iov.writeBigUInt64LE(addressOf(this.body), 0);
    this.iov.writeBigUInt64LE(BigInt(maxBytes), 8);
    this.header.writeBigUInt64LE(addressOf(this.iov), AT_IOV);
    this.header.writeBigUInt64LE(1n, AT_IOV_COUNT);
    this.header.writeBigUInt64LE(addressOf(this.control), AT_CONTROL);
  }
}

function problemOf(flags: number, length: number, maxBytes: number, fds: number): string | undefined {
  if (flags & MSG_TRUNC) return `a message of more than ${maxBytes} bytes`;
  if (flags & MSG_CTRUNC) return `a message with more than ${CONTROL_FDS} descriptors, or more than this process may open`;
  return length === 0 && fds > 0 ? 'an empty message with a descriptor' : undefined;
}

function receivedFds(control: Buffer): number[] {
  const fds: number[] = [];
  let at = 0;
  while (at + CMSG_HEADER_BYTES <= control.length) {
    const length = Number(control.readBigUInt64LE(at));
    if (length < CMSG_HEADER_BYTES) break;
    const end = Math.min(at + length, control.length);
    if (control.readInt32LE(at + 8) === SOL_SOCKET && control.readInt32LE(at + 12) === SCM_RIGHTS) {
      for (let i = at + CMSG_HEADER_BYTES; i + 4 <= end; i += 4) fds.push(control.readInt32LE(i));
    }
    at += (length + 7) & ~7;
  }
  return fds;
}
