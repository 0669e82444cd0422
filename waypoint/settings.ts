/**
 * What a waypoint reads from its environment, in one pure function: names that Istio's proxies share keep their meaning, and what a Gateway's
 * Deployment sets (istiod-lite/gateway/render.ts) is all that a waypoint in a cluster needs.
 */
import { parsePort } from '../common/base/address.ts';
import {
  type ControlPlaneAddress,
  collect,
  controlPlaneAddress,
  type Environment,
  headerSettings,
  logDirectives,
  readMetadata,
  threads,
} from '../common/base/proxy-settings.ts';
import {
  count,
  duration,
  type Form,
  flag,
  oneOf,
  optionalText,
  portNumber,
  readSettings,
  type Settings,
  SettingsError,
  type SettingsTable,
  setting,
  text,
} from '../common/base/settings.ts';

/** A plaintext listener, and the service that stands behind it. */
export interface PlaintextListener {
  readonly port: number;
  readonly namespace: string;
  readonly hostname: string;
  readonly servicePort: number;
}

const plaintextListeners: Form<readonly PlaintextListener[]> = {
  name: 'PORT=NAMESPACE/HOSTNAME:PORT, comma-separated',
  parse(value) {
    return value
      .split(',')
      .filter((piece) => piece.trim() !== '')
      .map((piece) => {
        const [, port = '', namespace, hostname, servicePort = ''] = /^\s*(\d+)=([^/]+)\/([^:]+):(\d+)\s*$/.exec(piece) ?? [];
        const from = parsePort(port);
        const to = parsePort(servicePort);
        if (from === undefined || to === undefined || !namespace || !hostname) throw new Error('expected PORT=NAMESPACE/HOSTNAME:PORT');
        return { port: from, namespace, hostname, servicePort: to };
      });
  },
};

