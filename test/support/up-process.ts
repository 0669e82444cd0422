/** `playground up` and `scripts/cluster up` as a process of one test: under a name of its own, gone when the test ends, passed or not. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { poll } from './kube-commands.ts';

export interface UpProcess {
  readonly name: string;
  readonly kubeconfig: string;
  readonly process: ChildProcess;
  /** What it printed so far. */
  output(): string;
  /** Ends it now, in order; the test's end does it as well. */
  stop(): Promise<void>;
}

export interface UpOptions {
  /** For what is said where it does not come up. */
  readonly what: 'playground' | 'cluster';
  /** Its program. */
  readonly main: string;
  /** Of `up`, beside name, kubeconfig and ready file. */
  readonly args: readonly string[];
  readonly timeoutMs: number;
}

const MOST_OUTPUT = 100_000;
let counter = 0;

/** @returns when it is ready. @throws with what it printed */
export async function startUp(t: TestContext, { what, main, args, timeoutMs }: UpOptions): Promise<UpProcess> {
  const name = `test-${process.pid}-${counter++}`;
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  const kubeconfig = join(folder, 'kubeconfig');
  const ready = join(folder, 'ready');
  const up = ['up', '--name', name, '--kubeconfig', kubeconfig, '--ready-file', ready, ...args];
  // Ended in order when this process is killed: it may hang.
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', process.execPath, main, ...up], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-MOST_OUTPUT);
    });
  }
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await exited;
  };
  t.after(async () => {
    await stop();
    rmSync(folder, { recursive: true, force: true });
  });
  await poll(`the ${what} did not come up`, timeoutMs, () => {
    if (child.exitCode !== null) throw new Error(`the ${what} ended with ${child.exitCode}`);
    try {
      return readFileSync(ready, 'utf8') !== '';
    } catch {
      // Not yet.
      return false;
    }
  }).catch((error: unknown) => {
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${output}`);
  });
  return { name, kubeconfig, process: child, output: () => output, stop };
}
