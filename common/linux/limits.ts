/** The number of descriptors that this process may open: a proxy needs two for each connection, and the usual soft limit is 1024. */
import { call, libc, RLIMIT_NOFILE } from './libc.ts';

/** Raises the soft limit of open files to the hard one. @returns the limit that holds now (at most 2^53) */
export function raiseOpenFileLimit(): number {
  const limit = Buffer.alloc(16);
  call('getrlimit', 'RLIMIT_NOFILE', () => libc.getrlimit(RLIMIT_NOFILE, limit));
  const hard = limit.readBigUInt64LE(8);
  if (limit.readBigUInt64LE(0) < hard) {
    limit.writeBigUInt64LE(hard, 0);
    call('setrlimit', 'RLIMIT_NOFILE', () => libc.setrlimit(RLIMIT_NOFILE, limit));
  }
  return Number(hard);
}
