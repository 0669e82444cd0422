/**
 * The programs as a release has them: JavaScript that the compiler emits (`tsconfig.release.json`), imports rewritten from .ts to .js. Node's
 * own stripping of types takes 35 MB in each process and thread. Types are not checked here: `scripts/test check` does that, and an image
 * can be tried while a change is half done.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from './components.ts';

const PROGRAM_PACKAGE = '{ "type": "module" }\n';

export interface CompileOptions {
  /** The checkout, or a copy of one of its commits that has `node_modules`. */
  readonly source?: string;
  /** Further folders to compile, beside the product's: `bench`. */
  readonly folders?: readonly string[];
}

/** @param folder gets `ztunnel/main.js` and the others, and is emptied first. @throws {Error} where the compiler fails; it has said why */
export function compile(folder: string, { source = root, folders = [] }: CompileOptions = {}): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  let project = join(source, 'tsconfig.release.json');
  if (folders.length > 0) {
    const { include = [] }: { include?: string[] } = JSON.parse(readFileSync(project, 'utf8'));
    const compilerOptions = { rootDir: source, typeRoots: [join(source, 'node_modules/@types')] };
    const wider = { extends: project, compilerOptions, include: [...include, ...folders].map((name) => join(source, name)) };
    project = join(folder, 'tsconfig.json');
    writeFileSync(project, JSON.stringify(wider));
  }
  const compiler = join(root, 'node_modules/.bin/tsc');
  execFileSync(compiler, ['-p', project, '--outDir', folder], { stdio: ['ignore', 'inherit', 'inherit'] });
  writeFileSync(join(folder, 'package.json'), PROGRAM_PACKAGE);
}
