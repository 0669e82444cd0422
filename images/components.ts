/**
 * The images' one list: `components.json` says what each has inside, as whom it runs and how it starts. `scripts/images` builds from it, the
 * Dockerfile is held against it by a test, the playground starts the same programs with the same flags.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Component {
  readonly name: string;
  readonly title: string;
  readonly description: string;
  /** For tests only: built when it is asked for. */
  readonly test: boolean;
  /** Source files where a process or a thread starts; the first is the entry point. */
  readonly entries: readonly string[];
  /** Numeric `user:group`, so that `runAsNonRoot` can be checked without a name's look-up. */
  readonly user: string;
  /** Arguments where none are given. */
  readonly command: readonly string[];
  readonly nodeFlags: readonly string[];
  /** Debian packages beyond the base, each with its reason. */
  readonly packages: Readonly<Record<string, string>>;
  /** Symbolic links, as a package's set-up would make them: path to target. */
  readonly links: Readonly<Record<string, string>>;
  /** Further executables in /usr/local/bin: name to program and first arguments. */
  readonly scripts: Readonly<Record<string, readonly string[]>>;
  /** Executables of other making: path to a script of the checkout that takes `--arch ARCH` and prints where it has put the file. */
  readonly built: Readonly<Record<string, string>>;
  /** Files and folders of the checkout that the program reads, beside the program under /app. */
  readonly data: readonly string[];
}

export interface Lists {
  /** First part of the images' names. */
  readonly registry: string;
  readonly suite: string;
  /** Debian packages of every image, each with its reason. */
  readonly packages: Readonly<Record<string, string>>;
  /** Packages that others depend on by name and that have no work here, each with its reason. */
  readonly leftOut: Readonly<Record<string, string>>;
  /** Packages of which some files suffice. */
  readonly only: Readonly<Record<string, readonly string[]>>;
  readonly components: readonly Component[];
}

export const NODE = '/usr/local/bin/node';
export const PROGRAM_ROOT = '/app';

export const root = join(import.meta.dirname, '..');

/** @throws {Error} that names the place of what is missing or of the wrong kind */
export function readLists(text: string = readFileSync(join(root, 'images/components.json'), 'utf8')): Lists {
  const file = fields(JSON.parse(text), 'images/components.json');
  const flags = strings(file.nodeFlags, 'nodeFlags');
  return {
    registry: string(file.registry, 'registry'),
    suite: string(file.suite, 'suite'),
    packages: stringsOf(file.packages, 'packages'),
    leftOut: stringsOf(file.leftOut, 'leftOut'),
    only: stringLists(file.only, 'only'),
    components: Object.entries(fields(file.components, 'components')).map(([name, value]) => component(name, value, flags)),
  };
}

function component(name: string, value: unknown, flags: readonly string[]): Component {
  const at = `components.${name}`;
  const { title, description, test, entries, user, command, nodeFlags, packages, links, scripts, built, data, ...rest } = fields(value, at);
  const unknown = Object.keys(rest);
  if (unknown.length > 0) throw new Error(`${at}: unknown ${unknown.join(', ')}`);
  const numeric = string(user, `${at}.user`);
  if (!/^\d+:\d+$/.test(numeric)) throw new Error(`${at}.user: expected numbers UID:GID, got ${JSON.stringify(user)}`);
  const programs = strings(entries, `${at}.entries`);
  if (programs.length === 0) throw new Error(`${at}.entries: empty`);
  return {
    name,
    title: string(title, `${at}.title`),
    description: string(description, `${at}.description`),
    test: test === true,
    entries: programs,
    user: numeric,
    command: strings(command, `${at}.command`),
    nodeFlags: [...flags, ...strings(nodeFlags ?? [], `${at}.nodeFlags`)],
    packages: stringsOf(packages, `${at}.packages`),
    links: stringsOf(links ?? {}, `${at}.links`),
    scripts: stringLists(scripts ?? {}, `${at}.scripts`),
    built: stringsOf(built ?? {}, `${at}.built`),
    data: strings(data ?? [], `${at}.data`),
  };
}

/** Where the compiled form of a source file lies in an image. */
export const compiledPath = (source: string): string => `${PROGRAM_ROOT}/${source.replace(/\.ts$/, '.js')}`;

export const entrypoint = ({ nodeFlags, entries }: Pick<Component, 'nodeFlags' | 'entries'>): string[] => [
  NODE,
  ...nodeFlags,
  compiledPath(entries[0] ?? ''),
];

export const architectures = ['amd64', 'arm64'] as const;
export type Architecture = (typeof architectures)[number];

/** npm's word for Debian's. */
export const npmCpu: Readonly<Record<Architecture, string>> = { amd64: 'x64', arm64: 'arm64' };

export function fields(value: unknown, at: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error(`${at}: expected an object`);
  return { ...value };
}

export function string(value: unknown, at: string): string {
  if (typeof value !== 'string' || value === '') throw new Error(`${at}: expected a string`);
  return value;
}

export function strings(value: unknown, at: string): string[] {
  if (!Array.isArray(value)) throw new Error(`${at}: expected a list`);
  return value.map((item, index) => string(item, `${at}[${index}]`));
}

const stringsOf = (value: unknown, at: string): Record<string, string> =>
  Object.fromEntries(Object.entries(fields(value, at)).map(([key, reason]) => [key, string(reason, `${at}.${key}`)]));

const stringLists = (value: unknown, at: string): Record<string, string[]> =>
  Object.fromEntries(Object.entries(fields(value, at)).map(([key, list]) => [key, strings(list, `${at}.${key}`)]));
