/**
 * What is counted and logged about each connection: opened and closed, bytes while it runs, its line when it ends. Both reporters count
 * `received` from client to server and `sent` from server to client; the log line counts from its own side (Istio's ztunnel, src/telemetry.rs).
 */

import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { outcomes, type ProxyError, type ResponseFlag } from '../../common/base/errors.ts';
import type { RefusalTally } from '../../common/base/refusal-tally.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import type { PolicyInput } from '../../common/decision/policy.ts';
import type { EventSink } from '../../common/decision/traffic-event.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { AccessField, AccessLog } from '../../common/server/access-log.ts';
import { histogramParts } from '../../common/server/metric-family.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import type { ConnectionFacts, EarlyFailure } from './connection-facts.ts';
import { connectionEvent, refusedEvent } from './events.ts';
import type { ConnectionJournal } from './journal.ts';

export interface TelemetryOptions {
  readonly series: SeriesWriter;
  readonly access: AccessLog;
  readonly clock: Clock;
  /** For the report to istiod. */
  readonly refusals: RefusalTally;
  /** Whoever wants to see connections as they come and go. */
  readonly events: EventSink;
  /** Absent where it is switched off. */
  readonly journal?: ConnectionJournal | undefined;
}

/** Who sent a DNS query. */
export interface DnsAsker {
  readonly client: Workload;
  readonly type: string;
  readonly protocol: 'udp' | 'tcp';
}

const FLUSH_MS = 1000;
/** A label set that nobody has used for an hour is a peer that has gone. */
const PERIOD_MS = 60_000;
const KEEP_PERIODS = 60;

export class Telemetry {
  readonly #options: TelemetryOptions;
  readonly #running = new Set<ConnectionRecord>();
  readonly #slots: SlotCache;
  readonly #overflowSlot: number;
  readonly #socketsOpen: Readonly<Record<ConnectionFacts['direction'], number>>;

