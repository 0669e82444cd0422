/** What istiod-lite counts, under Istio's names, so that existing dashboards keep working. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { VERSION } from '../common/base/version.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE } from './model/resources.ts';
import type { KindName } from './model/watched-kinds.ts';

export interface MetricRow {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly labels: readonly string[];
  readonly help: string;
}

const row = (name: string, type: MetricRow['type'], help: string, ...labels: string[]): MetricRow => ({ name, type, labels, help });

export const metricRows = {
  xds: row('pilot_xds', 'gauge', 'Proxies connected over xDS.', 'version'),
  xdsPushes: row('pilot_xds_pushes', 'counter', 'Responses sent to proxies.', 'type'),
  xdsRejects: row('pilot_total_xds_rejects', 'counter', 'Responses that a proxy rejected.', 'type'),
  xdsExpiredNonce: row('pilot_xds_expired_nonce', 'counter', 'Acknowledgements of a response that is not the last one.', 'type'),
  xdsWriteTimeout: row('pilot_xds_write_timeout', 'counter', 'Proxies let go because they took nothing for too long.'),
  xdsConfigSize: row('pilot_xds_config_size_bytes', 'histogram', 'Bytes of each response, by type URL.', 'type'),
  xdsRefused: row('warren_xds_streams_refused_total', 'counter', 'Streams refused or ended by istiod, by gRPC status.', 'code'),
  convergence: row('pilot_proxy_convergence_time', 'histogram', 'Seconds between a change and the moment when a proxy has been sent it.'),
  sendTime: row('pilot_xds_send_time', 'histogram', 'Seconds until a response has left.'),
  pushTime: row('pilot_xds_push_time', 'histogram', 'Seconds that it takes to make what all proxies are sent of a type.', 'type'),
  queueTime: row('pilot_proxy_queue_time', 'histogram', 'Seconds between a change and the moment when its response to a proxy is begun.'),
  debounceTime: row('pilot_debounce_time', 'histogram', 'Seconds that the first change of a push has waited for others.'),
  internalErrors: row('pilot_total_xds_internal_errors', 'counter', 'Streams that ended by a fault of istiod.'),
  syncErrors: row('controller_sync_errors_total', 'counter', 'Sets of changes that could not be published at the first attempt.'),
  inboundUpdates: row('pilot_inbound_updates', 'counter', 'Changes received, by what they are about.', 'type'),
  services: row('pilot_services', 'gauge', 'Services that are known.'),
  pushTriggers: row('pilot_push_triggers', 'counter', 'Pushes by what caused them.', 'type'),
  resources: row('warren_xds_resources', 'gauge', 'Resources that are served.', 'type'),
  k8sEvents: row('pilot_k8s_reg_events', 'counter', "Changes seen of Kubernetes' own objects.", 'type', 'event'),
  configEvents: row('pilot_k8s_cfg_events', 'counter', 'Changes seen of configuration objects.', 'type', 'event'),
  csrs: row('citadel_server_csr_count', 'counter', 'Certificate requests received.'),
  issued: row('citadel_server_success_cert_issuance_count', 'counter', 'Certificates issued.'),
  authenticationFailures: row(
    'citadel_server_authentication_failure_count',
    'counter',
    'Certificate requests whose caller could not be authenticated, or may not have the identity.',
  ),
  csrParsingErrors: row('citadel_server_csr_parsing_err_count', 'counter', 'Certificate requests that could not be read.'),
  csrSignErrors: row('citadel_server_csr_sign_err_count', 'counter', 'Certificate requests that could not be signed.'),
  rootExpiryTimestamp: row('citadel_server_root_cert_expiry_timestamp', 'gauge', 'When the root expires, in seconds since 1970.'),
  rootExpirySeconds: row('citadel_server_root_cert_expiry_seconds', 'gauge', 'Seconds until the root expires.'),
  chainExpiryTimestamp: row(
    'citadel_server_cert_chain_expiry_timestamp',
    'gauge',
    'When the signing certificate expires, in seconds since 1970.',
  ),
  chainExpirySeconds: row('citadel_server_cert_chain_expiry_seconds', 'gauge', 'Seconds until the signing certificate expires.'),
  caReloads: row('warren_ca_reloads_total', 'counter', "Changes of the operator's CA files, by whether they could be used.", 'outcome'),
  tokenReviews: row('warren_token_reviews_total', 'counter', 'Tokens that the API server was asked about, by outcome.', 'outcome'),
  keyFetches: row('pilot_jwks_resolver_network_fetch_success_total', 'counter', "Key sets for end users' tokens that were fetched."),
  keyFailures: row('pilot_jwks_resolver_network_fetch_fail_total', 'counter', "Key sets for end users' tokens that could not be fetched."),
  statusWrites: row('warren_status_writes_total', 'counter', "Conditions written to users' objects, by outcome.", 'outcome'),
  reviews: row('warren_admission_reviews_total', 'counter', 'Objects that the API server asked about, by what was answered.', 'outcome'),
  problems: row(
    'warren_object_problems',
    'gauge',
    'What is wrong with objects, by object; beyond 1000 objects they are `other`.',
    'object',
  ),
  writer: row('warren_writer', 'gauge', '1 where this replica holds the lease and writes to the cluster.'),
  build: row('istio_build', 'gauge', 'Always 1; says what runs.', 'component', 'tag'),
  info: row('pilot_info', 'gauge', 'Always 1; says what runs.', 'version'),
  uptime: row('istiod_uptime_seconds', 'gauge', 'Seconds since the start.'),
  startup: row('startup_duration_seconds', 'gauge', 'Seconds from the start until ready.'),
} as const satisfies Record<string, MetricRow>;

const CONVERGENCE_SECONDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 3, 5, 10, 20, 30];
const SIZE_BYTES = [1, 10_000, 1_000_000, 4_000_000, 10_000_000, 40_000_000];

export type Metrics = ReturnType<typeof createMetrics>;

/** One process's metrics. `processMetrics` adds what Node says about itself. */
export function createMetrics({ processMetrics }: { processMetrics: boolean }) {
  const registry = new Registry();
  if (processMetrics) collectDefaultMetrics({ register: registry });
  const options = ({ name, help, labels }: MetricRow) => ({ name, help, labelNames: labels, registers: [registry] });
  const counter = (of: MetricRow) => new Counter<string>(options(of));
  const gauge = (of: MetricRow) => new Gauge<string>(options(of));
  const metrics = {
    registry,
    xds: gauge(metricRows.xds),
    xdsPushes: counter(metricRows.xdsPushes),
    xdsRejects: counter(metricRows.xdsRejects),
    xdsExpiredNonce: counter(metricRows.xdsExpiredNonce),
    xdsWriteTimeout: counter(metricRows.xdsWriteTimeout),
    xdsConfigSize: new Histogram<string>({ ...options(metricRows.xdsConfigSize), buckets: SIZE_BYTES }),
    xdsRefused: counter(metricRows.xdsRefused),
    convergence: new Histogram<string>({ ...options(metricRows.convergence), buckets: CONVERGENCE_SECONDS }),
    sendTime: new Histogram<string>({ ...options(metricRows.sendTime), buckets: CONVERGENCE_SECONDS }),
    pushTime: new Histogram<string>({ ...options(metricRows.pushTime), buckets: CONVERGENCE_SECONDS }),
    queueTime: new Histogram<string>({ ...options(metricRows.queueTime), buckets: CONVERGENCE_SECONDS }),
    debounceTime: new Histogram<string>({ ...options(metricRows.debounceTime), buckets: CONVERGENCE_SECONDS }),
    internalErrors: counter(metricRows.internalErrors),
    syncErrors: counter(metricRows.syncErrors),
    inboundUpdates: counter(metricRows.inboundUpdates),
    services: gauge(metricRows.services),
    pushTriggers: counter(metricRows.pushTriggers),
    resources: gauge(metricRows.resources),
    k8sEvents: counter(metricRows.k8sEvents),
    configEvents: counter(metricRows.configEvents),
    csrs: counter(metricRows.csrs),
    issued: counter(metricRows.issued),
    authenticationFailures: counter(metricRows.authenticationFailures),
    csrParsingErrors: counter(metricRows.csrParsingErrors),
    csrSignErrors: counter(metricRows.csrSignErrors),
    rootExpiryTimestamp: gauge(metricRows.rootExpiryTimestamp),
    rootExpirySeconds: gauge(metricRows.rootExpirySeconds),
    chainExpiryTimestamp: gauge(metricRows.chainExpiryTimestamp),
    chainExpirySeconds: gauge(metricRows.chainExpirySeconds),
    caReloads: counter(metricRows.caReloads),
    tokenReviews: counter(metricRows.tokenReviews),
    keyFetches: counter(metricRows.keyFetches),
    keyFailures: counter(metricRows.keyFailures),
    statusWrites: counter(metricRows.statusWrites),
    reviews: counter(metricRows.reviews),
    problems: gauge(metricRows.problems),
    writer: gauge(metricRows.writer),
    uptime: gauge(metricRows.uptime),
    startup: gauge(metricRows.startup),
  };
  gauge(metricRows.build).set({ component: 'pilot', tag: VERSION }, 1);
  gauge(metricRows.info).set({ version: VERSION }, 1);
  return metrics;
}

