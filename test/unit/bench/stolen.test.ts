import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readTimes, stolenShare, undisturbed } from '../../../bench/support/stolen.ts';

const STAT = `cpu  100 10 50 1000 20 0 40 30 0 0
cpu0 50 5 25 500 10 0 20 15 0 0
intr 1
`;

test('the share that the host took is one of what was wanted, idle time left out', () => {
  const times = readTimes(STAT);
  assert.deepEqual(times, { busy: 200, stolen: 30 });
  assert.equal(stolenShare(times, { busy: 290, stolen: 40 }), 0.1);
  assert.equal(stolenShare(times, times), 0);
});

/** @param stolen in each second of a measurement that takes one of them */
function measuring(stolen: readonly number[]) {
  const now = { busy: 0, stolen: 0 };
  let measured = 0;
  const alone = undisturbed({ times: () => ({ ...now }), pause: async () => {} });
  return () =>
    alone(async () => {
      now.busy += 100;
      now.stolen += stolen[measured] ?? stolen.at(-1) ?? 0;
      return measured++;
    });
}

test('what the host disturbed is measured again, and the least disturbed counts', async () => {
  assert.equal(await measuring([0, 50])(), 0);
  assert.equal(await measuring([50, 1, 0])(), 1);
  assert.equal(await measuring([50, 20, 10, 30, 0])(), 2, 'four tries');
});

test('a host that is never quiet does not keep a bench from its end', async () => {
  const measure = measuring([50]);
  let last = 0;
  for (let i = 0; i < 100; i++) last = await measure();
  assert.ok(last < 200, `${last} measurements for 100`);
});
