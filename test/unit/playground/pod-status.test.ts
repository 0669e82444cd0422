import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ContainerRecord, newRecord, type PodFacts, podPhase, podStatus } from '../../../playground/kubelet/status.ts';
import type { Container, Pod } from '../../../playground/objects.ts';

const pod = (extra: Partial<Pod['spec']> = {}, status: Pod['status'] = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'n' },
  spec: { containers: [{ name: 'main' }], ...extra },
  status,
});

const record = (
  state: 'waiting' | 'running' | 'ready' | 'done' | 'failed',
  spec: Container = { name: 'main' },
  init = false,
): ContainerRecord => {
  const base = newRecord(spec, init);
  const ended = { reason: 'x', startedAt: '', finishedAt: '', containerID: 'c' };
  if (state === 'waiting') return base;
  if (state === 'running' || state === 'ready')
    return { ...base, state: { running: { startedAt: 'then' } }, started: true, ready: state === 'ready' };
  return { ...base, state: { terminated: { exitCode: state === 'done' ? 0 : 1, ...ended } }, finished: true };
};

const facts = (records: readonly ContainerRecord[], extra: Partial<PodFacts> = {}): PodFacts => ({
  records,
  addresses: { v4: '10.244.1.2', v6: 'fd00::2' },
  hostAddresses: { v4: '172.30.0.11', v6: undefined },
  initialized: true,
  startTime: 'start',
  nowText: 'now',
  ...extra,
});

const condition = (p: Pod, f: PodFacts, type: string) => podStatus(p, f).conditions?.find((each) => each.type === type);

for (const [phase, records, extra] of [
  ['Pending', [record('waiting')], {}],
  ['Pending', [record('running', { name: 'first' }, true), record('waiting')], { initialized: false }],
  ['Running', [record('running')], {}],
  ['Running', [record('done', { name: 'a' }), record('running', { name: 'b' })], {}],
  ['Succeeded', [record('done')], {}],
  ['Failed', [record('done', { name: 'a' }), record('failed', { name: 'b' })], {}],
  ['Failed', [record('failed', { name: 'first' }, true), record('waiting')], { initialized: false }],
  ['Failed', [record('running')], { failure: { reason: 'Error', message: 'no' } }],
] as const satisfies readonly (readonly [string, readonly ContainerRecord[], Partial<PodFacts>])[]) {
  const shown = records.map(({ spec, state }) => `${spec.name} ${Object.keys(state)[0]}`).join(', ');
  test(`a pod with ${shown}${'failure' in extra ? ' that failed as a whole' : ''} is ${phase}`, () =>
    assert.equal(podPhase(pod(), facts(records, extra)), phase));
}

test('a container that waits for its restart keeps the pod Running', () => {
  const crashing: ContainerRecord = {
    ...record('waiting'),
    state: { waiting: { reason: 'CrashLoopBackOff' } },
    lastState: record('failed').state,
  };
  assert.equal(podPhase(pod(), facts([crashing])), 'Running');
});

test('a pod is ready when all its containers are, and says which ones are not', () => {
  const ready = condition(pod(), facts([record('ready')]), 'Ready');
  assert.deepEqual([ready?.status, ready?.lastTransitionTime], ['True', 'now']);
  const unready = condition(pod(), facts([record('ready', { name: 'a' }), record('running', { name: 'b' })]), 'ContainersReady');
  assert.deepEqual([unready?.status, unready?.message], ['False', 'containers with unready status: [b]']);
});

test('a readiness gate holds a pod back until its condition is true', () => {
  const gated = pod({ readinessGates: [{ conditionType: 'example.com/open' }] });
  assert.equal(condition(gated, facts([record('ready')]), 'Ready')?.reason, 'ReadinessGatesNotReady');
  const open = pod(
    { readinessGates: [{ conditionType: 'example.com/open' }] },
    { conditions: [{ type: 'example.com/open', status: 'True' }] },
  );
  assert.equal(condition(open, facts([record('ready')]), 'Ready')?.status, 'True');
  assert.equal(condition(open, facts([record('ready')]), 'example.com/open')?.status, 'True', "somebody else's condition stays");
});

test('a condition keeps its time as long as its status stays', () => {
  const before = pod({}, { conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: 'long ago' }] });
  assert.equal(condition(before, facts([record('ready')]), 'Ready')?.lastTransitionTime, 'long ago');
  assert.equal(condition(before, facts([record('running')]), 'Ready')?.lastTransitionTime, 'now');
});

test('addresses come with the IPv4 one first; a pod without network has none', () => {
  const status = podStatus(pod(), facts([record('ready')]));
  assert.deepEqual(
    [status.podIP, status.podIPs, status.hostIPs],
    ['10.244.1.2', [{ ip: '10.244.1.2' }, { ip: 'fd00::2' }], [{ ip: '172.30.0.11' }]],
  );
  assert.equal(podStatus(pod(), facts([record('waiting')], { addresses: undefined })).podIP, undefined);
});

test('init containers and sidecars are told apart from the others', () => {
  const sidecar: Container = { name: 'side', restartPolicy: 'Always' };
  assert.deepEqual(
    [newRecord({ name: 'i' }, true).kind, newRecord(sidecar, true).kind, newRecord({ name: 'm' }, false).kind],
    ['init', 'sidecar', 'main'],
  );
  const status = podStatus(pod(), facts([record('done', { name: 'i' }, true), record('ready')]));
  assert.deepEqual([status.initContainerStatuses?.[0]?.ready, status.containerStatuses?.length], [true, 1]);
});
