/**
 * A data worker: it listens, and carries requests over state that the supervisor keeps. Nothing here reads a file or talks to a control
 * plane; what it needs comes by message or lies in shared memory.
 */
import { type Clock, systemClock, threadsMicroseconds } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import { descriptorSink, LineWriter } from '../../common/base/line-writer.ts';
import type { Log, LogRoot } from '../../common/base/log.ts';
import { randomHexSource } from '../../common/base/random-hex.ts';
import { RefusalTally } from '../../common/base/refusal-tally.ts';
import { HostnameResolver, systemLookup } from '../../common/client/hostname-resolver.ts';
import { Journal, NO_ANSWER, SLOW_REQUEST_MS } from '../../common/decision/journal.ts';
import type { Workload } from '../../common/decision/mesh-view.ts';
import { defaultClientLimits, defaultServerLimits } from '../../common/hbone/types.ts';
import { connectHttp1 } from '../../common/http/http1-client.ts';
import { connectHttp2 } from '../../common/http/http2-client.ts';
import { defaultHttpLimits, type HttpLimits } from '../../common/http/types.ts';
import { AccessLog } from '../../common/server/access-log.ts';
import { EventTap } from '../../common/server/event-tap.ts';
import { type SeriesAnnouncement, SeriesWriter } from '../../common/server/shared-series.ts';
import { MeshStateReader } from '../../common/state/reader.ts';
import { WorkerCertificates } from '../../common/tls/worker-certificates.ts';
import { Dialer } from '../cluster/dial.ts';
import { EndpointPicker } from '../cluster/picker.ts';
import { Upstreams } from '../cluster/upstreams.ts';
import { SharedBuckets } from '../http/buckets.ts';
import { Mirrors } from '../http/mirror.ts';
import { pipeline } from '../http/pipeline.ts';
import { Connections } from '../inbound/connection.ts';
import { HboneInbound } from '../inbound/hbone.ts';
import { PlaintextInbound } from '../inbound/plaintext.ts';
import { Replicas, replicasOf } from '../inbound/rebalance.ts';
import { metrics } from '../metrics.ts';
import type { FromWorker, ToWorker, WorkerStart } from '../protocol.ts';
import type { WaypointSettings } from '../settings.ts';
import type { SpanOrigin } from '../telemetry/span-record.ts';
import { Spans } from '../telemetry/spans.ts';
import { Configuration } from './configuration.ts';
import { WaypointJournal } from './journal.ts';
import { Telemetry } from './telemetry.ts';

const HEARTBEAT_MS = 500;
const UPSTREAM_IDLE_MS = 60_000;

export interface WorkerWorld {
  readonly send: (message: FromWorker) => void;
  /** A variable of the process, for formats and tags that tell them. */
  readonly environment: (name: string) => string | undefined;
}

export class DataWorker {
  readonly #send: (message: FromWorker) => void;
  readonly #settings: WaypointSettings;
  readonly #logs: LogRoot;
  readonly #log: Log;
  readonly #access: AccessLog;
  readonly #reader: MeshStateReader;
  readonly #configuration: Configuration;
  readonly #certificates: WorkerCertificates;
  readonly #telemetry: Telemetry;
  readonly #tap: EventTap;
  readonly #picker: EndpointPicker;
  readonly #dialer: Dialer;
  readonly #upstreams: Upstreams;
  readonly #connections: Connections;
  readonly #inbound: HboneInbound;
  readonly #spans: Spans;
  readonly #plaintext: PlaintextInbound;
  readonly #clock: Clock = systemClock;
  readonly #journal: Journal | undefined;
  readonly #replicas = new Replicas();
  readonly #series: SeriesWriter;
  readonly #shedSlot: number;
  #self: Workload | undefined;
  #announced: SeriesAnnouncement[] = [];

