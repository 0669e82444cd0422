/**
 * A layer: entries as one uncompressed tar with its digest. What takes long to make and seldom changes (root, Node, dependencies) is kept
 * between runs under the digest of what it is made from; the code that makes it counts as part of that.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  globSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { root } from './components.ts';
import { type Entry, writeTar } from './tar.ts';

export interface Layer {
  /** What it has: root, node, tools, dependencies or program. */
  readonly name: string;
  readonly file: string;
  /** SHA-256 of the file, hexadecimal. */
  readonly digest: string;
  readonly bytes: number;
}

/** Of every file in every layer, and of `created` in a configuration: images are told apart by content, not by the hour of their making. */
export const EPOCH_S = 0;

/** Each build leaves its program's layers; what no build has used since then goes. */
export function removeUnused(folder: string, sinceMs: number): void {
  for (const name of readdirSync(folder)) {
    const path = join(folder, name);
    if ((statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? sinceMs) < sinceMs) rmSync(path, { force: true });
  }
}

export class LayerCache {
  readonly #folder: string;
  readonly #code: string;

  /** @param folder where layers lie; made if it is not there */
  constructor(folder: string) {
    this.#folder = folder;
    mkdirSync(folder, { recursive: true });
    const hash = createHash('sha256');
    for (const file of globSync('images/*.ts', { cwd: root }).sort()) hash.update(readFileSync(join(root, file)));
    this.#code = hash.digest('hex');
  }

  /**
   * @param from everything that the layer depends on
   * @param make called where no layer was made from this before
   */
  async layer(name: string, from: unknown, make: () => readonly Entry[] | Promise<readonly Entry[]>): Promise<Layer> {
    const key = createHash('sha256')
      .update(JSON.stringify([this.#code, name, from]))
      .digest('hex')
      .slice(0, 32);
    const note = join(this.#folder, `${name}-${key}.json`);
    if (existsSync(note)) {
      const { digest }: { digest: string } = JSON.parse(readFileSync(note, 'utf8'));
      const file = join(this.#folder, `${digest}.tar`);
      if (existsSync(file)) {
        const now = new Date();
        for (const used of [note, file]) utimesSync(used, now, now);
        return { name, file, digest, bytes: statSync(file).size };
      }
    }
    const made = this.write(name, await make());
    writeFileSync(`${note}.${process.pid}`, JSON.stringify({ digest: made.digest }));
    renameSync(`${note}.${process.pid}`, note);
    return made;
  }

  write(name: string, entries: readonly Entry[]): Layer {
    const temporary = join(this.#folder, `${name}.${process.pid}.tmp`);
    const hash = createHash('sha256');
    const out = openSync(temporary, 'w');
    let bytes = 0;
    try {
      for (const block of writeTar(entries, EPOCH_S)) {
        hash.update(block);
        for (let at = 0; at < block.length; ) at += writeSync(out, block, at);
        bytes += block.length;
      }
    } finally {
      closeSync(out);
    }
    const digest = hash.digest('hex');
    const file = join(this.#folder, `${digest}.tar`);
    renameSync(temporary, file);
    return { name, file, digest, bytes };
  }
}
