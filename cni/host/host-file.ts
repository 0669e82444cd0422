/**
 * Files that the agent leaves on the node for others to read while it is away: whole or not at all, and still there after a power cut. Where
 * one cannot be written the error says what is wrong with the node, not which system call said so.
 */
import { chmodSync, closeSync, fchmodSync, fsyncSync, lstatSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { errorMessage } from '../../common/base/errors.ts';

/** The message is a sentence for the operator and names the path. */
export class HostFileError extends Error {
  constructor(path: string, cause: unknown, what = 'written') {
    super(`${path} cannot be ${what}: ${reasonOf(cause)}`, { cause });
    this.name = 'HostFileError';
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'the disk is full',
  EDQUOT: 'the disk quota is used up',
  EROFS: 'the file system is read-only; another folder of the node can be mounted there',
  ENOENT: 'the folder is not there; is the folder of the node mounted into this container?',
  ENOTDIR: 'a part of the path is no folder',
  EACCES: 'no permission',
  EPERM: 'not permitted (an immutable file, or SELinux or AppArmor)',
  EMFILE: 'too many open files',
  EIO: 'the disk reports an error',
};

/** @param mode of the file, whatever the umask. @throws {HostFileError}, and then the old file is still there and nothing else is */
export function writeHostFile(path: string, content: string | Uint8Array, mode: number): void {
  // In the same folder, as a rename cannot cross file systems; no runtime reads a name that ends like this.
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    const fd = openSync(temporary, 'w', 0o600);
    try {
      writeFileSync(fd, content);
      fchmodSync(fd, mode);
      // A rename without it can be on disk before the content: after a power cut the file would be there, and empty.
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, path);
    syncFolder(dirname(path));
  } catch (error) {
    try {
      rmSync(temporary, { force: true });
    } catch {
      // The first error is the one to tell.
    }
    throw new HostFileError(path, error);
  }
}

/**
 * Makes the folder of a socket, or takes the one that is there: nobody but its owner may put another socket in our socket's place.
 * @throws {HostFileError} where it is no folder, somebody else's, or cannot be made
 */
export function ownSocketFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o755 });
    const found = lstatSync(path);
    const own = process.geteuid?.() ?? 0;
    if (!found.isDirectory()) throw new Error('it is no folder (a link, perhaps)');
    if (found.uid !== own) throw new Error(`it belongs to user ${found.uid}, not to ${own}`);
    if ((found.mode & 0o022) !== 0) chmodSync(path, found.mode & 0o755);
  } catch (error) {
    throw new HostFileError(path, error, 'used for a socket');
  }
}

function syncFolder(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function reasonOf(cause: unknown): string {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const reason = REASONS[code];
  return reason === undefined ? errorMessage(cause) : `${reason} (${code})`;
}
