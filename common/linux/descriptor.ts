/**
 * Opening and closing plain descriptors. Not node:fs: in worker threads Node keeps a list of what fs opened and closes it at the thread's
 * end, by number, which by then may be somebody else's socket.
 */
import { call, libc, O_CLOEXEC } from './libc.ts';

/** Opens a file for reading, close-on-exec. @throws {LinuxError} naming the path */
export const openFd = (path: string): number => call('open', path, () => libc.open(path, O_CLOEXEC));

/** Closes a descriptor that nothing else owns (node:net owns what it was given). @throws {LinuxError} EBADF where it is not open */
export function closeFd(fd: number): void {
  // Linux releases the descriptor even when close is interrupted; trying again could close a descriptor that another thread just got.
  if (libc.close(fd) < 0) call('close', `descriptor ${fd}`, () => (libc.ioctl(fd, 0, 0) < 0 ? -1 : 0));
}
