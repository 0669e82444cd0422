/** Short commands (`nft`, `ip`) as children born in a network namespace, with their input, an end to waiting, and errors that say who failed. */
import { spawn } from 'node:child_process';
import { errorMessage } from '../../common/base/errors.ts';
import type { Netns } from '../../common/linux/netns.ts';

const TIMEOUT_MS = 10_000;
const MAX_OUTPUT_BYTES = 256 * 1024;

/** A command that failed; the message names the pod (or "the node"), the command, and what it said on standard error. */
export class CommandError extends Error {
  readonly stderr: string;
  constructor(about: string, command: string, reason: string, stderr: string) {
    const said = stderr.trim().split('\n').slice(0, 3).join('; ');
    super(`${about}: ${command}: ${reason}${said === '' ? '' : `: ${said}`}`);
    this.name = 'CommandError';
    this.stderr = stderr;
  }
}

/** What is needed of a Netns. */
export type PodNetns = Pick<Netns, 'fd' | 'run' | 'identity' | 'close'>;

export interface Inside {
  /** The process's own namespace where it is not given. */
  readonly netns?: PodNetns;
  /** Whose rules these are, for errors: `pod shop/orders-1`. */
  readonly about: string;
}

/** @returns standard output. @throws {CommandError} */
export function runInside({ netns, about }: Inside, file: string, args: readonly string[], input = ''): Promise<string> {
  const command = [file, ...args].join(' ');
  return new Promise((resolve, reject) => {
    const start = (): ReturnType<typeof spawn> => spawn(file, args, { stdio: 'pipe', timeout: TIMEOUT_MS, killSignal: 'SIGKILL' });
    let child: ReturnType<typeof spawn>;
    try {
      child = netns ? netns.run(start) : start();
    } catch (error) {
      reject(new CommandError(about, command, errorMessage(error), ''));
      return;
    }
    const output = collect(child.stdout);
    const errors = collect(child.stderr);
    child.on('error', (error) => reject(new CommandError(about, command, errorMessage(error), '')));
    child.on('close', (code, signal) => {
      if (code === 0) resolve(output());
      else reject(new CommandError(about, command, signal ? `ended by ${signal} after ${TIMEOUT_MS} ms` : `exit status ${code}`, errors()));
    });
    // A command that ended before it had read everything: its exit status says why.
    child.stdin?.on('error', () => {});
    child.stdin?.end(input);
  });
}

function collect(stream: NodeJS.ReadableStream | null): () => string {
  const chunks: Buffer[] = [];
  let length = 0;
  stream?.on('data', (chunk: Buffer) => {
    if (length < MAX_OUTPUT_BYTES) chunks.push(chunk);
    length += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}
