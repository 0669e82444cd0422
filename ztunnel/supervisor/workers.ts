/**
 * The data workers: starts them, tells each what to serve, and replaces one that throws, ends or hangs; the others do not notice, since a
 * pod's listeners exist once in every worker and the kernel spreads connections over those that live.
 */
import type { SocketAddress } from '../../common/base/address.ts';
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log, LogLevel } from '../../common/base/log.ts';
import type { CountedRefusal } from '../../common/base/refusal-tally.ts';
import { createSegment, type SeriesReader, type SeriesWriter } from '../../common/server/shared-series.ts';
import type { SharedMeshState } from '../../common/state/shared.ts';
import type { IdentityCertificate } from '../../common/tls/mesh-tls.ts';
import { metrics } from '../metrics.ts';
import type { ConnectionDump, FromWorker, PodSpec, ToWorker, WorkerStart } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';

/** A thread as the fleet sees it: `worker_threads.Worker`, or a test's stand-in. */
export interface WorkerThread {
  readonly threadId: number;
  postMessage(message: ToWorker): void;
  terminate(): Promise<unknown>;
  onMessage(listener: (message: FromWorker) => void): void;
  onError(listener: (error: unknown) => void): void;
  onExit(listener: (code: number) => void): void;
}

export interface WorkerFleetOptions {
  spawn(start: WorkerStart): WorkerThread;
  readonly settings: ZtunnelSettings;
  readonly state: SharedMeshState;
  /** A worker's thread has ended, and with it what it had pinned of the shared state. */
  onThreadEnded(threadId: number): void;
  readonly nameservers: readonly SocketAddress[];
  readonly clock: Clock;
  readonly log: Log;
  readonly reader: SeriesReader;
  readonly series: SeriesWriter;
  /** A worker has a connection that needs this identity. */
  onCertificateWanted(identity: string): void;
  onRefused(refusals: readonly CountedRefusal[]): void;
}

interface Running {
  /** Of this incarnation; never used again. */
  readonly id: number;
  readonly index: number;
  readonly worker: WorkerThread;
  /** Kept, because a worker that has ended no longer says it. */
  readonly threadId: number;
  readonly heartbeat: Int32Array;
  /** Identities that it has asked for: their renewals go to it as well. */
  readonly identities: Set<string>;
  lastBeat: number;
  missedChecks: number;
  ready: boolean;
  drained: boolean;
}

interface Binding {
  readonly pod: PodSpec;
  /** Indexes of workers that have not answered yet. */
  readonly waiting: Set<number>;
  settle: ((problem?: string) => void) | undefined;
}

const HEARTBEAT_CHECK_MS = 1000;
// In checks, not in time: a process that was suspended as a whole must not find all of its workers dead. Long, for machines under load.
const MISSED_CHECKS = 15;
// A worker that still loads its modules on a machine under load is slow, not stuck; replacing it would double the load.
const MISSED_CHECKS_AT_START = 60;
const FIRST_RESTART_MS = 100;
const LONGEST_RESTART_MS = 10_000;
const DUMP_TIMEOUT_MS = 1000;

export class WorkerFleet {
  readonly #options: WorkerFleetOptions;
  readonly #workers = new Map<number, Running>();
  readonly #pods = new Map<string, Binding>();
  readonly #dumps = new Map<number, { waiting: Set<number>; found: ConnectionDump[]; resolve(found: ConnectionDump[]): void }>();
  readonly #certificates = new Map<string, IdentityCertificate>();
  readonly #workersSlot: number;
  readonly #replacedSlot: number;
  #levels: { level: LogLevel; accessLevel: LogLevel } | undefined;
  #incarnations = 0;
  #questions = 0;
  #restartMs = FIRST_RESTART_MS;
  #draining = false;
  #stopped = false;
  #whenDrained: (() => void) | undefined;
  #whenReady: (() => void) | undefined;

  constructor(options: WorkerFleetOptions) {
    this.#options = options;
    this.#workersSlot = options.series.slot(metrics.workers, []);
    this.#replacedSlot = options.series.slot(metrics.workersReplaced, []);
  }

