/** Deployments: a ReplicaSet for each version of the template, the new one growing and the old ones shrinking within the strategy's bounds. */
import { controllerOf, keyOf } from '../cluster/collections.ts';
import type { Condition, Deployment, ReplicaSet } from '../objects.ts';
import { type Controller, type ControllerOptions, sameContent, splitKey, timeText } from './controller.ts';
import { ownerReference, resolveCount, setCondition, templateHash } from './pods.ts';
import { WorkQueue } from './work-queue.ts';

const REVISION = 'deployment.kubernetes.io/revision';
const HASH = 'pod-template-hash';
const DEFAULT_HISTORY = 10;
const DEFAULT_DEADLINE_S = 600;

export const deploymentController: Controller = (options) => {
  const { cluster } = options;
  const queue: WorkQueue = new WorkQueue({ ...options, name: 'deployment', reconcile: (key) => reconcile(key, options, queue) });
  const stops = [
    cluster.deployments.watch(({ object }) => queue.add(keyOf(object))),
    cluster.replicaSets.watch(({ object }) => {
      const owner = object.metadata.ownerReferences?.find(({ controller }) => controller);
      if (owner?.kind === 'Deployment') queue.add(`${object.metadata.namespace}/${owner.name}`);
    }),
  ];
  return () => {
    for (const stop of stops) stop();
    queue.close();
  };
};

async function reconcile(key: string, options: ControllerOptions, queue: WorkQueue): Promise<void> {
  const { cluster } = options;
  const [namespace, name] = splitKey(key);
  const deployment = cluster.deployments.get(namespace, name);
  if (!deployment || deployment.metadata.deletionTimestamp) return;
  const { paused = false } = deployment.spec;
  const current = paused ? currentSet(deployment, setsOf(deployment, options)) : await ensureSet(deployment, options);
  const sets = setsOf(deployment, options);
  const older = sets.filter((set) => set.metadata.uid !== current?.metadata.uid);
  if (current) for (const change of nextScales(deployment, current, older)) await scale(change.set, change.replicas, deployment, options);
  if (current) await dropHistory(deployment, current, setsOf(deployment, options), options);
  await writeStatus(deployment, options, queue);
}

export interface ScaleChange {
  readonly set: ReplicaSet;
  readonly replicas: number;
}

/**
 * The next step of a rollout. Never more than wanted + maxSurge pods, never fewer than wanted - maxUnavailable available ones; old pods
 * that are not available go first, because they cost nothing.
 */
export function nextScales(deployment: Deployment, current: ReplicaSet, older: readonly ReplicaSet[]): ScaleChange[] {
  const wanted = deployment.spec.replicas ?? 1;
  const replicas = (set: ReplicaSet): number => set.spec.replicas ?? 1;
  const present = older.filter((set) => replicas(set) > 0);
  const changes: ScaleChange[] = [];
  if (deployment.spec.strategy?.type === 'Recreate') {
    changes.push(...present.map((set) => ({ set, replicas: 0 })));
    const gone = older.every((set) => (set.status?.replicas ?? 0) === 0);
    if (gone && present.length === 0 && replicas(current) !== wanted) changes.push({ set: current, replicas: wanted });
    return changes;
  }
  const { maxSurge, maxUnavailable } = deployment.spec.strategy?.rollingUpdate ?? {};
  const surge = resolveCount(maxSurge, '25%', wanted, 'up');
  const unavailable = resolveCount(maxUnavailable, '25%', wanted, 'down');
  // Both zero cannot move; Kubernetes takes one unavailable then.
  const mayMiss = surge === 0 && unavailable === 0 ? 1 : unavailable;
  const total = replicas(current) + present.reduce((sum, set) => sum + replicas(set), 0);
  if (replicas(current) > wanted) changes.push({ set: current, replicas: wanted });
  else if (replicas(current) < wanted) {
    const room = present.length === 0 ? wanted - replicas(current) : Math.max(0, wanted + surge - total);
    const next = Math.min(wanted, replicas(current) + room);
    if (next !== replicas(current)) changes.push({ set: current, replicas: next });
  }
  const available = (set: ReplicaSet): number => Math.min(set.status?.availableReplicas ?? 0, replicas(set));
  let spare = available(current) + present.reduce((sum, set) => sum + available(set), 0) - (wanted - mayMiss);
  for (const set of present) {
    const broken = replicas(set) - available(set);
    const healthy = Math.max(0, Math.min(available(set), spare));
    spare -= healthy;
    if (broken + healthy > 0) changes.push({ set, replicas: replicas(set) - broken - healthy });
  }
  return changes;
}

