/**
 * Frames on their way to the TLS socket. All frames of one event-loop turn leave in one write, because a write costs far more than a
 * frame; while a single stream is alive nothing waits, because then waiting is all cost. Small payloads are copied beside their header
 * into memory that lies in one piece, large ones go as they are.
 */
import type { Duplex } from 'node:stream';
import { FRAME_HEADER_BYTES, FrameType, writeFrameHeader } from '../codec/http2/frames.ts';
import { type ReadBuffer, returnReadBuffer } from './read-buffers.ts';

/** Payloads up to here are copied: a write of their own would cost more than the copy. */
const COPY_LIMIT = 4096;
const SLAB_BYTES = 64 << 10;
/** Bytes that may wait in the TLS socket before streams are asked to pause. */
const WRITE_LIMIT = 1 << 20;

// Memory for small frames, written front to back and then left to the garbage collector. Connections of a thread take turns in it.
let slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
let slabAt = 0;

export class Outbox {
  /** Whether frames leave at once instead of at the turn's end. */
  eager = true;
  readonly #socket: Duplex;
  readonly #flush = (): void => this.flush();
  /** Frames not yet written: #run[#from..#to). */
  #run = slab;
  #from = 0;
  #to = 0;
  #scheduled = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** Whether so much waits that streams have to pause until the socket's 'drain'. */
  get congested(): boolean {
    return this.#socket.writableLength + (this.#to - this.#from) >= WRITE_LIMIT;
  }

  /** Sends a frame that is ready; it is copied. */
  frame(bytes: Buffer): void {
    const at = this.#room(bytes.length);
    this.#run.set(bytes, at);
    this.#schedule();
  }

  /**
   * Sends DATA that is copied if it is small and kept if it is large. With `written` it is kept in any case, because pieces of the same
   * memory may be on their way before it; they are needed no longer when it is called.
   */
  data(streamId: number, bytes: Buffer, flags: number, written?: () => void): void {
    if (bytes.length <= COPY_LIMIT && !written) {
      const at = this.#room(FRAME_HEADER_BYTES + bytes.length);
      writeFrameHeader(this.#run, at, bytes.length, FrameType.DATA, flags, streamId);
      this.#run.set(bytes, at + FRAME_HEADER_BYTES);
      this.#schedule();
      return;
    }
    this.#socket.cork();
    const at = this.#room(FRAME_HEADER_BYTES);
    writeFrameHeader(this.#run, at, bytes.length, FrameType.DATA, flags, streamId);
    this.#writeRun();
    this.#socket.write(bytes, written);
    this.#socket.uncork();
  }

  /** Sends the first `length` bytes of a read buffer as DATA, writing the header into the room before them; gives the buffer back. */
  read(streamId: number, buffer: ReadBuffer, length: number, borrowed: boolean): void {
    const bytes = FRAME_HEADER_BYTES + length;
    writeFrameHeader(buffer.bytes, 0, length, FrameType.DATA, 0, streamId);
    if (borrowed && length > COPY_LIMIT) {
      this.#writeRun();
      this.#socket.write(buffer.bytes.subarray(0, bytes), () => returnReadBuffer(buffer));
      return;
    }
    const at = this.#room(bytes);
    buffer.bytes.copy(this.#run, at, 0, bytes);
    if (borrowed) returnReadBuffer(buffer);
    this.#schedule();
  }

  /** Writes what is waiting. */
  flush(): void {
    this.#scheduled = false;
    this.#writeRun();
  }

  #room(bytes: number): number {
    if (this.#run !== slab || this.#to !== slabAt || slabAt + bytes > slab.length) {
      this.#writeRun();
      if (slabAt + bytes > slab.length) {
        slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes));
        slabAt = 0;
      }
      this.#run = slab;
      this.#from = slabAt;
      this.#to = slabAt;
    }
    const at = this.#to;
    this.#to += bytes;
    slabAt += bytes;
    return at;
  }

  #schedule(): void {
    if (this.eager) this.#writeRun();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#flush);
    }
  }

  #writeRun(): void {
    if (this.#to === this.#from) return;
    const run = this.#run.subarray(this.#from, this.#to);
    this.#from = this.#to;
    if (this.#socket.writable) this.#socket.write(run);
  }
}
