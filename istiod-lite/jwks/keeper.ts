/**
 * Keys of the issuers that RequestAuthentications name: fetched when they are first named, again from time to time, and kept as they were while
 * they cannot be fetched, so that an issuer which is away for a while locks nobody out.
 */
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { FetchedKeys } from '../model/request-authentication.ts';

export interface KeyKeeperOptions {
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Pick<Log, 'info' | 'warn'>;
  readonly refreshMs: number;
  /** @throws {Error} in a sentence for the object's status */
  fetch(from: string): Promise<string>;
  changed(from: string, found: FetchedKeys | undefined): void;
  fetched?(outcome: 'success' | 'failure'): void;
}

const FIRST_RETRY_MS = 5_000;
const LONGEST_RETRY_MS = 300_000;
const MAX_SOURCES = 1000;
const AT_ONCE = 8;

interface Source {
  timer: Timer | undefined;
  keys: string | undefined;
  failures: number;
}

export class KeyKeeper {
  readonly #options: KeyKeeperOptions;
  readonly #sources = new Map<string, Source>();
  readonly #waiting: string[] = [];
  #running = 0;

  constructor(options: KeyKeeperOptions) {
    this.#options = options;
  }

  /** What is named now: new sources are asked at once, those that nobody names any more are forgotten. */
  want(sources: ReadonlySet<string>): void {
    for (const [from, { timer }] of this.#sources) {
      if (sources.has(from)) continue;
      timer?.cancel();
      this.#sources.delete(from);
      this.#options.changed(from, undefined);
    }
    for (const from of sources) {
      if (this.#sources.has(from)) continue;
      if (this.#sources.size >= MAX_SOURCES) {
        this.#options.changed(from, { problem: `${MAX_SOURCES} issuers are known already` });
        continue;
      }
      this.#sources.set(from, { timer: undefined, keys: undefined, failures: 0 });
      this.#waiting.push(from);
    }
    this.#next();
  }

  stop(): void {
    for (const { timer } of this.#sources.values()) timer?.cancel();
    this.#sources.clear();
  }

  #next(): void {
    while (this.#running < AT_ONCE) {
      const from = this.#waiting.shift();
      if (from === undefined) return;
      const source = this.#sources.get(from);
      if (!source) continue;
      this.#running++;
      void this.#fetch(from, source).finally(() => {
        this.#running--;
        this.#next();
      });
    }
  }

  async #fetch(from: string, source: Source): Promise<void> {
    const { fetch, changed, log, fetched } = this.#options;
    try {
      const keys = await fetch(from);
      fetched?.('success');
      source.failures = 0;
      if (!this.#isCurrent(from, source)) return;
      if (keys !== source.keys) {
        source.keys = keys;
        log.info({ from }, 'keys for tokens fetched');
        changed(from, { keys });
      }
      this.#again(from, source, this.#options.refreshMs);
    } catch (error) {
      fetched?.('failure');
      source.failures++;
      if (!this.#isCurrent(from, source)) return;
      const problem = errorMessage(error);
      log.warn({ from, error: problem, kept: source.keys !== undefined }, 'keys for tokens cannot be fetched');
      if (source.keys === undefined) changed(from, { problem });
      this.#again(from, source, Math.min(FIRST_RETRY_MS * 2 ** (source.failures - 1), LONGEST_RETRY_MS, this.#options.refreshMs));
    }
  }

  #isCurrent(from: string, source: Source): boolean {
    return this.#sources.get(from) === source;
  }

  /** Spread, so that many issuers behind one server are not asked in the same second. */
  #again(from: string, source: Source, afterMs: number): void {
    const { clock, random } = this.#options;
    source.timer = clock.after(afterMs * (0.9 + random() / 5), () => {
      this.#waiting.push(from);
      this.#next();
    });
  }
}
