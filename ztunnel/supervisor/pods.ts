/**
 * Which pods are served, as the node agent says over ZDS (Istio's ztunnel, src/inpod): a snapshot after each connection, single pods after it.
 * Pods go on being served while the agent is away, and a pod whose listeners cannot be opened is tried again until they can.
 */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import type { PodSpec } from '../protocol.ts';
import type { PodInfo } from '../settings.ts';
import { sharedGathering } from '../worker/gathering.ts';

/** A pod's network namespace, as far as this table is concerned. */
export interface PodNetns {
  readonly fd: number;
  identity(): string;
  close(): void;
}

export interface PodTableOptions {
  /** Resolves when all workers listen for the pod. */
  start(pod: PodSpec): Promise<void>;
  /** Ends the pod's connections at once. Resolves when nobody uses its network namespace any more. */
  stop(uid: string): Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
  readonly series: SeriesWriter;
}

interface Pod {
  readonly uid: string;
  readonly info: PodInfo;
  readonly netns: PodNetns;
  state: 'starting' | 'up' | 'pending';
  /** What a `delete` waits for. */
  started: Promise<void>;
}

export interface PodState {
  readonly uid: string;
  readonly info: PodInfo;
  readonly state: 'Up' | 'Pending';
}

/** A message that the protocol does not allow here. The connection is of no use any more. */
export class ZdsProtocolError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'ZdsProtocolError';
  }
}

const RETRY_MS = 5000;
/** The node agent waits five seconds for an answer (Istio, cni/pkg/nodeagent). */
const LET_GO_MS = 2000;
const MAX_PODS = 4096;

export class PodTable {
  readonly #options: PodTableOptions;
  readonly #pods = new Map<string, Pod>();
  /** Added or kept on this connection, until its snapshot is complete. */
  #snapshot: Set<string> | undefined = new Set();
  #connected = false;
  #retrying = false;
  readonly #slots: { active: number; pending: number; started: number; stopped: number };

  constructor(options: PodTableOptions) {
    const { series } = options;
    this.#options = options;
    this.#slots = {
      active: series.slot(metrics.activeProxies, []),
      pending: series.slot(metrics.pendingProxies, []),
      started: series.slot(metrics.proxiesStarted, []),
      stopped: series.slot(metrics.proxiesStopped, []),
    };
  }

  /** A whole snapshot has come on the present connection, and every pod is served. */
  get ready(): boolean {
    return this.#connected && this.#snapshot === undefined && [...this.#pods.values()].every(({ state }) => state === 'up');
  }

  states(): PodState[] {
    return [...this.#pods.values()].map(({ uid, info, state }) => ({ uid, info, state: state === 'up' ? 'Up' : 'Pending' }));
  }

  connected(): void {
    this.#connected = true;
    this.#snapshot = new Set();
  }

  disconnected(): void {
    this.#connected = false;
  }

  /**
   * Takes the namespace over. Resolves when the pod is served; adding it again as it is changes nothing.
   * @throws {Error} why it cannot be served now; it is then tried again every five seconds
   */
  async add(uid: string, info: PodInfo, netns: PodNetns): Promise<void> {
    this.#snapshot?.add(uid);
    const known = this.#pods.get(uid);
    if (known?.netns.identity() === netns.identity()) {
      netns.close();
      if (known.state === 'up') return;
      return known.state === 'starting' ? known.started : this.#start(known);
    }
    if (known) void this.#stop(known);
    else if (this.#pods.size >= MAX_PODS) {
      netns.close();
      throw new Error(`${MAX_PODS} pods are served already`);
    }
    const pod: Pod = { uid, info, netns, state: 'starting', started: Promise.resolve() };
    this.#pods.set(uid, pod);
    await this.#start(pod);
  }

  /** @throws {ZdsProtocolError} after the snapshot; {Error} for a pod that is not known */
  keep(uid: string): void {
    if (!this.#snapshot) throw new ZdsProtocolError('KeepWorkload after the snapshot');
    if (!this.#pods.has(uid)) throw new Error(`no such pod: ${uid}`);
    this.#snapshot.add(uid);
  }

  /**
   * Before the snapshot is complete it is only forgotten, and stopped with the others that the snapshot does not have. After it, resolves when
   * no worker listens for the pod any more, so that who is told so may take its ports; a worker that hangs is waited for a moment and no longer.
   */
  async delete(uid: string): Promise<void> {
    if (this.#snapshot) {
      this.#snapshot.delete(uid);
      return;
    }
    const pod = this.#pods.get(uid);
    if (!pod) return;
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = this.#options.clock.after(LET_GO_MS, resolve);
    await Promise.race([this.#stop(pod), late]);
    timer.cancel();
  }

  /** Stops what the snapshot did not name. @throws {ZdsProtocolError} for a second one on a connection */
  snapshotSent(): void {
    const snapshot = this.#snapshot;
    if (!snapshot) throw new ZdsProtocolError('a second SnapshotSent on one connection');
    this.#snapshot = undefined;
    for (const pod of [...this.#pods.values()]) if (!snapshot.has(pod.uid)) void this.#stop(pod);
  }

  #start(pod: Pod): Promise<void> {
    pod.state = 'starting';
    const { netns, uid, info } = pod;
    pod.started = this.#options.start({ uid, info, netnsFd: netns.fd, kind: 'pod', gathering: sharedGathering() }).then(
      () => {
        if (this.#pods.get(uid) !== pod) return;
        pod.state = 'up';
        this.#options.series.add(this.#slots.started, 1);
        this.#count();
      },
      (error: unknown) => {
        if (this.#pods.get(uid) === pod) {
          pod.state = 'pending';
          this.#count();
          this.#options.log.error(
            { pod: `${info.namespace}/${info.name}`, uid, error: errorMessage(error) },
            'pod cannot be served, trying again',
          );
          this.#retryLater();
        }
        throw error;
      },
    );
    this.#count();
    return pod.started;
  }

  #stop(pod: Pod): Promise<void> {
    this.#pods.delete(pod.uid);
    const stopped = this.#options.stop(pod.uid).then(() => pod.netns.close());
    if (pod.state === 'up') this.#options.series.add(this.#slots.stopped, 1);
    this.#count();
    return stopped;
  }

  #retryLater(): void {
    if (this.#retrying) return;
    this.#retrying = true;
    this.#options.clock.after(RETRY_MS, () => {
      this.#retrying = false;
      // What fails again arms the next attempt and is logged there.
      for (const pod of this.#pods.values()) if (pod.state === 'pending') this.#start(pod).catch(() => undefined);
    });
  }

  #count(): void {
    const states = [...this.#pods.values()].map(({ state }) => state);
    this.#options.series.set(this.#slots.active, states.filter((state) => state === 'up').length);
    this.#options.series.set(this.#slots.pending, states.filter((state) => state === 'pending').length);
  }
}
