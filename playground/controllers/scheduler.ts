/**
 * Gives each unassigned pod a node: of those that its selectors, affinities and spread constraints allow, the one with the fewest pods.
 * Taints and resources are not looked at: a playground's nodes have neither.
 */
import { keyOf } from '../cluster/collections.ts';
import type { Node, Pod, PodTerm } from '../objects.ts';
import { type Controller, type ControllerOptions, splitKey, timeText } from './controller.ts';
import { isActive, meets, selects, setCondition } from './pods.ts';
import { WorkQueue } from './work-queue.ts';

const RETRY_MS = 1000;

export const scheduler: Controller = (options) => {
  const { cluster } = options;
  const queue: WorkQueue = new WorkQueue({ ...options, name: 'scheduler', reconcile: (key) => reconcile(key, options, queue) });
  const stops = [
    cluster.pods.watch(({ type, object }) => {
      if (type !== 'deleted' && !object.spec.nodeName) queue.add(keyOf(object));
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

async function reconcile(key: string, { cluster, clock }: ControllerOptions, queue: WorkQueue): Promise<void> {
  const [namespace, name] = splitKey(key);
  const pod = cluster.pods.get(namespace, name);
  if (!pod || pod.spec.nodeName || !isActive(pod) || pod.spec.schedulingGates?.length) return;
  const verdict = chooseNode(pod, cluster.nodes.list(), cluster.pods.list());
  if ('refusals' in verdict) {
    const nodes = cluster.nodes.list().length;
    const message = `0/${nodes} nodes are available: ${verdict.refusals.join(', ') || 'there are no nodes'}.`;
    await cluster.pods.modifyStatus(namespace, name, (draft) => {
      const before = draft.status?.conditions?.find(({ type }) => type === 'PodScheduled');
      if (before?.message === message) return false;
      const condition = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message } as const;
      draft.status = { ...draft.status, phase: 'Pending', conditions: setCondition(draft.status?.conditions, condition, timeText(clock)) };
      cluster.record({ about: pod, type: 'Warning', reason: 'FailedScheduling', message, source: 'default-scheduler' });
      return true;
    });
    queue.addAfter(key, RETRY_MS);
    return;
  }
  await cluster.pods.modify(namespace, name, (draft) => {
    if (draft.spec.nodeName) return false;
    draft.spec = { ...draft.spec, nodeName: verdict.node };
    return true;
  });
  const message = `Successfully assigned ${namespace}/${name} to ${verdict.node}`;
  cluster.record({ about: pod, type: 'Normal', reason: 'Scheduled', message, source: 'default-scheduler' });
}

/** Pure. */
export function chooseNode(pod: Pod, nodes: readonly Node[], pods: readonly Pod[]): { node: string } | { refusals: string[] } {
  const refusals = new Set<string>();
  const active = pods.filter((other) => isActive(other) && other.spec.nodeName && other.metadata.uid !== pod.metadata.uid);
  const onNode = (name: string): number => active.filter(({ spec }) => spec.nodeName === name).length;
  const possible = nodes.filter((node) => {
    const refusal = refusalOf(pod, node, nodes, active);
    if (refusal) refusals.add(refusal);
    return refusal === undefined;
  });
  const scored = possible.map((node) => ({ node, avoid: preferenceScore(pod, node, nodes, active), count: onNode(node.metadata.name) }));
  scored.sort((a, b) => a.avoid - b.avoid || a.count - b.count || a.node.metadata.name.localeCompare(b.node.metadata.name));
  const [best] = scored;
  return best ? { node: best.node.metadata.name } : { refusals: [...refusals] };
}

/** Whether the node's labels satisfy the pod's own wishes; DaemonSets ask the same. */
export function fitsNode(pod: Pick<Pod, 'spec'>, node: Node): boolean {
  const labels = node.metadata.labels ?? {};
  if (!Object.entries(pod.spec.nodeSelector ?? {}).every(([key, value]) => labels[key] === value)) return false;
  const terms = pod.spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  if (!terms) return true;
  return terms.some(
    ({ matchExpressions = [], matchFields = [] }) =>
      matchExpressions.every((requirement) => meets(requirement, labels[requirement.key])) &&
      matchFields.every((requirement) => requirement.key === 'metadata.name' && meets(requirement, node.metadata.name)),
  );
}

function refusalOf(pod: Pod, node: Node, nodes: readonly Node[], active: readonly Pod[]): string | undefined {
  if (node.spec?.unschedulable) return 'node(s) were unschedulable';
  if (!fitsNode(pod, node)) return "node(s) didn't match Pod's node affinity/selector";
  const apart = pod.spec.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  if (apart.some((term) => matching(term, pod, node, nodes, active) > 0)) return "node(s) didn't match pod anti-affinity rules";
  const together = pod.spec.affinity?.podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  const lonely = together.some(
    (term) => matching(term, pod, node, nodes, active) === 0 && !selects(term.labelSelector, pod.metadata.labels),
  );
  if (lonely) return "node(s) didn't match pod affinity rules";
  for (const spread of pod.spec.topologySpreadConstraints ?? []) {
    if (spread.whenUnsatisfiable === 'ScheduleAnyway') continue;
    const counts = nodes.map((other) => matching(spread, pod, other, nodes, active));
    if (matching(spread, pod, node, nodes, active) + 1 - Math.min(...counts) > (spread.maxSkew ?? 1))
      return "node(s) didn't match pod topology spread constraints";
  }
  return undefined;
}

function preferenceScore(pod: Pod, node: Node, nodes: readonly Node[], active: readonly Pod[]): number {
  const apart = pod.spec.affinity?.podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? [];
  const spread = pod.spec.topologySpreadConstraints ?? [];
  return (
    apart.reduce((sum, { weight, podAffinityTerm }) => sum + weight * matching(podAffinityTerm, pod, node, nodes, active), 0) +
    spread.reduce((sum, constraint) => sum + matching(constraint, pod, node, nodes, active), 0) +
    // Without being asked: copies of one workload on different nodes, as Kubernetes spreads by default.
    siblings(pod, node, active)
  );
}

const siblings = (pod: Pod, node: Node, active: readonly Pod[]): number => {
  const owner = pod.metadata.ownerReferences?.[0]?.uid;
  if (owner === undefined) return 0;
  return active.filter(({ spec, metadata }) => spec.nodeName === node.metadata.name && metadata.ownerReferences?.[0]?.uid === owner).length;
};

/** Pods that the term selects in the node's topology domain. */
function matching(
  term: Pick<PodTerm, 'labelSelector' | 'topologyKey' | 'namespaces'>,
  pod: Pod,
  node: Node,
  nodes: readonly Node[],
  active: readonly Pod[],
): number {
  const domain = node.metadata.labels?.[term.topologyKey];
  const names = new Set(
    nodes.filter(({ metadata }) => metadata.labels?.[term.topologyKey] === domain).map(({ metadata }) => metadata.name),
  );
  const namespaces = term.namespaces ?? [pod.metadata.namespace ?? ''];
  return active.filter(
    ({ metadata, spec }) =>
      namespaces.includes(metadata.namespace ?? '') && names.has(spec.nodeName ?? '') && selects(term.labelSelector, metadata.labels),
  ).length;
}
