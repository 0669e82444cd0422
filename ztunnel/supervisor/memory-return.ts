/**
 * Gives memory back when what took it is over: the start of the process, and pushes that bring much of a mesh at once, whose messages and decoded
 * forms are garbage afterwards. And, while traffic goes on, what the C library's allocator keeps of buffers that are used no more: it returns little
 * by itself, so that resident memory would creep to the most that any thread ever used (bench soak).
 */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import { shrinkHeap } from '../../common/base/heap.ts';
import type { Log } from '../../common/base/log.ts';
import { releaseProgramPages, returnFreeMemory } from '../../common/linux/memory.ts';
import type { StateChange } from '../../common/state/writer.ts';

/** By then the rest of what comes with a start or a large push has come too. */
const SETTLED_MS = 5_000;
/** Resources of a change that leave megabytes behind. */
const LARGE_CHANGE = 5_000;

/** How often resident memory is looked at, and what must have come since it was least: 6 MB take one to six milliseconds to return. */
const LOOK_MS = 20_000;
const WORTH_BYTES = 4 * 2 ** 20;

export interface ProcessMemory {
  /** Bytes. */
  resident(): number;
  /** What garbage collection finds and the start leaves behind as well; tens of milliseconds of this thread. */
  returnAll(): void;
  /** What is free already. */
  returnFree(): void;
}

const OWN: ProcessMemory = {
  resident: () => process.memoryUsage.rss(),
  returnAll() {
    shrinkHeap();
    returnFreeMemory();
    releaseProgramPages();
  },
  returnFree: returnFreeMemory,
};

export class MemoryReturn {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #memory: ProcessMemory;
  #due = false;
  /** Resident memory when it was least, or when some was last returned. */
  #least = Infinity;

  constructor(clock: Clock, log: Log, memory = OWN) {
    this.#clock = clock;
    this.#log = log;
    this.#memory = memory;
  }

  /** Once for all that ask within a few seconds. */
  soon(): void {
    if (this.#due) return;
    this.#due = true;
    this.#clock.after(SETTLED_MS, () => {
      this.#due = false;
      this.#attempt(() => this.#memory.returnAll());
    });
  }

  changed({ workloads, services, policies }: Pick<StateChange, 'workloads' | 'services' | 'policies'>): void {
    if (workloads + services + policies >= LARGE_CHANGE) this.soon();
  }

  /** Returns what is free again and again from here on, where it is worth it. */
  watch(): void {
    this.#clock.after(LOOK_MS, () => {
      this.#attempt(() => this.#look());
      this.watch();
    });
  }

  #look(): void {
    const bytes = this.#memory.resident();
    if (bytes - this.#least < WORTH_BYTES) {
      this.#least = Math.min(this.#least, bytes);
      return;
    }
    this.#memory.returnFree();
    this.#least = this.#memory.resident();
  }

  #attempt(give: () => void): void {
    try {
      give();
    } catch (error) {
      // Smaller is better, and nothing depends on it.
      this.#log.warn({ error: errorMessage(error) }, 'memory cannot be given back');
    }
  }
}
