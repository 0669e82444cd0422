import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CountedRefusal, RefusalTally } from '../../../common/base/refusal-tally.ts';

const refusal = (more: Partial<CountedRefusal> = {}): CountedRefusal => ({
  code: 'POLICY_DENIED',
  policy: 'shop/p',
  source: 'a',
  destination: 'b',
  message: 'm',
  count: 1,
  ...more,
});

test('equal refusals are one with a count and the latest message; taking them starts anew', () => {
  const tally = new RefusalTally();
  tally.add(refusal());
  tally.add(refusal({ message: 'later', count: 2 }));
  tally.add(refusal({ destination: 'c' }));
  assert.deepEqual(
    tally.take().map(({ destination, message, count }) => [destination, message, count]),
    [
      ['b', 'later', 3],
      ['c', 'm', 1],
    ],
  );
  assert.deepEqual(tally.take(), []);
});

test('kinds beyond the limit are dropped, known ones go on counting', () => {
  const tally = new RefusalTally();
  for (let i = 0; i < 1000; i++) tally.add(refusal({ destination: String(i) }));
  tally.add(refusal({ destination: '0' }));
  assert.equal(tally.size, 100);
  assert.equal(tally.take()[0]?.count, 2);
});
