/** StatefulSets without storage: pods with numbers for names, started in order, each waiting for the one before it, replaced from the last. */
import { controllerOf, keyOf } from '../cluster/collections.ts';
import type { Pod, StatefulSet } from '../objects.ts';
import { type Controller, type ControllerOptions, sameContent, splitKey } from './controller.ts';
import { isActive, isReady, isTerminating, podFromTemplate, templateHash } from './pods.ts';
import { WorkQueue } from './work-queue.ts';

const HASH = 'controller-revision-hash';

export const statefulSetController: Controller = (options) => {
  const { cluster } = options;
  const queue = new WorkQueue({ ...options, name: 'statefulset', reconcile: (key) => reconcile(key, options) });
  const stops = [
    cluster.statefulSets.watch(({ object }) => queue.add(keyOf(object))),
    cluster.pods.watch(({ object }) => {
      const owner = object.metadata.ownerReferences?.find(({ controller }) => controller);
      if (owner?.kind === 'StatefulSet') queue.add(`${object.metadata.namespace}/${owner.name}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

/** The next step; undefined where all is as it should be or has to be waited for. */
export function nextStep(set: StatefulSet, pods: readonly Pod[]): { create: number } | { remove: Pod } | undefined {
  const wanted = set.spec.replicas ?? 1;
  const parallel = set.spec.podManagementPolicy === 'Parallel';
  const byNumber = new Map(pods.map((pod) => [ordinal(pod), pod]));
  for (let i = 0; i < wanted; i++) {
    const pod = byNumber.get(i);
    if (!pod) return { create: i };
    if (!isActive(pod) && !isTerminating(pod)) return { remove: pod };
    if (!parallel && (!isReady(pod) || isTerminating(pod)) && isCurrent(set, pod)) return undefined;
  }
  const extra = [...byNumber].filter(([i, pod]) => i >= wanted && !isTerminating(pod)).sort(([a], [b]) => b - a)[0]?.[1];
  if (extra) return pods.some(isTerminating) && !parallel ? undefined : { remove: extra };
  if (pods.some((pod) => isTerminating(pod) || (isCurrent(set, pod) && !isReady(pod)))) return undefined;
  const outdated = [...byNumber].filter(([, pod]) => !isCurrent(set, pod)).sort(([a], [b]) => b - a)[0]?.[1];
  return outdated && { remove: outdated };
}

const ordinal = (pod: Pod): number => Number(pod.metadata.name.slice(pod.metadata.name.lastIndexOf('-') + 1));
const isCurrent = (set: StatefulSet, pod: Pod): boolean =>
  pod.metadata.labels?.[HASH] === `${set.metadata.name}-${templateHash(set.spec.template)}`;

async function reconcile(key: string, { cluster }: ControllerOptions): Promise<void> {
  const [namespace, name] = splitKey(key);
  const own = (set: StatefulSet): Pod[] => cluster.pods.list(namespace).filter((pod) => controllerOf(pod) === set.metadata.uid);
  for (;;) {
    const set = cluster.statefulSets.get(namespace, name);
    if (!set || set.metadata.deletionTimestamp) return;
    const step = nextStep(set, own(set));
    if (!step) break;
    if ('remove' in step) {
      await cluster.pods.delete(namespace, step.remove.metadata.name, { uid: step.remove.metadata.uid });
      break;
    }
    const podName = `${name}-${step.create}`;
    const labels = {
      [HASH]: `${name}-${templateHash(set.spec.template)}`,
      'statefulset.kubernetes.io/pod-name': podName,
      'apps.kubernetes.io/pod-index': String(step.create),
    };
    const subdomain = set.spec.serviceName;
    await cluster.pods.create(
      podFromTemplate(set, set.spec.template, {
        name: podName,
        labels,
        hostname: podName,
        ...(subdomain === undefined ? {} : { subdomain }),
      }),
    );
  }
  await cluster.statefulSets.modifyStatus(namespace, name, (draft) => {
    const pods = own(draft).filter(isActive);
    const revision = `${name}-${templateHash(draft.spec.template)}`;
    const updated = pods.filter((pod) => isCurrent(draft, pod)).length;
    const ready = pods.filter(isReady).length;
    const complete = updated === (draft.spec.replicas ?? 1);
    const status = {
      ...draft.status,
      replicas: pods.length,
      readyReplicas: ready,
      availableReplicas: ready,
      currentReplicas: complete ? pods.length : pods.length - updated,
      updatedReplicas: updated,
      updateRevision: revision,
      currentRevision: complete ? revision : (draft.status?.currentRevision ?? revision),
      observedGeneration: draft.metadata.generation ?? 0,
    };
    if (sameContent(status, draft.status)) return false;
    draft.status = status;
    return true;
  });
}
