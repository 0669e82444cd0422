/**
 * Labels and annotations of Istio's and ours: one that there is not, one on an object that nobody reads it from, and a label written as an
 * annotation or the other way round. All of them do nothing, in silence. Names and places are those of Istio's API (annotation, label; v1.31).
 */
import { isRecord, textMap } from '../model/objects.ts';
import type { ObjectCheck } from './analyzer.ts';
import { type Message, type MessageName, message } from './messages.ts';

/** Name → kinds that it is read from; none where any may have it. */
type Places = Readonly<Record<string, readonly string[]>>;

const on = (kinds: string, names: string): Places =>
  Object.fromEntries(names.split(/\s+/).map((name) => [name, kinds === 'any' ? [] : kinds.split(' ')] as const));

const SERVED = 'Service ServiceEntry Namespace';

const ANNOTATIONS: Places = {
  ...on('Pod', 'ambient.istio.io/bypass-inbound-capture ambient.istio.io/dns-capture ambient.istio.io/redirection'),
  ...on('Pod', 'istio.io/reroute-virtual-interfaces inject.istio.io/templates prometheus.istio.io/merge-metrics'),
  ...on('Pod', 'proxy.istio.io/config proxy.istio.io/overrides status.sidecar.istio.io/port'),
  ...on('GatewayClass Gateway', 'ambient.istio.io/waypoint-inbound-binding'),
  ...on('Gateway', 'ambient.istio.io/xfcc-include-client-identity gateway.istio.io/name-override gateway.istio.io/service-account'),
  ...on('Gateway', 'networking.istio.io/service-type networking.istio.io/address-type'),
  ...on(SERVED, 'istio.io/use-waypoint-canary-weight networking.istio.io/traffic-distribution'),
  ...on('Service', 'networking.istio.io/exportTo traffic.istio.io/nodeSelector'),
  ...on('Service', 'alpha.istio.io/canonical-serviceaccounts alpha.istio.io/kubernetes-serviceaccounts'),
  ...on('AuthorizationPolicy RateLimitPolicy', 'istio.io/dry-run'),
  ...on('WorkloadEntry', 'istio.io/autoRegistrationGroup istio.io/connectedAt istio.io/disconnectedAt istio.io/workloadController'),
  ...on('Namespace', 'topology.istio.io/controlPlaneClusters warren.dev/outbound-traffic-policy'),
  ...on('Ingress', 'kubernetes.io/ingress.class'),
  ...on('any', 'galley.istio.io/analyze-suppress'),
  ...on('Pod Namespace', 'warren.dev/require-waypoint warren.dev/require-waypoint-except-ports warren.dev/open-connections'),
  ...on('Pod', 'warren.dev/connections-outside warren.dev/enrolment-problem'),
  ...on('DestinationRule', 'warren.dev/load-balancer'),
  ...on('Namespace Node DaemonSet', 'warren.dev/bypass'),
  ...on('Namespace Node DaemonSet Pod', 'warren.dev/bypassed'),
  ...on('WorkloadEntry', 'warren.dev/health-port warren.dev/host'),
  ...on(
    'any',
    'warren.dev/installation warren.dev/definition warren.dev/ca-rotation warren.dev/ca-rotation-phase warren.dev/ca-rotation-since',
  ),
  ...on('any', 'warren.dev/ca-longest-certificate'),
};

const LABELS: Places = {
  ...on('Pod Namespace', 'istio.io/dataplane-mode'),
  ...on('Pod WorkloadEntry Service ServiceEntry Namespace', 'istio.io/use-waypoint istio.io/use-waypoint-namespace'),
  ...on(SERVED, 'istio.io/ingress-use-waypoint istio.io/use-waypoint-canary istio.io/use-waypoint-canary-namespace'),
  ...on('GatewayClass Gateway', 'istio.io/waypoint-for'),
  ...on('ServiceEntry', 'networking.istio.io/enable-autoallocate-ip'),
  ...on('Pod WorkloadEntry', 'networking.istio.io/tunnel service.istio.io/workload-name'),
  ...on('any', 'istio.io/rev istio.io/tag networking.istio.io/gatewayPort service.istio.io/canonical-name'),
  ...on('any', 'service.istio.io/canonical-revision topology.istio.io/network topology.istio.io/subzone'),
};

