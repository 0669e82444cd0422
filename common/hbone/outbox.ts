/**
 * Frames on their way to the TLS socket. All frames of one event-loop turn leave in one write, because a write costs far more than a
 * frame; while a single stream is alive small ones do not wait, because then waiting is all cost. Payloads are copied beside their headers
 * into memory that lies in one piece, which TLS would do otherwise; what was read into a buffer with room for the header goes as it is.
 */
import type { Duplex } from 'node:stream';
import { SOON } from '../base/soon.ts';
import { FRAME_HEADER_BYTES, FrameType, writeFrameHeader } from '../codec/http2/frames.ts';
import { type ReadBuffer, returnReadBuffer } from './read-buffers.ts';
import { SendRun } from './send-slabs.ts';

/** Reads up to here are copied: a write of their own would cost more than the copy. */
const COPY_LIMIT = 4096;
/** From here on a payload is a piece of a bulk transfer: its turn will bring more, so it waits for them. */
const BULK = 8 << 10;
/** Bytes that may wait in the TLS socket before streams are asked to pause. */
const WRITE_LIMIT = 1 << 20;

export class Outbox {
  /** Whether small frames leave at once instead of at the turn's end. */
  eager = true;
  /** Counts what has left. */
  runs = 0;
  readonly #socket: Duplex;
  readonly #flush = (): void => this.flush();
  readonly #run = new SendRun();
  #scheduled = false;
  #soon = false;

  constructor(socket: Duplex) {
    this.#socket = socket;
  }

  /** Whether so much waits that streams have to pause until the socket's 'drain'. */
  get congested(): boolean {
    return this.#socket.writableLength + this.#run.length >= WRITE_LIMIT;
  }

  /** Sends a frame that is ready; it is copied. */
  frame(bytes: Buffer): void {
    this.#copy(bytes, 0, bytes.length);
    this.#schedule(false);
  }

  /**
   * Sends DATA, copied. With `written` it is kept instead, because pieces of the same memory may be on their way before it; they are needed
   * no longer when it is called.
   */
  data(streamId: number, bytes: Buffer, flags: number, written?: () => void): void {
    if (!written) {
      this.#header(streamId, bytes.length, flags);
      this.#copy(bytes, 0, bytes.length);
      this.#schedule(bytes.length >= BULK);
      return;
    }
    this.#socket.cork();
    this.#header(streamId, bytes.length, flags);
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
    this.#copy(buffer.bytes, 0, bytes);
    if (borrowed) returnReadBuffer(buffer);
    this.#schedule(false);
  }

  /** Writes what is waiting. */
  flush(): void {
    this.#scheduled = false;
    this.#soon = false;
    this.#writeRun();
  }

  #header(streamId: number, length: number, flags: number): void {
    if (!this.#run.fits(FRAME_HEADER_BYTES)) this.#writeRun();
    const at = this.#run.add(FRAME_HEADER_BYTES);
    writeFrameHeader(this.#run.memory, at, length, FrameType.DATA, flags, streamId);
  }

  #copy(bytes: Buffer, from: number, to: number): void {
    while (from < to) {
      const left = to - from;
      const length = left <= COPY_LIMIT ? left : Math.min(left, this.#run.room);
      if (!this.#run.fits(length)) this.#writeRun();
      const at = this.#run.add(length);
      bytes.copy(this.#run.memory, at, from, from + length);
      from += length;
    }
  }

  #schedule(waits: boolean): void {
    if (this.eager && !waits) {
      // Not in this moment: the end of a direction often comes in the same call as its last bytes.
      if (this.#soon) return;
      this.#soon = true;
      void SOON.then(this.#flush);
    } else if (!this.#scheduled) {
      this.#scheduled = true;
      setImmediate(this.#flush);
    }
  }

  #writeRun(): void {
    if (this.#run.length === 0) return;
    this.runs++;
    const { bytes, slab } = this.#run.take();
    if (this.#socket.writable) this.#socket.write(bytes, slab.release);
    else slab.release();
  }
}
