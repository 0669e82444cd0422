/**
 * SOCKS 5 as far as a client's CONNECT needs it (RFC 1928): no authentication, one destination by address or by name. Bytes in, and what to
 * do about them out; no socket.
 */
import { ipFromBytes } from '../../common/base/address.ts';

export interface SocksTarget {
  /** An address, or a hostname that is still to be resolved. */
  readonly host: { readonly ip: string } | { readonly name: string };
  readonly port: number;
}

export type SocksStep =
  | { readonly next: 'more' }
  /** The greeting was understood: say so, drop its bytes, and go on with the request. */
  | { readonly next: 'request'; readonly used: number }
  | { readonly next: 'connect'; readonly used: number; readonly target: SocksTarget }
  | { readonly next: 'refuse'; readonly answer: Buffer; readonly reason: string };

/** RFC 1928, section 6. */
export const socksReplies = { SUCCEEDED: 0, FAILED: 1, HOST_UNREACHABLE: 4, COMMAND_NOT_SUPPORTED: 7, ADDRESS_NOT_SUPPORTED: 8 } as const;

const VERSION = 5;
const NO_AUTHENTICATION = 0;
const CONNECT = 1;
const IPV4 = 1;
const NAME = 3;
const IPV6 = 4;

export const METHOD_CHOSEN = Buffer.from([VERSION, NO_AUTHENTICATION]);
const NO_METHOD = Buffer.from([VERSION, 0xff]);

/** What answers a request; the address that we are bound to is nobody's business, so it is 0.0.0.0:0. */
export const socksAnswer = (reply: (typeof socksReplies)[keyof typeof socksReplies]): Buffer =>
  Buffer.from([VERSION, reply, 0, IPV4, 0, 0, 0, 0, 0, 0]);

/** @param bytes all that came so far */
export function readGreeting(bytes: Buffer): SocksStep {
  const [version, methods] = bytes;
  if (version === undefined) return MORE;
  if (version !== VERSION) return { next: 'refuse', answer: NO_METHOD, reason: `version ${version} is not SOCKS 5` };
  if (methods === undefined || bytes.length < 2 + methods) return MORE;
  if (bytes.subarray(2, 2 + methods).includes(NO_AUTHENTICATION)) return { next: 'request', used: 2 + methods };
  return { next: 'refuse', answer: NO_METHOD, reason: 'the client offers no method but those with authentication' };
}

/** @param bytes all that came after the greeting */
export function readRequest(bytes: Buffer): SocksStep {
  const [version, command, , form, length = 0] = bytes;
  if (version !== undefined && version !== VERSION) return refusal('FAILED', `version ${version} is not SOCKS 5`);
  if (command !== undefined && command !== CONNECT) return refusal('COMMAND_NOT_SUPPORTED', `command ${command} is not CONNECT`);
  if (form === undefined) return MORE;
  const [start, end] = form === IPV4 ? [4, 8] : form === IPV6 ? [4, 20] : form === NAME ? [5, 5 + length] : [0, 0];
  if (end === 0) return refusal('ADDRESS_NOT_SUPPORTED', `unknown form of address ${form}`);
  if (bytes.length < 5 || bytes.length < end + 2) return MORE;
  const host = form === NAME ? nameOf(bytes.subarray(start, end)) : { ip: ipFromBytes(bytes.subarray(start, end)) ?? '' };
  if (!host) return refusal('FAILED', 'the hostname is none');
  return { next: 'connect', used: end + 2, target: { host, port: bytes.readUInt16BE(end) } };
}

const MORE: SocksStep = { next: 'more' };

const refusal = (reply: keyof typeof socksReplies, reason: string): SocksStep => ({
  next: 'refuse',
  answer: socksAnswer(socksReplies[reply]),
  reason,
});

function nameOf(bytes: Buffer): { name: string } | undefined {
  const name = bytes.toString('latin1');
  return /^[\w.-]+$/.test(name) ? { name } : undefined;
}
