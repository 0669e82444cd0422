/**
 * The programs as a release has them: JavaScript that the compiler emitted. Node's own stripping of types takes 35 MB in each process and
 * thread, which says nothing about ours.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');

/** Builds the checkout. @returns the folder that has `ztunnel/main.js` and the others; packages are found from there */
export function buildRelease(): string {
  const folder = join(root, 'node_modules/.cache/bench-release');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const compiler = join(root, 'node_modules/.bin/tsc');
  execFileSync(compiler, ['-p', root, '--noEmit', 'false', '--outDir', folder, '--noCheck'], { stdio: ['ignore', 'ignore', 'inherit'] });
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }\n');
  return folder;
}
