import assert from 'node:assert/strict';
import { test } from 'node:test';
import { builtInTypes } from '../../../playground/apiserver/built-in-types.ts';
import type { KubeObject } from '../../../playground/apiserver/object.ts';
import { Registry } from '../../../playground/apiserver/registry.ts';
import { loadDefinitions } from '../../../playground/apiserver/schemas/definitions.ts';
import { humanDuration } from '../../../playground/apiserver/tables/duration.ts';
import { compileJsonPath } from '../../../playground/apiserver/tables/json-path.ts';
import { podStatus } from '../../../playground/apiserver/tables/pod-status.ts';
import { tableOf } from '../../../playground/apiserver/tables/table.ts';
import { object, pod } from '../../support/api-store.ts';

const registry = new Registry(builtInTypes(loadDefinitions()));
const START = Date.UTC(2026, 0, 1);
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

for (const [ms, text] of [
  [0, '0s'],
  [119 * SECOND, '119s'],
  [2 * MINUTE, '2m'],
  [9 * MINUTE + 59 * SECOND, '9m59s'],
  [10 * MINUTE + 59 * SECOND, '10m'],
  [179 * MINUTE, '179m'],
  [3 * HOUR, '3h'],
  [7 * HOUR + 59 * MINUTE, '7h59m'],
  [47 * HOUR, '47h'],
  [2 * DAY + 3 * HOUR, '2d3h'],
  [8 * DAY, '8d'],
  [729 * DAY, '729d'],
  [730 * DAY, '2y'],
  [800 * DAY, '2y70d'],
  [-5 * SECOND, '<invalid>'],
] as const) {
  test(`an age of ${ms} ms is shown as ${text}`, () => assert.equal(humanDuration(ms), text));
}

test('column paths read fields, lists and filters', () => {
  const gateway = {
    status: {
      addresses: [{ value: '1.2.3.4' }, { value: 'x' }],
      conditions: [
        { type: 'A', status: 'True' },
        { type: 'B', status: 'False' },
      ],
    },
    'a.b': 1,
  };
  const read = (path: string): unknown[] => compileJsonPath(path)(gateway);
  assert.deepEqual(read('.status.addresses[*].value'), ['1.2.3.4', 'x']);
  assert.deepEqual(read('.status.conditions[?(@.type=="B")].status'), ['False']);
  assert.deepEqual(read(".status.conditions[?(@.type=='C')].status"), []);
  assert.deepEqual(read('.status.addresses[-1].value'), ['x']);
  assert.deepEqual(read('.a\\.b'), [1]);
  assert.deepEqual(read('.no.such'), []);
  assert.throws(() => compileJsonPath('.a['), /cannot parse JSONPath/);
});

const container = (name: string, state: object, more: object = {}) => ({ name, state, ready: false, restartCount: 0, ...more });
const withStatus = (status: object, metadata: Partial<KubeObject['metadata']> = {}): KubeObject => ({ ...pod('p', metadata), status });

for (const [what, status, expected] of [
  ['just created', { phase: 'Pending' }, 'Pending'],
  ['pulling', { phase: 'Pending', containerStatuses: [container('a', { waiting: { reason: 'ContainerCreating' } })] }, 'ContainerCreating'],
  ['crashing', { phase: 'Running', containerStatuses: [container('a', { waiting: { reason: 'CrashLoopBackOff' } })] }, 'CrashLoopBackOff'],
  ['ended with an error', { phase: 'Failed', containerStatuses: [container('a', { terminated: { exitCode: 3 } })] }, 'ExitCode:3'],
  ['killed', { phase: 'Failed', containerStatuses: [container('a', { terminated: { exitCode: 137, signal: 9 } })] }, 'Signal:9'],
  ['evicted', { phase: 'Failed', reason: 'Evicted' }, 'Evicted'],
  ['in its first init container', { phase: 'Pending', initContainerStatuses: [container('i', { running: {} })] }, 'Init:0/0'],
] as const) {
  test(`a pod that is ${what} is shown as ${expected}`, () => assert.equal(podStatus(withStatus(status)).reason, expected));
}

