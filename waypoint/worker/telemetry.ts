/**
 * What is counted and logged about requests and connections, as Istio's waypoints report them: reporter "waypoint", the source by its
 * tunnel, the destination by the endpoint that answered. One line and one set of numbers for each, whatever came of it.
 */
import { formatSocketAddress } from '../../common/base/address.ts';
import type { Clock } from '../../common/base/clock.ts';
import { outcomes, type ProxyError } from '../../common/base/errors.ts';
import type { RefusalTally } from '../../common/base/refusal-tally.ts';
import { formatSpiffeId } from '../../common/base/spiffe.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { Service, Workload } from '../../common/decision/mesh-view.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { AccessField, AccessLog } from '../../common/server/access-log.ts';
import { histogramParts, type MetricFamily } from '../../common/server/metric-family.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { PickedEndpoint } from '../cluster/picker.ts';
import type { Caller, Connection, RequestContext } from '../http/context.ts';
import type { Delivered } from '../http/deliver.ts';
import { isGrpc } from '../http/local-answer.ts';
import { httpOutcome } from '../http/outcomes.ts';
import { metrics } from '../metrics.ts';

export interface TelemetryOptions {
  readonly series: SeriesWriter;
  readonly access: AccessLog;
  readonly clock: Clock;
  /** For the report to istiod. */
  readonly refusals: RefusalTally;
}

const FLUSH_MS = 1000;
const PERIOD_MS = 300_000;
/** Series of peers that were not heard of in so many periods go. */
const KEEP_PERIODS = 12;
const MAX_CACHED = 20_000;

export class Telemetry {
  readonly #options: TelemetryOptions;
  readonly #requests = new Map<string, { readonly slots: RequestSlots; readonly period: number }>();
  readonly #tcp = new Set<TcpRecord>();
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

  mirrored(outcome: string): void {
    this.#options.series.add(this.#options.series.slot(metrics.mirrored, [outcome]), 1);
  }

  connectionOpened(): void {
    this.#options.series.add(this.#connections, 1);
  }

  connectionClosed(): void {
    this.#options.series.add(this.#connections, -1);
  }

  /** Exactly once for each request. */
  requestOver(request: RequestContext, delivered: Delivered): void {
    const { series, access, clock } = this.#options;
    series.add(this.#active, -1);
    const { error } = request;
    const durationMs = clock.monotonic() - request.startedMonotonic;
    const slots = this.#slots(request, delivered);
    series.add(slots.count, 1);
    observe(series, slots.duration, durationMs);
    observe(series, slots.requestBytes, request.body.bytes);
    observe(series, slots.responseBytes, delivered.bytes);
    if (error) this.#countRefusal(error, ...endsOf(request.connection));
    const level = error ? outcomes[error.code].level : 'info';
    access.write(level, 'request complete', () => requestLine(request, delivered, durationMs));
  }

  /** A connection that carries no HTTP: it counts from here on, whatever comes of it. */
  tcpOpened(connection: Connection, endpoint: PickedEndpoint | undefined, id: string): TcpRecord {
    const record = new TcpRecord(this.#options, { connection, endpoint, id }, (ended) => {
      this.#tcp.delete(ended);
      if (ended.error) this.#countRefusal(ended.error, ...endsOf(connection));
    });
    this.#tcp.add(record);
    return record;
  }

  /** A tunnel or a TLS handshake that was refused. */
  connectionRefused(refused: {
    readonly source: string;
    readonly authority?: string;
    readonly principal?: string;
    readonly error: ProxyError;
    readonly id?: string;
  }): void {
    const { source, authority, principal, error, id } = refused;
    this.#countRefusal(error, principal ?? source, authority ?? 'the waypoint');
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

  /** Peers may be described otherwise now: labels are made anew. */
  stateChanged(): void {
    this.#requests.clear();
  }

  flush(): void {
    for (const record of this.#tcp) record.flush();
    this.#options.series.set(this.#overflow, this.#options.series.overflowed);
  }

  #slots(request: RequestContext, { status, grpcStatus }: Delivered): RequestSlots {
    const { series } = this.#options;
    const { connection, endpoint, error } = request;
    const grpc = isGrpc(request.received.fields);
    const flag = error ? httpOutcome(error.code).flag : '-';
    const { caller, target } = connection;
    const source = caller.workload?.uid ?? caller.baggage?.workloadName ?? '';
    const key = `${source} ${caller.principal} ${target.serviceKey ?? ''} ${endpoint?.key ?? ''} ${status} ${flag} ${grpc} ${grpcStatus ?? ''}`;
    const known = this.#requests.get(key);
    // Asking once in each period keeps the series alive.
    if (known?.period === series.period) return known.slots;
    const labels = [
      ...peerLabels(caller, request.backend?.service ?? target.service, endpoint?.workload ?? target.workload),
      grpc ? 'grpc' : 'http',
      // A client that left before there was a response: Envoy's 0.
      error?.code === 'CLIENT_GONE' ? '0' : String(status),
      grpc ? grpcLabel(grpcStatus) : '',
      flag,
    ];
    const overflowed = series.overflowed;
    const slots: RequestSlots = {
      count: series.slot(metrics.requests, labels),
      duration: histogramSlots(series, metrics.duration, labels),
      requestBytes: histogramSlots(series, metrics.requestBytes, labels),
      responseBytes: histogramSlots(series, metrics.responseBytes, labels),
    };
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

  #armFlush(): void {
    this.#options.clock.after(FLUSH_MS, () => {
      this.flush();
      this.#armFlush();
    });
  }

  #armExpiry(): void {
    this.#options.clock.after(PERIOD_MS, () => {
      const held = new Set([...this.#tcp].flatMap(({ slots }) => slots));
      this.#options.series.expire(KEEP_PERIODS, (slot) => held.has(slot));
      this.#requests.clear();
      this.#armExpiry();
    });
  }
}

