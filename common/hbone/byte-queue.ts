/** Bytes that wait for a slow reader. Small pieces are copied together: a peer that sends byte by byte must not cost an object for each. */

import { keep } from './receive-buffers.ts';

const SMALL = 2048;
const TAIL_BYTES = 16 << 10;

export class ByteQueue {
  #pieces: Buffer[] = [];
  #first = 0;
  #length = 0;
  /** The last piece's own memory, and how much of it is used, while it can grow. */
  #tail: { memory: Buffer; used: number } | undefined;

  get length(): number {
    return this.#length;
  }

  push(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#length += bytes.length;
    if (bytes.length >= SMALL) {
      this.#tail = undefined;
      this.#pieces.push(keep(bytes));
      return;
    }
    const tail = this.#tail;
    if (tail && tail.used + bytes.length <= tail.memory.length) {
      bytes.copy(tail.memory, tail.used);
      const last = this.#pieces[this.#pieces.length - 1];
      tail.used += bytes.length;
      this.#pieces[this.#pieces.length - 1] = tail.memory.subarray(tail.used - bytes.length - (last?.length ?? 0), tail.used);
      return;
    }
    const memory = Buffer.allocUnsafeSlow(TAIL_BYTES);
    bytes.copy(memory, 0);
    this.#tail = { memory, used: bytes.length };
    this.#pieces.push(memory.subarray(0, bytes.length));
  }

  shift(): Buffer | undefined {
    const piece = this.#pieces[this.#first];
    if (!piece) return undefined;
    this.#first++;
    this.#length -= piece.length;
    if (this.#first === this.#pieces.length) {
      this.#pieces = [];
      this.#first = 0;
      this.#tail = undefined;
    }
    return piece;
  }

  clear(): void {
    this.#pieces = [];
    this.#first = 0;
    this.#length = 0;
    this.#tail = undefined;
  }
}
