/**
 * Where each authorization policy and each rate limit is enforced: at nodes, at waypoints, nowhere, or in part, and because of what. Pure: from the objects, from
 * what istiod says in their status, and from which pods are in the mesh.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { enrolledPods, isCandidate } from '../status/enrolment.ts';

export interface Covered {
  /** `namespace/name`. */
  readonly policy: string;
  readonly action: string;
  readonly enforced: 'node' | 'waypoint' | 'in part' | 'nowhere';
  readonly because: string;
}

export interface Seen {
  readonly policies: readonly KubeObject[];
  readonly rateLimits?: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  /** Who dialled pods past their service's waypoint, as far as proxies remember. */
  readonly passedBy?: readonly Passed[];
  /** Policies there hold for all namespaces. */
  readonly rootNamespace: string;
}

export interface Passed {
  /** Hostname of the service. */
  readonly service: string;
  readonly count: number;
  readonly callers: string;
}

interface PolicySpec {
  readonly action?: string;
  readonly selector?: { readonly matchLabels?: Readonly<Record<string, string>> };
  readonly targetRef?: TargetReference;
  readonly targetRefs?: readonly TargetReference[];
}

interface TargetReference {
  readonly kind?: string;
  readonly name?: string;
}

interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
}

export function coverage({ policies, rateLimits = [], pods, passedBy = [], rootNamespace }: Seen): Covered[] {
  const candidates = pods.filter(isCandidate);
  return [...[...policies].sort(byKey), ...[...rateLimits].sort(byKey)].map((policy) => {
    if (rateLimits.includes(policy)) {
      const [enforced, because] = atTargets(policy);
      return { policy: keyOf(policy), action: 'LIMIT', enforced, because };
    }
    const { action = 'ALLOW', targetRef, targetRefs = [] } = (policy.spec ?? {}) as PolicySpec;
    const targeted = targetRef !== undefined || targetRefs.length > 0;
    const [enforced, because] = targeted
      ? besidesWaypoint(policy, [...(targetRef ? [targetRef] : []), ...targetRefs], passedBy, atWaypoint(policy))
      : atNodes(policy, candidates, rootNamespace);
    return { policy: keyOf(policy), action, enforced, because };
  });
}

const byKey = (a: KubeObject, b: KubeObject): number => (keyOf(a) < keyOf(b) ? -1 : 1);

type Verdict = readonly [enforced: Covered['enforced'], because: string];

function atWaypoint(policy: KubeObject): Verdict {
  const condition = conditionOf(policy, 'WaypointAccepted');
  if (!condition) return ['nowhere', 'istiod has not said yet whether a waypoint has it'];
  const message = condition.message ?? '';
  if (condition.status !== 'True') return ['nowhere', `${condition.reason}: ${message}`];
  return condition.reason === 'Accepted' ? ['waypoint', message] : ['in part', `${condition.reason}: ${message}`];
}

/** What a waypoint enforces does not reach who dials the pods behind it. */
function besidesWaypoint(policy: KubeObject, targets: readonly TargetReference[], passedBy: readonly Passed[], verdict: Verdict): Verdict {
  if (verdict[0] === 'nowhere') return verdict;
  const hosts = targets.flatMap(({ kind, name }) => (kind === 'Service' ? [`${name}.${policy.metadata.namespace}.svc.`] : []));
  const passed = passedBy.filter(({ service }) => hosts.some((host) => service.startsWith(host)));
  if (passed.length === 0) return verdict;
  const who = passed.map(({ service, callers }) => `${callers} dialled pods of ${service}`).join('; ');
  return ['in part', `${verdict[1]}; passed by: ${who} (warren.dev/require-waypoint refuses that)`];
}

/** Of policies whose status has an entry for each target. */
function atTargets({ status }: KubeObject): Verdict {
  const entries = (status as { ancestors?: readonly { conditions?: readonly Condition[] }[] } | undefined)?.ancestors ?? [];
  const accepted = entries.flatMap(({ conditions = [] }) => conditions.filter(({ type }) => type === 'Accepted'));
  if (accepted.length === 0) return ['nowhere', 'istiod has not said yet whether a waypoint has it'];
  const messages = (some: readonly Condition[]): string =>
    [...new Set(some.map(({ reason, message }) => `${reason}: ${message}`))].join('; ');
  const [first] = accepted;
  const failed = accepted.filter(({ status: state }) => state !== 'True');
  if (failed.length === accepted.length) return ['nowhere', messages(failed)];
  const differing = accepted.filter(({ reason }) => reason !== 'Accepted');
  return differing.length > 0 ? ['in part', messages(differing)] : ['waypoint', first?.message ?? ''];
}

function atNodes(policy: KubeObject, candidates: readonly KubeObject[], rootNamespace: string): Verdict {
  const { selector } = (policy.spec ?? {}) as PolicySpec;
  const wanted = Object.entries(selector?.matchLabels ?? {});
  const everywhere = policy.metadata.namespace === rootNamespace;
  const selected = candidates.filter(
    ({ metadata }) =>
      (everywhere || metadata.namespace === policy.metadata.namespace) &&
      wanted.every(([name, value]) => metadata.labels?.[name] === value),
  );
  const enrolled = enrolledPods(selected).length;
  if (selected.length === 0) return ['nowhere', wanted.length > 0 ? `no pod has ${labelText(wanted)}` : 'its namespace has no pods'];
  if (enrolled === 0) return ['nowhere', `none of its ${count(selected.length)} is in the mesh`];
  const condition = conditionOf(policy, 'ZtunnelAccepted');
  if (!condition) return ['nowhere', 'istiod has not said yet whether ztunnels have it'];
  const message = condition.message ?? '';
  if (condition.status !== 'True') return ['nowhere', `${condition.reason}: ${message}`];
  if (condition.reason !== 'Accepted') return ['in part', `${condition.reason}: ${message}`];
  if (enrolled < selected.length) return ['in part', `${selected.length - enrolled} of its ${count(selected.length)} are not in the mesh`];
  return ['node', `at ${count(enrolled)}`];
}

const conditionOf = ({ status }: KubeObject, type: string): Condition | undefined =>
  ((status as { conditions?: readonly Condition[] } | undefined)?.conditions ?? []).find((condition) => condition.type === type);

const keyOf = ({ metadata }: KubeObject): string => `${metadata.namespace}/${metadata.name}`;

const labelText = (labels: readonly (readonly [string, string])[]): string => labels.map(([name, value]) => `${name}=${value}`).join(',');

const count = (pods: number): string => `${pods} pod${pods === 1 ? '' : 's'}`;
