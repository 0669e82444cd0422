/**
 * Bytes that wait for a slow reader. Small pieces are copied together: a peer that sends byte by byte must not cost an object for each. Large
 * ones stay where they are, if that can be held: copying a bulk transfer costs new memory at its pace, and the garbage collector marks the whole
 * heap for that (a third of the processor time of 1 MB bodies through the waypoint).
 */
import { type Holder, handling, holderOf, keep } from './receive-buffers.ts';

const SMALL = 2048;
const TAIL_BYTES = 16 << 10;
/** From here on a piece may keep a buffer of 64 kB from being used again. */
const HOLD_FROM = 8 << 10;
/** Pieces that all queues of a thread hold together (32 MiB, if each were in a buffer of its own); beyond that they are copied. */
const MAX_HELD = 512;
let held = 0;
/** Pieces that have gone before those behind them are moved up. */
const COMPACT_FROM = 256;
const NOTHING = Buffer.alloc(0);

export class ByteQueue {
  #pieces: Buffer[] = [];
  /** What each piece lies in. */
  #holders: Holder[] = [];
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
      const holder = bytes.length >= HOLD_FROM && held < MAX_HELD ? holderOf(bytes) : undefined;
      if (holder) {
        holder.hold();
        held++;
        this.#add(bytes, holder);
      } else this.#addOwn(keep(bytes));
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
    this.#addOwn(memory.subarray(0, bytes.length));
  }

  /**
   * Hands the first piece on, which is the queue's no more.
   * @param use keeps bytes as receive-buffers.ts says
   * @returns whether there was one
   */
  shift(use: (bytes: Buffer) => void): boolean {
    const at = this.#first;
    const piece = this.#pieces[at];
    const holder = this.#holders[at];
    if (!piece || !holder) return false;
    this.#length -= piece.length;
    this.#pieces[at] = NOTHING;
    this.#first++;
    if (this.#first === this.#pieces.length) this.#reset();
    else if (this.#first === COMPACT_FROM) this.#compact();
    const before = handling(holder);
    try {
      use(piece);
    } finally {
      handling(before);
      letGo(holder);
    }
    return true;
  }

  clear(): void {
    const holders = this.#holders;
    const first = this.#first;
    this.#length = 0;
    this.#reset();
    for (let at = first; at < holders.length; at++) {
      const holder = holders[at];
      if (holder) letGo(holder);
    }
  }

  #addOwn(bytes: Buffer): void {
    this.#add(bytes, new Owned(bytes));
  }

  #add(bytes: Buffer, holder: Holder): void {
    this.#pieces.push(bytes);
    this.#holders.push(holder);
  }

  #compact(): void {
    this.#pieces.splice(0, this.#first);
    this.#holders.splice(0, this.#first);
    this.#first = 0;
  }

  #reset(): void {
    this.#pieces = [];
    this.#holders = [];
    this.#first = 0;
    this.#tail = undefined;
  }
}

/** Memory that nobody writes to again: whoever holds it has it. */
class Owned implements Holder {
  readonly bytes: Buffer;
  readonly release = nothing;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  hold(): void {}
}

function nothing(): void {}

function letGo(holder: Holder): void {
  if (!(holder instanceof Owned)) held--;
  holder.release();
}

/** Pieces that queues of this thread hold: for tests, which want none left. */
export const heldPieces = (): number => held;
