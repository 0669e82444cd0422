import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { MemoryReturn } from '../../../ztunnel/supervisor/memory-return.ts';
import { FakeClock } from '../../support/fake-clock.ts';

test('memory is given back once, some seconds after large changes, and a failure of that is no failure of ztunnel', async () => {
  const clock = new FakeClock();
  let given = 0;
  const memory = new MemoryReturn(clock, silentLog, () => {
    given++;
    throw new Error('no /proc');
  });
  const change = (count: number) => memory.changed({ workloads: count, services: 0, policies: 0 });
  change(10);
  await clock.advance(60_000);
  assert.equal(given, 0, 'a small change leaves nothing');
  change(100_000);
  change(100_000);
  await clock.advance(60_000);
  assert.equal(given, 1);
  memory.soon();
  await clock.advance(60_000);
  assert.equal(given, 2);
});
