/**
 * What is to be said about one object, whether somebody has stored it or is about to: read with the readers and judged against the objects
 * with the functions that its status comes from, so that analysis and admission cannot say anything else than what istiod then does.
 * Nothing is kept of the object.
 */

import { type AuthorizationPolicy, readAuthorizationPolicy } from './authorization-policy.ts';
import { CLAIM_REFUSED, type Condition, WAYPOINT_BOUND, WAYPOINT_MISSING } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { readDestinationRule } from './destination-rule.ts';
import { readEndpointSlice } from './endpoint-slice.ts';
import { checkEnrolment } from './enrolment.ts';
import { readGateway, readGatewayClass } from './gateway.ts';
import { gatewayStatus, isOurs } from './gateway-status.ts';
import { type Outcome, unusable } from './host-translation.ts';
import { readRoute } from './http-route.ts';
import type { Inputs } from './inputs.ts';
import { MESH_CONFIG_MAP, readMeshConfig } from './mesh-config.ts';
import { at, isRecord, type Report, readMeta, records, text } from './objects.ts';
import { readPeerAuthentication } from './peer-authentication.ts';
import { readPod } from './pod.ts';
import { readTargetedPolicy, type TargetedKind, type TargetedPolicy } from './policy-targets.ts';
import { hasTargets } from './request-authentication.ts';
import { readersOf } from './route-status.ts';
import { parentSource, type RouteKind, ruleReferences } from './routes.ts';
import { readService } from './service.ts';
import { entryServices, readServiceEntry } from './service-entry.ts';
import { readTelemetry } from './telemetry.ts';
import type { Translation } from './translation.ts';
import { readVirtualService } from './virtual-service.ts';
import type { WatchedKindName } from './watched-kinds.ts';
import { readBindingWords } from './waypoint-binding.ts';
import { readWorkloadEntry } from './workload-entry.ts';

export type FindingKind =
  /** Something in it makes no sense, whatever else there is. */
  | 'unreadable'
  /** A word too many; it does what it was written for all the same. */
  | 'mild'
  /** Nobody will ever enforce it, whatever objects come. */
  | 'never'
  /** Something that it names is not there. */
  | 'missing'
  /** Read more strictly than it is written, as proxies cannot do what it says. */
  | 'stricter'
  /** Fields of HTTP in a policy that ztunnels enforce. */
  | 'http-at-l4'
  /** An ALLOW of which nothing is left, so that it refuses everything. */
  | 'deny-all'
  /** Its targets have no waypoint, so nobody enforces it. */
  | 'unbound'
  /** The waypoint that it asks for is not there. */
  | 'no-waypoint'
  /** The waypoint that it asks for is not ready. */
  | 'not-ready'
  /** The waypoint that it asks for does not take it. */
  | 'rejected'
  /** Hosts with a wildcard, which need a waypoint. */
  | 'wildcard'
  | 'claim'
  /** Another object counts instead. */
  | 'conflict'
  /** A route that no waypoint reads. */
  | 'ignored'
  /** Without effect on anything that there is. */
  | 'idle'
  | 'dry-run';

export interface Finding {
  readonly kind: FindingKind;
  readonly message: string;
}

export interface FindingsWorld {
  readonly config: MeshModelConfig;
  readonly inputs: Inputs;
  readonly translation: Translation;
}

/** Never throws for what somebody wrote into an object. */
export function findings(world: FindingsWorld, kind: WatchedKindName, object: unknown): Finding[] {
  const found: Finding[] = [];
  const meta = readMeta(object);
  if (!meta) return [{ kind: 'unreadable', message: 'it has no metadata.name' }];
  const said = new Set<string>();
  const note: Note = (about, message) => {
    const id = `${about} ${message}`;
    if (said.size >= MOST || said.has(id)) return;
    said.add(id);
    found.push({ kind: about, message });
  };
  const report: Report = (message, weight) => note(weight ?? 'unreadable', message);
  judges[kind]?.(world, object, { note, report });
  return found;
}

