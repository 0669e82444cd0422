/** Decoded objects by the block that they came from, up to a number of them; the ones not used for longest go first. */
import type { ArenaView, BlockRef } from './arena.ts';

interface Entry<T> {
  readonly serial: number;
  readonly value: T;
}

/** Keeps at most `limit` values, for one arena and one thread. */
export class BlockCache<T> {
  readonly #arena: ArenaView;
  readonly #limit: number;
  // Two generations: what is used moves to the young one; when that is full it becomes the old one, and what was old is dropped. That is
  // nearly least-recently-used, without touching the map on every hit.
  #young = new Map<BlockRef, Entry<T>>();
  #old = new Map<BlockRef, Entry<T>>();

  constructor(arena: ArenaView, limit: number) {
    this.#arena = arena;
    this.#limit = Math.max(1, limit >> 1);
  }

  get size(): number {
    return this.#young.size + this.#old.size;
  }

  /** What was decoded from this block; a block that was freed and used again has another serial and is decoded anew. */
  get(ref: BlockRef, decode: () => T): T {
    const serial = this.#arena.serial(ref);
    const young = this.#young.get(ref);
    if (young?.serial === serial) return young.value;
    const old = this.#old.get(ref);
    const entry = old?.serial === serial ? old : { serial, value: decode() };
    if (this.#young.size >= this.#limit) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(ref, entry);
    return entry.value;
  }
}
