import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backoff } from '../../../common/base/backoff.ts';
import { afterSteps, sleep, systemClock } from '../../../common/base/clock.ts';
import { FakeClock } from '../../support/fake-clock.ts';

test('a back-off doubles up to its limit, and starts again after a success', () => {
  const backoff = new Backoff({ firstMs: 20, maxMs: 100, jitter: 0, random: () => 0.5 });
  assert.deepEqual([backoff.next(), backoff.next(), backoff.next(), backoff.next(), backoff.next()], [20, 40, 80, 100, 100]);
  backoff.reset();
  assert.equal(backoff.next(), 20);
});

test('jitter spreads a wait evenly around its middle', () => {
  const low = new Backoff({ firstMs: 100, maxMs: 1000, jitter: 0.2, random: () => 0 });
  const high = new Backoff({ firstMs: 100, maxMs: 1000, jitter: 0.2, random: () => 1 });
  assert.deepEqual([low.next(), high.next()], [80, 120]);
});

test('a sleep ends when its time is over, not before', async () => {
  const clock = new FakeClock();
  let over = false;
  const slept = sleep(clock, 1000).then(() => {
    over = true;
  });
  await clock.advance(999);
  assert.equal(over, false);
  await clock.advance(1);
  await slept;
  assert.equal(over, true);
});

test('a sleep that is aborted rejects with the reason and leaves no timer', async () => {
  const clock = new FakeClock();
  const abort = new AbortController();
  const slept = sleep(clock, 1000, abort.signal);
  abort.abort(new Error('no longer needed'));
  await assert.rejects(slept, /no longer needed/);
  assert.equal(clock.pending, 0);
  await assert.rejects(sleep(clock, 1, abort.signal), /no longer needed/);
});

test('the system clock takes waits beyond what setTimeout can', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let fired = 0;
  const thirtyDays = 30 * 86_400_000;
  systemClock.after(thirtyDays, () => fired++);
  t.mock.timers.tick(2 ** 31 - 1);
  assert.equal(fired, 0);
  t.mock.timers.tick(thirtyDays - (2 ** 31 - 1) - 1);
  assert.equal(fired, 0);
  t.mock.timers.tick(1);
  assert.equal(fired, 1);
});

test('time that others are given is counted in steps: standing still is one of them', async (t) => {
  const standStill = (ms: number): void => {
    const until = performance.now() + ms;
    while (performance.now() < until);
  };
  let over = false;
  const timer = afterSteps(systemClock, 250, () => {
    over = true;
  });
  t.after(() => timer.cancel());
  // Due by any clock.
  standStill(400);
  await new Promise(setImmediate);
  await new Promise(setImmediate);
  assert.equal(over, false);
  const clock = new FakeClock();
  let ended = 0;
  afterSteps(clock, 1000, () => ended++);
  await clock.advance(999);
  assert.equal(ended, 0);
  await clock.advance(1);
  assert.equal(ended, 1);
  const cancelled = afterSteps(clock, 1000, () => ended++);
  await clock.advance(500);
  cancelled.cancel();
  assert.equal(clock.pending, 0);
  await clock.advance(1000);
  assert.equal(ended, 1);
});
