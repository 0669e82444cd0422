/** Runs programs of the host. At most a few at a time: two cores start pods faster in turn than all at once. */
import { spawn } from 'node:child_process';

export class CommandError extends Error {
  readonly status: number | undefined;
  constructor(command: string, status: number | undefined, output: string) {
    super(`${command}: ${output.trim() || `exit status ${status ?? 'unknown'}`}`);
    this.name = 'CommandError';
    this.status = status;
  }
}

export interface CommandOptions {
  readonly input?: string;
  readonly timeoutMs?: number;
}

const MOST_AT_ONCE = 4;
const MOST_OUTPUT_BYTES = 1 << 20;
const DEFAULT_TIMEOUT_MS = 30_000;
let running = 0;
const waiting: (() => void)[] = [];

/** @returns what it wrote to standard output. @throws {CommandError} unless it exits with 0 in time */
export async function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  if (running >= MOST_AT_ONCE) await new Promise<void>((resolve) => waiting.push(resolve));
  running++;
  try {
    return await start(argv, options);
  } finally {
    running--;
    waiting.shift()?.();
  }
}

function start([file = '', ...args]: readonly string[], { input, timeoutMs = DEFAULT_TIMEOUT_MS }: CommandOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], timeout: timeoutMs, killSignal: 'SIGKILL' });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (stdout.length < MOST_OUTPUT_BYTES) stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < MOST_OUTPUT_BYTES) stderr += text;
    });
    // A program that does not read its input to the end is its own business; its exit status says what happened.
    child.stdin.on('error', () => undefined);
    child.stdin.end(input ?? '');
    child.on('error', (error) => reject(new CommandError(file, undefined, error.message)));
    child.on('close', (status, signal) => {
      if (status === 0) return resolve(stdout);
      reject(
        new CommandError([file, ...args].join(' ').slice(0, 200), status ?? undefined, stderr || (signal ? `killed by ${signal}` : '')),
      );
    });
  });
}
