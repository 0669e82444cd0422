/**
 * What ztunnel reads from its environment, under the names of Istio's ztunnel (Istio's ztunnel, src/config.rs), in one pure function. What
 * that takes and leaves without effect is refused by name: a setting that silently does nothing would be worse than none.
 */

import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import type { IpAddress } from '../common/base/address.ts';
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
  threadsOf,
} from '../common/base/proxy-settings.ts';
import {
  count,
  duration,
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
import { cpuQuantity, dnsAddress, folder, mark, podInfo, positive } from './setting-forms.ts';

export type { PodInfo } from './setting-forms.ts';

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
    'discoveryAddress of PROXY_CONFIG; none beside a static configuration; https://istiod.istio-system.svc:15012 in a cluster, else https://localhost:15012',
  ),
  caAddress: setting(
    'CA_ADDRESS',
    optionalText,
    undefined,
    'certificate authority; empty for none',
    'https://istiod.istio-system.svc:15012 in a cluster, else https://localhost:15012',
  ),
  fakeCa: setting(
    'FAKE_CA',
    flag,
    false,
    'for tests: certificates of a built-in authority whose key everybody knows, instead of those of CA_ADDRESS; they prove nothing',
  ),
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
  localXdsPath: setting(
    'LOCAL_XDS_PATH',
    optionalText,
    undefined,
    'static configuration: a YAML file; a control plane, where XDS_ADDRESS names one, adds to it',
    'none',
  ),
  localXds: setting('LOCAL_XDS', optionalText, undefined, 'static configuration: the YAML itself', 'none'),
  xdsOnDemand: setting(
    'XDS_ON_DEMAND',
    flag,
    false,
    'ask the control plane for an address when a connection needs it, instead of for all of them; not together with the DNS proxy',
  ),
  socks5: setting('UNSTABLE_ENABLE_SOCKS5', flag, false, 'a SOCKS5 server on port 15080 of the loopback of each pod'),
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
    { port: 15053 },
    'where the DNS proxy listens in each pod: localhost:PORT, or ADDRESS:PORT',
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
  decisionJournal: setting(
    'WARREN_DECISION_JOURNAL',
    flag,
    true,
    'keep what was decided lately, for meshctl explain ID, rehearse and policy suggest; no payloads',
  ),
  decisionJournalBytes: setting('WARREN_DECISION_JOURNAL_BYTES', count, 8 << 20, 'memory of the decision journal, over all data workers'),
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
  /** Where the DNS proxy listens in each pod; undefined where there is none. */
  readonly dns: { readonly port: number; readonly addresses: readonly IpAddress[] } | undefined;
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
  const [mesh, own] = [
    collect(problems, () => readMeshConfig(meshConfig)) ?? {},
    collect(problems, () => readProxyConfig('PROXY_CONFIG', env.PROXY_CONFIG)) ?? {},
  ];
  const file = { ...mesh, ...own, proxyMetadata: { ...mesh.proxyMetadata, ...own.proxyMetadata } };
  const metadata = collect(problems, () => readMetadata(env, file.proxyMetadata)) ?? {};
  const read = collect(problems, () => readSettings(settingsTable, { ...metadataSettings(file.proxyMetadata), ...env }));
  const workers = collect(problems, () => workerCount(read, file.concurrency, env.INPOD_PORT_REUSE === 'false'));
  const [xds, ca] = [collect(problems, () => xdsOf(env, file.discoveryAddress, read)), collect(problems, () => caOf(env, read))];
  if (read) problems.push(...contradictions(read, workers ?? 1));
  if (!read || workers === undefined || problems.length > 0) throw new SettingsError(problems);

  const {
    xdsAddress,
    caAddress,
    clusterIdPlain,
    graceSeconds,
    proxyConfig,
    kubernetesHost,
    dnsCapture,
    dnsAddress: dnsProxy,
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
    xds,
    ca,
    adminPort: file.proxyAdminPort ?? 15000,
    statsPort: file.statsPort ?? 15020,
    readinessPort: 15021,
    dns: capturesDns(dnsCapture)
      ? { port: dnsProxy.port, addresses: dnsProxy.address === undefined ? LOOPBACKS : [dnsProxy.address] }
      : undefined,
    metadata,
  };
}

const LOOPBACKS: readonly IpAddress[] = ['127.0.0.1', '::1'];
const capturesDns = (setting: string): boolean => setting.toLowerCase() === 'true';

/** Metadata that changes what we do, from PROXY_CONFIG, under the names that it has in the environment. */
function metadataSettings(metadata: Readonly<Record<string, string>>): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of ['DNS_CAPTURE', 'DNS_PROXY_ADDR']) {
    const value = metadata[`ISTIO_META_${name}`] ?? metadata[name];
    if (value !== undefined) found[`ISTIO_META_${name}`] = value;
  }
  return found;
}

