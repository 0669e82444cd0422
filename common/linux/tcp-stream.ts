/**
 * A TCP connection without a `net.Socket` around it. A socket object of Node's costs each connection three times what the kernel does for it, and
 * each read and write passes two stream machines; a relay needs neither (bench ztunnel: new connections and kept ones).
 *
 * No function is written where it is assigned to a property: V8's parser takes it for a method then and allocates it in the old generation, and
 * all that it knows of, which is the whole connection, is copied by each young collection until a full one (bench ztunnel, new connections).
 */
import type { SocketAddress } from '../base/address.ts';
import { SOON } from '../base/soon.ts';
import { closeFd } from './descriptor.ts';
import { EALREADY } from './libc.ts';
import { connectAtOnce, endSending, hasEnded, ownAddress, peerAddress } from './sockets.ts';
import {
  constants,
  isHandle,
  kLastWriteWasAsync,
  kReadBytesOrError,
  streamState,
  systemError,
  TCP,
  TCPConnectWrap,
  type TcpHandle,
  type WriteRequest,
  WriteWrap,
} from './tcp-handle.ts';

/** Whoever is told what happens to a stream; nothing is told after `closed`. */
export interface TcpStreamOwner {
  /** Where the next read goes. The memory stays the stream's until the read after it. */
  nextBuffer(): Uint8Array;
  /** `length` bytes were read into it. @returns whether to read on */
  read(length: number): boolean;
  /** The peer will send no more. */
  ended(): void;
  /** All that was written has left, after a write that had to wait or was kept by `cork`. */
  drained(): void;
  /** The descriptor is closed. An error is the system's, with its `code`. */
  closed(error: Error | undefined): void;
}

/** What a read says where the peer ended in order: UV_EOF (libuv, uv/errno.h). */
const END_OF_FILE = -4095;

export class TcpStream {
  owner: TcpStreamOwner | undefined;
  readonly #handle: TcpHandle;
  #noDelay: boolean;
  /** Where it is known already. */
  readonly #remote: SocketAddress | undefined;
  #reading = false;
  /** What was read is being handed on, and the handle reads on whatever `#reading` says: until the microtasks of that callback are done. */
  #delivering = false;
  #userBuffer: Uint8Array | undefined;
  #readEnded = false;
  /** Reads after which the end is looked for at once; 0 where nobody expects it. */
  #looksForEnd = 0;
  /** A write is with the kernel's queue: others wait for it. */
  #writing = false;
  /** Bytes of it. */
  #inFlight = 0;
  #queue: Uint8Array[] = [];
  #queued = 0;
  #written: (() => void)[] = [];
  #corked = false;
  #ending = false;
  #shutDown = false;
  #closeWhenShut = false;
  #closing = false;
  #error: Error | undefined;

  /** @param noDelay that it has TCP_NODELAY already */
  constructor(handle: TcpHandle, noDelay = false, remote?: SocketAddress) {
    this.#handle = handle;
    this.#noDelay = noDelay;
    this.#remote = remote;
    const onRead = (): Uint8Array | undefined => this.#onRead();
    handle.onread = onRead;
  }

  /** Takes over a descriptor of sockets.ts, connected or to be connected; those have TCP_NODELAY. @throws {Error} where it is none; then it has been closed */
  static fromFd(fd: number, remote?: SocketAddress): TcpStream {
    const handle = new TCP(constants.SOCKET);
    const status = handle.open(fd);
    if (status === 0) return new TcpStream(handle, true, remote);
    closeFd(fd);
    throw systemError('open', status);
  }

  /**
   * Takes over a descriptor of sockets.ts and connects it to a listener of its own namespace. The kernel does that at once; libuv would look for
   * it in its next turn, with four system calls more (bench ztunnel, new connections).
   * @returns undefined where it would take longer; then the descriptor has been closed
   * @throws {Error} the system's; then too
   */
  static connectedAtOnce(fd: number, to: SocketAddress): TcpStream | undefined {
    const errno = connectAtOnce(fd, to);
    if (errno === 0) return TcpStream.fromFd(fd);
    closeFd(fd);
    if (errno === EALREADY) return undefined;
    throw systemError('connect', -errno, `${to.ip}:${to.port}`);
  }

  static unconnected(): TcpStream {
    return new TcpStream(new TCP(constants.SOCKET));
  }

  /** Takes over what lies under a `net.Socket` that was accepted paused; undefined where it is gone. The object is of no use afterwards. */
  static fromSocket(socket: { destroy(): unknown }): TcpStream | undefined {
    if (!('_handle' in socket) || !isHandle(socket._handle)) return undefined;
    const handle = socket._handle;
    // Destroying the object settles its server's count of connections.
    socket._handle = null;
    socket.destroy();
    return new TcpStream(handle);
  }

