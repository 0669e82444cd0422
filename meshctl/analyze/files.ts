/** Files that are to be analyzed: those that are named, those below folders that are named, and what comes in on standard input for `-`. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { extname, join } from 'node:path';
import { errorMessage } from '../../common/base/errors.ts';
import { CommandError } from '../terminal.ts';

export interface NamedText {
  readonly name: string;
  readonly content: string;
}

const EXTENSIONS = ['.json', '.yaml', '.yml'];
const MAX_FILE_BYTES = 16 << 20;
const MAX_FILES = 100_000;

/** @param skipped told of files that are named and have another extension @throws {CommandError} for what cannot be read */
export function gatherFiles(paths: readonly string[], stdin: () => string, skipped: (path: string) => void): NamedText[] {
  const found: NamedText[] = [];
  for (const path of paths) {
    if (path === '-') found.push({ name: '-', content: stdin() });
    else if (isFolder(path)) found.push(...filesBelow(path).map(readText));
    else if (EXTENSIONS.includes(extname(path))) found.push(readText(path));
    else skipped(path);
  }
  return found;
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw new CommandError(errorMessage(error));
  }
}

/** Sorted, so that two runs read in the same order; what begins with a dot is no configuration. */
function filesBelow(folder: string): string[] {
  const found: string[] = [];
  const walk = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      if (entry.name.startsWith('.')) continue;
      const below = join(path, entry.name);
      if (entry.isDirectory()) walk(below);
      else if (EXTENSIONS.includes(extname(entry.name)) && statSync(below).isFile()) found.push(below);
      if (found.length > MAX_FILES) throw new CommandError(`${folder} has more than ${MAX_FILES} files`);
    }
  };
  walk(folder);
  return found;
}

function readText(path: string): NamedText {
  try {
    const { size } = statSync(path);
    if (size > MAX_FILE_BYTES) throw new Error(`${size} bytes are more than the ${MAX_FILE_BYTES} that a file may have`);
    return { name: path, content: readFileSync(path, 'utf8') };
  } catch (error) {
    throw new CommandError(`${path}: ${errorMessage(error)}`);
  }
}
