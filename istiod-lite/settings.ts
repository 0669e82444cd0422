/** What istiod-lite can be told, under Istio's names. Read once, by main.ts. */
import { hours, minutes, seconds } from '../common/base/clock.ts';
import { LOG_LEVELS } from '../common/base/log.ts';
import { count, duration, flag, list, oneOf, optionalText, portNumber, type Settings, setting, text } from '../common/base/settings.ts';
import { VERSION } from '../common/base/version.ts';
import { labelSelectors } from './kube/scope.ts';

export const settingsTable = {
  kubeconfig: setting('KUBECONFIG', optionalText, undefined, "How to reach the API server; the pod's service account where it is empty."),
  configDirectory: setting(
    'WARREN_CONFIG_DIR',
    optionalText,
    undefined,
    'Folder of YAML files in the place of an API server: a mesh without Kubernetes.',
  ),
  stateDirectory: setting(
    'WARREN_STATE_DIR',
    text,
    '/var/lib/warren/istiod',
    "Where the CA's key and the key of hosts' tokens are kept without Kubernetes, readable by their owner only.",
  ),
  healthIntervalMs: setting(
    'WARREN_HEALTH_INTERVAL',
    duration,
    seconds(5),
    'Time between two tries to connect to a WorkloadEntry, without Kubernetes; three in a row that fail make it unhealthy.',
    '5s',
  ),
  podName: setting('POD_NAME', text, 'istiod', 'Name of this replica; the holder of the writer lease is known by it.'),
  systemNamespace: setting('POD_NAMESPACE', text, 'istio-system', "Where istiod runs, and where the root's Secret and the leases are."),
  rootNamespace: setting('ROOT_NAMESPACE', optionalText, undefined, 'Namespace whose policies hold for the whole mesh.', 'POD_NAMESPACE'),
  clusterId: setting('CLUSTER_ID', text, 'Kubernetes', 'Name of this cluster: the first segment of every workload uid.'),
  trustDomain: setting('TRUST_DOMAIN', text, 'cluster.local', 'Trust domain of all identities.'),
  domain: setting('DOMAIN', text, 'cluster.local', "The cluster's DNS domain."),
  network: setting(
    'NETWORK',
    text,
    '',
    "Network of this cluster; the label topology.istio.io/network of istiod's namespace where it is empty.",
  ),
  revision: setting(
    'REVISION',
    text,
    'default',
    'Revision of this control plane; Gateways, routes, policies and the like with another label istio.io/rev are left alone.',
  ),
  discoverySelectors: setting(
    'WARREN_DISCOVERY_SELECTORS',
    labelSelectors,
    [],
    'Namespaces that this control plane looks after, by their labels, as meshConfig.discoverySelectors has them; all where it is empty.',
    '',
  ),
  waypointImage: setting(
    'WAYPOINT_IMAGE',
    text,
    `warren/waypoint:${VERSION}`,
    'Image of the waypoints that are deployed for Gateways.',
    'warren/waypoint of the same version',
  ),
  caAddress: setting(
    'CA_ADDRESS',
    optionalText,
    undefined,
    'Where the waypoints that are deployed ask for certificates, as host:port.',
    'DISCOVERY_ADDRESS',
  ),
  discoveryAddress: setting(
    'DISCOVERY_ADDRESS',
    optionalText,
    undefined,
    'Where the waypoints that are deployed find istiod, as host:port.',
    'istiod.NAMESPACE.svc:15012',
  ),
  trustedNodeAccounts: setting(
    'CA_TRUSTED_NODE_ACCOUNTS',
    list,
    ['istio-system/ztunnel'],
    'Accounts, as namespace/name, that may ask for certificates of the pods on their node.',
    'istio-system/ztunnel',
  ),
  tokenAudiences: setting('TOKEN_AUDIENCES', list, ['istio-ca'], "Audiences of proxies' tokens.", 'istio-ca'),
  defaultCertificateMs: setting(
    'DEFAULT_WORKLOAD_CERT_TTL',
    duration,
    hours(24),
    'Lifetime of a certificate whose request names none.',
    '24h',
  ),
  maxCertificateMs: setting('MAX_WORKLOAD_CERT_TTL', duration, hours(24 * 90), 'Longest lifetime that may be asked for.', '2160h'),
  rootCertificateMs: setting('CITADEL_SELF_SIGNED_CA_CERT_TTL', duration, hours(24 * 3650), 'Lifetime of the self-signed root.', '87600h'),
  rootRotationWaitMs: setting(
    'WARREN_CA_ROTATION_WAIT',
    duration,
    hours(24),
    'Time between two steps of a rotation of the root; longer than certificates live, or a rotation cuts connections.',
    '24h',
  ),
  rootCaDirectory: setting(
    'ROOT_CA_DIR',
    text,
    '/etc/cacerts',
    'Folder of a CA that the operator brings (ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem, ca-crl.pem; or tls.crt, tls.key, ca.crt); read again when it changes.',
  ),
  caServer: setting('ENABLE_CA_SERVER', flag, true, 'Sign certificates; false where proxies ask a CA of its own (their CA_ADDRESS).'),
  externalCa: setting(
    'EXTERNAL_CA',
    oneOf('', 'ISTIOD_RA_KUBERNETES_API'),
    '',
    "Who signs what istiod has approved: istiod's CA, or a signer of the cluster (ISTIOD_RA_KUBERNETES_API).",
  ),
  kubernetesSigner: setting(
    'K8S_SIGNER',
    text,
    '',
    "Name of that signer; its roots are root-cert.pem in ROOT_CA_DIR. Kubernetes' own signers make no certificates that both call and serve.",
  ),
  servingDirectory: setting(
    'ISTIOD_TLS_DIR',
    text,
    '/var/run/secrets/istiod/tls',
    "Folder of a certificate for istiod that somebody else issued (tls.crt, tls.key); istiod's CA issues one where it is empty.",
  ),
  servingRootsFile: setting(
    'ISTIOD_TLS_ROOTS',
    text,
    '/var/run/secrets/istiod/ca/root-cert.pem',
    'Roots that go with it: those of certificates that clients show.',
  ),
  customHost: setting('ISTIOD_CUSTOM_HOST', list, [], "Further DNS names in istiod's own certificate.", ''),
  debounceMs: setting(
    'PILOT_DEBOUNCE_AFTER',
    duration,
    100,
    'Longest pause between two pushes. It is shorter where a push costs little, and the first change after a pause goes out at once.',
    '100ms',
  ),
  pushThrottle: setting('PILOT_PUSH_THROTTLE', count, 20, 'Large responses that are on their way at once.'),
  identityCheck: setting('PILOT_ENABLE_XDS_IDENTITY_CHECK', flag, true, "A proxy's namespace must be that of its token."),
  sendTimeoutMs: setting(
    'PILOT_XDS_SEND_TIMEOUT',
    duration,
    minutes(1),
    'A proxy that does not take a response for this long is let go.',
    '1m',
  ),
  ackTimeoutMs: setting(
    'PILOT_XDS_ACK_TIMEOUT',
    duration,
    minutes(5),
    'A proxy that does not acknowledge a response for this long is let go.',
    '5m',
  ),
  maxConnectionAgeMs: setting(
    'KEEPALIVE_MAX_SERVER_CONNECTION_AGE',
    duration,
    minutes(30),
    'After this time, a tenth more or less, a proxy is asked to connect anew.',
    '30m',
  ),
  maxProxies: setting('PILOT_MAX_PROXIES', count, 5000, 'Proxies connected at a time.'),
  autoAllocate: setting('PILOT_ENABLE_IP_AUTOALLOCATE', flag, true, 'ServiceEntries without addresses are given one of each family.'),
  autoAllocateV4: setting('PILOT_IP_AUTOALLOCATE_IPV4_PREFIX', text, '240.240.0.0/16', 'Range of these addresses, IPv4.'),
  autoAllocateV6: setting('PILOT_IP_AUTOALLOCATE_IPV6_PREFIX', text, '2001:2::/48', 'Range of these addresses, IPv6.'),
  guardClaims: setting(
    'WARREN_GUARD_CLAIMS',
    flag,
    true,
    "ServiceEntries may not claim names of the cluster's domain or addresses of Services in other namespaces, nor link-local addresses, and hold for clients of their own namespace.",
  ),
  grantedHosts: setting(
    'WARREN_GRANTED_HOSTS',
    list,
    [],
    'Claims that are allowed all the same, and for clients of all namespaces, as namespace=host.',
    '',
  ),
  keyRefreshMs: setting(
    'PILOT_JWT_PUB_KEY_REFRESH_INTERVAL',
    duration,
    minutes(20),
    "Time after which keys for end users' tokens are fetched again.",
    '20m',
  ),
  keyTimeoutMs: setting('WARREN_JWKS_TIMEOUT', duration, seconds(5), 'Time in which a key set, its redirects included, has to come.', '5s'),
  blockedKeyRanges: setting(
    'BLOCKED_CIDRS_IN_JWKS_URIS',
    list,
    [],
    'Address ranges that no key set is fetched from, beside link-local, metadata and loopback addresses.',
    '',
  ),
  drainMs: setting('PILOT_DRAIN_DURATION', duration, seconds(5), 'Time given to open streams on shutdown.', '5s'),
  grpcPort: setting('GRPC_TLS_PORT', portNumber, 15012, 'xDS and certificates, over TLS.'),
  monitoringPort: setting('MONITORING_PORT', portNumber, 15014, 'Metrics, version and diagnostics.'),
  httpPort: setting('HTTP_PORT', portNumber, 8080, 'Readiness.'),
  httpsPort: setting('HTTPS_PORT', portNumber, 15017, 'Admission: where the API server asks about objects, over TLS.'),
  webhookConfiguration: setting(
    'VALIDATION_WEBHOOK_CONFIG_NAME',
    optionalText,
    undefined,
    'ValidatingWebhookConfiguration in which istiod keeps its roots.',
    'istio-validator-NAMESPACE',
  ),
  refuseUnenforced: setting(
    'WARREN_REFUSE_UNENFORCED',
    flag,
    false,
    'Admission refuses objects that are not enforced as they are written, too, instead of warning.',
  ),
  logLevel: setting('LOG_LEVEL', oneOf(...LOG_LEVELS), 'info', 'How much is logged.'),
  logAsJson: setting('LOG_AS_JSON', flag, false, 'Log lines as JSON.'),
} as const;

