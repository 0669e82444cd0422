/**
 * Policies that name their targets (Istio, pilot/pkg/security/authz): they are for waypoints, and until one stands behind a target nobody enforces
 * them, which their status must say.
 */

import { type BackendTls, readBackendTls } from './backend-tls-policy.ts';
import { type Condition, WAYPOINT_ACCEPTED } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import type { GatewayClass } from './gateway.ts';
import { type HttpPolicy, readHttpPolicy } from './http-policy.ts';
import * as names from './names.ts';
import { at, isRecord, objectKey, type Report, readMeta, records, text } from './objects.ts';
import { type LimitPolicy, readLimitPolicy } from './rate-limit-policy.ts';
import { type KeysAt, readTokenPolicy, type TokenPolicy, tokenProblem } from './request-authentication.ts';
import type { WaypointBinding } from './waypoint-binding.ts';

export interface TargetedPolicy {
  /** `Kind namespace/name` */
  readonly id: string;
  readonly kind: TargetedKind;
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly createdAt: string;
  readonly generation: number;
  readonly targets: readonly PolicyTarget[];
  /** Of an AuthorizationPolicy. */
  readonly http: HttpPolicy | undefined;
  /** Of a RequestAuthentication. */
  readonly tokens: TokenPolicy | undefined;
  /** Of a RateLimitPolicy. */
  readonly limits: LimitPolicy | undefined;
  /** Of a BackendTLSPolicy. */
  readonly tls: BackendTls | undefined;
}

export type TargetedKind = 'AuthorizationPolicy' | 'RequestAuthentication' | 'RateLimitPolicy' | 'BackendTLSPolicy';

/** What of a policy its targets are judged by. */
export interface PolicyOfTarget extends Pick<TargetedPolicy, 'key' | 'namespace' | 'limits'> {
  readonly tls?: TargetedPolicy['tls'];
  readonly kind: TargetedKind | 'Telemetry';
}

export interface PolicyTarget {
  readonly kind: string;
  readonly group: string;
  /** Where it is looked for; what a reference says of another namespace is never found. */
  readonly namespace: string;
  readonly name: string;
  /** A part of it; empty for all. */
  readonly section: string;
  /** As it was written, for a status that repeats it. */
  readonly written: Readonly<Record<string, unknown>>;
}

/** What became of one target. */
export interface TargetStatus {
  readonly bound: boolean;
  readonly reason: 'Accepted' | 'Invalid' | 'TargetNotFound' | 'AncestorNotBound' | 'Conflicted' | 'NoValidCACertificate';
  readonly message: string;
}

/** What a policy's targets are looked up in. Services and ServiceEntries are asked for by their source, `Kind/namespace/name`. */
export interface TargetView {
  /** What became of its binding to a waypoint; undefined where there is no such object. */
  bindingOf(source: string): WaypointBinding | undefined;
  /** Whether a Gateway is there and ready to be a waypoint. */
  isWaypoint(key: string): boolean;
  gatewayClass(name: string): GatewayClass | undefined;
  /** What became of a route: whether it is there, has a rule of that name, and which waypoints read it. */
  route(id: string, section: string): { readonly hasSection: boolean; readonly waypoints: readonly string[] } | undefined;
  /** A Service or ServiceEntry, and the waypoints that send to it. */
  backend(source: string, port: string): { readonly hasPort: boolean; readonly waypoints: readonly string[] } | undefined;
  /** The policy of the same kind that counts for the target instead. */
  older(policy: PolicyOfTarget, target: PolicyTarget): string | undefined;
}

/** @returns undefined for a policy without targets */
export function readTargetedPolicy(
  object: unknown,
  report: Report,
  kind: TargetedKind = 'AuthorizationPolicy',
): TargetedPolicy | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const targets = readTargets(object, meta.namespace);
  if (targets.length === 0) return undefined;
  const key = objectKey(meta);
  return {
    id: `${kind} ${key}`,
    kind,
    key,
    namespace: meta.namespace,
    name: meta.name,
    createdAt: meta.createdAt,
    generation: meta.generation,
    targets,
    http: kind === 'AuthorizationPolicy' ? readHttpPolicy(object, report) : undefined,
    tokens: kind === 'RequestAuthentication' ? readTokenPolicy(object, report) : undefined,
    limits: kind === 'RateLimitPolicy' ? readLimitPolicy(object, report) : undefined,
    tls: kind === 'BackendTLSPolicy' ? readBackendTls(object, meta.namespace, report) : undefined,
  };
}

/** What `targetRef` and `targetRefs` name. @param own the object's namespace */
export function readTargets(object: unknown, own: string): PolicyTarget[] {
  const single = at(object, 'spec', 'targetRef');
  return [...(isRecord(single) ? [single] : []), ...records(at(object, 'spec', 'targetRefs'))].map((reference) => ({
    kind: text(reference.kind),
    group: text(reference.group) === 'core' ? '' : text(reference.group),
    namespace: text(reference.namespace) || own,
    name: text(reference.name),
    section: text(reference.sectionName),
    written: reference,
  }));
}