export const settingsTable = {
  xdsAddress: setting(
    'XDS_ADDRESS',
    optionalText,
    undefined,
    'control plane: https://host:port; empty for none',
    'istiod.istio-system.svc:15012',
  ),
  xdsRoot: setting(
    'XDS_ROOT_CA',
    text,
    './var/run/secrets/istio/root-cert.pem',
    "roots for the control plane's certificate: a file, PEM text, or SYSTEM",
  ),
  xdsHostname: setting('ALT_XDS_HOSTNAME', optionalText, undefined, "name in the control plane's certificate, where it is not the host"),
  caAddress: setting(
    'CA_ADDRESS',
    optionalText,
    undefined,
    'certificate authority: https://host:port; empty for none',
    'istiod.istio-system.svc:15012',
  ),
  caRoot: setting(
    'CA_ROOT_CA',
    text,
    './var/run/secrets/istio/root-cert.pem',
    "roots for the CA's certificate: a file, PEM text, or SYSTEM",
  ),
  caHostname: setting('ALT_CA_HOSTNAME', optionalText, undefined, "name in the CA's certificate, where it is not the host"),
  authToken: setting(
    'AUTH_TOKEN',
    optionalText,
    undefined,
    'file of the token for both, or the token',
    './var/run/secrets/tokens/istio-token',
  ),
  certDir: setting('CERT_DIR', optionalText, undefined, 'certificate from files instead of a CA: cert-chain.pem, key.pem, root-cert.pem'),
  localXdsPath: setting('LOCAL_XDS_PATH', optionalText, undefined, 'workloads and services from a file instead of a control plane'),
  localRoutesPath: setting('LOCAL_ROUTES_PATH', optionalText, undefined, 'routes and L7 policies from a file, beside LOCAL_XDS_PATH'),
  clusterId: setting('ISTIO_META_CLUSTER_ID', text, 'Kubernetes', 'name of the cluster'),
  network: setting('NETWORK', text, '', 'network that this waypoint is in'),
  trustDomain: setting('TRUST_DOMAIN', text, 'cluster.local', 'trust domain of this mesh: callers of another one are refused'),
  gatewayName: setting('GATEWAY_NAME', text, '', 'name of the Gateway that this is a replica of'),
  serviceName: setting('WAYPOINT_SERVICE', optionalText, undefined, "name of the waypoint's Service", 'GATEWAY_NAME'),
  podName: setting('POD_NAME', text, '', "this pod's name"),
  podNamespace: setting('POD_NAMESPACE', text, 'default', "this pod's namespace"),
  nodeName: setting('NODE_NAME', text, '', 'node that this pod is on'),
  instanceIp: setting('INSTANCE_IP', text, '', "this pod's address"),
  serviceAccount: setting('SERVICE_ACCOUNT', text, 'default', "this pod's service account: the waypoint's identity"),
  secretTtlMs: setting('SECRET_TTL', duration, 86_400_000, 'life asked for certificates', '24h'),
  workers: setting('WARREN_WORKER_THREADS', threads, 2, 'data workers: a number, a percentage of the processors, or 0 for all'),
  workerHeapMb: setting('WARREN_WORKER_HEAP_MB', count, 512, 'heap of one data worker in MiB; a worker that needs more is replaced'),
  maxSeries: setting('WARREN_MAX_SERIES', count, 100_000, 'metric series of one data worker; more go to one named "other"'),
  balancing: setting('WARREN_LOAD_BALANCING', oneOf('round_robin', 'least_request'), 'round_robin', 'how requests choose an endpoint'),
  sniffTimeoutMs: setting(
    'PROTOCOL_DETECTION_TIMEOUT',
    duration,
    200,
    'how long a client of a port of undeclared protocol may stay silent before the server is taken to speak first',
    '200ms',
  ),
  streamWindow: setting('HTTP2_STREAM_WINDOW_SIZE', count, 4 << 20, 'receive window of a tunnel, bytes'),
  connectionWindow: setting('HTTP2_CONNECTION_WINDOW_SIZE', count, 16 << 20, 'receive window of an HBONE connection, bytes'),
  frameSize: setting('HTTP2_FRAME_SIZE', count, 1 << 20, 'largest HTTP/2 frame accepted in tunnels, bytes'),
  poolMaxStreams: setting('POOL_MAX_STREAMS_PER_CONNECTION', count, 100, 'tunnels on one HBONE connection'),
  poolUnusedMs: setting('POOL_UNUSED_RELEASE_TIMEOUT', duration, 300_000, 'how long an unused HBONE connection is kept', '5m'),
  rateLimitBuckets: setting(
    'WARREN_RATE_LIMIT_BUCKETS',
    count,
    65_536,
    'token buckets of rate limits that are not full at one time (24 bytes each); requests for which there is none share one for each limit',
  ),
  maxConnections: setting('WARREN_MAX_CONNECTIONS', count, 20_000, 'connections from callers that one data worker has open'),
  idleTimeoutMs: setting('WARREN_IDLE_TIMEOUT', duration, 3_600_000, 'how long an HTTP connection without a request is kept', '1h'),
  // Its grace period is 30 s: connections are closed before the kubelet kills us.
  drainDeadlineMs: setting(
    'CONNECTION_TERMINATION_DEADLINE',
    duration,
    20_000,
    'time given to open requests and connections on shutdown',
    '20s',
  ),
  minimumDrainMs: setting(
    'MINIMUM_DRAIN_DURATION',
    duration,
    3000,
    'how long new connections are still taken on shutdown, until everybody has heard of it',
    '3s',
  ),
  compliance: setting('COMPLIANCE_POLICY', oneOf('', 'pqc'), '', 'pqc: only post-quantum key exchange'),
  ipv6: setting('IPV6_ENABLED', flag, true, 'listen on IPv6 as well'),
  hbonePort: setting('WARREN_HBONE_PORT', portNumber, 15008, 'port for tunnels'),
  adminPort: setting('WARREN_ADMIN_PORT', portNumber, 15000, 'admin endpoint on loopback'),
  statsPort: setting('WARREN_STATS_PORT', portNumber, 15020, 'metrics'),
  readinessPort: setting('WARREN_READINESS_PORT', portNumber, 15021, 'readiness'),
  plaintextListen: setting(
    'PLAINTEXT_LISTEN',
    plaintextListeners,
    [],
    'ports without TLS, and the service behind each: a plain reverse proxy, for benches and tests',
    'none',
  ),
  log: setting('RUST_LOG', logDirectives, { level: 'info', scopes: {} }, 'log level, or level,scope=level (scope: access)', 'info'),
  decisionJournal: setting(
    'WARREN_DECISION_JOURNAL',
    flag,
    true,
    'keep what was decided lately, for meshctl explain ID, rehearse and policy suggest; no payloads',
  ),
  decisionJournalBytes: setting('WARREN_DECISION_JOURNAL_BYTES', count, 8 << 20, 'memory of the decision journal, over all data workers'),
  logFormat: setting('LOG_FORMAT', oneOf('text', 'plain', 'json'), 'text', 'lines for people or for machines'),
  kubernetesHost: setting('KUBERNETES_SERVICE_HOST', optionalText, undefined, 'set by Kubernetes in every pod', 'none'),
} as const satisfies SettingsTable;

