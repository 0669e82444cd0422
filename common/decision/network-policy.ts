/**
 * What becomes of a NetworkPolicy when the pods that it selects join the mesh. Callers of the mesh come by port 15008 whatever port they
 * ask for, and the node's probes come from a link-local address; so a policy that names ports may shut the mesh out, and one that lets
 * 15008 in no longer filters ports. Used when a pod is enrolled, and before anything is installed. Ingress and egress as the API describes
 * them (networking.k8s.io/v1): a pod is isolated in a direction by any policy that selects it for that direction; rules only add.
 */
import { cidrContains, ipBytes, parseCidr } from '../base/address.ts';
import { type LabelSelector, type Labels, selectorMatches } from './label-selector.ts';

/** The fields of a NetworkPolicy that matter here. */
export interface NetworkPolicy {
  readonly metadata: { readonly name?: string; readonly namespace?: string };
  readonly spec?: {
    readonly podSelector?: LabelSelector;
    readonly policyTypes?: readonly string[];
    readonly ingress?: readonly NetworkPolicyRule[];
    readonly egress?: readonly NetworkPolicyRule[];
  };
}

export interface NetworkPolicyRule {
  /** None: every port. */
  readonly ports?: readonly { readonly protocol?: string; readonly port?: number | string; readonly endPort?: number }[];
  /** None: everybody. Of ingress rules. */
  readonly from?: readonly NetworkPolicyPeer[];
  /** None: everywhere. Of egress rules. */
  readonly to?: readonly NetworkPolicyPeer[];
}

export interface NetworkPolicyPeer {
  readonly podSelector?: LabelSelector;
  readonly namespaceSelector?: LabelSelector;
  readonly ipBlock?: { readonly cidr: string; readonly except?: readonly string[] };
}

/** A pod, as far as NetworkPolicies and probes are concerned. */
export interface PolicedPod {
  readonly namespace: string;
  readonly labels: Labels;
  /** Ports that the kubelet connects to. */
  readonly probePorts: readonly number[];
}

export interface NetworkPolicyFinding {
  /** `blocked`: traffic that passed before is refused in the mesh. `unfiltered`: traffic that was refused before passes in the mesh. */
  readonly effect: 'blocked' | 'unfiltered';
  readonly what: 'tunnels-in' | 'tunnels-out' | 'probes' | 'ports-in' | 'ports-out';
  /** namespace/name, the first where several do it together. */
  readonly policy: string;
  /** What happens, in one sentence. */
  readonly message: string;
  /** What to do about it. */
  readonly mend: string;
}

/** The fields of a Pod that tell a PolicedPod. */
export interface PodWithProbes {
  readonly metadata: { readonly namespace?: string; readonly labels?: Labels };
  readonly spec?: { readonly containers?: readonly ProbedContainer[] };
  readonly status?: { readonly podIPs?: readonly { readonly ip?: string }[] };
}

export interface ProbedContainer {
  readonly ports?: readonly { readonly name?: string; readonly containerPort?: number }[];
  readonly readinessProbe?: KubeletProbe;
  readonly livenessProbe?: KubeletProbe;
  readonly startupProbe?: KubeletProbe;
}

interface KubeletProbe {
  readonly httpGet?: { readonly port?: number | string };
  readonly tcpSocket?: { readonly port?: number | string };
  readonly grpc?: { readonly port?: number };
}

/** Those that can reach the pod: of its own families; IPv4 as long as it has no address. */
export function probeSourcesOf({ status }: PodWithProbes, sources: readonly string[]): string[] {
  const ips = (status?.podIPs ?? []).flatMap(({ ip }) => ip ?? []);
  const families = new Set(ips.length > 0 ? ips.map((ip) => ip.includes(':')) : [false]);
  return sources.filter((source) => families.has(source.includes(':')));
}

/** What of a Pod matters here. Probes by command connect from inside and are not counted. */
export function policedPod({ metadata, spec }: PodWithProbes): PolicedPod {
  const probePorts = (spec?.containers ?? []).flatMap(({ ports = [], readinessProbe, livenessProbe, startupProbe }) =>
    [readinessProbe, livenessProbe, startupProbe].flatMap((probe) => {
      const port = probe?.httpGet?.port ?? probe?.tcpSocket?.port ?? probe?.grpc?.port;
      return (typeof port === 'string' ? ports.find(({ name }) => name === port)?.containerPort : port) ?? [];
    }),
  );
  return { namespace: metadata.namespace ?? '', labels: metadata.labels ?? {}, probePorts: [...new Set(probePorts)] };
}

const HBONE_PORT = 15008;
const DNS_PORT = 53;
type Direction = 'Ingress' | 'Egress';

interface PolicyRule {
  readonly policy: string;
  readonly rule: NetworkPolicyRule;
  readonly peers: readonly NetworkPolicyPeer[];
}

