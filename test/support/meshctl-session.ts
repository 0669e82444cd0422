/** One process of meshctl that a test asks many things (meshctl-program.ts). */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import type { Ran } from './kube-commands.ts';

/** @returns what runs a command, one after the other */
export function meshctlSession(t: TestContext, kubeconfig: string): (...args: readonly string[]) => Promise<Ran> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'meshctl-program.ts')], { stdio: ['pipe', 'pipe', 'inherit'] });
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  child.stdin.on('error', () => undefined);
  t.after(() => child.stdin.end());
  return async (...args) => {
    child.stdin.write(`${JSON.stringify(['--kubeconfig', kubeconfig, ...args])}\n`);
    const { done, value } = await answers.next();
    if (done) throw new Error(`meshctl ${args.join(' ')} ended the process, with ${child.exitCode ?? child.signalCode}`);
    return JSON.parse(value) as Ran;
  };
}
