import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LookupMemo } from '../../../common/state/lookup-memo.ts';

test('an answer is remembered by both keys, and forgotten with its picture', () => {
  const memo = new LookupMemo<{ n: number }>();
  const [picture, next] = [{}, {}];
  const one = memo.put(picture, 'a', 'b', { n: 1 });
  const two = memo.put(picture, 'a', 'c', { n: 2 });
  assert.equal(memo.get(picture, 'a', 'b'), one);
  assert.equal(memo.get(picture, 'a', 'c'), two);
  assert.equal(memo.get(picture, 'b', 'a'), undefined);
  assert.equal(memo.get(next, 'a', 'b'), undefined);
  memo.put(next, 'a', 'c', { n: 3 });
  assert.equal(memo.get(next, 'a', 'b'), undefined);
  assert.equal(memo.get(picture, 'a', 'b'), undefined);
});

test('whoever asks for thousands of addresses fills no memory', () => {
  const memo = new LookupMemo<{ n: number }>();
  const picture = {};
  for (let n = 0; n < 10_000; n++) memo.put(picture, 'network', String(n), { n });
  let kept = 0;
  for (let n = 0; n < 10_000; n++) if (memo.get(picture, 'network', String(n))) kept++;
  assert.ok(kept > 0 && kept <= 512, `${kept} answers kept`);
});
