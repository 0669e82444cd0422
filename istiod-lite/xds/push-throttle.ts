/**
 * How many large responses are on their way at once. A response is a buffer of its own until it has left, so a thousand proxies that connect
 * together would otherwise cost a thousand copies of the mesh. A proxy that takes long keeps its slot only for a while, so that a few slow
 * ones do not stop the rest; as many again as there are slots may be late, and then the rest waits, since each is a copy.
 */
import { type Clock, seconds, type Timer } from '../../common/base/clock.ts';

export interface PushThrottleOptions {
  readonly clock: Clock;
  readonly slots: number;
}

/** A place in the queue, and then a slot. */
export interface Slot {
  readonly granted: boolean;
  /** Gives it back, or leaves the queue; twice is no harm. */
  leave(): void;
}

const HELD_FOR_MS = seconds(5);

interface Ticket extends Slot {
  granted: boolean;
  readonly run: () => void;
  timer: Timer | undefined;
}

export class PushThrottle {
  readonly #options: PushThrottleOptions;
  readonly #waiting = new Set<Ticket>();
  /** Have had their time, and are still on their way. */
  readonly #late = new Set<Ticket>();
  #free: number;

  constructor(options: PushThrottleOptions) {
    this.#options = options;
    this.#free = options.slots;
  }

  /** Granted at once where there is room; otherwise `run` is called, once, when there is. */
  enter(run: () => void): Slot {
    const ticket: Ticket = { granted: false, run, timer: undefined, leave: () => this.#leave(ticket) };
    if (this.#free > 0) this.#grant(ticket);
    else this.#waiting.add(ticket);
    return ticket;
  }

  #grant(ticket: Ticket): void {
    this.#free--;
    ticket.granted = true;
    this.#hold(ticket);
  }

  #hold(ticket: Ticket): void {
    ticket.timer = this.#options.clock.after(HELD_FOR_MS, () => {
      if (this.#late.size >= this.#options.slots) {
        this.#hold(ticket);
        return;
      }
      this.#late.add(ticket);
      this.#giveBack(ticket);
    });
  }

  #leave(ticket: Ticket): void {
    this.#late.delete(ticket);
    if (!this.#waiting.delete(ticket)) this.#giveBack(ticket);
  }

  #giveBack(ticket: Ticket): void {
    if (!ticket.timer) return;
    ticket.timer.cancel();
    ticket.timer = undefined;
    this.#free++;
    for (const next of this.#waiting) {
      this.#waiting.delete(next);
      this.#grant(next);
      next.run();
      return;
    }
  }
}
