/**
 * An application's TCP socket, read and written with as little as the system allows: reads land in buffers that have room for a frame header
 * (read-buffers.ts) and go on by a call, and several writes of one turn leave as one.
 */
import type { Socket } from 'node:net';
import type { SocketAddress } from '../base/address.ts';
import type { CancelSignal } from '../base/cancellation.ts';
import type { Clock } from '../base/clock.ts';
import { ProxyError } from '../base/errors.ts';
import { TcpStream, type TcpStreamOwner } from '../linux/tcp-stream.ts';
import type { Endpoint, PipeReader } from './endpoint.ts';
import { borrowReadBuffer, READ_BYTES, type ReadBuffer, returnReadBuffer, sharedReadBuffer } from './read-buffers.ts';
import { handling, holderOf, keepUnlessHeld } from './receive-buffers.ts';
import { Lane, type Resting, TurnShares } from './turn-shares.ts';
import type { SocketPipe } from './types.ts';

interface ReadOptions {
  /** Whose share of a turn it uses. */
  readonly lane?: Lane;
  /** A server may answer and end: see TcpStream.expectEnd. */
  readonly expectEnd?: boolean;
}

export interface AppConnectOptions extends ReadOptions {
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly signal?: CancelSignal;
}

/**
 * Bytes that may wait in the socket before its writer is asked to pause: of what a socket sends, and of what a tunnel sends. A tunnel's are
 * bounded by its window already, and large writes that come seldom cost half of small ones that come often.
 */
const READ_LIMIT = 256 << 10;
const SLICE_LIMIT = 4 << 20;
/** Up to here what waits is no backlog: it leaves with the turn. */
const BACKLOG_FROM = 4096;
/** From here on a slice is a piece of a bulk transfer: its turn will bring more, so it waits for them. */
const BULK_SLICE = 8 << 10;
/** About a millisecond of a turn. */
const CONNECTIONS = 8;
/** What ends a connection without being a failure of it (Istio's ztunnel, src/proxy/h2.rs). */
const RESETS: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ENOTCONN', 'ECONNABORTED']);

/** Of this thread. */
const shares = new TurnShares(setImmediate);
/** Begins a connection that a tunnel asks for: now, or where several pods are busy, when its lane's turn comes (bench neighbours). */
export const beginInTurn = (lane: Lane, run: () => void): void => shares.begin(lane, run);
/** For a connection that was taken already: where several pods are busy, resolves when its lane's turn comes. */
export const turnToBegin = (lane: Lane): Promise<void> | undefined =>
  shares.shared ? new Promise((resolve) => shares.begin(lane, resolve)) : undefined;
/** Whether several pods have been busy on this thread lately. */
export const turnsAreShared = (): boolean => shares.shared;
/** Connections that a turn takes of a listener. */
export const mostConnectionsInTurn = (): number => (shares.shared ? 1 : CONNECTIONS);
/** Of whoever is nobody's pod. */
const NO_LANE = new Lane();

export class AppSocket implements SocketPipe, Endpoint, TcpStreamOwner, Resting {
  readonly kind = 'socket';
  /** Whose share of a turn it uses. */
  readonly #lane: Lane;
  readonly #tcp: TcpStream;
  #local: SocketAddress | undefined;
  #remote: SocketAddress | undefined;
  #reader: PipeReader | undefined;
  #destroyedFor: ProxyError | undefined;
  /** The application has ended its direction. */
  #ended = false;
  #closed = false;
  #failure: ProxyError | undefined;
  /** A writer was told to wait. */
  #awaited = false;
  /** What a reader looked at and gave back. */
  #given: Buffer | undefined;
  /** What the kernel writes the next read into. */
  #buffer: ReadBuffer = sharedReadBuffer;
  #bulk = false;
  #lastWrite = -1;
  /** Large reads in the turn `#readIn`. */
  #reads = 0;
  #readIn = -1;
  /** It has read as much as it may for now; whether its reader wants more then. */
  #resting = false;
  #wanted = false;