export type IstiodSettings = Settings<typeof settingsTable>;

/** Flags of Istio's `pilot-discovery discovery` that its chart passes, and the settings that they are. */
const flagSettings: Readonly<Record<string, string>> = {
  monitoringAddr: 'MONITORING_PORT',
  secureGRPCAddr: 'GRPC_TLS_PORT',
  httpAddr: 'HTTP_PORT',
  httpsAddr: 'HTTPS_PORT',
  domain: 'DOMAIN',
  keepaliveMaxServerConnectionAge: 'KEEPALIVE_MAX_SERVER_CONNECTION_AGE',
  log_output_level: 'LOG_LEVEL',
  log_as_json: 'LOG_AS_JSON',
  clusterID: 'CLUSTER_ID',
  kubeconfig: 'KUBECONFIG',
  namespace: 'POD_NAMESPACE',
  'config-dir': 'WARREN_CONFIG_DIR',
  'state-dir': 'WARREN_STATE_DIR',
};

/**
 * The environment with the flags laid over it: `--monitoringAddr=:15014`, `--domain cluster.local`.
 * @throws Error for a flag that is none, or has no value
 */
export function withFlags(env: Readonly<Record<string, string | undefined>>, args: readonly string[]): Record<string, string | undefined> {
  const merged: Record<string, string | undefined> = { ...env };
  for (let i = 0; i < args.length; i++) {
    const match = /^--([A-Za-z_-]+)(?:=(.*))?$/.exec(args[i] ?? '');
    const name = match?.[1] && flagSettings[match[1]];
    if (!name)
      throw new Error(
        `unknown argument ${args[i]}: expected one of ${Object.keys(flagSettings)
          .map((known) => `--${known}`)
          .join(', ')}`,
      );
    const value = match[2] ?? (name === 'LOG_AS_JSON' ? 'true' : args[++i]);
    if (value === undefined) throw new Error(`--${match[1]} needs a value`);
    merged[name] = flagValue(name, value);
  }
  return merged;
}

// Istio writes addresses as `:15014` and levels as `default:info,ads:debug`; we have one level.
function flagValue(name: string, value: string): string {
  if (name.endsWith('_PORT')) return value.slice(value.lastIndexOf(':') + 1);
  if (name === 'LOG_LEVEL')
    return (value.split(',').find((part) => !part.includes(':') || part.startsWith('default:')) ?? 'info').replace('default:', '');
  return value;
}
