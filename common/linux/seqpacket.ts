/**
 * Sequenced-packet unix sockets (ZDS): messages of at most 1024 bytes with their borders kept, descriptors beside them. node:net has no
 * such sockets, so libuv's poll watches them through koffi, and messages are read when it says so. Two traps of that poll are dealt with
 * in `watch`: its callback runs outside Node's ticks (promises settled in it would wait for the next timer, and an exception would be
 * lost), so the work is done in setImmediate of the same turn; and a handle that was closed must not be touched again.
 */
import { chmodSync, renameSync, statSync, unlinkSync } from 'node:fs';
import koffi from 'koffi';
import { systemClock } from '../base/clock.ts';
import { closeFd } from './descriptor.ts';
import { AF_UNIX, call, isLinuxError, libc, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_SEQPACKET } from './libc.ts';
import { type Message, MessageChannel, MessageError } from './message.ts';
import { type PeerCredentials, peerCredentials } from './peer-credentials.ts';
import { encodeUnixAddress } from './sockaddr.ts';

/** The longest message in either direction. */
export const MAX_MESSAGE_BYTES = 1024;
const BACKLOG = 16;
// Messages, or connections, taken in one turn of the event loop; the rest waits for the next, after everybody else's.
const PER_TURN = 16;
const ACCEPT_RETRY_MS = 100;

export class SeqpacketSocket {
  readonly #fd: number;
  readonly #channel: MessageChannel;
  readonly #watch: Watch;
  #open = true;
  #onMessage: ((data: Buffer, fds: number[]) => void) | undefined;
  #onClose: ((error?: Error) => void) | undefined;

  /** Takes the descriptor over. For connections use `connect` or a server's onConnection. */
  constructor(fd: number) {
    this.#fd = fd;
    this.#channel = new MessageChannel(fd, MAX_MESSAGE_BYTES);
    this.#watch = watch(fd, () => this.#receive());
  }

