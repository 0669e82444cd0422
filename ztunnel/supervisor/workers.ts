/**
 * The data workers: starts them, tells each what to serve, and replaces one that throws, ends or hangs; the others do not notice, since a
 * pod's listeners exist once in every worker and the kernel spreads connections over those that live. One more thread is always ready and
 * serves nobody: loading the program takes longer than a pod should be a worker short, so a worker that is lost has its place taken in the
 * same moment, and the next one is loaded afterwards. One cohesive state machine.
 */
import type { SocketAddress } from '../../common/base/address.ts';
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log, LogLevel } from '../../common/base/log.ts';
import type { CountedRefusal } from '../../common/base/refusal-tally.ts';
import type { RevokedSerials } from '../../common/codec/x509/crl.ts';
import { type JournalAnswer, mergeAnswers } from '../../common/decision/journal.ts';
import type { TapBatch, TapSpec } from '../../common/server/event-tap.ts';
import { createSegment, type SeriesReader, type SeriesWriter } from '../../common/server/shared-series.ts';
import { WorkerQuestions } from '../../common/server/worker-questions.ts';
import type { SharedMeshState } from '../../common/state/shared.ts';
import type { IdentityCertificate } from '../../common/tls/mesh-tls.ts';
import { metrics } from '../metrics.ts';
import type { ConnectionDump, FromWorker, PodSpec, PodUsage, ToWorker, WorkerStart } from '../protocol.ts';
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
  readonly openFiles: number;
  readonly clock: Clock;
  readonly log: Log;
  readonly reader: SeriesReader;
  readonly series: SeriesWriter;
  /** A worker has a connection that needs this identity. */
  onCertificateWanted(identity: string): void;
  /** A worker has a connection that needs to know what has this name. */
  onAddressWanted?(name: string): void;
  /** Processor time of a thread in milliseconds, by the kernel's number for it; undefined where it has ended. */
  threadCpuMs(tid: number): number | undefined;
  /** A worker hangs where nothing can end it: its listeners go on taking connections that nobody serves. */
  onStuck(): void;
  /** What pods take of a worker; nothing once it has ended. */
  onUsage(worker: number, pods: readonly PodUsage[]): void;
  onRefused(refusals: readonly CountedRefusal[]): void;
  /** Events for the taps that are open. */
  onTapped(batches: readonly TapBatch[]): void;
}

interface Running {
  /** Of this incarnation; never used again. */
  readonly id: number;
  readonly worker: WorkerThread;
  /** Kept, because a worker that has ended no longer says it. */
  readonly threadId: number;
  readonly heartbeat: Int32Array;
  /** Identities that it has asked for: their renewals go to it as well. */
  readonly identities: Set<string>;
  lastBeat: number;
  missedChecks: number;
  /** When the first check was missed. */
  cpuMs: number;
  tid: number;
  ready: boolean;
  /** Serves pods. The one that does not is the spare. */
  active: boolean;
  drained: boolean;
  /** Was told to end, or has ended. */
  ended: boolean;
  /** Since when it takes a lost worker's place, and the pods that it does not listen for yet. */
  taking: { readonly since: number; readonly left: Set<string> } | undefined;
}

interface Binding {
  readonly pod: PodSpec;
  /** Workers that have not answered yet. */
  readonly waiting: Set<number>;
  settle: ((problem?: string) => void) | undefined;
}

/** A pod that is given up, and who has not said yet that it has let go of it. */
interface Removal {
  readonly uid: string;
  readonly waiting: Set<number>;
  done(): void;
}

const HEARTBEAT_CHECK_MS = 250;
// In checks, not in time: a process that was suspended as a whole must not find all of its workers dead.
const MISSED_CHECKS = 60;
// A worker that still loads its modules on a machine under load is slow, not stuck; replacing it would double the load.
const MISSED_CHECKS_AT_START = 240;
// A thread that does not beat and has used the processor all the while is in a loop. One that waits for the processor has used little.
const LOOP_CHECKS = 6;
const LOOP_CPU_MS = 800;
const BIND_AGAIN_MS = 500;
const FIRST_RESTART_MS = 100;
const LONGEST_RESTART_MS = 10_000;
/** A worker that lived as long was not the victim of what ended the one before it. */
const CALM_MS = 60_000;
const DUMP_TIMEOUT_MS = 1000;
const TERMINATE_MS = 5000;

