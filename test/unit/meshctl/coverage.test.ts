import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { coverageTable } from '../../../meshctl/commands/coverage.ts';
import { coverage } from '../../../meshctl/coverage/coverage.ts';

const pod = (name: string, app: string, enrolled = true, namespace = 'shop'): KubeObject => ({
  metadata: { name, namespace, labels: { app }, annotations: enrolled ? { 'ambient.istio.io/redirection': 'enabled' } : {} },
  status: { phase: 'Running' },
});
const policy = (name: string, spec: object, condition?: object, namespace = 'shop'): KubeObject => ({
  metadata: { name, namespace },
  spec,
  status: { conditions: condition ? [condition] : [] },
});
const ztunnel = (status: 'True' | 'False', reason: string, message = 'm') => ({ type: 'ZtunnelAccepted', status, reason, message });
const waypoint = (status: 'True' | 'False', reason: string, message = 'm') => ({ type: 'WaypointAccepted', status, reason, message });
const select = (app: string) => ({ selector: { matchLabels: { app } } });

const pods = [
  pod('a', 'web'),
  pod('b', 'web'),
  pod('c', 'mixed'),
  pod('d', 'mixed', false),
  pod('e', 'plain', false),
  pod('f', 'other', true, 'else'),
];
const verdict = (made: KubeObject): [string, string] => {
  const [row] = coverage({ policies: [made], pods, rootNamespace: 'istio-system' });
  return [row?.enforced ?? '', row?.because ?? ''];
};

test('a policy of L4 is enforced at the pods that it selects and that are in the mesh', () => {
  const yes = ztunnel('True', 'Accepted');
  assert.deepEqual(verdict(policy('p', select('web'), yes)), ['node', 'at 2 pods']);
  assert.deepEqual(verdict(policy('p', select('mixed'), yes)), ['in part', '1 of its 2 pods are not in the mesh']);
  assert.deepEqual(verdict(policy('p', select('plain'), yes)), ['nowhere', 'none of its 1 pod is in the mesh']);
  assert.deepEqual(verdict(policy('p', select('typo'), yes)), ['nowhere', 'no pod has app=typo']);
  assert.deepEqual(verdict(policy('p', {}, yes, 'empty')), ['nowhere', 'its namespace has no pods']);
  assert.deepEqual(
    verdict(policy('p', select('other'), yes, 'istio-system')),
    ['node', 'at 1 pod'],
    "the root namespace's policies are everybody's",
  );
});

test('a policy at a waypoint that somebody passes by is enforced in part, and the callers are named', () => {
  const made = policy('p', { targetRef: { kind: 'Service', name: 'orders' } }, waypoint('True', 'Accepted', 'bound to shop/w'));
  const [row] = coverage({
    policies: [made],
    pods,
    passedBy: [{ service: 'orders.shop.svc.cluster.local', count: 3, callers: 'spiffe://cluster.local/ns/shop/sa/scraper' }],
    rootNamespace: 'istio-system',
  });
  assert.equal(row?.enforced, 'in part');
  assert.match(row?.because ?? '', /^bound to shop\/w; passed by: spiffe:.*scraper dialled pods of orders\.shop/);
});

test('what istiod says of it counts: not taken, taken in part, nothing said', () => {
  assert.deepEqual(verdict(policy('p', select('web'), ztunnel('False', 'Invalid', 'no'))), ['nowhere', 'Invalid: no']);
  assert.deepEqual(verdict(policy('p', select('web'), ztunnel('True', 'UnsupportedValue', 'methods'))), [
    'in part',
    'UnsupportedValue: methods',
  ]);
  assert.match(verdict(policy('p', select('web')))[1], /has not said yet/);
});

test('a policy of L7 is enforced at the waypoint that has it', () => {
  const targets = { targetRefs: [{ kind: 'Service', name: 'web' }] };
  assert.deepEqual(verdict(policy('p', targets, waypoint('True', 'Accepted', 'bound to shop/web'))), ['waypoint', 'bound to shop/web']);
  assert.deepEqual(verdict(policy('p', targets, waypoint('False', 'AncestorNotBound', 'no waypoint'))), [
    'nowhere',
    'AncestorNotBound: no waypoint',
  ]);
  assert.deepEqual(verdict(policy('p', targets, waypoint('True', 'PartiallyInvalid', 'one of two'))), [
    'in part',
    'PartiallyInvalid: one of two',
  ]);
  assert.match(verdict(policy('p', targets))[1], /has not said yet/);
});

test('the table has a line for each, in order', () => {
  const rows = coverage({
    policies: [policy('z', select('web'), ztunnel('True', 'Accepted')), policy('a', select('typo'))],
    pods,
    rootNamespace: 'istio-system',
  });
  assert.deepEqual(coverageTable(rows, false).split('\n'), [
    'POLICY   ACTION   ENFORCED   BECAUSE',
    'shop/a   ALLOW    nowhere    no pod has app=typo',
    'shop/z   ALLOW    node       at 2 pods',
  ]);
});

test('a rate limit is listed with what its status says of each of its targets', () => {
  const limit = (...conditions: object[]): KubeObject => ({
    metadata: { name: 'few', namespace: 'shop' },
    spec: {},
    status: { ancestors: conditions.map((condition) => ({ conditions: [{ type: 'Accepted', ...condition }] })) },
  });
  const seen = (made: KubeObject): unknown =>
    coverage({ policies: [], rateLimits: [made], pods, rootNamespace: 'istio-system' }).map(({ action, enforced, because }) => [
      action,
      enforced,
      because,
    ]);
  const yes = { status: 'True', reason: 'Accepted', message: 'bound to shop/wp' };
  const no = { status: 'False', reason: 'Conflicted', message: 'another one counts' };
  assert.deepEqual(seen(limit(yes)), [['LIMIT', 'waypoint', 'bound to shop/wp']]);
  assert.deepEqual(seen(limit(yes, no)), [['LIMIT', 'in part', 'Conflicted: another one counts']]);
  assert.deepEqual(seen(limit(no)), [['LIMIT', 'nowhere', 'Conflicted: another one counts']]);
  assert.match(JSON.stringify(seen(limit())), /has not said yet/);
});
