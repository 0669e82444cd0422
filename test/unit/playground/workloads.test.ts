import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { planDaemons } from '../../../playground/controllers/daemon-set.ts';
import { nextScales } from '../../../playground/controllers/deployment.ts';
import { countJob } from '../../../playground/controllers/job.ts';
import { resolveCount, templateHash } from '../../../playground/controllers/pods.ts';
import { nextStep } from '../../../playground/controllers/stateful-set.ts';
import type { DaemonSet, Deployment, IntOrString, Job, Node, Pod, ReplicaSet, StatefulSet } from '../../../playground/objects.ts';

const selector = { matchLabels: { app: 'a' } };
const template = (image: string) => ({ metadata: { labels: { app: 'a' } }, spec: { containers: [{ name: 'c', image }] } });

const deployment = (replicas: number, maxSurge?: IntOrString, maxUnavailable?: IntOrString, type = 'RollingUpdate'): Deployment => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'd', namespace: 'n' },
  spec: {
    replicas,
    selector,
    template: template('new'),
    strategy: {
      type,
      rollingUpdate: { ...(maxSurge === undefined ? {} : { maxSurge }), ...(maxUnavailable === undefined ? {} : { maxUnavailable }) },
    },
  },
});

const replicaSet = (name: string, replicas: number, available: number): ReplicaSet => ({
  apiVersion: 'apps/v1',
  kind: 'ReplicaSet',
  metadata: { name },
  spec: { replicas, selector, template: template(name) },
  status: { replicas, availableReplicas: available },
});

const steps = (d: Deployment, current: ReplicaSet, older: ReplicaSet[]): string[] =>
  nextScales(d, current, older).map(({ set, replicas }) => `${set.metadata.name}=${replicas}`);

test('a first rollout makes all replicas at once', () => {
  assert.deepEqual(steps(deployment(3), replicaSet('new', 0, 0), []), ['new=3']);
});

test('a rollout grows by maxSurge and shrinks by what is available beyond the minimum', () => {
  assert.deepEqual(steps(deployment(4, 1, 0), replicaSet('new', 0, 0), [replicaSet('old', 4, 4)]), ['new=1']);
  assert.deepEqual(steps(deployment(4, 1, 0), replicaSet('new', 1, 0), [replicaSet('old', 4, 4)]), []);
  assert.deepEqual(steps(deployment(4, 1, 0), replicaSet('new', 1, 1), [replicaSet('old', 4, 4)]), ['old=3']);
  assert.deepEqual(steps(deployment(4, 0, 2), replicaSet('new', 0, 0), [replicaSet('old', 4, 4)]), ['old=2']);
});

test('old replicas that do not work anyway go first', () => {
  assert.deepEqual(steps(deployment(2, 1, 0), replicaSet('new', 1, 0), [replicaSet('old', 2, 0)]), ['old=0']);
});

test('Recreate waits until the last old pod is gone', () => {
  const recreate = deployment(2, undefined, undefined, 'Recreate');
  assert.deepEqual(steps(recreate, replicaSet('new', 0, 0), [replicaSet('old', 2, 2)]), ['old=0']);
  const leaving = replicaSet('old', 0, 0);
  leaving.status = { replicas: 1 };
  assert.deepEqual(steps(recreate, replicaSet('new', 0, 0), [leaving]), []);
  assert.deepEqual(steps(recreate, replicaSet('new', 0, 0), [replicaSet('old', 0, 0)]), ['new=2']);
});

