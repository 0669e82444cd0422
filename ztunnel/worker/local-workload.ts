/**
 * The workload that a pod's listeners speak for. The control plane may tell us about a pod a moment after the node agent has enrolled it,
 * so a connection waits for it, but not for long: what is not known cannot be judged, and nothing passes.
 */
import { type Clock, sleep } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { MeshView, Workload } from '../../common/decision/mesh-view.ts';
import type { PodInfo } from '../settings.ts';

const WAIT_MS = 5000;

/** Tells whoever listens that the mesh's state has changed. */
export class StateChanges {
  readonly #listeners = new Set<() => void>();

  /** @returns ends it */
  on(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  emit(): void {
    for (const listener of [...this.#listeners]) listener();
  }
}

export class LocalWorkload {
  readonly #view: Pick<MeshView, 'workloadByPod'>;
  readonly #info: PodInfo;
  readonly #changes: StateChanges;
  readonly #clock: Clock;

  constructor(options: { view: Pick<MeshView, 'workloadByPod'>; info: PodInfo; changes: StateChanges; clock: Clock }) {
    this.#view = options.view;
    this.#info = options.info;
    this.#changes = options.changes;
    this.#clock = options.clock;
  }

  get(): Workload | undefined {
    return this.#view.workloadByPod(this.#info);
  }

  /** @throws {ProxyError} WORKLOAD_UNKNOWN after five seconds; the signal's reason */
  async wait(signal: AbortSignal): Promise<Workload> {
    const known = this.get();
    if (known) return known;
    const { promise: changed, resolve } = Promise.withResolvers<Workload>();
    const off = this.#changes.on(() => {
      const workload = this.get();
      if (workload) resolve(workload);
    });
    const found = new AbortController();
    try {
      const { name, namespace, serviceAccount } = this.#info;
      const late = sleep(this.#clock, WAIT_MS, AbortSignal.any([signal, found.signal])).then(() => {
        const who = `${namespace}/${name} (service account ${serviceAccount})`;
        throw new ProxyError('WORKLOAD_UNKNOWN', `the control plane has not told us about ${who} within ${WAIT_MS / 1000} s`);
      });
      late.catch(() => undefined);
      return await Promise.race([changed, late]);
    } finally {
      off();
      found.abort();
    }
  }
}
