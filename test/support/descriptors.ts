/** Descriptors in tests: sending them as a peer that means harm would, without SeqpacketSocket's checks, and counting those that are open. */
import { fstatSync, readdirSync } from 'node:fs';
import { addressOf, call, libc, SOL_SOCKET } from '../../common/linux/libc.ts';

const SCM_RIGHTS = 1;

export function sendDescriptors(socketFd: number, data: Buffer, fds: readonly number[]): void {
  const iov = Buffer.alloc(16);
  iov.writeBigUInt64LE(addressOf(data), 0);
  iov.writeBigUInt64LE(BigInt(data.length), 8);
  const control = Buffer.alloc((16 + 4 * fds.length + 7) & ~7);
  control.writeBigUInt64LE(BigInt(16 + 4 * fds.length), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  fds.forEach((fd, i) => {
    control.writeInt32LE(fd, 16 + 4 * i);
  });
  const header = Buffer.alloc(56);
  header.writeBigUInt64LE(addressOf(iov), 16);
  header.writeBigUInt64LE(1n, 24);
  if (fds.length > 0) {
    header.writeBigUInt64LE(addressOf(control), 32);
    header.writeBigUInt64LE(BigInt(control.length), 40);
  }
  call('sendmsg', undefined, () => libc.sendmsg(socketFd, header, 0));
}

/** How many descriptors this process has open: equal before and after what must not leak. */
export function openDescriptors(): number {
  return readdirSync('/proc/self/fd').filter((fd) => isOpen(Number(fd))).length;
}

function isOpen(fd: number): boolean {
  try {
    fstatSync(fd);
    return true;
  } catch {
    // readdir's own descriptor is in the list and closed by now.
    return false;
  }
}
