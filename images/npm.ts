/**
 * Packages as the lock file pins them: npm itself installs them into a folder of the cache, checking every digest and running no script,
 * and of each package an image takes what Node can load, and the licence.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { type Architecture, npmCpu } from './components.ts';
import type { LockedPackage } from './reach.ts';
import type { Entry } from './tar.ts';

/**
 * @param source the checkout, for its package.json, lock file and .npmrc
 * @param cache keeps what was installed, by the digest of these
 * @returns a folder with `node_modules`. @throws {Error} where npm fails; it has said why
 */
export function installPackages(source: string, cache: string, architecture: Architecture): string {
  const inputs = ['package.json', 'package-lock.json', '.npmrc'];
  const hash = createHash('sha256');
  for (const name of inputs) hash.update(readFileSync(join(source, name)));
  const folder = join(cache, `npm-${architecture}-${hash.digest('hex').slice(0, 16)}`);
  if (existsSync(folder)) return folder;
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, 'npm-'));
  try {
    for (const name of inputs) copyFileSync(join(source, name), join(work, name));
    const target = ['--os=linux', `--cpu=${npmCpu[architecture]}`, '--libc=glibc'];
    const quiet = ['--no-audit', '--no-fund', '--loglevel=error'];
    execFileSync('npm', ['ci', '--ignore-scripts', '--omit=dev', ...target, ...quiet], {
      cwd: work,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    renameWhole(work, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return folder;
}

/** A reader sees the whole folder or none. Another run may have been faster, and made the same. */
function renameWhole(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!existsSync(to)) throw error;
  }
}

const LOADED = /\.(js|cjs|mjs|json|node|wasm)$/;
const LICENCE = /^(licen[cs]e|notice|copying|copyright)/i;
/** Types only; and binaries for another C library than the image's. */
const NOT_LOADED = /^node_modules\/(@types\/|undici-types\/)|\/musl_[^/]+\//;

/** @returns the packages' files under `app/node_modules` */
export function packageEntries(folder: string, packages: readonly LockedPackage[]): Entry[] {
  return packages
    .filter(({ path }) => !NOT_LOADED.test(`${path}/`))
    .flatMap(({ path }) => filesBelow(folder, path))
    .filter((file) => (LOADED.test(file) || LICENCE.test(basename(file))) && !NOT_LOADED.test(file))
    .map((file): Entry => ({ path: `app/${file}`, type: 'file', mode: 0o644, content: readFileSync(join(folder, file)) }));
}

/** @returns the file itself, or all files of a folder at any depth but those of packages inside it; paths relative to `root` like `path` */
export function filesBelow(root: string, path: string): string[] {
  if (!statSync(join(root, path)).isDirectory()) return [path];
  return readdirSync(join(root, path), { withFileTypes: true }).flatMap((item) => {
    if (item.isDirectory()) return item.name === 'node_modules' ? [] : filesBelow(root, `${path}/${item.name}`);
    return item.isFile() ? [`${path}/${item.name}`] : [];
  });
}
