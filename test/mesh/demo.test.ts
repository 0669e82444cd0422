/** The story of the README, told to its end as a newcomer would start it, and everything gone afterwards. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { withoutPlayground } from '../support/playground.ts';

const NAME = `story-${process.pid}`;

/** What the machine must look like before and after. */
const machine = (): Record<string, string> => ({
  namespaces: execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes(NAME))
    .join('\n'),
  mounts: readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(NAME))
    .join('\n'),
  rules: execFileSync('nft', ['list', 'tables'], { encoding: 'utf8' })
    .split('\n')
    .filter((line) => line.includes('istio-ambient'))
    .join('\n'),
});

test('scripts/demo --once tells its story, verifies each step and leaves nothing behind', {
  skip: withoutPlayground,
  timeout: 180_000,
}, async () => {
  const before = machine();
  const demo = spawn(process.execPath, ['scripts/demo.ts', '--once', '--name', NAME], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [demo.stdout, demo.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const code = await new Promise<number | null>((resolve) => demo.once('exit', resolve));
  assert.equal(code, 0, output);
  assert.match(output, /The story holds/);
  assert.ok(!output.includes('\u001b['), 'a pipe gets plain lines');
  assert.deepEqual(machine(), before);
  assert.equal(existsSync(`/run/warren/${NAME}`), false);
});
