/** A stage of the gate that does not end: it is ended, with all that it started, and what it was at is said. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { runStage } from '../../../scripts/stage.ts';

const stage = (script: string, deadlineMs = 60_000) => ({ name: 'stage', argv: ['sh', '-c', script], deadlineMs });
const SAYS = `echo '{"outcome":"passed"}{"begins":"a.test.ts: spins"}' | sed 's/}{/}\\n{/' >&3`;

test('a stage that spins is over at its deadline, and has failed', async () => {
  const result = await runStage(stage('while :; do :; done', 200));
  assert.equal(result.failed, 1);
  assert.match(result.problem ?? '', /^was not done after 0\.2 s/);
});

test('what a stage was at when it was ended is named, and what had passed counts', async () => {
  const over = new AbortController();
  const result = await runStage(stage(`${SAYS}; echo begun; while :; do :; done`), {
    signal: over.signal,
    onOutput: () => over.abort('too late'),
  });
  assert.match(result.problem ?? '', /^too late \(\d+ s\), in a\.test\.ts: spins \(for \d+ s\)$/);
  assert.deepEqual([result.passed, result.failed, result.skipped], [1, 1, 0]);
  assert.equal(result.output, 'begun\n');
});

test('what a stage started goes with it, even if neither listens', async (t) => {
  const file = join(folder(t), 'pids');
  const over = new AbortController();
  const deaf = `trap '' TERM; sh -c 'trap "" TERM; echo $$ $PPID > ${file}; echo begun; while :; do :; done' & wait; while :; do :; done`;
  await runStage(stage(deaf), { signal: over.signal, patienceMs: 50, onOutput: () => over.abort('too late') });
  for (const pid of readFileSync(file, 'utf8').trim().split(' ')) assert.ok(isGone(pid), `process ${pid} goes on`);
});

test('what a stage leaves running after its own end is ended', async (t) => {
  const file = join(folder(t), 'pid');
  const result = await runStage(stage(`${SAYS}; sh -c 'echo $$ > ${file}; exec sleep 1000' & while [ ! -s ${file} ]; do :; done`));
  assert.equal(result.problem, undefined);
  assert.ok(isGone(readFileSync(file, 'utf8').trim()), 'the sleeper goes on');
});

test('a stage without a result, or whose status is not what it counted, has failed', async () => {
  for (const [script, problem] of [
    ['exit 0', /had no result/],
    [`${SAYS}; exit 13`, /ended with status 13/],
    [`${SAYS}; exit 1`, /ended with status 1/],
    [`${SAYS}; kill -9 $$`, /ended by SIGKILL/],
  ] as const) {
    const result = await runStage(stage(script));
    assert.match(result.problem ?? '', problem);
    assert.equal(result.failed, 1);
  }
});

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warren-test-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

/** Or dead, and not yet collected by the machine's first process. */
function isGone(pid: string): boolean {
  try {
    return / [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8').slice(0, 60));
  } catch {
    return true;
  }
}
