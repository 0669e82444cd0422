/** Both ends of a socket as this tree writes addresses. */
import type { Socket } from 'node:net';
import { type IpAddress, parseIp, type SocketAddress } from './address.ts';

/** The address at the other end and our own, canonical; undefined where the connection is already gone. */
export function socketEnds(socket: Socket): { readonly remote: SocketAddress; readonly local: SocketAddress } | undefined {
  const remote = end(socket.remoteAddress, socket.remotePort);
  const local = end(socket.localAddress, socket.localPort);
  return remote && local ? { remote, local } : undefined;
}

function end(address: string | undefined, port: number | undefined): SocketAddress | undefined {
  const ip: IpAddress | undefined = address === undefined ? undefined : parseIp(address.replace(/%.*$/, ''));
  return ip !== undefined && port !== undefined ? { ip, port } : undefined;
}
