/** What one pod may take, and what happens when memory is short. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../../../ztunnel/metrics.ts';
import { MemoryGuard, memoryBudget } from '../../../ztunnel/supervisor/memory-guard.ts';
import { Admission, LimitReached } from '../../../ztunnel/worker/admission.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function counters() {
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(200);
  reader.attach(0, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement]));
  return { series, value: (family: (typeof metrics)[keyof typeof metrics]) => reader.samples(family)[0]?.value };
}

const pod = (uid: string) => ({ name: `shop/${uid}`, spec: { uid } });

function admissionOf(settings: Partial<ConstructorParameters<typeof Admission>[0]['settings']> = {}) {
  const clock = new FakeClock();
  const counted = counters();
  const open = new Map<string, number>();
  const waiting = new Map<string, number>();
  const admission = new Admission({
    settings: { workers: 2, podMaxConnections: 10, podMaxHandshakes: 4, podMaxWaitingBytes: 1000, ...settings },
    openFiles: 1000,
    series: counted.series,
    clock,
    connectionsOf: (uid) => open.get(uid) ?? 0,
    waiting: () => waiting,
  });
  const refused = (uid: string, fd = 50, peers = 0): LimitReached | undefined => {
    try {
      admission.connection(pod(uid), fd, peers);
      return undefined;
    } catch (error) {
      assert.ok(error instanceof LimitReached, String(error));
      assert.equal(error.code, 'OVERLOADED');
      return error;
    }
  };
  const names = (uid: string) => ({ namespace: 'shop', name: uid });
  return { admission, clock, open, waiting, refused, names, ...counted };
}

test("a pod has its share of connections in each worker, and does not take its neighbour's", () => {
  const { open, refused } = admissionOf();
  open.set('greedy', 4);
  assert.equal(refused('greedy'), undefined);
  open.set('greedy', 5);
  assert.match(refused('greedy')?.message ?? '', /shop\/greedy has 5 connections.*WARREN_POD_MAX_CONNECTIONS/);
  assert.equal(refused('victim'), undefined);
});

test('a tunnel does not count against itself', () => {
  const { open, admission } = admissionOf();
  open.set('a', 5);
  admission.connection(pod('a'), undefined);
  open.set('a', 6);
  assert.throws(() => admission.connection(pod('a'), undefined), LimitReached);
});

test('connections of peers without a tunnel count as well', () => {
  const { refused } = admissionOf();
  assert.equal(refused('a', 50, 4), undefined);
  assert.equal(refused('a', 50, 5)?.limit, 'connections');
});

test('peers that shake hands are limited for each pod, and make room when they are done, however often that is said', () => {
  const { admission } = admissionOf();
  const first = admission.handshake(pod('a'));
  admission.handshake(pod('a'));
  assert.throws(() => admission.handshake(pod('a')), /2 peers of shop\/a are shaking hands/);
  admission.handshake(pod('b'));
  first();
  first();
  admission.handshake(pod('a'));
  assert.throws(() => admission.handshake(pod('a')), LimitReached);
});

test('a pod whose readers are slow gets no more connections until they have read', async () => {
  const { admission, waiting, refused, clock, names, open } = admissionOf();
  waiting.set('slow', 600);
  open.set('slow', 1);
  assert.equal(refused('slow'), undefined, 'nobody has looked yet');
  admission.measure(names);
  assert.equal(refused('slow')?.limit, 'waiting bytes');
  waiting.set('slow', 10);
  assert.equal(admission.measure(names), undefined, 'at most once a second');
  await clock.advance(1000);
  admission.measure(names);
  assert.equal(refused('slow'), undefined);
});

test('the last descriptors are left for what is open already', () => {
  const { refused } = admissionOf();
  assert.equal(refused('a', 900), undefined);
  assert.match(refused('a', 940)?.message ?? '', /1000 descriptors/);
});

test('when memory is short the pod that is named is refused, and no other', () => {
  const { admission, refused } = admissionOf();
  admission.shed('large');
  assert.equal(refused('large')?.limit, 'memory');
  assert.equal(refused('small'), undefined);
  admission.shed(undefined);
  assert.equal(refused('large'), undefined);
});

test('each refusal is counted, one in ten seconds is said for a pod and a limit', async () => {
  const { open, refused, clock, value } = admissionOf();
  open.set('a', 9).set('b', 9);
  assert.deepEqual([refused('a')?.quiet, refused('a')?.quiet, refused('b')?.quiet], [false, true, false]);
  await clock.advance(10_000);
  assert.equal(refused('a')?.quiet, false);
  assert.equal(value(metrics.limited), 4);
});

test('usage is reported from the heaviest on, and shown by pod', () => {
  const { admission, open, waiting, names, value } = admissionOf();
  open.set('a', 1).set('b', 2);
  waiting.set('a', 500_000).set('b', 0);
  const usage = admission.measure(names);
  assert.deepEqual(
    usage?.map(({ uid }) => uid),
    ['a', 'b'],
  );
  assert.equal(value(metrics.podWaiting), 500_000);
  assert.equal(value(metrics.podConnections), 1);
});

function guardOf(budgetBytes = 1000) {
  const clock = new FakeClock();
  const told: string[] = [];
  let resident = 0;
  const { series, value } = counters();
  const guard = new MemoryGuard({
    budgetBytes,
    resident: () => resident,
    clock,
    log: silentLog,
    series,
    shed: (uid, cut) => told.push(`${uid ?? 'nobody'}${cut ? ' cut' : ''}`),
  });
  const uses = (bytes: number): void => {
    resident = bytes;
    guard.look();
  };
  return { guard, told, uses, clock, value };
}

test('over the budget the pod that uses most over all workers is refused, until there is room again', () => {
  const { guard, told, uses, value } = guardOf();
  const usage = (uid: string, bytes: number) => ({ uid, connections: 1, bytes });
  guard.report(0, [usage('a', 200), usage('b', 150)]);
  guard.report(1, [usage('b', 150)]);
  uses(1000);
  assert.deepEqual(told, []);
  uses(1001);
  uses(1001);
  assert.deepEqual(told, ['b'], 'said once');
  assert.equal(value(metrics.memoryShedding), 1);
  uses(960);
  assert.deepEqual(told, ['b'], 'not yet');
  uses(940);
  assert.deepEqual(told, ['b', 'nobody']);
  assert.equal(value(metrics.memoryShedding), 0);
});

test('well over the budget its largest connections are cut, again each time', () => {
  const { guard, told, uses } = guardOf();
  guard.report(0, [{ uid: 'a', connections: 1, bytes: 900 }]);
  uses(1200);
  uses(1200);
  assert.deepEqual(told, ['a cut', 'a cut']);
});

test('memory that no pod explains refuses nobody', () => {
  const { guard, told, uses } = guardOf();
  guard.report(0, [{ uid: 'a', connections: 1, bytes: 10 }]);
  uses(2000);
  assert.deepEqual(told, []);
});

test('a worker that has ended uses nothing any more', async () => {
  const { guard, told, uses, clock } = guardOf();
  guard.report(0, [{ uid: 'a', connections: 1, bytes: 900 }]);
  uses(1001);
  guard.report(0, []);
  await clock.advance(500);
  assert.deepEqual(told, ['a', 'nobody']);
});

test('the budget is what somebody says, else what the container or the machine has', () => {
  assert.equal(memoryBudget(100, 0, 0), 100 * 2 ** 20);
  assert.equal(memoryBudget(undefined, 1000, 10_000), 800);
  assert.equal(memoryBudget(undefined, 2 ** 63, 10_000), 4000);
});