  constructor(options: TelemetryOptions) {
    this.#options = options;
    const { series } = options;
    this.#slots = new SlotCache(series);
    this.#overflowSlot = series.slot(metrics.seriesOverflow, []);
    this.#socketsOpen = {
      outbound: series.slot(metrics.socketsOpen, ['source']),
      inbound: series.slot(metrics.socketsOpen, ['destination']),
    };
    this.#armFlush();
    this.#armExpiry();
  }

  /** The connection's ends and identities are known: from here on it counts, whatever comes of it. */
  opened(facts: ConnectionFacts): ConnectionRecord {
    const record = new ConnectionRecord(this.#options, this.#slots, facts, (ended) => {
      this.#running.delete(ended);
      if (ended.error)
        this.#countRefusal(
          ended.error,
          nameOf(facts.sourceWorkload, facts.source),
          facts.service?.hostname ?? nameOf(facts.destinationWorkload, facts.destination),
        );
    });
    this.#running.add(record);
    return record;
  }

  failedEarly(failure: EarlyFailure): void {
    const { direction, source, destination, error, id, quiet = false, client, service } = failure;
    this.#countRefusal(error, nameOf(client, source), service?.hostname ?? formatSocketAddress(destination));
    if (quiet) return;
    const { events, clock } = this.#options;
    if (events.wanted) events.take(refusedEvent(failure, clock.now()));
    if (id !== undefined)
      this.#options.journal?.record({
        ...NOTHING_KNOWN,
        direction,
        id,
        source,
        target: destination,
        sourceWorkload: client,
        service,
        error,
      });
    this.#options.access.write('warn', 'connection failed', () => [
      ['src.addr', formatSocketAddress(source), 'bare'],
      ['dst.addr', formatSocketAddress(destination), 'bare'],
      ['direction', direction],
      ['error', error.message],
      ['id', id],
      ['warren.code', error.code],
      ['warren.policy', error.policy],
      ['warren.client', client && nameOf(client, source)],
      ['warren.service', service?.hostname],
    ]);
  }

  /** Somebody dialled a pod past its service's waypoint, which nothing forbids. */
  waypointPassedBy(local: Workload, { source, identity }: PolicyInput, service: Service, waypoint: string): void {
    const { series, refusals } = this.#options;
    series.add(series.slot(metrics.waypointPassedBy, [service.namespace, service.name || service.hostname]), 1);
    const message = `dialled ${local.namespace}/${local.name} past waypoint ${waypoint}`;
    const caller = identity ? formatSpiffeId(identity) : source.ip;
    refusals.add({
      code: 'WAYPOINT_BYPASSED',
      policy: '',
      source: caller,
      destination: service.hostname,
      message,
      count: 1,
      letThrough: true,
    });
  }

  /** A destination is known by hostname only, and is looked up for this caller. */
  onDemandDns(source: Workload, hostname: string): void {
    const { series } = this.#options;
    const { workloadName, canonicalName, canonicalRevision, namespace, clusterId } = source;
    const own = [
      workloadName,
      canonicalName,
      canonicalRevision,
      namespace,
      formatSpiffeId(source),
      canonicalName,
      canonicalRevision,
      clusterId,
    ];
    series.add(series.slot(metrics.onDemandDns, [...own.map(orUnknown), hostname]), 1);
  }

  dnsRequest(asker: DnsAsker): void {
    const { series } = this.#options;
    series.add(series.slot(metrics.dnsRequests, dnsLabels(asker)), 1);
  }

  /** A query goes to the nameservers. @returns to be called with whether any of them answered */
  dnsUpstream(asker: DnsAsker): (answered: boolean) => void {
    const { series, clock } = this.#options;
    const labels = dnsLabels(asker);
    const startedAt = clock.monotonic();
    series.add(series.slot(metrics.dnsUpstream, labels), 1);
    return (answered) => {
      if (!answered) series.add(series.slot(metrics.dnsFailures, labels), 1);
      series.observe(metrics.dnsDuration, labels, (clock.monotonic() - startedAt) / 1000);
    };
  }

  socketOpened(direction: ConnectionFacts['direction']): void {
    this.#options.series.add(this.#socketsOpen[direction], 1);
  }

  socketClosed(direction: ConnectionFacts['direction']): void {
    this.#options.series.add(this.#socketsOpen[direction], -1);
  }

  /** Brings the byte counters of open connections up to date. */
  flush(): void {
    for (const record of this.#running) record.flush();
    this.#options.series.set(this.#overflowSlot, this.#options.series.overflowed);
  }

  /** Tells the journal of connections that go on, for somebody who asks it now. */
  journalRunning(): void {
    for (const record of this.#running) record.journalRunning();
  }

  #armFlush(): void {
    this.#options.clock.after(FLUSH_MS, () => {
      this.flush();
      this.#armFlush();
    });
  }

  #armExpiry(): void {
    this.#options.clock.after(PERIOD_MS, () => {
      const held = new Set<number>();
      for (const record of this.#running) for (const slot of record.slots) held.add(slot);
      this.#options.series.expire(KEEP_PERIODS, (slot) => held.has(slot));
      this.#slots.forget(KEEP_PERIODS);
      this.#armExpiry();
    });
  }

  #countRefusal(error: ProxyError, source: string, destination: string): void {
    const { series, refusals } = this.#options;
    const { code, policy = '', message } = error;
    refusals.add({ code, policy, source, destination, message, count: 1 });
    series.add(series.slot(metrics.refusals, [error.code, error.policy ?? '']), 1);
  }
}

/** Of what failed before anything was known of it. */
const NOTHING_KNOWN = {
  sourceIdentity: undefined,
  destinationWorkload: undefined,
  mutualTls: false,
  policy: undefined,
  durationMs: 0,
  sent: 0,
  received: 0,
} as const;

const nameOf = (workload: Workload | undefined, address: SocketAddress): string =>
  workload ? `${workload.namespace}/${workload.name}` : formatSocketAddress(address);

