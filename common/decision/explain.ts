/**
 * Decisions told step by step, for `meshctl explain`: the functions that the data path asks, asked with words. Pure. What comes out is plain data
 * made for JSON: proxies answer with it, meshctl prints it.
 */
import { formatCidr, formatSocketAddress, type SocketAddress } from '../base/address.ts';
import { formatSpiffeId, type SpiffeId } from '../base/spiffe.ts';
import { chooseServiceByAddress } from './choose-service.ts';
import { describeGateway } from './gateway.ts';
import { resolveInbound } from './inbound.ts';
import { type MeshView, type Policy, type PolicyMatch, policyKey, type StringMatch, serviceKey, type Workload } from './mesh-view.ts';
import { type OutboundRequest, type OutboundRoute, routeOutbound, workloadIdentity } from './outbound.ts';
import {
  applicablePolicies,
  decidePolicy,
  MATCH_FIELDS,
  matchHolds,
  NO_MATCH,
  type PolicyInput,
  type PolicySubject,
  policySubject,
} from './policy.ts';

export interface Step {
  readonly stage: 'capture' | 'name' | 'service' | 'waypoint' | 'route' | 'destination' | 'token' | 'policy' | 'limit';
  readonly text: string;
}

export interface PodSeen {
  readonly uid: string;
  readonly namespace: string;
  readonly name: string;
  readonly node: string;
  /** SPIFFE URI. */
  readonly identity: string;
}

/** One of the ways that a connection may take; which, chance decides by weight. */
export interface RouteSeen {
  /** `answer`: by the proxy itself, as a rule wants it. */
  readonly via: 'passthrough' | 'tcp' | 'hbone' | 'double-hbone' | 'resolve' | 'refuse' | 'answer';
  /** Of all connections, between 0 and 1. */
  readonly share: number;
  /** What is dialled. */
  readonly to?: string;
  /** Of the CONNECT request. */
  readonly authority?: string;
  /** Any of these the other end must prove. */
  readonly peers?: readonly string[];
  readonly waypoint?: boolean;
  /** `namespace/hostname`. */
  readonly service?: string;
  readonly pod?: PodSeen;
  readonly code?: string;
  /** HTTP status of an answer. */
  readonly status?: number;
  readonly message?: string;
}

export interface OutboundExplanation {
  readonly source: PodSeen;
  readonly steps: readonly Step[];
  /** Likeliest first. */
  readonly routes: readonly RouteSeen[];
}

export interface PolicySeen {
  readonly policy: string;
  readonly action: 'ALLOW' | 'DENY';
  readonly dryRun: boolean;
  readonly matched: boolean;
  /** From 1: the rule that matched. */
  readonly rule?: number;
  /** For each rule that did not match, what it lacked. */
  readonly unmet: readonly string[];
}

export interface InboundExplanation {
  readonly steps: readonly Step[];
  /** What is dialled inside the pod. */
  readonly to?: string;
  readonly policies: readonly PolicySeen[];
  readonly allowed: boolean;
  readonly code?: string;
  /** That decided. */
  readonly policy?: string;
  readonly reason: string;
}

/** Draws from chance, so that each endpoint of any but the largest services is seen. */
const DRAWS = 128;
const MAX_ROUTES = 16;

/** How a pod's connection leaves it. `request.random` is not used: all that chance can bring is shown. */
export function explainOutbound(view: MeshView, request: Omit<OutboundRequest, 'random'>): OutboundExplanation {
  const { source, destination, network } = request;
  const owner = view.workloadByAddress(network, destination.ip);
  const service = owner ? undefined : chooseServiceByAddress(view, network, destination.ip, source.namespace);
  const steps: Step[] = [];
  if (service) {
    steps.push({ stage: 'service', text: `${destination.ip} is Service ${service.namespace}/${service.name} (${service.hostname})` });
    const ports = [...service.ports.keys()];
    if (!service.ports.has(destination.port))
      steps.push({ stage: 'service', text: `it has no port ${destination.port}, but ${ports.join(', ') || 'none'}` });
    for (const { gateway, weight } of service.weightedWaypoints)
      steps.push({ stage: 'waypoint', text: `bound to waypoint ${describeGateway(gateway)} with weight ${weight}` });
    if (service.weightedWaypoints.length === 0)
      steps.push({
        stage: 'waypoint',
        text: service.waypoint ? `bound to waypoint ${describeGateway(service.waypoint)}` : 'bound to no waypoint',
      });
  } else if (owner) {
    steps.push({ stage: 'service', text: `${destination.ip} is ${describe(owner)} itself: no Service, and no Service's waypoint` });
    steps.push({
      stage: 'waypoint',
      text: owner.waypoint ? `bound to waypoint ${describeGateway(owner.waypoint)}` : 'bound to no waypoint',
    });
  } else steps.push({ stage: 'service', text: `${destination.ip} is nothing that the mesh knows` });
  return { source: podOf(source), steps, routes: routesOf(view, request) };
}

function routesOf(view: MeshView, request: Omit<OutboundRequest, 'random'>): RouteSeen[] {
  const counted = new Map<string, { route: OutboundRoute; count: number }>();
  const random = draws();
  for (let i = 0; i < DRAWS; i++) {
    const route = routeOutbound(view, { ...request, random });
    const key =
      'refuse' in route
        ? `${route.refuse} ${route.message}`
        : `${route.via} ${'to' in route ? formatSocketAddress(route.to) : ''} ${'authority' in route ? route.authority : ''}`;
    const seen = counted.get(key);
    if (seen) seen.count++;
    else counted.set(key, { route, count: 1 });
  }
  const sorted = [...counted.values()].sort((a, b) => b.count - a.count).slice(0, MAX_ROUTES);
  return sorted.map(({ route, count }) => routeSeen(route, count / DRAWS));
}

