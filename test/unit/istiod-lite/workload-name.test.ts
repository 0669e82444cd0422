import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readMeta } from '../../../istiod-lite/model/objects.ts';
import { canonicalName, canonicalRevision, controllerName } from '../../../istiod-lite/model/workload-name.ts';

function name(
  owner: Record<string, unknown> | undefined,
  labels: Record<string, string> = {},
  generateName: string | undefined = 'x-',
): string {
  const object = {
    metadata: {
      name: 'pod-1',
      namespace: 'shop',
      labels,
      ...(generateName ? { generateName } : {}),
      ownerReferences: owner ? [{ controller: true, ...owner }] : [],
    },
  };
  const meta = readMeta(object);
  assert.ok(meta);
  return controllerName(object, meta);
}

test('a pod is called after what deployed it', () => {
  assert.equal(name({ kind: 'ReplicaSet', name: 'web-5d4' }, { 'pod-template-hash': '5d4' }), 'web');
  assert.equal(name({ kind: 'ReplicaSet', name: 'web-5d4' }, { 'rollouts-pod-template-hash': '5d4' }), 'web');
  assert.equal(name({ kind: 'ReplicaSet', name: 'web-5d4' }), 'web-5d4');
  assert.equal(name({ kind: 'Job', name: 'backup-28391040' }), 'backup');
  assert.equal(name({ kind: 'Job', name: 'once-12' }), 'once-12');
  assert.equal(name({ kind: 'StatefulSet', name: 'db' }), 'db');
  assert.equal(name({ kind: 'ReplicationController', name: 'app-3' }, { deploymentconfig: 'app' }), 'app');
});

test('a pod that nobody generated, or that nobody controls, is called by its own name', () => {
  assert.equal(name({ kind: 'StatefulSet', name: 'db' }, {}, ''), 'pod-1');
  assert.equal(name(undefined), 'pod-1');
  assert.equal(name({ kind: 'StatefulSet', name: 'db', controller: false }), 'pod-1');
});

test('a label of its own decides', () => {
  assert.equal(name({ kind: 'StatefulSet', name: 'db' }, { 'service.istio.io/workload-name': 'mine' }), 'mine');
});

test("canonical names take Istio's label, then Kubernetes', then app, then the workload", () => {
  const labels = { 'service.istio.io/canonical-name': '1', 'app.kubernetes.io/name': '2', app: '3' };
  assert.equal(canonicalName(labels, '4'), '1');
  assert.equal(canonicalName({ 'app.kubernetes.io/name': '2', app: '3' }, '4'), '2');
  assert.equal(canonicalName({ app: '3' }, '4'), '3');
  assert.equal(canonicalName({}, '4'), '4');
  assert.equal(canonicalRevision({ version: 'v2' }), 'v2');
  assert.equal(canonicalRevision({}), 'latest');
});
