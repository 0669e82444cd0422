/**
 * The data workers: starts them, tells each what there is, and replaces one that throws, ends or hangs. All listen on the same ports and the
 * kernel spreads connections over those that live, so the others do not notice.
 */
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log, LogLevel } from '../../common/base/log.ts';
import type { CountedRefusal } from '../../common/base/refusal-tally.ts';
import { type JournalAnswer, mergeAnswers } from '../../common/decision/journal.ts';
import type { TapBatch, TapSpec } from '../../common/server/event-tap.ts';
import { createSegment, type SeriesReader, type SeriesWriter } from '../../common/server/shared-series.ts';
import { WorkerQuestions } from '../../common/server/worker-questions.ts';
import type { SharedMeshState } from '../../common/state/shared.ts';
import type { IdentityCertificate } from '../../common/tls/mesh-tls.ts';
import { createBuckets } from '../http/buckets.ts';
import { metrics } from '../metrics.ts';
import type { FromWorker, ToWorker, WorkerStart } from '../protocol.ts';
import type { WaypointSettings } from '../settings.ts';
import type { ConfigurationPush } from '../worker/configuration.ts';

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
  readonly settings: WaypointSettings;
  readonly state: SharedMeshState;
  /** Everything that is in force, for a worker that starts. */
  configuration(): readonly ConfigurationPush[];
  /** A worker's thread has ended, and with it what it had pinned of the shared state. */
  onThreadEnded(threadId: number): void;
  onCertificateWanted(identity: string): void;
  onRefused(refusals: readonly CountedRefusal[]): void;
  /** Events for the taps that are open. */
  onTapped(batches: readonly TapBatch[]): void;
  readonly clock: Clock;
  readonly log: Log;
  readonly reader: SeriesReader;
  readonly series: SeriesWriter;
}

interface Running {
  /** Of this incarnation; never used again. */
  readonly id: number;
  readonly index: number;
  readonly thread: WorkerThread;
  /** Kept, because a thread that has ended no longer says it. */
  readonly threadId: number;
  readonly heartbeat: Int32Array;
  lastBeat: number;
  missedChecks: number;
  ready: boolean;
  listening: boolean;
  drained: boolean;
}

const HEARTBEAT_CHECK_MS = 1000;
// In checks, not in time: a process that was suspended as a whole must not find all of its workers dead. Long, for machines under load.
const MISSED_CHECKS = 15;
// A thread that still loads its modules has no heart yet.
const MISSED_CHECKS_AT_START = 60;
const FIRST_RESTART_MS = 100;
const LONGEST_RESTART_MS = 10_000;

export class WorkerFleet {
  readonly #options: WorkerFleetOptions;
  readonly #workers = new Map<number, Running>();
  readonly #buckets: SharedArrayBuffer;
  readonly #workersSlot: number;
  readonly #replacedSlot: number;
  readonly #journals: WorkerQuestions<JournalAnswer>;
  #certificate: IdentityCertificate | undefined;
  #taps: readonly TapSpec[] = [];
  #levels: { level: LogLevel; accessLevel: LogLevel } | undefined;
  #incarnations = 0;
  #restartMs = FIRST_RESTART_MS;
  #serving = false;
  #draining = false;
  #stopped = false;
  #whenReady: (() => void) | undefined;
  #whenListening: { resolve(): void; reject(error: Error): void } | undefined;
  #whenDrained: (() => void) | undefined;

  constructor(options: WorkerFleetOptions) {
    this.#options = options;
    this.#buckets = createBuckets(options.settings.rateLimitBuckets);
    this.#journals = new WorkerQuestions(options.clock);
    this.#workersSlot = options.series.slot(metrics.workers, []);
    this.#replacedSlot = options.series.slot(metrics.workersReplaced, []);
  }

  /** What rate limits are counted in. */
  get buckets(): SharedArrayBuffer {
    return this.#buckets;
  }

