/**
 * The open streams of a connection by their numbers: open addressing with linear probing, in arrays that stay. A `Map` would do but for what
 * base/roster.ts says of it, and numbers that grow by two need no hash.
 */

const LEAST_SLOTS = 16;

export class StreamTable<T extends { readonly id: number }> {
  /** 0 where a slot is free: stream 0 is the connection. */
  #ids = new Int32Array(LEAST_SLOTS);
  #streams: (T | undefined)[] = new Array(LEAST_SLOTS).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(id: number): T | undefined {
    return this.#streams[this.#slotOf(id)];
  }

  /** @param stream takes the place of another one with its number */
  add(stream: T): void {
    let slot = this.#slotOf(stream.id);
    if (this.#ids[slot] === 0) {
      if (2 * ++this.#size > this.#ids.length) {
        this.#grow();
        slot = this.#slotOf(stream.id);
      }
      this.#ids[slot] = stream.id;
    }
    this.#streams[slot] = stream;
  }

  delete(id: number): void {
    const ids = this.#ids;
    const last = ids.length - 1;
    let free = this.#slotOf(id);
    if (ids[free] === 0) return;
    this.#size--;
    // Whoever was pushed behind it by the probing moves up, so that no gap is between a stream and its first slot.
    for (let slot = (free + 1) & last; ids[slot] !== 0; slot = (slot + 1) & last) {
      const way = (slot - this.#home(ids[slot] ?? 0)) & last;
      if (way < ((slot - free) & last)) continue;
      ids[free] = ids[slot] ?? 0;
      this.#streams[free] = this.#streams[slot];
      free = slot;
    }
    ids[free] = 0;
    this.#streams[free] = undefined;
  }

  /** Those that are open now, in no order; they may be deleted meanwhile. */
  all(): T[] {
    return this.#streams.filter((stream) => stream !== undefined);
  }

  #home(id: number): number {
    return (id >>> 1) & (this.#ids.length - 1);
  }

  /** The slot of the stream, or the free one where it would be. */
  #slotOf(id: number): number {
    const ids = this.#ids;
    const last = ids.length - 1;
    let slot = this.#home(id);
    while (ids[slot] !== 0 && ids[slot] !== id) slot = (slot + 1) & last;
    return slot;
  }

  #grow(): void {
    const streams = this.all();
    this.#ids = new Int32Array(2 * this.#ids.length);
    this.#streams = new Array(this.#ids.length).fill(undefined);
    for (const stream of streams) {
      const slot = this.#slotOf(stream.id);
      this.#ids[slot] = stream.id;
      this.#streams[slot] = stream;
    }
  }
}
