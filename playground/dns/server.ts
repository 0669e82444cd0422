/** The cluster's DNS server, UDP and TCP, at the playground's own address; Service kube-dns leads there. */
import dgram from 'node:dgram';
import net from 'node:net';
import packet from 'dns-packet';
import type { Log } from '../../common/base/log.ts';
import { CLUSTER_DOMAIN } from '../network/plan.ts';
import { type Answer, type DnsView, resolve } from './records.ts';

export interface DnsServerOptions {
  readonly addresses: readonly string[];
  readonly port: number;
  readonly view: DnsView;
  readonly log: Log;
}

const TTL_S = 5;
const PLAIN_UDP_BYTES = 512;
const MOST_UDP_BYTES = 4096;
const TCP_IDLE_MS = 10_000;
const MOST_TCP_CONNECTIONS = 256;

/** Resolves when it answers on all addresses. @returns how to stop */
export async function startDns({ addresses, port, view, log }: DnsServerOptions): Promise<() => void> {
  const closers: (() => void)[] = [];
  for (const address of addresses) {
    const udp = dgram.createSocket(address.includes(':') ? 'udp6' : 'udp4');
    udp.on('message', (message, from) => {
      const reply = answerTo(message, view, 'udp');
      if (reply) udp.send(reply, from.port, from.address);
    });
    udp.on('error', (error) => log.warn({ address, error: error.message }, 'DNS socket'));
    await new Promise<void>((resolve, reject) => {
      udp.once('error', reject);
      udp.bind(port, address, () => {
        udp.off('error', reject);
        resolve();
      });
    });
    const tcp = net.createServer((socket) => serveTcp(socket, view));
    tcp.maxConnections = MOST_TCP_CONNECTIONS;
    await new Promise<void>((resolve, reject) => tcp.once('error', reject).listen(port, address, resolve));
    closers.push(
      () => udp.close(),
      () => tcp.close(),
    );
  }
  return () => {
    for (const close of closers) close();
  };
}

/** @returns undefined for what is no query: nobody to answer */
export function answerTo(message: Buffer, view: DnsView, transport: 'udp' | 'tcp'): Buffer | undefined {
  let query: packet.DecodedPacket;
  try {
    query = packet.decode(message);
  } catch {
    // A malformed message may still carry an id to say FORMERR to.
    return message.length >= 12 && ((message[2] ?? 0) & 0x80) === 0 ? formatError(message) : undefined;
  }
  if (query.type !== 'query') return undefined;
  const [question] = query.questions ?? [];
  if (!question || query.questions?.length !== 1) return formatError(message);
  const { code, authoritative, answers, additionals } = resolve(question, view);
  const edns = query.additionals?.find((record) => record.type === 'OPT');
  const flags =
    (authoritative ? packet.AUTHORITATIVE_ANSWER : 0) | packet.RECURSION_AVAILABLE | ((query.flags ?? 0) & packet.RECURSION_DESIRED);
  const build = (some: readonly Answer[], more: readonly Answer[], extraFlags: number): Buffer =>
    packet.encode({
      id: query.id ?? 0,
      type: 'response',
      // dns-packet has no field for it when encoding: the low four bits are the response code.
      flags: flags | extraFlags | (code === 'NXDOMAIN' ? 3 : 0),
      questions: [question],
      answers: some.map(encodable),
      authorities: some.length === 0 && authoritative ? [startOfAuthority()] : [],
      additionals: [...more.map(encodable), ...(edns ? [optRecord()] : [])],
    });
  const whole = build(answers, additionals, 0);
  const room =
    transport === 'tcp'
      ? 65_535
      : Math.min(MOST_UDP_BYTES, Math.max(PLAIN_UDP_BYTES, edns && 'udpPayloadSize' in edns ? Number(edns.udpPayloadSize) : 0));
  if (whole.length <= room) return whole;
  const short = build(answers, [], 0);
  return short.length <= room ? short : build([], [], packet.TRUNCATED_RESPONSE);
}

function serveTcp(socket: net.Socket, view: DnsView): void {
  let pending: Buffer = Buffer.alloc(0);
  socket.setTimeout(TCP_IDLE_MS, () => socket.destroy());
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
      const length = pending.readUInt16BE(0);
      const reply = answerTo(pending.subarray(2, 2 + length), view, 'tcp');
      pending = pending.subarray(2 + length);
      if (!reply) return socket.destroy();
      const size = Buffer.alloc(2);
      size.writeUInt16BE(reply.length);
      socket.write(Buffer.concat([size, reply]));
    }
  });
}

const encodable = (answer: Answer): packet.Answer => ({ ...answer, ttl: TTL_S, class: 'IN' }) as packet.Answer;

const optRecord = (): packet.Answer => ({
  type: 'OPT',
  name: '.',
  udpPayloadSize: MOST_UDP_BYTES,
  extendedRcode: 0,
  ednsVersion: 0,
  flags: 0,
  flag_do: false,
  options: [],
});

const startOfAuthority = (): packet.Answer => ({
  type: 'SOA',
  name: CLUSTER_DOMAIN,
  ttl: TTL_S,
  class: 'IN',
  data: {
    mname: `ns.dns.${CLUSTER_DOMAIN}`,
    rname: `hostmaster.${CLUSTER_DOMAIN}`,
    serial: 1,
    refresh: 7200,
    retry: 1800,
    expire: 86_400,
    minimum: TTL_S,
  },
});

function formatError(message: Buffer): Buffer {
  const header = Buffer.alloc(12);
  message.copy(header, 0, 0, 2);
  header.writeUInt16BE(0x8001, 2);
  return header;
}
