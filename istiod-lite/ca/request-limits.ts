/**
 * How many certificates one caller may ask for: a node that starts needs one for each of its pods at once, and nobody needs hundreds each
 * second for long. Signing runs on the only thread that serves xDS too, so one caller in a loop must not take it.
 */
import type { Clock } from '../../common/base/clock.ts';

export interface RequestLimitsOptions {
  readonly clock: Clock;
  readonly burst: number;
  readonly perSecond: number;
}

interface Bucket {
  left: number;
  /** Monotonic milliseconds. */
  at: number;
}

const MAX_CALLERS = 10_000;

export class RequestLimits {
  readonly #options: RequestLimitsOptions;
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: RequestLimitsOptions) {
    this.#options = options;
  }

  /** @returns whether this caller may have one more now */
  take(caller: string): boolean {
    const { clock, burst, perSecond } = this.#options;
    const now = clock.monotonic();
    const known = this.#buckets.get(caller) ?? { left: burst, at: now };
    const left = Math.min(burst, known.left + ((now - known.at) / 1000) * perSecond);
    // Put at the end: a Map keeps the order of insertion, so those that are forgotten first have been quiet the longest.
    this.#buckets.delete(caller);
    this.#buckets.set(caller, { left: left >= 1 ? left - 1 : left, at: now });
    for (const oldest of this.#buckets.keys()) {
      if (this.#buckets.size <= MAX_CALLERS) break;
      this.#buckets.delete(oldest);
    }
    return left >= 1;
  }
}
