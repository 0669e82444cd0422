/** What still has to happen before this proxy may get traffic, under the names that Istio's ztunnel gives these things. */

export type ReadinessTask = 'state manager' | 'proxy' | 'workload proxy manager' | 'certificate';

export class Readiness {
  readonly #checks = new Map<ReadinessTask, () => boolean>();

  /** The task is pending while `done` says no; it may become pending again. */
  task(name: ReadinessTask, done: () => boolean): void {
    this.#checks.set(name, done);
  }

  pending(): ReadinessTask[] {
    return [...this.#checks].flatMap(([name, done]) => (done() ? [] : [name]));
  }
}
