import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { isRolledOut, Rollouts } from '../../../istiod-lite/gateway/rollouts.ts';

const deployment = (generation: number, status: object, replicas = 2): KubeObject => ({
  metadata: { generation },
  spec: { replicas },
  status,
});
const done = (generation: number): KubeObject =>
  deployment(generation, { observedGeneration: generation, replicas: 2, updatedReplicas: 2, availableReplicas: 2 });
const under = (generation: number): KubeObject =>
  deployment(generation, { observedGeneration: generation, replicas: 3, updatedReplicas: 1, availableReplicas: 2 });

function rollouts(limit = 2) {
  const freed: string[][] = [];
  return { freed, of: new Rollouts(limit, (waiting) => void freed.push([...waiting])) };
}

test('a Deployment is rolled out when nothing of the old is left and all of the new is available, or once it was', () => {
  assert.equal(isRolledOut(done(2)), true);
  assert.equal(isRolledOut(under(2)), false);
  assert.equal(
    isRolledOut(deployment(2, { observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 2 })),
    false,
    'not looked at yet',
  );
  assert.equal(
    isRolledOut(deployment(2, { observedGeneration: 2, replicas: 3, updatedReplicas: 2, availableReplicas: 3 })),
    false,
    'an old pod is left',
  );
  const lostLater = {
    observedGeneration: 2,
    replicas: 2,
    updatedReplicas: 2,
    availableReplicas: 1,
    conditions: [{ type: 'Progressing', reason: 'NewReplicaSetAvailable' }],
  };
  assert.equal(isRolledOut(deployment(2, lostLater)), true, 'a pod that was lost since is no rollout');
});

test('only so many are replaced at once; the others are told when there is room', () => {
  const { of, freed } = rollouts();
  for (const gateway of ['a', 'b']) {
    assert.equal(of.mayChange(gateway), true);
    of.changed(gateway, 2);
  }
  assert.equal(of.mayChange('c'), false, 'before the watch has shown what was changed');
  of.seen('a', under(2));
  of.seen('b', under(2));
  assert.equal(of.mayChange('c'), false);
  assert.equal(of.mayChange('a'), true, 'one that is being replaced may be corrected');
  of.seen('a', done(2));
  assert.deepEqual(freed, [['c']]);
  assert.equal(of.mayChange('c'), true);
});

test('a version that does not come up stops at these few', () => {
  const { of, freed } = rollouts();
  for (const gateway of ['a', 'b']) of.seen(gateway, under(3));
  for (const gateway of ['c', 'd', 'e']) assert.equal(of.mayChange(gateway), false);
  for (let i = 0; i < 5; i++) of.seen('a', under(3));
  assert.deepEqual(freed, []);
});

test('an older picture from the watch does not end a change; a new Deployment and a deleted Gateway hold nobody up', () => {
  const { of } = rollouts(1);
  assert.equal(of.mayChange('a'), true);
  of.changed('a', 2);
  of.seen('a', done(1));
  assert.equal(of.mayChange('b'), false);
  of.forget('a');
  assert.equal(of.mayChange('b'), true);
  of.changed('c', 1);
  of.seen('c', deployment(1, { observedGeneration: 1, replicas: 2, updatedReplicas: 2, availableReplicas: 0 }));
  assert.equal(of.mayChange('b'), true, 'a waypoint that was never ready is nobody to wait for');
});
