/**
 * What is counted and logged about requests and connections, as Istio's waypoints report them: reporter "waypoint", the source by its
 * tunnel, the destination by the endpoint that answered. One line and one set of numbers for each, whatever came of it.
 */
import type { Clock } from '../../common/base/clock.ts';
import { outcomes, type ProxyError } from '../../common/base/errors.ts';
import type { RefusalTally } from '../../common/base/refusal-tally.ts';
import { Roster } from '../../common/base/roster.ts';
import type { EventSink } from '../../common/decision/traffic-event.ts';
import type { AccessLog } from '../../common/server/access-log.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import { type Connection, type LatestRequest, latestOf, type RequestContext } from '../http/context.ts';
import type { Delivered } from '../http/deliver.ts';
import { isGrpc } from '../http/grpc.ts';
import { httpOutcome } from '../http/outcomes.ts';
import { metrics } from '../metrics.ts';
import { type OwnTelemetry, tagValues, writeLines } from '../telemetry/own-telemetry.ts';
import { requestFacts } from '../telemetry/request-facts.ts';
import { type Changes, observe, type RequestSlots, requestSlots } from '../telemetry/request-slots.ts';
import type { Spans } from '../telemetry/spans.ts';
import { connectionLabels, endsOf, grpcLabel, requestLine } from './describe.ts';
import { type RefusedConnection, refusedEvent, requestEvent } from './events.ts';
import type { WaypointJournal } from './journal.ts';
import { type RoutedConnection, TcpRecord } from './tcp-record.ts';

export interface TelemetryOptions {
  readonly series: SeriesWriter;
  readonly access: AccessLog;
  readonly clock: Clock;
  /** For the report to istiod. */
  readonly refusals: RefusalTally;
  /** Whoever wants to see requests and connections as they come and go. */
  readonly events: EventSink;
  /** Absent where it is switched off. */
  readonly journal?: WaypointJournal | undefined;
  /** What Telemetry objects say; nothing where it is not given. */
  readonly own?: OwnTelemetry;
  /** Takes those of sampled requests. */
  readonly spans?: Pick<Spans, 'finished'>;
}

const FLUSH_MS = 1000;
const PERIOD_MS = 300_000;
/** Series of peers that were not heard of in so many periods go. */
const KEEP_PERIODS = 12;
const MAX_CACHED = 20_000;

export class Telemetry {
  readonly #options: TelemetryOptions;
  /** Another one where labels may have changed. */
  #requests = new Map<string, { readonly slots: RequestSlots; readonly period: number }>();
  readonly #tcp = new Roster<TcpRecord>();
  readonly #active: number;
  readonly #connections: number;
  readonly #retries: number;
  readonly #overflow: number;

  constructor(options: TelemetryOptions) {
    this.#options = options;
    const { series } = options;
    this.#active = series.slot(metrics.requestsActive, []);
    this.#connections = series.slot(metrics.connectionsActive, []);
    this.#retries = series.slot(metrics.attempts, []);
    this.#overflow = series.slot(metrics.seriesOverflow, []);
    this.#armFlush();
    this.#armExpiry();
  }

  requestStarted(): void {
    this.#options.series.add(this.#active, 1);
  }

  retried(): void {
    this.#options.series.add(this.#retries, 1);
  }

  /** An authorization server was asked. */
  checked(policy: string, provider: string, outcome: 'allowed' | 'denied' | 'failed'): void {
    this.#options.series.add(this.#options.series.slot(metrics.checks, [policy, provider, outcome]), 1);
  }

  /** What a limit said of a request. */
  limited(policy: string, limit: string, outcome: 'allowed' | 'limited' | 'would_limit'): void {
    this.#options.series.add(this.#options.series.slot(metrics.limited, [policy, limit, outcome]), 1);
  }

  mirrored(outcome: string): void {
    this.#options.series.add(this.#options.series.slot(metrics.mirrored, [outcome]), 1);
  }

  /** An endpoint has failed too often. @param cluster service and port, and subset */
  ejected(cluster: string, endpoint: string): void {
    const { series, access } = this.#options;
    series.add(series.slot(metrics.ejections, [cluster]), 1);
    access.write('warn', 'endpoint ejected', () => [
      ['cluster', cluster],
      ['endpoint', endpoint],
    ]);
  }

  /** Endpoints that are put aside just now. */
  circuits(circuits: readonly { readonly name: string; readonly ejected: number }[]): void {
    const { series } = this.#options;
    for (const { name, ejected } of circuits) series.set(series.slot(metrics.ejected, [name]), ejected);
  }

  connectionOpened(): void {
    this.#options.series.add(this.#connections, 1);
  }

  connectionClosed(): void {
    this.#options.series.add(this.#connections, -1);
  }