  /** -1 once it is closed. */
  get fd(): number {
    return this.#closing ? -1 : this.#handle.fd;
  }

  get closing(): boolean {
    return this.#closing;
  }

  /** Bytes that were written and have not left. */
  get pending(): number {
    return this.#inFlight + this.#queued;
  }

  get corked(): boolean {
    return this.#corked;
  }

  get local(): SocketAddress | undefined {
    return this.#closing ? undefined : ownAddress(this.#handle.fd);
  }

  get remote(): SocketAddress | undefined {
    return this.#closing ? undefined : (this.#remote ?? peerAddress(this.#handle.fd));
  }

  setNoDelay(): void {
    if (this.#noDelay || this.#closing) return;
    this.#noDelay = true;
    this.#handle.setNoDelay(true);
  }

  /**
   * The peer may well end with what it sends first, as a server does that answers one request. Then its end is told with its last bytes, and can go
   * on with them: libuv would look for it in its next turn, and whoever gets the bytes long before the end closes first, which leaves the
   * port of an application in TIME_WAIT that would otherwise be free (bench ztunnel, new connections).
   */
  expectEnd(): void {
    this.#looksForEnd = END_LOOKS;
  }

  /** @param done called once: without an error when it is connected */
  connect({ ip, port }: SocketAddress, done: (error: Error | undefined) => void): void {
    const fail = (status: number): Error => systemError('connect', status, `${ip}:${port}`);
    const request = new TCPConnectWrap();
    const complete = (status: number): void => done(status === 0 ? undefined : fail(status));
    request.oncomplete = complete;
    const status = ip.includes(':') ? this.#handle.connect6(request, ip, port) : this.#handle.connect(request, ip, port);
    if (status !== 0) process.nextTick(done, fail(status));
  }

  startReading(): void {
    if (this.#reading || this.#closing || this.#readEnded) return;
    this.#reading = true;
    if (this.#delivering) return;
    if (!this.#userBuffer) this.#offer(this.#nextBuffer());
    const status = this.#handle.readStart();
    if (status !== 0) this.close(systemError('read', status));
  }

  stopReading(): void {
    if (!this.#reading) return;
    this.#reading = false;
    if (!this.#closing && !this.#delivering) this.#handle.readStop();
  }

  /** @param written called when the bytes are needed no longer; where it is not given they must stay as they are anyway */
  write(bytes: Uint8Array, written?: () => void): void {
    if (this.#closing || this.#ending) {
      written?.();
      return;
    }
    if (this.#writing || this.#corked) {
      this.#queue.push(bytes);
      this.#queued += bytes.length;
      if (written) this.#written.push(written);
      return;
    }
    this.#send(bytes, written);
  }

  /** Until `uncork`, writes are kept and then leave as one. */
  cork(): void {
    this.#corked = true;
  }

  uncork(): void {
    this.#corked = false;
    const waited = this.#queued > 0;
    this.#flush();
    if (waited) this.#tellIfDrained();
  }

  /** Ends our direction after what was written. */
  end(): void {
    if (this.#ending || this.#closing) return;
    this.#ending = true;
    this.#flush();
  }

  /** Ends our direction, and closes then. */
  endAndClose(): void {
    this.#closeWhenShut = true;
    if (this.#shutDown) this.close();
    else this.end();
  }

  /** At once; what waits is dropped. `error` is what `closed` will be told. */
  close(error?: Error): void {
    if (this.#beginClose(error)) this.#handle.close(() => this.#closed());
  }

  /** At once, with RST. */
  reset(): void {
    if (!this.#beginClose(undefined)) return;
    if (this.#handle.reset(() => this.#closed()) !== 0) this.#handle.close(() => this.#closed());
  }

  #beginClose(error: Error | undefined): boolean {
    if (this.#closing) return false;
    this.#closing = true;
    this.#error = error;
    this.#reading = false;
    return true;
  }

  #closed(): void {
    this.#settle();
    this.#userBuffer = undefined;
    this.owner?.closed(this.#error);
    this.owner = undefined;
  }

  #nextBuffer(): Uint8Array {
    return this.owner?.nextBuffer() ?? NOWHERE;
  }

  #offer(bytes: Uint8Array): void {
    this.#userBuffer = bytes;
    this.#handle.useUserBuffer(bytes);
  }

  /** @returns the buffer of the next read where it is another one */
  #onRead(): Uint8Array | undefined {
    const length = streamState[kReadBytesOrError] ?? 0;
    if (length === 0 || this.#closing) return undefined;
    if (length < 0) {
      this.#readEnd(length);
      return undefined;
    }
    this.#delivering = true;
    if (this.owner?.read(length) === false) this.#reading = false;
    if (this.#reading) this.#delivering = false;
    // Whoever looks at the first bytes, or waits for the end of a message, often goes on at once: stopping and starting again would be two
    // system calls. libuv reads no more before microtasks have run.
    else void SOON.then(() => this.#delivered());
    if (this.#looksForEnd > 0 && this.#reading && length < (this.#userBuffer?.length ?? 0) && this.#foundEnd()) return undefined;
    if (this.#closing) return undefined;
    const next = this.#nextBuffer();
    if (next === this.#userBuffer) return undefined;
    this.#userBuffer = next;
    return next;
  }

  /** @returns whether the peer's end was there, in good or in bad */
  #foundEnd(): boolean {
    this.#looksForEnd--;
    try {
      if (!hasEnded(this.#handle.fd)) return false;
    } catch (error) {
      // Whoever asks for it takes it: libuv will not find it any more.
      this.close(error instanceof Error ? error : undefined);
      return true;
    }
    this.#handle.readStop();
    this.#readEnd(END_OF_FILE);
    return true;
  }

  #delivered(): void {
    this.#delivering = false;
    if (!this.#reading && !this.#closing) this.#handle.readStop();
  }

  #readEnd(status: number): void {
    this.#reading = false;
    if (status !== END_OF_FILE) {
      this.close(systemError('read', status));
      return;
    }
    this.#readEnded = true;
    this.owner?.ended();
    if (this.#shutDown) this.close();
  }

  #send(bytes: Uint8Array, written: (() => void) | undefined): void {
    const request = spareWrite ?? new WriteWrap();
    spareWrite = undefined;
    const status = this.#handle.writeBuffer(request, bytes);
    if (this.#settled(request, status, bytes, bytes.length)) written?.();
    else if (written) this.#written.push(written);
  }

  /** @returns whether the write is over, in good or in bad */
  #settled(request: WriteRequest, status: number, kept: unknown, length: number): boolean {
    if (status !== 0) {
      this.close(systemError('write', status));
      return true;
    }
    if (!streamState[kLastWriteWasAsync]) {
      spareWrite = request;
      return true;
    }
    this.#writing = true;
    this.#inFlight = length;
    // The kernel is not done with the memory: the request keeps it.
    request.kept = kept;
    const complete = (result: number): void => {
      request.kept = undefined;
      this.#afterWrite(result);
    };
    request.oncomplete = complete;
    return false;
  }

  #afterWrite(status: number): void {
    this.#writing = false;
    this.#inFlight = 0;
    if (this.#closing) return;
    if (status !== 0) {
      this.close(systemError('write', status));
      return;
    }
    // Those who wrote later wait among these too: their bytes are kept a little longer than they had to be.
    if (this.#queue.length === 0) this.#settle();
    this.#flush();
    this.#tellIfDrained();
  }

  #tellIfDrained(): void {
    if (this.pending === 0 && !this.#closing) this.owner?.drained();
  }

  #settle(): void {
    const written = this.#written;
    if (written.length === 0) return;
    this.#written = [];
    for (const done of written) done();
  }

  #flush(): void {
    if (this.#writing || this.#corked || this.#closing) return;
    const queue = this.#queue;
    if (queue.length > 0) {
      const length = this.#queued;
      this.#queue = [];
      this.#queued = 0;
      const request = spareWrite ?? new WriteWrap();
      spareWrite = undefined;
      const [only] = queue;
      const status = queue.length === 1 && only ? this.#handle.writeBuffer(request, only) : this.#handle.writev(request, queue, true);
      if (!this.#settled(request, status, queue, length)) return;
      this.#settle();
    }
    if (this.#ending && !this.#closing) this.#shutdown();
  }

  /** Not by libuv, which waits for its next turn: the end should follow the last bytes, as `expectEnd` says. */
  #shutdown(): void {
    if (this.#shutDown) return;
    this.#shutDown = true;
    // Where it is connected no more, reading will tell.
    endSending(this.#handle.fd);
    if (this.#readEnded || this.#closeWhenShut) this.close();
  }
}

/** Of those who keep a connection, so many answers tell. */
const END_LOOKS = 2;
/** Where a read goes when nobody wants it any more. */
const NOWHERE = Buffer.allocUnsafeSlow(1 << 10);
/** Most writes are over when they return, so one request serves them all. */
let spareWrite: WriteRequest | undefined;
