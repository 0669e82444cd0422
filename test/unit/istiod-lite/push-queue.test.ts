import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PushQueue } from '../../../istiod-lite/xds/push-queue.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** @param costMs what a push costs; the time that it takes is seen by the queue alone */
function start({ costMs = 0, costs = (_push: number): number => costMs, tells = (): boolean => true } = {}) {
  const clock = new FakeClock();
  let spent = 0;
  const flushes: { at: number; since: number }[] = [];
  const queue = new PushQueue({
    clock: { now: () => clock.now(), monotonic: () => clock.monotonic() + spent, after: (ms, run) => clock.after(ms, run) },
    intervalMs: 100,
    flush(since) {
      flushes.push({ at: clock.monotonic(), since: since - spent });
      spent += costs(flushes.length);
      return tells();
    },
  });
  return { clock, flushes, queue };
}

async function changesEach(ms: number, { clock, queue }: ReturnType<typeof start>, forMs = 1000): Promise<void> {
  for (let passed = 0; passed < forMs; passed += ms) {
    queue.changed();
    await clock.advance(ms);
  }
  await clock.advance(1000);
}

test('the first change after a pause goes out at once', async () => {
  const { clock, flushes, queue } = start();
  await clock.advance(5000);
  queue.changed();
  await clock.advance(0);
  assert.deepEqual(flushes, [{ at: 5000, since: 5000 }]);
});

test('where pushes are dear, changes that follow wait for the end of the interval, together, and never longer', async () => {
  const started = start({ costMs: 60 });
  await changesEach(10, started);
  const { flushes } = started;
  assert.deepEqual(
    flushes.slice(0, 3).map(({ at }) => at),
    [0, 100, 200],
  );
  assert.equal(flushes.length, 11);
});

test('where a push costs little, the next one waits only as long as keeps pushes to a sixth of the time', async () => {
  const started = start({ costMs: 8 });
  await changesEach(1, started, 240);
  assert.deepEqual(
    started.flushes.slice(0, 4).map(({ at }) => at),
    [0, 40, 80, 120],
  );
});

test('one push that is held up does not make the next one wait as if all were so dear', async () => {
  const started = start({ costs: (push) => (push === 2 ? 90 : 8) });
  await changesEach(1, started, 240);
  assert.deepEqual(
    started.flushes.slice(0, 5).map(({ at }) => at),
    [0, 40, 80, 120, 160],
  );
});

test('a change that comes to nothing for proxies does not make the next one wait', async () => {
  const told: boolean[] = [];
  const { clock, flushes, queue } = start({ costMs: 60, tells: () => told.push(true) > 1 });
  queue.changed();
  await clock.advance(1);
  queue.changed();
  await clock.advance(1);
  queue.changed();
  await clock.advance(1000);
  assert.deepEqual(
    flushes.map(({ at }) => at),
    [0, 1, 101],
  );
});

test('what a push leaves for the next one waits for the pause', async () => {
  let left = 2;
  const started = start({
    tells() {
      if (left-- > 0) started.queue.changed();
      return true;
    },
  });
  const { clock, flushes, queue } = started;
  queue.changed();
  await clock.advance(1000);
  assert.deepEqual(
    flushes.map(({ at }) => at),
    [0, 10, 20],
  );
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
