/**
 * Folders that outlive a process and that only root may look into: where the mesh's state lies, and, in memory only, where keys lie
 * (decision 9). A file appears in them as a whole or not at all.
 */
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  fchmodSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  statfsSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';

const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;

/**
 * Makes the folder, or takes the one that is there.
 * @throws {Error} where it is a link, another user's, or cannot be made
 */
export function openPrivateFolder(path: string): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const found = lstatSync(path);
  if (!found.isDirectory()) throw new Error(`${path} is no folder`);
  const own = process.getuid?.() ?? 0;
  if (found.uid !== own) throw new Error(`${path} belongs to user ${found.uid}, not to ${own}`);
  if ((found.mode & 0o077) !== 0) chmodSync(path, 0o700);
}

/** What of the machine decides whether a folder's files may reach a disk. Arguments, so that a test can have another machine. */
export interface MemoryFacts {
  /** `f_type` of statfs(2). */
  readonly fileSystem: number;
  /** /proc/swaps */
  readonly swaps: string;
  /** /proc/self/mountinfo */
  readonly mounts: string;
}

export const memoryFacts = (folder: string): MemoryFacts => ({
  fileSystem: statfsSync(folder).type,
  swaps: readFileSync('/proc/swaps', 'utf8'),
  mounts: readFileSync('/proc/self/mountinfo', 'utf8'),
});

/** @returns why files in the folder could end on a disk; undefined where they cannot */
export function reachesDisk(folder: string, { fileSystem, swaps, mounts }: MemoryFacts): string | undefined {
  if (fileSystem === RAMFS) return undefined;
  if (fileSystem !== TMPFS) return `${folder} is on a disk, not on a tmpfs`;
  // A tmpfs is swapped like any memory, unless it was mounted with noswap (Linux 6.4). zram is memory.
  const disks = swaps
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/)[0] ?? '')
    .filter((device) => device !== '' && !device.startsWith('/dev/zram'));
  if (disks.length === 0 || /\bnoswap\b/.test(mountOptions(folder, mounts))) return undefined;
  return `the machine swaps to ${disks.join(', ')}, and ${folder} is not mounted with noswap`;
}

/** Options of the file system that the folder is on, as mountinfo has them behind the dash. */
function mountOptions(folder: string, mounts: string): string {
  let best = '';
  let options = '';
  for (const line of mounts.split('\n')) {
    const [head = '', tail = ''] = line.split(' - ');
    const point = head.split(' ')[4] ?? '';
    const holds = point === '/' || folder === point || folder.startsWith(`${point}/`);
    // Of two mounts at one point the later one counts.
    if (point === '' || !holds || point.length < best.length) continue;
    best = point;
    options = tail.split(' ').slice(2).join(' ');
  }
  return options;
}

/** Writes the file beside itself and renames it: readers see the old one or the new one. Mode 0600. @throws {Error} of the file system */
export function replaceFile(folder: string, name: string, content: string | Uint8Array): void {
  const temporary = join(folder, `.${name}.${randomBytes(6).toString('hex')}`);
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    // The umask may only have taken away; it must not have added either.
    fchmodSync(fd, 0o600);
    writeAll(fd, typeof content === 'string' ? Buffer.from(content) : content);
    renameSync(temporary, join(folder, name));
  } catch (error) {
    unlinkSync(temporary);
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** @throws {Error} of the file system */
export function writeAll(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}
