/** struct sockaddr_in, sockaddr_in6 and sockaddr_un as bytes, and back. */
import { type IpAddress, ipBytes, ipFromBytes, type SocketAddress } from '../base/address.ts';
import { AF_INET, AF_INET6, AF_UNIX } from './libc.ts';

const SUN_PATH_BYTES = 108;

/**
 * @param family 6 writes an IPv4 address as IPv4-mapped, for sockets of family AF_INET6
 * @throws {RangeError} where the text is no address, or an IPv6 address is wanted for an IPv4 socket
 */
export function encodeSocketAddress(ip: IpAddress, port: number, family: 4 | 6): Buffer {
  const bytes = ipBytes(ip);
  if (!bytes) throw new RangeError(`not an IP address: ${JSON.stringify(ip)}`);
  if (family === 4) {
    if (bytes.length !== 4) throw new RangeError(`${ip} is IPv6, the socket is IPv4`);
    const sockaddr = Buffer.alloc(16);
    sockaddr.writeUInt16LE(AF_INET, 0);
    sockaddr.writeUInt16BE(port, 2);
    sockaddr.set(bytes, 4);
    return sockaddr;
  }
  const sockaddr = Buffer.alloc(28);
  sockaddr.writeUInt16LE(AF_INET6, 0);
  sockaddr.writeUInt16BE(port, 2);
  if (bytes.length === 4) sockaddr.writeUInt16BE(0xffff, 18);
  sockaddr.set(bytes, 24 - bytes.length);
  return sockaddr;
}

/** @param length of the address, which may lie in a larger buffer @returns undefined where the bytes are no sockaddr_in or sockaddr_in6 */
export function decodeSocketAddress(sockaddr: Buffer, length = sockaddr.length): SocketAddress | undefined {
  if (length < 16) return undefined;
  const family = sockaddr.readUInt16LE(0);
  const port = sockaddr.readUInt16BE(2);
  // No view of the four bytes: each connection has addresses (bench ztunnel, new connections).
  if (family === AF_INET) return { ip: dotted(sockaddr, 4), port };
  if (family !== AF_INET6 || length < 24) return undefined;
  // IPv4 on a dual-stack socket.
  if (sockaddr.readUInt32BE(16) === 0xffff && sockaddr.readUInt32LE(8) === 0 && sockaddr.readUInt32LE(12) === 0)
    return { ip: dotted(sockaddr, 20), port };
  const ip = ipFromBytes(sockaddr.subarray(8, 24));
  return ip === undefined ? undefined : { ip, port };
}

const dotted = (bytes: Buffer, at: number): IpAddress => `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`;

/** @throws {RangeError} where the path does not fit into the kernel's 108 bytes */
export function encodeUnixAddress(path: string): Buffer {
  const name = Buffer.from(path);
  if (name.length === 0 || name.length >= SUN_PATH_BYTES || name.includes(0)) {
    throw new RangeError(`a unix socket's path has 1 to ${SUN_PATH_BYTES - 1} bytes, this one ${name.length}: ${path}`);
  }
  const sockaddr = Buffer.alloc(2 + SUN_PATH_BYTES);
  sockaddr.writeUInt16LE(AF_UNIX, 0);
  name.copy(sockaddr, 2);
  return sockaddr;
}
