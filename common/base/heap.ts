/**
 * Memory of a thread's JavaScript heap, given back when nobody is kept waiting by it. What loading the program leaves behind is 5 MB in each thread
 * (a nursery that grew, text and code that ran once), and V8 has no reason of its own to look for it in a thread that then does little.
 */

/**
 * Collects all garbage of this thread and returns the pages to the system: tens of milliseconds in which the thread does nothing else. Does nothing where
 * Node was started without `--expose-gc`, as a developer does.
 */
export function shrinkHeap(): void {
  globalThis.gc?.({ type: 'major', execution: 'sync', flavor: 'last-resort' });
}

/** How long nothing may have been open before a thread counts as idle. */
const QUIET_MS = 30_000;

/** Shrinks the heap once after each busy time. Told now and then how much is open; time is what `monotonic` says. */
export class IdleHeap {
  readonly #monotonic: () => number;
  readonly #shrink: () => void;
  #busy = false;
  #quietSince = 0;

  constructor(monotonic: () => number, shrink: () => void = shrinkHeap) {
    this.#monotonic = monotonic;
    this.#shrink = shrink;
  }

  look(open: number): void {
    if (open > 0) {
      this.#busy = true;
      this.#quietSince = this.#monotonic();
    } else if (this.#busy && this.#monotonic() - this.#quietSince >= QUIET_MS) {
      this.#busy = false;
      this.#shrink();
    }
  }
}
