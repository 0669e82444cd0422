/** Commands inside a running container, with their own session so that everything they started can be ended together. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { type Clock, sleep } from '../../common/base/clock.ts';
import { runCommand, tool } from '../node/command.ts';
import { type ContainerProcess, childOf } from './container-process.ts';

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

/** Gives the terminal that `script` made its size; its child has it as standard input. Does nothing where there is none (any more). */
export async function resizeTerminal(script: ChildProcess, columns: number, rows: number, clock: Clock): Promise<void> {
  // The client sends the first size at once, maybe before the terminal is there.
  for (let attempt = 0; attempt < 10; attempt++) {
    const terminal = terminalOf(script);
    if (terminal !== undefined) {
      await runCommand([tool('stty'), '-F', terminal, 'rows', String(rows), 'cols', String(columns)]).catch(() => undefined);
      return;
    }
    await sleep(clock, 20);
  }
}

function terminalOf(script: ChildProcess): string | undefined {
  const child = script.pid === undefined ? undefined : childOf(script.pid);
  try {
    const target = child === undefined ? '' : readlinkSync(`/proc/${child}/fd/0`);
    return target.startsWith('/dev/pts/') ? target : undefined;
  } catch {
    // It ended.
    return undefined;
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
