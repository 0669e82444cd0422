/**
 * `meshctl playground …`: starts the playground's own program, which lies beside meshctl in a checkout and nowhere else: it needs the
 * sources of everything that it runs.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { CommandError } from '../command-error.ts';

const ROOT = join(import.meta.dirname, '../..');
const PROGRAMS = { playground: 'playground/main.ts', scenario: 'scripts/scenario.ts' } as const;

/** Runs it to its end, with our terminal. @returns its exit status */
export function runPlayground(program: keyof typeof PROGRAMS, args: readonly string[]): Promise<number> {
  const path = join(ROOT, PROGRAMS[program]);
  if (!existsSync(path))
    throw new CommandError(
      `the playground comes with the sources, and this is no checkout (${path} is not there): clone the repository, and use scripts/meshctl`,
    );
  const child = spawn(process.execPath, [path, ...args], { stdio: 'inherit' });
  // Ctrl-C reaches both; the playground ends what it has started, and we wait for that.
  const pass = (signal: NodeJS.Signals) => (): void => void child.kill(signal);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.removeAllListeners(signal);
    process.on(signal, signal === 'SIGINT' && process.stdin.isTTY ? () => undefined : pass(signal));
  }
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(new CommandError(`the playground could not be started: ${error.message}`)));
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 128)));
  });
}