interface ConnectSlots {
  /** One for each bound, and +Inf. */
  readonly buckets: readonly number[];
  readonly sum: number;
  readonly count: number;
}

interface TrafficSlots {
  readonly opened: number;
  readonly closed: number;
  readonly received: number;
  readonly sent: number;
  /** Of outbound connections only: who opens one waits for it. */
  readonly connect: ConnectSlots | undefined;
}

/** The series of one set of labels, found with one look-up: labels are long, and every connection has them. */
class SlotCache {
  readonly #series: SeriesWriter;
  readonly #known = new Map<string, { slots: TrafficSlots; period: number }>();
  /** The last ones that were asked for: a burst of connections is mostly between the same two, and the labels' text is long. */
  readonly #recent: { facts: ConnectionFacts; slots: TrafficSlots; period: number }[] = [];
  #at = 0;

  constructor(series: SeriesWriter) {
    this.#series = series;
  }

  get(facts: ConnectionFacts): TrafficSlots {
    const { period } = this.#series;
    for (const recent of this.#recent) if (recent.period === period && sameEnds(recent.facts, facts)) return recent.slots;
    const slots = this.#find(facts);
    this.#recent[this.#at] = { facts, slots, period };
    this.#at = (this.#at + 1) % MAX_RECENT;
    return slots;
  }

  #find(facts: ConnectionFacts): TrafficSlots {
    const labels = trafficLabels(facts, '-');
    const key = labels.join('\u0000');
    const series = this.#series;
    const known = this.#known.get(key);
    // Asking once in each period keeps the series alive.
    if (known?.period === series.period) return known.slots;
    const overflowed = series.overflowed;
    const slots = {
      opened: series.slot(metrics.opened, labels),
      closed: series.slot(metrics.closed, labels),
      received: series.slot(metrics.received, labels),
      sent: series.slot(metrics.sent, labels),
      connect: facts.direction === 'outbound' ? connectSlots(series, edgeLabels(facts)) : undefined,
    };
    // Overflow series stand for any labels; remembering each of those is what the limit is there to prevent.
    if (series.overflowed === overflowed) this.#known.set(key, { slots, period: series.period });
    return slots;
  }

  forget(periods: number): void {
    for (const [key, { period }] of this.#known) if (this.#series.period - period > periods) this.#known.delete(key);
  }
}

const MAX_RECENT = 8;

/** Whether all labels of the two are equal. By identity: what a view or a header says twice is one object. */
const sameEnds = (a: ConnectionFacts, b: ConnectionFacts): boolean =>
  a.direction === b.direction &&
  a.sourceWorkload === b.sourceWorkload &&
  a.destinationWorkload === b.destinationWorkload &&
  a.service === b.service &&
  a.sourceBaggage === b.sourceBaggage &&
  a.sourceIdentity === b.sourceIdentity &&
  a.mutualTls === b.mutualTls;

export class ConnectionRecord {
  readonly facts: ConnectionFacts;
  error: ProxyError | undefined;
  /** namespace/name of the policy that allowed it. */
  policy: string | undefined;
  readonly #options: TelemetryOptions;
  readonly #ended: (record: ConnectionRecord) => void;
  readonly #startedAt: number;
  readonly #slots: TrafficSlots;
  #relay: Pick<Relay, 'forward' | 'backward'> | undefined;
  #countedForward = 0;
  #countedBackward = 0;

