/** ReplicaSets: as many active pods of a template as wanted. Every decision counts what is there now, so nothing has to be remembered. */
import { controllerOf, keyOf } from '../cluster/collections.ts';
import type { Pod, ReplicaSet } from '../objects.ts';
import { type Controller, type ControllerOptions, sameContent, splitKey } from './controller.ts';
import { byExpendability, isActive, isAvailable, isReady, ownerReference, podFromTemplate, selects } from './pods.ts';
import { WorkQueue } from './work-queue.ts';

/** As many pods are made or deleted in one go. */
const BURST = 50;

export const replicaSetController: Controller = (options) => {
  const { cluster } = options;
  const queue: WorkQueue = new WorkQueue({ ...options, name: 'replicaset', reconcile: (key) => reconcile(key, options, queue) });
  const stops = [
    cluster.replicaSets.watch(({ object }) => queue.add(keyOf(object))),
    cluster.pods.watch(({ object }) => {
      const owner = object.metadata.ownerReferences?.find(({ controller, kind }) => controller && kind === 'ReplicaSet');
      if (owner) queue.add(`${object.metadata.namespace}/${owner.name}`);
      else
        for (const set of cluster.replicaSets.list(object.metadata.namespace))
          if (selects(set.spec.selector, object.metadata.labels)) queue.add(keyOf(set));
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

async function reconcile(key: string, { cluster, clock }: ControllerOptions, queue: WorkQueue): Promise<void> {
  const [namespace, name] = splitKey(key);
  const set = cluster.replicaSets.get(namespace, name);
  if (!set || set.metadata.deletionTimestamp) return;
  await adoptOrphans(set, cluster.pods.list(namespace), cluster);
  const own = ownPods(set, cluster.pods.list(namespace)).filter(isActive);
  const wanted = set.spec.replicas ?? 1;
  try {
    if (own.length < wanted) {
      const missing = Math.min(wanted - own.length, BURST);
      await Promise.all(Array.from({ length: missing }, () => cluster.pods.create(podFromTemplate(set, set.spec.template, {}))));
    } else if (own.length > wanted) {
      const extra = [...own].sort(byExpendability).slice(0, Math.min(own.length - wanted, BURST));
      await Promise.all(extra.map(({ metadata }) => cluster.pods.delete(namespace, metadata.name, { uid: metadata.uid })));
    }
  } catch (error) {
    cluster.record({
      about: set,
      type: 'Warning',
      reason: own.length < wanted ? 'FailedCreate' : 'FailedDelete',
      message: error instanceof Error ? `Error creating: ${error.message}` : String(error),
      source: 'replicaset-controller',
    });
    throw error;
  } finally {
    await writeStatus(set, cluster, clock.now(), queue);
  }
}

export const ownPods = (set: ReplicaSet, pods: readonly Pod[]): Pod[] => pods.filter((pod) => controllerOf(pod) === set.metadata.uid);

async function adoptOrphans(set: ReplicaSet, pods: readonly Pod[], cluster: ControllerOptions['cluster']): Promise<void> {
  const orphans = pods.filter((pod) => controllerOf(pod) === undefined && isActive(pod) && selects(set.spec.selector, pod.metadata.labels));
  await Promise.all(
    orphans.map(({ metadata }) =>
      cluster.pods.modify(metadata.namespace ?? '', metadata.name, (draft) => {
        draft.metadata.ownerReferences = [...(draft.metadata.ownerReferences ?? []), ownerReference(set)];
        return true;
      }),
    ),
  );
}

async function writeStatus(set: ReplicaSet, cluster: ControllerOptions['cluster'], nowMs: number, queue: WorkQueue): Promise<void> {
  const { namespace = '', name } = set.metadata;
  const minReady = set.spec.minReadySeconds ?? 0;
  await cluster.replicaSets.modifyStatus(namespace, name, (draft) => {
    const pods = ownPods(draft, cluster.pods.list(namespace)).filter(isActive);
    const ready = pods.filter(isReady);
    const available = ready.filter((pod) => isAvailable(pod, minReady, nowMs));
    if (available.length < ready.length) queue.addAfter(keyOf(draft), 1000);
    const status = {
      ...draft.status,
      replicas: pods.length,
      fullyLabeledReplicas: pods.length,
      readyReplicas: ready.length,
      availableReplicas: available.length,
      observedGeneration: draft.metadata.generation ?? 0,
    };
    if (sameContent(status, draft.status)) return false;
    draft.status = status;
    return true;
  });
}
