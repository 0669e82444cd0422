/** What a waypoint keeps of requests, and what it does not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Asked, NOTHING_ASKED } from '../../../common/decision/asked.ts';
import { Journal } from '../../../common/decision/journal.ts';
import { WaypointJournal } from '../../../waypoint/worker/journal.ts';
import { fakeRequest } from '../../support/waypoint-requests.ts';

const delivered = { status: 200, fields: [], trailers: undefined, bytes: 3, messages: 0, grpcStatus: undefined };

function record(asked: Partial<Asked>, requests: readonly ReturnType<typeof fakeRequest>[]) {
  const journal = new Journal({ maxBytes: 1 << 20, slowMs: 1000 });
  const recorder = new WaypointJournal(journal, { askedOf: () => ({ ...NOTHING_ASKED, ...asked }) }, () => 7);
  for (const request of requests) recorder.request(request, delivered, 5);
  return journal.answer({ sinceMs: 0, id: '' }).rows;
}

test('of headers and the query only what a rule asks for is kept, and secrets never', () => {
  const fields = ['x-tier', 'gold', 'x-other', 'private', 'authorization', 'Bearer secret', 'cookie', 'session=secret'];
  const asked = { headers: ['authorization', 'cookie', 'x-missing', 'x-tier'], query: ['page'] };
  const rows = record(asked, [fakeRequest('/orders?page=2&token=secret', fields)]);
  assert.deepEqual(rows[0]?.decision.request, {
    method: 'GET',
    host: 'orders',
    path: '/orders',
    headers: { 'x-tier': 'gold', 'x-missing': null },
    query: { page: '2' },
  });
  assert.ok(!JSON.stringify(rows).includes('secret') && !JSON.stringify(rows).includes('private'));
  const [plain] = record({}, [fakeRequest('/orders?token=secret', fields)]);
  assert.deepEqual([plain?.decision.request?.headers, plain?.decision.request?.query], [{}, {}]);
});

test('a hundred paths of one caller are kept, all others are one row without a path; so is one that is too long', () => {
  const rows = record(
    {},
    Array.from({ length: 300 }, (_, i) => fakeRequest(`/orders/${i}`, [])),
  );
  assert.equal(rows.length, 101);
  assert.equal(rows.find(({ decision }) => decision.request?.path === null)?.count, 200);
  const [long] = record({}, [fakeRequest(`/${'x'.repeat(300)}`, [])]);
  assert.equal(long?.decision.request?.path, null);
});

test('a value that is too long is not known, instead of being cut', () => {
  const [row] = record({ headers: ['x-tier'] }, [fakeRequest('/', ['x-tier', 'y'.repeat(300)])]);
  assert.deepEqual(row?.decision.request?.headers, {});
});

test('requests of one connection are counted by what they are, whatever the one before was', () => {
  const journal = new Journal({ maxBytes: 1 << 20, slowMs: 1000 });
  let asked = NOTHING_ASKED;
  const recorder = new WaypointJournal(journal, { askedOf: () => asked }, () => 7);
  const latest = { journaled: undefined, counted: undefined };
  const take = (...[path, fields, method]: Parameters<typeof fakeRequest>): void =>
    recorder.request(fakeRequest(path, fields, method), delivered, 5, latest);
  const GOLD = ['x-tier', 'gold'];
  for (let i = 0; i < 3; i++) take('/orders', GOLD);
  take('/other', GOLD);
  take('/orders', GOLD, 'POST');
  take('/orders', GOLD);
  asked = { ...NOTHING_ASKED, headers: ['x-tier'] };
  for (let i = 0; i < 2; i++) take('/orders', GOLD);
  take('/orders', ['x-tier', 'silver']);
  const counted = journal
    .answer({ sinceMs: 0, id: '' })
    .rows.map(({ decision: { request }, count }) => [request?.method, request?.path, request?.headers['x-tier'] ?? '', count].join(' '));
  assert.deepEqual(counted.sort(), ['GET /orders  4', 'GET /orders gold 2', 'GET /orders silver 1', 'GET /other  1', 'POST /orders  1']);
});