  /** Resolves when every worker is up. */
  start(): Promise<void> {
    const ready = new Promise<void>((resolve) => {
      this.#whenReady = resolve;
    });
    for (let index = 0; index < this.#options.settings.workers; index++) this.#spawn(index);
    this.#checkHeartbeats();
    return ready;
  }

  /** Resolves when every worker has its ports open. @throws {Error} with the first worker's problem */
  serve(): Promise<void> {
    this.#serving = true;
    this.#broadcast({ type: 'listen' });
    return new Promise((resolve, reject) => {
      this.#whenListening = { resolve, reject };
    });
  }

  get listeningCount(): number {
    return [...this.#workers.values()].filter(({ listening }) => listening).length;
  }

  stateChanged(): void {
    this.#broadcast({ type: 'state' });
  }

  configurationChanged(push: ConfigurationPush): void {
    this.#broadcast({ type: 'configuration', push });
  }

  certificateArrived(certificate: IdentityCertificate): void {
    this.#certificate = certificate;
    this.#broadcast({ type: 'certificate', certificate });
  }

  certificateFailed(identity: string, reason: string): void {
    this.#certificate = undefined;
    this.#broadcast({ type: 'certificate-failed', identity, reason });
  }

  /** All that are open now. */
  setTaps(taps: readonly TapSpec[]): void {
    this.#taps = taps;
    this.#broadcast({ type: 'taps', taps });
  }

  setLogLevels(level: LogLevel, accessLevel: LogLevel): void {
    this.#levels = { level, accessLevel };
    this.#broadcast({ type: 'log-level', level, accessLevel });
  }

  /** What the workers' journals have since a time, or of one id. */
  async journal(wanted: { readonly sinceMs: number; readonly id: string }): Promise<JournalAnswer> {
    const ids = [...this.#workers.values()].filter(({ ready }) => ready).map(({ id }) => id);
    return mergeAnswers(
      await this.#journals.ask(ids, (question) => {
        for (const id of ids) this.#workers.get(id)?.thread.postMessage({ type: 'journal', question, ...wanted });
      }),
    );
  }

  /**
   * Asks clients to go elsewhere, goes on taking connections for `acceptMs` (until everybody has heard that we leave), then only finishes what
   * is open. Resolves when nothing is, at the latest shortly after the deadline.
   */
  async drain({ acceptMs, deadlineMs }: { acceptMs: number; deadlineMs: number }): Promise<void> {
    const { clock } = this.#options;
    this.#draining = true;
    const drained = new Promise<void>((resolve) => {
      this.#whenDrained = resolve;
    });
    this.#broadcast({ type: 'drain' });
    const timers: Timer[] = [
      clock.after(Math.min(acceptMs, deadlineMs), () => this.#broadcast({ type: 'close' })),
      clock.after(deadlineMs, () => this.#broadcast({ type: 'drain-deadline' })),
      clock.after(deadlineMs + 1000, () => this.#whenDrained?.()),
    ];
    this.#lookDrained();
    await drained;
    for (const timer of timers) timer.cancel();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all([...this.#workers.values()].map(({ thread }) => thread.terminate()));
  }

  #spawn(index: number): void {
    if (this.#stopped || this.#draining) return;
    const { settings, reader, state } = this.#options;
    const id = this.#incarnations++;
    const segment = createSegment(settings.maxSeries);
    const heartbeat = new SharedArrayBuffer(4);
    const thread = this.#options.spawn({ index, settings, state, segment, buckets: this.#buckets, heartbeat });
    reader.attach(id, segment);
    const running: Running = {
      id,
      index,
      thread,
      threadId: thread.threadId,
      heartbeat: new Int32Array(heartbeat),
      lastBeat: 0,
      missedChecks: 0,
      ready: false,
      listening: false,
      drained: false,
    };
    this.#workers.set(id, running);
    thread.onMessage((message) => this.#received(running, message));
    thread.onError((error) => this.#options.log.error({ worker: index, error: errorMessage(error) }, 'data worker failed'));
    thread.onExit((code) => this.#exited(running, code));
    if (this.#levels) thread.postMessage({ type: 'log-level', ...this.#levels });
    if (this.#taps.length > 0) thread.postMessage({ type: 'taps', taps: this.#taps });
    if (this.#certificate) thread.postMessage({ type: 'certificate', certificate: this.#certificate });
    // Before the ports are opened: what is not known yet cannot be enforced.
    for (const push of this.#options.configuration()) thread.postMessage({ type: 'configuration', push });
    if (this.#serving) thread.postMessage({ type: 'listen' });
  }

  #received(running: Running, message: FromWorker): void {
    const { log, reader, settings } = this.#options;
    switch (message.type) {
      case 'ready':
        running.ready = true;
        if ([...this.#workers.values()].filter(({ ready }) => ready).length < settings.workers) break;
        this.#restartMs = FIRST_RESTART_MS;
        this.#whenReady?.();
        this.#whenReady = undefined;
        break;
      case 'listening':
        if (message.problem === undefined) running.listening = true;
        else {
          log.error({ worker: running.index, error: message.problem }, 'data worker cannot listen');
          this.#whenListening?.reject(new Error(message.problem));
        }
        this.#options.series.set(this.#workersSlot, this.listeningCount);
        if (this.listeningCount === settings.workers) this.#whenListening?.resolve();
        break;
      case 'certificate-wanted':
        if (this.#certificate?.identity === message.identity) {
          running.thread.postMessage({ type: 'certificate', certificate: this.#certificate });
        } else this.#options.onCertificateWanted(message.identity);
        break;
      case 'series':
        reader.announce(running.id, message.series);
        break;
      case 'tapped':
        this.#options.onTapped(message.batches);
        break;
      case 'refused':
        this.#options.onRefused(message.refusals);
        break;
      case 'journal':
        this.#journals.answered(message.question, running.id, message.answer);
        break;
      case 'drained':
        running.drained = true;
        this.#lookDrained();
        break;
    }
  }

  #exited(running: Running, code: number): void {
    const { log, reader, series, clock } = this.#options;
    this.#workers.delete(running.id);
    this.#journals.lost(running.id);
    reader.detach(running.id);
    this.#options.onThreadEnded(running.threadId);
    series.set(this.#workersSlot, this.listeningCount);
    if (this.#stopped) return;
    this.#lookDrained();
    if (this.#draining) return;
    series.add(this.#replacedSlot, 1);
    const wait = this.#restartMs;
    this.#restartMs = Math.min(wait * 2, LONGEST_RESTART_MS);
    log.error({ worker: running.index, exitCode: code, restartMs: wait }, 'data worker ended, starting another one');
    clock.after(wait, () => this.#spawn(running.index));
  }

  #checkHeartbeats(): void {
    for (const running of this.#workers.values()) {
      const beat = Atomics.load(running.heartbeat, 0);
      running.missedChecks = beat === running.lastBeat ? running.missedChecks + 1 : 0;
      running.lastBeat = beat;
      const allowed = running.ready ? MISSED_CHECKS : MISSED_CHECKS_AT_START;
      if (running.missedChecks !== allowed) continue;
      this.#options.log.error({ worker: running.index, seconds: (allowed * HEARTBEAT_CHECK_MS) / 1000 }, 'data worker hangs');
      void running.thread.terminate();
    }
    this.#options.clock.after(HEARTBEAT_CHECK_MS, () => !this.#stopped && this.#checkHeartbeats());
  }

  #lookDrained(): void {
    if (this.#draining && [...this.#workers.values()].every(({ drained }) => drained)) this.#whenDrained?.();
  }

  #broadcast(message: ToWorker): void {
    for (const { thread } of this.#workers.values()) thread.postMessage(message);
  }
}
