import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seccompFilter } from '../../../common/linux/seccomp.ts';

const ALLOWED = 0x7fff0000;
const EPERM = 0x00050001;
const X64 = 0xc000003e;
const ARM64 = 0xc00000b7;

/** Runs the filter as the kernel would (Documentation/networking/filter.rst). */
function run(filter: Buffer, architecture: number, number: number): number {
  let accumulator = 0;
  for (let at = 0; at * 8 < filter.length; at++) {
    const code = filter.readUInt16LE(at * 8);
    const [whenTrue, whenFalse, operand] = [filter.readUInt8(at * 8 + 2), filter.readUInt8(at * 8 + 3), filter.readUInt32LE(at * 8 + 4)];
    if (code === 0x06) return operand;
    if (code === 0x20) accumulator = operand === 0 ? number : architecture;
    else at += (code === 0x15 ? accumulator === operand : accumulator >= operand) ? whenTrue : whenFalse;
  }
  throw new Error('the filter has no end');
}

test('what a proxy does all day is allowed, what it never does is not', () => {
  const filter = seccompFilter('x64', ['setns']);
  assert.ok(filter);
  for (const number of [0, 1, 20, 42, 43, 45, 47, 56, 232, 288, 308, 435]) assert.equal(run(filter, X64, number), ALLOWED, `${number}`);
  for (const number of [165, 101, 321, 272, 59, 322, 425, 442]) assert.equal(run(filter, X64, number), EPERM, `${number}`);
});

test('an ability that a component keeps is allowed to it, and to no other', () => {
  for (const [arch, architecture, execve, setns] of [
    ['x64', X64, 59, 308],
    ['arm64', ARM64, 221, 268],
  ] as const) {
    const verdicts = (...keep: ('exec' | 'setns')[]): number[] => {
      const filter = seccompFilter(arch, keep);
      assert.ok(filter);
      return [run(filter, architecture, execve), run(filter, architecture, setns)];
    };
    assert.deepEqual(verdicts(), [EPERM, EPERM]);
    assert.deepEqual(verdicts('setns'), [EPERM, ALLOWED]);
    assert.deepEqual(verdicts('exec', 'setns'), [ALLOWED, ALLOWED]);
  }
});

test("another architecture's calls, under whatever number, are refused", () => {
  const filter = seccompFilter('x64', []);
  assert.ok(filter);
  // 32-bit x86, where 4 is write; and x32, whose numbers have a bit of their own.
  assert.equal(run(filter, 0x40000003, 4), EPERM);
  assert.equal(run(filter, X64, 0x40000001), EPERM);
  assert.equal(seccompFilter('riscv64', []), undefined);
});

test('the filter fits what the kernel takes, and its jumps stay inside', () => {
  const filter = seccompFilter('arm64', []);
  assert.ok(filter);
  assert.equal(filter.length % 8, 0);
  assert.ok(filter.length / 8 < 4096);
  for (let number = 0; number < 470; number++) assert.doesNotThrow(() => run(filter, ARM64, number));
});
