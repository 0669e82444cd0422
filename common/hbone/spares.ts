/**
 * Buffers kept for whoever wants one next, so that bulk transfers need no new memory. As many are kept as are used: those that nobody wanted for a
 * minute are let go, else a thread would for ever keep the most that it once had at a time (bench soak).
 */
import { type Clock, minutes, systemClock } from '../base/clock.ts';

const LOOK_MS = minutes(1);

export class Spares<T> {
  readonly #most: number;
  readonly #clock: Clock;
  /** The one used last is last. */
  readonly #free: T[] = [];
  /** The fewest that were free at a time, since this was looked at. */
  #fewest = 0;
  #watched = false;

  /** @param most that are kept; what comes beyond is garbage */
  constructor(most: number, clock = systemClock) {
    this.#most = most;
    this.#clock = clock;
  }

  get size(): number {
    return this.#free.length;
  }

  take(): T | undefined {
    const spare = this.#free.pop();
    this.#fewest = Math.min(this.#fewest, this.#free.length);
    return spare;
  }

  put(spare: T): void {
    if (this.#free.length >= this.#most) return;
    this.#free.push(spare);
    if (!this.#watched) this.#watch();
  }

  #watch(): void {
    this.#watched = true;
    this.#clock.after(LOOK_MS, () => {
      this.#free.splice(0, this.#fewest);
      this.#fewest = this.#free.length;
      if (this.#fewest > 0) this.#watch();
      else this.#watched = false;
    });
  }
}
