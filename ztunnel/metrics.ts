/**
 * Every metric that ztunnel exposes, one row each: names, labels and their order are Istio's (Istio's ztunnel, src/metrics), what is our own
 * starts with `warren_`. docs/metrics.md is generated from this table.
 */
import type { MetricFamily } from '../common/server/metric-family.ts';
import { PEER_LABELS } from '../common/server/peer-labels.ts';

/** Labels of a connection, in the order in which Istio writes them; the last four only where an end is known. */
export const TRAFFIC_LABELS = [
  ...PEER_LABELS,
  'request_protocol',
  'response_flags',
  'connection_security_policy',
  'source_region',
  'source_zone',
  'destination_region',
  'destination_zone',
] as const;

const ON_DEMAND_LABELS = [
  'source_workload',
  'source_canonical_service',
  'source_canonical_revision',
  'source_workload_namespace',
  'source_principal',
  'source_app',
  'source_version',
  'source_cluster',
  'hostname',
];

/** Who and what a connection is between, and no more: a histogram has many series. */
export const EDGE_LABELS = [
  'source_workload',
  'source_workload_namespace',
  'destination_service',
  'destination_workload',
  'destination_workload_namespace',
] as const;

const DNS_LABELS = ['request_query_type', 'request_protocol', 'source_canonical_service', 'source_canonical_revision'];

type Options = Partial<Pick<MetricFamily, 'stable' | 'hideZero' | 'expires' | 'unit'>>;

const counter = (name: string, labels: readonly string[], help: string, options: Options = {}): MetricFamily => ({
  name,
  type: 'counter',
  labels,
  help,
  stable: false,
  ...options,
});

const gauge = (name: string, labels: readonly string[], help: string, options: Options = {}): MetricFamily => ({
  name,
  type: 'gauge',
  labels,
  help,
  stable: false,
  ...options,
});

const histogram = (
  name: string,
  labels: readonly string[],
  buckets: readonly number[],
  help: string,
  options: Options = {},
): MetricFamily => ({
  name,
  type: 'histogram',
  labels,
  buckets,
  help,
  stable: false,
  ...options,
});

const stable = { stable: true };

