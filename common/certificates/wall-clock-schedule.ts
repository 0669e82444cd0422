/**
 * Runs things at points of the wall clock (decision 14). Certificates expire by it, not by how long a process has been awake: so the
 * clock is read again at least each minute, and a laptop that slept or a clock that was set finds everything due that is due.
 */
import type { Clock, Timer } from '../base/clock.ts';

const LOOK_AGAIN_MS = 60_000;

export class WallClockSchedule {
  readonly #clock: Clock;
  readonly #entries = new Map<string, { at: number; run: () => void }>();
  #timer: Timer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Runs `run` once, when the wall clock has reached `at` (milliseconds since 1970); replaces what the key had before. */
  at(key: string, at: number, run: () => void): void {
    this.#entries.set(key, { at, run });
    this.#arm();
  }

  cancel(key: string): void {
    this.#entries.delete(key);
  }

  get size(): number {
    return this.#entries.size;
  }

  stop(): void {
    this.#entries.clear();
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #arm(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#entries.size === 0) return;
    let next = Infinity;
    for (const { at } of this.#entries.values()) next = Math.min(next, at);
    const wait = Math.min(Math.max(0, next - this.#clock.now()), LOOK_AGAIN_MS);
    this.#timer = this.#clock.after(wait, () => this.#look());
  }

  #look(): void {
    const now = this.#clock.now();
    const due = [...this.#entries].filter(([, { at }]) => at <= now).sort(([, a], [, b]) => a.at - b.at);
    for (const [key] of due) this.#entries.delete(key);
    this.#arm();
    for (const [, { run }] of due) run();
  }
}