/** Whose change a target's status depends on: `Kind/namespace/name`, or `GatewayClass/name`. */
export const targetSource = ({ kind, namespace, name }: PolicyTarget): string =>
  kind === 'GatewayClass' ? `${kind}/${name}` : `${kind}/${namespace}/${name}`;

/** What a target stands for where it counts at all; what is bound to whom is for others to find out. */
export function targetScope(
  config: MeshModelConfig,
  policy: PolicyOfTarget,
  { kind, group, namespace, name, section }: PolicyTarget,
  gatewayClass: TargetView['gatewayClass'],
): 'class' | 'gateway' | 'service' | 'route' | 'none' {
  if (isRoute(policy, kind, group)) return namespace === policy.namespace ? 'route' : 'none';
  // Of endpoints, not of those who call: whoever sends to them.
  if (policy.tls) return 'none';
  if (section !== '' && policy.kind === 'RateLimitPolicy') return 'none';
  if (kind === 'GatewayClass' && group === GATEWAY_API) {
    const found = policy.namespace === config.rootNamespace ? gatewayClass(name) : undefined;
    return found?.controller === names.WAYPOINT_CONTROLLER ? 'class' : 'none';
  }
  if (!TARGET_KINDS.has(`${kind}.${group}`) || namespace !== policy.namespace) return 'none';
  return kind === 'Gateway' ? 'gateway' : 'service';
}

export function targetStatus(config: MeshModelConfig, policy: PolicyOfTarget, target: PolicyTarget, view: TargetView): TargetStatus {
  const { kind, group, namespace, name, section } = target;
  const place = `${namespace}/${name}`;
  const older = view.older(policy, target);
  if (older !== undefined) return no('Conflicted', `${policy.kind} ${older} is older and counts for ${kind} ${place}`);
  if (policy.tls) return backendStatus(policy, target, view);
  if (isRoute(policy, kind, group)) return routeStatus(policy, target, view);
  if (section !== '' && policy.kind === 'RateLimitPolicy')
    return no('Invalid', `a part of ${kind} ${place} cannot be a target (sectionName)`);
  if (kind === 'GatewayClass' && group === GATEWAY_API) return classStatus(config, policy, name, view);
  if (!TARGET_KINDS.has(`${kind}.${group}`)) return no('Invalid', `a policy cannot target ${kind}${group === '' ? '' : `.${group}`}`);
  if (namespace !== policy.namespace) return no('TargetNotFound', `${kind} ${place} is in another namespace`);
  if (kind === 'Gateway') {
    return view.isWaypoint(place) ? yes(`bound to ${place}`) : no('TargetNotFound', `Gateway ${place} does not exist or is not ready`);
  }
  const binding = view.bindingOf(`${kind}/${place}`);
  switch (binding?.at) {
    case undefined:
      return no('TargetNotFound', `there is no ${kind} ${place}`);
    case 'bound':
      return yes(`bound to ${binding.waypoint}`);
    case 'absent':
      return no('AncestorNotBound', `waypoint ${binding.waypoint} of ${kind} ${place} does not exist or has no address yet`);
    case 'rejected':
      return no('AncestorNotBound', `waypoint ${binding.waypoint} does not take ${kind} ${place}: ${binding.message}`);
    case 'unbound':
      return no('AncestorNotBound', `${kind} ${place} names no waypoint (${names.USE_WAYPOINT}), and nobody else enforces the policy`);
  }
}

/** Of a Service or ServiceEntry, and of one of its ports, whoever sends to it. */
function backendStatus(policy: PolicyOfTarget, { kind, group, namespace, name, section }: PolicyTarget, view: TargetView): TargetStatus {
  const place = `${namespace}/${name}`;
  if (kind === 'Gateway' || !TARGET_KINDS.has(`${kind}.${group}`))
    return no('TargetNotFound', `TLS is begun with a Service or ServiceEntry, not with a ${kind}${group === '' ? '' : `.${group}`}`);
  if (namespace !== policy.namespace) return no('TargetNotFound', `${kind} ${place} is in another namespace`);
  const backend = view.backend(`${kind}/${place}`, section);
  if (!backend) return no('TargetNotFound', `there is no ${kind} ${place}`);
  if (!backend.hasPort) return no('TargetNotFound', `${kind} ${place} has no port named ${section}`);
  if (backend.waypoints.length === 0) return no('AncestorNotBound', `no waypoint serves ${kind} ${place} or sends to it`);
  return yes(`TLS is begun by ${backend.waypoints.join(' and ')}`);
}