/** Of sidecars: known, and read by nobody here; any kind of pod may carry them. */
const SIDECARS = /^(?:[a-z.]+\.)?sidecar\.istio\.io\//;
/** Written by programs, on whatever they make. */
const WRITTEN: ReadonlySet<string> = new Set(['sidecar.istio.io/status', 'gateway.istio.io/controller-version', 'istio.io/rev']);
/** Domains whose labels are all known here; others of Istio's are for its operator and its gateways. */
const LABEL_DOMAINS: ReadonlySet<string> = new Set(['istio.io', 'ambient.istio.io', 'warren.dev']);

/** What people write these words on. */
const KINDS: ReadonlySet<string> = new Set([
  ...['Namespace', 'Service', 'Pod', 'Deployment', 'StatefulSet', 'DaemonSet', 'Gateway', 'GatewayClass', 'ServiceEntry', 'WorkloadEntry'],
  ...['AuthorizationPolicy', 'RequestAuthentication', 'PeerAuthentication', 'HTTPRoute', 'GRPCRoute', 'TCPRoute', 'TLSRoute'],
]);

export const metadataWords: ObjectCheck = {
  name: 'metadata.Words',
  doc: 'labels and annotations of the mesh that there are not, or that nobody reads there',
  *check({ kind, group, origin, object }) {
    if (!KINDS.has(kind) || (group === 'networking.istio.io' && kind === 'Gateway')) return;
    const metadata = isRecord(object.metadata) ? object.metadata : {};
    const say = (about: MessageName, text: string): Message => message(about, origin, text);
    const [labels, annotations] = [textMap(metadata.labels), textMap(metadata.annotations)];
    for (const name of Object.keys(annotations).slice(0, MOST)) {
      const problem = annotationProblem(name, kind);
      if (problem) yield say(problem.about, problem.text);
    }
    // What a controller made has the words of what it was made from.
    if (Object.hasOwn(labels, 'gateway.networking.k8s.io/gateway-name')) return;
    for (const name of Object.keys(labels).slice(0, MOST)) {
      const problem = labelProblem(name, kind);
      if (problem) yield say(problem.about, problem.text);
    }
  },
};

const MOST = 100;

interface MetadataProblem {
  readonly about: MessageName;
  readonly text: string;
}

function annotationProblem(name: string, kind: string): MetadataProblem | undefined {
  const domain = domainOf(name);
  const isOurs = domain === 'istio.io' || domain.endsWith('.istio.io') || domain === 'warren.dev' || name === 'kubernetes.io/ingress.class';
  if (!isOurs || WRITTEN.has(name)) return undefined;
  if (SIDECARS.test(name)) return kind === 'Pod' ? undefined : misplaced(name, ['Pod']);
  const places = Object.hasOwn(ANNOTATIONS, name) ? ANNOTATIONS[name] : undefined;
  if (places) return places.length === 0 || places.includes(kind) ? undefined : misplaced(name, places);
  if (Object.hasOwn(LABELS, name))
    return { about: 'misplacedAnnotation', text: `annotation ${name}: it is read as a label, and as an annotation by nobody` };
  return { about: 'unknownAnnotation', text: `annotation ${name}${meant(name, ANNOTATIONS)}` };
}

function labelProblem(name: string, kind: string): MetadataProblem | undefined {
  if (!LABEL_DOMAINS.has(domainOf(name))) return undefined;
  const places = Object.hasOwn(LABELS, name) ? LABELS[name] : undefined;
  if (places?.length === 0 || places?.includes(kind)) return undefined;
  if (places) return { about: 'misplacedLabel', text: `label ${name} on a ${kind}: it is read from ${listed(places)}` };
  if (Object.hasOwn(ANNOTATIONS, name))
    return { about: 'misplacedLabel', text: `label ${name}: it is read as an annotation, and as a label by nobody` };
  return { about: 'unknownLabel', text: `label ${name}${meant(name, LABELS)}` };
}

const misplaced = (name: string, places: readonly string[]): MetadataProblem => ({
  about: 'misplacedAnnotation',
  text: `annotation ${name} is read from ${listed(places)}`,
});

const listed = (places: readonly string[]): string =>
  `${places.slice(0, -1).join(', ')}${places.length > 1 ? ' and ' : ''}${places.at(-1)} objects`;

const domainOf = (name: string): string => (name.includes('/') ? name.slice(0, name.indexOf('/')) : '');

/** The known word that is nearest, where one is near enough to have been meant. */
function meant(name: string, known: Places): string {
  if (name.length > 80) return '';
  const [nearest] = Object.keys(known)
    .map((word) => ({ word, distance: editDistance(name, word) }))
    .sort((a, b) => a.distance - b.distance);
  return nearest && nearest.distance <= 3 ? `: did you mean ${nearest.word}?` : '';
}

/** Levenshtein's. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
