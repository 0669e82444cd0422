/** The node agent's settings, under the names of Istio's ConfigMap istio-cni-config; docs/config.md is made from this table. */
import { load } from 'js-yaml';
import { parseIp } from '../common/base/address.ts';
import { hours, minutes, seconds } from '../common/base/clock.ts';
import { LOG_LEVELS } from '../common/base/log.ts';
import { duration, type Form, flag, list, oneOf, optionalText, portNumber, type Settings, setting, text } from '../common/base/settings.ts';
import { DEFAULT_SELECTORS, type EnablementSelector } from './enrol/decision.ts';
import { asRecord, parseLabelSelector } from './enrol/label-selector.ts';
import { DEFAULT_PROBE_SOURCE } from './rules/constants.ts';

const selectors: Form<readonly EnablementSelector[]> = {
  name: 'YAML list of {podSelector, namespaceSelector}',
  parse(value) {
    const parsed: unknown = load(value);
    if (!Array.isArray(parsed)) throw new Error('expected a YAML list of {podSelector, namespaceSelector}');
    return parsed.map((entry: unknown, i) => {
      const { podSelector, namespaceSelector, ...rest } = asRecord(entry, `entry ${i + 1}`);
      const unknown = Object.keys(rest)[0];
      if (unknown !== undefined) throw new Error(`entry ${i + 1}: unknown field ${unknown}`);
      return {
        podSelector: parseLabelSelector(podSelector, `entry ${i + 1}: podSelector`),
        namespaceSelector: parseLabelSelector(namespaceSelector, `entry ${i + 1}: namespaceSelector`),
      };
    });
  },
};

const ipOf = (family: 4 | 6): Form<string> => ({
  name: `IPv${family} address`,
  parse(value) {
    const ip = parseIp(value);
    if (ip === undefined || ip.includes(':') !== (family === 6)) throw new Error(`expected an IPv${family} address`);
    return ip;
  },
});

