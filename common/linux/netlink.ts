/**
 * Netlink, the way to ask the kernel about routes and sockets without starting a program: a request, and its answers, at once. The kernel
 * answers these families within the call that asks, so everything here is synchronous and may run inside another network namespace.
 */
import { closeFd } from './descriptor.ts';
import { AF_NETLINK, call, isLinuxError, LinuxError, libc, MSG_DONTWAIT, MSG_TRUNC, SOCK_CLOEXEC, SOCK_RAW } from './libc.ts';

/** Families of netlink(7). */
export const NETLINK_ROUTE = 0;
export const NETLINK_SOCK_DIAG = 4;

export const NLM_F_ACK = 0x4;
/** Of requests that ask for everything. */
export const NLM_F_DUMP = 0x300;
/** Of requests that make something. */
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;

const NLM_F_REQUEST = 0x1;
const NLM_F_DUMP_INTR = 0x10;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const HEADER_BYTES = 16;
// The kernel fills at most 32 KiB of a dump at a time, where the reader's buffer has room for it.
const RECEIVE_BYTES = 64 * 1024;
// One for all: everything here is synchronous, and nothing of it is kept.
const received = Buffer.alloc(RECEIVE_BYTES);

export interface NetlinkRequest {
  readonly type: number;
  /** Beside NLM_F_REQUEST. */
  readonly flags: number;
  readonly payload: Uint8Array;
  /** What it is about, for the error's message. */
  readonly about: string;
}

/** A socket of the network namespace that the thread is in when it is opened; it stays there. */
export class NetlinkSocket {
  readonly #fd: number;
  #sequence = 0;

  /** @throws {LinuxError} EPROTONOSUPPORT where the kernel lacks the family */
  constructor(family: number) {
    this.#fd = call('socket', `netlink family ${family}`, () => libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, family));
  }

  /** @returns the payloads of all answers; none for an acknowledgement. @throws {LinuxError} what the kernel answered, EAGAIN for silence */
  request({ type, flags, payload, about }: NetlinkRequest): Buffer[] {
    const message = Buffer.alloc(HEADER_BYTES + payload.length);
    const sequence = ++this.#sequence;
    message.writeUInt32LE(message.length, 0);
    message.writeUInt16LE(type, 4);
    message.writeUInt16LE(flags | NLM_F_REQUEST, 6);
    message.writeUInt32LE(sequence, 8);
    message.set(payload, HEADER_BYTES);
    call('netlink', about, () => libc.send(this.#fd, message, message.length, 0));
    const answers: Buffer[] = [];
    for (;;) {
      const length = call('netlink', about, () => libc.recv(this.#fd, received, received.length, MSG_DONTWAIT | MSG_TRUNC));
      if (length > received.length) throw new LinuxError('netlink', EMSGSIZE, about);
      if (takeAnswers(received.subarray(0, length), { sequence, about, answers })) return answers;
    }
  }

  close(): void {
    closeFd(this.#fd);
  }
}

/** Opens a socket for the length of one function. */
export function withNetlink<T>(family: number, use: (socket: NetlinkSocket) => T): T {
  const socket = new NetlinkSocket(family);
  try {
    return use(socket);
  } finally {
    socket.close();
  }
}

/** The kernel's answer means that there was nothing to do. */
export function unless(codes: readonly string[], run: () => void): void {
  try {
    run();
  } catch (error) {
    if (!isLinuxError(error, ...codes)) throw error;
  }
}

/** One attribute: length, type, value, padded to four bytes. */
export function attribute(type: number, value: Uint8Array): Buffer {
  const bytes = Buffer.alloc((4 + value.length + 3) & ~3);
  bytes.writeUInt16LE(4 + value.length, 0);
  bytes.writeUInt16LE(type, 2);
  bytes.set(value, 4);
  return bytes;
}

export function attributeU32(type: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return attribute(type, bytes);
}

/** The value of the first attribute of a type. @param start where attributes begin in the payload */
export function findAttribute(payload: Buffer, start: number, type: number): Buffer | undefined {
  for (let at = start; at + 4 <= payload.length; ) {
    const length = payload.readUInt16LE(at);
    if (length < 4) return undefined;
    if ((payload.readUInt16LE(at + 2) & 0x3fff) === type) return payload.subarray(at + 4, Math.min(at + length, payload.length));
    at += (length + 3) & ~3;
  }
  return undefined;
}

const EMSGSIZE = 90;
const EINTR = 4;

interface Answers {
  readonly sequence: number;
  readonly about: string;
  readonly answers: Buffer[];
}

/** @returns whether this was the end. @throws {LinuxError} EINTR where the table changed while it was read: some may be missing */
function takeAnswers(datagram: Buffer, { sequence, about, answers }: Answers): boolean {
  for (let at = 0; at + HEADER_BYTES <= datagram.length; ) {
    const length = datagram.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > datagram.length) throw new LinuxError('netlink', EMSGSIZE, about);
    const message = datagram.subarray(at, at + length);
    at += (length + 3) & ~3;
    if (message.readUInt32LE(8) !== sequence) continue;
    if (message.readUInt16LE(6) & NLM_F_DUMP_INTR) throw new LinuxError('netlink', EINTR, about);
    const type = message.readUInt16LE(4);
    if (type === NLMSG_ERROR || type === NLMSG_DONE) {
      const error = message.length >= HEADER_BYTES + 4 ? message.readInt32LE(HEADER_BYTES) : 0;
      if (error < 0) throw new LinuxError('netlink', -error, about);
      return true;
    }
    // The datagram's memory is used again for the next one.
    answers.push(Buffer.from(message.subarray(HEADER_BYTES)));
  }
  return false;
}
