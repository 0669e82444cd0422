/**
 * What is counted and logged about each connection: opened and closed, bytes while it runs, its line when it ends. Both reporters count
 * `received` from client to server and `sent` from server to client; the log line counts from its own side (Istio's ztunnel, src/telemetry.rs).
 */

import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { outcomes, type ProxyError } from '../../common/base/errors.ts';
import type { RefusalTally } from '../../common/base/refusal-tally.ts';
import { type Member, Roster } from '../../common/base/roster.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import type { PolicyInput } from '../../common/decision/policy.ts';
import type { EventSink } from '../../common/decision/traffic-event.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { AccessField, AccessLog } from '../../common/server/access-log.ts';
import { orUnknown } from '../../common/server/peer-labels.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import type { ConnectionFacts, EarlyFailure } from './connection-facts.ts';
import { connectionEvent, refusedEvent } from './events.ts';
import type { ConnectionJournal } from './journal.ts';
import { CONNECT_BOUNDS, SlotCache, type TrafficSlots, trafficLabels } from './traffic-series.ts';

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
  readonly #running = new Roster<ConnectionRecord>();
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
      this.#options.journal?.record(
        { ...NOTHING_KNOWN, direction, id, source, target: destination, sourceWorkload: client, service },
        { policy: undefined, error, durationMs: 0, sent: 0, received: 0 },
      );
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
    for (const record of this.#running.all()) record.flush();
    this.#options.series.set(this.#overflowSlot, this.#options.series.overflowed);
  }

  /** Tells the journal of connections that go on, for somebody who asks it now. */
  journalRunning(): void {
    for (const record of this.#running.all()) record.journalRunning();
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
      for (const record of this.#running.all()) for (const slot of record.slots) held.add(slot);
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
} as const;

const nameOf = (workload: Workload | undefined, address: SocketAddress): string =>
  workload ? `${workload.namespace}/${workload.name}` : formatSocketAddress(address);

export class ConnectionRecord implements Member {
  place = -1;
  facts: ConnectionFacts;
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

  /** It goes to another pod of the same gateway, because the first one was not there. */
  moved(facts: ConnectionFacts): void {
    this.facts = facts;
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
    this.#options.journal?.running(this.facts, this.policy);
  }

  /** Exactly once. */
  ended(error?: ProxyError): void {
    this.error = error;
    this.flush();
    const { series, access, clock, journal } = this.#options;
    journal?.record(this.facts, {
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
