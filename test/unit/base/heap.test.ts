import assert from 'node:assert/strict';
import { test } from 'node:test';
import { IdleHeap } from '../../../common/base/heap.ts';

const MEGABYTE = 2 ** 20;

test('a heap that has grown is shrunk once after each busy time, when nothing has been open for half a minute', () => {
  let now = 0;
  let shrunk = 0;
  let bytes = 10 * MEGABYTE;
  const heap = new IdleHeap(() => now, {
    size: () => bytes,
    shrink() {
      shrunk++;
      bytes = 12 * MEGABYTE;
    },
  });
  const look = (seconds: number, open: number): number => {
    now = seconds * 1000;
    heap.look(open);
    return shrunk;
  };
  assert.equal(look(100, 0), 0, 'nothing was ever open');
  assert.equal(look(101, 3), 0);
  bytes = 40 * MEGABYTE;
  assert.equal(look(130, 0), 0);
  assert.equal(look(130.5, 1), 0, 'something is open again');
  assert.equal(look(160, 0), 0);
  assert.equal(look(160.5, 0), 1);
  assert.equal(look(500, 0), 1, 'once is enough');
  assert.equal(look(501, 1), 1);
  bytes = 27 * MEGABYTE;
  assert.equal(look(600, 0), 1, 'what would be given back is not worth what was compiled');
  assert.equal(look(601, 1), 1);
  bytes = 28 * MEGABYTE;
  assert.equal(look(700, 0), 2);
});
