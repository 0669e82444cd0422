/** Counts what costs a peer little and us something. A peer that does too much of it in ten seconds is told to calm down, and closed. */
import type { Clock } from '../base/clock.ts';
import { ErrorCode, Http2ConnectionError } from '../codec/http2/errors.ts';

const PERIOD_MS = 10_000;

/** How often in a period each thing may happen on one connection, and how the log calls it. */
const ALLOWANCES = {
  ping: [1000, 'PING frames'],
  settings: [100, 'SETTINGS frames'],
  emptyData: [500, 'empty DATA frames'],
  reset: [500, 'streams reset before they were answered'],
  malformed: [200, 'malformed requests and stream errors'],
  refused: [2000, 'streams beyond the limit'],
  ignored: [1000, 'PRIORITY and unknown frames'],
  closed: [1000, 'frames on closed streams'],
} as const satisfies Record<string, readonly [number, string]>;

export type FloodKind = keyof typeof ALLOWANCES;

export class FloodGuard {
  readonly #clock: Clock;
  readonly #counts = new Map<FloodKind, number>();
  #since = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @throws {Http2ConnectionError} ENHANCE_YOUR_CALM when it was once too often */
  count(kind: FloodKind): void {
    const now = this.#clock.monotonic();
    if (now - this.#since >= PERIOD_MS) {
      this.#since = now;
      this.#counts.clear();
    }
    const count = (this.#counts.get(kind) ?? 0) + 1;
    this.#counts.set(kind, count);
    const [allowed, what] = ALLOWANCES[kind];
    if (count > allowed)
      throw new Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `more than ${allowed} ${what} in ${PERIOD_MS / 1000} s`);
  }
}
