/** Runs programs of the host. At most a few at a time: two cores start pods faster in turn than all at once. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';

/** Where the machine's own tools are; a container's PATH may be anything. */
export const TOOL_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

const found = new Map<string, string>();

/** A tool's full path, for a spawn with somebody else's PATH. @throws {Error} naming what is missing */
export function tool(name: string): string {
  let path = found.get(name);
  if (path === undefined) {
    path = TOOL_PATH.split(':')
      .map((folder) => join(folder, name))
      .find((candidate) => existsSync(candidate));
    if (path === undefined) throw new Error(`this machine has no ${name}`);
    found.set(name, path);
  }
  return path;
}

export class CommandError extends Error {
  readonly status: number | undefined;
  /** What it wrote to standard output before it failed. */
  readonly stdout: string;
  constructor(command: string, status: number | undefined, output: string, stdout = '') {
    super(`${command}: ${output.trim() || `exit status ${status ?? 'unknown'}`}`);
    this.name = 'CommandError';
    this.status = status;
    this.stdout = stdout;
  }
}

export interface CommandOptions {
  readonly input?: string | Buffer;
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
        new CommandError(
          [file, ...args].join(' ').slice(0, 200),
          status ?? undefined,
          stderr || (signal ? `killed by ${signal}` : ''),
          stdout,
        ),
      );
    });
  });
}
