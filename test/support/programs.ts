/** Programs of this repository as processes of a mesh test: in a namespace of the test's, their output kept, ended with the test. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { TestNetns } from './netns.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface Program {
  readonly process: ChildProcess;
  /** All of standard output and error so far. */
  output(): string;
  /** Resolves with the first line that matches; fails after `withinMs`, showing the output. */
  line(pattern: RegExp, withinMs?: number): Promise<string>;
  /** Resolves with the exit code, or the signal's name. */
  readonly ended: Promise<number | string>;
  kill(signal?: NodeJS.Signals): void;
}

/** @param file below the repository's root */
export function startProgram(
  t: TestContext,
  netns: TestNetns | undefined,
  file: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Program {
  const argv = [process.execPath, file, ...args];
  const [command = '', ...rest] = netns ? ['nsenter', `--net=${netns.path}`, '--', ...argv] : argv;
  return follow(t, spawn(command, rest, { cwd: ROOT, env: { ...inherited(), ...env }, stdio: ['ignore', 'pipe', 'pipe'] }), file);
}

/** Any other program in a namespace. */
export const startCommand = (t: TestContext, { path }: TestNetns, argv: readonly string[]): Program =>
  follow(t, spawn('nsenter', [`--net=${path}`, '--', ...argv], { env: inherited(), stdio: ['ignore', 'pipe', 'pipe'] }), argv[0] ?? '');

/** Any process of a test: its output kept, ended with the test. @param name for errors */
export function follow(t: TestContext, child: ChildProcessByStdio<null, Readable, Readable>, name: string): Program {
  let output = '';
  const watchers = new Set<() => void>();
  const took = (chunk: Buffer): void => {
    output += chunk.toString();
    for (const watcher of [...watchers]) watcher();
  };
  child.stdout.on('data', took);
  child.stderr.on('data', took);
  const ended = new Promise<number | string>((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal ?? 'unknown')));
  let running = true;
  void ended.then(() => {
    running = false;
  });
  t.after(async () => {
    if (running) child.kill('SIGKILL');
    await ended;
  });
  return {
    process: child,
    output: () => output,
    line: (pattern, withinMs = 30_000) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = output.split('\n').find((line) => pattern.test(line));
          if (found === undefined) return;
          done();
          resolve(found);
        };
        const done = (): void => {
          clearTimeout(timer);
          watchers.delete(look);
        };
        const timer = setTimeout(() => {
          done();
          reject(new Error(`${name}: no line like ${pattern} within ${withinMs} ms in:\n${output}`));
        }, withinMs);
        watchers.add(look);
        look();
      }),
    ended,
    kill: (signal = 'SIGTERM') => void child.kill(signal),
  };
}

/** Nothing that could change what a program does; the cache of compiled code halves the CPU that its start takes. */
const inherited = (): Record<string, string> => ({
  PATH: process.env.PATH ?? '',
  ...(process.env.NODE_COMPILE_CACHE === undefined
    ? {}
    : { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE, NODE_COMPILE_CACHE_PORTABLE: process.env.NODE_COMPILE_CACHE_PORTABLE ?? '' }),
});

/** Runs JavaScript (an ES module's text) in a namespace and returns what it printed. Fails with its standard error. */
export function runScript(netns: TestNetns, script: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn('nsenter', [`--net=${netns.path}`, '--', process.execPath, '--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    let errors = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (errors += chunk));
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
    child.once('exit', (code) => {
      clearTimeout(timer);
      if (code === 0) resolve(output);
      else reject(new Error(`script failed (${code}): ${errors || output}`));
    });
  });
}