  /** @throws {LinuxError} ENOENT, ECONNREFUSED, EAGAIN (the server's backlog is full), naming the path */
  static connect(path: string): SeqpacketSocket {
    const fd = unixSocket();
    try {
      const address = encodeUnixAddress(path);
      call('connect', path, () => libc.connect(fd, address, address.length));
      return new SeqpacketSocket(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
  }

  /**
   * Sends one message, with at most one descriptor, which stays the caller's. Never waits.
   * @throws {LinuxError} EAGAIN where the peer has let its buffer fill, EPIPE where it is gone; {RangeError} for empty or too long data
   */
  send(data: Uint8Array, fd?: number): void {
    if (!this.#open) throw new Error('the socket is closed');
    this.#channel.send(data, fd);
  }

  /** Messages are read from here on. The descriptors are the listener's to close, also when it throws. */
  onMessage(fn: (data: Buffer, fds: number[]) => void): void {
    this.#onMessage = fn;
    this.#watch.start();
  }

  /** Called once, with the reason where it was neither our `close` nor the peer's end, which is noticed once there is an onMessage. */
  onClose(fn: (error?: Error) => void): void {
    this.#onClose = fn;
  }

  close(): void {
    this.#end();
  }

  /** @throws {LinuxError} */
  peer(): PeerCredentials {
    return peerCredentials(this.#fd);
  }

  #receive(): void {
    for (let i = 0; i < PER_TURN && this.#open; i++) {
      let message: Message | undefined;
      try {
        message = this.#channel.receive();
      } catch (error) {
        if (isLinuxError(error, 'EAGAIN')) return;
        this.#end(isLinuxError(error) || error instanceof MessageError ? error : new Error('reading failed', { cause: error }));
        return;
      }
      if (!message) {
        this.#end();
        return;
      }
      this.#onMessage?.(message.data, [...message.fds]);
    }
  }

  #end(error?: Error): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watch.close();
    closeFd(this.#fd);
    this.#onClose?.(error);
  }
}

export class SeqpacketServer {
  readonly #fd: number;
  readonly #path: string;
  readonly #inode: bigint;
  readonly #watch: Watch;
  #open = true;
  #paused = false;
  #onConnection: ((socket: SeqpacketSocket) => void) | undefined;

  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
    this.#inode = statSync(path, { bigint: true }).ino;
    this.#watch = watch(fd, () => this.#accept());
  }

  /**
   * Listens at a path, in place of whatever socket was there: a predecessor keeps its connections, new ones come here.
   * @param mode of the socket file, in force before the first connection can be made
   * @throws {LinuxError} naming the path; the Error of node:fs where it cannot be renamed or given its mode
   */
  static listen(path: string, mode: number): SeqpacketServer {
    const fd = unixSocket();
    const temporary = `${path}.${process.pid}`;
    try {
      unlinkIfThere(temporary);
      const address = encodeUnixAddress(temporary);
      call('bind', temporary, () => libc.bind(fd, address, address.length));
      chmodSync(temporary, mode);
      call('listen', temporary, () => libc.listen(fd, BACKLOG));
      renameSync(temporary, path);
      return new SeqpacketServer(fd, path);
    } catch (error) {
      closeFd(fd);
      unlinkIfThere(temporary);
      throw error;
    }
  }

  /** Connections are accepted from here on. */
  onConnection(fn: (socket: SeqpacketSocket) => void): void {
    this.#onConnection = fn;
    this.#watch.start();
  }

  /** Leaves new connections in the backlog, until `resume`. May be called from onConnection. */
  pause(): void {
    this.#paused = true;
    this.#watch.stop();
  }

  resume(): void {
    this.#paused = false;
    if (this.#onConnection) this.#watch.start();
  }

  /** Stops accepting, and removes the file if it is still ours. Connections stay. */
  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watch.close();
    closeFd(this.#fd);
    const stat = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    if (stat?.ino === this.#inode) unlinkIfThere(this.#path);
  }

  #accept(): void {
    for (let i = 0; i < PER_TURN && this.#open && !this.#paused; i++) {
      let fd: number;
      try {
        fd = call('accept4', this.#path, () => libc.accept4(this.#fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC));
      } catch (error) {
        // It was gone before we took it, or there is nothing more.
        if (isLinuxError(error, 'EAGAIN', 'ECONNABORTED')) return;
        // Out of descriptors or memory: the caller waits in the backlog. Asking again at once would only spin.
        this.pause();
        systemClock.after(ACCEPT_RETRY_MS, () => this.resume());
        return;
      }
      this.#onConnection?.(new SeqpacketSocket(fd));
    }
  }
}

interface Watch {
  start(): void;
  stop(): void;
  close(): void;
}

type PollHandle = ReturnType<typeof koffi.node.poll>;

// A poll handle that only its own callback refers to is collected while libuv still uses it.
const watched = new Set<PollHandle>();

/** Calls `onReadable` while the descriptor is readable or hung up. Close it before the descriptor. */
function watch(fd: number, onReadable: () => void): Watch {
  let handle: PollHandle | undefined;
  let at: 'stopped' | 'started' | 'closed' = 'stopped';
  let scheduled = false;
  const run = (): void => {
    scheduled = false;
    if (at === 'started') onReadable();
  };
  const onPoll = (): void => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(run);
  };
  return {
    start() {
      if (at !== 'stopped') return;
      at = 'started';
      if (handle) handle.start(POLLED, onPoll);
      else handle = koffi.node.poll(fd, POLLED, onPoll);
      watched.add(handle);
    },
    stop() {
      if (at !== 'started') return;
      at = 'stopped';
      handle?.stop();
    },
    close() {
      at = 'closed';
      if (!handle) return;
      watched.delete(handle);
      handle.close();
      handle = undefined;
    },
  };
}

const POLLED = { readable: true, disconnect: true } as const;

const unixSocket = (): number => call('socket', 'AF_UNIX', () => libc.socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error;
  }
}