export const metrics = {
  build: gauge('istio_build', ['component', 'tag'], 'Component and version of this process', stable),
  opened: counter('istio_tcp_connections_opened_total', TRAFFIC_LABELS, 'TCP connections opened', { stable: true, expires: true }),
  closed: counter('istio_tcp_connections_closed_total', TRAFFIC_LABELS, 'TCP connections closed', {
    stable: true,
    expires: true,
    hideZero: true,
  }),
  received: counter('istio_tcp_received_bytes_total', TRAFFIC_LABELS, 'Bytes that went from client to server', {
    stable: true,
    expires: true,
  }),
  sent: counter('istio_tcp_sent_bytes_total', TRAFFIC_LABELS, 'Bytes that went from server to client', { stable: true, expires: true }),
  failed: counter('istio_tcp_connections_failed_total', TRAFFIC_LABELS, 'TCP connections that failed', { expires: true }),
  connectDuration: histogram(
    'warren_tcp_connect_duration_milliseconds',
    EDGE_LABELS,
    [1, 2, 5, 10, 25, 100, 500, 2500],
    "Time from a pod's connection to the other side's answer: tunnel, policy there, and the application's accept",
    { expires: true },
  ),
  socketsOpen: gauge('istio_tcp_sockets_open', ['reporter'], 'Application connections that are open'),
  onDemandDns: counter('istio_on_demand_dns_total', ON_DEMAND_LABELS, 'Look-ups of workloads that are known by hostname only', {
    expires: true,
  }),
  crlRejections: counter('istio_crl_policy_rejections_total', ['reporter'], 'Peers refused or cut off because a certificate is revoked'),
  crlUntracked: counter(
    'istio_crl_untracked_connections_total',
    ['reporter'],
    'Connections whose certificates could not be read, and that a revocation does not reach',
  ),
  dnsRequests: counter('istio_dns_requests_total', DNS_LABELS, 'DNS queries of pods'),
  dnsUpstream: counter('istio_dns_upstream_requests_total', DNS_LABELS, 'DNS queries that went to the nameservers'),
  dnsFailures: counter('istio_dns_upstream_failures_total', DNS_LABELS, 'DNS queries that no nameserver answered'),
  dnsDuration: histogram(
    'istio_dns_upstream_request_duration_seconds',
    DNS_LABELS,
    [0.0005, 0.001, 0.01, 0.1, 1, 5],
    'Time that nameservers took to answer',
  ),
  xdsTerminations: counter('istio_xds_connection_terminations_total', ['reason'], 'Ends of the connection to the control plane'),
  xdsMessages: counter('istio_xds_message_total', ['url'], 'Messages from the control plane'),
  xdsBytes: counter('istio_xds_message_bytes_total', ['url'], 'Bytes of messages from the control plane', { unit: 'bytes' }),
  activeProxies: gauge('workload_manager_active_proxy_count', [], 'Pods that are served'),
  pendingProxies: gauge('workload_manager_pending_proxy_count', [], 'Pods whose listeners could not be opened yet'),
  proxiesStarted: counter('workload_manager_proxies_started_total', [], 'Pods that began to be served'),
  proxiesStopped: counter('workload_manager_proxies_stopped_total', [], 'Pods that ceased to be served'),
  openFds: gauge('process_open_fds', [], 'Descriptors that are open', stable),
  maxFds: gauge('process_max_fds', [], 'Descriptors that may be open', stable),
  residentMemory: gauge('process_resident_memory_bytes', [], 'Resident memory', stable),
  cpuSeconds: counter('process_cpu_seconds_total', [], 'Processor time of user and system', stable),
  startTime: gauge('process_start_time_seconds', [], 'When this process started, in seconds since 1970', stable),
  refusals: counter('warren_refusals_total', ['code', 'policy'], 'Connections refused or failed, by error code and deciding policy'),
  waypointPassedBy: counter(
    'warren_waypoint_passed_by_total',
    ['namespace', 'service'],
    "Connections to a pod's own address that passed its service's waypoint by",
    { hideZero: true, expires: true },
  ),
  workersReplaced: counter('warren_workers_replaced_total', [], 'Data workers that ended or hung and were replaced'),
  workers: gauge('warren_workers', [], 'Data workers that are serving'),
  spareWorkers: gauge('warren_spare_workers', [], 'Data workers that are ready to take the place of one that is lost'),
  // Names of the runtime that Istio's ztunnel stands on, with what ours has in their place: dashboards ask for them.
  runtimeWorkers: gauge('tokio_num_workers', [], 'Data workers', stable),
  runtimeQueue: gauge('tokio_global_queue_depth', [], 'Work that waits for any worker: always 0, each has its own', stable),
  runtimeTasks: gauge('tokio_num_alive_tasks', [], 'Open connections of all data workers', stable),
  runtimeBusy: counter('tokio_worker_total_busy_duration_seconds_total', ['worker'], 'Time that a data worker was busy', stable),
  runtimeParks: counter('tokio_worker_park_count_total', ['worker'], 'Times that a data worker waited for something to do', stable),
  runtimeParkUnparks: counter(
    'tokio_worker_park_unpark_count_total',
    ['worker'],
    'Times that a data worker began to wait or ceased to',
    stable,
  ),
  workerHeap: gauge('warren_worker_heap_bytes', ['worker'], 'Heap that a data worker uses, garbage that has not been collected included'),
  seriesOverflow: counter('warren_series_overflow_total', [], 'Times that a metric series did not fit and went to one named other', {
    hideZero: true,
  }),
  journalBytes: gauge('warren_decision_journal_bytes', [], 'Memory that the decision journal takes, roughly'),
  journalDropped: counter('warren_decision_journal_dropped_total', [], 'Entries of the decision journal let go for want of room', {
    hideZero: true,
  }),
  logLinesDropped: counter('warren_log_lines_dropped_total', [], 'Log lines lost because the reader was too slow', { hideZero: true }),
  limited: counter('warren_limited_total', ['limit'], 'Connections and tunnels refused because a pod or the process had reached a limit', {
    hideZero: true,
  }),
  podConnections: gauge('warren_pod_connections', ['namespace', 'pod'], 'Open connections of a pod', { hideZero: true, expires: true }),
  podWaiting: gauge('warren_pod_waiting_bytes', ['namespace', 'pod'], 'Bytes of a pod that wait for slow readers', {
    hideZero: true,
    expires: true,
  }),
  memoryBudget: gauge('warren_memory_budget_bytes', [], 'Resident memory beyond which new connections of the largest consumer are refused'),
  memoryShedding: gauge('warren_memory_shedding', [], '1 while new connections of the largest consumer are refused'),
  keptState: gauge(
    'warren_kept_state',
    [],
    '1 while decisions are made from state that an earlier process kept, until the control plane answers',
  ),
  controlPlaneHeard: gauge(
    'warren_control_plane_heard_timestamp_seconds',
    [],
    'When the control plane was last heard of, in seconds since 1970',
    { hideZero: true },
  ),
  keptCertificates: gauge('warren_kept_certificates', [], 'Identities whose certificate outlives a restart'),
  certificates: gauge('warren_certificates', ['state'], 'Identities by the state of their certificate'),
  certificateExpiry: gauge(
    'warren_certificate_soonest_expiry_timestamp_seconds',
    [],
    'When the first certificate expires, in seconds since 1970',
    {
      hideZero: true,
    },
  ),
} as const satisfies Record<string, MetricFamily>;

export const metricFamilies: readonly MetricFamily[] = Object.values(metrics);
