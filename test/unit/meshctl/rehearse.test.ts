import assert from 'node:assert/strict';
import { test } from 'node:test';
import { suggestionText } from '../../../meshctl/commands/suggest.ts';
import { durationMs, parseObjects, removalOf } from '../../../meshctl/rehearse/candidate.ts';
import { exitOf, type Rehearsal, together } from '../../../meshctl/rehearse/rehearsal.ts';
import { suggest } from '../../../meshctl/suggest/suggest.ts';
import * as make from '../../support/kube-objects.ts';

test('--since takes seconds, minutes, hours and days, and nothing else', () => {
  assert.deepEqual(['90s', '15m', '1h', '2d'].map(durationMs), [90_000, 900_000, 3_600_000, 172_800_000]);
  for (const wrong of ['', '1', 'h', '1w', '-1h', '1.5h', '1h30m', '9999999s'])
    assert.throws(() => durationMs(wrong), new RegExp(`--since ${wrong}: expected a duration such as 15m, 1h or 2d`));
});

test('what is deleted is named by kind, in any of its forms, and by name, in the namespace of the command or its own', () => {
  assert.deepEqual(removalOf('AuthorizationPolicy/p', 'shop'), { kind: 'AuthorizationPolicy', namespace: 'shop', name: 'p' });
  assert.deepEqual(removalOf('vs/other/v', 'shop'), { kind: 'VirtualService', namespace: 'other', name: 'v' });
  assert.throws(() => removalOf('p', 'shop'), /expected KIND\/NAME/);
  assert.throws(() => removalOf('cronjob/p', 'shop'), /cronjob is none of AuthorizationPolicy/);
});

test('objects come from several documents and lists, with the namespace of the command where they name none', () => {
  const text =
    'kind: Namespace\nmetadata: { name: shop }\n---\nkind: List\nitems: [{ kind: Service, metadata: { name: a } }, { kind: Service, metadata: { name: b, namespace: x } }]\n---\n';
  assert.deepEqual(
    parseObjects(text, 'f.yaml', 'shop').map(({ kind, metadata }) => [kind, metadata.namespace, metadata.name]),
    [
      ['Namespace', undefined, 'shop'],
      ['Service', 'shop', 'a'],
      ['Service', 'x', 'b'],
    ],
  );
  assert.throws(() => parseObjects('a: [', 'f.yaml', 'shop'), {
    message: 'f.yaml: unexpected end of the stream within a flow collection (2:1)',
  });
  assert.throws(() => parseObjects('kind: Service', 'f.yaml', 'shop'), /f\.yaml, document 1: Service has no metadata\.name/);
});

const row = (count: number): Rehearsal['changed'][number] => ({ count }) as Rehearsal['changed'][number];
const part = (fields: Partial<Rehearsal>): Rehearsal => ({
  unchanged: { rows: 1, count: 2 },
  changed: [],
  unknown: [],
  problems: ['p'],
  notes: [],
  ...fields,
});

test('what replicas answer is added up, the most frequent first, and the exit status says what is known', () => {
  const all = together([part({ changed: [row(1)] }), part({ changed: [row(5)], unknown: [row(2)] })]);
  assert.deepEqual([all.unchanged.count, all.changed.map(({ count }) => count), all.problems], [4, [5, 1], ['p']]);
  assert.deepEqual([exitOf(all), exitOf(part({ unknown: [row(1)] })), exitOf(part({}))], [1, 3, 0]);
});

test('a suggestion says from when it is and what it stands on, and allows nothing of what was refused or cannot be placed', () => {
  const decision = {
    source: 'shop/a',
    sourceIp: '10.0.0.1',
    identity: 'spiffe://cluster.local/ns/shop/sa/a',
    service: '',
    uid: '',
    ip: '',
    route: '',
  };
  const call = (fields: object) => ({
    decision: {
      ...decision,
      at: 'inbound',
      pod: 'shop/db',
      port: 5432,
      verdict: 'allowed',
      code: '',
      policy: '',
      mutualTls: true,
      ...fields,
    },
    count: 3,
    firstMs: 0,
    lastMs: 0,
    id: '',
    endpoint: '',
  });
  const rows = [call({}), call({ verdict: 'refused', port: 22 }), call({ pod: 'shop/gone' })] as never;
  const pods = [make.pod({ name: 'db', labels: { app: 'db' } })] as never;
  const made = suggest({ namespace: 'shop', rows, pods, services: [], open: true });
  const text = suggestionText(made, '2h');
  assert.match(text, /^# What was seen in the last 2h, and nothing else/);
  assert.match(text, /# 3 calls were refused, and are not allowed here either/);
  assert.match(text, /# pod shop\/gone is gone and no Service says what it was: 3 calls to it are not considered/);
  assert.match(text, /# shop\/a: port 5432, 3 times, last 1970-01-01T00:00:00Z/);
  assert.ok(!text.includes('"22"') && !text.includes('allow-nothing'));
});
