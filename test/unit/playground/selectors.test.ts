import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  formatLabelSelector,
  labelSelectorMatcher,
  parseFieldSelector,
  parseLabelSelector,
} from '../../../playground/apiserver/selectors.ts';
import { pod } from '../../support/api-store.ts';

const labels = { app: 'web', tier: 'front', 'example.com/x': '' };

for (const [selector, expected] of [
  ['', true],
  ['app=web', true],
  ['app==web,tier=front', true],
  ['app=web,tier=back', false],
  ['app!=web', false],
  ['absent!=web', true],
  ['app in (web, api)', true],
  ['app in (api)', false],
  ['app notin (api,db),tier', true],
  ['absent notin (x)', true],
  ['!absent', true],
  ['!app', false],
  ['example.com/x=', true],
  ['absent=', false],
] as const) {
  test(`labels of a web pod ${expected ? 'match' : 'do not match'} the selector "${selector}"`, () => {
    assert.equal(parseLabelSelector(selector)(labels), expected);
  });
}

test('a label selector that cannot be parsed is refused with the part that is wrong', () => {
  assert.throws(() => parseLabelSelector('app=web,a b c'), /unable to parse requirement: a b c/);
  assert.throws(() => parseLabelSelector('app in (web'), /unable to parse/);
});

test('a selector object matches by labels and expressions, and an empty one matches everything', () => {
  const matches = labelSelectorMatcher({
    matchLabels: { app: 'web' },
    matchExpressions: [{ key: 'tier', operator: 'In', values: ['front'] }],
  });
  assert.equal(matches(labels), true);
  assert.equal(matches({ app: 'web' }), false);
  assert.equal(labelSelectorMatcher({})(labels), true);
  assert.throws(() => labelSelectorMatcher({ matchExpressions: [{ key: 'a', operator: 'Like', values: ['b'] }] }), /"Like" is not a valid/);
});

test('a selector object is written as text that selects the same', () => {
  const selector = {
    matchLabels: { app: 'web' },
    matchExpressions: [
      { key: 'tier', operator: 'NotIn', values: ['a', 'b'] },
      { key: 'x', operator: 'DoesNotExist' },
    ],
  };
  assert.equal(formatLabelSelector(selector), 'app=web,tier notin (a,b),!x');
  assert.equal(parseLabelSelector(formatLabelSelector(selector))({ app: 'web', tier: 'c' }), true);
});

test('field selectors compare any scalar field, absent ones as empty', () => {
  const running = { ...pod('a'), status: { phase: 'Running' } };
  assert.equal(parseFieldSelector('metadata.name=a,status.phase!=Failed')(running), true);
  assert.equal(parseFieldSelector('spec.nodeName=')(running), true);
  assert.equal(parseFieldSelector('spec.nodeName=n1')(running), false);
  assert.throws(() => parseFieldSelector('metadata.name'), /cannot parse "metadata.name"/);
});