/** Nobody reads more of one object, and objects can be huge. */
const MOST = 100;

type Note = (kind: FindingKind, message: string) => void;

interface Outlet {
  readonly note: Note;
  readonly report: Report;
}

type Judge = (world: FindingsWorld, object: unknown, outlet: Outlet) => void;

const judges: Readonly<Partial<Record<WatchedKindName, Judge>>> = {
  Namespace(world, object, { note, report }) {
    const meta = readMeta(object);
    if (!meta) return;
    checkEnrolment(meta.labels, report);
    const words = { labels: meta.labels, annotations: {} };
    noteBinding(world, world.translation.bindings.namespaceCondition(meta.name, words), note);
  },
  Pod: (_, object, { report }) => void readPod(object, report),
  EndpointSlice: (_, object, { report }) => void readEndpointSlice(object, report),
  Service(world, object, { note, report }) {
    const service = readService(world.config, object, report);
    if (!service) return;
    const source = { key: service.key, namespace: service.namespace, words: readBindingWords(object), services: [service] };
    for (const condition of world.translation.services.conditionsOf(`Service/${service.key}`, source)) noteBinding(world, condition, note);
  },
  ServiceEntry(world, object, { note, report }) {
    const entry = readServiceEntry(world.config, object, report);
    if (!entry) return;
    const visibility = world.config.serviceEntryVisibility?.(world.inputs.namespace(entry.namespace).labels) ?? 'PUBLIC';
    const services = entryServices(entry, visibility);
    const source = { key: entry.key, namespace: entry.namespace, words: readBindingWords(object), services };
    for (const condition of world.translation.services.conditionsOf(`ServiceEntry/${entry.key}`, source, entry))
      noteBinding(world, condition, note);
  },
  WorkloadEntry(world, object, { note, report }) {
    const entry = readWorkloadEntry(object, report);
    if (entry) noteBinding(world, world.translation.bindings.memberCondition(entry.namespace, entry.labels), note);
  },
  Gateway(world, object, { note, report }) {
    const { config, inputs } = world;
    const gateway = readGateway(config, object, report);
    if (!gateway || !isOurs(config, gateway, inputs.gatewayClasses.get(gateway.className))) return;
    const { listeners = [] } = gatewayStatus(gateway, { service: undefined, ready: false, problem: undefined })({}) ?? {};
    for (const listener of listeners) {
      const accepted = records(at(listener, 'conditions')).find(({ type, status }) => type === 'Accepted' && status === 'False');
      if (accepted) note('never', `listener ${text(at(listener, 'name'))}: ${text(accepted.message)}`);
    }
    const problem = inputs.gatewayStatuses.problem(gateway.key);
    if (problem) note('idle', `it is not deployed as it is written: ${problem.message}`);
  },
  GatewayClass(_, object, { note, report }) {
    const problem = readGatewayClass(object, report)?.problem ?? '';
    if (problem !== '') note('never', problem);
  },
  ConfigMap({ config }, object, { report }) {
    const { rootNamespace, systemNamespace = rootNamespace } = config;
    const meta = readMeta(object);
    if (meta?.name === MESH_CONFIG_MAP && meta.namespace === systemNamespace) readMeshConfig(object, config, report);
  },
  HTTPRoute: judgeRoute('HTTPRoute'),
  GRPCRoute: judgeRoute('GRPCRoute'),
  TCPRoute: judgeRoute('TCPRoute'),
  TLSRoute: judgeRoute('TLSRoute'),
  VirtualService({ config, translation }, object, { note, report }) {
    const virtual = readVirtualService(config, object, report);
    if (!virtual) return;
    const { hosts } = translation;
    for (const problem of unusable(virtual)) note('unreadable', problem);
    for (const problem of hosts.delegateProblems(virtual)) note(problem.endsWith('is not there') ? 'missing' : 'idle', problem);
    for (const problem of hosts.missingDestinations(virtual)) note('missing', problem);
    if (!virtual.mesh) note('idle', 'it is for gateways alone (spec.gateways), and none of them is served here');
    noteOutcomes(hosts.virtualOutcomes(virtual), note);
  },
  DestinationRule({ config, translation }, object, { note, report }) {
    const rule = readDestinationRule(config, object, report);
    if (!rule) return;
    for (const problem of rule.problems) note('stricter', problem);
    noteOutcomes(translation.hosts.ruleOutcomes(rule), note);
  },
  AuthorizationPolicy(world, object, { note, report }) {
    const policy = readAuthorizationPolicy(world.config, object, report);
    if (policy) noteZtunnel(policy, object, note);
    noteTargets(world, object, 'AuthorizationPolicy', { note, report });
  },
  RequestAuthentication(world, object, { note, report }) {
    if (!hasTargets(object)) note('never', 'only targetRefs are read: without them it holds for nothing here');
    noteTargets(world, object, 'RequestAuthentication', { note, report });
  },
  Telemetry({ translation }, object, { note }) {
    const telemetry = readTelemetry(object);
    if (!telemetry) return;
    const { status, reason, message } = translation.telemetry.condition(telemetry);
    if (status === 'False') note(TELEMETRY_REASONS[reason] ?? 'never', message);
    else if (reason !== 'Accepted') note('idle', message);
  },
  RateLimitPolicy(world, object, { note, report }) {
    if (!hasTargets(object)) note('never', 'without targetRefs it limits nothing');
    noteTargets(world, object, 'RateLimitPolicy', { note, report });
  },
  BackendTLSPolicy(world, object, { note }) {
    // Other controllers carry these out too, and may read what we do not.
    const mild: Note = (kind, message) => note(kind === 'never' || kind === 'unreadable' ? 'stricter' : kind, message);
    noteTargets(world, object, 'BackendTLSPolicy', { note: mild, report: (message) => mild('unreadable', message) });
  },
  PeerAuthentication({ config }, object, { note }) {
    readPeerAuthentication(config.rootNamespace, object, (message) =>
      note(message.includes('has no effect') ? 'never' : 'unreadable', message),
    );
  },
};

