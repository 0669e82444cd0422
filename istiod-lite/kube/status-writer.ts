/**
 * Writes the translation's conditions to users' objects: server-side apply on `status`, under the writer's own field manager. The newest
 * state of each object waits in a table, so a slow API server costs no queue; a replica that does not hold the lease only keeps the table.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, seconds, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { type KubeApi, KubeApiError } from '../../common/client/kube-api.ts';
import { type StatusSlot, type StatusWrite, statusBody } from '../model/conditions.ts';

export interface StatusWriterOptions {
  readonly api: Pick<KubeApi, 'patch'>;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly signal: AbortSignal;
  /** Whether this replica is the one that writes. */
  writes(): boolean;
  wrote(outcome: 'written' | 'gone' | 'failed'): void;
}

const AT_ONCE = 4;
const ATTEMPTS = 5;

export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #waiting = new Map<string, StatusWrite>();
  #running = 0;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
  }

  /** @param settled what waits for these is no longer to be written; `writes` come after them */
  write(writes: Iterable<StatusWrite>, settled: Iterable<StatusSlot> = []): void {
    for (const one of settled) this.#waiting.delete(slot(one));
    for (const write of writes) this.#waiting.set(slot(write), write);
    this.resume();
  }

  /** This replica became the writer. */
  resume(): void {
    while (this.#options.writes() && this.#running < AT_ONCE && this.#waiting.size > 0) void this.#work();
  }

  async #work(): Promise<void> {
    this.#running++;
    for (const [waiting, write] of this.#waiting) {
      if (!this.#options.writes() || this.#options.signal.aborted) break;
      this.#waiting.delete(waiting);
      this.#options.wrote(await this.#apply(write));
    }
    this.#running--;
  }

  async #apply(write: StatusWrite): Promise<'written' | 'gone' | 'failed'> {
    const { clock, random, log, signal } = this.#options;
    const backoff = new Backoff({ firstMs: 200, maxMs: seconds(10), jitter: 0.3, random });
    const fields = { object: `${write.kind} ${write.namespace}/${write.name}` };
    for (let attempt = 1; !signal.aborted; attempt++) {
      // A newer state came while we waited: that one is written instead.
      if (this.#waiting.has(slot(write))) return 'written';
      try {
        await this.#patch(write);
        log.debug({ ...fields, conditions: write.conditions.map(({ type, status }) => `${type}=${status}`) }, 'status written');
        return 'written';
      } catch (error) {
        if (error instanceof KubeApiError && error.status === 404) return 'gone';
        // What it was made from is gone: the watch brings what is there now, and with it another write.
        if (error instanceof KubeApiError && error.status === 409 && write.resourceVersion !== undefined) return 'gone';
        if (attempt === ATTEMPTS || isHopeless(error)) {
          log.warn({ ...fields, error: errorMessage(error) }, 'status could not be written');
          return 'failed';
        }
        await sleep(clock, backoff.next(), signal).catch(() => {
          // Shutting down: the loop's condition ends it.
        });
      }
    }
    return 'failed';
  }

  async #patch(write: StatusWrite): Promise<void> {
    const { apiVersion, kind, path, namespace, name, fieldManager, resourceVersion } = write;
    const now = new Date(this.#options.clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    const body = {
      apiVersion,
      kind,
      metadata: { name, ...(namespace && { namespace }), ...(resourceVersion && { resourceVersion }) },
      status: statusBody(write, now),
    };
    await this.#options.api.patch(path, body, { type: 'apply', fieldManager, force: true });
  }
}

// Trying again changes nothing about a refusal.
const isHopeless = (error: unknown): boolean => error instanceof KubeApiError && [400, 403, 405, 415, 422].includes(error.status);

const slot = ({ path, fieldManager }: StatusSlot): string => `${path} ${fieldManager}`;
