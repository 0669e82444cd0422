/**
 * Gives memory back when what took it is over: the start of the process, and pushes that bring much of a mesh at once, whose messages and decoded
 * forms are garbage afterwards. Costs the supervisor's thread some tens of milliseconds, and nobody else's.
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

export class MemoryReturn {
  readonly #clock: Clock;
  readonly #giveBack: () => void;
  #due = false;

  constructor(clock: Clock, log: Log, giveBack = giveBackAll) {
    this.#clock = clock;
    this.#giveBack = () => {
      try {
        giveBack();
      } catch (error) {
        // Smaller is better, and nothing depends on it.
        log.warn({ error: errorMessage(error) }, 'memory cannot be given back');
      }
    };
  }

  /** Once for all that ask within a few seconds. */
  soon(): void {
    if (this.#due) return;
    this.#due = true;
    this.#clock.after(SETTLED_MS, () => {
      this.#due = false;
      this.#giveBack();
    });
  }

  changed({ workloads, services, policies }: Pick<StateChange, 'workloads' | 'services' | 'policies'>): void {
    if (workloads + services + policies >= LARGE_CHANGE) this.soon();
  }
}

function giveBackAll(): void {
  shrinkHeap();
  returnFreeMemory();
  releaseProgramPages();
}
