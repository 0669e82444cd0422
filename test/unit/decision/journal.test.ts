/** The decision journal: bounded, aggregated, and found again by id. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Decision, type Ending, Journal, mergeAnswers, mergeRows, verdictOf } from '../../../common/decision/journal.ts';

const decision = (more: Partial<Decision> = {}): Decision => ({
  at: 'inbound',
  source: 'shop/web-1',
  sourceIp: '10.0.0.1',
  identity: 'spiffe://cluster.local/ns/shop/sa/web',
  service: 'shop/orders.shop.svc.cluster.local',
  pod: 'shop/orders-1',
  uid: 'c//Pod/shop/orders-1',
  ip: '10.0.0.2',
  port: 8080,
  mutualTls: true,
  verdict: 'allowed',
  code: '',
  policy: '',
  route: '',
  ...more,
});

const ending = (id: string, nowMs: number, more: Partial<Ending> = {}): Ending => ({
  id,
  tunnel: '',
  nowMs,
  durationMs: 5,
  endpoint: 'shop/orders-1',
  sent: 1,
  received: 2,
  status: 0,
  attempts: 0,
  message: '',
  ...more,
});

const start = (maxBytes = 1 << 20) => new Journal({ maxBytes, slowMs: 1000 });

test('equal decisions are one row with a count, the time of the first and the latest, and are described once', () => {
  const journal = start();
  let described = 0;
  for (let i = 0; i < 1000; i++)
    journal.count('k', ending(`id${i}`, 100 + i), () => {
      described++;
      return decision();
    });
  const { rows, dropped } = journal.answer({ sinceMs: 0, id: '' });
  assert.deepEqual([described, rows.length, dropped], [1, 1, 0]);
  assert.deepEqual([rows[0]?.count, rows[0]?.firstMs, rows[0]?.lastMs, rows[0]?.id], [1000, 100, 1099, 'id999']);
});

test('only what was decided since a time is told, the latest first', () => {
  const journal = start();
  for (const [key, at] of [
    ['old', 10],
    ['new', 30],
    ['mid', 20],
  ] as const)
    journal.count(key, ending(key, at), () => decision({ ip: key }));
  const told = (sinceMs: number): string[] => journal.answer({ sinceMs, id: '' }).rows.map(({ id }) => id);
  assert.deepEqual(told(0), ['new', 'mid', 'old']);
  assert.deepEqual(told(20), ['new', 'mid']);
});

test('memory stays within the limit however many decisions come, the longest unused go first, and that is counted', () => {
  const maxBytes = 256 << 10;
  const journal = start(maxBytes);
  for (let i = 0; i < 20_000; i++) {
    journal.count(`key ${i}`, ending(`id ${i}`, i), () => decision({ ip: `10.0.${i >> 8}.${i & 255}` }));
    journal.count('always', ending('a', i), () => decision({ ip: 'always' }));
    assert.ok(journal.bytes <= maxBytes, `${journal.bytes} bytes after ${i}`);
  }
  const { rows, dropped, completeSinceMs } = journal.answer({ sinceMs: 0, id: '' });
  assert.equal(rows.length + dropped, 20_001);
  assert.equal(rows.find(({ decision: { ip } }) => ip === 'always')?.count, 20_000, 'what is in use stays');
  assert.ok(completeSinceMs > 10_000 && completeSinceMs < 20_000);
  assert.ok(
    rows.every(({ lastMs }) => lastMs >= completeSinceMs),
    'whatever is younger is there',
  );
});

test('a connection is found by its id; a refusal and a slow request are not pushed out by many fast ones', () => {
  const journal = start(64 << 10);
  journal.count('r', ending('refused', 1, { message: 'explicitly denied' }), () => decision({ verdict: 'refused', code: 'POLICY_DENIED' }));
  journal.count('s', ending('slow', 2, { status: 200, durationMs: 5000 }), () => decision({ at: 'request' }));
  journal.count('f', ending('fast', 3, { status: 200 }), () => decision({ at: 'request' }));
  for (let i = 0; i < 5000; i++) journal.count('f', ending(`more ${i}`, 4, { status: 200 }), () => decision());
  const found = (id: string) => journal.answer({ sinceMs: 0, id }).events;
  assert.deepEqual(
    found('refused').map(({ message, decision: { code } }) => [message, code]),
    [['explicitly denied', 'POLICY_DENIED']],
  );
  assert.deepEqual(
    found('slow').map(({ durationMs, status }) => [durationMs, status]),
    [[5000, 200]],
  );
  assert.deepEqual(found('fast'), []);
  assert.deepEqual(found('never'), []);
  assert.equal(found('more 4999').length, 1);
  for (const id of ['one', 'two']) journal.count('f', ending(id, 5, { tunnel: 'both' }), () => decision());
  assert.deepEqual(
    found('both').map(({ id }) => id),
    ['one', 'two'],
    'requests are found by the connection that they came by',
  );
});

test('a connection that goes on is seen before it ends, and counted once', () => {
  const journal = start();
  const seen = (): number[] => journal.answer({ sinceMs: 0, id: '' }).rows.map(({ count }) => count);
  journal.touch('k', 5, () => decision());
  journal.touch('k', 6, () => decision());
  assert.deepEqual(seen(), [1]);
  journal.count('k', ending('a', 7), () => decision());
  assert.deepEqual(seen(), [1]);
});

test('a connection that lives long is not slow', () => {
  const journal = start(64 << 10);
  journal.count('c', ending('long', 1, { durationMs: 3_600_000 }), () => decision());
  for (let i = 0; i < 5000; i++) journal.count('c', ending('x', 2), () => decision());
  assert.deepEqual(journal.answer({ sinceMs: 0, id: 'long' }).events, []);
});

test('of one caller, service and method a hundred paths are kept', () => {
  const journal = start();
  const admitted = Array.from({ length: 200 }, () => journal.admitsPath('base')).filter(Boolean).length;
  assert.equal(admitted, 100);
  assert.equal(journal.admitsPath('another'), true);
});

test('what several workers say is put together', () => {
  const row = (count: number, firstMs: number, lastMs: number) => ({
    decision: decision(),
    count,
    firstMs,
    lastMs,
    id: `at ${lastMs}`,
    endpoint: '',
  });
  assert.deepEqual(mergeRows([row(2, 10, 20), row(3, 5, 30), row(1, 7, 8)]), [{ ...row(6, 5, 30), id: 'at 30' }]);
  const merged = mergeAnswers([
    { rows: [row(1, 1, 1)], events: [], dropped: 2, completeSinceMs: 5 },
    { rows: [row(1, 2, 2)], events: [], dropped: 3, completeSinceMs: 0 },
  ]);
  assert.deepEqual([merged.rows.length, merged.dropped, merged.completeSinceMs], [1, 5, 5]);
});

test('codes are decisions, failures, or none of it', () => {
  assert.equal(verdictOf(undefined), 'allowed');
  assert.equal(verdictOf('CLIENT_GONE'), 'allowed');
  assert.equal(verdictOf('POLICY_DENIED'), 'refused');
  assert.equal(verdictOf('UPSTREAM_CONNECT'), 'failed');
});