  /** Nothing is read until there is a reader. */
  constructor(tcp: TcpStream, lane = NO_LANE) {
    this.#tcp = tcp;
    this.#lane = lane;
    tcp.owner = this;
    tcp.setNoDelay();
  }

  /** Takes over a socket that a `net.Server` with `pauseOnConnect: true` accepted; the caller's object is of no use afterwards. */
  static accepted(socket: Socket, lane?: Lane): AppSocket {
    const tcp = TcpStream.fromSocket(socket);
    if (!tcp) throw new ProxyError('CONNECTION_LOST', 'the connection was closed before it was looked at');
    return new AppSocket(tcp, lane);
  }

  /**
   * Connects to a listener of the socket's own namespace.
   * @param fd as for `connect`
   * @returns undefined where the kernel does not do so at once; then the descriptor is of no more use
   * @throws the system's Error
   */
  static connectedAtOnce(fd: number, to: SocketAddress, { lane, expectEnd = false }: ReadOptions): AppSocket | undefined {
    const tcp = TcpStream.connectedAtOnce(fd, to);
    if (expectEnd) tcp?.expectEnd();
    return tcp && new AppSocket(tcp, lane);
  }

  /**
   * Connects.
   * @param fd an unconnected socket of common/linux/sockets.ts, which is ours from now on; undefined makes one
   * @throws the system's Error; ProxyError UPSTREAM_TIMEOUT after `timeoutMs`; the signal's reason
   */
  static connect(
    fd: number | undefined,
    to: SocketAddress,
    { timeoutMs, clock, signal, lane, expectEnd = false }: AppConnectOptions,
  ): Promise<AppSocket> {
    return new Promise((resolve, reject) => {
      const tcp = fd === undefined ? TcpStream.unconnected() : TcpStream.fromFd(fd);
      if (expectEnd) tcp.expectEnd();
      const app = new AppSocket(tcp, lane);
      let settled = false;
      const settle = (): void => {
        settled = true;
        timer.cancel();
        signal?.removeEventListener('abort', abort);
      };
      const fail = (reason: unknown): void => {
        settle();
        tcp.close();
        reject(reason);
      };
      const abort = (): void => fail(signal?.reason);
      const timer = clock.after(timeoutMs, () =>
        fail(new ProxyError('UPSTREAM_TIMEOUT', `connect to ${to.ip} took longer than ${timeoutMs / 1000} s`)),
      );
      if (signal?.aborted) return abort();
      signal?.addEventListener('abort', abort, { once: true });
      tcp.connect(to, (error) => {
        if (settled) return;
        if (error) return fail(error);
        settle();
        resolve(app);
      });
    });
  }

  /** -1 once it is closed. */
  get fd(): number {
    return this.#tcp.fd;
  }

  /** Our own address and the peer's; undefined where the connection is already gone. */
  get ends(): { readonly local: SocketAddress; readonly remote: SocketAddress } | undefined {
    this.#local ??= this.#tcp.local;
    this.#remote ??= this.#tcp.remote;
    return this.#local && this.#remote && { local: this.#local, remote: this.#remote };
  }

  /** Who connected; undefined where the connection is already gone. */
  get peer(): SocketAddress | undefined {
    this.#remote ??= this.#tcp.remote;
    return this.#remote;
  }

  get local(): SocketAddress {
    this.#local ??= this.#tcp.local;
    return this.#local ?? UNKNOWN;
  }

  get remote(): SocketAddress {
    this.#remote ??= this.#tcp.remote;
    return this.#remote ?? UNKNOWN;
  }