/** Who asked, and for what, as people name them. */
function endsOf({ caller, target, local }: Connection): [source: string, destination: string] {
  const { workload, principal, address } = caller;
  const source = workload ? `${workload.namespace}/${workload.name}` : principal || formatSocketAddress(address);
  const pod = target.workload && `${target.workload.namespace}/${target.workload.name}`;
  return [source, target.service?.hostname ?? pod ?? formatSocketAddress(local)];
}

interface HistogramSlots {
  readonly bounds: readonly number[];
  /** One for each bound, and +Inf. */
  readonly buckets: readonly number[];
  readonly sum: number;
  readonly count: number;
}

interface RequestSlots {
  readonly count: number;
  readonly duration: HistogramSlots;
  readonly requestBytes: HistogramSlots;
  readonly responseBytes: HistogramSlots;
}

function histogramSlots(series: SeriesWriter, family: MetricFamily, labels: readonly string[]): HistogramSlots {
  const { bucket, sum, count } = histogramParts(family);
  const bounds = family.buckets ?? [];
  return {
    bounds,
    buckets: [...bounds.map(String), '+Inf'].map((le) => series.slot(bucket, [...labels, le])),
    sum: series.slot(sum, labels),
    count: series.slot(count, labels),
  };
}

function observe(series: SeriesWriter, { bounds, buckets, sum, count }: HistogramSlots, value: number): void {
  for (let i = 0; i < buckets.length; i++) {
    const slot = buckets[i];
    if (slot !== undefined && value <= (bounds[i] ?? Infinity)) series.add(slot, 1);
  }
  series.add(sum, value);
  series.add(count, 1);
}

/** One connection that carries no HTTP. */
export class TcpRecord {
  error: ProxyError | undefined;
  readonly #options: TelemetryOptions;
  readonly #facts: { readonly connection: Connection; readonly endpoint: PickedEndpoint | undefined; readonly id: string };
  readonly #ended: (record: TcpRecord) => void;
  readonly #startedAt: number;
  readonly #slots: { readonly opened: number; readonly closed: number; readonly received: number; readonly sent: number };
  #relay: Pick<Relay, 'forward' | 'backward'> | undefined;
  #forward = 0;
  #backward = 0;

  constructor(
    options: TelemetryOptions,
    facts: { connection: Connection; endpoint: PickedEndpoint | undefined; id: string },
    ended: (record: TcpRecord) => void,
  ) {
    const { series, clock } = options;
    this.#options = options;
    this.#facts = facts;
    this.#ended = ended;
    this.#startedAt = clock.monotonic();
    const labels = this.#labels('-');
    this.#slots = {
      opened: series.slot(metrics.tcpOpened, labels),
      closed: series.slot(metrics.tcpClosed, labels),
      received: series.slot(metrics.tcpReceived, labels),
      sent: series.slot(metrics.tcpSent, labels),
    };
    series.add(this.#slots.opened, 1);
  }

