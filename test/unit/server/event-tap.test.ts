/** Taps: what is shown to whom, how much of it, and that nothing is made while nobody looks. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TapQuestion } from '../../../common/codec/gen/diagnostics.ts';
import { type EventFilter, matchesFilter, type TrafficEvent } from '../../../common/decision/traffic-event.ts';
import { EventTap, type TapBatch, type TapSpec } from '../../../common/server/event-tap.ts';
import { type TapLine, Taps } from '../../../common/server/taps.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const end = (namespace: string, name: string, workload: string) => ({ namespace, name, workload, identity: '', address: '10.0.0.1:1' });

const event = (more: Partial<TrafficEvent> = {}): TrafficEvent => ({
  timeMs: 0,
  type: 'request',
  direction: 'waypoint',
  id: 'a',
  source: end('shop', 'web-1', 'web'),
  destination: end('shop', 'orders-1', 'orders'),
  service: { namespace: 'shop', name: 'orders', hostname: 'orders.shop.svc.cluster.local' },
  port: 80,
  mutualTls: true,
  request: { method: 'GET', path: '/cart/7', protocol: 'HTTP/1.1', status: 200 },
  bytesForward: 1,
  bytesBackward: 2,
  durationMs: 3,
  ...more,
});

const NONE: EventFilter = { subject: '', from: '', to: '', port: 0, method: '', path: '', status: '', outcome: '' };

test('a filter names ends by pod, workload or service, and requests by what they are', () => {
  const shown = (filter: Partial<EventFilter>, more: Partial<TrafficEvent> = {}): boolean =>
    matchesFilter(event(more), { ...NONE, ...filter });
  assert.ok(shown({}));
  for (const subject of ['shop/web-1', 'shop/web', 'shop/orders-1', 'shop/orders', 'shop/orders.shop.svc.cluster.local', 'shop/'])
    assert.ok(shown({ subject }), subject);
  for (const subject of ['shop/we', 'other/web', 'other/']) assert.ok(!shown({ subject }), subject);
  assert.deepEqual([shown({ from: 'shop/web' }), shown({ from: 'shop/orders' })], [true, false]);
  assert.deepEqual([shown({ to: 'shop/orders' }), shown({ to: 'shop/web' })], [true, false]);
  assert.deepEqual(
    [shown({ port: 80 }), shown({ port: 81 }), shown({ method: 'GET' }), shown({ method: 'PUT' })],
    [true, false, true, false],
  );
  assert.deepEqual([shown({ path: '/cart' }), shown({ path: '/c/' })], [true, false]);
  assert.deepEqual(
    [shown({ status: '2xx' }), shown({ status: '200' }), shown({ status: '20' }), shown({ status: '5xx' })],
    [true, true, false, false],
  );
  const { request: _, ...connection } = event({ type: 'closed' });
  for (const filter of [{ method: 'GET' }, { path: '/' }, { status: '2xx' }]) assert.ok(!matchesFilter(connection, { ...NONE, ...filter }));
});

test('outcomes are ok, refused, failed, or a code', () => {
  const outcomes = (more: Partial<TrafficEvent>): string[] =>
    ['ok', 'refused', 'failed', 'POLICY_DENIED'].filter((outcome) => matchesFilter(event(more), { ...NONE, outcome }));
  assert.deepEqual(outcomes({}), ['ok']);
  assert.deepEqual(outcomes({ code: 'POLICY_DENIED', refused: true }), ['refused', 'POLICY_DENIED']);
  assert.deepEqual(outcomes({ code: 'CONNECTION_LOST', refused: false }), ['failed']);
  assert.deepEqual(outcomes({ request: { method: 'GET', path: '/', protocol: 'HTTP/2', status: 503 } }), ['failed']);
  assert.deepEqual(outcomes({ type: 'opened' }), [], 'nothing has come of it yet');
});

const spec = (id: number, maxRate: number, filter: Partial<EventFilter> = {}): TapSpec => ({ id, maxRate, filter: { ...NONE, ...filter } });

test('a worker wants events only while somebody taps, and sends what each tap asked for, no more than its rate', async () => {
  const clock = new FakeClock();
  const sent: TapBatch[] = [];
  const tap = new EventTap(clock, (batches) => void sent.push(...batches));
  assert.equal(tap.wanted, false);
  tap.set([spec(1, 5), spec(2, 100, { port: 81 })]);
  assert.equal(tap.wanted, true);
  for (let i = 0; i < 20; i++) tap.take(event({ port: i < 18 ? 80 : 81 }));
  assert.equal(sent.length, 0, 'in batches');
  await clock.advance(100);
  assert.deepEqual(
    sent.map(({ id, events, dropped }) => [id, events.length, dropped]),
    [
      [1, 5, 15],
      [2, 2, 0],
    ],
  );
  await clock.advance(900);
  sent.length = 0;
  tap.take(event());
  await clock.advance(100);
  assert.deepEqual(
    sent.map(({ id, events, dropped }) => [id, events.length, dropped]),
    [[1, 1, 0]],
    'the rate comes back with time',
  );
  tap.set([]);
  assert.equal(tap.wanted, false);
  await clock.advance(1000);
  assert.equal(sent.length, 1);
});

const question = (more: Partial<TapQuestion> = {}): TapQuestion => ({ ...NONE, maxRate: 0, seconds: 0, ...more });

function taps() {
  const clock = new FakeClock();
  const specs: (readonly TapSpec[])[] = [];
  const opened = new Taps({ clock, changed: (now) => void specs.push(now) });
  const lines: TapLine[] = [];
  let ended = 0;
  let room = true;
  const output = {
    lines(text: string): boolean {
      if (!room) return false;
      for (const line of text.trimEnd().split('\n')) lines.push(JSON.parse(line) as TapLine);
      return true;
    },
    end: () => void ended++,
  };
  const setRoom = (has: boolean): void => {
    room = has;
  };
  return { clock, specs, opened, lines, output, isEnded: () => ended > 0, setRoom };
}

test('a tap is told to all workers, limited over all of them, and says how much it left out', async () => {
  const { clock, specs, opened, lines, output } = taps();
  const close = opened.open(question({ maxRate: 3, port: 80 }), output);
  assert.deepEqual(lines, [{ summary: { shown: 0, dropped: 0 } }], 'whoever asked learns that it has begun');
  assert.deepEqual(
    specs.at(-1)?.map(({ maxRate, filter }) => [maxRate, filter.port]),
    [[3, 80]],
  );
  const { id } = specs.at(-1)?.[0] ?? { id: 0 };
  opened.found([{ id, events: [event(), event()], dropped: 4 }]);
  opened.found([{ id, events: [event(), event()], dropped: 0 }]);
  opened.found([{ id: 99, events: [event()], dropped: 0 }]);
  assert.equal(lines.filter((line) => 'event' in line).length, 3);
  await clock.advance(5000);
  assert.deepEqual(lines.at(-1), { summary: { shown: 3, dropped: 5 } });
  close();
  assert.deepEqual(specs.at(-1), []);
  opened.found([{ id, events: [event()], dropped: 0 }]);
  await clock.advance(10_000);
  assert.deepEqual(lines.at(-1), { summary: { shown: 3, dropped: 5 } });
});

test('what cannot be taken is counted; a tap ends by itself; there are only so many, and at most so many events', async () => {
  const { clock, specs, opened, lines, output, isEnded, setRoom } = taps();
  opened.open(question({ seconds: 60, maxRate: 1_000_000 }), output);
  assert.equal(specs.at(-1)?.[0]?.maxRate, 1000);
  setRoom(false);
  opened.found([{ id: specs.at(-1)?.[0]?.id ?? 0, events: [event()], dropped: 0 }]);
  setRoom(true);
  for (let i = 0; i < 3; i++) opened.open(question(), output);
  assert.throws(() => opened.open(question(), output), /4 taps are open/);
  assert.equal(isEnded(), false);
  await clock.advance(60_000);
  assert.equal(isEnded(), true);
  assert.ok(lines.some((line) => 'summary' in line && line.summary.dropped === 1));
  assert.equal(specs.at(-1)?.length, 3);
});
