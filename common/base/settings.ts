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

/** Milliseconds of each unit, under every name that Istio's ztunnel takes for it (its durations are read by the crate duration-str). */
const UNITS: ReadonlyMap<string, number> = new Map(
  (
    [
      [1e-6, 'ns nsec nanosecond nanoseconds'],
      [1e-3, 'us µs usec µsec usecond µsecond microsecond microseconds'],
      [1, 'ms msec millisecond milliseconds'],
      [1000, 's sec second seconds'],
      [60_000, 'm min minute minutes'],
      [3_600_000, 'h hr hour hours'],
      [86_400_000, 'd day days'],
      [7 * 86_400_000, 'w week weeks'],
      [30 * 86_400_000, 'mon month months'],
      [365 * 86_400_000, 'y year years'],
    ] as const
  ).flatMap(([ms, names]) => names.split(' ').map((name) => [name, ms] as const)),
);

/**
 * Milliseconds from `300ms`, `5s`, `1m30s`, `24h`, and from what Istio's ztunnel takes beside that: `90` (seconds), `1h 30min`, `3m + 31`,
 * `1m * 10` (a product of seconds); sums and products do not mix. What is shorter than a millisecond is one.
 */
export const duration: Form<number> = {
  name: 'duration',
  parse(value) {
    const pieces = [...value.matchAll(/\s*([+*]?)\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zµ]*)\s*/giy)];
    const read = pieces.map(([, operator = '', amount, unit = '']) => ({ operator, ms: Number(amount) * unitMs(unit) }));
    const [first, ...more] = read;
    const whole = pieces.map(([piece]) => piece).join('') === value;
    const product = more.length > 0 && more.every(({ operator }) => operator === '*');
    if (first?.operator !== '' || !whole || (!product && more.some(({ operator }) => operator === '*'))) throw noDuration();
    const ms = more.reduce((sum, piece) => (product ? (sum * piece.ms) / 1000 : sum + piece.ms), first.ms);
    if (!(ms <= MAX_DURATION_MS)) throw noDuration();
    return Math.ceil(Number(ms.toFixed(6)));
  },
};

const MAX_DURATION_MS = 1000 * 365 * 86_400_000;
const noDuration = (): Error => new Error('expected a duration such as 5m or 30s');
const unitMs = (unit: string): number => (unit === '' ? 1000 : (UNITS.get(unit.toLowerCase()) ?? Number.NaN));

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
