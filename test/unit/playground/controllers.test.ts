import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { deploymentController } from '../../../playground/controllers/deployment.ts';
import { endpointSliceController, slicesFor } from '../../../playground/controllers/endpoint-slice.ts';
import { replicaSetController } from '../../../playground/controllers/replica-set.ts';
import { chooseNode, scheduler } from '../../../playground/controllers/scheduler.ts';
import { WorkQueue } from '../../../playground/controllers/work-queue.ts';
import type { Deployment, Node, Pod, Service } from '../../../playground/objects.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { type FakeCluster, fakeCluster } from '../../support/fake-cluster.ts';
import { recordingLog } from '../../support/recording-log.ts';

const turns = async (count = 40): Promise<void> => {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
};

const node = (name: string, labels: Record<string, string> = {}): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels } },
});

const pod = (name: string, spec: Partial<Pod['spec']> = {}, extra: Partial<Pod> = {}): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'n', uid: name, labels: { app: 'a' } },
  spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 8080 }] }], ...spec },
  ...extra,
});

const running = (name: string, ip: string, ready: boolean, extra: Partial<Pod> = {}): Pod =>
  pod(
    name,
    { nodeName: 'node1' },
    { status: { phase: 'Running', podIPs: [{ ip }], conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }] }, ...extra },
  );

function start(t: TestContext): { cluster: FakeCluster; clock: FakeClock; log: ReturnType<typeof recordingLog>; random: () => number } {
  const parts = { cluster: fakeCluster(), clock: new FakeClock(), log: recordingLog(), random: () => 0.5 };
  for (const controller of [deploymentController, replicaSetController, scheduler, endpointSliceController]) t.after(controller(parts));
  return parts;
}

const deployment = (replicas: number): Deployment => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'web', namespace: 'n' },
  spec: {
    replicas,
    selector: { matchLabels: { app: 'a' } },
    template: { metadata: { labels: { app: 'a' } }, spec: { containers: [{ name: 'c', image: 'one' }] } },
  },
});

/** What kubelets would do. */
async function makeReady(cluster: FakeCluster): Promise<void> {
  for (const { metadata, spec } of cluster.pods.list()) {
    if (metadata.deletionTimestamp) await cluster.pods.delete('n', metadata.name, { graceSeconds: 0 });
    else if (spec.nodeName) {
      await cluster.pods.modifyStatus('n', metadata.name, (draft) => {
        draft.status = {
          phase: 'Running',
          podIPs: [{ ip: `10.0.0.${cluster.pods.list().findIndex((each) => each.metadata.name === metadata.name) + 1}` }],
          conditions: [{ type: 'Ready', status: 'True' }],
        };
        return true;
      });
    }
  }
  await turns();
}

test('a Deployment gets its pods, on all nodes, and says when they are available', async (t) => {
  const { cluster } = start(t);
  await cluster.nodes.create(node('node1'));
  await cluster.nodes.create(node('node2'));
  await cluster.deployments.create(deployment(4));
  await turns();
  assert.deepEqual(
    cluster.pods
      .list()
      .map(({ spec }) => spec.nodeName)
      .sort(),
    ['node1', 'node1', 'node2', 'node2'],
  );
  await makeReady(cluster);
  const status = cluster.deployments.get('n', 'web')?.status;
  assert.deepEqual([status?.replicas, status?.updatedReplicas, status?.availableReplicas, status?.unavailableReplicas], [4, 4, 4, 0]);
  assert.deepEqual(status?.conditions?.map(({ type, status: holds, reason }) => `${type} ${holds} ${reason}`).sort(), [
    'Available True MinimumReplicasAvailable',
    'Progressing True NewReplicaSetAvailable',
  ]);
});

test('a new template replaces every pod; the old version is kept for a rollback, which gets a new revision', async (t) => {
  const { cluster } = start(t);
  await cluster.nodes.create(node('node1'));
  await cluster.deployments.create(deployment(2));
  await turns();
  await makeReady(cluster);
  const setImage = (image: string) =>
    cluster.deployments.modify('n', 'web', (draft) => {
      draft.spec = { ...draft.spec, template: { ...draft.spec.template, spec: { containers: [{ name: 'c', image }] } } };
      return true;
    });
  const images = (): string[] => cluster.pods.list().map(({ spec }) => spec.containers[0]?.image ?? '');
  const roll = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) {
      await turns();
      await makeReady(cluster);
    }
  };
  await setImage('two');
  await roll();
  assert.deepEqual(images(), ['two', 'two']);
  assert.equal(cluster.deployments.get('n', 'web')?.metadata.annotations?.['deployment.kubernetes.io/revision'], '2');
  await setImage('one');
  await roll();
  assert.deepEqual(images(), ['one', 'one']);
  assert.equal(cluster.replicaSets.list().length, 2, 'the first set is used again');
  assert.equal(cluster.deployments.get('n', 'web')?.metadata.annotations?.['deployment.kubernetes.io/revision'], '3');
});

