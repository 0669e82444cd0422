/**
 * A supervisor's side of `meshctl tap`: which taps are open, told to all workers, and what the workers find brought together: one limit over
 * all of them, batches as lines of JSON, and now and then a line that says how much was left out.
 */
import { type Clock, seconds, type Timer } from '../base/clock.ts';
import type { TapOutput } from '../client/tap-output.ts';
import type { TapQuestion } from '../codec/gen/diagnostics.ts';
import type { EventFilter, TrafficEvent } from '../decision/traffic-event.ts';
import type { TapBatch, TapSpec } from './event-tap.ts';

/** One line of a tap. */
export type TapLine =
  | { readonly event: TrafficEvent }
  /** Since the tap began. */
  | { readonly summary: { readonly shown: number; readonly dropped: number } };

export interface TapsOptions {
  readonly clock: Clock;
  /** All that are open, for every worker. */
  changed(specs: readonly TapSpec[]): void;
}

/** Each costs the proxy something. */
const MAX_TAPS = 4;
export const MAX_TAP_RATE = 1000;
const DEFAULT_RATE = 100;
const MAX_SECONDS = 3600;
/** Also shows everybody in between that the tap is alive. */
const SUMMARY_MS = seconds(5);

interface Open {
  readonly spec: TapSpec;
  readonly output: TapOutput;
  readonly timers: Timer[];
  tokens: number;
  filledAt: number;
  shown: number;
  dropped: number;
}

export class Taps {
  readonly #options: TapsOptions;
  readonly #open = new Map<number, Open>();
  #lastId = 0;

  constructor(options: TapsOptions) {
    this.#options = options;
  }

  /** For a worker that starts. */
  specs(): TapSpec[] {
    return [...this.#open.values()].map(({ spec }) => spec);
  }

  /** @returns what ends it early. @throws {Error} where there are enough */
  open(question: TapQuestion, output: TapOutput): () => void {
    if (this.#open.size >= MAX_TAPS) throw new Error(`${MAX_TAPS} taps are open on this proxy already`);
    const { clock } = this.#options;
    const id = ++this.#lastId;
    const maxRate = Math.min(question.maxRate || DEFAULT_RATE, MAX_TAP_RATE);
    const open: Open = {
      spec: { id, filter: filterOf(question), maxRate },
      output,
      timers: [],
      tokens: maxRate,
      filledAt: clock.monotonic(),
      shown: 0,
      dropped: 0,
    };
    this.#open.set(id, open);
    const close = (): void => {
      if (!this.#open.delete(id)) return;
      for (const timer of open.timers) timer.cancel();
      this.#options.changed(this.specs());
    };
    const summarize = (): void => {
      open.timers[0] = clock.after(SUMMARY_MS, () => {
        this.#summary(open);
        summarize();
      });
    };
    summarize();
    open.timers[1] = clock.after(seconds(Math.min(question.seconds || MAX_SECONDS, MAX_SECONDS)), () => {
      this.#summary(open);
      close();
      output.end();
    });
    // So that whoever asked knows that it has begun.
    this.#summary(open);
    this.#options.changed(this.specs());
    return close;
  }

  /** What a worker found. */
  found(batches: readonly TapBatch[]): void {
    for (const { id, events, dropped } of batches) {
      const open = this.#open.get(id);
      if (!open) continue;
      open.dropped += dropped;
      this.#show(open, events);
    }
  }

  #show(open: Open, events: readonly TrafficEvent[]): void {
    const now = this.#options.clock.monotonic();
    const { maxRate } = open.spec;
    open.tokens = Math.min(maxRate, open.tokens + ((now - open.filledAt) / 1000) * maxRate);
    open.filledAt = now;
    const allowed = events.slice(0, Math.floor(open.tokens));
    open.tokens -= allowed.length;
    open.dropped += events.length - allowed.length;
    if (allowed.length === 0) return;
    if (open.output.lines(allowed.map((event) => line({ event })).join(''))) open.shown += allowed.length;
    else open.dropped += allowed.length;
  }

  #summary({ output, shown, dropped }: Open): void {
    output.lines(line({ summary: { shown, dropped } }));
  }
}

const line = (of: TapLine): string => `${JSON.stringify(of)}\n`;

const filterOf = ({ subject, from, to, port, method, path, status, outcome }: TapQuestion): EventFilter => ({
  subject,
  from,
  to,
  port,
  method,
  path,
  status,
  outcome,
});
