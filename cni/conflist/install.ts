/**
 * The plugin in a folder of CNI configurations. A runtime takes the first file in lexical order that it can use, so that is the one to chain
 * to. Three forms, as with Istio's agent: chained to that file (a lone `.conf` becomes a `.conflist`), a copy of it under a name of our own
 * that comes first (so that a node that boots has the plugin before anybody rewrites the original), or a file of its own for Multus.
 */
import { readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { HostFileError, writeHostFile } from '../host/host-file.ts';
import { ConflistError, chain, isChained, notANetwork, type PluginOptions, sameConfig, standalone, unchain } from './conflist.ts';

export type Form =
  | { readonly form: 'chained' /** The file to chain to; the first usable one where it is empty. */; readonly file: string }
  | { readonly form: 'owned'; readonly file: string }
  | { readonly form: 'standalone'; readonly file: string };

/** The node has no network to chain to yet: whoever brings it writes its file later. */
export class NoNetworkYet extends Error {}

export interface Installed {
  readonly path: string;
  /** Whether something had to be written. */
  readonly changed: boolean;
}

const READ_BY_RUNTIMES = /\.(conf|conflist|json)$/;
// A configuration is a few kilobytes; whatever is larger is none.
const MAX_BYTES = 1 << 20;
const NEW_FILE_MODE = 0o644;

/** Puts the plugin where it belongs, and does nothing where it is there. @throws {NoNetworkYet}, {ConflistError}, {HostFileError} */
export function install(folder: string, form: Form, options: PluginOptions): Installed {
  if (form.form === 'standalone') return put(join(folder, form.file), standalone(options), undefined);
  if (form.form === 'owned') return installOwned(folder, form.file, options);
  const name = form.file === '' ? firstNetwork(folder) : namedFile(folder, form.file);
  const path = join(folder, name);
  const text = chained(path, options);
  if (!name.endsWith('.conf') && !name.endsWith('.json')) return put(path, text, path);
  // First the list, then the old file away: at no moment the node is without a network.
  const list = put(path.replace(/\.(conf|json)$/, '.conflist'), text, path);
  remove(path);
  return { ...list, changed: true };
}

/** Takes the plugin out of every file. @returns the files that were changed. @throws {HostFileError} */
export function uninstall(folder: string, form: Form): string[] {
  const changed: string[] = [];
  for (const name of configFiles(folder)) {
    const path = join(folder, name);
    const text = read(path);
    if (text === undefined || !isChained(text)) continue;
    const rest = form.form === 'owned' && name === form.file ? undefined : unchain(text);
    if (rest === undefined) remove(path);
    else writeHostFile(path, rest, modeOf(path));
    changed.push(path);
  }
  return changed;
}

function installOwned(folder: string, file: string, options: PluginOptions): Installed {
  const path = join(folder, file);
  let original: string;
  try {
    original = firstNetwork(folder, file);
  } catch (error) {
    // Right after a boot ours may be the only one; it was made from the original and stands for it.
    if (error instanceof NoNetworkYet && isChained(read(path) ?? '')) return { path, changed: false };
    throw error;
  }
  if (file > original) throw new ConflistError(`${file} comes after ${original}, which runtimes would take instead: choose another name`);
  return put(path, chained(join(folder, original), options), join(folder, original));
}

/** Name of the file that a runtime takes. @throws {NoNetworkYet} saying what is wrong with the files that are there */
function firstNetwork(folder: string, except?: string): string {
  const problems: string[] = [];
  for (const name of configFiles(folder)) {
    if (name === except) continue;
    const text = read(join(folder, name));
    if (text === undefined) continue;
    const problem = notANetwork(name, text) ?? (isChained(text) && unchainable(text) ? 'is the mesh plugin itself' : undefined);
    if (problem === undefined) return name;
    problems.push(`${name} ${problem}`);
  }
  throw new NoNetworkYet(`${folder} has no CNI network to chain to yet${problems.length > 0 ? ` (${problems.join('; ')})` : ''}`);
}

const unchainable = (text: string): boolean => unchain(text) === undefined;

/** Somebody chose the file; whether it is a list by now is not to be known in advance. */
function namedFile(folder: string, file: string): string {
  const others = file.endsWith('.conf') ? [`${file}list`] : file.endsWith('.conflist') ? [file.slice(0, -'list'.length)] : [];
  const found = [file, ...others].find((name) => read(join(folder, name)) !== undefined);
  if (found === undefined) throw new NoNetworkYet(`${join(folder, file)} is not there yet`);
  return found;
}

function chained(path: string, options: PluginOptions): string {
  try {
    return chain(read(path) ?? '', options);
  } catch (error) {
    if (error instanceof ConflistError) throw new ConflistError(`${path} ${error.message}`);
    throw error;
  }
}

/** @param like whose mode a new file gets: some networks keep secrets in their configuration */
function put(path: string, text: string, like: string | undefined): Installed {
  const before = read(path);
  if (before !== undefined && sameConfig(before, text)) return { path, changed: false };
  writeHostFile(path, text, like === undefined ? NEW_FILE_MODE : modeOf(like));
  return { path, changed: true };
}

function configFiles(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => READ_BY_RUNTIMES.test(name))
      .sort();
  } catch (error) {
    throw new HostFileError(folder, error);
  }
}

/** undefined where it is no readable file: a folder, a link to nowhere, or gone since it was listed. */
function read(path: string): string | undefined {
  try {
    const stat = statSync(path);
    return stat.isFile() && stat.size <= MAX_BYTES ? readFileSync(path, 'utf8') : undefined;
  } catch {
    return undefined;
  }
}

const modeOf = (path: string): number => statSync(path).mode & 0o777;

function remove(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    throw new HostFileError(path, error);
  }
}
