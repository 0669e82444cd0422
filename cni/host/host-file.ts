/**
 * Files that the agent leaves on the node for others to read while it is away: whole or not at all, and still there after a power cut. Where
 * one cannot be written the error says what is wrong with the node, not which system call said so.
 */
import { closeSync, fchmodSync, fsyncSync, openSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { errorMessage } from '../../common/base/errors.ts';

/** The message is a sentence for the operator and names the path. */
export class HostFileError extends Error {
  constructor(path: string, cause: unknown) {
    super(`${path} cannot be written: ${reasonOf(cause)}`, { cause });
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