function setsOf(deployment: Deployment, { cluster }: ControllerOptions): ReplicaSet[] {
  return cluster.replicaSets.list(deployment.metadata.namespace).filter((set) => controllerOf(set) === deployment.metadata.uid);
}

const currentSet = (deployment: Deployment, sets: readonly ReplicaSet[]): ReplicaSet | undefined => {
  const hash = templateHash(deployment.spec.template);
  return sets.find(({ metadata }) => metadata.labels?.[HASH] === hash);
};

async function ensureSet(deployment: Deployment, options: ControllerOptions): Promise<ReplicaSet> {
  const { cluster } = options;
  const sets = setsOf(deployment, options);
  const { metadata, spec } = deployment;
  const newest = Math.max(0, ...sets.map((set) => Number(set.metadata.annotations?.[REVISION] ?? 0)));
  const existing = currentSet(deployment, sets);
  // A rollback brings an old version to the top again.
  const revision = existing && Number(existing.metadata.annotations?.[REVISION]) === newest ? newest : newest + 1;
  const { template } = spec;
  const set =
    existing ??
    (await cluster.replicaSets.create({
      apiVersion: 'apps/v1',
      kind: 'ReplicaSet',
      metadata: {
        name: `${metadata.name}-${templateHash(template)}`,
        namespace: metadata.namespace ?? '',
        labels: { ...template.metadata?.labels, [HASH]: templateHash(template) },
        annotations: { [REVISION]: String(revision) },
        ownerReferences: [ownerReference(deployment)],
      },
      spec: {
        replicas: 0,
        minReadySeconds: spec.minReadySeconds ?? 0,
        selector: { ...spec.selector, matchLabels: { ...spec.selector.matchLabels, [HASH]: templateHash(template) } },
        template: {
          ...template,
          metadata: { ...template.metadata, labels: { ...template.metadata?.labels, [HASH]: templateHash(template) } },
        },
      },
    }));
  const note = async (annotations: Record<string, string>): Promise<void> => {
    await cluster.replicaSets.modify(metadata.namespace ?? '', set.metadata.name, (draft) => {
      const merged = { ...draft.metadata.annotations, ...annotations };
      if (sameContent(merged, draft.metadata.annotations)) return false;
      draft.metadata.annotations = merged;
      return true;
    });
  };
  const cause = metadata.annotations?.['kubernetes.io/change-cause'];
  await note({ [REVISION]: String(revision), ...(cause === undefined ? {} : { 'kubernetes.io/change-cause': cause }) });
  if (metadata.annotations?.[REVISION] !== String(revision)) {
    await cluster.deployments.modify(metadata.namespace ?? '', metadata.name, (draft) => {
      draft.metadata.annotations = { ...draft.metadata.annotations, [REVISION]: String(revision) };
      return true;
    });
  }
  return cluster.replicaSets.get(metadata.namespace ?? '', set.metadata.name) ?? set;
}

async function scale(set: ReplicaSet, replicas: number, deployment: Deployment, { cluster }: ControllerOptions): Promise<void> {
  const before = set.spec.replicas ?? 1;
  await cluster.replicaSets.modify(set.metadata.namespace ?? '', set.metadata.name, (draft) => {
    if (draft.spec.replicas === replicas) return false;
    draft.spec.replicas = replicas;
    return true;
  });
  const direction = replicas > before ? 'up' : 'down';
  const message = `Scaled ${direction} replica set ${set.metadata.name} from ${before} to ${replicas}`;
  cluster.record({ about: deployment, type: 'Normal', reason: 'ScalingReplicaSet', message, source: 'deployment-controller' });
}

