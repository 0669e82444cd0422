/**
 * When changes go out: the first at once (with what else came in the same turn of the event loop), the next ones together, after a pause that
 * follows what the last push cost: a small mesh is told every few milliseconds, a large one not more often than once per interval, and never
 * later. What came to nothing for proxies (a pod that has no address yet) costs no pause. So a quiet cluster answers in milliseconds and a busy
 * one waits one interval, never longer. (A debounce that each further change prolongs keeps the busiest cluster waiting longest: p50 4.2 s at
 * 100 changes a second in Istio.)
 */
import type { Clock, Timer } from '../../common/base/clock.ts';

export interface PushQueueOptions {
  readonly clock: Clock;
  /** The longest pause between two pushes. */
  readonly intervalMs: number;
  /** Told when the oldest change since the last flush came, in monotonic milliseconds. Must not throw. @returns whether anybody was told */
  flush(since: number): boolean;
}

// Pushes take at most a sixth of the time, as long as the longest pause allows that. (With three, 100 changes a second before 100 proxies took
// 0.64 of a core, most of it for their acknowledgements, and p99 was 67 ms; with five 0.52 and 97.)
const PAUSES_PER_PUSH = 5;
/** Events of one change come close to each other: an endpoint, its slice, its pod. */
const SHORTEST_PAUSE_MS = 10;

export class PushQueue {
  readonly #options: PushQueueOptions;
  /** The next flush, or the pause before it. */
  #timer: Timer | undefined;
  #since: number | undefined;
  #stopped = false;
  #lastCostMs = Number.POSITIVE_INFINITY;

  constructor(options: PushQueueOptions) {
    this.#options = options;
  }

  /** Something changed; cheap, to be called for each event. */
  changed(): void {
    if (this.#stopped) return;
    this.#since ??= this.#options.clock.monotonic();
    this.#timer ??= this.#options.clock.after(0, () => this.#flush());
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #flush(): void {
    const { clock, flush } = this.#options;
    const since = this.#since;
    this.#since = undefined;
    this.#timer = undefined;
    if (since === undefined || this.#stopped) return;
    const began = clock.monotonic();
    if (!flush(since)) return;
    // What it left for the next time waits for the pause too. The streams have written when the loop comes round again.
    this.#schedule(0, () => this.#pause(clock.monotonic() - began));
  }

  #schedule(ms: number, run: () => void): void {
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(ms, run);
  }

  #pause(costMs: number): void {
    // One that was held up (by the collection of garbage) says nothing of what they cost, and its successor is late already.
    const usualMs = Math.min(costMs, this.#lastCostMs);
    this.#lastCostMs = costMs;
    const pauseMs = Math.max(SHORTEST_PAUSE_MS, usualMs * PAUSES_PER_PUSH);
    this.#schedule(Math.min(this.#options.intervalMs, pauseMs), () => this.#flush());
  }
}
