/**
 * Whether STRICT or a policy applies to a pod, as far as connections outside the mesh are concerned: ztunnel does not see them, so as soon
 * as something should decide about the pod's connections they may not stay. In doubt the stricter reading holds: a policy for a waypoint
 * or a service of the namespace counts for each of its pods, as what is outside the mesh goes past the waypoint. Pure.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import type { Labels } from '../../common/decision/label-selector.ts';

/** What is kept of a PeerAuthentication or an AuthorizationPolicy. */
export interface PolicyObject extends KubeObject {
  readonly spec?: {
    readonly selector?: { readonly matchLabels?: Labels };
    readonly targetRef?: unknown;
    readonly targetRefs?: readonly unknown[];
    readonly action?: string;
    readonly mtls?: { readonly mode?: string };
    readonly portLevelMtls?: Readonly<Record<string, { readonly mode?: string }>>;
  };
}

export interface MeshPolicies {
  readonly peerAuthentications: Iterable<PolicyObject>;
  readonly authorizationPolicies: Iterable<PolicyObject>;
  /** Policies here hold for the whole mesh. */
  readonly rootNamespace: string;
}

/** Why connections past the mesh may not stay: for the log, events and people. `policy` is namespace/name. */
export interface AppliedPolicy {
  readonly kind: 'PeerAuthentication' | 'AuthorizationPolicy';
  readonly policy: string;
}

const DRY_RUN = 'istio.io/dry-run';

/** @returns the first that applies: STRICT before policies; undefined where every connection is let in */
export function appliedPolicy(policies: MeshPolicies, { metadata }: KubeObject): AppliedPolicy | undefined {
  const { namespace = '', labels = {} } = metadata;
  const strict = strictBy(policies, namespace, labels);
  if (strict) return { kind: 'PeerAuthentication', policy: nameOf(strict) };
  for (const policy of policies.authorizationPolicies) {
    if (restricts(policy, policies.rootNamespace, namespace, labels)) return { kind: 'AuthorizationPolicy', policy: nameOf(policy) };
  }
  return undefined;
}

/** The narrowest PeerAuthentication with a mode decides; of several the oldest. A single STRICT port of the workload is enough. */
function strictBy({ peerAuthentications, rootNamespace }: MeshPolicies, namespace: string, labels: Labels): PolicyObject | undefined {
  const all = [...peerAuthentications].sort(oldestFirst);
  const workload = all.filter((policy) => policy.metadata.namespace === namespace && selector(policy) && selects(policy, labels));
  const port = workload.find(({ spec }) => Object.values(spec?.portLevelMtls ?? {}).some(({ mode }) => mode === 'STRICT'));
  if (port) return port;
  const wide = (where: string): PolicyObject[] => all.filter((policy) => policy.metadata.namespace === where && !selector(policy));
  const levels = [workload, wide(namespace), wide(rootNamespace)];
  for (const level of levels) {
    const deciding = level.find(({ spec }) => !['', 'UNSET'].includes(spec?.mtls?.mode ?? ''));
    if (deciding) return deciding.spec?.mtls?.mode === 'STRICT' ? deciding : undefined;
  }
  return undefined;
}

function restricts(policy: PolicyObject, rootNamespace: string, namespace: string, labels: Labels): boolean {
  const { metadata, spec = {} } = policy;
  if (spec.action === 'AUDIT' || metadata.annotations?.[DRY_RUN] === 'true') return false;
  const targets = [...(spec.targetRefs ?? []), ...(spec.targetRef === undefined ? [] : [spec.targetRef])];
  if (targets.length > 0) return metadata.namespace === namespace;
  return (metadata.namespace === namespace || metadata.namespace === rootNamespace) && selects(policy, labels);
}

/** undefined where the policy is for a whole namespace. */
function selector({ spec }: PolicyObject): Labels | undefined {
  const labels = spec?.selector?.matchLabels;
  return labels && Object.keys(labels).length > 0 ? labels : undefined;
}

const selects = (policy: PolicyObject, labels: Labels): boolean =>
  Object.entries(selector(policy) ?? {}).every(([key, value]) => labels[key] === value);

function oldestFirst(a: PolicyObject, b: PolicyObject): number {
  const time = ({ metadata }: PolicyObject): string => metadata.creationTimestamp ?? '';
  return time(a) < time(b) ? -1 : time(a) > time(b) ? 1 : nameOf(a) < nameOf(b) ? -1 : 1;
}

const nameOf = ({ metadata }: PolicyObject): string => `${metadata.namespace}/${metadata.name}`;

/** For the watch's store: a mesh's policies are many, and only this much of each is asked for. */
export function keepPolicy({ metadata, spec = {} }: PolicyObject): PolicyObject {
  const { name, namespace, uid, resourceVersion, creationTimestamp, annotations } = metadata;
  const { selector: whom, targetRef, targetRefs, action, mtls, portLevelMtls } = spec;
  return {
    metadata: {
      ...(name !== undefined && { name }),
      ...(namespace !== undefined && { namespace }),
      ...(uid !== undefined && { uid }),
      ...(resourceVersion !== undefined && { resourceVersion }),
      ...(creationTimestamp !== undefined && { creationTimestamp }),
      ...(annotations?.[DRY_RUN] !== undefined && { annotations: { [DRY_RUN]: annotations[DRY_RUN] } }),
    },
    spec: {
      ...(whom && { selector: whom }),
      ...(targetRef !== undefined && { targetRef }),
      ...(targetRefs && { targetRefs }),
      ...(action !== undefined && { action }),
      ...(mtls && { mtls }),
      ...(portLevelMtls && { portLevelMtls }),
    },
  };
}