/**
 * @param policies of any namespaces; those of the pod's that select it count
 * @param probeSources addresses that the node's probes come from, one for each family in use
 * @returns none where the mesh changes nothing; one for each policy and effect otherwise
 */
export function networkPolicyFindings(
  policies: Iterable<NetworkPolicy>,
  pod: PolicedPod,
  probeSources: readonly string[],
): NetworkPolicyFinding[] {
  const selecting = [...policies].filter(
    ({ metadata, spec }) => metadata.namespace === pod.namespace && selectorMatches(spec?.podSelector ?? {}, pod.labels),
  );
  const ingress = selecting.filter((policy) => isolates(policy, 'Ingress'));
  const egress = selecting.filter((policy) => isolates(policy, 'Egress'));
  const findings = [
    ...tunnelFindings(rulesOf(ingress, 'Ingress'), 'Ingress'),
    ...tunnelFindings(rulesOf(egress, 'Egress'), 'Egress'),
    ...probeFindings(ingress, pod, probeSources),
  ];
  const seen = new Set<string>();
  return findings.filter(({ what, policy }) => {
    const key = `${what} ${policy}`;
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

/** Ingress always, unless the types say otherwise; egress where they say so, or where there are rules and no types. */
function isolates({ spec = {} }: NetworkPolicy, direction: Direction): boolean {
  if (spec.policyTypes && spec.policyTypes.length > 0) return spec.policyTypes.includes(direction);
  return direction === 'Ingress' || (spec.egress ?? []).length > 0;
}

function rulesOf(policies: readonly NetworkPolicy[], direction: Direction): PolicyRule[] {
  return policies.flatMap((policy) =>
    ((direction === 'Ingress' ? policy.spec?.ingress : policy.spec?.egress) ?? []).map((rule) => ({
      policy: nameOf(policy),
      rule,
      peers: (direction === 'Ingress' ? rule.from : rule.to) ?? [],
    })),
  );
}

function tunnelFindings(rules: readonly PolicyRule[], direction: Direction): NetworkPolicyFinding[] {
  const open = rules.filter(({ rule }) => admits(rule, HBONE_PORT));
  const incoming = direction === 'Ingress';
  return rules.flatMap((entry): NetworkPolicyFinding[] => {
    const { policy, rule, peers } = entry;
    const ports = tcpPorts(rule, direction);
    if (ports.length === 0) return [];
    if (admits(rule, HBONE_PORT)) {
      const others = ports.filter((port) => port !== String(HBONE_PORT));
      const covered = rules
        .filter((other) => other !== entry && coveredBy(peers, other.peers))
        .flatMap(({ rule: r }) => tcpPorts(r, direction));
      const filtered = [...new Set([...others, ...covered])].filter((port) => port !== String(HBONE_PORT));
      return [unfiltered(policy, peers, filtered, incoming)];
    }
    const shut =
      peers.length === 0
        ? !open.some((other) => other.peers.length === 0)
        : peers.some((peer) => !open.some((o) => admitsPeer(o.peers, peer)));
    // What lies outside the cluster is not in the mesh, so no tunnel leads there.
    const outside = peers.length > 0 && peers.every(({ ipBlock }) => ipBlock !== undefined);
    return shut && !outside ? [blocked(policy, peers, ports, incoming)] : [];
  });
}

function blocked(policy: string, peers: readonly NetworkPolicyPeer[], ports: readonly string[], incoming: boolean): NetworkPolicyFinding {
  const who = peersText(peers, incoming);
  return {
    effect: 'blocked',
    what: incoming ? 'tunnels-in' : 'tunnels-out',
    policy,
    message: incoming
      ? `NetworkPolicy ${policy} lets ${who} in on port ${ports.join(', ')} only; callers of the mesh come by port ${HBONE_PORT} and are shut out`
      : `NetworkPolicy ${policy} lets the pod out to ${who} on port ${ports.join(', ')} only; tunnels to pods of the mesh go to port ${HBONE_PORT} and are shut in`,
    mend: `add {protocol: TCP, port: ${HBONE_PORT}} to the ports of that rule`,
  };
}

function unfiltered(
  policy: string,
  peers: readonly NetworkPolicyPeer[],
  ports: readonly string[],
  incoming: boolean,
): NetworkPolicyFinding {
  const who = peersText(peers, incoming);
  const wanted = ports.length > 0 ? ports.map((port) => JSON.stringify(port)).join(', ') : '…';
  return {
    effect: 'unfiltered',
    what: incoming ? 'ports-in' : 'ports-out',
    policy,
    message: incoming
      ? `NetworkPolicy ${policy} lets ${who} in on port ${HBONE_PORT}, which leads to every port of the pod: for callers of the mesh it filters no ports`
      : `NetworkPolicy ${policy} lets the pod out to ${who} on port ${HBONE_PORT}, which leads to every port there: towards pods of the mesh it filters no ports`,
    mend: incoming
      ? `say it in an AuthorizationPolicy: to: [{operation: {ports: [${wanted}]}}]`
      : `say it in an AuthorizationPolicy of the destinations: to: [{operation: {ports: [${wanted}]}}]`,
  };
}

/** Node-local plaintext probes usually pass every NetworkPolicy, because they come from the node's address; in the mesh they do not. */
function probeFindings(policies: readonly NetworkPolicy[], pod: PolicedPod, sources: readonly string[]): NetworkPolicyFinding[] {
  const first = policies[0];
  if (!first) return [];
  const rules = rulesOf(policies, 'Ingress');
  const shut = pod.probePorts.filter((port) =>
    sources.some((source) => !rules.some(({ rule, peers }) => admits(rule, port) && admitsAddress(peers, source))),
  );
  if (shut.length === 0) return [];
  return [
    {
      effect: 'blocked',
      what: 'probes',
      policy: nameOf(first),
      message: `NetworkPolicy ${nameOf(first)} isolates the pod, and no policy lets the node's probes in: in the mesh they come from ${sources.join(' and ')} to port ${shut.join(', ')}`,
      mend: `add a rule with from: [${sources.map((source) => `{ipBlock: {cidr: ${source}/${source.includes(':') ? 128 : 32}}}`).join(', ')}]`,
    },
  ];
}

/** A rule that names ports lets TCP through where one of them says so; names of ports are never 15008's or a probe's by number. */
function admits({ ports = [] }: NetworkPolicyRule, wanted: number): boolean {
  if (ports.length === 0) return true;
  return ports.some(({ protocol = 'TCP', port, endPort }) => {
    if (protocol !== 'TCP') return false;
    if (port === undefined) return true;
    return typeof port === 'number' && port <= wanted && wanted <= (endPort ?? port);
  });
}

/** As people write them; none where the rule does not filter TCP ports, or is about DNS, which no tunnel carries. */
function tcpPorts({ ports = [] }: NetworkPolicyRule, direction: Direction): string[] {
  const tcp = ports.filter(({ protocol = 'TCP' }) => protocol === 'TCP');
  if (tcp.some(({ port }) => port === undefined)) return [];
  const named = tcp.map(({ port, endPort }) => (endPort === undefined ? String(port) : `${port}-${endPort}`));
  return direction === 'Egress' ? named.filter((port) => port !== String(DNS_PORT)) : named;
}

/** Whether everybody among `peers` is among `others`, as far as their texts tell. */
const coveredBy = (peers: readonly NetworkPolicyPeer[], others: readonly NetworkPolicyPeer[]): boolean =>
  peers.length === 0 || others.length === 0 || others.some((peer) => admitsPeer(peers, peer));

const admitsPeer = (peers: readonly NetworkPolicyPeer[], wanted: NetworkPolicyPeer): boolean =>
  peers.length === 0 || peers.some((peer) => canonical(peer) === canonical(wanted));

const canonical = (value: unknown): string =>
  JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part) ? Object.fromEntries(Object.entries(part).sort()) : part,
  );

function admitsAddress(peers: readonly NetworkPolicyPeer[], address: string): boolean {
  if (peers.length === 0) return true;
  const bytes = ipBytes(address);
  const within = (text: string): boolean => {
    const cidr = parseCidr(text);
    return cidr !== undefined && bytes !== undefined && cidrContains(cidr, bytes);
  };
  return peers.some(({ ipBlock }) => ipBlock !== undefined && within(ipBlock.cidr) && !(ipBlock.except ?? []).some(within));
}

function peersText(peers: readonly NetworkPolicyPeer[], incoming: boolean): string {
  if (peers.length === 0) return incoming ? 'everybody' : 'everywhere';
  return peers
    .map(({ podSelector, namespaceSelector, ipBlock }) => {
      if (ipBlock) return ipBlock.cidr;
      const pods = podSelector ? `pods ${selectorText(podSelector)}` : 'all pods';
      return namespaceSelector ? `${pods} of namespaces ${selectorText(namespaceSelector)}` : pods;
    })
    .join(', ');
}

function selectorText({ matchLabels = {}, matchExpressions = [] }: LabelSelector): string {
  const parts = [
    ...Object.entries(matchLabels).map((pair) => pair.join('=')),
    ...matchExpressions.map(({ key, operator, values = [] }) => `${key} ${operator}${values.length > 0 ? ` (${values.join(' ')})` : ''}`),
  ];
  return parts.length > 0 ? parts.join(',') : '(all)';
}

const nameOf = ({ metadata }: NetworkPolicy): string => `${metadata.namespace}/${metadata.name}`;
