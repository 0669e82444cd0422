/** DNS messages as far as this proxy makes or judges them (RFC 1035, section 4; EDNS: RFC 6891). What is forwarded goes through unread. */
import {
  type Answer,
  AUTHORITATIVE_ANSWER,
  decode,
  encode,
  type Packet,
  type Question,
  RECURSION_AVAILABLE,
  RECURSION_DESIRED,
  TRUNCATED_RESPONSE,
} from 'dns-packet';
import type { IpAddress } from '../../common/base/address.ts';

export const RCODES = { NOERROR: 0, FORMERR: 1, SERVFAIL: 2, NXDOMAIN: 3, NOTIMP: 4 } as const;
export type Rcode = keyof typeof RCODES;

/** A question that can be answered. */
export interface DnsQuery {
  readonly id: number;
  /** As it was asked, without the final dot. */
  readonly name: string;
  readonly type: string;
  readonly raw: Buffer;
  /** Bytes that a UDP answer may have. */
  readonly maxUdpBytes: number;
  readonly packet: Packet;
}

export interface DnsAnswer {
  readonly rcode: Rcode;
  readonly authoritative: boolean;
  /** Address records' owner, where the requested name is an alias of it. */
  readonly alias?: string | undefined;
  readonly addresses?: readonly IpAddress[];
}

/** Seconds for which the mesh's own answers hold. */
const TTL_S = 30;
const HEADER_BYTES = 12;
const MIN_UDP_BYTES = 512;
/** Most resolvers and paths take no more without fragments (DNS flag day 2020). */
const OWN_UDP_BYTES = 1232;
const OPCODE_MASK = 0x7800;
const RESPONSE_FLAG = 0x8000;

/**
 * @returns the query; or what to answer where it is none that we take: FORMERR for a broken message or a response, NOTIMP for another
 *   operation than QUERY; undefined for bytes that cannot even be answered
 */
export function parseQuery(raw: Buffer): { readonly query: DnsQuery } | { readonly refusal: Buffer } | undefined {
  if (raw.length < HEADER_BYTES) return undefined;
  const id = raw.readUInt16BE(0);
  const flags = raw.readUInt16BE(2);
  if ((flags & RESPONSE_FLAG) !== 0) return { refusal: bare(id, flags, 'FORMERR') };
  if ((flags & OPCODE_MASK) !== 0) return { refusal: bare(id, flags, 'NOTIMP') };
  let packet: Packet;
  try {
    packet = decode(raw);
  } catch {
    // The library throws for whatever is wrong; the asker learns as much as it can use.
    return { refusal: bare(id, flags, 'FORMERR') };
  }
  const [question, ...more] = packet.questions ?? [];
  if (!question || more.length > 0) return { refusal: bare(id, flags, 'FORMERR') };
  const edns = packet.additionals?.find((record) => record.type === 'OPT');
  const asked = edns?.type === 'OPT' ? edns.udpPayloadSize : MIN_UDP_BYTES;
  return { query: { id, name: question.name, type: question.type, raw, maxUdpBytes: Math.max(MIN_UDP_BYTES, asked), packet } };
}

/** The whole answer; over UDP it may have to be cut (`fitUdp`). */
export function encodeAnswer({ id, name, type, packet }: DnsQuery, { rcode, authoritative, alias, addresses = [] }: DnsAnswer): Buffer {
  const answers: Answer[] = [];
  if (alias !== undefined) answers.push({ type: 'CNAME', name, ttl: TTL_S, class: 'IN', data: alias });
  const family = type === 'AAAA' ? 'AAAA' : 'A';
  for (const address of addresses) answers.push({ type: family, name: alias ?? name, ttl: TTL_S, class: 'IN', data: address });
  return encode({
    type: 'response',
    id,
    flags: RECURSION_AVAILABLE | ((packet.flags ?? 0) & RECURSION_DESIRED) | (authoritative ? AUTHORITATIVE_ANSWER : 0) | RCODES[rcode],
    questions: packet.questions as Question[],
    answers,
    additionals: edns(packet),
  });
}

/** The answer, or where it is too long for UDP, one without records that tells the asker to come back over TCP. */
export function fitUdp(query: DnsQuery, answer: Buffer): Buffer {
  if (answer.length <= Math.min(query.maxUdpBytes, Math.max(OWN_UDP_BYTES, MIN_UDP_BYTES))) return answer;
  return encode({
    type: 'response',
    id: query.id,
    flags: (answer.readUInt16BE(2) & 0x7fff) | TRUNCATED_RESPONSE,
    questions: query.packet.questions as Question[],
    additionals: edns(query.packet),
  });
}

/** EDNS is answered with EDNS, the DO bit as it came. */
function edns(packet: Packet): Answer[] {
  const asked = packet.additionals?.find((record) => record.type === 'OPT');
  if (asked?.type !== 'OPT') return [];
  const flags = asked.flag_do ? 0x8000 : 0;
  return [
    { type: 'OPT', name: '.', udpPayloadSize: OWN_UDP_BYTES, extendedRcode: 0, ednsVersion: 0, flags, flag_do: asked.flag_do, options: [] },
  ];
}

function bare(id: number, flags: number, rcode: Rcode): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.writeUInt16BE(id, 0);
  bytes.writeUInt16BE(RESPONSE_FLAG | (flags & (OPCODE_MASK | RECURSION_DESIRED)) | RCODES[rcode], 2);
  return bytes;
}
