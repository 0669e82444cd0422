/**
 * One stage of the gate in a process of its own, with a deadline: whatever a test does, be it a loop that never gives its thread back, the gate comes
 * to its end and says where it was. The process leads a group of its own, and the whole group goes when the stage is over; what has left the group
 * (playgrounds, clusters) dies with a member of it. The process says what it is at, and what came of it, on a pipe, one JSON line each, written at
 * once: what is buffered in a process that spins never comes out.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export const OUTCOMES = ['passed', 'failed', 'skipped'] as const;
export type Outcome = (typeof OUTCOMES)[number];
export type Tally = Record<Outcome, number>;

/** What a stage says of itself. */
export type StageMessage =
  | { readonly loads: string }
  | { readonly begins: string }
  | { readonly ends: string }
  | { readonly outcome: Outcome };

export interface Stage {
  readonly name: string;
  readonly argv: readonly string[];
  readonly deadlineMs: number;
}

export interface StageOptions {
  /** Ends the stage early: its reason is said. */
  readonly signal?: AbortSignal;
  /** Printed as it comes, or kept for `output`. */
  readonly streamed?: boolean;
  /** Told what comes, also where it is kept. */
  readonly onOutput?: (chunk: Buffer) => void;
  /** What its programs have to end in order in, such as a playground. */
  readonly patienceMs?: number;
}

export interface StageResult extends Tally {
  readonly ms: number;
  readonly output: string;
  /** Why it did not come to its end, after how long, and where it was; one more that failed. */
  readonly problem?: string;
}

const MESSAGES_FD = 3;
const PATIENCE_MS = 15_000;
const GROUP_POLL_MS = 50;
const PIPE_PATIENCE_MS = 2000;
const MOST_NAMED = 5;

/** Says something to whoever runs this stage. Synchronous: the next thing that happens may be a loop. */
export function tell(message: StageMessage): void {
  writeSync(MESSAGES_FD, `${JSON.stringify(message)}\n`);
}

export async function runStage(
  stage: Stage,
  { signal, streamed = false, onOutput, patienceMs = PATIENCE_MS }: StageOptions = {},
): Promise<StageResult> {
  const startedMs = performance.now();
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...stage.argv], {
    stdio: ['ignore', streamed ? 'inherit' : 'pipe', streamed ? 'inherit' : 'pipe', 'pipe'],
    detached: true,
  });
  const output: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      output.push(chunk);
      onOutput?.(chunk);
    });
  }
  const progress = new Progress();
  const messages = child.stdio[MESSAGES_FD];
  if (messages && 'setEncoding' in messages) messages.setEncoding('utf8').on('data', (text: string) => progress.read(text));

  const ended = endOf(child);
  const closed = once(child, 'close').catch(() => undefined);
  const cut = Promise.withResolvers<string>();
  const timer = setTimeout(() => cut.resolve(`was not done after ${stage.deadlineMs / 1000} s`), stage.deadlineMs);
  const abort = (): void => cut.resolve(String(signal?.reason));
  if (signal?.aborted) abort();
  signal?.addEventListener('abort', abort);
  const overdue = await Promise.race([cut.promise, ended.then(() => undefined)]);
  clearTimeout(timer);
  signal?.removeEventListener('abort', abort);

  // Where it was is asked before it is told to end, which ends tests as well.
  const at = progress.at();
  if (child.pid !== undefined) await endGroup(child.pid, patienceMs);
  const status = await ended;
  // All that was printed is wanted; but what left the group may hold the pipe, and is no reason to wait.
  if (child.pid !== undefined) await Promise.race([closed, sleep(PIPE_PATIENCE_MS, undefined, { ref: false })]);
  const ms = performance.now() - startedMs;
  const text = Buffer.concat(output).toString();
  const { passed, failed, skipped } = progress.tally;
  const trouble = overdue ?? troubleOf(status, progress.tally);
  if (trouble === undefined) return { passed, failed, skipped, ms, output: text };
  const where = at === '' ? '' : `, in ${at}`;
  return { passed, failed: failed + 1, skipped, ms, output: text, problem: `${trouble} (${Math.round(ms / 1000)} s)${where}` };
}

type Status = { readonly code: number | null; readonly by: NodeJS.Signals | null } | { readonly error: string };

const endOf = (child: ChildProcess): Promise<Status> =>
  new Promise((resolve) => {
    child.once('error', ({ message }) => resolve({ error: message }));
    child.once('exit', (code, by) => resolve({ code, by }));
  });

/** Status 1 with something that failed, and 0 with nothing, are how a stage ends. */
function troubleOf(status: Status, { passed, failed, skipped }: Tally): string | undefined {
  if ('error' in status) return `could not start: ${status.error}`;
  if (status.by !== null) return `was ended by ${status.by}`;
  if (status.code !== (failed > 0 ? 1 : 0)) return `ended with status ${status.code}`;
  return passed + failed + skipped > 0 ? undefined : 'had no result';
}

/** In order first; whoever did not listen is killed. */
async function endGroup(leader: number, patienceMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  for (let told = false; signalGroup(leader, told ? 0 : 'SIGTERM') && hasLiving(leader); told = true) {
    if (performance.now() > deadlineMs) {
      signalGroup(leader, 'SIGKILL');
      return;
    }
    await sleep(GROUP_POLL_MS);
  }
}

/** @returns whether there is anybody in it */
function signalGroup(leader: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(-leader, signal);
    return true;
  } catch {
    // ESRCH: nobody is left.
    return false;
  }
}

/** A container's first process may not collect the dead. */
function hasLiving(leader: number): boolean {
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      // pid (name) state ppid pgrp …
      const [state, , group] = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      return Number(group) === leader && state !== 'Z' && state !== 'X';
    } catch {
      // It went away.
      return false;
    }
  });
}

/** What a stage has said so far. */
class Progress {
  readonly tally: Tally = { passed: 0, failed: 0, skipped: 0 };
  readonly #running = new Map<string, number>();
  #loaded = '';
  #rest = '';

  read(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    // Written by `tell`.
    for (const line of lines) this.#take(JSON.parse(line) as StageMessage);
  }

  #take(message: StageMessage): void {
    if ('outcome' in message) this.tally[message.outcome]++;
    else if ('loads' in message) this.#loaded = message.loads;
    else if ('begins' in message) this.#running.set(message.begins, performance.now());
    else this.#running.delete(message.ends);
  }

  at(): string {
    const now = performance.now();
    const running = [...this.#running].slice(-MOST_NAMED).map(([name, since]) => `${name} (for ${Math.round((now - since) / 1000)} s)`);
    if (running.length > 0) return running.join('; ');
    // A file is loaded, or something is left open after the last test.
    return this.#loaded === '' ? '' : `no test, at or after ${this.#loaded}`;
  }
}