export const cniSettings = {
  nodeName: setting('NODE_NAME', text, '', 'name of the Node whose pods this agent looks after; required'),
  podName: setting('POD_NAME', text, '', "the agent's own pod"),
  podNamespace: setting('POD_NAMESPACE', text, 'istio-system', "namespace of the agent's own pod and DaemonSet"),
  daemonSet: setting('DAEMONSET_NAME', text, 'istio-cni-node', 'while this DaemonSet exists, a stopping agent leaves all rules in place'),
  ambient: setting('AMBIENT_ENABLED', flag, true, 'whether pods are enrolled at all'),
  selectors: setting(
    'AMBIENT_ENABLEMENT_SELECTOR',
    selectors,
    DEFAULT_SELECTORS,
    'which pods belong to the mesh: any entry whose selectors both match',
    'label istio.io/dataplane-mode=ambient on the pod, or on its namespace unless the pod says none',
  ),
  excludeNamespaces: setting('EXCLUDE_NAMESPACES', list, ['kube-system'], 'namespaces whose pods are never enrolled', 'kube-system'),
  // Off until ztunnel answers DNS: a captured query that nobody answers would take the pod's name resolution away.
  dnsCapture: setting(
    'AMBIENT_DNS_CAPTURE',
    flag,
    false,
    "whether ztunnel answers the pods' DNS; a pod's annotation ambient.istio.io/dns-capture wins",
  ),
  ipv6: setting('AMBIENT_IPV6', flag, true, 'whether IPv6 is captured too'),
  reconcileRules: setting(
    'AMBIENT_RECONCILE_POD_RULES_ON_STARTUP',
    flag,
    true,
    'whether rules of pods that are enrolled already are written again at start',
  ),
  captureOpenConnections: setting(
    'AMBIENT_CAPTURE_OPEN_CONNECTIONS',
    flag,
    false,
    "whether enrolment also takes connections that were open before, which resets them (Istio's rules to the letter)",
  ),
  nativeNftables: setting(
    'NATIVE_NFTABLES',
    oneOf('true', 'false', 'auto'),
    'auto',
    'true: redirection rules are written with nftables, false: with iptables, auto: with nftables where this node can, unless an agent has left rules of iptables',
  ),
  iptablesVariant: setting(
    'FORCE_IPTABLES_BINARY',
    oneOf('nft', 'legacy', 'auto'),
    'auto',
    "which iptables programs are used where iptables is; auto: those whose rules the node has, else the system's own",
  ),
  openConnectionsDeadlineMs: setting(
    'WARREN_OPEN_CONNECTIONS_DEADLINE',
    duration,
    seconds(60),
    'how long connections that were open before a pod joined may stay once STRICT or a policy applies to it; the annotation warren.dev/open-connections wins',
    '60s',
  ),
  rulesCheckMs: setting(
    'WARREN_RULES_CHECK_INTERVAL',
    duration,
    minutes(1),
    "how often the rules of the node's pods are compared with what they should be; five times as long with iptables; 0s: only at the start",
    '1m',
  ),
  rootNamespace: setting('ROOT_NAMESPACE', text, 'istio-system', 'namespace whose policies hold for the whole mesh'),
  drainDeadlineMs: setting(
    'AMBIENT_UNENROL_DRAIN_DEADLINE',
    duration,
    hours(1),
    'how long ztunnel goes on with the open connections of a pod that left the mesh',
    '1h',
  ),
  probeSourceV4: setting('HOST_PROBE_SNAT_IP', ipOf(4), DEFAULT_PROBE_SOURCE.v4, "source address of the node's probes of enrolled pods"),
  probeSourceV6: setting('HOST_PROBE_SNAT_IPV6', ipOf(6), DEFAULT_PROBE_SOURCE.v6, 'the same for IPv6'),
  ztunnelSocket: setting('ZTUNNEL_UDS_ADDRESS', text, '/var/run/ztunnel/ztunnel.sock', 'socket that ztunnel connects to (ZDS)'),
  runDir: setting('CNI_AGENT_RUN_DIR', text, '/var/run/istio-cni', 'folder of the socket that the CNI plugin calls (pluginevent.sock)'),
  cniNetDir: setting(
    'MOUNTED_CNI_NET_DIR',
    text,
    '/host/etc/cni/net.d',
    "the node's folder of CNI configurations, as this container sees it",
  ),
  cniBinDir: setting(
    'MOUNTED_CNI_BIN_DIR',
    text,
    '/host/opt/cni/bin',
    "the node's folder of CNI plugins, as this container sees it; beside the plugin lies what it goes by while the agent is away",
  ),
  pluginExecutable: setting(
    'WARREN_CNI_EXECUTABLE',
    optionalText,
    '/opt/cni/bin/istio-cni',
    'the CNI plugin in this image; empty where whoever makes pods asks the agent by other means',
  ),
  chained: setting(
    'CHAINED_CNI_PLUGIN',
    flag,
    true,
    "whether the plugin is put into the node's CNI configuration; false writes a configuration of its own, for Multus",
  ),
  cniConfName: setting(
    'CNI_CONF_NAME',
    optionalText,
    undefined,
    'file to chain to, or to write where not chained',
    'the first file that a container runtime would take, or YYY-istio-cni.conf where not chained',
  ),
  ownedConfig: setting(
    'ISTIO_OWNED_CNI_CONFIG',
    flag,
    false,
    "whether the node's CNI configuration is copied to a file of our own that comes first, instead of being changed",
  ),
  ownedConfigName: setting('ISTIO_OWNED_CNI_CONFIG_FILE_NAME', text, '02-istio-cni.conflist', 'name of that file'),
  podNetnsDir: setting(
    'POD_NETNS_DIR',
    optionalText,
    '/var/run/netns',
    'folder of network namespaces, where they are named after pod UIDs',
  ),
  hostProc: setting('HOST_PROC', text, '/host/proc', "the node's /proc, as this container sees it; /proc where it is absent"),
  cmdAddTimeoutMs: setting(
    'CNI_ADD_TIMEOUT',
    duration,
    seconds(25),
    'how long a new pod waits for ztunnel before the kubelet is told to try again',
    '25s',
  ),
  healthPort: setting('HEALTH_PORT', portNumber, 8000, 'port of /healthz and /readyz'),
  monitoringPort: setting('MONITORING_PORT', portNumber, 15014, 'port of /metrics'),
  logLevel: setting('LOG_LEVEL', oneOf(...LOG_LEVELS), 'info', 'lowest level that is logged'),
  logFormat: setting('LOG_FORMAT', oneOf('json', 'text'), 'text', 'json for machines, text for people'),
} as const;

export type CniSettings = Settings<typeof cniSettings>;
