/**
 * An application's TCP socket, read and written with as little as Node allows: reads land in buffers that have room for a frame header
 * (read-buffers.ts) and go on by a call, and several writes of one turn leave as one.
 */
import net from 'node:net';
import type { SocketAddress } from '../base/address.ts';
import type { Clock } from '../base/clock.ts';
import { ProxyError } from '../base/errors.ts';
import { socketFromFd } from '../linux/node.ts';
import type { Endpoint, PipeReader } from './endpoint.ts';
import { borrowReadBuffer, READ_BYTES, type ReadBuffer, returnReadBuffer, sharedReadBuffer } from './read-buffers.ts';
import { handling, holderOf, keepUnlessHeld } from './receive-buffers.ts';
import type { SocketPipe } from './types.ts';

export interface AppConnectOptions {
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

/**
 * Bytes that may wait in the socket before its writer is asked to pause: of what a socket sends, and of what a tunnel sends. A tunnel's are
 * bounded by its window already, and large writes that come seldom cost half of small ones that come often.
 */
const READ_LIMIT = 256 << 10;
const SLICE_LIMIT = 4 << 20;
/** Node keeps an object for each write that waits; beyond these bytes tiny ones are joined before they are written (stream.ts). */
const SOCKET_OPTIONS = { allowHalfOpen: true, writableHighWaterMark: 4096 };
/** From here on a slice is a piece of a bulk transfer: its turn will bring more, so it waits for them. */
const BULK_SLICE = 8 << 10;
/** What ends a connection without being a failure of it (Istio's ztunnel, src/proxy/h2.rs). */
const RESETS: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ENOTCONN', 'ECONNABORTED']);

/** Sockets that are corked until the turn ends, and the turn's number, which tells a first write from a second one. */
let corked: net.Socket[] = [];
let turn = 0;
let turnEnds = false;

function endTurn(): void {
  turnEnds = false;
  turn++;
  const sockets = corked;
  corked = [];
  for (const socket of sockets) socket.uncork();
}

export class AppSocket implements SocketPipe, Endpoint {
  readonly kind = 'socket';
  readonly #socket: net.Socket;
  #local: SocketAddress | undefined;
  #remote: SocketAddress | undefined;
  #reader: PipeReader | undefined;
  #error: Error | undefined;
  #destroyedFor: ProxyError | undefined;
  /** The application has ended its direction. */
  #ended = false;
  #closed = false;
  /** What a reader looked at and gave back. */
  #given: Buffer | undefined;
  /** What the kernel writes the next read into. */
  #buffer: ReadBuffer = sharedReadBuffer;
  #bulk = false;
  #lastWrite = -1;