type Read = Settings<typeof settingsTable>;

const defaultControlPlane = (env: Environment): string =>
  env.KUBERNETES_SERVICE_HOST === undefined ? 'https://localhost:15012' : 'https://istiod.istio-system.svc:15012';

function xdsOf(env: Environment, discoveryAddress: string | undefined, read: Read | undefined): ControlPlaneAddress | undefined {
  const isStatic = read?.localXdsPath !== undefined || read?.localXds !== undefined;
  return controlPlaneAddress({
    name: env.XDS_ADDRESS === undefined ? 'PROXY_CONFIG discoveryAddress' : 'XDS_ADDRESS',
    uri: env.XDS_ADDRESS ?? discoveryAddress ?? (isStatic ? '' : defaultControlPlane(env)),
    root: read?.xdsRoot ?? '',
    alternativeName: read?.xdsHostname,
    headers: headerSettings(env, 'XDS_HEADER_'),
  });
}

function caOf(env: Environment, read: Read | undefined): ControlPlaneAddress | undefined {
  const headers = headerSettings(env, 'CA_HEADER_');
  if (read?.fakeCa) return undefined;
  const uri = env.CA_ADDRESS ?? defaultControlPlane(env);
  return controlPlaneAddress({ name: 'CA_ADDRESS', uri, root: read?.caRoot ?? '', alternativeName: read?.caHostname, headers });
}

function contradictions(read: Read, workers: number): string[] {
  const found: string[] = [];
  if (read.localXdsPath !== undefined && read.localXds !== undefined) found.push('LOCAL_XDS_PATH and LOCAL_XDS: give one of them');
  if (read.mode === 'dedicated' && !read.workload) found.push('PROXY_WORKLOAD_INFO: dedicated mode needs namespace/name/serviceaccount');
  if (!read.proxy && !capturesDns(read.dnsCapture)) found.push('ENABLE_PROXY="false" and no DNS proxy: nothing is left to run');
  if (read.xdsOnDemand && capturesDns(read.dnsCapture)) {
    found.push('XDS_ON_DEMAND="true": the DNS proxy has to know every name; set ISTIO_META_DNS_CAPTURE=false');
  }
  if (read.frameSize < 16_384 || read.frameSize > 0xffffff)
    found.push('HTTP2_FRAME_SIZE: expected 16384 to 16777215 (RFC 9113, section 6.5.2)');
  if (read.streamWindow < 1 || read.connectionWindow > 0x7fffffff) found.push('HTTP2 window sizes: expected 1 to 2147483647');
  if (read.mode === 'shared' && !read.portReuse && workers > 1) found.push('INPOD_PORT_REUSE="false": needs ZTUNNEL_WORKER_THREADS=1');
  return found;
}

/** Beside the node agent's socket is a folder of the node's that outlives our pod under any chart. */
function keptFolder({ mode, zdsPath }: Pick<Read, 'mode' | 'zdsPath'>, wanted: string | undefined, name: string): string | undefined {
  if (wanted !== undefined) return wanted === '' ? undefined : wanted;
  return mode === 'shared' ? join(dirname(zdsPath), name) : undefined;
}

/** What the pod's grace period leaves us: five seconds less, one second less where it is short, never less than one. */
function graceDeadlineMs(graceSeconds: number | undefined): number {
  if (graceSeconds === undefined) return 5000;
  return Math.max(1, graceSeconds > 10 ? graceSeconds - 5 : graceSeconds - 1) * 1000;
}

/**
 * A number, a share of the processors, or all; else what the container was given (Istio's ztunnel, src/config.rs).
 * @param alone without SO_REUSEPORT a second worker could not listen beside the first
 */
function workerCount(read: Read | undefined, concurrency: number | undefined, alone: boolean): number {
  const wanted = read?.workers ?? (concurrency === undefined ? undefined : String(concurrency));
  const processors = read?.cpuLimit ?? read?.cpuLimitOld ?? availableParallelism();
  if (wanted !== undefined) {
    try {
      return threadsOf(processors).parse(wanted);
    } catch (error) {
      throw new SettingsError([`ZTUNNEL_WORKER_THREADS=${JSON.stringify(wanted)}: ${errorMessage(error)}`]);
    }
  }
  if (alone) return 1;
  const asked = read?.cpuRequest ?? 0;
  return Math.min(64, read?.cpuLimit !== undefined ? Math.max(1, read.cpuLimit, asked) : Math.max(Math.ceil(processors / 4), asked, 2));
}
