import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Cidr, parseCidr } from '../../../common/base/address.ts';
import type { StatusWrite } from '../../../istiod-lite/model/conditions.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};
function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  assert.ok(parsed);
  return parsed;
}

const labels = { 'istio.io/use-waypoint': 'wp' };

/** The object as the API server shows it after the write. */
const shown = (write: StatusWrite | undefined) =>
  make.service({
    name: 'web',
    labels,
    conditions: (write?.conditions ?? []).map((condition) => ({ lastTransitionTime: '2026-01-01T00:00:00Z', ...condition })),
  });

const plain = (writes: readonly StatusWrite[]) =>
  writes.map(({ path, fieldManager, conditions }) => ({
    path,
    fieldManager,
    conditions: conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`),
  }));

const WEB = '/api/v1/namespaces/shop/services/web/status';

test('a Service that asks for a waypoint is told whether it has it, each time the answer changes', () => {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web', labels }) });
  const first = index.flush().statuses;
  const manager = 'istio-ambient-service';
  assert.deepEqual(plain(first), [{ path: WEB, fieldManager: manager, conditions: ['istio.io/WaypointBound=False WaypointIsNotReady'] }]);
  index.apply({ type: 'modified', kind: 'Service', object: shown(first[0]) });
  assert.deepEqual(index.flush().statuses, [], 'the write has arrived');
  index.apply({ type: 'added', kind: 'Gateway', object: make.gateway({ name: 'wp' }) });
  assert.deepEqual(plain(index.flush().statuses), [
    { path: WEB, fieldManager: manager, conditions: ['istio.io/WaypointBound=True WaypointAccepted'] },
  ]);
});

test('nothing is written twice while the object has not changed, and again when somebody undid it', () => {
  const index = new MeshIndex(config);
  const bare = make.service({ name: 'web', labels });
  index.apply({ type: 'added', kind: 'Service', object: bare });
  const [write] = index.flush().statuses;
  index.apply({ type: 'modified', kind: 'Service', object: { ...bare, spec: { ...(bare.spec as object), clusterIPs: ['10.96.0.2'] } } });
  assert.deepEqual(index.flush().statuses, [], 'the first write is still on its way');
  index.apply({ type: 'modified', kind: 'Service', object: shown(write) });
  index.flush();
  index.apply({ type: 'modified', kind: 'Service', object: bare });
  assert.equal(index.flush().statuses.length, 1);
});

test('a write that was handed out is settled once the object shows another state, or is gone', () => {
  const index = new MeshIndex({ ...config, autoAddresses: { v4: cidr('240.240.0.0/16'), v6: cidr('2001:2::/48') } });
  const spec = { hosts: ['a.example'], resolution: 'DNS', ports: [{ number: 80, name: 'http', protocol: 'HTTP' }] };
  const entry = { metadata: { name: 'a', namespace: 'shop', uid: 'a' }, spec };
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web', labels }) });
  index.apply({ type: 'added', kind: 'ServiceEntry', object: entry });
  const { statuses, settled } = index.flush();
  const addresses = statuses.find(({ fieldManager }) => fieldManager === 'istio-ip-autoallocate');
  assert.ok(addresses);
  assert.deepEqual(settled, []);
  const chosenByAnother = {
    addresses: [
      { host: 'a.example', value: '240.240.0.9' },
      { host: 'a.example', value: '2001:2::9' },
    ],
  };
  index.apply({ type: 'modified', kind: 'ServiceEntry', object: { ...entry, status: chosenByAnother } });
  index.apply({ type: 'deleted', kind: 'Service', object: make.service({ name: 'web', labels }) });
  const after = index.flush();
  assert.deepEqual(
    after.settled.map(({ path, fieldManager }) => `${fieldManager} ${path}`),
    [`istio-ambient-service ${WEB}`, `istio-ip-autoallocate ${addresses.path}`],
  );
  assert.deepEqual(
    after.statuses.filter(({ fieldManager }) => fieldManager === 'istio-ip-autoallocate'),
    [],
  );
});

test('a condition that no longer applies is removed with an empty list', () => {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web', labels }) });
  const [write] = index.flush().statuses;
  const unbound = { ...shown(write), metadata: make.service({ name: 'web' }).metadata };
  index.apply({ type: 'modified', kind: 'Service', object: unbound });
  assert.deepEqual(plain(index.flush().statuses), [{ path: WEB, fieldManager: 'istio-ambient-service', conditions: [] }]);
});

test('a status that did not flip keeps the time at which it last did', () => {
  const index = new MeshIndex(config);
  const before = [
    {
      type: 'istio.io/WaypointBound',
      status: 'False',
      reason: 'AttachmentDenied',
      message: 'old',
      lastTransitionTime: '2025-01-01T00:00:00Z',
    },
  ];
  index.apply({ type: 'added', kind: 'Service', object: make.service({ name: 'web', labels, conditions: before }) });
  assert.equal(index.flush().statuses[0]?.conditions[0]?.lastTransitionTime, '2025-01-01T00:00:00Z');
});

test("conditions of others are nobody's business here", () => {
  const index = new MeshIndex(config);
  index.apply({
    type: 'added',
    kind: 'Service',
    object: make.service({ name: 'web', conditions: [{ type: 'Other', status: 'True', reason: 'R', message: '' }] }),
  });
  assert.deepEqual(index.flush().statuses, []);
});

test("a policy's condition is about the generation that was read, and istiod's own writing of it counts", () => {
  const index = new MeshIndex(config);
  const spec = { rules: [{}] };
  index.apply({ type: 'added', kind: 'AuthorizationPolicy', object: make.authorizationPolicy({ name: 'p', spec }) });
  const [write] = index.flush().statuses;
  assert.equal(write?.path, '/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies/p/status');
  assert.equal(write?.conditions[0]?.observedGeneration, 1);
  // Istio's types print 64-bit numbers as text.
  const conditions = (write?.conditions ?? []).map((condition) => ({ ...condition, observedGeneration: '1' }));
  index.apply({ type: 'modified', kind: 'AuthorizationPolicy', object: make.authorizationPolicy({ name: 'p', spec, conditions }) });
  assert.deepEqual(index.flush().statuses, []);
});

test('a workload entry says that its waypoint is for other traffic; one that only follows its namespace says nothing', () => {
  const index = new MeshIndex(config);
  index.apply({ type: 'added', kind: 'Gateway', object: make.gateway({ name: 'wp' }) });
  index.apply({ type: 'added', kind: 'WorkloadEntry', object: make.workloadEntry({ name: 'w', labels, spec: { address: '192.0.2.1' } }) });
  index.apply({ type: 'added', kind: 'Namespace', object: make.namespace('shop', labels) });
  index.apply({ type: 'added', kind: 'WorkloadEntry', object: make.workloadEntry({ name: 'v', spec: { address: '192.0.2.2' } }) });
  assert.deepEqual(plain(index.flush().statuses), [
    {
      path: '/apis/networking.istio.io/v1/namespaces/shop/workloadentries/w/status',
      fieldManager: 'istio-ambient-workloadentry',
      conditions: ['istio.io/WaypointBound=False UnsupportedTrafficType'],
    },
  ]);
});