/** Of a Telemetry that nobody carries out: whether an object to come can change that. */
const TELEMETRY_REASONS: Readonly<Record<string, FindingKind>> = {
  AncestorNotBound: 'unbound',
  TargetNotFound: 'missing',
  Conflicted: 'conflict',
};

function noteBinding({ inputs }: FindingsWorld, condition: Condition | undefined, note: Note): void {
  if (condition?.type === WAYPOINT_MISSING) note('wildcard', condition.message);
  else if (condition?.type === CLAIM_REFUSED) note('claim', condition.message);
  else if (condition?.type === WAYPOINT_BOUND && condition.status === 'False') {
    const waypoint = /^waypoint (\S+) does not exist/.exec(condition.message)?.[1];
    if (condition.reason !== 'WaypointIsNotReady' || waypoint === undefined) note('rejected', condition.message);
    else if (inputs.gateways.has(waypoint)) note('not-ready', condition.message);
    else note('no-waypoint', `there is no waypoint ${waypoint}: connections are refused until there is`);
  }
}

function noteZtunnel({ authorization, condition, httpFields }: AuthorizationPolicy, object: unknown, note: Note): void {
  if (!condition) return;
  if (condition.status === 'False') {
    note(condition.message.startsWith('action ') ? 'never' : 'dry-run', condition.message);
    return;
  }
  if (httpFields.length > 0) note('http-at-l4', condition.message);
  const written = records(at(object, 'spec', 'rules')).length;
  const action = text(at(object, 'spec', 'action')) || 'ALLOW';
  // Whoever writes no rules at all means to allow nothing.
  if (action !== 'ALLOW' || written === 0 || !authorization) return;
  const canMatch = authorization.groups.some(({ rules }) => rules.every(({ matches }) => matches.some(isConstrained)));
  if (!canMatch) note('deny-all', 'none of its rules can match at ztunnels, so it allows nothing: everything is refused');
}