test('whatever becomes available when: a rollout keeps its bounds and comes to its end', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 8 }),
      fc.integer({ min: 0, max: 3 }),
      fc.integer({ min: 0, max: 3 }),
      fc.array(fc.boolean(), { maxLength: 20 }),
      (wanted, surge, missing, luck) => {
        const d = deployment(wanted, surge, missing);
        const mayMiss = surge === 0 && missing === 0 ? 1 : missing;
        const current = replicaSet('new', 0, 0);
        const old = replicaSet('old', wanted, wanted);
        const available = (set: ReplicaSet): number => set.status?.availableReplicas ?? 0;
        for (let turn = 0; turn < 200; turn++) {
          for (const { set, replicas } of nextScales(d, current, [old])) {
            set.spec.replicas = replicas;
            set.status = { replicas, availableReplicas: Math.min(available(set), replicas) };
          }
          const total = (current.spec.replicas ?? 0) + (old.spec.replicas ?? 0);
          assert.ok(total <= wanted + surge, `${total} pods, allowed ${wanted + surge}`);
          assert.ok(
            available(current) + available(old) >= wanted - mayMiss,
            `${available(current) + available(old)} available of ${wanted}, may miss ${mayMiss}`,
          );
          if (available(current) === wanted && old.spec.replicas === 0) return;
          if ((luck[turn] ?? true) && available(current) < (current.spec.replicas ?? 0))
            current.status = { ...current.status, availableReplicas: available(current) + 1 };
        }
        assert.fail('the rollout does not end');
      },
    ),
  );
});

test('counts may be percentages, rounded as the strategy says', () => {
  assert.equal(resolveCount('25%', 0, 3, 'up'), 1);
  assert.equal(resolveCount('25%', 0, 3, 'down'), 0);
  assert.equal(resolveCount(2, 0, 3, 'down'), 2);
  assert.equal(resolveCount(undefined, '50%', 4, 'up'), 2);
});

test("a template's hash does not depend on the order of its fields", () => {
  assert.equal(
    templateHash({ spec: { containers: [{ name: 'c', image: 'i' }] }, metadata: { labels: { a: '1', b: '2' } } }),
    templateHash({ metadata: { labels: { b: '2', a: '1' } }, spec: { containers: [{ image: 'i', name: 'c' }] } }),
  );
  assert.notEqual(templateHash(template('a')), templateHash(template('b')));
});

// ---- DaemonSets ------------------------------------------------------------------------------------------------------------------------

const nodes: Node[] = ['node1', 'node2', 'node3'].map((name) => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, labels: { 'kubernetes.io/hostname': name } },
}));

const daemonSet = (rollingUpdate: { maxSurge?: IntOrString; maxUnavailable?: IntOrString } = {}): DaemonSet => ({
  apiVersion: 'apps/v1',
  kind: 'DaemonSet',
  metadata: { name: 'ds', namespace: 'n' },
  spec: { selector, template: template('new'), updateStrategy: { type: 'RollingUpdate', rollingUpdate } },
});

const pod = (nodeName: string, version: string, state: 'ready' | 'starting' | 'leaving' | 'failed' = 'ready'): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: {
    name: `${version}-${nodeName}`,
    labels: { 'controller-revision-hash': templateHash(template(version)) },
    ...(state === 'leaving' ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}),
  },
  spec: { nodeName, containers: [] },
  status: {
    phase: state === 'failed' ? 'Failed' : 'Running',
    conditions: [{ type: 'Ready', status: state === 'ready' || state === 'leaving' ? 'True' : 'False' }],
  },
});

const plan = (set: DaemonSet, pods: Pod[]): { create: readonly string[]; remove: string[] } => {
  const { create, remove } = planDaemons(set, nodes, pods, 0);
  return { create, remove: remove.map(({ metadata }) => metadata.name) };
};

test('every node without a pod gets one', () => {
  assert.deepEqual(plan(daemonSet(), [pod('node2', 'new')]), { create: ['node1', 'node3'], remove: [] });
});

test('a node whose pod is on its way out waits for it', () => {
  assert.deepEqual(plan(daemonSet(), [pod('node1', 'old', 'leaving'), pod('node2', 'new'), pod('node3', 'new')]), {
    create: [],
    remove: [],
  });
});

