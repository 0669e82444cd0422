/** A place in a configuration file that somebody wrote: reads it as what it should be, and says where it is when it is not that. */

/** What is wrong, with the path and, where it is known, the line. */
export class ConfigError extends Error {
  readonly line: number | undefined;

  constructor(message: string, line: number | undefined) {
    super(line === undefined ? message : `${message} (line ${line})`);
    this.name = 'ConfigError';
    this.line = line;
  }
}

/** One value of a document with its path. Everything that reads it throws a ConfigError where it is something else. */
export class YamlNode {
  readonly value: unknown;
  /** `workloads[0].services`, empty for the document. */
  readonly path: string;
  readonly #lines: WeakMap<object, number>;
  readonly #line: number;

  /** @param line of the nearest enclosing thing whose line is known */
  constructor(value: unknown, path: string, lines: WeakMap<object, number>, line: number) {
    this.value = value;
    this.path = path;
    this.#lines = lines;
    this.#line = (typeof value === 'object' && value !== null ? lines.get(value) : undefined) ?? line;
  }

  error(problem: string): ConfigError {
    return new ConfigError(this.path === '' ? problem : `${this.path}: ${problem}`, this.#line);
  }

  text(): string {
    if (typeof this.value !== 'string') throw this.error(`expected text, found ${describe(this.value)}`);
    return this.value;
  }

  flag(): boolean {
    if (typeof this.value !== 'boolean') throw this.error(`expected true or false, found ${describe(this.value)}`);
    return this.value;
  }

  integer(max: number): number {
    const { value } = this;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max) {
      throw this.error(`expected a whole number from 0 to ${max}, found ${describe(value)}`);
    }
    return value;
  }

  /** One of the keys, as what it stands for. */
  choice<T>(words: Readonly<Record<string, T>>): T {
    const { value } = this;
    for (const [word, meaning] of Object.entries(words)) if (word === value) return meaning;
    throw this.error(`expected one of ${Object.keys(words).join(', ')}, found ${describe(value)}`);
  }

  /** Text that `parse` understands. @param expected what it should have been, for the complaint */
  parsed<T>(parse: (text: string) => T | undefined, expected: string): T {
    const found = parse(this.text());
    if (found === undefined) throw this.error(`expected ${expected}, found ${describe(this.value)}`);
    return found;
  }

  map<T>(read: (node: YamlNode) => T): T {
    return read(this);
  }

  list<T>(read: (node: YamlNode) => T): T[] {
    if (!Array.isArray(this.value)) throw this.error(`expected a list, found ${describe(this.value)}`);
    return this.value.map((entry, i) => read(this.#child(entry, `${this.path}[${i}]`)));
  }

  /** The entries of a mapping, in the order of the file. */
  entries<T>(read: (key: string, node: YamlNode) => T): T[] {
    return Object.entries(this.#fields()).map(([key, value]) => read(key, this.#child(value, this.#pathOf(key))));
  }

  allowKeys(keys: readonly string[]): void {
    const unknown = Object.keys(this.#fields()).find((key) => !keys.includes(key));
    if (unknown !== undefined) throw this.error(`unknown key ${JSON.stringify(unknown)}; known: ${keys.join(', ')}`);
  }

  required(key: string): YamlNode {
    const child = this.optional(key);
    if (!child) throw this.error(`missing key ${JSON.stringify(key)}`);
    return child;
  }

  /** undefined where the key is not there or has no value. */
  optional(key: string): YamlNode | undefined {
    const fields = this.#fields();
    const value = Object.hasOwn(fields, key) ? fields[key] : undefined;
    return value === undefined || value === null ? undefined : this.#child(value, this.#pathOf(key));
  }

  #fields(): Readonly<Record<string, unknown>> {
    const { value } = this;
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw this.error(`expected a mapping, found ${describe(value)}`);
    return value as Record<string, unknown>;
  }

  #child(value: unknown, path: string): YamlNode {
    return new YamlNode(value, path, this.#lines, this.#line);
  }

  #pathOf(key: string): string {
    if (!/^[\w-]+$/.test(key)) return `${this.path}[${JSON.stringify(key)}]`;
    return this.path === '' ? key : `${this.path}.${key}`;
  }
}

function describe(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (value === null || value === undefined) return 'nothing';
  return typeof value === 'object' ? 'a mapping' : JSON.stringify(value);
}
