/**
 * Keeps something installed on the node: at the start, when its folder changes, and each few seconds in case a change was not heard of.
 * What somebody else undoes is done again, at most once a second, and said once in a while: two programs that undo each other's work would
 * otherwise fill the log.
 */
import { type FSWatcher, watch } from 'node:fs';
import { type Clock, minutes, seconds, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';

export interface KeeperParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly folders: readonly string[];
  /** Puts everything in place. @returns what had to be written, for the log. @throws with what stands in the way */
  ensure(): readonly string[];
  /** Called with each outcome that differs from the last one: installed, or the problem. */
  onState(problem: string | undefined): void;
}

const LOOK_MS = seconds(5);
const PAUSE_MS = seconds(1);
const SAY_AGAIN_MS = minutes(10);

export class Keeper {
  readonly #parts: KeeperParts;
  readonly #watchers: FSWatcher[] = [];
  #looking: Timer | undefined;
  #soon: Timer | undefined;
  #problem: string | undefined = 'not installed yet';
  #lastLookMs = Number.NEGATIVE_INFINITY;
  #repairs = 0;
  #saidMs = Number.NEGATIVE_INFINITY;
  #installedOnce = false;
  #stopped = false;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
  }

  /** Why it is not installed; undefined where it is. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** How many times something had to be put back. */
  get repairs(): number {
    return this.#repairs;
  }

  start(): void {
    this.#look();
    for (const folder of this.#parts.folders) this.#watch(folder);
  }

  stop(): void {
    this.#stopped = true;
    this.#looking?.cancel();
    this.#soon?.cancel();
    for (const watcher of this.#watchers.splice(0)) watcher.close();
  }

  /** Looks again, now or as soon as the last look is a second ago. */
  poke(): void {
    if (this.#stopped || this.#soon) return;
    const passed = this.#parts.clock.monotonic() - this.#lastLookMs;
    this.#soon = this.#parts.clock.after(Math.max(0, PAUSE_MS - passed), () => this.#look());
  }

  #look(): void {
    const { clock, log, onState, ensure } = this.#parts;
    this.#soon?.cancel();
    this.#soon = undefined;
    this.#looking?.cancel();
    this.#lastLookMs = clock.monotonic();
    const before = this.#problem;
    try {
      const written = ensure();
      this.#problem = undefined;
      if (written.length > 0) this.#say(written);
      this.#installedOnce = true;
    } catch (error) {
      this.#problem = errorMessage(error);
      if (this.#problem !== before) log.warn({ error: this.#problem }, 'the CNI plugin is not installed');
    }
    if (this.#problem !== before) onState(this.#problem);
    if (!this.#stopped) this.#looking = clock.after(LOOK_MS, () => this.#look());
  }

  #say(written: readonly string[]): void {
    const { clock, log } = this.#parts;
    if (!this.#installedOnce) {
      log.info({ written }, 'the CNI plugin is installed');
      return;
    }
    this.#repairs++;
    if (clock.monotonic() - this.#saidMs < SAY_AGAIN_MS) return;
    this.#saidMs = clock.monotonic();
    log.warn({ written, repairs: this.#repairs }, 'something else changed the CNI configuration; the plugin was put back');
  }

  #watch(folder: string): void {
    try {
      const watcher = watch(folder, { persistent: false }, () => this.poke());
      // The folder was removed, say: the next look finds out.
      watcher.on('error', () => watcher.close());
      this.#watchers.push(watcher);
    } catch {
      // No folder, or no inotify watches left: looking each few seconds has to do.
    }
  }
}
