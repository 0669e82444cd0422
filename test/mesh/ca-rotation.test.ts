/**
 * The root of the mesh replaced while traffic flows, as an operator does it: the scenario `rotate-root`, which checks itself. Certificates live for
 * seconds there, so that the steps of a rotation, a day apart in a real mesh, are as well.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { runProgram } from '../support/kube-commands.ts';
import { root, startPlayground, withoutPlayground } from '../support/playground.ts';

test('the root is replaced under traffic, and no request is lost', { skip: withoutPlayground, timeout: 400_000 }, async (t) => {
  const { name } = await startPlayground(t, { mesh: true });
  const { code, stdout, stderr } = await runProgram(
    process.execPath,
    [join(root, 'meshctl/main.ts'), 'playground', 'scenario', 'rotate-root', '--name', name],
    undefined,
    380_000,
  );
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /every namespace trusts two roots[\s\S]*the old root is trusted no more[\s\S]* requests meanwhile, none failed/);
});
