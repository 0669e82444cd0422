/**
 * The programs as an image has them: JavaScript that the compiler emitted. Node's own stripping of types takes 35 MB in each process and
 * thread, which says nothing about ours.
 */
import { join } from 'node:path';
import { compile } from '../../images/compile.ts';
import { readLists } from '../../images/components.ts';

const root = join(import.meta.dirname, '../..');

let built: string | undefined;

/** Builds the checkout, once for a run. @returns the folder that has `ztunnel/main.js` and the others; packages are found from there */
export function buildRelease(): string {
  if (built !== undefined) return built;
  const folder = join(root, 'node_modules/.cache/bench-release');
  compile(folder, { folders: ['bench'] });
  built = folder;
  return folder;
}

/** Node and the flags with which its image starts a program. */
export function nodeOf(component: 'ztunnel' | 'waypoint'): string[] {
  return [process.execPath, ...(readLists().components.find(({ name }) => name === component)?.nodeFlags ?? [])];
}

/** The command that starts ztunnel, as its image does. */
export const ztunnelCommand = (): string[] => [...nodeOf('ztunnel'), join(buildRelease(), 'ztunnel/main.js'), 'proxy'];
