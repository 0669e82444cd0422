/** A sequenced-packet socket in the test's hand, for both sides of ZDS: what was sent is kept, what comes is said by the test. */
import { closeFd } from '../../common/linux/sockets.ts';

export interface SentMessage {
  readonly data: Uint8Array;
  readonly fd: number | undefined;
}

export class FakeSeqpacketSocket {
  readonly sent: SentMessage[] = [];
  closed = false;
  /** Of the process at the other end. */
  readonly uid: number;
  /** Thrown by the next send, once. */
  failNext: Error | undefined;
  #onMessage: ((data: Buffer, fds: number[]) => void) | undefined;
  #onClose: ((error?: Error) => void) | undefined;

  constructor(uid = 0) {
    this.uid = uid;
  }

  send(data: Uint8Array, fd?: number): void {
    const failure = this.failNext;
    this.failNext = undefined;
    if (failure) throw failure;
    if (this.closed) throw new Error('the socket is closed');
    this.sent.push({ data, fd });
  }

  onMessage(fn: (data: Buffer, fds: number[]) => void): void {
    this.#onMessage = fn;
  }

  onClose(fn: (error?: Error) => void): void {
    this.#onClose = fn;
  }

  close(): void {
    this.end();
  }

  peer(): { pid: number; uid: number; gid: number } {
    return { pid: 42, uid: this.uid, gid: 1337 };
  }

  /** A message from the other side. */
  receive(data: Uint8Array, fds: number[] = []): void {
    if (this.#onMessage) this.#onMessage(Buffer.from(data), fds);
    else for (const fd of fds) closeFd(fd);
  }

  /** The other side goes away. */
  end(error?: Error): void {
    if (this.closed) return;
    this.closed = true;
    this.#onClose?.(error);
  }
}

export class FakeSeqpacketListener {
  paused = false;
  closed = false;
  #onConnection: ((socket: FakeSeqpacketSocket) => void) | undefined;

  onConnection(fn: (socket: FakeSeqpacketSocket) => void): void {
    this.#onConnection = fn;
  }

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  close(): void {
    this.closed = true;
  }

  connect(uid?: number): FakeSeqpacketSocket {
    const socket = new FakeSeqpacketSocket(uid);
    this.#onConnection?.(socket);
    return socket;
  }
}
