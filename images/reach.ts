/**
 * What a program needs: its own modules by following imports, and of the packages those that its modules name and what these depend on by
 * the lock file. A proxy's image thereby cannot carry the Kubernetes client by accident, nor what only a script imports.
 */
import { builtinModules } from 'node:module';
import { posix } from 'node:path';
import { fields, string } from './components.ts';

export interface Reach {
  /** Own modules, paths as the entries have them, sorted. */
  readonly modules: readonly string[];
  /** Names of packages that these import, sorted. */
  readonly packages: readonly string[];
}

/**
 * @param entries paths relative to the folder that `read` reads: `ztunnel/main.js`
 * @param read a module's source, undefined where there is none
 * @throws {Error} that names a missing module and who imports it
 */
export function reach(entries: readonly string[], read: (path: string) => string | undefined): Reach {
  const modules = new Set<string>();
  const packages = new Set<string>();
  const queue = entries.map((path) => ({ path, from: 'the list of entries' }));
  for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
    const { path, from } = next;
    if (modules.has(path)) continue;
    modules.add(path);
    const source = read(path);
    if (source === undefined) throw new Error(`${path} is not there, and ${from} names it`);
    for (const specifier of specifiers(source)) {
      if (specifier.startsWith('.')) queue.push({ path: posix.join(posix.dirname(path), specifier), from: path });
      else if (!specifier.startsWith('node:') && !builtinModules.includes(specifier)) packages.add(packageName(specifier));
    }
  }
  return { modules: [...modules].sort(), packages: [...packages].sort() };
}

/** What the compiler's output imports: statically, re-exported, dynamically, by require; always a literal in this code base. */
function specifiers(source: string): string[] {
  const found = source.matchAll(
    /(?:^|[\n;])\s*(?:import|export)\s[^'"`;]*?from\s*['"]([^'"]+)['"]|(?:^|[\n;])\s*import\s*['"]([^'"]+)['"]|\b(?:import|require)\(\s*['"]([^'"]+)['"]\s*\)/g,
  );
  return [...found].map(([, from, bare, dynamic]) => from ?? bare ?? dynamic ?? '');
}

const packageName = (specifier: string): string =>
  specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');

export interface LockedPackage {
  /** Where it lies: `node_modules/a/node_modules/b`. */
  readonly path: string;
  readonly name: string;
  readonly version: string;
  /** Subresource integrity, `sha512-…`. */
  readonly integrity: string;
  readonly license: string;
}

/**
 * @param lock content of package-lock.json, version 3
 * @param cpu npm's word for the image's processor
 * @returns the named packages and all that they depend on, sorted by path; peers that are optional and other systems' binaries are not there
 * @throws {Error} where one is not in the lock file
 */
export function closure(lock: unknown, names: readonly string[], cpu: string): LockedPackage[] {
  const all = fields(fields(lock, 'package-lock.json').packages, 'packages');
  const found = new Map<string, LockedPackage>();
  const add = (name: string, from: string, optional: boolean): void => {
    const path = place(all, name, from);
    if (path === undefined) {
      if (optional) return;
      throw new Error(`package-lock.json has no ${name}, which ${from || 'the checkout'} needs`);
    }
    if (found.has(path)) return;
    const entry = fields(all[path], path);
    if (!fits(entry, cpu)) return;
    const license = typeof entry.license === 'string' ? entry.license : 'NOASSERTION';
    found.set(path, { path, name, version: string(entry.version, path), integrity: string(entry.integrity, path), license });
    const optionalPeers = fields(entry.peerDependenciesMeta ?? {}, path);
    for (const next of Object.keys(fields(entry.dependencies ?? {}, path))) add(next, path, false);
    for (const next of Object.keys(fields(entry.optionalDependencies ?? {}, path))) add(next, path, true);
    for (const next of Object.keys(fields(entry.peerDependencies ?? {}, path))) if (!(next in optionalPeers)) add(next, path, false);
  };
  for (const name of names) add(name, '', false);
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** Node's own look-up: beside the package, then beside each of those above it. */
function place(all: Readonly<Record<string, unknown>>, name: string, from: string): string | undefined {
  for (let folder = from; ; ) {
    const path = folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (path in all) return path;
    if (folder === '') return undefined;
    const above = folder.lastIndexOf('/node_modules/');
    folder = above === -1 ? '' : folder.slice(0, above);
  }
}

function fits({ os, cpu }: Readonly<Record<string, unknown>>, wanted: string): boolean {
  const lists = (value: unknown): unknown[] => (value === undefined ? [] : Array.isArray(value) ? value : [value]);
  return (lists(os).length === 0 || lists(os).includes('linux')) && (lists(cpu).length === 0 || lists(cpu).includes(wanted));
}
