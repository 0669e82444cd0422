/** When a pod's new connections go to one data worker, and when to all of them again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gathering, sharedGathering } from '../../../ztunnel/worker/gathering.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** Two workers of one pod; which of them a connection goes to is the test's word. */
function twoWorkers({ possible = true } = {}) {
  const clock = new FakeClock();
  const shared = sharedGathering();
  const said: string[] = [];
  const worker = (name: string, itsClock = clock) => {
    const state = { open: 0, load: 0.2, crowded: false };
    const gathering = new Gathering({
      shared,
      workers: 2,
      clock: itsClock,
      open: () => state.open,
      load: () => state.load,
      crowded: () => state.crowded,
      gather: () => {
        said.push(`${name} gathers`);
        return possible;
      },
      spread: () => void said.push(`${name} spreads`),
    });
    const take = (connections: number): void => {
      for (let i = 0; i < connections; i++) gathering.connection();
    };
    return { state, gathering, take };
  };
  return { clock, said, shared, worker, home: worker('home'), other: worker('other') };
}

/** Both are busy with short connections, until these are gathered. */
async function gathered() {
  const workers = twoWorkers();
  workers.other.take(32);
  assert.deepEqual(workers.said.splice(0), ['other gathers']);
  return workers;
}

test('many short connections are gathered, and spread again when they come seldom', async () => {
  const { clock, said, home, other } = await gathered();
  for (let i = 0; i < 8; i++) {
    home.take(64);
    await clock.advance(250);
  }
  assert.deepEqual(said, []);
  assert.equal(home.gathering.gathered, true);
  home.take(15);
  await clock.advance(250);
  await clock.advance(250);
  assert.deepEqual(said, ['other spreads']);
  assert.equal(clock.pending, 0, 'nobody watches any more');
  other.take(64);
  assert.deepEqual(said, ['other spreads', 'other gathers'], 'again, at once');
});

test('connections that come seldom, or last, are not gathered', async () => {
  const { clock, said, home, other } = twoWorkers();
  for (let i = 0; i < 100; i++) {
    home.take(1);
    await clock.advance(10);
  }
  assert.deepEqual(said, []);
  other.state.open = 17;
  other.take(32);
  // Whatever a process before this one left there.
  assert.deepEqual(said, ['other spreads']);
});

test('what would be more than one worker can take, or would keep others waiting, is not gathered', () => {
  const { said, home, other } = twoWorkers();
  home.state.load = 0.5;
  home.take(320);
  other.state.crowded = true;
  other.take(320);
  assert.deepEqual(said, []);
});

test('the worker that takes them all spreads them when many stay open, and gathers short ones again', async () => {
  const { clock, said, home, other } = await gathered();
  home.take(32);
  home.state.open = 33;
  home.take(32);
  assert.deepEqual(said.splice(0), ['home spreads']);
  await clock.advance(250);
  assert.equal(clock.pending, 0, 'nobody watches any more');
  other.take(64);
  assert.deepEqual(said, ['other gathers']);
});

for (const [why, state] of Object.entries({ 'has no processor left': { load: 0.95 }, 'has other busy pods': { crowded: true } })) {
  test(`the worker that takes them all spreads them when it ${why}, and they are left alone for a while`, async () => {
    const { clock, said, home, other } = await gathered();
    Object.assign(home.state, state);
    home.take(32);
    assert.deepEqual(said.splice(0), ['home spreads']);
    Object.assign(home.state, { load: 0.2, crowded: false });
    for (let passed = 0; passed < 5000; passed += 250) {
      home.take(32);
      other.take(32);
      assert.deepEqual(said, []);
      await clock.advance(250);
    }
    home.take(32);
    assert.deepEqual(said, ['home gathers']);
  });
}

test('one that stops listening leaves nothing behind', async () => {
  const { clock, said, other } = await gathered();
  other.gathering.stop();
  assert.deepEqual(said, ['other spreads']);
  await clock.advance(1000);
  assert.equal(clock.pending, 0);
});

test('a worker that takes the place of the one that watched watches', async () => {
  const { clock, said, worker } = twoWorkers();
  // Nobody turns this clock: it is lost without a word.
  worker('lost', new FakeClock()).take(32);
  const third = worker('third');
  await clock.advance(250);
  assert.deepEqual(said, ['lost gathers', 'third spreads']);
  assert.equal(third.gathering.gathered, false);
});

test('where the kernel cannot, it is not asked again', () => {
  const { said, home } = twoWorkers({ possible: false });
  home.take(320);
  assert.deepEqual(said, ['home gathers']);
  assert.equal(home.gathering.gathered, false);
});