  start(reader: PipeReader): void {
    if (this.#reader) throw new Error('this socket has a reader already');
    this.#reader = reader;
    const given = this.#given;
    this.#given = undefined;
    const more = given === undefined || reader.slice(given);
    if (this.#ended) reader.ended();
    if (this.#closed) reader.closed(this.#failure);
    else if (more) this.#tcp.startReading();
  }

  giveBack(bytes: Buffer): void {
    this.#reader = undefined;
    this.#wanted = false;
    this.#tcp.stopReading();
    if (bytes.length > 0) this.#given = bytes;
  }

  resume(): void {
    if (this.#resting) this.#wanted = true;
    else this.#tcp.startReading();
  }

  writeRead(buffer: ReadBuffer, length: number): boolean {
    const tcp = this.#tcp;
    if (buffer === sharedReadBuffer) tcp.write(Buffer.from(buffer.view.subarray(0, length)));
    else tcp.write(buffer.view.subarray(0, length), () => returnReadBuffer(buffer));
    return this.#room(READ_LIMIT);
  }

  writeSlice(bytes: Buffer): boolean {
    const tcp = this.#tcp;
    if (!tcp.corked) {
      shares.busy(this.#lane);
      // The first small write of a turn leaves at once; a second one means that there may be a third.
      if (bytes.length >= BULK_SLICE || this.#lastWrite === shares.turn || !shares.mayWrite(this.#lane)) {
        tcp.cork();
        shares.wait(this.#lane, tcp);
      }
      this.#lastWrite = shares.turn;
    }
    const holder = holderOf(bytes);
    holder?.hold();
    if (holder) tcp.write(bytes, holder.release);
    else tcp.write(keepUnlessHeld(bytes));
    return this.#room(SLICE_LIMIT);
  }

  get backlog(): number {
    const { pending } = this.#tcp;
    if (pending > BACKLOG_FROM) this.#awaited = true;
    return pending > BACKLOG_FROM ? pending : 0;
  }

  end(): void {
    // With both directions over, closing says it as well as a shutdown before it.
    if (this.#ended && this.#tcp.pending === 0) this.#tcp.close();
    else this.#tcp.end();
  }

  close(): void {
    if (this.#tcp.pending === 0) this.#tcp.close();
    else this.#tcp.endAndClose();
  }

  destroy(reason?: ProxyError): void {
    if (this.#tcp.closing) return;
    this.#destroyedFor = reason;
    this.#tcp.reset();
  }

  // From the stream.

  nextBuffer(): Uint8Array {
    this.#buffer = (this.#bulk ? borrowReadBuffer() : undefined) ?? sharedReadBuffer;
    return this.#buffer.view;
  }

  read(length: number): boolean {
    const buffer = this.#buffer;
    this.#buffer = sharedReadBuffer;
    this.#bulk = length >= READ_BYTES >> 1;
    if (buffer === sharedReadBuffer) return this.#restAfter(this.#reader?.read(buffer, length) ?? false);
    const before = handling(buffer);
    try {
      return this.#restAfter(this.#reader?.read(buffer, length) ?? false);
    } finally {
      handling(before);
    }
  }

  /** @returns whether to read on at once */
  #restAfter(wanted: boolean): boolean {
    if (!this.#bulk || !wanted) return wanted;
    shares.busy(this.#lane);
    if (this.#readIn !== shares.turn) {
      this.#readIn = shares.turn;
      this.#reads = 0;
    }
    if (!shares.readEnough(++this.#reads)) return true;
    this.#resting = true;
    this.#wanted = true;
    shares.rest(this);
    return false;
  }

  rested(): void {
    this.#resting = false;
    if (this.#wanted) this.#tcp.startReading();
  }

  ended(): void {
    this.#ended = true;
    this.#reader?.ended();
  }

  drained(): void {
    if (!this.#awaited) return;
    this.#awaited = false;
    this.#reader?.writable();
  }

  closed(error: Error | undefined): void {
    this.#closed = true;
    returnReadBuffer(this.#buffer);
    this.#buffer = sharedReadBuffer;
    this.#failure = this.#destroyedFor ?? failureOf(error);
    this.#reader?.closed(this.#failure);
  }

  #room(limit: number): boolean {
    if (this.#tcp.pending < limit) return true;
    this.#awaited = true;
    return false;
  }
}

const UNKNOWN: SocketAddress = { ip: '', port: 0 };

function failureOf(error: Error | undefined): ProxyError | undefined {
  if (!error || ('code' in error && typeof error.code === 'string' && RESETS.has(error.code))) return undefined;
  return ProxyError.from(error, 'CONNECTION_LOST', 'application connection');
}
