/** The programs of a cluster: each writes its own log file; one that ends unasked ends the cluster, with the end of its log as the reason. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 100;
const PATIENCE_MS = 120_000;
const LOG_TAIL_BYTES = 2000;

export class Daemons {
  readonly #logs: string;
  readonly #onEnd: (complaint: string) => void;
  readonly #children = new Map<string, ChildProcess>();

  constructor(logs: string, onEnd: (complaint: string) => void) {
    mkdirSync(logs, { recursive: true });
    this.#logs = logs;
    this.#onEnd = onEnd;
  }

  start(name: string, [program = '', ...args]: readonly string[], env: Record<string, string> = {}): void {
    const path = join(this.#logs, `${name.replaceAll(' on ', '-')}.log`);
    const log = openSync(path, 'a');
    // KUBECONFIG and proxies of whoever started this are none of the cluster's.
    const child = spawn(program, args, { stdio: ['ignore', log, log], env: { PATH: process.env.PATH ?? '', ...env } });
    closeSync(log);
    this.#children.set(name, child);
    child.once('error', (error) => this.#onEnd(`${name} did not start: ${error.message}`));
    child.once('exit', (code, signal) => {
      this.#onEnd(`${name} ended (${signal ?? `status ${code}`}):\n${readFileSync(path, 'utf8').slice(-LOG_TAIL_BYTES)}`);
    });
  }

  /** Asks until the answer is true; a rejection counts as no. @throws {Error} with the complaint, and what it was rejected with last */
  async until(complaint: string, holds: () => Promise<boolean>, patienceMs = PATIENCE_MS): Promise<void> {
    const deadline = performance.now() + patienceMs;
    for (let last = ''; ; ) {
      try {
        if (await holds()) return;
      } catch (error) {
        last = error instanceof Error ? error.message : String(error);
      }
      if (performance.now() > deadline) throw new Error(`${complaint} (after ${patienceMs / 1000} s)${last === '' ? '' : `: ${last}`}`);
      await sleep(POLL_MS);
    }
  }
}