  constructor(options: TelemetryOptions, slots: SlotCache, facts: ConnectionFacts, ended: (record: ConnectionRecord) => void) {
    const { series, access, clock } = options;
    this.#options = options;
    this.facts = facts;
    this.#ended = ended;
    this.#startedAt = clock.monotonic();
    this.#slots = slots.get(facts);
    series.add(this.#slots.opened, 1);
    access.write('debug', 'connection opened', () => leadingFields(facts));
    this.#happened('opened');
  }

  /** What it counts in until it ends. */
  get slots(): readonly number[] {
    const { opened, closed, received, sent } = this.#slots;
    return [opened, closed, received, sent];
  }

  /** Bytes are flowing; client to server is `forward`. */
  running(relay: Pick<Relay, 'forward' | 'backward'>): void {
    this.#relay = relay;
    const { connect } = this.#slots;
    if (!connect) return;
    const { series, clock } = this.#options;
    const tookMs = clock.monotonic() - this.#startedAt;
    for (let i = connect.buckets.length - 1; i >= 0 && tookMs <= (CONNECT_BOUNDS[i] ?? Infinity); i--)
      series.add(connect.buckets[i] ?? 0, 1);
    series.add(connect.sum, tookMs);
    series.add(connect.count, 1);
  }

  flush(): void {
    if (!this.#relay) return;
    const { series } = this.#options;
    const { forward, backward } = this.#relay;
    if (forward !== this.#countedForward) series.add(this.#slots.received, forward - this.#countedForward);
    if (backward !== this.#countedBackward) series.add(this.#slots.sent, backward - this.#countedBackward);
    this.#countedForward = forward;
    this.#countedBackward = backward;
  }

  journalRunning(): void {
    if (!this.#relay) return;
    const { forward: sent, backward: received } = this.#relay;
    const { journal } = this.#options;
    journal?.running({ ...this.facts, policy: this.policy, error: undefined, durationMs: 0, sent, received });
  }

  /** Exactly once. */
  ended(error?: ProxyError): void {
    this.error = error;
    this.flush();
    const { series, access, clock, journal } = this.#options;
    journal?.record({
      ...this.facts,
      policy: this.policy,
      error,
      durationMs: clock.monotonic() - this.#startedAt,
      sent: this.#relay?.forward ?? 0,
      received: this.#relay?.backward ?? 0,
    });
    if (!error) series.add(this.#slots.closed, 1);
    else {
      // Opened without a flag, closed with the one that says how (as the real ztunnel's metrics were recorded).
      const labels = trafficLabels(this.facts, outcomes[error.code].flag);
      series.add(series.slot(metrics.closed, labels), 1);
      series.add(series.slot(metrics.failed, labels), 1);
    }
    const level = error && outcomes[error.code].level !== 'info' ? 'error' : 'info';
    access.write(level, 'connection complete', () => {
      const outbound = this.facts.direction === 'outbound';
      const forward = this.#relay?.forward ?? 0;
      const backward = this.#relay?.backward ?? 0;
      return [
        ...leadingFields(this.facts),
        ['bytes_sent', outbound ? forward : backward],
        ['bytes_recv', outbound ? backward : forward],
        ['duration', `${Math.floor(clock.monotonic() - this.#startedAt)}ms`],
        ['error', error?.message],
        ['id', this.facts.id],
        ['warren.code', error?.code],
        ['warren.policy', error?.policy],
      ];
    });
    this.#happened('closed');
    this.#ended(this);
  }

  /** The one place where connections become events. */
  #happened(type: 'opened' | 'closed'): void {
    const { events, clock } = this.#options;
    if (!events.wanted) return;
    events.take(
      connectionEvent(this.facts, {
        type,
        timeMs: clock.now(),
        bytesForward: this.#relay?.forward ?? 0,
        bytesBackward: this.#relay?.backward ?? 0,
        durationMs: Math.round((clock.monotonic() - this.#startedAt) * 1000) / 1000,
        error: this.error,
      }),
    );
  }
}

// Query types are the asker's words; a label has room for the usual ones.
const QUERY_TYPES: ReadonlySet<string> = new Set(['A', 'AAAA', 'CNAME', 'MX', 'NS', 'PTR', 'SOA', 'SRV', 'TXT', 'HTTPS', 'SVCB', 'ANY']);

const dnsLabels = ({ client, type, protocol }: DnsAsker): string[] => [
  QUERY_TYPES.has(type) ? type.toLowerCase() : 'other',
  protocol,
  orUnknown(client.canonicalName),
  orUnknown(client.canonicalRevision),
];

const CONNECT_PARTS = histogramParts(metrics.connectDuration);
const CONNECT_BOUNDS = metrics.connectDuration.buckets ?? [];

function connectSlots(series: SeriesWriter, labels: readonly string[]): ConnectSlots {
  return {
    buckets: [...CONNECT_BOUNDS.map(String), '+Inf'].map((le) => series.slot(CONNECT_PARTS.bucket, [...labels, le])),
    sum: series.slot(CONNECT_PARTS.sum, labels),
    count: series.slot(CONNECT_PARTS.count, labels),
  };
}

/** In the order of EDGE_LABELS. */
function edgeLabels({ sourceWorkload: from, destinationWorkload: to, service }: ConnectionFacts): string[] {
  return [from?.workloadName, from?.namespace, service?.hostname, to?.workloadName, to?.namespace].map(orUnknown);
}

const UNKNOWN = 'unknown';
// Baggage is what a peer says of itself, at any length that fits into a header; names of Kubernetes have 253 characters at most.
const MAX_LABEL = 253;
const orUnknown = (value: string | undefined): string => (value === undefined || value === '' ? UNKNOWN : value.slice(0, MAX_LABEL));

function trafficLabels(facts: ConnectionFacts, flag: ResponseFlag): string[] {
  const { sourceWorkload: from, sourceBaggage: said, destinationWorkload: to, service } = facts;
  const canonicalName = orUnknown(from?.canonicalName ?? said?.canonicalName);
  const canonicalRevision = orUnknown(from?.canonicalRevision ?? said?.canonicalRevision);
  return [
    facts.direction === 'outbound' ? 'source' : 'destination',
    orUnknown(from?.workloadName ?? said?.workloadName),
    canonicalName,
    canonicalRevision,
    orUnknown(from?.namespace ?? said?.namespace),
    orUnknown(facts.sourceIdentity),
    canonicalName,
    canonicalRevision,
    orUnknown(from?.clusterId ?? said?.clusterId),
    orUnknown(service?.hostname),
    orUnknown(service?.namespace),
    orUnknown(service?.name),
    orUnknown(to?.workloadName),
    orUnknown(to?.canonicalName),
    orUnknown(to?.canonicalRevision),
    orUnknown(to?.namespace),
    to ? formatSpiffeId(to) : UNKNOWN,
    orUnknown(to?.canonicalName),
    orUnknown(to?.canonicalRevision),
    orUnknown(to?.clusterId),
    'tcp',
    flag,
    facts.mutualTls ? 'mutual_tls' : UNKNOWN,
    ...localityLabels(facts),
  ];
}

const NO_LOCALITY = ['', '', '', ''];

/** There as soon as either end is known, if only with unknown values: so the real ztunnel's metrics were recorded. */
function localityLabels({ sourceWorkload: from, sourceBaggage: said, destinationWorkload: to }: ConnectionFacts): string[] {
  if (!from && !said && !to) return NO_LOCALITY;
  return [from?.locality.region || said?.region, from?.locality.zone || said?.zone, to?.locality.region, to?.locality.zone].map(orUnknown);
}

function leadingFields(facts: ConnectionFacts): AccessField[] {
  const { sourceWorkload: from, sourceBaggage: said, destinationWorkload: to } = facts;
  return [
    ['src.addr', formatSocketAddress(facts.source), 'bare'],
    ['src.workload', from?.name ?? said?.workloadName],
    ['src.namespace', from?.namespace ?? said?.namespace],
    ['src.identity', facts.mutualTls ? facts.sourceIdentity : undefined],
    ['src.cluster', from?.clusterId ?? said?.clusterId],
    ['dst.addr', formatSocketAddress(facts.destination), 'bare'],
    ['dst.hbone_addr', facts.authority, 'bare'],
    ['dst.service', facts.service?.hostname],
    ['dst.workload', to?.name],
    ['dst.namespace', to?.namespace],
    ['dst.identity', facts.mutualTls ? facts.destinationIdentity : undefined],
    ['dst.cluster', to?.clusterId],
    ['direction', facts.direction],
  ];
}
