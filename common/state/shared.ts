/**
 * The memory that a supervisor and its data workers share: one growing buffer of blocks (arena.ts), and a handful of control words that
 * say which picture of the mesh is the current one and which picture each reader still looks at.
 *
 * The writer never changes what a published picture can reach. It builds the next one beside it, out of new blocks and the unchanged old
 * ones, and publishes it with one atomic store. A reader moves to it when it chooses (between two events), pins it, and sees nothing else
 * until it moves again; neither ever waits for the other. Blocks that no picture needs any more are used again once no reader pins a
 * picture that had them.
 */
import { threadId } from 'node:worker_threads';

/** May be sent to another thread with postMessage or workerData; the memory is shared, not copied. */
export interface SharedMeshState {
  readonly arena: SharedArrayBuffer;
  readonly control: SharedArrayBuffer;
}

/** Readers in all threads together. */
export const MAX_READERS = 64;

const GENERATION = 0;
const ROOT = 1;
const SEED = 2;
const FIRST_READER = 8;
const WORDS_PER_READER = 2;

/** Creates the control words; the root is set by the first publication. */
export function createControl(seed: number): SharedArrayBuffer {
  const buffer = new SharedArrayBuffer((FIRST_READER + MAX_READERS * WORDS_PER_READER) * 4);
  new Int32Array(buffer)[SEED] = seed;
  return buffer;
}

/** The writer's end of the control words. */
export class Publisher {
  readonly #words: Int32Array;

  constructor(control: SharedArrayBuffer) {
    this.#words = new Int32Array(control);
  }

  get seed(): number {
    return this.#words[SEED] ?? 0;
  }

  get generation(): number {
    return Atomics.load(this.#words, GENERATION);
  }

  get root(): number {
    return Atomics.load(this.#words, ROOT) >>> 0;
  }

  /** Everything written before is visible to whoever sees the new generation. */
  publish(root: number): void {
    Atomics.store(this.#words, ROOT, root | 0);
    Atomics.store(this.#words, GENERATION, this.generation + 1);
  }

  /** The oldest generation that a reader may still look at; the current one where there are no readers. */
  oldestPinned(): number {
    let oldest = this.generation;
    for (let i = 0; i < MAX_READERS; i++) {
      const at = FIRST_READER + i * WORDS_PER_READER;
      if (Atomics.load(this.#words, at) !== 0) oldest = Math.min(oldest, Atomics.load(this.#words, at + 1));
    }
    return oldest;
  }

  get readers(): number {
    let count = 0;
    for (let i = 0; i < MAX_READERS; i++) if (Atomics.load(this.#words, FIRST_READER + i * WORDS_PER_READER) !== 0) count++;
    return count;
  }

  /** Lets go of what the readers of a thread that ended had pinned. */
  forget(thread: number): void {
    for (let i = 0; i < MAX_READERS; i++) Atomics.compareExchange(this.#words, FIRST_READER + i * WORDS_PER_READER, thread + 1, 0);
  }
}

/** A reader's end: one slot of the control words. */
export class Pin {
  readonly #words: Int32Array;
  readonly #at: number;

  /** @throws Error where there are more than MAX_READERS readers */
  constructor(control: SharedArrayBuffer) {
    this.#words = new Int32Array(control);
    this.#at = this.#claim();
  }

  get seed(): number {
    return this.#words[SEED] ?? 0;
  }

  /** Pins the newest picture and lets go of the one before. */
  move(): { generation: number; root: number } {
    for (;;) {
      const generation = Atomics.load(this.#words, GENERATION);
      Atomics.store(this.#words, this.#at + 1, generation);
      const root = Atomics.load(this.#words, ROOT) >>> 0;
      // If it is still current after it was pinned, the writer has seen or will see the pin before it uses a block of it again.
      if (Atomics.load(this.#words, GENERATION) === generation) return { generation, root };
    }
  }

  release(): void {
    Atomics.store(this.#words, this.#at, 0);
  }

  #claim(): number {
    for (let i = 0; i < MAX_READERS; i++) {
      const at = FIRST_READER + i * WORDS_PER_READER;
      if (Atomics.compareExchange(this.#words, at, 0, threadId + 1) === 0) return at;
    }
    throw new Error(`the mesh state has ${MAX_READERS} readers already`);
  }
}
