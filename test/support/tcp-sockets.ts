/** Sockets of a pod as the kernel lists them, for tests that name only what they care about. */
import type { TcpSocket } from '../../common/linux/tcp-diag.ts';

interface Fields {
  readonly state?: number;
  /** `address:port`, or a port of 10.0.0.1. */
  readonly local?: string | number;
  /** `address:port`, or a port of 10.9.9.9. */
  readonly remote?: string | number;
  readonly mark?: number;
  readonly inode?: number;
}

/** An established connection; its cookie is its ends. */
export function tcpSocket({ state = 1, local = 8080, remote = 50_000, mark = 0, inode = 7 }: Fields): TcpSocket {
  const [from, to] = [endOf(local, '10.0.0.1'), endOf(remote, '10.9.9.9')];
  const cookie = `${from.ip}:${from.port} ${to.ip}:${to.port}`;
  return { family: from.ip.includes(':') ? 6 : 4, state, local: from, remote: to, mark, cookie, inode, id: Buffer.alloc(48) };
}

function endOf(end: string | number, ip: string): { ip: string; port: number } {
  if (typeof end === 'number') return { ip, port: end };
  const colon = end.lastIndexOf(':');
  return { ip: end.slice(0, colon), port: Number(end.slice(colon + 1)) };
}