test('a pod that is deleted or ended is replaced, and one too many goes, the one that is not ready first', async (t) => {
  const { cluster } = start(t);
  await cluster.nodes.create(node('node1'));
  await cluster.deployments.create(deployment(2));
  await turns();
  await makeReady(cluster);
  const [first] = cluster.pods.list();
  await cluster.pods.delete('n', first?.metadata.name ?? '', { graceSeconds: 0 });
  await turns();
  assert.equal(cluster.pods.list().length, 2);
  const fresh = cluster.pods.list().find(({ status }) => status?.phase === undefined || status.phase === 'Pending');
  await cluster.deployments.modify('n', 'web', (draft) => {
    draft.spec = { ...draft.spec, replicas: 1 };
    return true;
  });
  await turns();
  const leaving = cluster.pods.list().filter(({ metadata }) => metadata.deletionTimestamp);
  assert.deepEqual(
    leaving.map(({ metadata }) => metadata.name),
    [fresh?.metadata.name],
  );
});

test('a pod that cannot be made is an event of its ReplicaSet and tried again', async (t) => {
  const { cluster, clock } = start(t);
  await cluster.nodes.create(node('node1'));
  const create = cluster.pods.create.bind(cluster.pods);
  cluster.pods.create = async () => {
    throw new Error('serviceaccount "x" not found');
  };
  await cluster.deployments.create(deployment(1));
  await turns();
  assert.match(
    cluster.events.find(({ reason }) => reason === 'FailedCreate')?.message ?? '',
    /Error creating: serviceaccount "x" not found/,
  );
  cluster.pods.create = create;
  await clock.advance(60_000);
  await turns();
  assert.equal(cluster.pods.list().length, 1);
});

// ---- scheduler -------------------------------------------------------------------------------------------------------------------------

const nodes = [node('node1', { zone: 'a' }), node('node2', { zone: 'a' }), node('node3', { zone: 'b' })];

test('the node with the fewest pods is chosen, among those that the selector allows', () => {
  const there = [pod('x', { nodeName: 'node1' }), pod('y', { nodeName: 'node2' }), pod('z', { nodeName: 'node2' })];
  assert.deepEqual(chooseNode(pod('new'), nodes, there), { node: 'node3' });
  assert.deepEqual(chooseNode(pod('new', { nodeSelector: { zone: 'a' } }), nodes, there), { node: 'node1' });
  assert.deepEqual(chooseNode(pod('new', { nodeSelector: { zone: 'c' } }), nodes, there), {
    refusals: ["node(s) didn't match Pod's node affinity/selector"],
  });
});

test('node affinity, anti-affinity and spread constraints are kept', () => {
  const affine = {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: 'zone', operator: 'In', values: ['b'] }] }],
      },
    },
  };
  assert.deepEqual(chooseNode(pod('new', { affinity: affine }), nodes, []), { node: 'node3' });
  const apart = {
    podAntiAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: [{ labelSelector: { matchLabels: { app: 'a' } }, topologyKey: 'zone' }],
    },
  };
  assert.deepEqual(chooseNode(pod('new', { affinity: apart }), nodes, [pod('x', { nodeName: 'node1' })]), { node: 'node3' });
  const spread = [{ topologyKey: 'zone', labelSelector: { matchLabels: { app: 'a' } }, maxSkew: 1, whenUnsatisfiable: 'DoNotSchedule' }];
  assert.deepEqual(chooseNode(pod('new', { topologySpreadConstraints: spread }), nodes, [pod('x', { nodeName: 'node3' })]), {
    node: 'node1',
  });
});

test('a pod that fits nowhere says so in its condition, and is scheduled when a node comes', async (t) => {
  const { cluster, clock } = start(t);
  await cluster.pods.create(pod('lost'));
  await turns();
  const condition = cluster.pods.get('n', 'lost')?.status?.conditions?.[0];
  assert.deepEqual([condition?.reason, condition?.message], ['Unschedulable', '0/0 nodes are available: there are no nodes.']);
  await cluster.nodes.create(node('node1'));
  await clock.advance(1000);
  await turns();
  assert.equal(cluster.pods.get('n', 'lost')?.spec.nodeName, 'node1');
});

// ---- endpoints -------------------------------------------------------------------------------------------------------------------------

