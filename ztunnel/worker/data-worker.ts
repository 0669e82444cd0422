/**
 * A data worker: its pods' proxies over shared state, told by the supervisor what to serve. Nothing here reads a file or talks to a
 * control plane; what it needs comes by message or lies in shared memory.
 */
import { getHeapStatistics } from 'node:v8';
import { type Clock, systemClock } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import { IdleHeap } from '../../common/base/heap.ts';
import type { Log, LogRoot } from '../../common/base/log.ts';
import { randomHexSource } from '../../common/base/random-hex.ts';
import { RefusalTally } from '../../common/base/refusal-tally.ts';
import { HostnameResolver, systemLookup } from '../../common/client/hostname-resolver.ts';
import { Journal, NO_ANSWER, SLOW_REQUEST_MS } from '../../common/decision/journal.ts';
import type { MeshView } from '../../common/decision/mesh-view.ts';
import { AccessLog } from '../../common/server/access-log.ts';
import { EventTap } from '../../common/server/event-tap.ts';
import { type SeriesAnnouncement, SeriesWriter } from '../../common/server/shared-series.ts';
import { MeshStateReader } from '../../common/state/reader.ts';
import { Revocations } from '../../common/tls/revocations.ts';
import { WorkerCertificates } from '../../common/tls/worker-certificates.ts';
import { metrics } from '../metrics.ts';
import type { FromWorker, PodSpec, ToWorker, WorkerStart } from '../protocol.ts';
import { Admission } from './admission.ts';
import { ConnectionTable } from './connections.ts';
import type { WorkerParts } from './context.ts';
import { GatewayLoad } from './gateway-load.ts';
import { ConnectionJournal } from './journal.ts';
import { Lanes } from './lanes.ts';
import { StateChanges } from './local-workload.ts';
import { OnDemand } from './on-demand.ts';
import { PodProxy } from './pod.ts';
import { Telemetry } from './telemetry.ts';

const HEARTBEAT_MS = 250;

export class DataWorker {
  readonly #send: (message: FromWorker) => void;
  readonly #logs: LogRoot;
  readonly #log: Log;
  readonly #access: AccessLog;
  readonly #reader: MeshStateReader;
  readonly #changes = new StateChanges();
  readonly #parts: WorkerParts;
  readonly #pods = new Map<string, PodProxy>();
  readonly #clock: Clock = systemClock;
  readonly #refusals = new RefusalTally();
  readonly #tap: EventTap;
  readonly #journal: Journal | undefined;
  #announced: SeriesAnnouncement[] = [];
  #load = 0;