  get slots(): number[] {
    return Object.values(this.#slots);
  }

  /** Client to server is `forward`. */
  running(relay: Pick<Relay, 'forward' | 'backward'>): void {
    this.#relay = relay;
  }

  flush(): void {
    if (!this.#relay) return;
    const { series } = this.#options;
    const { forward, backward } = this.#relay;
    series.add(this.#slots.received, forward - this.#forward);
    series.add(this.#slots.sent, backward - this.#backward);
    this.#forward = forward;
    this.#backward = backward;
  }

  /** Exactly once. */
  ended(error?: ProxyError): void {
    this.error = error;
    this.flush();
    const { series, access, clock } = this.#options;
    series.add(this.#slots.closed, 1);
    const level = error ? outcomes[error.code].level : 'info';
    access.write(level, 'connection complete', () => {
      const { connection, endpoint, id } = this.#facts;
      return [
        ...connectionFields(connection, endpoint),
        ['response_flags', error ? httpOutcome(error.code).flag : '-'],
        ['bytes_received', this.#forward],
        ['bytes_sent', this.#backward],
        ['duration', Math.round(clock.monotonic() - this.#startedAt)],
        ['error', error?.message],
        ['id', id],
        ['warren.code', error?.code],
        ['warren.policy', error?.policy],
      ];
    });
    this.#ended(this);
  }

  #labels(flag: string): string[] {
    const { connection, endpoint } = this.#facts;
    const { caller, target } = connection;
    return [...peerLabels(caller, target.service, endpoint?.workload ?? target.workload), 'tcp', flag];
  }
}

const UNKNOWN = 'unknown';
const orUnknown = (value: string | undefined): string => (value === undefined || value === '' ? UNKNOWN : value);

const GRPC_STATUS = /^(?:[0-9]|1[0-6])$/;
/** An application's words; a label has room for the known ones. */
const grpcLabel = (status: string | undefined): string => (status === undefined ? '' : GRPC_STATUS.test(status) ? status : 'other');

/** In the order of PEER_LABELS. @param to the pod that got it, or would have; undefined where none was chosen */
export function peerLabels(
  caller: Caller,
  service: Pick<Service, 'hostname' | 'namespace' | 'name'> | undefined,
  to: Workload | undefined,
): string[] {
  const { workload: from, baggage: said } = caller;
  const canonicalName = orUnknown(from?.canonicalName ?? said?.canonicalName);
  const canonicalRevision = orUnknown(from?.canonicalRevision ?? said?.canonicalRevision);
  return [
    'waypoint',
    orUnknown(from?.workloadName ?? said?.workloadName),
    canonicalName,
    canonicalRevision,
    orUnknown(from?.namespace ?? said?.namespace),
    orUnknown(caller.principal),
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
    caller.principal === '' ? UNKNOWN : 'mutual_tls',
  ];
}

/** Istio's JSON keys (istio: pilot/pkg/model/telemetry_logging.go), and behind them who it was. */
function requestLine(request: RequestContext, delivered: Delivered, durationMs: number): AccessField[] {
  const { received, head, error, connection, endpoint, entry } = request;
  const outcome = error && httpOutcome(error.code);
  const field = (name: string): string | undefined => fieldValue(received.fields, name);
  return [
    ['start_time', new Date(request.startedAt).toISOString(), 'bare'],
    ['route_name', entry?.rule.name ?? 'default'],
    ['method', received.method],
    ['path', received.path],
    ['protocol', `HTTP/${received.version}`],
    ['response_code', error?.code === 'CLIENT_GONE' ? 0 : delivered.status],
    ['response_flags', outcome?.flag ?? '-'],
    ['response_code_details', outcome?.details ?? 'via_upstream'],
    ['bytes_received', request.body.bytes],
    ['bytes_sent', delivered.bytes],
    ['duration', Math.round(durationMs)],
    ['x_forwarded_for', fieldValue(head.fields, 'x-forwarded-for')],
    ['user_agent', field('user-agent')],
    ['request_id', request.requestId],
    ['authority', received.authority],
    ...connectionFields(connection, endpoint),
    ['grpc_status', delivered.grpcStatus],
    ['attempts', request.attempts > 1 ? request.attempts : undefined],
    ['upstream_transport_failure_reason', error && outcome?.flag.startsWith('U') ? error.message : undefined],
    ['error', error?.message],
    ['id', request.traceId],
    ['warren.code', error?.code],
    ['warren.policy', error?.policy],
    ['warren.would_deny', request.wouldDeny.length > 0 ? request.wouldDeny.join(',') : undefined],
  ];
}

function connectionFields({ caller, target, local }: Connection, endpoint: PickedEndpoint | undefined): AccessField[] {
  const service = endpoint?.service;
  return [
    ['upstream_host', endpoint?.address && formatSocketAddress(endpoint.address), 'bare'],
    ['upstream_cluster', service && `inbound-vip|${target.port}|http|${service.hostname}`],
    ['downstream_local_address', formatSocketAddress(target.ip === undefined ? local : { ip: target.ip, port: target.port }), 'bare'],
    ['downstream_remote_address', formatSocketAddress(caller.address), 'bare'],
    ['src.identity', caller.principal === '' ? undefined : caller.principal],
    ['src.workload', caller.workload?.name ?? caller.baggage?.workloadName],
    ['src.namespace', caller.workload?.namespace ?? caller.baggage?.namespace],
    ['dst.service', service?.hostname ?? target.service?.hostname],
    ['dst.workload', endpoint?.workload.name],
    ['dst.namespace', endpoint?.workload.namespace ?? target.namespace],
    ['dst.identity', endpoint?.peers && formatSpiffeId(endpoint.workload)],
  ];
}
