/** Keys to look at again: each key once, one at a time, failures later and later. What every controller's loop stands on. */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, minutes, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';

export interface WorkQueueOptions {
  readonly name: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly random: () => number;
  /** Looks at one key; what it throws is tried again. */
  readonly reconcile: (key: string) => Promise<void>;
}

const RETRY = { firstMs: 20, maxMs: minutes(1), jitter: 0.1 };

export class WorkQueue {
  readonly #options: WorkQueueOptions;
  readonly #waiting = new Set<string>();
  readonly #backoffs = new Map<string, Backoff>();
  readonly #timers = new Map<string, Timer>();
  #busy = false;
  #closed = false;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
  }

  add(key: string): void {
    if (this.#closed) return;
    this.#waiting.add(key);
    if (!this.#busy) void this.#drain();
  }

  /** Not before `ms` have passed; an earlier appointment for the key stays. */
  addAfter(key: string, ms: number): void {
    if (this.#closed || this.#timers.has(key)) return;
    const timer = this.#options.clock.after(ms, () => {
      this.#timers.delete(key);
      this.add(key);
    });
    this.#timers.set(key, timer);
  }

  close(): void {
    this.#closed = true;
    this.#waiting.clear();
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
  }

  async #drain(): Promise<void> {
    this.#busy = true;
    // Changes come in bursts; a turn of the event loop collects them.
    await new Promise(setImmediate);
    for (const key of this.#waiting) {
      this.#waiting.delete(key);
      await this.#look(key);
    }
    this.#busy = false;
    if (this.#waiting.size > 0) void this.#drain();
  }

  async #look(key: string): Promise<void> {
    const { name, log, random, reconcile } = this.#options;
    try {
      await reconcile(key);
      this.#backoffs.delete(key);
    } catch (error) {
      if (this.#closed) return;
      let backoff = this.#backoffs.get(key);
      if (!backoff) {
        backoff = new Backoff({ ...RETRY, random });
        this.#backoffs.set(key, backoff);
      }
      log.warn({ controller: name, key, error: errorMessage(error) }, 'tried again later');
      this.addAfter(key, backoff.next());
    }
  }
}