test('a new template replaces one pod at a time', () => {
  assert.deepEqual(plan(daemonSet(), [pod('node1', 'old'), pod('node2', 'old'), pod('node3', 'old')]), {
    create: [],
    remove: ['old-node1'],
  });
  assert.deepEqual(plan(daemonSet(), [pod('node1', 'new', 'starting'), pod('node2', 'old'), pod('node3', 'old')]), {
    create: [],
    remove: [],
  });
  assert.deepEqual(plan(daemonSet(), [pod('node1', 'new'), pod('node2', 'old'), pod('node3', 'old')]), {
    create: [],
    remove: ['old-node2'],
  });
});

test('with maxSurge the new pod comes first and the old one goes when the new one is ready', () => {
  const surging = daemonSet({ maxSurge: 1, maxUnavailable: 0 });
  const old = [pod('node1', 'old'), pod('node2', 'old'), pod('node3', 'old')];
  assert.deepEqual(plan(surging, old), { create: ['node1'], remove: [] });
  assert.deepEqual(plan(surging, [...old, pod('node1', 'new', 'starting')]), { create: [], remove: [] });
  assert.deepEqual(plan(surging, [...old, pod('node1', 'new')]), { create: [], remove: ['old-node1'] });
});

test('a pod that ended is removed, and so is one on a node that is no longer selected', () => {
  assert.deepEqual(
    plan(daemonSet(), [pod('node1', 'new', 'failed'), pod('node2', 'new'), pod('node3', 'new'), pod('gone', 'new')]).remove.sort(),
    ['new-gone', 'new-node1'],
  );
});

// ---- StatefulSets and Jobs -------------------------------------------------------------------------------------------------------------

const statefulSet = (replicas: number, podManagementPolicy?: string): StatefulSet => ({
  apiVersion: 'apps/v1',
  kind: 'StatefulSet',
  metadata: { name: 'db', namespace: 'n' },
  spec: { replicas, selector, template: template('new'), ...(podManagementPolicy === undefined ? {} : { podManagementPolicy }) },
});

const member = (number: number, version = 'new', ready = true): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: `db-${number}`, labels: { 'controller-revision-hash': `db-${templateHash(template(version))}` } },
  spec: { nodeName: 'node1', containers: [] },
  status: { phase: 'Running', conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] },
});

test('members start in order, each after the one before it is ready; all at once where the policy is Parallel', () => {
  assert.deepEqual(nextStep(statefulSet(2), []), { create: 0 });
  assert.equal(nextStep(statefulSet(2), [member(0, 'new', false)]), undefined);
  assert.deepEqual(nextStep(statefulSet(2), [member(0)]), { create: 1 });
  assert.deepEqual(nextStep(statefulSet(2, 'Parallel'), [member(0, 'new', false)]), { create: 1 });
});

test('the last member goes first, when the set shrinks and when its template changes', () => {
  assert.deepEqual(nextStep(statefulSet(1), [member(0), member(1), member(2)]), { remove: member(2) });
  assert.deepEqual(nextStep(statefulSet(2), [member(0, 'old'), member(1, 'old')]), { remove: member(1, 'old') });
  assert.deepEqual(nextStep(statefulSet(2), [member(0, 'old'), member(1)]), { remove: member(0, 'old') });
  assert.equal(nextStep(statefulSet(2), [member(0), member(1)]), undefined);
});

test('a Job counts what succeeded, failed and still runs', () => {
  const job: Job = {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'j' },
    spec: { completions: 3, backoffLimit: 1, template: template('i') },
  };
  const ended = (phase: 'Succeeded' | 'Failed'): Pod => ({ ...member(0), status: { phase } });
  const { succeeded, failed, active, completions, limit } = countJob(job, [ended('Succeeded'), ended('Failed'), member(1)]);
  assert.deepEqual([succeeded, failed, active.length, completions, limit], [1, 1, 1, 3, 1]);
});
