/** A question to all data workers of a proxy: their answers are gathered, and one that ends or says nothing in time is done without. */
import type { Clock } from '../base/clock.ts';

interface Waiting<T> {
  readonly workers: Set<number>;
  readonly found: T[];
  resolve(found: T[]): void;
}

/** Long for a worker under load, short for who waits in a terminal. */
const TIMEOUT_MS = 1000;

export class WorkerQuestions<T> {
  readonly #clock: Clock;
  readonly #open = new Map<number, Waiting<T>>();
  #last = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * @param workers who is asked, by ids that are never used again @param send called with the number of the question
   * @returns the answers that came within a second
   */
  ask(workers: readonly number[], send: (question: number) => void): Promise<T[]> {
    if (workers.length === 0) return Promise.resolve([]);
    const question = ++this.#last;
    return new Promise((resolve) => {
      const timer = this.#clock.after(TIMEOUT_MS, () => this.#finish(question));
      const done = (found: T[]): void => {
        timer.cancel();
        resolve(found);
      };
      this.#open.set(question, { workers: new Set(workers), found: [], resolve: done });
      send(question);
    });
  }

  answered(question: number, worker: number, answer: T): void {
    const waiting = this.#open.get(question);
    if (!waiting?.workers.delete(worker)) return;
    waiting.found.push(answer);
    if (waiting.workers.size === 0) this.#finish(question);
  }

  /** It has ended: nobody waits for it any more. */
  lost(worker: number): void {
    for (const [question, { workers }] of this.#open) if (workers.delete(worker) && workers.size === 0) this.#finish(question);
  }

  #finish(question: number): void {
    const waiting = this.#open.get(question);
    this.#open.delete(question);
    waiting?.resolve(waiting.found);
  }
}