  private constructor(open: (onread: net.OnReadOpts) => net.Socket) {
    this.#socket = open({ buffer: () => this.#nextBuffer(), callback: (length) => this.#read(length) });
    this.#socket
      .on('end', () => {
        this.#ended = true;
        this.#reader?.ended();
      })
      .on('drain', () => this.#reader?.writable())
      .on('error', (error) => {
        this.#error = error;
      })
      .on('close', () => this.#close());
    this.#socket.setNoDelay(true);
  }

  /** Takes over a socket that a `net.Server` with `pauseOnConnect: true` accepted; the caller's object is of no use afterwards. */
  static accepted(socket: net.Socket): AppSocket {
    const handle = '_handle' in socket ? socket._handle : undefined;
    if (!handle || !('_handle' in socket)) throw new ProxyError('CONNECTION_LOST', 'the connection was closed before it was looked at');
    // Only a new net.Socket can be told to read into our buffers. Destroying the old one settles its server's count of connections.
    socket._handle = null;
    socket.destroy();
    return new AppSocket((onread) => {
      // Not documented, as in common/linux/node.ts: somebody else's handle, and not to read before there is a reader.
      const options = { ...SOCKET_OPTIONS, handle, onread, pauseOnCreate: true } as unknown as net.SocketConstructorOpts;
      return new net.Socket(options);
    });
  }

  /**
   * Connects.
   * @param fd an unconnected socket (common/linux/sockets.ts), which is ours from now on; undefined lets Node make one
   * @throws the socket's Error; ProxyError UPSTREAM_TIMEOUT after `timeoutMs`; the signal's reason
   */
  static connect(fd: number | undefined, to: SocketAddress, { timeoutMs, clock, signal }: AppConnectOptions): Promise<AppSocket> {
    const app = new AppSocket((onread) => {
      const options = { ...SOCKET_OPTIONS, onread };
      return fd === undefined ? new net.Socket(options) : socketFromFd(fd, options);
    });
    const socket = app.#socket;
    return new Promise((resolve, reject) => {
      const abort = (): void => fail(signal?.reason);
      const timer = clock.after(timeoutMs, () =>
        fail(new ProxyError('UPSTREAM_TIMEOUT', `connect to ${to.ip} took longer than ${timeoutMs / 1000} s`)),
      );
      const settle = (): void => {
        timer.cancel();
        signal?.removeEventListener('abort', abort);
        socket.off('error', fail).off('connect', connected);
      };
      const fail = (reason: unknown): void => {
        settle();
        socket.destroy();
        reject(reason);
      };
      const connected = (): void => {
        settle();
        resolve(app);
      };
      if (signal?.aborted) return abort();
      signal?.addEventListener('abort', abort, { once: true });
      socket.once('error', fail).once('connect', connected);
      // Nothing is read until there is a reader.
      socket.pause();
      socket.connect({ host: to.ip, port: to.port });
    });
  }

  get local(): SocketAddress {
    this.#local ??= addressOf(this.#socket.localAddress, this.#socket.localPort);
    return this.#local;
  }

  get remote(): SocketAddress {
    this.#remote ??= addressOf(this.#socket.remoteAddress, this.#socket.remotePort);
    return this.#remote;
  }

  start(reader: PipeReader): void {
    if (this.#reader) throw new Error('this socket has a reader already');
    this.#reader = reader;
    const given = this.#given;
    this.#given = undefined;
    const more = given === undefined || reader.slice(given);
    if (this.#ended) reader.ended();
    if (this.#closed) reader.closed(this.#failure());
    else if (more) this.#socket.resume();
  }

  giveBack(bytes: Buffer): void {
    this.#reader = undefined;
    this.#socket.pause();
    if (bytes.length > 0) this.#given = bytes;
  }

  resume(): void {
    if (!this.#closed) this.#socket.resume();
  }

  writeRead(buffer: ReadBuffer, length: number): boolean {
    const socket = this.#socket;
    if (buffer === sharedReadBuffer) socket.write(Buffer.from(buffer.view.subarray(0, length)));
    else socket.write(buffer.view.subarray(0, length), () => returnReadBuffer(buffer));
    return socket.writableLength < READ_LIMIT;
  }

  writeSlice(bytes: Buffer): boolean {
    const socket = this.#socket;
    if (socket.writableCorked === 0) {
      if (!turnEnds) {
        turnEnds = true;
        setImmediate(endTurn);
      }
      // The first small write of a turn leaves at once; a second one means that there may be a third.
      if (bytes.length >= BULK_SLICE || this.#lastWrite === turn) {
        socket.cork();
        corked.push(socket);
      }
      this.#lastWrite = turn;
    }
    const holder = holderOf(bytes);
    holder?.hold();
    const room = holder ? socket.write(bytes, holder.release) : socket.write(keepUnlessHeld(bytes));
    return room || socket.writableLength < SLICE_LIMIT;
  }

  get backlog(): number {
    return this.#socket.writableNeedDrain ? this.#socket.writableLength : 0;
  }

  end(): void {
    // With both directions over, closing says it as well as a shutdown before it.
    if (this.#ended && this.#socket.writableLength === 0) this.#socket.destroy();
    else this.#socket.end();
  }

  close(): void {
    // Nobody wants what still comes in, but it has to be read for the end to be seen.
    this.#socket.destroySoon();
  }

  destroy(reason?: ProxyError): void {
    if (this.#socket.destroyed) return;
    this.#destroyedFor = reason;
    this.#socket.resetAndDestroy();
  }

  #nextBuffer(): Uint8Array {
    this.#buffer = (this.#bulk ? borrowReadBuffer() : undefined) ?? sharedReadBuffer;
    return this.#buffer.view;
  }

  #read(length: number): boolean {
    const buffer = this.#buffer;
    this.#buffer = sharedReadBuffer;
    this.#bulk = length >= READ_BYTES >> 1;
    if (buffer === sharedReadBuffer) return this.#reader?.read(buffer, length) ?? false;
    const before = handling(buffer);
    try {
      return this.#reader?.read(buffer, length) ?? false;
    } finally {
      handling(before);
    }
  }

  #close(): void {
    this.#closed = true;
    returnReadBuffer(this.#buffer);
    this.#buffer = sharedReadBuffer;
    this.#reader?.closed(this.#failure());
  }

  #failure(): ProxyError | undefined {
    if (this.#destroyedFor) return this.#destroyedFor;
    const error = this.#error;
    if (!error || ('code' in error && typeof error.code === 'string' && RESETS.has(error.code))) return undefined;
    return ProxyError.from(error, 'CONNECTION_LOST', 'application connection');
  }
}

/** The kernel's spelling is canonical but for IPv4 on a dual-stack socket; parsing it again would cost every connection. */
function addressOf(ip = '', port = 0): SocketAddress {
  return { ip: ip.startsWith('::ffff:') && ip.includes('.') ? ip.slice('::ffff:'.length) : ip, port };
}
