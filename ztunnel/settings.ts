/**
 * What ztunnel reads from its environment, under the names of Istio's ztunnel (Istio's ztunnel, src/config.rs), in one pure function. Features
 * of Istio's ztunnel that are not built here are refused by name: a setting that silently does nothing would be worse than none.
 */

import { availableParallelism } from 'node:os';
import { dirname, isAbsolute, join } from 'node:path';
import { parsePort } from '../common/base/address.ts';
import { errorMessage } from '../common/base/errors.ts';
import {
  type ControlPlaneAddress,
  collect,
  controlPlaneAddress,
  type Environment,
  headerSettings,
  logDirectives,
  optionalCount,
  optionalDuration,
  optionalFlag,
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
  readSettings,
  type Settings,
  SettingsError,
  type SettingsTable,
  setting,
  text,
} from '../common/base/settings.ts';
import { outboundTrafficPolicies } from '../common/decision/mesh-view.ts';
import { readMeshConfig, readProxyConfig } from './proxy-config.ts';

const mark: Form<number | undefined> = {
  name: 'packet mark',
  parse(value) {
    const number = /^0x[0-9a-f]{1,8}$/i.test(value) ? Number.parseInt(value, 16) : count.parse(value);
    if (number > 0xffffffff) throw new Error('expected a 32-bit mark');
    return number;
  },
};

