/** Whose share of a worker's turns a tunnel uses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Lane } from '../../../common/hbone/turn-shares.ts';
import { Lanes } from '../../../ztunnel/worker/lanes.ts';

test('tunnels of one peer share a lane as long as one of them is open; of a pod of this node, they use the pod’s own', () => {
  const own = new Lane();
  const lanes = new Lanes((ip) => (ip === '10.0.0.1' ? own : undefined));
  assert.equal(lanes.join('10.0.0.1'), own);
  const [first, second] = [lanes.join('10.0.1.1'), lanes.join('10.0.1.1')];
  assert.equal(first, second);
  assert.notEqual(lanes.join('10.0.1.2'), first);
  lanes.leave('10.0.0.1', own);
  lanes.leave('10.0.1.1', first);
  assert.equal(lanes.join('10.0.1.1'), first);
  for (const lane of [first, first]) lanes.leave('10.0.1.1', lane);
  assert.equal(lanes.size, 1);
  assert.notEqual(lanes.join('10.0.1.1'), first);
  // A pod that came or went meanwhile.
  lanes.leave('10.0.1.1', first);
  assert.equal(lanes.size, 2);
});
