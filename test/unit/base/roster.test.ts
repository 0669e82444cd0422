import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Member, Roster } from '../../../common/base/roster.ts';

class One implements Member {
  place = -1;
}

test('a roster holds what a set would', () => {
  const step = fc.record({ who: fc.nat(15), add: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
      const everybody = Array.from({ length: 16 }, () => new One());
      const roster = new Roster<One>();
      const model = new Set<One>();
      for (const { who, add } of steps) {
        const member = everybody[who];
        assert.ok(member);
        if (add) {
          roster.add(member);
          model.add(member);
        } else assert.equal(roster.delete(member), model.delete(member));
        assert.equal(roster.size, model.size);
      }
      assert.deepEqual(new Set(roster.all()), model);
    }),
  );
});

test('members of a roster may leave while others look at them', () => {
  const roster = new Roster<One>();
  for (let i = 0; i < 5; i++) roster.add(new One());
  let seen = 0;
  for (const member of roster.all()) {
    seen++;
    roster.delete(member);
  }
  assert.deepEqual([seen, roster.size], [5, 0]);
});
