/**
 * Asks the node's own nameservers what the mesh does not know: from marked sockets in the pod's namespace, the question unchanged but for
 * its id, the answer unchanged as well. A socket and a port of its own for each question, so that nobody guesses an answer in.
 */

import { randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { isIpv6, type SocketAddress } from '../../common/base/address.ts';
import { socketFromFd } from '../../common/linux/node.ts';
import { tcpSocket, udpSocket } from '../../common/linux/sockets.ts';
import type { PodContext } from '../worker/context.ts';
import { DnsFramer, framed } from './tcp-framing.ts';

const UDP_WAIT_MS = 2000;
const TCP_WAIT_MS = 5000;
const MAX_UNDER_WAY = 512;
const HEADER_BYTES = 12;

export class DnsForwarder {
  readonly #pod: PodContext;
  readonly #nameservers: readonly SocketAddress[];
  #underWay = 0;

  constructor(pod: PodContext, nameservers: readonly SocketAddress[]) {
    this.#pod = pod;
    this.#nameservers = nameservers;
  }

  /** The first answer of the nameservers, tried in their order. @throws {Error} where none answers, or too many questions are under way */
  async ask(query: Buffer, protocol: 'udp' | 'tcp'): Promise<Buffer> {
    if (this.#underWay >= MAX_UNDER_WAY) throw new Error(`${MAX_UNDER_WAY} questions are under way already`);
    this.#underWay++;
    let problem: unknown = new Error('no nameserver is configured');
    try {
      for (const nameserver of this.#nameservers) {
        try {
          return await (protocol === 'udp' ? this.#udp(query, nameserver) : this.#tcp(query, nameserver));
        } catch (error) {
          problem = error;
        }
      }
      throw problem;
    } finally {
      this.#underWay--;
    }
  }

  #udp(query: Buffer, to: SocketAddress): Promise<Buffer> {
    const family = isIpv6(to.ip) ? 6 : 4;
    const fd = udpSocket({ ...this.#placed(), address: family === 6 ? '::' : '0.0.0.0', port: 0 });
    const socket = createSocket({ type: family === 6 ? 'udp6' : 'udp4' });
    const asked = Buffer.from(query);
    asked.writeUInt16BE(randomInt(0x10000), 0);
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const timer = this.#pod.parts.clock.after(UDP_WAIT_MS, () =>
      reject(new Error(`no answer from ${to.ip} within ${UDP_WAIT_MS / 1000} s`)),
    );
    socket.on('error', reject);
    socket.on('message', (answer, from) => {
      if (from.port === to.port && from.address === to.ip && belongsTo(answer, asked)) resolve(withId(answer, query));
    });
    socket.bind({ fd }, () => socket.send(asked, to.port, to.ip));
    return promise.finally(() => {
      timer.cancel();
      socket.close();
    });
  }

  #tcp(query: Buffer, to: SocketAddress): Promise<Buffer> {
    const socket = socketFromFd(tcpSocket({ ...this.#placed(), family: isIpv6(to.ip) ? 6 : 4 }));
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    const timer = this.#pod.parts.clock.after(TCP_WAIT_MS, () =>
      reject(new Error(`no answer from ${to.ip} within ${TCP_WAIT_MS / 1000} s`)),
    );
    const framer = new DnsFramer((answer) => {
      if (belongsTo(answer, query)) resolve(answer);
    });
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${to.ip} closed the connection`)));
    socket.on('data', (chunk: Buffer) => framer.push(chunk));
    socket.connect({ host: to.ip, port: to.port }, () => socket.write(framed(query)));
    return promise.finally(() => {
      timer.cancel();
      socket.destroy();
    });
  }

  #placed() {
    const { netns, mark } = this.#pod;
    return { ...(netns ? { netns } : {}), ...(mark !== undefined ? { mark } : {}) };
  }
}

/** Same id, a response, and the same question byte for byte. */
function belongsTo(answer: Buffer, query: Buffer): boolean {
  if (answer.length < HEADER_BYTES || answer.readUInt16BE(0) !== query.readUInt16BE(0) || (answer.readUInt16BE(2) & 0x8000) === 0)
    return false;
  // Servers that refuse a message may leave the question out.
  if (answer.readUInt16BE(4) === 0) return true;
  const end = questionEnd(query);
  return (
    end !== undefined &&
    query.subarray(HEADER_BYTES, end).toString('latin1').toLowerCase() ===
      answer.subarray(HEADER_BYTES, end).toString('latin1').toLowerCase()
  );
}

function questionEnd(query: Buffer): number | undefined {
  let at = HEADER_BYTES;
  for (let length = query[at]; length !== undefined && length !== 0; length = query[at]) at += length + 1;
  const end = at + 5;
  return end <= query.length ? end : undefined;
}

function withId(answer: Buffer, query: Buffer): Buffer {
  const copy = Buffer.from(answer);
  copy.writeUInt16BE(query.readUInt16BE(0), 0);
  return copy;
}
