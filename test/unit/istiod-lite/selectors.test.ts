import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LabelIndex, labelSelectorPicks, picks, SelectorIndex } from '../../../istiod-lite/model/selectors.ts';

const labels = fc.dictionary(fc.constantFrom('app', 'tier', 'constructor'), fc.constantFrom('a', 'b', ''), {
  maxKeys: 3,
  noNullPrototype: true,
});
const namespaces = fc.constantFrom('x', 'y');

test('both indexes find what comparing everything with everything finds, after any additions and removals', () => {
  const steps = fc.array(fc.record({ key: fc.constantFrom('1', '2', '3', '4'), namespace: namespaces, labels, remove: fc.boolean() }), {
    maxLength: 20,
  });
  fc.assert(
    fc.property(steps, labels, (changes, probe) => {
      const members = new LabelIndex();
      const selectors = new SelectorIndex<{ readonly selector: Record<string, string>; readonly key: string }>();
      const plain = new Map<string, { namespace: string; item: { selector: Record<string, string>; key: string } }>();
      for (const { key, namespace, labels: given, remove } of changes) {
        const id = `${namespace}/${key}`;
        const before = plain.get(id);
        if (before) selectors.remove(namespace, before.item);
        members.remove(namespace, id);
        plain.delete(id);
        if (remove) continue;
        const item = { selector: given, key: id };
        plain.set(id, { namespace, item });
        members.add(namespace, id, given);
        selectors.add(namespace, item);
      }
      for (const namespace of ['x', 'y']) {
        const own = [...plain.values()].filter((entry) => entry.namespace === namespace).map(({ item }) => item);
        const selected: string[] = [];
        members.select(namespace, probe, (key) => selected.push(key));
        assert.deepEqual(
          selected.sort(),
          own
            .filter(({ selector }) => picks(probe, selector))
            .map(({ key }) => key)
            .sort(),
        );
        const matching = selectors.matching(namespace, probe).map(({ key }) => key);
        assert.deepEqual(
          matching.sort(),
          own
            .filter(({ selector }) => picks(selector, probe))
            .map(({ key }) => key)
            .sort(),
        );
      }
      const everywhere: string[] = [];
      members.select(undefined, {}, (key) => everywhere.push(key));
      assert.deepEqual(everywhere.sort(), [...plain.keys()].sort());
    }),
    { numRuns: 200 },
  );
});

test('a member that gets other labels is found by those alone', () => {
  const members = new LabelIndex();
  members.add('x', 'one', { app: 'a' });
  members.add('x', 'one', { app: 'b' });
  const found: string[] = [];
  members.select('x', { app: 'a' }, (key) => found.push(`a ${key}`));
  members.select('x', { app: 'b' }, (key) => found.push(`b ${key}`));
  assert.deepEqual(found, ['b one']);
});

test("Kubernetes' selectors know four operators; another one picks nothing", () => {
  const expression = (operator: string, values?: string[]) => ({
    matchExpressions: [{ key: 'app', operator, ...(values ? { values } : {}) }],
  });
  const picked = (selector: unknown) =>
    [{ app: 'a' }, { app: 'b' }, {}].map((it) => labelSelectorPicks(selector, it as Record<string, string>));
  assert.deepEqual(picked(expression('In', ['a'])), [true, false, false]);
  assert.deepEqual(picked(expression('NotIn', ['a'])), [false, true, true]);
  assert.deepEqual(picked(expression('Exists')), [true, true, false]);
  assert.deepEqual(picked(expression('DoesNotExist')), [false, false, true]);
  assert.deepEqual(picked(expression('Gt', ['1'])), [false, false, false]);
  assert.deepEqual(picked({ matchLabels: { app: 'a' } }), [true, false, false]);
  assert.deepEqual(picked({}), [true, true, true]);
});
