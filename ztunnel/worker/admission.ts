/**
 * What one pod may take of a data worker, so that it cannot starve its neighbours: open connections, TLS handshakes under way, bytes that
 * wait for a slow reader, and the process's descriptors and memory. What is beyond is refused before it costs anything; each refusal is
 * counted, and one line in a while says which limit it was.
 */
import type { Clock } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import type { PodUsage } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';

/** As much of a pod as is needed here. */
export interface AdmittedPod {
  readonly name: string;
  readonly spec: { readonly uid: string };
}

export interface AdmissionOptions {
  /** Of the whole process; each worker has its share, since the kernel spreads a pod's connections over all. */
  readonly settings: Pick<ZtunnelSettings, 'workers' | 'podMaxConnections' | 'podMaxHandshakes' | 'podMaxWaitingBytes'>;
  /** The process's limit of descriptors. */
  readonly openFiles: number;
  readonly series: SeriesWriter;
  readonly clock: Clock;
  /** Open connections of a pod in this worker. */
  connectionsOf(uid: string): number;
  /** Bytes that wait, for each pod that has connections. */
  waiting(): ReadonlyMap<string, number>;
}

/** Left for what is open already, for files, and for the supervisor. */
const SPARE_DESCRIPTORS = 64;
/** The kernel's and OpenSSL's memory for a connection, roughly: what a pod with many idle ones weighs. */
const BYTES_OF_CONNECTION = 32 << 10;
const SAY_AGAIN_MS = 10_000;
const MEASURE_MS = 1000;
const MAX_REPORTED = 16;

export type Limit = 'connections' | 'handshakes' | 'waiting bytes' | 'descriptors' | 'memory';

/** The refusal of a limit. `quiet` where its like has had its line in the log a moment ago. */
export class LimitReached extends ProxyError {
  readonly limit: Limit;
  readonly quiet: boolean;

  constructor(limit: Limit, message: string, quiet: boolean) {
    super('OVERLOADED', message);
    this.limit = limit;
    this.quiet = quiet;
  }
}

export class Admission {
  readonly #options: AdmissionOptions;
  readonly #handshakes = new Map<string, number>();
  readonly #saidAt = new Map<string, number>();
  #waiting: ReadonlyMap<string, number> = new Map();
  #shed: string | undefined;
  #measuredAt = -Infinity;

  constructor(options: AdmissionOptions) {
    this.#options = options;
  }

  /**
   * A connection of the pod is there, or a tunnel to it is asked for.
   * @param fd of the accepted socket: the kernel gives the lowest free number, so a high one means that there are few left; undefined for a
   *   tunnel, which is counted already when this is asked
   * @param peers connections of peers that the pod has, where it is one more of these
   * @throws {LimitReached}
   */
  connection(pod: AdmittedPod, fd: number | undefined, peers = 0): void {
    const { openFiles, settings } = this.#options;
    const { uid } = pod.spec;
    if (fd !== undefined && fd >= openFiles - SPARE_DESCRIPTORS) {
      throw this.#refusal(pod, 'descriptors', `this process has ${openFiles} descriptors and few are left`);
    }
    const share = this.#share(settings.podMaxConnections);
    const others = this.#options.connectionsOf(uid) - (fd === undefined ? 1 : 0);
    if (Math.max(peers, others) >= share) {
      throw this.#refusal(pod, 'connections', `${pod.name} has ${share} connections in this worker (WARREN_POD_MAX_CONNECTIONS)`);
    }
    const waiting = this.#waiting.get(uid) ?? 0;
    if (waiting >= this.#share(settings.podMaxWaitingBytes)) {
      throw this.#refusal(pod, 'waiting bytes', `${waiting} bytes of ${pod.name} wait for slow readers (WARREN_POD_MAX_WAITING_BYTES)`);
    }
    if (this.#shed === uid) {
      throw this.#refusal(pod, 'memory', `memory is short and ${pod.name} uses most of it (WARREN_MEMORY_BUDGET_MB)`);
    }
  }

  /** A peer is about to shake hands. @returns to be called when that is over @throws {LimitReached} */
  handshake(pod: AdmittedPod): () => void {
    const { uid } = pod.spec;
    const under = this.#handshakes.get(uid) ?? 0;
    const share = this.#share(this.#options.settings.podMaxHandshakes);
    if (under >= share) {
      throw this.#refusal(pod, 'handshakes', `${share} peers of ${pod.name} are shaking hands in this worker (WARREN_POD_MAX_HANDSHAKES)`);
    }
    this.#handshakes.set(uid, under + 1);
    let over = false;
    return () => {
      if (over) return;
      over = true;
      const left = (this.#handshakes.get(uid) ?? 1) - 1;
      if (left > 0) this.#handshakes.set(uid, left);
      else this.#handshakes.delete(uid);
    };
  }

  /** New connections of this pod are refused until somebody else is named, or nobody. */
  shed(uid: string | undefined): void {
    this.#shed = uid;
  }

  /** Looks at what waits, at most once a second. @returns the pods that weigh most; undefined where it was looked at a moment ago */
  measure(names: (uid: string) => { readonly namespace: string; readonly name: string } | undefined): PodUsage[] | undefined {
    const { clock, series, connectionsOf } = this.#options;
    const now = clock.monotonic();
    if (now - this.#measuredAt < MEASURE_MS) return undefined;
    this.#measuredAt = now;
    const before = this.#waiting;
    this.#waiting = this.#options.waiting();
    const usage: PodUsage[] = [];
    for (const uid of new Set([...before.keys(), ...this.#waiting.keys()])) {
      const connections = connectionsOf(uid);
      const waitingBytes = this.#waiting.get(uid) ?? 0;
      const pod = names(uid);
      if (pod) {
        const labels = [pod.namespace, pod.name];
        series.set(series.slot(metrics.podConnections, labels), connections);
        series.set(series.slot(metrics.podWaiting, labels), waitingBytes);
      }
      if (connections > 0) usage.push({ uid, connections, bytes: waitingBytes + connections * BYTES_OF_CONNECTION });
    }
    return usage.sort((a, b) => b.bytes - a.bytes).slice(0, MAX_REPORTED);
  }

  #share(limit: number): number {
    return Math.max(1, Math.ceil(limit / this.#options.settings.workers));
  }

  #refusal({ spec }: AdmittedPod, limit: Limit, message: string): LimitReached {
    const { series, clock } = this.#options;
    series.add(series.slot(metrics.limited, [limit]), 1);
    const key = `${spec.uid} ${limit}`;
    const now = clock.monotonic();
    const quiet = now - (this.#saidAt.get(key) ?? -Infinity) < SAY_AGAIN_MS;
    if (!quiet) {
      // Pods come and go; what was said of them long ago says nothing.
      for (const [old, at] of this.#saidAt) if (now - at >= SAY_AGAIN_MS) this.#saidAt.delete(old);
      this.#saidAt.set(key, now);
    }
    return new LimitReached(limit, message, quiet);
  }
}
