/**
 * A data worker's side of `meshctl tap`: events are filtered and limited where they happen, and leave the worker in batches. While nobody
 * taps, `wanted` is false and no event is made.
 */
import type { Clock } from '../base/clock.ts';
import { type EventFilter, type EventSink, matchesFilter, type TrafficEvent } from '../decision/traffic-event.ts';

export interface TapSpec {
  /** Of the supervisor; never used again. */
  readonly id: number;
  readonly filter: EventFilter;
  /** Events a second. */
  readonly maxRate: number;
}

/** What a worker found for one tap since its last batch. */
export interface TapBatch {
  readonly id: number;
  readonly events: readonly TrafficEvent[];
  /** Events that the filter let through and the limit did not. */
  readonly dropped: number;
}

const BATCH_MS = 100;

interface Open {
  readonly spec: TapSpec;
  /** Events that may still be shown; filled up with time, a second's worth at most. */
  tokens: number;
  filledAt: number;
  events: TrafficEvent[];
  dropped: number;
}

export class EventTap implements EventSink {
  readonly #clock: Clock;
  readonly #send: (batches: readonly TapBatch[]) => void;
  #open: Open[] = [];
  #armed = false;
  wanted = false;

  constructor(clock: Clock, send: (batches: readonly TapBatch[]) => void) {
    this.#clock = clock;
    this.#send = send;
  }

  /** All taps that there are now. */
  set(specs: readonly TapSpec[]): void {
    const now = this.#clock.monotonic();
    this.#open = specs.map(
      (spec) =>
        this.#open.find((open) => open.spec.id === spec.id) ?? { spec, tokens: spec.maxRate, filledAt: now, events: [], dropped: 0 },
    );
    this.wanted = this.#open.length > 0;
  }

  take(event: TrafficEvent): void {
    const now = this.#clock.monotonic();
    for (const open of this.#open) {
      const { filter, maxRate } = open.spec;
      if (!matchesFilter(event, filter)) continue;
      open.tokens = Math.min(maxRate, open.tokens + ((now - open.filledAt) / 1000) * maxRate);
      open.filledAt = now;
      if (open.tokens < 1) open.dropped++;
      else {
        open.tokens--;
        open.events.push(event);
      }
      this.#arm();
    }
  }

  #arm(): void {
    if (this.#armed) return;
    this.#armed = true;
    this.#clock.after(BATCH_MS, () => {
      this.#armed = false;
      const batches = this.#open
        .filter(({ events, dropped }) => events.length > 0 || dropped > 0)
        .map(({ spec, events, dropped }) => ({ id: spec.id, events, dropped }));
      for (const open of this.#open) {
        open.events = [];
        open.dropped = 0;
      }
      if (batches.length > 0) this.#send(batches);
    });
  }
}
