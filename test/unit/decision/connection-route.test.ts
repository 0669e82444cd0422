import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConnectionRule } from '../../../common/codec/gen/waypoint.ts';
import { compileConnectionRule, matchConnection, rulesNeedServerName } from '../../../common/decision/connection-route.ts';
import { NO_SOURCE } from '../../../common/decision/route-source.ts';

const rule = (name: string, more: Partial<ConnectionRule> = {}) =>
  compileConnectionRule({ name, serverNames: [], destinationRanges: [], backends: [], ...more });

const rules = [
  rule('exact', { serverNames: ['A.example.com'] }),
  rule('below', { serverNames: ['*.example.com'] }),
  rule('near', { source: { namespace: 'near', labels: {} } }),
  rule('range', { destinationRanges: ['10.1.0.0/16'] }),
];

const taken = (serverName: string | undefined, ip = '10.9.9.9', namespace = ''): string | undefined =>
  matchConnection(rules, { serverName, ip, source: { ...NO_SOURCE, namespace } })?.name;

test('connections go by server name, by caller and by the address that was asked for, and what nothing takes is nobody’s', () => {
  assert.equal(taken('a.example.com'), 'exact');
  assert.equal(taken('b.example.com'), 'below');
  assert.equal(taken('example.com'), undefined, 'a wildcard stands for what lies below');
  assert.equal(taken(undefined, '10.1.2.3'), 'range');
  assert.equal(taken(undefined, '10.9.9.9', 'near'), 'near');
  assert.equal(taken(undefined), undefined);
  assert.deepEqual([rulesNeedServerName(rules), rulesNeedServerName(rules.slice(2))], [true, false]);
  assert.throws(() => rule('bad', { destinationRanges: ['10.0.0.0/33'] }), /bad: "10.0.0.0\/33"/);
});
