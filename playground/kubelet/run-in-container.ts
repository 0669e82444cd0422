/** Commands inside a running container, with their own session so that everything they started can be ended together. */
import { type ChildProcess, spawn } from 'node:child_process';
import { tool } from '../node/command.ts';
import type { ContainerProcess } from './container-process.ts';

const MOST_OUTPUT = 10 << 10;

/** @returns undefined where the container is not running */
export function spawnInContainer(
  process: ContainerProcess,
  command: readonly string[],
  options: { tty: boolean; stdin: boolean },
): ChildProcess | undefined {
  const entry = process.execArguments(command, options.tty);
  if (!entry) return undefined;
  const { argv, env } = entry;
  // `script` is what every Debian has to give a command a terminal; its file is nobody's, and it passes the exit status on.
  const [file = '', ...args] = options.tty
    ? [tool('script'), '--quiet', '--return', '--flush', '--command', argv.map(quote).join(' '), '/dev/null']
    : argv;
  return spawn(file, args, { stdio: [options.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'], detached: true, env });
}

/** Ends the command and all that it started. */
export function endGroup(child: ChildProcess): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch {
    // It ended by itself in between.
  }
}

/** For probes and hooks: exit status and the beginning of the output. Never rejects. */
export function runInContainer(
  container: ContainerProcess,
  command: readonly string[],
  timeoutMs: number,
): Promise<{ status: number; output: string }> {
  return new Promise((resolve) => {
    const child = spawnInContainer(container, command, { tty: false, stdin: false });
    if (!child) return resolve({ status: 1, output: 'container is not running' });
    let output = '';
    const collect = (chunk: Buffer): void => {
      if (output.length < MOST_OUTPUT) output += chunk.toString('utf8');
    };
    child.stdout?.on('data', collect);
    child.stderr?.on('data', collect);
    const timer = setTimeout(() => {
      endGroup(child);
      resolve({ status: 124, output: `command timed out after ${timeoutMs / 1000}s` });
    }, timeoutMs);
    child.once('error', (error) => {
      clearTimeout(timer);
      resolve({ status: 126, output: error.message });
    });
    child.once('close', (code) => {
      clearTimeout(timer);
      resolve({ status: code ?? 137, output });
    });
  });
}

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;
