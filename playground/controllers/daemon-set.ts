/** DaemonSets: one pod on each node that its selector allows, replaced node by node when the template changes. */
import { controllerOf, keyOf } from '../cluster/collections.ts';
import type { DaemonSet, Node, Pod } from '../objects.ts';
import { type Controller, type ControllerOptions, sameContent, splitKey } from './controller.ts';
import { isActive, isAvailable, isReady, isTerminating, podFromTemplate, resolveCount, templateHash } from './pods.ts';
import { fitsNode } from './scheduler.ts';
import { WorkQueue } from './work-queue.ts';

const HASH = 'controller-revision-hash';
const GENERATION = 'pod-template-generation';

export const daemonSetController: Controller = (options) => {
  const { cluster } = options;
  const queue: WorkQueue = new WorkQueue({ ...options, name: 'daemonset', reconcile: (key) => reconcile(key, options, queue) });
  const stops = [
    cluster.daemonSets.watch(({ object }) => queue.add(keyOf(object))),
    cluster.nodes.watch(({ type }) => {
      // Heartbeats change nodes every few seconds; only their coming and going matters.
      if (type !== 'modified') for (const set of cluster.daemonSets.list()) queue.add(keyOf(set));
    }),
    cluster.pods.watch(({ object }) => {
      const owner = object.metadata.ownerReferences?.find(({ controller }) => controller);
      if (owner?.kind === 'DaemonSet') queue.add(`${object.metadata.namespace}/${owner.name}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

export interface DaemonPlan {
  readonly create: readonly string[];
  readonly remove: readonly Pod[];
}

/**
 * What to do next. A node without a pod gets one; of those with an outdated pod as many are replaced as the strategy bears. With maxSurge
 * the new pod comes first, and the old one goes when the new one is available.
 */
export function planDaemons(set: DaemonSet, nodes: readonly Node[], pods: readonly Pod[], nowMs: number): DaemonPlan {
  const hash = templateHash(set.spec.template);
  const minReady = set.spec.minReadySeconds ?? 0;
  const wanted = nodes.filter((node) => fitsNode(set.spec.template, node)).map(({ metadata }) => metadata.name);
  const { maxSurge, maxUnavailable } = set.spec.updateStrategy?.rollingUpdate ?? {};
  const surge = resolveCount(maxSurge, 0, wanted.length, 'up');
  const unavailableLimit = resolveCount(maxUnavailable, surge > 0 ? 0 : 1, wanted.length, 'up');
  const onDelete = set.spec.updateStrategy?.type === 'OnDelete';
  const create: string[] = [];
  const remove: Pod[] = pods.filter((pod) => isActive(pod) && !wanted.includes(pod.spec.nodeName ?? ''));
  remove.push(...pods.filter((pod) => !isTerminating(pod) && !isActive(pod)));
  const outdated: { old: Pod; replacement: Pod | undefined }[] = [];
  let unavailable = 0;
  let surging = 0;
  for (const node of wanted) {
    const here = pods.filter((pod) => pod.spec.nodeName === node && isActive(pod));
    const current = here.filter(({ metadata }) => metadata.labels?.[HASH] === hash);
    const old = here.filter((pod) => !current.includes(pod));
    // Two of one version: a race with ourselves; the older stays.
    for (const pods of [current, old]) remove.push(...[...pods].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1)).slice(1));
    const [newPod] = current;
    const [oldPod] = old;
    if (!here.some((pod) => isAvailable(pod, minReady, nowMs))) unavailable++;
    if (here.length === 0) {
      // One that is on its way out still holds the node's place (and its ports), unless surging is allowed.
      if (surge > 0 || !pods.some((pod) => pod.spec.nodeName === node && isTerminating(pod))) create.push(node);
    } else if (oldPod) {
      if (newPod) surging++;
      outdated.push({ old: oldPod, replacement: newPod });
    }
  }
  if (onDelete) return { create, remove };
  for (const { old, replacement } of outdated) {
    const oldAvailable = isAvailable(old, minReady, nowMs);
    if (replacement) {
      if (isAvailable(replacement, minReady, nowMs) || !oldAvailable) remove.push(old);
    } else if (surge > 0) {
      if (surging < surge) {
        surging++;
        create.push(old.spec.nodeName ?? '');
      }
    } else if (!oldAvailable || unavailable < unavailableLimit) {
      if (oldAvailable) unavailable++;
      remove.push(old);
    }
  }
  return { create, remove };
}

async function reconcile(key: string, { cluster, clock }: ControllerOptions, queue: WorkQueue): Promise<void> {
  const [namespace, name] = splitKey(key);
  const set = cluster.daemonSets.get(namespace, name);
  if (!set || set.metadata.deletionTimestamp) return;
  const own = (): Pod[] => cluster.pods.list(namespace).filter((pod) => controllerOf(pod) === set.metadata.uid);
  const plan = planDaemons(set, cluster.nodes.list(), own(), clock.now());
  const labels = { [HASH]: templateHash(set.spec.template), [GENERATION]: String(set.metadata.generation ?? 1) };
  try {
    await Promise.all(plan.create.map((nodeName) => cluster.pods.create(podFromTemplate(set, set.spec.template, { labels, nodeName }))));
    await Promise.all(plan.remove.map(({ metadata }) => cluster.pods.delete(namespace, metadata.name, { uid: metadata.uid })));
  } catch (error) {
    const message = `Error creating: ${error instanceof Error ? error.message : String(error)}`;
    cluster.record({ about: set, type: 'Warning', reason: 'FailedCreate', message, source: 'daemonset-controller' });
    throw error;
  } finally {
    await cluster.daemonSets.modifyStatus(namespace, name, (draft) => {
      const hash = templateHash(draft.spec.template);
      const nodes = cluster.nodes.list().filter((node) => fitsNode(draft.spec.template, node));
      const pods = own().filter(isActive);
      const minReady = draft.spec.minReadySeconds ?? 0;
      const nodesWith = (test: (pod: Pod) => boolean): number =>
        nodes.filter((node) => pods.some((pod) => pod.spec.nodeName === node.metadata.name && test(pod))).length;
      const available = nodesWith((pod) => isAvailable(pod, minReady, clock.now()));
      if (available < nodesWith(isReady)) queue.addAfter(key, 1000);
      const status = {
        ...draft.status,
        desiredNumberScheduled: nodes.length,
        currentNumberScheduled: nodesWith(() => true),
        numberMisscheduled: pods.filter(({ spec }) => !nodes.some((node) => node.metadata.name === spec.nodeName)).length,
        numberReady: nodesWith(isReady),
        updatedNumberScheduled: nodesWith(({ metadata }) => metadata.labels?.[HASH] === hash),
        numberAvailable: available,
        numberUnavailable: nodes.length - available,
        observedGeneration: draft.metadata.generation ?? 0,
      };
      if (sameContent(status, draft.status)) return false;
      draft.status = status;
      return true;
    });
  }
}
