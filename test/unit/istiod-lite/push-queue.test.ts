import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PushQueue } from '../../../istiod-lite/xds/push-queue.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function start() {
  const clock = new FakeClock();
  const flushes: { at: number; since: number }[] = [];
  const queue = new PushQueue({ clock, intervalMs: 100, flush: (since) => void flushes.push({ at: clock.monotonic(), since }) });
  return { clock, flushes, queue };
}

test('the first change after a pause goes out at once', async () => {
  const { clock, flushes, queue } = start();
  await clock.advance(5000);
  queue.changed();
  await clock.advance(0);
  assert.deepEqual(flushes, [{ at: 5000, since: 5000 }]);
});

test('changes that follow wait for the end of the interval, together, and never longer', async () => {
  const { clock, flushes, queue } = start();
  for (let ms = 0; ms < 1000; ms += 10) {
    queue.changed();
    await clock.advance(10);
  }
  await clock.advance(1000);
  assert.deepEqual(flushes.slice(0, 3), [
    { at: 0, since: 0 },
    { at: 100, since: 10 },
    { at: 200, since: 100 },
  ]);
  assert.equal(flushes.length, 11);
  assert.ok(flushes.every(({ at, since }) => at - since <= 100));
});

test('a quiet queue sets no timers', async () => {
  const { clock, flushes, queue } = start();
  queue.changed();
  await clock.advance(1000);
  assert.equal(clock.pending, 0);
  assert.equal(flushes.length, 1);
});

test('a stopped queue is silent', async () => {
  const { clock, flushes, queue } = start();
  queue.changed();
  queue.stop();
  queue.changed();
  await clock.advance(1000);
  assert.deepEqual(flushes, []);
  assert.equal(clock.pending, 0);
});
