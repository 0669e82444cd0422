import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLog } from '../../../common/base/log.ts';
import { MemoryReturn, type ProcessMemory } from '../../../ztunnel/supervisor/memory-return.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const MB = 2 ** 20;

/** A process whose allocator has `free` of its memory. */
class FakeMemory implements ProcessMemory {
  used = 80 * MB;
  free = 0;
  returnedAll = 0;
  returnedFree = 0;

  resident = (): number => this.used + this.free;
  returnAll(): void {
    this.returnedAll++;
    throw new Error('no /proc');
  }
  returnFree(): void {
    this.returnedFree++;
    this.free = 0;
  }
}

test('memory is given back once, some seconds after large changes, and a failure of that is no failure of ztunnel', async () => {
  const clock = new FakeClock();
  const memory = new FakeMemory();
  const memoryReturn = new MemoryReturn(clock, silentLog, memory);
  const change = (count: number) => memoryReturn.changed({ workloads: count, services: 0, policies: 0 });
  change(10);
  await clock.advance(60_000);
  assert.equal(memory.returnedAll, 0, 'a small change leaves nothing');
  change(100_000);
  change(100_000);
  await clock.advance(60_000);
  assert.equal(memory.returnedAll, 1);
  memoryReturn.soon();
  await clock.advance(60_000);
  assert.equal(memory.returnedAll, 2);
});

test('what is free is returned while traffic goes on, and only where that is worth it', async () => {
  const clock = new FakeClock();
  const memory = new FakeMemory();
  new MemoryReturn(clock, silentLog, memory).watch();
  await clock.advance(60_000);
  memory.free = 3 * MB;
  await clock.advance(60_000);
  assert.equal(memory.returnedFree, 0, 'little stays');
  // Little by little it is not forgotten.
  memory.free = 6 * MB;
  await clock.advance(20_000);
  assert.equal(memory.returnedFree, 1);
  assert.equal(memory.resident(), 80 * MB);
  memory.used = 100 * MB;
  await clock.advance(20_000);
  assert.equal(memory.returnedFree, 2, 'whether it is free can only be tried');
  await clock.advance(200_000);
  assert.equal(memory.returnedFree, 2, 'what is used is not tried again');
  memory.used = 90 * MB;
  await clock.advance(20_000);
  memory.free = 5 * MB;
  await clock.advance(20_000);
  assert.equal(memory.returnedFree, 3, 'what counts is the least since');
});
