import assert from 'node:assert/strict';
import { test } from 'node:test';
import { coverageTable } from '../../../meshctl/commands/coverage.ts';
import { type CoveredRule, isEnforced, withPassed } from '../../../meshctl/coverage/coverage.ts';

const rule = (fields: Partial<CoveredRule>): CoveredRule => ({
  kind: 'AuthorizationPolicy',
  namespace: 'shop',
  name: 'p',
  rule: 'rules[0]',
  enforced: 'waypoint',
  at: ['shop/w'],
  because: 'bound to shop/w',
  services: ['shop/orders.shop.svc.cluster.local'],
  ...fields,
});
const scraper = { service: 'orders.shop.svc.cluster.local', count: 3, callers: 'spiffe://cluster.local/ns/shop/sa/scraper' };

test('a rule at a waypoint that somebody passes by is enforced in part, and the callers are named', () => {
  const [found, ...more] = withPassed([rule({})], [scraper]);
  assert.equal(found?.enforced, 'in part');
  assert.match(found?.because ?? '', /^bound to shop\/w; passed by: spiffe:.*scraper dialled pods of orders\.shop/);
  assert.deepEqual(more, [], 'the service has its rule to say it');
});

test('rules at nodes, of other services, and those that nobody enforces stay as they are', () => {
  const rules = [rule({ enforced: 'node' }), rule({ services: ['shop/web.shop.svc.cluster.local'] }), rule({ enforced: 'nowhere' })];
  assert.deepEqual(withPassed(rules, [scraper]).slice(0, 3), rules);
});

test('a service whose waypoint is passed by has a line of its own where no rule says it, in the namespace that is asked for', () => {
  const [found] = withPassed([], [scraper]);
  assert.deepEqual([found?.kind, found?.namespace, found?.name, found?.enforced], ['Service', 'shop', 'orders', 'in part']);
  assert.match(found?.because ?? '', /scraper dialled pods of orders/);
  assert.equal(withPassed([], [scraper], 'shop').length, 1);
  assert.deepEqual(withPassed([], [scraper], 'other'), []);
});

test('what is enforced somewhere as it is written is enforced; another controller is trusted', () => {
  const states = (['node', 'waypoint', 'elsewhere', 'in part', 'nowhere'] as const).map((enforced) => isEnforced({ enforced }));
  assert.deepEqual(states, [true, true, true, false, false]);
});

test('the table names an object once and has a line for each of its rules', () => {
  const rows = [
    rule({ because: 'bound' }),
    rule({ rule: 'rules[1]', enforced: 'in part', because: 'no' }),
    rule({ kind: 'Namespace', namespace: '', name: 'shop', rule: 'annotation x', enforced: 'node', because: 'at 1 pod' }),
  ];
  assert.deepEqual(coverageTable(rows, false).split('\n'), [
    'RULE             ENFORCED   BECAUSE',
    'AuthorizationPolicy shop/p',
    '  rules[0]       waypoint   bound',
    '  rules[1]       in part    no',
    'Namespace shop',
    '  annotation x   node       at 1 pod',
  ]);
  assert.match(coverageTable([], false), /^no rules/);
});
