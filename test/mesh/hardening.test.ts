/** Every component as a process: what it refuses to be started with, and what nobody gets out of it while it runs. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { makeNetns, withoutNamespaces } from '../support/netns.ts';
import { root } from '../support/playground.ts';
import { type Program, startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };

const NOBODY = 65_534;

// Enough to start and wait for a control plane that is not there.
const COMPONENTS: readonly { readonly file: string; readonly args: readonly string[]; readonly env: Record<string, string> }[] = [
  { file: 'ztunnel/main.ts', args: ['proxy', 'ztunnel'], env: { XDS_ADDRESS: 'https://127.0.0.1:1', CA_ADDRESS: 'https://127.0.0.1:1' } },
  { file: 'waypoint/main.ts', args: ['proxy', 'waypoint'], env: { XDS_ADDRESS: 'https://127.0.0.1:1', CA_ADDRESS: 'https://127.0.0.1:1' } },
  { file: 'cni/main.ts', args: [], env: { NODE_NAME: 'node1' } },
  { file: 'istiod-lite/main.ts', args: ['discovery'], env: {} },
];

for (const { file, args, env } of COMPONENTS) {
  test(`${file} refuses to start with variables and flags that open it to others`, options, async (t) => {
    for (const [variables, flags, said] of [
      [{ NODE_OPTIONS: '--max-old-space-size=100' }, [], /refusing to start: the variable NODE_OPTIONS is set/],
      [{ NODE_TLS_REJECT_UNAUTHORIZED: '0' }, [], /refusing to start: the variable NODE_TLS_REJECT_UNAUTHORIZED/],
      [{}, ['--inspect=127.0.0.1:0'], /refusing to start: the flag --inspect/],
      [{}, ['--report-on-signal'], /refusing to start: the flag --report-on-signal/],
    ] as const) {
      const program = start(t, flags, file, args, { ...env, ...variables });
      const code = await program.ended;
      assert.ok(code === 1 || code === 2, `${code}: ${program.output()}`);
      assert.match(program.output(), said);
    }
  });
}

test('a running component opens no debugger and dumps no core', options, async (t) => {
  const program = start(t, [], 'test/support/hardened-program.ts', [], {});
  await program.line(/hardened/);
  const { pid } = program.process;
  assert.ok(pid);
  assert.match(readFileSync(`/proc/${pid}/limits`, 'utf8'), /^Max core file size +0 +0 /m);
  process.kill(pid, 'SIGUSR1');
  process.kill(pid, 'SIGUSR2');
  await program.line(/a second has passed/);
  assert.doesNotMatch(program.output(), /Debugger listening/);
});

test('a component that runs no programs cannot run one, in any of its threads', options, async (t) => {
  const program = start(t, [], 'test/support/hardened-program.ts', [], {});
  await program.line(/hardened/);
  const { pid } = program.process;
  assert.ok(pid);
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  assert.match(status, /^NoNewPrivs:\t1/m);
  assert.match(status, /^Seccomp:\t2/m);
  process.kill(pid, 'SIGHUP');
  assert.match(await program.line(/a program/), /a program EPERM/);
});

test('another process of the same user cannot look into a hardened one', options, async (t) => {
  const child = spawn(process.execPath, [join(root, 'test/support/hardened-program.ts')], { uid: NOBODY, gid: NOBODY, env: {}, cwd: '/' });
  t.after(() => void child.kill('SIGKILL'));
  assert.match(String(await once(child.stdout, 'data')), /hardened/);
  // Who may open memory, environment and descriptors is who owns these files: root, since the process may not be dumped.
  for (const name of ['mem', 'environ', 'fd', 'maps']) assert.equal(statSync(`/proc/${child.pid}/${name}`).uid, 0, name);
});

function start(t: TestContext, flags: readonly string[], file: string, args: readonly string[], env: Record<string, string>): Program {
  const [first = '', ...rest] = [...flags, join(root, file), ...args];
  return startProgram(t, makeNetns(t), first, rest, env);
}
