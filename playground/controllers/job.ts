/** Jobs: pods until enough of them succeeded, or too many failed. */
import { controllerOf, keyOf } from '../cluster/collections.ts';
import type { Job, Pod } from '../objects.ts';
import { type Controller, type ControllerOptions, sameContent, splitKey, timeText } from './controller.ts';
import { conditionOf, isActive, podFromTemplate, setCondition } from './pods.ts';
import { WorkQueue } from './work-queue.ts';

const DEFAULT_BACKOFF_LIMIT = 6;
const FIRST_RETRY_MS = 1000;
const UID_LABEL = 'batch.kubernetes.io/controller-uid';

const podLabels = ({ metadata: { name, uid = '' } }: Job): Record<string, string> => ({
  'batch.kubernetes.io/job-name': name,
  'job-name': name,
  [UID_LABEL]: uid,
  'controller-uid': uid,
});

export const jobController: Controller = (options) => {
  const { cluster } = options;
  const queue: WorkQueue = new WorkQueue({ ...options, name: 'job', reconcile: (key) => reconcile(key, options, queue) });
  const stops = [
    cluster.jobs.watch(({ object }) => queue.add(keyOf(object))),
    cluster.pods.watch(({ object }) => {
      const owner = object.metadata.ownerReferences?.find(({ controller }) => controller);
      if (owner?.kind === 'Job') queue.add(`${object.metadata.namespace}/${owner.name}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

async function reconcile(key: string, { cluster, clock }: ControllerOptions, queue: WorkQueue): Promise<void> {
  const [namespace, name] = splitKey(key);
  const job = cluster.jobs.get(namespace, name);
  if (!job || job.metadata.deletionTimestamp || isOver(job)) return;
  if (!job.spec.selector) await addSelector(job, cluster);
  const own = cluster.pods.list(namespace).filter((pod) => controllerOf(pod) === job.metadata.uid);
  const { succeeded, failed, active, completions, parallelism, limit } = countJob(job, own);
  const complete = succeeded >= completions;
  const hopeless = failed > limit;
  if (complete || hopeless)
    await Promise.all(active.map(({ metadata }) => cluster.pods.delete(namespace, metadata.name, { uid: metadata.uid })));
  else {
    const missing = Math.min(parallelism - active.length, completions - succeeded - active.length);
    const lastFailure = Math.max(0, ...own.filter(({ status }) => status?.phase === 'Failed').map(finishedMs));
    const waitMs = failed === 0 ? 0 : lastFailure + FIRST_RETRY_MS * 2 ** Math.min(failed, 8) - clock.now();
    if (missing > 0 && waitMs > 0) queue.addAfter(key, waitMs);
    else {
      const labels = podLabels(job);
      for (let i = 0; i < missing; i++) await cluster.pods.create(podFromTemplate(job, job.spec.template, { labels }));
    }
  }
  await cluster.jobs.modifyStatus(namespace, name, (draft) => {
    const now = timeText(clock);
    const counts = countJob(
      draft,
      cluster.pods.list(namespace).filter((pod) => controllerOf(pod) === draft.metadata.uid),
    );
    const status: NonNullable<Job['status']> = {
      ...draft.status,
      startTime: draft.status?.startTime ?? now,
      active: complete || hopeless ? 0 : counts.active.length,
      ready: complete || hopeless ? 0 : counts.active.filter((pod) => conditionOf(pod, 'Ready')?.status === 'True').length,
      succeeded: counts.succeeded,
      failed: counts.failed,
    };
    if (complete) {
      status.conditions = setCondition(draft.status?.conditions, { type: 'Complete', status: 'True' }, now);
      status.completionTime = now;
    } else if (hopeless) {
      const message = 'Job has reached the specified backoff limit';
      status.conditions = setCondition(
        draft.status?.conditions,
        { type: 'Failed', status: 'True', reason: 'BackoffLimitExceeded', message },
        now,
      );
    }
    if (sameContent(status, draft.status)) return false;
    draft.status = status;
    return true;
  });
}

/** What the real API server does when the Job is created: its pods are found by its own UID (`kubectl logs job/…` asks so). */
async function addSelector(job: Job, cluster: ControllerOptions['cluster']): Promise<void> {
  await cluster.jobs.modify(job.metadata.namespace ?? '', job.metadata.name, (draft) => {
    const matchLabels = { [UID_LABEL]: draft.metadata.uid ?? '' };
    const { template } = draft.spec;
    const labels = { ...template.metadata?.labels, ...podLabels(draft) };
    draft.spec = { ...draft.spec, selector: { matchLabels }, template: { ...template, metadata: { ...template.metadata, labels } } };
    return true;
  });
}

export function countJob(
  job: Job,
  own: readonly Pod[],
): { succeeded: number; failed: number; active: Pod[]; completions: number; parallelism: number; limit: number } {
  const parallelism = job.spec.parallelism ?? 1;
  return {
    succeeded: own.filter(({ status }) => status?.phase === 'Succeeded').length,
    failed: own.filter(({ status }) => status?.phase === 'Failed').length,
    active: own.filter(isActive),
    completions: job.spec.completions ?? 1,
    parallelism,
    limit: job.spec.backoffLimit ?? DEFAULT_BACKOFF_LIMIT,
  };
}

const isOver = (job: Job): boolean =>
  job.status?.conditions?.some(({ type, status }) => (type === 'Complete' || type === 'Failed') && status === 'True') === true;

const finishedMs = (pod: Pod): number =>
  Math.max(0, ...(pod.status?.containerStatuses ?? []).map(({ state }) => Date.parse(state.terminated?.finishedAt ?? '') || 0));
