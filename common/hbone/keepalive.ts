/** Notices a peer that is gone without a word: a PING ten seconds after the last answer, and twenty seconds to answer it (§2.2). */
import type { Clock, Timer } from '../base/clock.ts';

export const PING_INTERVAL_MS = 10_000;
export const PONG_TIMEOUT_MS = 20_000;

const LAST_CHANCE_MS = 10;

export class Keepalive {
  readonly #clock: Clock;
  readonly #ping: () => void;
  readonly #dead: () => void;
  #timer: Timer;
  #waiting = false;

  constructor({ clock, ping, dead }: { clock: Clock; ping: () => void; dead: () => void }) {
    this.#clock = clock;
    this.#ping = ping;
    this.#dead = dead;
    this.#timer = this.#arm();
  }

  pong(): void {
    if (!this.#waiting) return;
    this.#waiting = false;
    this.#timer.cancel();
    this.#timer = this.#arm();
  }

  stop(): void {
    this.#timer.cancel();
  }

  #arm(): Timer {
    return this.#clock.after(PING_INTERVAL_MS, () => {
      this.#waiting = true;
      this.#timer = this.#clock.after(PONG_TIMEOUT_MS, () => {
        // If it was us who stood still, the answer is there and only has to be read: one more turn of the loop.
        this.#timer = this.#clock.after(LAST_CHANCE_MS, this.#dead);
      });
      this.#ping();
    });
  }
}
