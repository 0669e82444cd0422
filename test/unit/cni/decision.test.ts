import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_SELECTORS, decideEnrolment, type Pod, podIps } from '../../../cni/enrol/decision.ts';
import { parseLabelSelector } from '../../../cni/enrol/label-selector.ts';
import { cniSettings } from '../../../cni/settings.ts';
import { readSettings, SettingsError } from '../../../common/base/settings.ts';
import { selectorMatches } from '../../../common/decision/label-selector.ts';

const MODE = 'istio.io/dataplane-mode';
const rules = { selectors: DEFAULT_SELECTORS, excludedNamespaces: ['kube-system'] };

function pod(mode: string | undefined, fields: Partial<Pod> = {}, namespace = 'shop'): Pod {
  return { ...fields, metadata: { name: 'p', namespace, ...(mode !== undefined && { labels: { [MODE]: mode } }), ...fields.metadata } };
}

const table: readonly (readonly [pod: string | undefined, namespace: string | undefined, enrolled: boolean])[] = [
  [undefined, undefined, false],
  [undefined, 'ambient', true],
  [undefined, 'none', false],
  ['ambient', undefined, true],
  ['ambient', 'none', true],
  ['ambient', 'ambient', true],
  ['none', 'ambient', false],
  ['none', undefined, false],
  ['sidecar', 'ambient', true],
  ['Ambient', undefined, false],
  ['', 'ambient', true],
  [undefined, 'AMBIENT', false],
];
for (const [own, namespace, enrolled] of table) {
  test(`pod label ${own ?? 'absent'}, namespace label ${namespace ?? 'absent'}: ${enrolled ? 'enrolled' : 'not enrolled'}`, () => {
    const labels = namespace === undefined ? {} : { [MODE]: namespace };
    assert.equal(decideEnrolment(rules, pod(own), labels).enrol, enrolled);
  });
}

const exclusions: readonly (readonly [reason: RegExp, Pod])[] = [
  [/node's network/, pod('ambient', { spec: { hostNetwork: true } })],
  [
    /sidecar/,
    pod('ambient', { metadata: { namespace: 'shop', labels: { [MODE]: 'ambient' }, annotations: { 'sidecar.istio.io/status': '{}' } } }),
  ],
  [/namespace kube-system is excluded/, pod('ambient', {}, 'kube-system')],
  [/finished/, pod('ambient', { status: { phase: 'Succeeded' } })],
  [/finished/, pod('ambient', { status: { phase: 'Failed' } })],
];
for (const [reason, excluded] of exclusions) {
  test(`excluded whatever its labels say: ${reason.source}`, () => {
    const decision = decideEnrolment(rules, excluded, { [MODE]: 'ambient' });
    assert.ok(!decision.enrol && decision.selected);
    assert.match(decision.reason, reason);
  });
}

test('what no label selects is no reason to warn', () => {
  const decision = decideEnrolment(rules, pod(undefined, { spec: { hostNetwork: true } }), {});
  assert.ok(!decision.enrol && !decision.selected);
});

test("a namespace that is not known selects nothing, the pod's own label does", () => {
  assert.equal(decideEnrolment(rules, pod(undefined), undefined).enrol, false);
  assert.equal(decideEnrolment(rules, pod('ambient'), undefined).enrol, true);
});

test('selectors: labels and every operator, all must hold', () => {
  const selector = parseLabelSelector(
    {
      matchLabels: { app: 'orders' },
      matchExpressions: [
        { key: 'tier', operator: 'In', values: ['a', 'b'] },
        { key: 'old', operator: 'DoesNotExist' },
        { key: 'app', operator: 'Exists' },
        { key: 'zone', operator: 'NotIn', values: ['x'] },
      ],
    },
    'selector',
  );
  assert.equal(selectorMatches(selector, { app: 'orders', tier: 'a' }), true);
  for (const labels of [
    { app: 'orders' },
    { app: 'orders', tier: 'c' },
    { app: 'orders', tier: 'a', old: '' },
    { app: 'orders', tier: 'a', zone: 'x' },
    { tier: 'a' },
  ]) {
    assert.equal(selectorMatches(selector, labels), false, JSON.stringify(labels));
  }
  assert.equal(selectorMatches({}, {}), true);
});

test("the setting takes Istio's form, and a typing error is named, with every other one", () => {
  const text = '- podSelector: {matchLabels: {mesh: "yes"}}\n- namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}';
  const { selectors } = readSettings(cniSettings, { AMBIENT_ENABLEMENT_SELECTOR: text });
  const own = { selectors, excludedNamespaces: [] };
  assert.equal(decideEnrolment(own, pod(undefined), { team: 'a' }).enrol, true);
  assert.equal(decideEnrolment(own, pod('ambient'), { [MODE]: 'ambient' }).enrol, false);
  const bad = { AMBIENT_ENABLEMENT_SELECTOR: '- podSelectors: {}', AMBIENT_IPV6: 'maybe', HOST_PROBE_SNAT_IP: 'fd00::1' };
  assert.throws(
    () => readSettings(cniSettings, bad),
    (error) => error instanceof SettingsError && error.problems.length === 3 && /entry 1: unknown field podSelectors/.test(error.message),
  );
  for (const [wrong, message] of [
    ['{}', /expected a YAML list/],
    ['- podSelector: {matchLabels: [a]}', /matchLabels: expected a mapping/],
    ['- podSelector: {matchExpressions: [{key: a, operator: Gt}]}', /matchExpressions\[0\].operator: expected In/],
    ['- 7', /entry 1: expected a mapping/],
  ] as const) {
    assert.throws(() => readSettings(cniSettings, { AMBIENT_ENABLEMENT_SELECTOR: wrong }), message);
  }
});

test("a pod's addresses are canonical, and text that is none is left out", () => {
  assert.deepEqual(
    podIps({ metadata: {}, status: { podIP: '10.0.0.1', podIPs: [{ ip: '10.0.0.1' }, { ip: 'FD00:0::1' }, { ip: 'x' }, {}] } }),
    ['10.0.0.1', 'fd00::1'],
  );
  assert.deepEqual(podIps({ metadata: {}, status: { podIP: '10.0.0.1' } }), ['10.0.0.1']);
  assert.deepEqual(podIps({ metadata: {} }), []);
});