async function dropHistory(
  deployment: Deployment,
  current: ReplicaSet,
  sets: readonly ReplicaSet[],
  { cluster }: ControllerOptions,
): Promise<void> {
  const idle = sets
    .filter((set) => set.metadata.uid !== current.metadata.uid && (set.spec.replicas ?? 1) === 0 && (set.status?.replicas ?? 0) === 0)
    .sort((a, b) => Number(b.metadata.annotations?.[REVISION] ?? 0) - Number(a.metadata.annotations?.[REVISION] ?? 0));
  for (const { metadata } of idle.slice(deployment.spec.revisionHistoryLimit ?? DEFAULT_HISTORY)) {
    await cluster.replicaSets.delete(metadata.namespace ?? '', metadata.name, { uid: metadata.uid });
  }
}

async function writeStatus(deployment: Deployment, options: ControllerOptions, queue: WorkQueue): Promise<void> {
  const { cluster, clock } = options;
  const { namespace = '', name } = deployment.metadata;
  await cluster.deployments.modifyStatus(namespace, name, (draft) => {
    const sets = setsOf(draft, options);
    const current = currentSet(draft, sets);
    const sum = (field: 'replicas' | 'readyReplicas' | 'availableReplicas'): number =>
      sets.reduce((total, set) => total + (set.status?.[field] ?? 0), 0);
    const wanted = draft.spec.replicas ?? 1;
    const counts = {
      replicas: sum('replicas'),
      updatedReplicas: current?.status?.replicas ?? 0,
      readyReplicas: sum('readyReplicas'),
      availableReplicas: sum('availableReplicas'),
      unavailableReplicas: Math.max(0, Math.max(wanted, sum('replicas')) - sum('availableReplicas')),
    };
    const mayMiss = resolveCount(draft.spec.strategy?.rollingUpdate?.maxUnavailable, '25%', wanted, 'down');
    const enough = counts.availableReplicas >= wanted - mayMiss;
    const complete = counts.updatedReplicas === wanted && counts.replicas === wanted && counts.availableReplicas === wanted;
    const nowText = timeText(clock);
    const setName = current?.metadata.name ?? '';
    const before = draft.status?.conditions;
    const moved = !sameContent(counts, pick(draft.status, Object.keys(counts)));
    const progressing = progress(draft, complete, moved, setName, before, clock.now());
    if (!complete && progressing.status === 'True')
      queue.addAfter(keyOf(draft), 1000 * (draft.spec.progressDeadlineSeconds ?? DEFAULT_DEADLINE_S));
    let conditions = setCondition(
      before,
      enough
        ? { type: 'Available', status: 'True', reason: 'MinimumReplicasAvailable', message: 'Deployment has minimum availability.' }
        : {
            type: 'Available',
            status: 'False',
            reason: 'MinimumReplicasUnavailable',
            message: 'Deployment does not have minimum availability.',
          },
      nowText,
    );
    const lastProgress = before?.find(({ type }) => type === 'Progressing')?.lastUpdateTime;
    conditions = setCondition(conditions, progressing, nowText);
    const written = conditions.find(({ type }) => type === 'Progressing');
    if (written) written.lastUpdateTime = moved || lastProgress === undefined ? nowText : lastProgress;
    const status = { ...draft.status, ...counts, observedGeneration: draft.metadata.generation ?? 0, conditions };
    if (sameContent(status, draft.status)) return false;
    draft.status = status;
    return true;
  });
}

function progress(
  deployment: Deployment,
  complete: boolean,
  moved: boolean,
  setName: string,
  before: readonly Condition[] | undefined,
  nowMs: number,
): Condition {
  if (complete)
    return {
      type: 'Progressing',
      status: 'True',
      reason: 'NewReplicaSetAvailable',
      message: `ReplicaSet "${setName}" has successfully progressed.`,
    };
  const last = before?.find(({ type }) => type === 'Progressing');
  const since = Date.parse(last?.lastUpdateTime ?? '') || nowMs;
  const late = nowMs - since >= (deployment.spec.progressDeadlineSeconds ?? DEFAULT_DEADLINE_S) * 1000;
  if (late && !moved)
    return {
      type: 'Progressing',
      status: 'False',
      reason: 'ProgressDeadlineExceeded',
      message: `ReplicaSet "${setName}" has timed out progressing.`,
    };
  return { type: 'Progressing', status: 'True', reason: 'ReplicaSetUpdated', message: `ReplicaSet "${setName}" is progressing.` };
}

const pick = (from: Record<string, unknown> | undefined, keys: readonly string[]): Record<string, unknown> =>
  Object.fromEntries(keys.map((key) => [key, from?.[key]]));