  /** Resolves when every worker is up. */
  start(): Promise<void> {
    const ready = new Promise<void>((resolve) => {
      this.#whenReady = resolve;
    });
    for (let index = 0; index < this.#options.settings.workers; index++) this.#spawn(index);
    this.#watchHeartbeats();
    return ready;
  }

  get readyCount(): number {
    return [...this.#workers.values()].filter(({ ready }) => ready).length;
  }

  /** Resolves when every worker listens for the pod. @throws {Error} with the first worker's problem; then none of them listens */
  addPod(pod: PodSpec): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting = new Set(this.#workers.keys());
      const settle = (problem?: string): void => {
        binding.settle = undefined;
        if (problem === undefined) {
          resolve();
          return;
        }
        this.removePod(pod.uid);
        reject(new Error(problem));
      };
      const binding: Binding = { pod, waiting, settle };
      this.#pods.set(pod.uid, binding);
      for (const running of this.#workers.values()) post(running, { type: 'pod-add', pod });
    });
  }

  /** Ends the pod's connections at once. */
  removePod(uid: string): void {
    const binding = this.#pods.get(uid);
    this.#pods.delete(uid);
    binding?.settle?.('the pod was removed meanwhile');
    this.#broadcast({ type: 'pod-remove', uid });
  }

  stateChanged(policiesChanged: boolean): void {
    this.#broadcast({ type: 'state', policiesChanged });
  }

  certificateArrived(certificate: IdentityCertificate): void {
    this.#certificates.set(certificate.identity, certificate);
    for (const running of this.#workers.values()) {
      if (running.identities.has(certificate.identity)) post(running, { type: 'certificate', certificate });
    }
  }

  certificateFailed(identity: string, reason: string): void {
    this.#certificates.delete(identity);
    for (const running of this.#workers.values()) {
      if (running.identities.delete(identity)) post(running, { type: 'certificate-failed', identity, reason });
    }
  }

  setLogLevels(level: LogLevel, accessLevel: LogLevel): void {
    this.#levels = { level, accessLevel };
    this.#broadcast({ type: 'log-level', level, accessLevel });
  }

  /** Open connections of all workers; those of a worker that does not answer within a second are missing. */
  connections(): Promise<ConnectionDump[]> {
    return new Promise((resolve) => {
      const question = this.#questions++;
      const dump = { waiting: new Set(this.#workers.keys()), found: [] as ConnectionDump[], resolve };
      if (dump.waiting.size === 0) return resolve([]);
      this.#dumps.set(question, dump);
      this.#options.clock.after(DUMP_TIMEOUT_MS, () => this.#finishDump(question));
      this.#broadcast({ type: 'connections', question });
    });
  }

  /** Stops accepting; resolves when all connections have ended, at the latest shortly after the deadline. */
  async drain(deadlineMs: number): Promise<void> {
    const { clock } = this.#options;
    this.#draining = true;
    const drained = new Promise<void>((resolve) => {
      this.#whenDrained = resolve;
    });
    this.#broadcast({ type: 'drain' });
    const timers: Timer[] = [
      clock.after(deadlineMs, () => this.#broadcast({ type: 'drain-deadline' })),
      clock.after(deadlineMs + 1000, () => this.#whenDrained?.()),
    ];
    this.#lookDrained();
    await drained;
    for (const timer of timers) timer.cancel();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#workers.values()].map(({ worker }) => worker.terminate()));
  }

  #spawn(index: number): void {
    if (this.#stopped || this.#draining) return;
    const { settings, reader } = this.#options;
    const id = this.#incarnations++;
    const segment = createSegment(settings.maxSeries);
    const heartbeat = new SharedArrayBuffer(4);
    const start: WorkerStart = { index, settings, state: this.#options.state, segment, heartbeat, nameservers: this.#options.nameservers };
    const worker = this.#options.spawn(start);
    reader.attach(id, segment);
    const running: Running = {
      id,
      index,
      worker,
      threadId: worker.threadId,
      heartbeat: new Int32Array(heartbeat),
      identities: new Set(),
      lastBeat: 0,
      missedChecks: 0,
      ready: false,
      drained: false,
    };
    this.#workers.set(id, running);
    worker.onMessage((message) => this.#received(running, message));
    worker.onError((error) => this.#options.log.error({ worker: index, error: errorMessage(error) }, 'data worker failed'));
    worker.onExit((code) => this.#exited(running, code));
    if (this.#levels) post(running, { type: 'log-level', ...this.#levels });
    for (const binding of this.#pods.values()) {
      binding.waiting.add(id);
      post(running, { type: 'pod-add', pod: binding.pod });
    }
  }

  #received(running: Running, message: FromWorker): void {
    switch (message.type) {
      case 'ready':
        this.#ready(running);
        break;
      case 'pod-bound':
        this.#bound(running, message.uid, message.problem);
        break;
      case 'certificate-wanted':
        this.#certificateWanted(running, message.identity);
        break;
      case 'series':
        this.#options.reader.announce(running.id, message.series);
        break;
      case 'connections':
        this.#dumped(running, message.question, message.connections);
        break;
      case 'refused':
        this.#options.onRefused(message.refusals);
        break;
      case 'drained':
        running.drained = true;
        this.#lookDrained();
        break;
    }
  }

  #ready(running: Running): void {
    running.ready = true;
    this.#countWorkers();
    if (this.readyCount < this.#options.settings.workers) return;
    this.#restartMs = FIRST_RESTART_MS;
    this.#whenReady?.();
    this.#whenReady = undefined;
  }

  #bound(running: Running, uid: string, problem: string | undefined): void {
    const binding = this.#pods.get(uid);
    if (!binding?.waiting.delete(running.id)) return;
    if (problem !== undefined) {
      if (!binding.settle)
        this.#options.log.error({ worker: running.index, pod: uid, error: problem }, 'a replaced worker cannot serve the pod');
      binding.settle?.(problem);
    } else if (binding.waiting.size === 0) binding.settle?.();
  }

  #certificateWanted(running: Running, identity: string): void {
    running.identities.add(identity);
    const known = this.#certificates.get(identity);
    if (known) post(running, { type: 'certificate', certificate: known });
    else this.#options.onCertificateWanted(identity);
  }

  #dumped(running: Running, question: number, connections: readonly ConnectionDump[]): void {
    const dump = this.#dumps.get(question);
    if (!dump?.waiting.delete(running.id)) return;
    dump.found.push(...connections);
    if (dump.waiting.size === 0) this.#finishDump(question);
  }

  #finishDump(question: number): void {
    const dump = this.#dumps.get(question);
    this.#dumps.delete(question);
    dump?.resolve(dump.found);
  }

  #exited(running: Running, code: number): void {
    const { log, reader, series, clock } = this.#options;
    this.#workers.delete(running.id);
    reader.detach(running.id);
    this.#options.onThreadEnded(running.threadId);
    this.#countWorkers();
    if (this.#stopped) return;
    this.#lookDrained();
    // With no worker left nobody listens: the pod waits for the next one.
    const served = this.#workers.size > 0;
    for (const { waiting, settle } of this.#pods.values()) if (waiting.delete(running.id) && waiting.size === 0 && served) settle?.();
    for (const [question, { waiting }] of this.#dumps) if (waiting.delete(running.id) && waiting.size === 0) this.#finishDump(question);
    if (this.#draining) return;
    series.add(this.#replacedSlot, 1);
    const wait = this.#restartMs;
    this.#restartMs = Math.min(wait * 2, LONGEST_RESTART_MS);
    log.error({ worker: running.index, exitCode: code, restartMs: wait }, 'data worker ended, starting another one');
    clock.after(wait, () => this.#spawn(running.index));
  }

  #countWorkers(): void {
    this.#options.series.set(this.#workersSlot, this.readyCount);
  }

  #watchHeartbeats(): void {
    this.#options.clock.after(HEARTBEAT_CHECK_MS, () => {
      if (this.#stopped) return;
      this.#checkHeartbeats();
      this.#watchHeartbeats();
    });
  }

  #checkHeartbeats(): void {
    for (const running of this.#workers.values()) {
      const beat = Atomics.load(running.heartbeat, 0);
      running.missedChecks = beat === running.lastBeat ? running.missedChecks + 1 : 0;
      running.lastBeat = beat;
      const allowed = running.ready ? MISSED_CHECKS : MISSED_CHECKS_AT_START;
      if (running.missedChecks !== allowed) continue;
      this.#options.log.error({ worker: running.index, seconds: (allowed * HEARTBEAT_CHECK_MS) / 1000 }, 'data worker hangs');
      void running.worker.terminate();
    }
  }

  #lookDrained(): void {
    if (this.#draining && [...this.#workers.values()].every(({ drained }) => drained)) this.#whenDrained?.();
  }

  #broadcast(message: ToWorker): void {
    for (const running of this.#workers.values()) post(running, message);
  }
}

const post = ({ worker }: Running, message: ToWorker): void => worker.postMessage(message);
