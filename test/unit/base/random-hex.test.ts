import assert from 'node:assert/strict';
import { test } from 'node:test';
import { randomHexSource } from '../../../common/base/random-hex.ts';

test('random digits are as many as are asked for, and none is given twice', () => {
  const randomHex = randomHexSource();
  const ids = Array.from({ length: 1000 }, (_, i) => randomHex(i % 2 === 0 ? 32 : 16));
  for (const [i, id] of ids.entries()) assert.match(id, i % 2 === 0 ? /^[0-9a-f]{32}$/ : /^[0-9a-f]{16}$/);
  assert.equal(new Set(ids).size, ids.length);
  assert.match(randomHex(512), /^[0-9a-f]{512}$/);
});
