/**
 * Every metric that a waypoint exposes, one row each: names, labels and buckets are those that Istio's dashboards expect of its waypoints
 * (istio: reporter="waypoint"); what is our own starts with `warren_`. docs/metrics.md is generated from this table.
 */
import type { MetricFamily } from '../common/server/metric-family.ts';
import { PEER_LABELS } from '../common/server/peer-labels.ts';

/** Who and what a request or connection was between. */
export const CONNECTION_LABELS = [...PEER_LABELS, 'connection_security_policy'] as const;

export const REQUEST_LABELS = [
  ...CONNECTION_LABELS,
  'request_protocol',
  'response_code',
  'grpc_response_status',
  'response_flags',
] as const;
export const TCP_LABELS = [...CONNECTION_LABELS, 'request_protocol', 'response_flags'] as const;

/** Envoy's: what quantiles in Istio's dashboards are made of. Milliseconds, and bytes. */
const BUCKETS = [
  0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 600_000, 1_800_000, 3_600_000,
] as const;

type Options = Partial<Pick<MetricFamily, 'stable' | 'hideZero' | 'expires'>>;

const row =
  (type: MetricFamily['type']) =>
  (name: string, labels: readonly string[], help: string, options: Options = {}): MetricFamily => ({
    name,
    type,
    labels,
    help,
    stable: false,
    ...(type === 'histogram' ? { buckets: BUCKETS } : {}),
    ...options,
  });
const counter = row('counter');
const gauge = row('gauge');
const histogram = row('histogram');

const stable = { stable: true };
/** Of peers: they come and go. */
const traffic = { stable: true, expires: true };

export const metrics = {
  build: gauge('istio_build', ['component', 'tag'], 'Component and version of this process', stable),
  requests: counter('istio_requests_total', REQUEST_LABELS, 'Requests', traffic),
  duration: histogram('istio_request_duration_milliseconds', REQUEST_LABELS, 'Time from a request to the end of its response', traffic),
  requestBytes: histogram('istio_request_bytes', REQUEST_LABELS, "Bytes of requests' bodies", traffic),
  responseBytes: histogram('istio_response_bytes', REQUEST_LABELS, "Bytes of responses' bodies", traffic),
  requestMessages: counter('istio_request_messages_total', REQUEST_LABELS, 'gRPC messages from clients', traffic),
  responseMessages: counter('istio_response_messages_total', REQUEST_LABELS, 'gRPC messages from servers', traffic),
  tcpOpened: counter('istio_tcp_connections_opened_total', TCP_LABELS, 'TCP connections opened', traffic),
  tcpClosed: counter('istio_tcp_connections_closed_total', TCP_LABELS, 'TCP connections closed', traffic),
  tcpReceived: counter('istio_tcp_received_bytes_total', TCP_LABELS, 'Bytes that went from client to server', traffic),
  tcpSent: counter('istio_tcp_sent_bytes_total', TCP_LABELS, 'Bytes that went from server to client', traffic),
  xdsTerminations: counter('istio_xds_connection_terminations_total', ['reason'], 'Ends of the connection to the control plane'),
  xdsMessages: counter('istio_xds_message_total', ['url'], 'Messages from the control plane'),
  xdsBytes: counter('istio_xds_message_bytes_total', ['url'], 'Bytes of messages from the control plane'),
  openFds: gauge('process_open_fds', [], 'Descriptors that are open', stable),
  maxFds: gauge('process_max_fds', [], 'Descriptors that may be open', stable),
  residentMemory: gauge('process_resident_memory_bytes', [], 'Resident memory', stable),
  cpuSeconds: counter('process_cpu_seconds_total', [], 'Processor time of user and system', stable),
  startTime: gauge('process_start_time_seconds', [], 'When this process started, in seconds since 1970', stable),
  spansExported: counter('warren_spans_exported_total', ['provider'], 'Spans that their receiver has taken'),
  spansDropped: counter(
    'warren_spans_dropped_total',
    ['provider', 'reason'],
    'Spans lost: the queue was full, the receiver did not answer well or in time, or it rejected them',
  ),
  refusals: counter(
    'warren_refusals_total',
    ['code', 'policy'],
    'Requests and connections refused or failed, by error code and deciding policy',
  ),
  attempts: counter('warren_request_retries_total', [], 'Attempts at requests beside the first one'),
  checks: counter(
    'warren_authorizer_checks_total',
    ['policy', 'provider', 'outcome'],
    'Questions to the authorization servers of CUSTOM policies: allowed, denied, or failed',
  ),
  limited: counter(
    'warren_rate_limit_requests_total',
    ['policy', 'limit', 'outcome'],
    'Requests that a limit of a RateLimitPolicy counted: allowed, limited (429), or would_limit in dry-run',
  ),
  limitBucketsShared: counter(
    'warren_rate_limit_buckets_shared_total',
    [],
    'Times that a request was counted in a shared bucket because WARREN_RATE_LIMIT_BUCKETS buckets were in use',
    { hideZero: true },
  ),
  mirrored: counter('warren_mirrored_requests_total', ['outcome'], 'Copies of requests, sent or left out because a limit was reached'),
  ejections: counter('warren_outlier_ejections_total', ['cluster'], 'Endpoints put aside for failing, by service and port'),
  ejected: gauge('warren_outlier_ejected_endpoints', ['cluster'], 'Endpoints that are put aside just now, added up over the workers'),
  requestsActive: gauge('warren_requests_active', [], 'Requests under way'),
  connectionsActive: gauge('warren_connections_active', [], 'Connections from callers that are open'),
  connectionsShed: counter(
    'warren_connections_shed_total',
    [],
    'HTTP connections whose clients were asked to connect again because replicas of this waypoint were added',
    { hideZero: true },
  ),
  upstreamConnections: gauge('warren_upstream_connections', [], 'HTTP connections to endpoints that are open'),
  routes: gauge('warren_routes', [], 'Services that routes are attached to'),
  policies: gauge('warren_http_policies', [], 'L7 authorization policies in force'),
  rejected: counter('warren_resources_rejected_total', ['url'], 'Resources of the control plane that were not taken'),
  workersReplaced: counter('warren_workers_replaced_total', [], 'Data workers that ended or hung and were replaced'),
  workers: gauge('warren_workers', [], 'Data workers that are serving'),
  seriesOverflow: counter('warren_series_overflow_total', [], 'Times that a metric series did not fit and went to one named other', {
    hideZero: true,
  }),
  journalBytes: gauge('warren_decision_journal_bytes', [], 'Memory that the decision journal takes, roughly'),
  journalDropped: counter('warren_decision_journal_dropped_total', [], 'Entries of the decision journal let go for want of room', {
    hideZero: true,
  }),
  logLinesDropped: counter('warren_log_lines_dropped_total', [], 'Log lines lost because the reader was too slow', { hideZero: true }),
  certificateExpiry: gauge(
    'warren_certificate_soonest_expiry_timestamp_seconds',
    [],
    'When the certificate expires, in seconds since 1970',
    { hideZero: true },
  ),
} as const satisfies Record<string, MetricFamily>;

export const metricFamilies: readonly MetricFamily[] = Object.values(metrics);