  constructor(start: WorkerStart, logs: LogRoot, send: (message: FromWorker) => void) {
    const { settings } = start;
    this.#send = send;
    this.#logs = logs;
    this.#log = logs.log.child({ worker: start.index });
    this.#reader = new MeshStateReader(start.state, { node: settings.nodeName || undefined });
    this.#access = new AccessLog({
      output: logs.writer,
      format: settings.logFormat,
      level: settings.log.scopes.access ?? settings.log.level,
      now: () => this.#clock.now(),
    });
    const series = new SeriesWriter(start.segment, (announcement) => this.#announce(announcement));
    this.#tap = new EventTap(this.#clock, (batches) => send({ type: 'tapped', batches }));
    const connections = new ConnectionTable();
    this.#journal = settings.decisionJournal
      ? new Journal({ maxBytes: settings.decisionJournalBytes / settings.workers, slowMs: SLOW_REQUEST_MS })
      : undefined;
    const journal = this.#journal && new ConnectionJournal(this.#journal, () => this.#clock.now());
    this.#parts = {
      settings,
      view: this.#reader as MeshView,
      changes: this.#changes,
      clock: this.#clock,
      random: Math.random,
      randomHex: randomHexSource(),
      log: this.#log,
      certificates: new WorkerCertificates({
        tls: { postQuantumOnly: settings.compliance === 'pqc', tls12: settings.tls12 },
        clock: this.#clock,
        want: (identity) => send({ type: 'certificate-wanted', identity }),
      }),
      connections,
      telemetry: new Telemetry({ series, access: this.#access, clock: this.#clock, refusals: this.#refusals, events: this.#tap, journal }),
      revocations: new Revocations({
        onRevoked: (reporter) => series.add(series.slot(metrics.crlRejections, [reporter]), 1),
        onUntracked: (reporter) => series.add(series.slot(metrics.crlUntracked, [reporter]), 1),
      }),
      admission: new Admission({
        settings,
        openFiles: start.openFiles,
        series,
        clock: this.#clock,
        connectionsOf: (uid) => connections.countOf(uid),
        waiting: () => connections.waiting(),
      }),
      load: () => this.#load,
      gatewayLoad: new GatewayLoad(),
      lanes: new Lanes((ip) => this.#pods.values().find(({ local }) => local.get()?.addresses.includes(ip))?.lane),
      onDemand: settings.xdsOnDemand
        ? new OnDemand({ view: this.#reader, clock: this.#clock, want: (name) => send({ type: 'address-wanted', name }) })
        : undefined,
      resolver: new HostnameResolver({ lookup: systemLookup, clock: this.#clock }),
      nameservers: start.nameservers,
    };
    const runtime = measureRuntime(series, start.index, () => connections.size);
    const dropped = series.slot(metrics.logLinesDropped, []);
    const journalBytes = series.slot(metrics.journalBytes, []);
    const journalDropped = series.slot(metrics.journalDropped, []);
    const heartbeat = new Int32Array(start.heartbeat);
    const idle = new IdleHeap(() => this.#clock.monotonic());
    const load = measureLoad(this.#clock);
    // Not unreferenced: it also keeps an idle worker alive.
    setInterval(() => {
      Atomics.add(heartbeat, 0, 1);
      series.set(dropped, logs.writer.dropped);
      series.set(journalBytes, this.#journal?.bytes ?? 0);
      series.set(journalDropped, this.#journal?.dropped ?? 0);
      runtime();
      this.#load = load();
      idle.look(connections.size);
      const usage = this.#parts.admission.measure((uid) => this.#pods.get(uid)?.spec.info);
      if (usage) send({ type: 'usage', pods: usage });
      if (this.#refusals.size > 0) send({ type: 'refused', refusals: this.#refusals.take() });
    }, HEARTBEAT_MS);
  }

  receive(message: ToWorker): void {
    switch (message.type) {
      case 'pod-add':
        this.#addPod(message.pod);
        break;
      case 'pod-remove':
        this.#removePod(message.uid);
        this.#send({ type: 'pod-removed', uid: message.uid });
        break;
      case 'state':
        this.#stateChanged(message.policiesChanged);
        break;
      case 'certificate':
        this.#parts.certificates.arrived(message.certificate);
        break;
      case 'certificate-failed':
        this.#parts.certificates.failed(message.identity, message.reason);
        break;
      case 'taps':
        this.#tap.set(message.taps);
        break;
      case 'log-level':
        this.#logs.setLevel(message.level);
        this.#access.level = message.accessLevel;
        break;
      case 'connections':
        this.#send({ type: 'connections', question: message.question, connections: this.#parts.connections.dump() });
        break;
      case 'journal':
        this.#parts.telemetry.journalRunning();
        this.#send({ type: 'journal', question: message.question, answer: this.#journal?.answer(message) ?? NO_ANSWER });
        break;
      case 'revoked':
        this.#parts.revocations.update(message.revoked);
        break;
      case 'shed':
        this.#shed(message.uid, message.cut);
        break;
      case 'addresses-known':
        this.#parts.onDemand?.answered(message.names);
        break;
      case 'drain':
        this.#drain();
        break;
      case 'drain-deadline':
        this.#endDrain();
        break;
    }
  }

  #addPod(spec: PodSpec): void {
    const known = this.#pods.get(spec.uid);
    if (known) this.#removePod(spec.uid);
    let pod: PodProxy | undefined;
    try {
      pod = new PodProxy(this.#parts, spec);
      pod.listen();
      this.#pods.set(spec.uid, pod);
      this.#send({ type: 'pod-bound', uid: spec.uid });
    } catch (error) {
      pod?.destroy(new ProxyError('POD_REMOVED', 'the pod could not be served'));
      this.#send({ type: 'pod-bound', uid: spec.uid, problem: errorMessage(error) });
    }
  }

  #removePod(uid: string): void {
    const pod = this.#pods.get(uid);
    this.#pods.delete(uid);
    pod?.destroy(new ProxyError('POD_REMOVED', 'the pod left the mesh or was deleted'));
  }

  #stateChanged(policiesChanged: boolean): void {
    if (!this.#reader.refresh()) return;
    this.#changes.emit();
    for (const [uid, pod] of this.#pods) if (pod.workloadChanged() && !policiesChanged) this.#parts.connections.recheck(uid);
    if (policiesChanged) this.#parts.connections.recheck();
  }

  #shed(uid: string | undefined, cut: boolean): void {
    const { admission, connections } = this.#parts;
    admission.shed(uid);
    if (uid !== undefined && cut) connections.cutLargest(uid, new ProxyError('OVERLOADED', 'closed because memory is short'));
  }

  #drain(): void {
    const draining = [...this.#pods.values()].map((pod) => pod.drain());
    void Promise.all(draining)
      .then(() => this.#parts.connections.empty())
      .then(() => Promise.all([...this.#pods.values()].map((pod) => pod.answered())))
      .then(() => {
        for (const uid of [...this.#pods.keys()]) this.#removePod(uid);
        this.#parts.telemetry.flush();
        this.#logs.writer.flushNow();
        this.#send({ type: 'drained' });
      });
  }

  /** What is still open ends now; the connections of peers that never answered as well. */
  #endDrain(): void {
    const error = new ProxyError('DRAINED', 'connection closed due to connection drain');
    this.#parts.connections.abortAll(error);
    for (const [uid, pod] of this.#pods) {
      this.#pods.delete(uid);
      pod.destroy(error);
    }
  }

  /** New series come in bursts; one message carries those of a turn. */
  #announce(announcement: SeriesAnnouncement): void {
    this.#announced.push(announcement);
    if (this.#announced.length > 1) return;
    queueMicrotask(() => {
      this.#send({ type: 'series', series: this.#announced });
      this.#announced = [];
    });
  }
}

/** What a worker says of its event loop. The loop waits once in each turn, unless something is due. @returns to be called now and then */
function measureRuntime(series: SeriesWriter, worker: number, open: () => number): () => void {
  const label = [String(worker)];
  const slot = (family: (typeof metrics)[keyof typeof metrics], labels: readonly string[] = label): number => series.slot(family, labels);
  const [busy, parks, parkUnparks] = [metrics.runtimeBusy, metrics.runtimeParks, metrics.runtimeParkUnparks].map((family) => slot(family));
  const tasks = slot(metrics.runtimeTasks, []);
  const heap = slot(metrics.workerHeap);
  return () => {
    const turns = performance.nodeTiming.uvMetricsInfo.loopCount;
    series.set(busy ?? 0, performance.eventLoopUtilization().active / 1000);
    series.set(parks ?? 0, turns);
    series.set(parkUnparks ?? 0, 2 * turns);
    series.set(tasks, open());
    series.set(heap, getHeapStatistics().used_heap_size);
  };
}

/** @returns to be called now and then: how much of a processor this thread has used since the last call */
function measureLoad(clock: Clock): () => number {
  let used = process.threadCpuUsage();
  let at = clock.monotonic();
  return () => {
    const now = clock.monotonic();
    const { user, system } = process.threadCpuUsage(used);
    const share = (user + system) / 1000 / Math.max(1, now - at);
    used = { user: used.user + user, system: used.system + system };
    at = now;
    return share;
  };
}
