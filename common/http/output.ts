/**
 * Bytes on their way into a pipe. What one turn writes leaves in one piece, because a write costs far more than the bytes in it: heads and
 * small bodies are copied beside each other, large ones go as they are.
 */

import { writeLatin1 } from '../base/latin1.ts';
import { SOON } from '../base/soon.ts';
import { type HeadText, writeHead } from '../codec/http1/write.ts';
import { Flag, FRAME_HEADER_BYTES, FrameType, writeFrameHeader } from '../codec/http2/frames.ts';
import type { Endpoint } from '../hbone/endpoint.ts';
import { handling, holderOf } from '../hbone/receive-buffers.ts';
import { SendRun } from '../hbone/send-slabs.ts';

/** Bytes up to here are copied: a write of their own would cost more than the copy. */
const COPY_LIMIT = 8192;
/** Where a frame's header has its flags. */
const FLAGS_AT = 4;
/** Bytes that may wait in the pipe before its writers are asked to pause. */
const WAITING_LIMIT = 256 << 10;

export class Output {
  /** Whether what is written leaves with the event that wrote it, rather than with the turn of the loop (for many streams at once). */
  eager = true;
  /** Bytes that have left. */
  written = 0;
  readonly #pipe: Endpoint;
  readonly #flush = (): void => this.flush();
  /** Not yet written. */
  readonly #run = new SendRun();
  /** The stream whose DATA frame was written last, and where its header is in the run; 0 where it has left. */
  #lastData = 0;
  #lastDataAt = 0;
  #scheduled = false;
  #blocked = false;
  #closed = false;

  constructor(pipe: Endpoint) {
    this.#pipe = pipe;
  }

  /** Whether writers have to pause until `unblock`. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** The pipe takes more. @returns whether somebody may have been told to pause */
  unblock(): boolean {
    const was = this.#blocked;
    this.#blocked = false;
    return was;
  }

  /** What is written from now on goes nowhere. */
  close(): void {
    this.#closed = true;
    this.#run.drop();
  }

  /** @throws {TypeError} as writeHead does; then nothing was written */
  head(head: HeadText): void {
    const at = this.#room(head.text.length);
    try {
      writeHead(this.#run.memory, at, head);
    } catch (error) {
      this.#run.cut(at);
      throw error;
    }
    this.#schedule();
  }

  /** A few bytes of our own, latin1. */
  text(text: string): void {
    const at = this.#room(text.length);
    writeLatin1(this.#run.memory, text, at);
    this.#schedule();
  }

  /** A piece of a body, copied or held for as long as it is needed. */
  bytes(bytes: Buffer): void {
    if (bytes.length <= COPY_LIMIT) {
      const at = this.#room(bytes.length);
      this.#run.memory.set(bytes, at);
      this.#schedule();
    } else this.#large(bytes);
  }

  /** A frame that is ready; it is copied. */
  frame(bytes: Buffer): void {
    const at = this.#room(bytes.length);
    this.#run.memory.set(bytes, at);
    this.#schedule();
  }

  /** A DATA frame. */
  data(streamId: number, bytes: Buffer, flags: number): void {
    const small = bytes.length <= COPY_LIMIT;
    const at = this.#room(FRAME_HEADER_BYTES + (small ? bytes.length : 0));
    writeFrameHeader(this.#run.memory, at, bytes.length, FrameType.DATA, flags, streamId);
    if (small) {
      this.#run.memory.set(bytes, at + FRAME_HEADER_BYTES);
      this.#lastData = streamId;
      this.#lastDataAt = at;
      this.#schedule();
    } else this.#large(bytes);
  }

  /** Makes the stream's last DATA frame end the stream, where it has not left yet. @returns whether it could */
  endData(streamId: number): boolean {
    if (this.#lastData !== streamId || this.#run.length === 0) return false;
    this.#run.memory[this.#lastDataAt + FLAGS_AT] = Flag.END_STREAM;
    return true;
  }

  /** Writes what is waiting. */
  flush(): void {
    this.#scheduled = false;
    if (this.#run.length === 0) return;
    const { bytes, slab } = this.#run.take();
    this.#lastData = 0;
    const before = handling(slab);
    try {
      this.#write(bytes);
    } finally {
      handling(before);
      slab.release();
    }
  }

  #large(bytes: Buffer): void {
    this.flush();
    // A buffer that TLS decrypts into can be held; any other belongs to whoever called us and is used again.
    this.#write(holderOf(bytes) ? bytes : Buffer.from(bytes));
  }

  #write(bytes: Buffer): void {
    if (this.#closed) return;
    this.written += bytes.length;
    if (!this.#pipe.writeSlice(bytes) || this.#pipe.backlog > WAITING_LIMIT) this.#blocked = true;
  }

  #room(bytes: number): number {
    if (!this.#run.fits(bytes)) this.flush();
    return this.#run.add(bytes);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // A microtask, and no tick: a tick costs an object, and a call of Node's own behind every event.
    if (this.eager) void SOON.then(this.#flush);
    else setImmediate(this.#flush);
  }
}