export interface WaypointSettings
  extends Omit<Settings<typeof settingsTable>, 'xdsAddress' | 'caAddress' | 'logFormat' | 'kubernetesHost'> {
  readonly logFormat: 'text' | 'json';
  readonly xds: ControlPlaneAddress | undefined;
  readonly ca: ControlPlaneAddress | undefined;
  /** `spiffe://…` of this waypoint. */
  readonly identity: string;
  /** Name of its Service within the cluster, without the cluster's domain. */
  readonly host: string;
  /** ISTIO_META_*, prefix stripped. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** @throws {SettingsError} naming everything that is wrong, not just the first */
export function readWaypointSettings(env: Environment): WaypointSettings {
  const problems: string[] = [];
  const metadata = collect(problems, () => readMetadata(env)) ?? {};
  const read = collect(problems, () => readSettings(settingsTable, env));
  if (read?.localRoutesPath !== undefined && read.localXdsPath === undefined) problems.push('LOCAL_ROUTES_PATH: needs LOCAL_XDS_PATH');
  if (read && read.connectionWindow < read.streamWindow)
    problems.push('HTTP2_CONNECTION_WINDOW_SIZE: smaller than HTTP2_STREAM_WINDOW_SIZE');
  if (read && (read.frameSize < 16_384 || read.frameSize > 0xffffff)) problems.push('HTTP2_FRAME_SIZE: expected 16384 to 16777215');
  const fallback = env.KUBERNETES_SERVICE_HOST === undefined ? 'localhost:15012' : 'istiod.istio-system.svc:15012';
  const address = (name: 'XDS_ADDRESS' | 'CA_ADDRESS', root: string, alternativeName: string | undefined, prefix: string) =>
    collect(problems, () =>
      controlPlaneAddress({ name, uri: env[name] ?? fallback, root, alternativeName, headers: headerSettings(env, prefix) }),
    );
  const xds = address('XDS_ADDRESS', read?.xdsRoot ?? '', read?.xdsHostname, 'XDS_HEADER_');
  const ca = address('CA_ADDRESS', read?.caRoot ?? '', read?.caHostname, 'CA_HEADER_');
  if (!read || problems.length > 0) throw new SettingsError(problems);
  const { xdsAddress, caAddress, kubernetesHost, ...rest } = read;
  return {
    ...rest,
    logFormat: read.logFormat === 'json' ? 'json' : 'text',
    xds,
    ca,
    identity: `spiffe://${read.trustDomain}/ns/${read.podNamespace}/sa/${read.serviceAccount}`,
    host: `${read.serviceName ?? read.gatewayName}.${read.podNamespace}.svc`,
    metadata,
  };
}
