/**
 * Memory of a thread's JavaScript heap, given back when nobody is kept waiting by it. What loading the program leaves behind is 5 MB in each thread
 * (a nursery that grew, text and code that ran once), and V8 has no reason of its own to look for it in a thread that then does little.
 */
import { getHeapStatistics } from 'node:v8';

/**
 * Collects all garbage of this thread and returns the pages to the system: tens of milliseconds in which the thread does nothing else. Does nothing where
 * Node was started without `--expose-gc`, as a developer does.
 */
export function shrinkHeap(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

/** How long nothing may have been open before a thread counts as idle. */
const QUIET_MS = 30_000;
/**
 * What must have come since the heap was small. V8 throws compiled code away when it shrinks a heap in which no object of the shapes lives that the
 * code was compiled for, and takes ten seconds of traffic to be as fast again: bench ztunnel, new connections.
 */
const WORTH_BYTES = 16 * 2 ** 20;

export interface HeapAccess {
  /** Bytes that the heap takes, garbage and all. */
  size(): number;
  shrink(): void;
}

const OWN: HeapAccess = { size: () => getHeapStatistics().total_heap_size, shrink: shrinkHeap };

/** Shrinks a heap that has grown, once after each busy time. Told now and then how much is open; time is what `monotonic` says. */
export class IdleHeap {
  readonly #monotonic: () => number;
  readonly #heap: HeapAccess;
  /** When it was small. */
  #bytes: number;
  #busy = false;
  #quietSince = 0;

  constructor(monotonic: () => number, heap = OWN) {
    this.#monotonic = monotonic;
    this.#heap = heap;
    this.#bytes = heap.size();
  }

  look(open: number): void {
    if (open > 0) {
      this.#busy = true;
      this.#quietSince = this.#monotonic();
    } else if (this.#busy && this.#monotonic() - this.#quietSince >= QUIET_MS) {
      this.#busy = false;
      if (this.#heap.size() - this.#bytes < WORTH_BYTES) return;
      this.#heap.shrink();
      this.#bytes = this.#heap.size();
    }
  }
}