export interface PodInfo {
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Only the port matters: it is always the pod's loopback. */
const dnsAddress: Form<number> = {
  name: 'localhost:PORT',
  parse(value) {
    const port = parsePort(/^(?:localhost|127\.0\.0\.1|\[::1\]|0\.0\.0\.0|\[::\]):(\d+)$/.exec(value)?.[1] ?? '');
    if (port === undefined || port === 0) throw new Error('expected localhost:PORT');
    return port;
  },
};

/** Kubernetes's quantity of processors, rounded up. */
const cpuQuantity: Form<number | undefined> = {
  name: 'processors',
  parse(value) {
    if (value === '') return undefined;
    const found = /^(\d{1,6}(?:\.\d{1,3})?)(m?)$/.exec(value);
    if (!found) throw new Error('expected processors such as 500m or 1.5');
    return Math.ceil(Number(found[1]) / (found[2] === 'm' ? 1000 : 1));
  },
};

const positive: Form<number> = {
  name: 'whole number from 1',
  parse(value) {
    const number = count.parse(value);
    if (number < 1) throw new Error('expected a whole number from 1');
    return number;
  },
};

/** Empty is an answer too. */
const folder: Form<string | undefined> = {
  name: 'folder',
  parse(value) {
    if (value !== '' && !isAbsolute(value)) throw new Error('expected an absolute path');
    return value;
  },
};

const podInfo: Form<PodInfo | undefined> = {
  name: 'namespace/name/serviceaccount',
  parse(value) {
    const [namespace, name, serviceAccount, ...more] = value.split('/');
    if (!namespace || !name || !serviceAccount || more.length > 0) throw new Error('expected namespace/name/serviceaccount');
    return { namespace, name, serviceAccount };
  },
};

export const settingsTable = {
  mode: setting(
    'PROXY_MODE',
    oneOf('shared', 'dedicated'),
    'shared',
    'serve all enrolled pods of a node, or one workload in this namespace',
  ),
  workload: setting('PROXY_WORKLOAD_INFO', podInfo, undefined, 'the one workload of dedicated mode: namespace/name/serviceaccount', 'none'),
  proxy: setting('ENABLE_PROXY', flag, true, 'carry connections; false leaves the DNS proxy alone'),
  ipv6: setting('IPV6_ENABLED', flag, true, 'listen on IPv6 as well'),
  xdsAddress: setting(
    'XDS_ADDRESS',
    optionalText,
    undefined,
    'control plane; empty for none',
    'https://istiod.istio-system.svc:15012 in a cluster, else https://localhost:15012',
  ),
  caAddress: setting('CA_ADDRESS', optionalText, undefined, 'certificate authority; empty for none', 'as XDS_ADDRESS'),
  xdsRoot: setting(
    'XDS_ROOT_CA',
    text,
    './var/run/secrets/istio/root-cert.pem',
    'roots for the control plane: a file, SYSTEM, or PEM text',
  ),
  caRoot: setting('CA_ROOT_CA', text, './var/run/secrets/istio/root-cert.pem', 'roots for the CA: a file, SYSTEM, or PEM text'),
  xdsHostname: setting('ALT_XDS_HOSTNAME', optionalText, undefined, "another name accepted in the control plane's certificate", 'none'),
  caHostname: setting('ALT_CA_HOSTNAME', optionalText, undefined, "another name accepted in the CA's certificate", 'none'),
  authToken: setting(
    'AUTH_TOKEN',
    optionalText,
    undefined,
    'token for control plane and CA: a file, or the token itself',
    './var/run/secrets/tokens/istio-token where that exists',
  ),
  clusterId: setting(
    'ISTIO_META_CLUSTER_ID',
    optionalText,
    undefined,
    'name of this cluster; CLUSTER_ID is read where this is unset',
    'Kubernetes',
  ),
  clusterIdPlain: setting('CLUSTER_ID', text, 'Kubernetes', 'name of this cluster'),
  clusterDomain: setting('CLUSTER_DOMAIN', text, 'cluster.local', 'DNS domain of the cluster'),
  network: setting('NETWORK', text, '', 'name of the network that this node is in'),
  nodeName: setting('NODE_NAME', text, '', 'this node: certificates of its workloads are fetched ahead'),
  podName: setting('POD_NAME', text, '', 'own pod; with POD_NAMESPACE and SERVICE_ACCOUNT it turns the self proxy on'),
  podNamespace: setting('POD_NAMESPACE', text, '', 'own namespace'),
  serviceAccount: setting('SERVICE_ACCOUNT', text, '', 'own service account'),
  trustDomain: setting('TRUST_DOMAIN', text, 'cluster.local', 'trust domain of the own identity'),
  instanceIp: setting('INSTANCE_IP', text, '1.1.1.1', 'own address, as the control plane is told'),
  localXdsPath: setting('LOCAL_XDS_PATH', optionalText, undefined, 'static configuration: a YAML file', 'none'),
  localXds: setting('LOCAL_XDS', optionalText, undefined, 'static configuration: the YAML itself', 'none'),
  certDir: setting(
    'CERT_DIR',
    optionalText,
    undefined,
    'folder with cert-chain.pem, key.pem and root-cert.pem instead of a CA; NAMESPACE/SERVICEACCOUNT below it for each identity in shared mode',
    'none',
  ),
  stateDir: setting(
    'WARREN_STATE_DIR',
    folder,
    undefined,
    'folder where the state of the mesh outlives a restart; empty for none',
    "state beside the node agent's socket in shared mode, none in dedicated",
  ),
  stateMaxAgeMs: setting(
    'WARREN_STATE_MAX_AGE',
    duration,
    86_400_000,
    'kept state that no control plane has confirmed for longer is not used',
    '24h',
  ),
  keysDir: setting(
    'WARREN_KEYS_DIR',
    folder,
    undefined,
    'folder of a tmpfs where certificates and keys outlive a restart; empty for none',
    "keys beside the node agent's socket in shared mode, none in dedicated",
  ),
  secretTtlMs: setting('SECRET_TTL', duration, 86_400_000, 'life asked for certificates', '24h'),
  zdsPath: setting('INPOD_UDS', text, '/var/run/ztunnel/ztunnel.sock', "the node agent's socket"),
  portReuse: setting('INPOD_PORT_REUSE', flag, true, 'SO_REUSEPORT on listeners in pods; needed for more than one worker and for upgrades'),
  packetMark: setting(
    'PACKET_MARK',
    mark,
    undefined,
    'mark of our own packets, which redirection leaves alone',
    '1337 in shared mode, none in dedicated',
  ),
  preferredServiceNamespace: setting(
    'PREFERED_SERVICE_NAMESPACE',
    optionalText,
    undefined,
    'namespace that wins in DNS where several services are otherwise equal',
    'none',
  ),
  dnsCapture: setting('ISTIO_META_DNS_CAPTURE', text, 'true', 'true: answer DNS queries of pods; anything else: no DNS proxy'),
  dnsAddress: setting(
    'ISTIO_META_DNS_PROXY_ADDR',
    dnsAddress,
    15053,
    'port of the DNS proxy in each pod, as localhost:PORT',
    'localhost:15053',
  ),
  originalSource: setting(
    'ENABLE_ORIG_SRC',
    optionalFlag,
    undefined,
    'connect to applications from the original source address',
    'where the kernel allows it',
  ),
  keepalive: setting('KEEPALIVE_ENABLED', flag, true, 'TCP keepalive'),
  keepaliveTimeMs: setting('KEEPALIVE_TIME', duration, 180_000, 'idle time before the first keepalive probe', '180s'),
  keepaliveIntervalMs: setting('KEEPALIVE_INTERVAL', duration, 180_000, 'time between keepalive probes', '180s'),
  keepaliveProbes: setting('KEEPALIVE_RETRIES', count, 9, 'keepalive probes without an answer before a connection is given up'),
  userTimeout: setting(
    'USER_TIMEOUT_ENABLED',
    flag,
    false,
    'give connections up whose bytes stay unacknowledged for as long as keepalive would take (TCP_USER_TIMEOUT)',
  ),
  streamWindow: setting('HTTP2_STREAM_WINDOW_SIZE', count, 4 << 20, 'receive window of a tunnel, bytes'),
  connectionWindow: setting('HTTP2_CONNECTION_WINDOW_SIZE', count, 16 << 20, 'receive window of an HBONE connection, bytes'),
  frameSize: setting('HTTP2_FRAME_SIZE', count, 1 << 20, 'largest HTTP/2 frame accepted, bytes'),
  poolMaxStreams: setting('POOL_MAX_STREAMS_PER_CONNECTION', count, 100, 'tunnels on one HBONE connection'),
  poolUnusedMs: setting('POOL_UNUSED_RELEASE_TIMEOUT', duration, 300_000, 'how long an unused HBONE connection is kept', '5m'),
  // Shorter than terminationGracePeriodSeconds, so that we close connections before the kubelet kills us.
  drainDeadlineMs: setting(
    'CONNECTION_TERMINATION_DEADLINE',
    optionalDuration,
    undefined,
    'time given to open connections on shutdown',
    '5s',
  ),
  graceSeconds: setting(
    'TERMINATION_GRACE_PERIOD_SECONDS',
    optionalCount,
    undefined,
    "the pod's grace period, from which the deadline is made",
    'none',
  ),
  workers: setting(
    'ZTUNNEL_WORKER_THREADS',
    optionalText,
    undefined,
    'data workers: a number, a percentage of the processors, or 0 for all',
    'concurrency of PROXY_CONFIG; else ZTUNNEL_RESOURCE_CPU_LIMIT; else a quarter of the processors, at least 2',
  ),
  cpuLimit: setting('ZTUNNEL_RESOURCE_CPU_LIMIT', cpuQuantity, undefined, "processors of the container's limit, such as 500m or 2", 'none'),
  cpuRequest: setting('ZTUNNEL_RESOURCE_CPU_REQUEST', cpuQuantity, undefined, 'processors that the container asks for', 'none'),
  cpuLimitOld: setting('ZTUNNEL_CPU_LIMIT', cpuQuantity, undefined, 'processors of the machine, where it is not what is detected', 'none'),
  workerHeapMb: setting('WARREN_WORKER_HEAP_MB', count, 512, 'heap of one data worker in MiB; a worker that needs more is replaced'),
  podMaxConnections: setting('WARREN_POD_MAX_CONNECTIONS', positive, 16_384, 'open connections and tunnels of one pod, over all workers'),
  podMaxHandshakes: setting(
    'WARREN_POD_MAX_HANDSHAKES',
    positive,
    256,
    'TLS handshakes under way on the HBONE port of one pod, over all workers',
  ),
  podMaxWaitingBytes: setting(
    'WARREN_POD_MAX_WAITING_BYTES',
    positive,
    256 << 20,
    'bytes of one pod that wait for slow readers before its new connections are refused',
  ),
  memoryBudgetMb: setting(
    'WARREN_MEMORY_BUDGET_MB',
    optionalCount,
    undefined,
    'resident memory in MiB beyond which new connections of the pod that uses most are refused',
    "four fifths of the container's limit, or of half the machine's memory",
  ),
  maxSeries: setting('WARREN_MAX_SERIES', count, 20_000, 'metric series of one data worker; more go to one named "other"'),
  loopbackAppTunnel: setting('LOCALHOST_APP_TUNNEL', flag, true, 'reach PROXY-protocol applications over loopback'),
  outboundTrafficPolicy: setting(
    'WARREN_OUTBOUND_TRAFFIC_POLICY',
    oneOf(...outboundTrafficPolicies),
    'ALLOW_ANY',
    'REGISTRY_ONLY: what is no known service or workload is refused, for pods whose namespace has no policy of its own',
  ),
  responseBaggage: setting(
    'ENABLE_RESPONSE_BAGGAGE',
    flag,
    true,
    'describe the destination in answers to tunnels, and believe what callers say of themselves',
  ),
  policyInfoLogging: setting('AUTHZ_POLICY_INFO_LOGGING', flag, false, 'log policy decisions at info'),
  tls12: setting('TLS12_ENABLED', flag, false, 'take TLS 1.2 of peers as well, with ephemeral keys and AES-GCM only'),
  crlPath: setting('CRL_PATH', optionalText, undefined, 'revocation list, PEM or DER, read again when it changes', 'none'),
  compliance: setting('COMPLIANCE_POLICY', oneOf('', 'pqc'), '', 'pqc: only post-quantum key exchange'),
  log: setting('RUST_LOG', logDirectives, { level: 'info', scopes: {} }, 'log level, or level,scope=level', 'info'),
  logFormat: setting('LOG_FORMAT', oneOf('text', 'plain', 'json'), 'text', 'lines for people or for machines'),
  proxyConfig: setting(
    'PROXY_CONFIG',
    optionalText,
    undefined,
    'YAML: discoveryAddress, proxyAdminPort, statsPort, concurrency, proxyMetadata',
    'none',
  ),
  kubernetesHost: setting('KUBERNETES_SERVICE_HOST', optionalText, undefined, 'set by Kubernetes in every pod', 'none'),
} as const satisfies SettingsTable;

/** Names of Istio's ztunnel that would change behaviour and that nothing here acts on: value that asks for it, and what it would mean. */
const unsupported: Readonly<Record<string, { asks(value: string): boolean; what: string }>> = {
  FAKE_CA: { asks: (value) => value === 'true', what: 'a built-in test CA (use CERT_DIR)' },
  XDS_ON_DEMAND: { asks: (value) => value === 'true', what: 'on-demand xDS' },
  UNSTABLE_ENABLE_SOCKS5: { asks: (value) => value === 'true', what: 'the SOCKS5 listener' },
};

export interface ZtunnelSettings
  extends Omit<
    Settings<typeof settingsTable>,
    | 'xdsAddress'
    | 'caAddress'
    | 'clusterId'
    | 'clusterIdPlain'
    | 'drainDeadlineMs'
    | 'graceSeconds'
    | 'logFormat'
    | 'proxyConfig'
    | 'kubernetesHost'
    | 'dnsCapture'
    | 'dnsAddress'
    | 'workers'
    | 'cpuLimit'
    | 'cpuRequest'
    | 'cpuLimitOld'
  > {
  readonly workers: number;
  readonly clusterId: string;
  readonly drainDeadlineMs: number;
  readonly logFormat: 'text' | 'json';
  readonly xds: ControlPlaneAddress | undefined;
  readonly ca: ControlPlaneAddress | undefined;
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  /** Port of the DNS proxy in each pod; undefined where there is none. */
  readonly dnsPort: number | undefined;
  /** ISTIO_META_* and proxyMetadata, prefix stripped; ISTIO_METAJSON_* parsed. */
  readonly metadata: Readonly<Record<string, unknown>>;
}

/**
 * @param meshConfig text of MESH_CONFIG_FILE, where there is one
 * @throws {SettingsError} naming everything that is wrong, not just the first
 */
export function readZtunnelSettings(env: Environment, meshConfig?: string): ZtunnelSettings {
  const problems: string[] = [];
  // The environment's wins, key by key.
  const file = {
    ...(collect(problems, () => readMeshConfig(meshConfig)) ?? {}),
    ...(collect(problems, () => readProxyConfig('PROXY_CONFIG', env.PROXY_CONFIG)) ?? {}),
  };
  const metadata = collect(problems, () => readMetadata(env, file.proxyMetadata)) ?? {};
  const read = collect(problems, () => readSettings(settingsTable, env));
  const workers = collect(problems, () => workerCount(read, file.concurrency));
  for (const [name, { asks, what }] of Object.entries(unsupported)) {
    const value = env[name];
    if (value !== undefined && asks(value)) problems.push(`${name}=${JSON.stringify(value)}: this version does not have ${what}`);
  }
  if (read) problems.push(...contradictions(read, workers ?? 1));
  if (!read || workers === undefined || problems.length > 0) throw new SettingsError(problems);

  const inCluster = read.kubernetesHost !== undefined;
  const fallback = file.discoveryAddress ?? (inCluster ? 'istiod.istio-system.svc:15012' : 'localhost:15012');
  const {
    xdsAddress,
    caAddress,
    clusterIdPlain,
    graceSeconds,
    proxyConfig,
    kubernetesHost,
    dnsCapture,
    dnsAddress: dnsPort,
    cpuLimit,
    cpuRequest,
    cpuLimitOld,
    ...rest
  } = read;
  return {
    ...rest,
    workers,
    clusterId: read.clusterId ?? clusterIdPlain,
    stateDir: keptFolder(read, read.stateDir, 'state'),
    keysDir: read.certDir === undefined ? keptFolder(read, read.keysDir, 'keys') : undefined,
    packetMark: read.packetMark ?? (read.mode === 'shared' ? 1337 : undefined),
    drainDeadlineMs: read.drainDeadlineMs ?? graceDeadlineMs(graceSeconds),
    logFormat: read.logFormat === 'json' ? 'json' : 'text',
    xds: controlPlaneAddress(env.XDS_ADDRESS ?? fallback, read.xdsRoot, read.xdsHostname, headerSettings(env, 'XDS_HEADER_')),
    ca: controlPlaneAddress(env.CA_ADDRESS ?? fallback, read.caRoot, read.caHostname, headerSettings(env, 'CA_HEADER_')),
    adminPort: file.proxyAdminPort ?? 15000,
    statsPort: file.statsPort ?? 15020,
    readinessPort: 15021,
    dnsPort: dnsCapture === 'true' ? dnsPort : undefined,
    metadata,
  };
}

/** Where redirection rules send what a pod opens, and what reaches it in the clear. Tunnels go to HBONE_PORT (common/decision/ports.ts). */
export const OUTBOUND_PORT = 15001;
export const INBOUND_PLAINTEXT_PORT = 15006;

function contradictions(read: Settings<typeof settingsTable>, workers: number): string[] {
  const found: string[] = [];
  if (read.localXdsPath !== undefined && read.localXds !== undefined) found.push('LOCAL_XDS_PATH and LOCAL_XDS: give one of them');
  if (read.mode === 'dedicated' && !read.workload) found.push('PROXY_WORKLOAD_INFO: dedicated mode needs namespace/name/serviceaccount');
  if (!read.proxy && read.dnsCapture !== 'true') found.push('ENABLE_PROXY="false" and no DNS proxy: nothing is left to run');
  if (read.connectionWindow < read.streamWindow) found.push('HTTP2_CONNECTION_WINDOW_SIZE: smaller than HTTP2_STREAM_WINDOW_SIZE');
  if (read.frameSize < 16_384 || read.frameSize > 0xffffff)
    found.push('HTTP2_FRAME_SIZE: expected 16384 to 16777215 (RFC 9113, section 6.5.2)');
  if (read.streamWindow < 1 || read.connectionWindow > 0x7fffffff) found.push('HTTP2 window sizes: expected 1 to 2147483647');
  if (read.mode === 'shared' && !read.portReuse && workers > 1) found.push('INPOD_PORT_REUSE="false": needs ZTUNNEL_WORKER_THREADS=1');
  return found;
}

/** Beside the node agent's socket is a folder of the node's that outlives our pod under any chart. */
function keptFolder(
  { mode, zdsPath }: Pick<Settings<typeof settingsTable>, 'mode' | 'zdsPath'>,
  wanted: string | undefined,
  name: string,
): string | undefined {
  if (wanted !== undefined) return wanted === '' ? undefined : wanted;
  return mode === 'shared' ? join(dirname(zdsPath), name) : undefined;
}

/** What the pod's grace period leaves us: five seconds less, one second less where it is short, never less than one. */
function graceDeadlineMs(graceSeconds: number | undefined): number {
  if (graceSeconds === undefined) return 5000;
  return Math.max(1, graceSeconds > 10 ? graceSeconds - 5 : graceSeconds - 1) * 1000;
}

/** A number, a share of the processors, or all; else what the container was given (Istio's ztunnel, src/config.rs). */
function workerCount(read: Settings<typeof settingsTable> | undefined, concurrency: number | undefined): number {
  const wanted = read?.workers ?? (concurrency === undefined ? undefined : String(concurrency));
  const processors = read?.cpuLimit ?? read?.cpuLimitOld ?? availableParallelism();
  if (wanted !== undefined) {
    try {
      return threads.parse(wanted);
    } catch (error) {
      throw new SettingsError([`ZTUNNEL_WORKER_THREADS=${JSON.stringify(wanted)}: ${errorMessage(error)}`]);
    }
  }
  const asked = read?.cpuRequest ?? 0;
  return Math.min(64, read?.cpuLimit !== undefined ? Math.max(1, read.cpuLimit, asked) : Math.max(Math.ceil(processors / 4), asked, 2));
}
