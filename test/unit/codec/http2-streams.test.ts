import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StreamTable } from '../../../common/codec/http2/stream-table.ts';

test('a table of streams holds what a map would, however its numbers collide', () => {
  // Multiples of 32 meet in one slot of a small table.
  const number = fc.oneof(
    fc.nat(40).map((n) => 2 * n + 1),
    fc.nat(12).map((n) => 32 * n + 1),
    fc.nat(12).map((n) => 2 ** 31 - 1 - 64 * n),
  );
  const step = fc.record({ id: number, add: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
      const table = new StreamTable<{ readonly id: number }>();
      const model = new Map<number, { readonly id: number }>();
      for (const { id, add } of steps) {
        if (add) {
          const stream = { id };
          table.add(stream);
          model.set(id, stream);
        } else {
          table.delete(id);
          model.delete(id);
        }
        assert.equal(table.size, model.size);
        for (const known of model.values()) assert.equal(table.get(known.id), known);
        if (!add) assert.equal(table.get(id), undefined);
      }
      assert.deepEqual(new Set(table.all()), new Set(model.values()));
    }),
  );
});

test('a stream that stays does not hinder a million that come and go', () => {
  const table = new StreamTable<{ readonly id: number }>();
  const stays = { id: 1 };
  table.add(stays);
  for (let id = 3; id < 2_000_000; id += 2) {
    table.add({ id });
    if (id > 20) table.delete(id - 16);
  }
  assert.equal(table.get(1), stays);
  // Beside the first one, the second and the last eight.
  assert.equal(table.size, 10);
});

test('stream 0 is none', () => {
  const table = new StreamTable<{ readonly id: number }>();
  assert.equal(table.get(0), undefined);
  table.delete(0);
  assert.equal(table.size, 0);
});