const isConstrained = (match: object): boolean => Object.values(match).some((values) => Array.isArray(values) && values.length > 0);

function noteTargets({ inputs, translation }: FindingsWorld, object: unknown, kind: TargetedKind, { note, report }: Outlet): void {
  const policy = readTargetedPolicy(object, report, kind);
  if (!policy) return;
  if (isRecord(at(object, 'spec', 'selector'))) note('never', 'spec.selector has no effect beside targetRefs');
  if (policy.http?.problem !== undefined) note('stricter', policy.http.problem);
  if (policy.http?.enforced === false) note('never', 'nothing comes of its action');
  for (const address of policy.tokens ? policy.tokens.rules.flatMap(({ keysFrom }) => (keysFrom === '' ? [] : [keysFrom])) : []) {
    const problem = inputs.targeted.keysAt(address)?.problem;
    if (problem !== undefined) note('stricter', `the keys at ${address} cannot be fetched (${problem}): no token of that issuer is valid`);
  }
  for (const target of policy.targets) {
    const { bound, reason, message } = translation.policies.targetStatus(policy, target);
    if (bound) continue;
    if (reason === 'AncestorNotBound') note('unbound', message);
    else if (reason === 'Conflicted') note('conflict', message);
    else if (reason === 'Invalid' || isElsewhere(policy, target)) note('never', message);
    else if (target.kind === 'Gateway' && inputs.gateways.has(`${target.namespace}/${target.name}`)) note('not-ready', message);
    else note('missing', message);
  }
}

/** References into other namespaces are never followed. */
const isElsewhere = (policy: TargetedPolicy, { kind, namespace }: TargetedPolicy['targets'][number]): boolean =>
  kind !== 'GatewayClass' && namespace !== policy.namespace;

function noteOutcomes(outcomes: readonly Outcome[], note: Note): void {
  for (const { ok, reason, message } of outcomes) {
    if (ok) continue;
    note(reason === 'Conflicted' ? 'conflict' : reason === 'AncestorNotBound' ? 'unbound' : 'idle', message);
  }
}

function judgeRoute(kind: RouteKind): Judge {
  return ({ inputs, translation }, object, { note, report }) => {
    const said: Parameters<Report>[] = [];
    const route = readRoute(kind, object, (...words) => said.push(words));
    if (!route) return;
    const inVain = translation.routes.waypointParents(route);
    // A route of another controller's Gateways is that one's to judge.
    if (route.parents.length > 0 && inVain.length === 0 && route.parents.every((parent) => parentSource(parent) === undefined)) return;
    for (const words of said) report(...words);
    for (const rule of route.rules) {
      for (const problem of rule.unreadable) note('unreadable', `${rule.name}: ${problem}`);
      if (rule.unsupported.length > 0)
        note('stricter', `${rule.name} answers 500, as waypoints do not support ${rule.unsupported.join(', ')}`);
      for (const reference of ruleReferences(rule)) {
        const { problem } = translation.routes.backends.resolve(reference, route);
        if (problem) note(problem.reason === 'InvalidKind' ? 'stricter' : 'missing', problem.message);
      }
    }
    for (const parent of route.parents) {
      const source = parentSource(parent);
      if (source === undefined) continue;
      const found = inputs.services.get(source);
      const place = `${parent.kind} ${parent.namespace}/${parent.name}`;
      if (!found) note('missing', `there is no ${place}`);
      else if (translation.bindings.waypointsOf(source).length === 0)
        note('ignored', `neither ${place} nor its namespace names a waypoint (istio.io/use-waypoint) that takes it`);
      else if (readersOf(route, { namespace: found.namespace, waypoints: translation.bindings.waypointsOf(source) }).length === 0)
        note('ignored', `waypoints read routes of the namespace of ${place} and of their own only`);
    }
    for (const key of inVain)
      note('ignored', `Gateway ${key} is a waypoint: a route has no effect there, it attaches to the services behind it`);
  };
}
