/** Who is at the other end of a unix socket: the kernel's word, not the peer's. */
import { call, libc, SO_PEERCRED, SOL_SOCKET } from './libc.ts';

/** Process at the other end, as the kernel noted it when the connection was made. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** @param fd of a connected unix socket, of any type; stays the caller's. @throws {LinuxError} */
export function peerCredentials(fd: number): PeerCredentials {
  const credentials = Buffer.alloc(12);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(credentials.length);
  call('getsockopt', 'SO_PEERCRED', () => libc.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length));
  return { pid: credentials.readInt32LE(0), uid: credentials.readUInt32LE(4), gid: credentials.readUInt32LE(8) };
}