  /** Exactly once for each request. */
  requestOver(request: RequestContext, delivered: Delivered): void {
    const { series, access, clock, events, journal, own } = this.#options;
    series.add(this.#active, -1);
    const { error } = request;
    const durationMs = clock.monotonic() - request.startedMonotonic;
    const latest = latestOf(request.connection);
    journal?.request(request, delivered, durationMs, latest);
    const said = own?.of(request.connection.target.serviceKey);
    const sampled = request.span?.sampled === true;
    const facts = own && (said || sampled) ? requestFacts(request, delivered, durationMs, own.identity) : undefined;
    const changes = facts && said?.metrics ? { metrics: said.metrics, values: tagValues(said.metrics, facts) } : undefined;
    const slots = this.#slotsAgain(request, delivered, latest, changes);
    if (slots.count !== undefined) series.add(slots.count, 1);
    observe(series, slots.duration, durationMs);
    observe(series, slots.requestBytes, request.body.bytes);
    observe(series, slots.responseBytes, delivered.bytes);
    if (slots.messages) {
      const { request: sent, response: received } = slots.messages;
      if (sent !== undefined) series.add(sent, request.body.messages?.count ?? 0);
      if (received !== undefined) series.add(received, delivered.messages);
    }
    if (error) this.#countRefusal(error, ...endsOf(request.connection));
    if (own && facts && said?.loggers) writeLines(own, said.loggers, facts);
    else access.write(error ? outcomes[error.code].level : 'info', 'request complete', () => requestLine(request, delivered, durationMs));
    if (facts && sampled) this.#options.spans?.finished(request, facts);
    if (events.wanted) events.take(requestEvent(request, delivered, durationMs));
  }

  /** A connection that carries no HTTP: it counts from here on, whatever comes of it. */
  tcpOpened(connection: Connection, endpoint: PickedEndpoint | undefined, id: string, routed?: RoutedConnection): TcpRecord {
    const record = new TcpRecord(this.#options, { connection, endpoint, id, routed }, (ended) => {
      this.#tcp.delete(ended);
      if (ended.error) this.#countRefusal(ended.error, ...endsOf(connection));
    });
    this.#tcp.add(record);
    return record;
  }

  /** A tunnel or a TLS handshake that was refused. */
  connectionRefused(refused: RefusedConnection): void {
    const { source, authority, principal, error, id } = refused;
    this.#countRefusal(error, principal ?? source, authority ?? 'the waypoint');
    const { events, clock, journal } = this.#options;
    if (events.wanted) events.take(refusedEvent(refused, clock.now()));
    if (id !== undefined && authority !== undefined) journal?.tunnelRefused({ source, authority, principal: principal ?? '', error, id });
    this.#options.access.write('warn', 'connection failed', () => [
      ['downstream_remote_address', source, 'bare'],
      ['authority', authority],
      ['src.identity', principal],
      ['error', error.message],
      ['id', id],
      ['warren.code', error.code],
      ['warren.policy', error.policy],
    ]);
  }

  /** Peers may be described otherwise now, or other labels may be asked for: they are made anew. */
  stateChanged(): void {
    this.#requests = new Map();
  }

  flush(): void {
    for (const record of this.#tcp.all()) record.flush();
    this.#options.series.set(this.#overflow, this.#options.series.overflowed);
  }

  /** Those of the connection's latest request, where this one is like it. */
  #slotsAgain(
    request: RequestContext,
    delivered: Delivered,
    latest: LatestRequest | undefined,
    changes: Changes | undefined,
  ): RequestSlots {
    const { error, endpoint } = request;
    const { status, grpcStatus } = delivered;
    if (!latest || changes || error || grpcStatus !== undefined || isGrpc(request.received.fields))
      return this.#slots(request, delivered, changes);
    const like = latest.counted;
    const { period } = this.#options.series;
    if (like?.endpoint === endpoint && like?.status === status && like.period === period && like.table === this.#requests)
      return like.slots;
    const { overflowed } = this.#options.series;
    const slots = this.#slots(request, delivered, changes);
    if (this.#options.series.overflowed === overflowed) latest.counted = { endpoint, status, period, table: this.#requests, slots };
    return slots;
  }

  #slots(request: RequestContext, { status, grpcStatus }: Delivered, changes: Changes | undefined): RequestSlots {
    const { series } = this.#options;
    const { connection, endpoint, error } = request;
    const grpc = isGrpc(request.received.fields);
    const flag = error ? httpOutcome(error.code).flag : '-';
    const { caller, target } = connection;
    const source = caller.workload?.uid ?? caller.baggage?.workloadName ?? '';
    const plain = `${source} ${caller.principal} ${target.serviceKey ?? ''} ${endpoint?.key ?? ''} ${status} ${flag} ${grpc} ${grpcStatus ?? ''}`;
    const key = changes ? `${plain}\n${changes.values.join('\n')}` : plain;
    const known = this.#requests.get(key);
    // Asking once in each period keeps the series alive.
    if (known?.period === series.period) return known.slots;
    const labels = [
      ...connectionLabels(caller, request.backend?.service ?? target.service, endpoint?.workload ?? target.workload),
      grpc ? 'grpc' : 'http',
      // A client that left before there was a response: Envoy's 0.
      error?.code === 'CLIENT_GONE' ? '0' : String(status),
      grpc ? grpcLabel(grpcStatus) : '',
      flag,
    ];
    const overflowed = series.overflowed;
    const slots = requestSlots(series, labels, grpc, changes);
    // Overflow series stand for any labels; remembering each of those is what the limit is there to prevent.
    if (series.overflowed === overflowed && this.#requests.size < MAX_CACHED) this.#requests.set(key, { slots, period: series.period });
    return slots;
  }

  #countRefusal(error: ProxyError, source: string, destination: string): void {
    const { series, refusals } = this.#options;
    const { code, policy = '', message } = error;
    // What is nobody's mistake is not worth anybody's attention.
    if (outcomes[code].level !== 'info') refusals.add({ code, policy, source, destination, message, count: 1 });
    series.add(series.slot(metrics.refusals, [error.code, error.policy ?? '']), 1);
  }

  /** Tells the journal of connections that go on, for somebody who asks it now. */
  journalRunning(): void {
    for (const record of this.#tcp.all()) record.journalRunning();
  }

  #armFlush(): void {
    this.#options.clock.after(FLUSH_MS, () => {
      this.flush();
      this.#armFlush();
    });
  }

  #armExpiry(): void {
    this.#options.clock.after(PERIOD_MS, () => {
      const held = new Set(this.#tcp.all().flatMap(({ slots }) => slots));
      this.#options.series.expire(KEEP_PERIODS, (slot) => held.has(slot));
      this.#requests = new Map();
      this.#armExpiry();
    });
  }
}
