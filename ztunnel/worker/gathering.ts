/**
 * Which data worker takes a pod's new connections. The kernel spreads them over all workers, which is right for connections that last. Where a pod
 * opens many short ones, a few at a time, each worker's turns serve one or two of them and cost more than what they do for these: one worker
 * alone takes a fifth less of the processor (bench ztunnel, new connections). So a worker that sees such a pod has the kernel give all of its new
 * connections to one worker, and has them spread again when they come seldom, last, are more than one worker can take, or keep other pods waiting there.
 */
import type { Clock } from '../../common/base/clock.ts';

export interface GatheringOptions {
  /** What the workers know together: `sharedGathering()`. */
  readonly shared: SharedArrayBuffer;
  readonly workers: number;
  readonly clock: Pick<Clock, 'monotonic' | 'after'>;
  /** Connections of the pod that are open in this worker. */
  open(): number;
  /** How much of a processor this worker used lately, 0 to 1. */
  load(): number;
  /** Whether other pods' connections are busy in this worker as well: they would wait for what only one worker works off. */
  crowded(): boolean;
  /** Has the kernel give all new connections to one of the workers, always the same one. @returns false where it cannot */
  gather(): boolean;
  spread(): void;
}

/** Three Int32: connections that all workers have taken, whether they are gathered, and how often that was too much for one worker or its pods. */
export const sharedGathering = (): SharedArrayBuffer => new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT);

const TAKEN = 0;
const GATHERED = 1;
const OVERLOADS = 2;
/** Connections after which it is looked at. */
const WINDOW = 32;
/** That many in this time are many: 128 a second in one worker. */
const WINDOW_MS = 250;
/** More of a window that are still open at its end last. */
const MOST_OPEN = 16;
/** More that are open than when they were gathered last, too. */
const MOST_GROWTH = 32;
/** One worker's share of a pod's connections must have room for these. */
export const MOST_GATHERED = 4 * MOST_GROWTH;
/** What all workers use for such a pod must fit into one. */
const GATHER_BELOW = 1;
const SPREAD_ABOVE = 0.9;
/** Fewer in WINDOW_MS are seldom. */
const SELDOM = 16;
/** Not again for so long, where one worker was too few. */
const HOLD_MS = 5000;

/** One pod's, in one worker. */
export class Gathering {
  readonly #options: GatheringOptions;
  readonly #shared: Int32Array;
  #seen = 0;
  #since: number;
  #openSince = 0;
  /** How many were open when this worker first knew that they are gathered. */
  #openGathered: number | undefined;
  #overloads = 0;
  #notBefore = 0;
  #stopped = false;

  constructor(options: GatheringOptions) {
    this.#options = options;
    this.#shared = new Int32Array(options.shared);
    this.#since = options.clock.monotonic();
    // Whoever had gathered them may have been lost, with its watch.
    if (this.gathered) this.#watch();
  }

  get gathered(): boolean {
    return Atomics.load(this.#shared, GATHERED) === 1;
  }

  /** This worker has taken a connection. */
  connection(): void {
    Atomics.add(this.#shared, TAKEN, 1);
    if (++this.#seen >= WINDOW) this.#look();
  }

  /** The listener is about to be closed. Whoever listens there from now on knows nothing of it. */
  stop(): void {
    this.#stopped = true;
    if (this.gathered) this.#spread();
  }

  #look(): void {
    const { clock, workers, open, load, crowded } = this.#options;
    const now = clock.monotonic();
    const often = now - this.#since <= WINDOW_MS;
    const opened = open();
    const lasting = opened - this.#openSince > MOST_OPEN;
    this.#seen = 0;
    this.#since = now;
    this.#openSince = opened;
    if (this.gathered) {
      this.#openGathered ??= opened;
      const overload = load() > SPREAD_ABOVE || crowded();
      if (overload) Atomics.add(this.#shared, OVERLOADS, 1);
      if (overload || opened - this.#openGathered > MOST_GROWTH) this.#spread();
    } else {
      this.#openGathered = undefined;
      // Another process that had gathered them may have been lost.
      if (lasting) this.#options.spread();
      const overloads = Atomics.load(this.#shared, OVERLOADS);
      if (overloads !== this.#overloads) this.#notBefore = now + HOLD_MS;
      this.#overloads = overloads;
      if (often && !lasting && now >= this.#notBefore && load() * workers < GATHER_BELOW && !crowded()) this.#gather();
    }
  }

  #gather(): void {
    if (!this.#options.gather()) {
      this.#notBefore = Infinity;
      return;
    }
    if (Atomics.exchange(this.#shared, GATHERED, 1) === 0) this.#watch();
  }

  #spread(): void {
    this.#openGathered = undefined;
    Atomics.store(this.#shared, GATHERED, 0);
    this.#options.spread();
  }

  /** Until they come seldom, or are spread by whoever takes them. */
  #watch(): void {
    const { clock } = this.#options;
    const before = Atomics.load(this.#shared, TAKEN);
    clock.after(WINDOW_MS, () => {
      if (this.#stopped || !this.gathered) return;
      // The count is one of 32 bits, and passes its end.
      if (((Atomics.load(this.#shared, TAKEN) - before) | 0) < SELDOM) this.#spread();
      else this.#watch();
    });
  }
}