/** Counts a change under the name and the labels that Istio has for it. */
export function countEvent(metrics: Metrics, kind: KindName, change: 'added' | 'modified' | 'deleted'): void {
  const { k8sEvents, configEvents, inboundUpdates, services } = metrics;
  if (kind === 'Service' && change !== 'modified') services.inc(change === 'added' ? 1 : -1);
  inboundUpdates.inc({ type: INBOUND_LABELS[kind] ?? 'config' });
  const event = EVENT_LABELS[change];
  const registered = REGISTRY_LABELS[kind];
  if (registered) k8sEvents.inc({ type: registered, event });
  else configEvents.inc({ type: kind, event });
}

// Whoever may write objects may write many.
const MOST_OBJECTS = 1000;

/** How much is wrong with which object, as it is now. */
export function setProblems({ problems }: Metrics, found: Iterable<{ readonly object: string }>): void {
  problems.reset();
  const named = new Set<string>();
  for (const { object } of found) {
    if (named.size < MOST_OBJECTS) named.add(object);
    problems.inc({ object: named.has(object) ? object : 'other' });
  }
}

const EVENT_LABELS = { added: 'add', modified: 'update', deleted: 'delete' } as const;
/** Both in milliseconds since 1970; nothing is set where somebody else's CA signs. */
export function setExpiry(
  metrics: Metrics,
  expiry: { readonly rootNotAfter: number; readonly signerNotAfter: number } | undefined,
  now: number,
): void {
  if (!expiry) return;
  const { rootNotAfter, signerNotAfter } = expiry;
  metrics.rootExpiryTimestamp.set(rootNotAfter / 1000);
  metrics.rootExpirySeconds.set((rootNotAfter - now) / 1000);
  metrics.chainExpiryTimestamp.set(signerNotAfter / 1000);
  metrics.chainExpirySeconds.set((signerNotAfter - now) / 1000);
}

const INBOUND_LABELS: Readonly<Partial<Record<KindName, string>>> = { Pod: 'eds', EndpointSlice: 'eds', Service: 'svc' };
const REGISTRY_LABELS: Readonly<Partial<Record<KindName, string>>> = {
  Namespace: 'Namespaces',
  Node: 'Nodes',
  Pod: 'Pods',
  Service: 'Services',
  EndpointSlice: 'EndpointSlice',
  Gateway: 'Gateways',
};

/** The short names that `type` labels have. */
export const typeLabel = (typeUrl: string): string => TYPE_LABELS[typeUrl] ?? 'other';

const TYPE_LABELS: Readonly<Record<string, string>> = { [ADDRESS_TYPE]: 'wds', [AUTHORIZATION_TYPE]: 'wads' };