/** Rules of a route are parts of it. */
function routeStatus(policy: PolicyOfTarget, { kind, namespace, name, section }: PolicyTarget, view: TargetView): TargetStatus {
  const place = `${namespace}/${name}`;
  if (namespace !== policy.namespace) return no('TargetNotFound', `${kind} ${place} is in another namespace`);
  const route = view.route(`${kind} ${place}`, section);
  if (!route) return no('TargetNotFound', `there is no ${kind} ${place}`);
  if (!route.hasSection) return no('TargetNotFound', `${kind} ${place} has no rule named ${section}`);
  if (route.waypoints.length === 0)
    return no('AncestorNotBound', `no waypoint reads ${kind} ${place}, and nobody else enforces the policy`);
  return yes(`bound to ${route.waypoints.join(' and ')}`);
}

const isRoute = (policy: PolicyOfTarget, kind: string, group: string): boolean =>
  policy.kind === 'RateLimitPolicy' && group === GATEWAY_API && (kind === 'HTTPRoute' || kind === 'GRPCRoute');

/** Who counts where two policies of one kind have the same target: the older one, and of equals the one whose name comes first. */
export const countsBefore = (a: TargetedPolicy, b: TargetedPolicy): boolean =>
  a.createdAt !== b.createdAt ? a.createdAt < b.createdAt : a.key < b.key;

/** For policies whose status has an entry for each target. */
export function targetConditions(policy: TargetedPolicy, status: TargetStatus): Condition[] {
  const problem = policy.limits?.problem;
  const nothing = policy.limits?.limits.length === 0;
  if (!status.bound || problem === undefined)
    return [{ type: 'Accepted', status: status.bound ? 'True' : 'False', reason: status.reason, message: status.message }];
  return [
    {
      type: 'Accepted',
      status: nothing ? 'False' : 'True',
      reason: nothing ? 'Invalid' : 'PartiallyInvalid',
      message: `${status.message}; not as written: ${problem}`.slice(0, LONGEST),
    },
  ];
}

// The API server takes 32 KiB of a message.
const LONGEST = 2000;

/** One condition for all targets: False where none is bound, and with the names of those that are not. */
export function targetsCondition(
  policy: TargetedPolicy,
  statusOf: (target: PolicyTarget) => TargetStatus,
  keysAt: KeysAt,
  /** Why nobody can be asked about what the policy matches. */
  unasked: string | undefined,
): Condition {
  const statuses = policy.targets.map((target) => ({ target, ...statusOf(target) }));
  const failed = statuses.filter(({ bound }) => !bound);
  const condition = (status: 'True' | 'False', reason: string, message: string): Condition => ({
    type: WAYPOINT_ACCEPTED,
    status,
    reason,
    message,
    observedGeneration: policy.generation,
  });
  const refusing = unasked === undefined ? undefined : `${unasked}: what the rules match is refused`;
  const http = [refusing, policy.http?.problem].filter((sentence) => sentence !== undefined).join('. ');
  const problem = policy.tokens ? tokenProblem(policy.tokens, keysAt) : http === '' ? undefined : http;
  const enforced = policy.http?.enforced ?? true;
  const first = failed[0];
  if (problem !== undefined && failed.length < statuses.length) {
    const unbound = failed.length > 0 ? `. Also not enforced: ${sentences(failed)}` : '';
    return condition(enforced ? 'True' : 'False', 'UnsupportedValue', `${problem}${unbound}`);
  }
  if (failed.length === 0) return condition('True', 'Accepted', sentences(statuses));
  if (failed.length < statuses.length) {
    const names = failed.map(({ target }) => `${target.kind}.${target.group || 'core'}:${target.namespace}/${target.name}`).join(', ');
    return condition('True', 'PartiallyInvalid', `not enforced for ${names}: ${sentences(failed)}`);
  }
  return condition('False', first?.reason ?? 'Invalid', sentences(failed));
}

const GATEWAY_API = 'gateway.networking.k8s.io';

const TARGET_KINDS = new Set(['Service.', 'ServiceEntry.networking.istio.io', `Gateway.${GATEWAY_API}`]);

const yes = (message: string): TargetStatus => ({ bound: true, reason: 'Accepted', message });

const no = (reason: TargetStatus['reason'], message: string): TargetStatus => ({ bound: false, reason, message });

const sentences = (statuses: readonly { readonly message: string }[]): string =>
  [...new Set(statuses.map(({ message }) => message))].join('; ');

/** A class stands for all waypoints of the mesh, so only the root namespace may name it. */
function classStatus(
  { rootNamespace }: MeshModelConfig,
  policy: Pick<TargetedPolicy, 'namespace'>,
  name: string,
  view: TargetView,
): TargetStatus {
  if (policy.namespace !== rootNamespace)
    return no('Invalid', `only policies of the root namespace ${rootNamespace} may target a GatewayClass`);
  const found = view.gatewayClass(name);
  if (!found) return no('TargetNotFound', `there is no GatewayClass ${name}`);
  if (found.controller !== names.WAYPOINT_CONTROLLER)
    return no('Invalid', `GatewayClass ${name} is not of waypoints: its controller is ${found.controller || 'none'}`);
  return yes(`bound to all waypoints of class ${name}`);
}
