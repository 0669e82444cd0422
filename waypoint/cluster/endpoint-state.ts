/** What is known of an endpoint from one picture of the mesh to the next: how busy it is, how long it takes, how it is. */
import { EndpointHealth } from '../../common/decision/outliers.ts';

/** What an endpoint that was never asked is expected to take. */
const FIRST_GUESS_MS = 1;
/** Time in which what was measured loses two thirds of its say. */
const DECAY_MS = 10_000;

export class EndpointState {
  /** Requests under way. */
  active = 0;
  /** Of the monotonic clock, when it was first seen. */
  readonly since: number;
  readonly health = new EndpointHealth();
  #expectedMs = FIRST_GUESS_MS;
  #measuredAt: number;

  constructor(now: number) {
    this.since = now;
    this.#measuredAt = now;
  }

  /** Peaks count at once, better times little by little (Finagle's peak EWMA). */
  measured(tookMs: number, now: number): void {
    const weight = Math.exp(-Math.max(0, now - this.#measuredAt) / DECAY_MS);
    this.#expectedMs = tookMs > this.#expectedMs ? tookMs : this.#expectedMs * weight + tookMs * (1 - weight);
    this.#measuredAt = now;
  }

  get expectedMs(): number {
    return this.#expectedMs;
  }
}
