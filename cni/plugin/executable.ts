/** The plugin's executable on the node: copied from the image, put back where it is gone or another one, removed with the mesh. */
import { readFileSync, rmSync, type Stats, statSync } from 'node:fs';
import { join } from 'node:path';
import { errorMessage } from '../../common/base/errors.ts';
import { HostFileError, writeHostFile } from '../host/host-file.ts';

const EXECUTABLE_NAME = 'istio-cni';

export class PluginExecutable {
  readonly #source: string;
  readonly #target: string;
  #installed: Pick<Stats, 'ino' | 'size' | 'mtimeMs'> | undefined;

  /** @param source file in this container; @param folder the node's folder of CNI plugins, as this container sees it */
  constructor(source: string, folder: string) {
    this.#source = source;
    this.#target = join(folder, EXECUTABLE_NAME);
  }

  /** @returns the path, where it had to be written. @throws {HostFileError}; an Error where the image has no executable */
  ensure(): string[] {
    const there = statSync(this.#target, { throwIfNoEntry: false });
    const known = this.#installed;
    if (there && known && there.ino === known.ino && there.size === known.size && there.mtimeMs === known.mtimeMs) return [];
    const wanted = this.#read();
    const changed = !there || there.size !== wanted.length || (there.mode & 0o777) !== 0o755 || !readFileSync(this.#target).equals(wanted);
    // A running plugin keeps the file that it was started from.
    if (changed) writeHostFile(this.#target, wanted, 0o755);
    this.#installed = statSync(this.#target);
    return changed ? [this.#target] : [];
  }

  /** @throws {HostFileError} */
  remove(): void {
    try {
      rmSync(this.#target, { force: true });
    } catch (error) {
      throw new HostFileError(this.#target, error);
    }
  }

  #read(): Buffer {
    try {
      return readFileSync(this.#source);
    } catch (error) {
      throw new Error(`this image has no CNI plugin: ${errorMessage(error)}`);
    }
  }
}