/** The same sequence each time: an answer that changes by itself would be no answer. */
function draws(): () => number {
  let state = 0x2545_f491;
  return () => {
    // xorshift32 (Marsaglia, 2003).
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

function routeSeen(route: OutboundRoute, share: number): RouteSeen {
  const service = 'service' in route && route.service ? { service: serviceKey(route.service) } : {};
  const pod = 'workload' in route && route.workload ? { pod: podOf(route.workload) } : {};
  if ('refuse' in route) return { via: 'refuse', share, code: route.refuse, message: route.message, ...service, ...pod };
  if (route.via === 'resolve') return { via: 'resolve', share, message: `the endpoint is known by its hostname ${route.hostname} only` };
  const to = formatSocketAddress(route.to);
  if (route.via === 'hbone' || route.via === 'double-hbone')
    return {
      via: route.via,
      share,
      to,
      authority: route.authority,
      peers: route.peers,
      waypoint: route.via === 'hbone' && route.waypoint,
      ...service,
      ...pod,
    };
  return { via: route.via, share, to, ...service, ...pod };
}

/** A connection that arrives at a pod: by a tunnel, whose peer has an identity, or in the clear. */
export interface ArrivingConnection {
  readonly local: Workload;
  /** The network that this proxy is in (NETWORK). */
  readonly network: string;
  readonly source: SocketAddress;
  /** undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
  /** `:authority` of the tunnel's CONNECT; of a plaintext connection the address that it was opened to. */
  readonly authority: string;
  /** What a plaintext connection was opened to. */
  readonly destination: SocketAddress;
}

/** What becomes of a connection at its destination's ztunnel, and which policy says so. */
export function explainInbound(
  view: MeshView,
  { local, network, source, identity, authority, destination }: ArrivingConnection,
): InboundExplanation {
  const steps: Step[] = [
    {
      stage: 'destination',
      text: identity ? `a tunnel arrives whose peer proved ${formatSpiffeId(identity)}` : 'a connection arrives in the clear: no identity',
    },
  ];
  const arrived = identity ? resolveInbound(view, { local, podIp: destination.ip, network, authority }) : { to: destination };
  if ('refuse' in arrived) return { steps, policies: [], allowed: false, code: arrived.refuse, reason: arrived.message };
  const to = formatSocketAddress(arrived.to);
  steps.push({ stage: 'destination', text: `it is for ${describe(local)}, port ${arrived.to.port}` });
  const input: PolicyInput = { source, identity, destination: arrived.to };
  const { allowed, code, policy, reason } = decidePolicy(view, local, input);
  const subject = policySubject(input);
  const policies = applicablePolicies(view, local).map((each) => policySeen(each, subject));
  return { steps, to, policies, allowed, ...(code && { code }), ...(policy !== undefined && { policy }), reason };
}

function policySeen(policy: Policy, subject: PolicySubject): PolicySeen {
  const { action, dryRun, groups } = policy;
  const at = groups.findIndex((rules) =>
    rules.every((matches) => matches.length === 0 || matches.some((match) => matchHolds(match, subject))),
  );
  return {
    policy: policyKey(policy),
    action,
    dryRun,
    matched: at >= 0,
    ...(at >= 0 && { rule: at + 1 }),
    unmet: at >= 0 ? [] : groups.map((rules, i) => `rule ${i + 1}: ${unmetOf(rules, subject)}`),
  };
}

function unmetOf(rules: readonly (readonly PolicyMatch[])[], subject: PolicySubject): string {
  const failing = rules.find((matches) => matches.length > 0 && !matches.some((match) => matchHolds(match, subject)));
  const words = (failing ?? []).map((match) => unmetFields(match, subject)).filter((text) => text !== '');
  return [...new Set(words)].join(', and ') || 'nothing of it can be judged at L4';
}

/** The fields of a match that do not hold by themselves, with what stood there instead. */
function unmetFields(match: PolicyMatch, subject: PolicySubject): string {
  const fields = MATCH_FIELDS.filter((field) => match[field].length > 0 && !matchHolds({ ...NO_MATCH, [field]: match[field] }, subject));
  return fields.map((field) => `${WORDS[field]} ${match[field].map(valueText).slice(0, 5).join(' or ')}`).join(' and ');
}

const WORDS: Readonly<Record<keyof PolicyMatch, string>> = {
  namespaces: 'the source is not of namespace',
  notNamespaces: 'the source is of namespace',
  principals: 'the source is not',
  notPrincipals: 'the source is',
  sourceIps: 'the source address is not in',
  notSourceIps: 'the source address is in',
  destinationIps: 'the destination address is not in',
  notDestinationIps: 'the destination address is in',
  destinationPorts: 'the port is not',
  notDestinationPorts: 'the port is',
  serviceAccounts: 'the service account is not',
  notServiceAccounts: 'the service account is',
};

type Value = PolicyMatch[keyof PolicyMatch][number];

function valueText(value: Value): string {
  if (typeof value === 'number') return String(value);
  if ('serviceAccount' in value) return `${value.namespace}/${value.serviceAccount}`;
  if ('exact' in value || 'prefix' in value || 'suffix' in value || 'presence' in value) return matchText(value);
  return formatCidr(value);
}

function matchText(match: StringMatch): string {
  if ('exact' in match) return match.exact;
  if ('prefix' in match) return `${match.prefix}*`;
  if ('suffix' in match) return `*${match.suffix}`;
  return 'somebody with an identity';
}

const describe = ({ namespace, name, hostname }: Workload): string => `${namespace}/${name || hostname}`;

export const podOf = (workload: Workload): PodSeen => ({
  uid: workload.uid,
  namespace: workload.namespace,
  name: workload.name,
  node: workload.node,
  identity: workloadIdentity(workload),
});