test('a pod that is being deleted is Terminating, and restarts and readiness are counted', () => {
  const status = {
    phase: 'Running',
    containerStatuses: [
      container('a', { running: {} }, { ready: true, restartCount: 2, lastState: { terminated: { finishedAt: '2026-01-01T00:00:00Z' } } }),
      container('b', { running: {} }, { restartCount: 1 }),
    ],
  };
  const summary = podStatus(withStatus(status));
  assert.deepEqual({ ...summary }, { ready: 1, total: 1, restarts: 3, lastRestart: START, reason: 'Running' });
  assert.equal(podStatus(withStatus(status, { deletionTimestamp: '2026-01-01T00:00:00Z' })).reason, 'Terminating');
});

interface Table {
  columnDefinitions: { name: string; priority: number }[];
  rows: { cells: unknown[]; object?: { kind: string } }[];
}

function rowOf(kind: string, each: KubeObject): Record<string, unknown> {
  const type = registry.find(kind) ?? assert.fail(kind);
  const [version] = type.versions;
  assert.ok(version);
  const table = tableOf(type, version, [each], { now: START + 5 * MINUTE, includeObject: 'Metadata' }) as Table;
  assert.equal(table.rows[0]?.object?.kind, 'PartialObjectMetadata');
  return Object.fromEntries(table.columnDefinitions.map(({ name }, i) => [name, table.rows[0]?.cells[i]]));
}

const metadata = { name: 'x', namespace: 'default', creationTimestamp: '2026-01-01T00:00:00Z' };

test('a service shows its type, addresses and ports', () => {
  const spec = {
    type: 'LoadBalancer',
    clusterIP: '10.96.1.1',
    ports: [
      { port: 80, protocol: 'TCP', nodePort: 30_001 },
      { port: 53, protocol: 'UDP' },
    ],
    selector: { b: '2', a: '1' },
  };
  assert.deepEqual(rowOf('Service', object('v1', 'Service', metadata, { spec })), {
    Name: 'x',
    Type: 'LoadBalancer',
    'Cluster-IP': '10.96.1.1',
    'External-IP': '<pending>',
    'Port(s)': '80:30001/TCP,53/UDP',
    Age: '5m',
    Selector: 'a=1,b=2',
  });
});

test('a gateway shows its class, address and whether it is programmed', () => {
  const gateway = object('gateway.networking.k8s.io/v1', 'Gateway', metadata, {
    spec: { gatewayClassName: 'istio-waypoint' },
    status: { addresses: [{ value: '10.96.7.7' }], conditions: [{ type: 'Programmed', status: 'True' }] },
  });
  assert.deepEqual(rowOf('Gateway.gateway.networking.k8s.io', gateway), {
    Name: 'x',
    Class: 'istio-waypoint',
    Address: '10.96.7.7',
    Programmed: 'True',
    Age: '5m',
  });
});

test('a deployment, a node, an endpoint slice and an event have the columns of Kubernetes', () => {
  const deployment = object('apps/v1', 'Deployment', metadata, {
    spec: { replicas: 3, template: { spec: { containers: [{ name: 'c', image: 'i' }] } } },
    status: { readyReplicas: 2, updatedReplicas: 3 },
  });
  assert.deepEqual(Object.values(rowOf('Deployment', deployment)).slice(0, 5), ['x', '2/3', 3, 0, '5m']);
  const node = object(
    'v1',
    'Node',
    { ...metadata, labels: { 'node-role.kubernetes.io/control-plane': '' } },
    { spec: { unschedulable: true }, status: { conditions: [{ type: 'Ready', status: 'True' }], nodeInfo: { kubeletVersion: 'v1' } } },
  );
  assert.deepEqual(Object.values(rowOf('Node', node)).slice(0, 5), ['x', 'Ready,SchedulingDisabled', 'control-plane', '5m', 'v1']);
  const addresses = ['1', '2', '3', '4', '5'].map((last) => ({ addresses: [`10.0.0.${last}`] }));
  const slice = object('discovery.k8s.io/v1', 'EndpointSlice', metadata, {
    addressType: 'IPv4',
    ports: [{ port: 80 }],
    endpoints: addresses,
  });
  assert.deepEqual(Object.values(rowOf('EndpointSlice', slice)), ['x', 'IPv4', '80', '10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...', '5m']);
  const event = object('v1', 'Event', metadata, {
    type: 'Warning',
    reason: 'Bad',
    message: 'no\n',
    involvedObject: { kind: 'Pod', name: 'p' },
    lastTimestamp: '2026-01-01T00:04:00Z',
  });
  assert.deepEqual(Object.values(rowOf('Event.', event)).slice(0, 4), ['60s', 'Warning', 'Bad', 'pod/p']);
});
