/**
 * Addresses as canonical text. A connection looks its addresses up a handful of times, so text that compares with `===` and prints as
 * it is beats bytes that must be converted for every log line; IPv4-mapped IPv6 is always unwrapped, so one address has one spelling.
 */
import { isIPv6 } from 'node:net';

/** Canonical text of an address: dotted quad, or IPv6 as RFC 5952 writes it; never IPv4-mapped. */
export type IpAddress = string;

export interface SocketAddress {
  readonly ip: IpAddress;
  readonly port: number;
}

export interface Cidr {
  /** 4 or 16 bytes, host bits cleared. */
  readonly bytes: Uint8Array;
  readonly length: number;
}

export const isIpv6 = (ip: IpAddress): boolean => ip.includes(':');

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function formatSocketAddress({ ip, port }: SocketAddress): string {
  return isIpv6(ip) ? `[${ip}]:${port}` : `${ip}:${port}`;
}

/** @returns undefined where the text is no `ip:port` or `[ip]:port`. */
export function parseSocketAddress(text: string): SocketAddress | undefined {
  if (text !== last.text) last = { text, address: readSocketAddress(text) };
  return last.address;
}

/** The next text is the same one more often than not: a tunnel's peer asks for the same application (bench ztunnel, new connections). */
let last: { readonly text: string; readonly address: SocketAddress | undefined } = { text: '', address: undefined };

function readSocketAddress(text: string): SocketAddress | undefined {
  const colon = text.lastIndexOf(':');
  if (colon < 1) return undefined;
  const port = parsePort(text.slice(colon + 1));
  let host = text.slice(0, colon);
  const bracketed = host.startsWith('[') && host.endsWith(']');
  if (bracketed) host = host.slice(1, -1);
  const ip = parseIp(host);
  if (port === undefined || ip === undefined || (isIpv6(host) && !bracketed)) return undefined;
  return { ip, port };
}

/** @returns undefined unless the text is decimal digits within 0..65535. */
export function parsePort(text: string): number | undefined {
  if (!/^\d{1,5}$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65535 ? port : undefined;
}

/** Canonical form of an address that somebody wrote; undefined where it is none (zone ids are none). */
export function parseIp(text: string): IpAddress | undefined {
  if (isIpv4Text(text)) return text;
  const bytes = ipBytes(text);
  return bytes && ipFromBytes(bytes);
}

/**
 * Whether the text is a dotted quad, as `node:net`'s isIPv4 says, which asks a regular expression: every connection asks this several times
 * (bench ztunnel, new connections).
 */
export function isIpv4Text(text: string): boolean {
  const { length } = text;
  if (length < 7 || length > 15) return false;
  let dots = 0;
  let digits = 0;
  let value = 0;
  for (let at = 0; at < length; at++) {
    const unit = text.charCodeAt(at);
    if (unit === DOT) {
      if (digits === 0 || ++dots > 3) return false;
      digits = 0;
      value = 0;
      continue;
    }
    if (unit < ZERO || unit > NINE || (digits > 0 && value === 0)) return false;
    value = value * 10 + unit - ZERO;
    digits++;
    if (value > 255) return false;
  }
  return dots === 3 && digits > 0;
}

const DOT = 0x2e;
const ZERO = 0x30;
const NINE = 0x39;

function ipv4Bytes(text: string): Uint8Array {
  const bytes = new Uint8Array(4);
  let at = 0;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit === DOT) at++;
    else bytes[at] = (bytes[at] ?? 0) * 10 + unit - ZERO;
  }
  return bytes;
}

/** 4 or 16 bytes in network order (4 for IPv4-mapped IPv6), or undefined. */
export function ipBytes(text: string): Uint8Array | undefined {
  if (isIpv4Text(text)) return ipv4Bytes(text);
  if (!isIPv6(text) || text.includes('%')) return undefined;
  const bytes = new Uint8Array(16);
  const [head = '', tail] = text.split('::');
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  left.forEach((byte, i) => {
    bytes[i] = byte;
  });
  right.forEach((byte, i) => {
    bytes[16 - right.length + i] = byte;
  });
  return isMapped(bytes) ? bytes.subarray(12) : bytes;
}

/** Canonical text of 4 or 16 bytes; undefined for any other length. */
export function ipFromBytes(bytes: Uint8Array): IpAddress | undefined {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  if (bytes.length !== 16) return undefined;
  if (isMapped(bytes)) return bytes.subarray(12).join('.');
  const words: number[] = [];
  for (let i = 0; i < 16; i += 2) words.push(((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0));
  const zeros = longestZeroRun(words);
  const hex = words.map((word) => word.toString(16));
  if (zeros.length < 2) return hex.join(':');
  return `${hex.slice(0, zeros.start).join(':')}::${hex.slice(zeros.start + zeros.length).join(':')}`;
}

/** `10.0.0.0/8`, or an address alone for its full width. Host bits are cleared. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/');
  const bytes = ipBytes(slash < 0 ? text : text.slice(0, slash));
  if (!bytes) return undefined;
  const width = bytes.length * 8;
  if (slash < 0) return { bytes, length: width };
  const suffix = text.slice(slash + 1);
  const length = /^\d{1,3}$/.test(suffix) ? Number(suffix) : -1;
  if (length < 0 || length > width) return undefined;
  return { bytes: maskBytes(bytes, length), length };
}

export function formatCidr({ bytes, length }: Cidr): string {
  return `${ipFromBytes(bytes)}/${length}`;
}

/** Whether the first `cidr.length` bits agree; false where the families differ. */
export function cidrContains(cidr: Cidr, address: Uint8Array): boolean {
  if (cidr.bytes.length !== address.length) return false;
  const whole = cidr.length >> 3;
  for (let i = 0; i < whole; i++) if (cidr.bytes[i] !== address[i]) return false;
  const rest = cidr.length & 7;
  if (rest === 0) return true;
  const mask = 0xff << (8 - rest);
  return (((cidr.bytes[whole] ?? 0) ^ (address[whole] ?? 0)) & mask & 0xff) === 0;
}

/** A copy with every bit after the first `length` cleared. */
export function maskBytes(bytes: Uint8Array, length: number): Uint8Array {
  return bytes.map((byte, i) => {
    const bits = Math.min(8, Math.max(0, length - i * 8));
    return byte & (0xff << (8 - bits));
  });
}

const isMapped = (bytes: Uint8Array): boolean => bytes[10] === 0xff && bytes[11] === 0xff && bytes.subarray(0, 10).every((b) => b === 0);

function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((group) => {
    if (group.includes('.')) return group.split('.').map(Number);
    const word = Number.parseInt(group, 16);
    return [word >> 8, word & 0xff];
  });
}

function longestZeroRun(words: number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  for (let i = 0; i < words.length; i++) {
    let length = 0;
    while (words[i + length] === 0) length++;
    if (length > best.length) best = { start: i, length };
    i += length;
  }
  return best;
}