export class WorkerFleet {
  readonly #options: WorkerFleetOptions;
  readonly #workers = new Map<number, Running>();
  readonly #pods = new Map<string, Binding>();
  readonly #dumps = new Map<number, { waiting: Set<number>; found: ConnectionDump[]; resolve(found: ConnectionDump[]): void }>();
  readonly #certificates = new Map<string, IdentityCertificate>();
  readonly #workersSlot: number;
  readonly #runtimeSlot: number;
  readonly #spareSlot: number;
  readonly #replacedSlot: number;
  readonly #removals = new Set<Removal>();
  readonly #journals: WorkerQuestions<JournalAnswer>;
  #spare: Running | undefined;
  #lastExitAt = -Infinity;
  #revoked: RevokedSerials | undefined;
  #taps: readonly TapSpec[] = [];
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
    this.#journals = new WorkerQuestions(options.clock);
    this.#workersSlot = options.series.slot(metrics.workers, []);
    this.#runtimeSlot = options.series.slot(metrics.runtimeWorkers, []);
    options.series.set(options.series.slot(metrics.runtimeQueue, []), 0);
    this.#spareSlot = options.series.slot(metrics.spareWorkers, []);
    this.#replacedSlot = options.series.slot(metrics.workersReplaced, []);
  }

  /** Resolves when every worker is up. */
  start(): Promise<void> {
    const ready = new Promise<void>((resolve) => {
      this.#whenReady = resolve;
    });
    for (let i = 0; i < this.#options.settings.workers; i++) this.#spawn(true);
    this.#watchHeartbeats();
    return ready;
  }

  get readyCount(): number {
    return this.#active().filter(({ ready }) => ready).length;
  }

  #active(): Running[] {
    return [...this.#workers.values()].filter(({ active, ended }) => active && !ended);
  }

  /** Resolves when every worker listens for the pod. @throws {Error} with the first worker's problem; then none of them listens */
  addPod(pod: PodSpec): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiting = new Set(this.#active().map(({ id }) => id));
      const settle = (problem?: string): void => {
        binding.settle = undefined;
        if (problem === undefined) {
          resolve();
          return;
        }
        void this.removePod(pod.uid);
        reject(new Error(problem));
      };
      const binding: Binding = { pod, waiting, settle };
      this.#pods.set(pod.uid, binding);
      for (const running of this.#active()) post(running, { type: 'pod-add', pod });
    });
  }

  /** Ends the pod's connections at once. Resolves when no worker uses the pod's network namespace any more. */
  removePod(uid: string): Promise<void> {
    const binding = this.#pods.get(uid);
    this.#pods.delete(uid);
    binding?.settle?.('the pod was removed meanwhile');
    const holders = this.#active();
    if (holders.length === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#removals.add({ uid, waiting: new Set(holders.map(({ id }) => id)), done: resolve });
      for (const running of holders) post(running, { type: 'pod-remove', uid });
    });
  }

  #letGo(running: Running, uid?: string): void {
    for (const removal of this.#removals) {
      if (uid !== undefined && removal.uid !== uid) continue;
      if (!removal.waiting.delete(running.id) || removal.waiting.size > 0) continue;
      this.#removals.delete(removal);
      removal.done();
    }
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

  /** On-demand discovery has heard of these. */
  addressesKnown(names: readonly string[]): void {
    this.#broadcast({ type: 'addresses-known', names });
  }

  /** Whoever is on the list is cut off, and refused from now on. */
  revoked(revoked: RevokedSerials): void {
    this.#revoked = revoked;
    this.#broadcast({ type: 'revoked', revoked });
  }

  /** New connections of this pod are refused, for want of memory, until another one is named, or none. */
  shed(uid: string | undefined, cut: boolean): void {
    this.#broadcast({ type: 'shed', uid, cut });
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

  /** Open connections of all workers; those of a worker that does not answer within a second are missing. */
  connections(): Promise<ConnectionDump[]> {
    return new Promise((resolve) => {
      const question = this.#questions++;
      const dump = { waiting: new Set(this.#active().map(({ id }) => id)), found: [] as ConnectionDump[], resolve };
      if (dump.waiting.size === 0) return resolve([]);
      this.#dumps.set(question, dump);
      this.#options.clock.after(DUMP_TIMEOUT_MS, () => this.#finishDump(question));
      for (const running of this.#active()) post(running, { type: 'connections', question });
    });
  }

  /** What the workers' journals have since a time, or of one id. */
  async journal(wanted: { readonly sinceMs: number; readonly id: string }): Promise<JournalAnswer> {
    const asked = this.#active();
    const ids = asked.map(({ id }) => id);
    return mergeAnswers(
      await this.#journals.ask(ids, (question) => {
        for (const running of asked) post(running, { type: 'journal', question, ...wanted });
      }),
    );
  }

  /** Stops accepting; resolves when all connections have ended, at the latest shortly after the deadline. */
  async drain(deadlineMs: number): Promise<void> {
    const { clock } = this.#options;
    this.#draining = true;
    const drained = new Promise<void>((resolve) => {
      this.#whenDrained = resolve;
    });
    for (const running of this.#active()) post(running, { type: 'drain' });
    const timers: Timer[] = [
      clock.after(deadlineMs, () => this.#broadcast({ type: 'drain-deadline' })),
      clock.after(deadlineMs + 1000, () => this.#whenDrained?.()),
    ];
    this.#lookDrained();
    await drained;
    for (const timer of timers) timer.cancel();
  }

  /** A worker that nothing can end is left to the end of the process. */
  async stop(): Promise<void> {
    this.#stopped = true;
    const ended = Promise.all([...this.#workers.values()].map(({ worker }) => worker.terminate()));
    await Promise.race([ended, new Promise<void>((resolve) => this.#options.clock.after(TERMINATE_MS, resolve))]);
  }

  #spawn(active: boolean): void {
    if (this.#stopped || this.#draining) return;
    const { settings, reader, nameservers, openFiles } = this.#options;
    const id = this.#incarnations++;
    const segment = createSegment(settings.maxSeries);
    const heartbeat = new SharedArrayBuffer(4);
    const start: WorkerStart = { index: id, settings, state: this.#options.state, segment, heartbeat, nameservers, openFiles };
    const worker = this.#options.spawn(start);
    reader.attach(id, segment);
    const running: Running = {
      id,
      worker,
      threadId: worker.threadId,
      heartbeat: new Int32Array(heartbeat),
      identities: new Set(),
      lastBeat: 0,
      missedChecks: 0,
      cpuMs: 0,
      tid: 0,
      ready: false,
      active,
      drained: false,
      ended: false,
      taking: undefined,
    };
    this.#workers.set(id, running);
    worker.onMessage((message) => this.#received(running, message));
    worker.onError((error) => {
      this.#options.log.error({ worker: id, error: errorMessage(error) }, 'data worker failed');
      // Its thread still cleans up; its place need not wait for that.
      if (!running.ended) this.#lost(running);
    });
    worker.onExit((code) => this.#exited(running, code));
    if (this.#levels) post(running, { type: 'log-level', ...this.#levels });
    if (this.#taps.length > 0) post(running, { type: 'taps', taps: this.#taps });
    if (this.#revoked) post(running, { type: 'revoked', revoked: this.#revoked });
    if (active) this.#servePods(running);
    else this.#spare = running;
  }

  #servePods(running: Running): void {
    for (const binding of this.#pods.values()) {
      binding.waiting.add(running.id);
      post(running, { type: 'pod-add', pod: binding.pod });
    }
  }

  #received(running: Running, message: FromWorker): void {
    switch (message.type) {
      case 'ready':
        running.tid = message.tid;
        this.#ready(running);
        break;
      case 'pod-removed':
        this.#letGo(running, message.uid);
        break;
      case 'pod-bound':
        this.#bound(running, message.uid, message.problem);
        break;
      case 'certificate-wanted':
        this.#certificateWanted(running, message.identity);
        break;
      case 'address-wanted':
        this.#options.onAddressWanted?.(message.name);
        break;
      case 'series':
        this.#options.reader.announce(running.id, message.series);
        break;
      case 'connections':
        this.#dumped(running, message.question, message.connections);
        break;
      case 'journal':
        this.#journals.answered(message.question, running.id, message.answer);
        break;
      case 'usage':
        this.#options.onUsage(running.id, message.pods);
        break;
      case 'tapped':
        this.#options.onTapped(message.batches);
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
    if (!this.#spare) this.#spawn(false);
    this.#whenReady?.();
    this.#whenReady = undefined;
  }

  #bound(running: Running, uid: string, problem: string | undefined): void {
    if (problem === undefined) this.#tookOver(running, uid);
    const binding = this.#pods.get(uid);
    if (!binding?.waiting.delete(running.id)) return;
    if (problem !== undefined) {
      if (!binding.settle) {
        // Without SO_REUSEPORT the lost worker's listeners may be there for a moment longer.
        this.#options.log.error({ worker: running.id, pod: uid, error: problem }, 'a replaced worker cannot serve the pod, trying again');
        this.#options.clock.after(BIND_AGAIN_MS, () => {
          if (this.#pods.get(uid) !== binding || running.ended) return;
          binding.waiting.add(running.id);
          post(running, { type: 'pod-add', pod: binding.pod });
        });
        return;
      }
      binding.settle(problem);
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
    const { log, reader } = this.#options;
    this.#workers.delete(running.id);
    reader.detach(running.id);
    this.#options.onThreadEnded(running.threadId);
    this.#letGo(running);
    this.#options.onUsage(running.id, []);
    if (this.#spare === running) this.#spare = undefined;
    if (!running.ended) this.#lost(running);
    log.debug({ worker: running.id, exitCode: code }, 'data worker ended');
  }

  /** It serves nobody from now on, whether or not its thread has ended yet. */
  #lost(running: Running): void {
    running.ended = true;
    this.#countWorkers();
    if (this.#stopped) return;
    this.#lookDrained();
    const place = running.active ? this.#promote() : false;
    // With no worker left nobody listens: the pod waits for the next one.
    const served = this.#active().length > 0;
    for (const { waiting, settle } of this.#pods.values()) if (waiting.delete(running.id) && waiting.size === 0 && served) settle?.();
    this.#journals.lost(running.id);
    for (const [question, { waiting }] of this.#dumps) if (waiting.delete(running.id) && waiting.size === 0) this.#finishDump(question);
    if (this.#draining) return;
    if (running.active) this.#options.series.add(this.#replacedSlot, 1);
    this.#startAnother(running, place);
  }

  /** Says how long the pods were a worker short. */
  #tookOver(running: Running, uid: string): void {
    const { taking } = running;
    if (!taking?.left.delete(uid) || taking.left.size > 0) return;
    running.taking = undefined;
    const { clock, log } = this.#options;
    log.info(
      { worker: running.id, pods: this.#pods.size, tookMs: Math.round(clock.monotonic() - taking.since) },
      'data worker took the place',
    );
  }

  /** The spare takes the place of one that is lost. */
  #promote(): boolean {
    const spare = this.#spare;
    if (!spare?.ready || this.#draining) return false;
    this.#spare = undefined;
    spare.active = true;
    spare.taking = { since: this.#options.clock.monotonic(), left: new Set(this.#pods.keys()) };
    this.#servePods(spare);
    this.#countWorkers();
    return true;
  }

  #startAnother(lost: Running, placeTaken: boolean): void {
    const { clock, log } = this.#options;
    const now = clock.monotonic();
    if (now - this.#lastExitAt > CALM_MS) this.#restartMs = FIRST_RESTART_MS;
    this.#lastExitAt = now;
    const restartMs = this.#restartMs;
    this.#restartMs = Math.min(restartMs * 2, LONGEST_RESTART_MS);
    log.error(
      { worker: lost.id, placeTaken, restartMs },
      lost.active ? 'data worker lost, starting another one' : 'spare data worker lost',
    );
    clock.after(restartMs, () => {
      const missing = this.#active().length < this.#options.settings.workers;
      // A spare that was still loading when its place came up.
      if (missing && this.#promote()) this.#spawn(false);
      else if (missing || !this.#spare) this.#spawn(missing);
    });
  }

  #countWorkers(): void {
    this.#options.series.set(this.#workersSlot, this.readyCount);
    this.#options.series.set(this.#runtimeSlot, this.readyCount);
    this.#options.series.set(this.#spareSlot, this.#spare?.ready ? 1 : 0);
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
      if (running.ended) continue;
      const beat = Atomics.load(running.heartbeat, 0);
      running.missedChecks = beat === running.lastBeat ? running.missedChecks + 1 : 0;
      running.lastBeat = beat;
      const why = this.#hangs(running);
      if (why !== undefined) this.#end(running, why);
    }
  }

  /** @returns why it is taken to be lost */
  #hangs(running: Running): string | undefined {
    const { missedChecks, ready, tid } = running;
    const seconds = (missedChecks * HEARTBEAT_CHECK_MS) / 1000;
    if (missedChecks === (ready ? MISSED_CHECKS : MISSED_CHECKS_AT_START)) return `no sign of life for ${seconds} s`;
    if (!ready || missedChecks === 0) return undefined;
    const cpuMs = this.#options.threadCpuMs(tid);
    if (cpuMs === undefined) return undefined;
    if (missedChecks === 1) running.cpuMs = cpuMs;
    return missedChecks >= LOOP_CHECKS && cpuMs - running.cpuMs >= LOOP_CPU_MS ? `busy without a sign of life for ${seconds} s` : undefined;
  }

  #end(running: Running, why: string): void {
    this.#options.log.error({ worker: running.id, reason: why }, 'data worker hangs');
    this.#lost(running);
    this.#options.clock.after(TERMINATE_MS, () => {
      if (this.#workers.has(running.id) && !this.#stopped) this.#options.onStuck();
    });
    void running.worker.terminate();
  }

  #lookDrained(): void {
    if (this.#draining && this.#active().every(({ drained }) => drained)) this.#whenDrained?.();
  }

  #broadcast(message: ToWorker): void {
    for (const running of this.#workers.values()) post(running, message);
  }
}

const post = ({ worker }: Running, message: ToWorker): void => worker.postMessage(message);
