import assert from 'node:assert/strict';
import { test } from 'node:test';
import { minutes } from '../../../common/base/clock.ts';
import { Spares } from '../../../common/hbone/spares.ts';
import { FakeClock } from '../../support/fake-clock.ts';

test('spares: the one that was put back last is taken first, and no more are kept than allowed', () => {
  const spares = new Spares<string>(2, new FakeClock());
  assert.equal(spares.take(), undefined);
  for (const name of ['a', 'b', 'c']) spares.put(name);
  assert.deepEqual([spares.take(), spares.take(), spares.take()], ['b', 'a', undefined]);
});

test('spares: what nobody wanted for a minute is let go, what is used stays', async () => {
  const clock = new FakeClock();
  const spares = new Spares<number>(64, clock);
  for (let i = 0; i < 10; i++) spares.put(i);
  await clock.advance(minutes(1));
  assert.equal(spares.size, 10, 'the minute in which they came');
  const used = [spares.take(), spares.take(), spares.take()];
  for (const one of used) if (one !== undefined) spares.put(one);
  await clock.advance(minutes(1));
  assert.equal(spares.size, 3);
  assert.deepEqual([spares.take(), spares.take(), spares.take()].sort(), [7, 8, 9], 'those that were used last');
});

test('spares: after the last use none are left, and nothing waits for them any more', async () => {
  const clock = new FakeClock();
  const spares = new Spares<number>(64, clock);
  spares.put(1);
  await clock.advance(minutes(2));
  assert.deepEqual([spares.size, clock.pending], [0, 0]);
  spares.put(2);
  await clock.advance(minutes(1));
  assert.equal(spares.size, 1, 'it is watched again');
  await clock.advance(minutes(1));
  assert.equal(spares.size, 0);
});
