/** The log levels of a proxy while it runs: those of its start, changed by operators over the admin port or through istiod, and back. */
import { type LogDirectives, logDirectives } from '../base/proxy-settings.ts';

export class LogLevels {
  readonly #initial: LogDirectives;
  readonly #apply: (levels: LogDirectives) => void;
  #current: LogDirectives;

  /** @param apply makes a change effective */
  constructor(initial: LogDirectives, apply: (levels: LogDirectives) => void) {
    this.#initial = initial;
    this.#current = initial;
    this.#apply = apply;
  }

  get current(): LogDirectives {
    return this.#current;
  }

  /**
   * `level` is `LEVEL` or `SCOPE=LEVEL`, several with commas; where it names scopes only, the others stay as they are. Empty changes nothing.
   * @throws {Error} naming what is no level or no scope
   */
  change({ level, reset }: { readonly level: string; readonly reset: boolean }): void {
    if (reset) this.#set(this.#initial);
    if (level === '') return;
    const wanted = logDirectives.parse(level);
    const general = level.split(',').some((piece) => !piece.includes('='));
    const before = this.#current;
    this.#set({ level: general ? wanted.level : before.level, scopes: { ...before.scopes, ...wanted.scopes } });
  }

  /** `info,access=warn`. */
  toString(): string {
    const { level, scopes } = this.#current;
    return [level, ...Object.entries(scopes).map(([scope, own]) => `${scope}=${own}`)].join(',');
  }

  #set(levels: LogDirectives): void {
    this.#current = levels;
    this.#apply(levels);
  }
}
