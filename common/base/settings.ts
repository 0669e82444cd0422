/**
 * A setting is one row: name, form, default, sentence. A component's table is read as a whole before anything is reported, so an operator
 * sees all bad values at once; docs/config.md is generated from the same tables.
 */

/** Turns text into a value, or throws an Error whose message says what was expected ("expected a duration such as 5m or 30s"). */
export type Form<T> = { readonly name: string; parse(text: string): T };

export interface Setting<T> {
  readonly env: string;
  readonly form: Form<T>;
  readonly fallback: T;
  readonly doc: string;
  /** How the documentation writes the default; made from `fallback` where it is not given. */
  readonly fallbackText?: string;
}

export type SettingsTable = Readonly<Record<string, Setting<unknown>>>;
export type Settings<T extends SettingsTable> = { readonly [K in keyof T]: T[K] extends Setting<infer V> ? V : never };

export function setting<T>(env: string, form: Form<T>, fallback: T, doc: string, fallbackText?: string): Setting<T> {
  return fallbackText === undefined ? { env, form, fallback, doc } : { env, form, fallback, doc, fallbackText };
}

export class SettingsError extends Error {
  readonly problems: readonly string[];
  constructor(problems: readonly string[]) {
    super(`bad settings:\n  ${problems.join('\n  ')}`);
    this.name = 'SettingsError';
    this.problems = problems;
  }
}

/** @throws {SettingsError} naming every variable that does not have its form */
export function readSettings<T extends SettingsTable>(table: T, env: Readonly<Record<string, string | undefined>>): Settings<T> {
  const problems: string[] = [];
  const entries = Object.entries(table).map(([key, row]) => {
    const text = env[row.env];
    if (text === undefined) return [key, row.fallback];
    try {
      return [key, row.form.parse(text)];
    } catch (error) {
      problems.push(`${row.env}=${JSON.stringify(text)}: ${error instanceof Error ? error.message : String(error)}`);
      return [key, row.fallback];
    }
  });
  if (problems.length > 0) throw new SettingsError(problems);
  return Object.fromEntries(entries) as Settings<T>;
}

export const text: Form<string> = { name: 'text', parse: (value) => value };

export const optionalText: Form<string | undefined> = { name: 'text', parse: (value) => (value === '' ? undefined : value) };

export const flag: Form<boolean> = {
  name: 'true or false',
  parse(value) {
    if (value === 'true') return true;
    if (value === 'false') return false;
    throw new Error('expected true or false');
  },
};

export const count: Form<number> = {
  name: 'whole number',
  parse(value) {
    if (!/^\d{1,15}$/.test(value)) throw new Error('expected a whole number');
    return Number(value);
  },
};

export const portNumber: Form<number> = {
  name: 'port',
  parse(value) {
    const port = count.parse(value);
    if (port > 65535) throw new Error('expected a port, 0 to 65535');
    return port;
  },
};

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds from `300ms`, `5s`, `1m30s`, `24h`. */
export const duration: Form<number> = {
  name: 'duration',
  parse(value) {
    const pieces = [...value.matchAll(/(\d+)(ms|s|m|h|d)/g)];
    if (pieces.length === 0 || pieces.map(([piece]) => piece).join('') !== value) throw new Error('expected a duration such as 5m or 30s');
    return pieces.reduce((sum, [, amount, unit]) => sum + Number(amount) * (UNITS[unit ?? ''] ?? 0), 0);
  },
};

/** One of a closed list of words. */
export const oneOf = <const T extends readonly string[]>(...words: T): Form<T[number]> => ({
  name: words.join(' | '),
  parse(value) {
    if (words.includes(value)) return value;
    throw new Error(`expected ${words.join(', ')}`);
  },
});

/** Comma-separated words; empty ones are dropped. */
export const list: Form<readonly string[]> = {
  name: 'comma-separated list',
  parse: (value) =>
    value
      .split(',')
      .map((word) => word.trim())
      .filter((word) => word !== ''),
};
