/** Waiting times between attempts: doubling from `firstMs` up to `maxMs`, with jitter taken from the caller's random source. */

export interface BackoffOptions {
  readonly firstMs: number;
  readonly maxMs: number;
  /** 0 for exact doubling; 0.2 spreads each wait over ±20 %. */
  readonly jitter: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  #nextMs: number;

  constructor(options: BackoffOptions) {
    this.#options = options;
    this.#nextMs = options.firstMs;
  }

  /** The wait before the next attempt, in milliseconds; each call doubles the one after it. */
  next(): number {
    const { maxMs, jitter, random } = this.#options;
    const wait = this.#nextMs;
    this.#nextMs = Math.min(wait * 2, maxMs);
    return wait * (1 + jitter * (random() * 2 - 1));
  }

  /** After a success the next wait is the first again. */
  reset(): void {
    this.#nextMs = this.#options.firstMs;
  }
}