  constructor(start: WorkerStart, logs: LogRoot, { send, environment }: WorkerWorld) {
    const { settings } = start;
    const clock = this.#clock;
    const random = Math.random;
    const randomHex = randomHexSource();
    this.#send = send;
    this.#settings = settings;
    this.#logs = logs;
    this.#log = logs.log.child({ worker: start.index });
    const log = this.#log;
    this.#reader = new MeshStateReader(start.state, { node: settings.nodeName || undefined });
    const view = this.#reader;
    const self = (): Workload => this.#ownWorkload();
    this.#access = new AccessLog({
      output: logs.writer,
      format: settings.logFormat,
      level: settings.log.scopes.access ?? settings.log.level,
      now: () => clock.now(),
    });
    const series = new SeriesWriter(start.segment, (announcement) => this.#announce(announcement));
    const refusals = new RefusalTally();
    this.#tap = new EventTap(clock, (batches) => send({ type: 'tapped', batches }));
    this.#configuration = new Configuration(log, environment);
    const configuration = this.#configuration;
    this.#journal = settings.decisionJournal
      ? new Journal({ maxBytes: settings.decisionJournalBytes / settings.workers, slowMs: SLOW_REQUEST_MS })
      : undefined;
    const journal = this.#journal && new WaypointJournal(this.#journal, configuration, () => clock.now());
    const telemetry = new Telemetry({
      series,
      access: this.#access,
      clock,
      refusals,
      events: this.#tap,
      journal,
      own: {
        of: (service) => configuration.telemetryOf(service),
        identity: settings.identity,
        stdout: logs.writer,
        stderr: new LineWriter({ sink: descriptorSink(2) }),
      },
      spans: { finished: (request, facts) => this.#spans.finished(request, facts) },
    });
    this.#telemetry = telemetry;
    this.#certificates = new WorkerCertificates({
      tls: { postQuantumOnly: settings.compliance === 'pqc' },
      clock,
      want: (identity) => send({ type: 'certificate-wanted', identity }),
    });
    const certificates = this.#certificates;

    // Towards endpoints.
    const picker = new EndpointPicker({
      view,
      self,
      balancing: settings.balancing,
      configuration,
      random,
      clock,
      workers: settings.workers,
      events: { ejected: (cluster, endpoint) => telemetry.ejected(cluster, endpoint) },
    });
    this.#picker = picker;
    const windows = { streamWindow: settings.streamWindow, connectionWindow: settings.connectionWindow, maxFrameSize: settings.frameSize };
    const dialer = new Dialer({
      identity: settings.identity,
      self,
      certificates,
      clock,
      resolver: new HostnameResolver({ lookup: systemLookup, clock }),
      randomHex,
      limits: { ...defaultClientLimits, ...windows },
      maxStreamsPerConnection: settings.poolMaxStreams,
      unusedReleaseMs: settings.poolUnusedMs,
    });
    this.#dialer = dialer;
    const limits: HttpLimits = { ...defaultHttpLimits, idleTimeoutMs: settings.idleTimeoutMs };
    const upstreams = new Upstreams({
      limits: { ...limits, idleTimeoutMs: UPSTREAM_IDLE_MS },
      clock,
      dial: (endpoint, signal, version) => dialer.connect(endpoint, signal, undefined, version === 'http2' ? 'h2' : 'http/1.1'),
      connect: { http1: connectHttp1, http2: connectHttp2 },
    });
    this.#upstreams = upstreams;

    const origin = (): SpanOrigin => spanOrigin(settings, self());
    this.#spans = new Spans({ series, clock, log, origin, send: { view, picker, upstreams, clock, origin, environment } });

    // What comes in.
    const mirrors = new Mirrors({ view, picker, upstreams, clock, random, log, counted: (outcome) => telemetry.mirrored(outcome) });
    const buckets = new SharedBuckets(start.buckets, threadsMicroseconds);
    const handler = pipeline({
      identity: settings.identity,
      view,
      configuration,
      picker,
      upstreams,
      clock,
      random,
      randomHex,
      log,
      buckets,
      checked: (policy, provider, outcome) => telemetry.checked(policy, provider, outcome),
      limited: (policy, limit, outcome) => telemetry.limited(policy, limit, outcome),
      mirror: (request, entry) => mirrors.mirror(request, entry),
      hasOthers: ({ backend, refusedBy }) =>
        backend?.service !== undefined && picker.size(backend.service, backend.port, backend.subset) > refusedBy.size,
      retried: () => telemetry.retried(),
    });
    const connections = new Connections({
      handler,
      clock,
      telemetry,
      log,
      configuration,
      view,
      random,
      picker,
      dialer,
      limits,
      sniffTimeoutMs: settings.sniffTimeoutMs,
    });
    this.#connections = connections;
    const { network, trustDomain, maxConnections, podNamespace: namespace, host, identity } = settings;
    this.#inbound = new HboneInbound({
      identity,
      trustDomain,
      network,
      view,
      waypoint: () => ({ namespace, host, self: this.#knownSelf() }),
      self,
      certificates,
      connections,
      telemetry,
      clock,
      log,
      limits: { ...defaultServerLimits, ...windows },
      maxConnections,
      random,
      randomHex,
    });
    this.#plaintext = new PlaintextInbound({ view, network, connections, telemetry, log, maxConnections, randomHex });

    this.#series = series;
    this.#shedSlot = series.slot(metrics.connectionsShed, []);
    const dropped = series.slot(metrics.logLinesDropped, []);
    const upstreamConnections = series.slot(metrics.upstreamConnections, []);
    const shared = series.slot(metrics.limitBucketsShared, []);
    const journalBytes = series.slot(metrics.journalBytes, []);
    const journalDropped = series.slot(metrics.journalDropped, []);
    const heartbeat = new Int32Array(start.heartbeat);
    // Not unreferenced: it also keeps an idle worker alive.
    setInterval(() => {
      Atomics.add(heartbeat, 0, 1);
      series.set(dropped, logs.writer.dropped);
      // The buckets are everybody's, and so is this number.
      if (start.index === 0) series.set(shared, buckets.crowded);
      series.set(journalBytes, this.#journal?.bytes ?? 0);
      series.set(journalDropped, this.#journal?.dropped ?? 0);
      series.set(upstreamConnections, upstreams.size);
      telemetry.circuits(picker.circuits());
      if (refusals.size > 0) send({ type: 'refused', refusals: refusals.take() });
    }, HEARTBEAT_MS);
  }

  receive(message: ToWorker): void {
    switch (message.type) {
      case 'state':
        if (!this.#reader.refresh()) break;
        this.#self = undefined;
        this.#picker.stateChanged();
        this.#telemetry.stateChanged();
        this.#makeRoom();
        break;
      case 'configuration':
        this.#configuration.apply(message.push);
        if (message.push.kind === 'policies') this.#connections.policiesChanged();
        if (message.push.kind === 'telemetry') this.#telemetry.stateChanged();
        if (message.push.kind === 'traffic' || message.push.kind === 'labels') this.#picker.stateChanged();
        break;
      case 'certificate':
        this.#certificates.arrived(message.certificate);
        break;
      case 'certificate-failed':
        this.#certificates.failed(message.identity, message.reason);
        break;
      case 'taps':
        this.#tap.set(message.taps);
        break;
      case 'log-level':
        this.#logs.setLevel(message.level);
        this.#access.level = message.accessLevel;
        break;
      case 'journal':
        this.#telemetry.journalRunning();
        this.#send({ type: 'journal', question: message.question, answer: this.#journal?.answer(message) ?? NO_ANSWER });
        break;
      case 'listen':
        void this.#listen();
        break;
      case 'drain':
        this.#inbound.drain();
        this.#connections.drain();
        break;
      case 'close':
        this.#close();
        break;
      case 'drain-deadline':
        this.#connections.abortAll(new ProxyError('DRAINED', 'connection closed due to connection drain'));
        break;
    }
  }

  /** New replicas of this waypoint get their part of what is open here. */
  #makeRoom(): void {
    const self = this.#knownSelf();
    if (!self) return;
    const { podNamespace: namespace, host } = this.#settings;
    const ready = replicasOf(this.#reader, self, { namespace, host });
    const part = this.#replicas.update(self, ready, (uid) => this.#reader.workloadByUid(uid) !== undefined);
    if (part === 0) return;
    const asked = { connections: this.#connections.shed(part), tunnels: this.#inbound.shed(part) };
    this.#series.add(this.#shedSlot, asked.connections);
    if (asked.connections + asked.tunnels > 0)
      this.#log.info({ replicas: ready?.length, ...asked }, 'replicas were added, a part of the clients goes there');
  }

  async #listen(): Promise<void> {
    const { ipv6, hbonePort, plaintextListen } = this.#settings;
    const host = ipv6 ? '::' : '0.0.0.0';
    try {
      if (hbonePort !== 0) await this.#inbound.listen(host, hbonePort);
      for (const listener of plaintextListen) this.#plaintext.listen(host, listener);
      this.#send({ type: 'listening' });
    } catch (error) {
      this.#send({ type: 'listening', problem: errorMessage(error) });
    }
  }

  #close(): void {
    this.#inbound.close();
    this.#plaintext.close();
    this.#connections.endIdle();
    void this.#connections.empty().then(async () => {
      await this.#spans.close();
      const error = new ProxyError('DRAINED', 'the waypoint has ended');
      this.#inbound.destroy(error);
      this.#upstreams.destroy(error);
      this.#dialer.destroy(error);
      this.#telemetry.flush();
      this.#logs.writer.flushNow();
      this.#send({ type: 'drained' });
    });
  }

  /** As the mesh describes us; undefined where it does not. */
  #knownSelf(): Workload | undefined {
    const { network, instanceIp, podName: name, podNamespace: namespace, serviceAccount } = this.#settings;
    return (
      (instanceIp === '' ? undefined : this.#reader.workloadByAddress(network, instanceIp)) ??
      this.#reader.workloadByPod({ name, namespace, serviceAccount })
    );
  }

  #ownWorkload(): Workload {
    this.#self ??= this.#knownSelf() ?? workloadOf(this.#settings);
    return this.#self;
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

