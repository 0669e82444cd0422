/**
 * A folder whose files change all at once, laid out as the kubelet does it: each file is a link through `..data`, and `..data` is swapped
 * by one rename. A reader sees the old set or the new one, and inotify on `..data` works.
 */
import { mkdirSync, readdirSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface FileContent {
  readonly content: Buffer;
  readonly mode: number;
}

export class AtomicFolder {
  readonly #folder: string;
  #generation = 0;
  #last = '';

  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
  }

  /** @param files relative paths; @returns whether anything changed. @throws {Error} for a path that leaves the folder */
  write(files: ReadonlyMap<string, FileContent>): boolean {
    const fingerprint = [...files].map(([path, { content, mode }]) => `${path}\0${mode}\0${content.toString('base64')}`).join('\n');
    if (this.#generation > 0 && fingerprint === this.#last) return false;
    this.#last = fingerprint;
    const version = `..${++this.#generation}`;
    const target = join(this.#folder, version);
    mkdirSync(target);
    for (const [path, { content, mode }] of files) {
      if (path.startsWith('/') || path.split('/').includes('..')) throw new Error(`volume path ${JSON.stringify(path)} leaves the volume`);
      mkdirSync(dirname(join(target, path)), { recursive: true });
      writeFileSync(join(target, path), content, { mode });
    }
    const swap = join(this.#folder, '..data_tmp');
    symlinkSync(version, swap);
    const before = currentVersion(this.#folder);
    renameSync(swap, join(this.#folder, '..data'));
    this.#link(new Set([...files.keys()].map((path) => path.split('/')[0] ?? '')));
    if (before !== undefined) rmSync(join(this.#folder, before), { recursive: true, force: true });
    return true;
  }

  #link(names: ReadonlySet<string>): void {
    const present = new Set(readdirSync(this.#folder).filter((name) => !name.startsWith('..')));
    for (const name of names) if (!present.has(name)) symlinkSync(`..data/${name}`, join(this.#folder, name));
    for (const name of present) if (!names.has(name)) rmSync(join(this.#folder, name));
  }
}

function currentVersion(folder: string): string | undefined {
  try {
    return readlinkSync(join(folder, '..data'));
  } catch {
    // The first version has no predecessor.
    return undefined;
  }
}
