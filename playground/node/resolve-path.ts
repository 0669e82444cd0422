/** Paths inside another root. An absolute link in there (Debian's /var/run -> /run) must be followed there, not in this process's root. */
import { lstatSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

const MOST_LINKS = 40;

/** @returns `path` without links, still relative to `root` and absolute; what does not exist is taken as written. @throws {Error} in a loop of links */
export function resolveInRoot(root: string, path: string): string {
  const todo = path.split('/').reverse();
  const done: string[] = [];
  let links = 0;
  while (todo.length > 0) {
    const part = todo.pop();
    if (part === undefined || part === '' || part === '.') continue;
    if (part === '..') {
      done.pop();
      continue;
    }
    const target = linkTarget(join(root, ...done, part));
    if (target === undefined) done.push(part);
    else {
      if (++links > MOST_LINKS) throw new Error(`${path}: too many levels of symbolic links`);
      if (target.startsWith('/')) done.length = 0;
      todo.push(...target.split('/').reverse());
    }
  }
  return `/${done.join('/')}`;
}

function linkTarget(path: string): string | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  return found?.isSymbolicLink() ? readlinkSync(path) : undefined;
}