/** Ourselves, as spans name us (istio: service names are workload.namespace). */
const spanOrigin = (
  { gatewayName, podName, podNamespace, instanceIp, hbonePort, metadata, clusterId }: WaypointSettings,
  self: Workload,
): SpanOrigin => ({
  service: `${gatewayName || self.canonicalName}.${podNamespace}`,
  node: `waypoint~${instanceIp}~${podName}.${podNamespace}~${podNamespace}.svc.${self.trustDomain}`,
  address: { ip: instanceIp, port: hbonePort },
  canonicalService: self.canonicalName,
  canonicalRevision: self.canonicalRevision,
  namespace: podNamespace,
  clusterId,
  meshId: typeof metadata.MESH_ID === 'string' ? metadata.MESH_ID : self.trustDomain,
});

/** What we know of ourselves before the mesh tells us. */
const workloadOf = (settings: WaypointSettings): Workload => ({
  uid: '',
  name: settings.podName,
  namespace: settings.podNamespace,
  addresses: settings.instanceIp === '' ? [] : [settings.instanceIp],
  hostname: '',
  network: settings.network,
  protocol: 'HBONE',
  nativeTunnel: true,
  hostNetwork: false,
  trustDomain: settings.trustDomain,
  serviceAccount: settings.serviceAccount,
  waypoint: undefined,
  networkGateway: undefined,
  applicationTunnel: undefined,
  node: settings.nodeName,
  clusterId: settings.clusterId,
  locality: { region: '', zone: '', subzone: '' },
  canonicalName: settings.gatewayName,
  canonicalRevision: 'latest',
  workloadName: settings.gatewayName,
  workloadType: 'deployment',
  authorizationPolicies: [],
  healthy: true,
  capacity: 1,
  services: new Map(),
});
