/** A clock in the test's hand: time passes when `advance` says so, and timers fire in order, each followed by a turn of the event loop. */
import type { Clock, Timer } from '../../common/base/clock.ts';

interface Pending {
  readonly at: number;
  readonly run: () => void;
}

export class FakeClock implements Clock {
  #wall: number;
  #passed = 0;
  readonly #timers = new Set<Pending>();

  constructor(startMs = Date.UTC(2026, 0, 1)) {
    this.#wall = startMs;
  }

  now(): number {
    return this.#wall;
  }

  monotonic(): number {
    return this.#passed;
  }

  after(ms: number, run: () => void): Timer {
    const pending: Pending = { at: this.#passed + Math.max(0, ms), run };
    this.#timers.add(pending);
    return { cancel: () => void this.#timers.delete(pending) };
  }

  /** Timers that have not fired. */
  get pending(): number {
    return this.#timers.size;
  }

  /** Lets `ms` pass, and with it every timer that is due, the earliest first. */
  async advance(ms: number): Promise<void> {
    const end = this.#passed + ms;
    await turn();
    for (;;) {
      const next = [...this.#timers].filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!next) break;
      this.#timers.delete(next);
      this.#step(next.at - this.#passed);
      next.run();
      await turn();
    }
    this.#step(end - this.#passed);
    await turn();
  }

  /** The wall clock jumps, as after a suspend or a correction; no timer notices. */
  jump(ms: number): void {
    this.#wall += ms;
  }

  #step(ms: number): void {
    this.#passed += ms;
    this.#wall += ms;
  }
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
