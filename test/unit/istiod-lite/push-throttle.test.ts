import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seconds } from '../../../common/base/clock.ts';
import { PushThrottle, type Slot } from '../../../istiod-lite/xds/push-throttle.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function start(slots: number, n: number) {
  const clock = new FakeClock();
  const throttle = new PushThrottle({ clock, slots });
  const tickets: Slot[] = Array.from({ length: n }, () => throttle.enter(() => undefined));
  const granted = (): number => tickets.filter((ticket) => ticket.granted).length;
  return { clock, throttle, tickets, granted };
}

test('so many go at once, the others in their order when one has gone', () => {
  const { tickets, granted } = start(2, 4);
  assert.equal(granted(), 2);
  tickets[1]?.leave();
  tickets[1]?.leave();
  assert.deepEqual(
    tickets.map((ticket) => ticket.granted),
    [true, true, true, false],
  );
});

test('those that take long let others pass, up to as many as there are slots: each is a copy of the mesh', async () => {
  const { clock, tickets, granted } = start(2, 9);
  await clock.advance(seconds(5));
  assert.equal(granted(), 4);
  await clock.advance(seconds(60));
  assert.equal(granted(), 4, 'two are late and two are waited for');
  tickets[0]?.leave();
  await clock.advance(seconds(5));
  assert.equal(granted(), 5, 'one of the late ones has gone');
  for (const ticket of tickets) ticket.leave();
  assert.equal(clock.pending, 0);
});