const service = (spec: Partial<Service['spec']> = {}): Service => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'web', namespace: 'n', labels: { team: 'moles' } },
  spec: { selector: { app: 'a' }, ipFamilies: ['IPv4'], ports: [{ name: 'http', port: 80, targetPort: 'http' }], ...spec },
});

test('endpoints are ready, serving or terminating as their pods are', () => {
  const leaving = running('c', '10.0.0.3', true);
  leaving.metadata.deletionTimestamp = 'now';
  const [slice] = slicesFor(
    service(),
    [running('a', '10.0.0.1', true), running('b', '10.0.0.2', false), leaving],
    [node('node1', { 'topology.kubernetes.io/zone': 'z' })],
  );
  assert.deepEqual(
    slice?.endpoints?.map(({ addresses, conditions, zone }) => [
      addresses[0],
      conditions?.ready,
      conditions?.serving,
      conditions?.terminating,
      zone,
    ]),
    [
      ['10.0.0.1', true, true, false, 'z'],
      ['10.0.0.2', false, false, false, 'z'],
      ['10.0.0.3', false, true, true, 'z'],
    ],
  );
  assert.deepEqual(slice?.ports, [{ name: 'http', port: 8080, protocol: 'TCP' }]);
});

test('publishNotReadyAddresses makes every pod ready', () => {
  const [slice] = slicesFor(service({ publishNotReadyAddresses: true }), [running('b', '10.0.0.2', false)], []);
  assert.equal(slice?.endpoints?.[0]?.conditions?.ready, true);
});

test('pods whose named port has different numbers are in different slices; families too', () => {
  const other = running('b', 'fd00::2', true);
  other.spec = { ...other.spec, containers: [{ name: 'c', ports: [{ name: 'http', containerPort: 9090 }] }] };
  const slices = slicesFor(
    service({ ipFamilies: ['IPv4', 'IPv6'] }),
    [running('a', '10.0.0.1', true), { ...other, status: { ...other.status, podIPs: [{ ip: '10.0.0.2' }, { ip: 'fd00::2' }] } }],
    [],
  );
  assert.deepEqual(
    slices.map(({ addressType, endpoints, ports }) => [addressType, endpoints?.[0]?.addresses[0], ports?.[0]?.port]).sort(),
    [
      ['IPv4', '10.0.0.1', 8080],
      ['IPv4', '10.0.0.2', 9090],
      ['IPv6', 'fd00::2', 9090],
    ],
  );
});

test('slices follow their service: made, changed when a label of a pod changes, removed with it', async (t) => {
  const { cluster } = start(t);
  await cluster.pods.create(running('a', '10.0.0.1', true));
  await cluster.services.create(service());
  await turns();
  assert.equal(cluster.endpointSlices.list()[0]?.endpoints?.length, 1);
  await cluster.pods.modify('n', 'a', (draft) => {
    draft.metadata.labels = { app: 'b' };
    return true;
  });
  await turns();
  assert.equal(cluster.endpointSlices.list().flatMap(({ endpoints }) => endpoints ?? []).length, 0);
  await cluster.services.delete('n', 'web');
  await turns();
  assert.equal(cluster.endpointSlices.list().length, 0);
});

// ---- work queue ------------------------------------------------------------------------------------------------------------------------

test('a key that is added many times in a turn is looked at once; one added meanwhile again', async (t) => {
  const looked: string[] = [];
  const queue: WorkQueue = new WorkQueue({
    name: 'q',
    clock: new FakeClock(),
    log: recordingLog(),
    random: () => 0.5,
    reconcile: async (key) => {
      looked.push(key);
      if (looked.length === 1) queue.add('a');
    },
  });
  t.after(() => queue.close());
  for (const key of ['a', 'b', 'a']) queue.add(key);
  await turns();
  assert.deepEqual(looked, ['a', 'b', 'a']);
});

test('a key that fails is tried again later and later, and the others do not wait for it', async (t) => {
  const clock = new FakeClock();
  const at: number[] = [];
  const looked: string[] = [];
  const queue = new WorkQueue({
    name: 'q',
    clock,
    log: recordingLog(),
    random: () => 0.5,
    reconcile: async (key) => {
      looked.push(key);
      if (key === 'bad') {
        at.push(clock.monotonic());
        throw new Error('no');
      }
    },
  });
  t.after(() => queue.close());
  queue.add('bad');
  queue.add('good');
  await turns();
  assert.deepEqual(looked, ['bad', 'good']);
  await clock.advance(150);
  await turns();
  assert.deepEqual(at, [0, 20, 60, 140]);
  queue.close();
  assert.equal(clock.pending, 0);
});
