/** What passes on a node's network card while something happens, by tcpdump in the node's namespaces. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { TestNode } from './playground.ts';

export interface Packet {
  readonly from: number;
  readonly to: number;
  readonly payload: Buffer;
}

const HBONE_PORT = 15008;
const APPLICATION_DATA = 0x17;
const FLUSH_MS = 1000;
const ETHERNET_BYTES = 14;
const TCP = 6;

/** @returns the TCP packets over IPv4, by port, in order */
export async function onTheWire(node: TestNode, during: () => Promise<unknown>): Promise<Packet[]> {
  const tcpdump = node.spawn('tcpdump', '-ni', 'eth0', '-s0', '--immediate-mode', '-U', '-w', '-', 'ip and tcp');
  const chunks: Buffer[] = [];
  tcpdump.stdout?.on('data', (chunk: Buffer) => chunks.push(chunk));
  await new Promise<void>((resolve, reject) => {
    let said = '';
    tcpdump.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('listening on')) resolve();
    });
    tcpdump.once('close', () => reject(new Error(`tcpdump ended: ${said}`)));
  });
  await during();
  await sleep(FLUSH_MS);
  const ended = new Promise<void>((resolve) => tcpdump.once('close', () => resolve()));
  tcpdump.kill('SIGINT');
  await ended;
  return packets(Buffer.concat(chunks));
}

/** Whether bytes of TLS application data went to or came from port 15008. */
export const hasTunnel = (seen: readonly Packet[]): boolean =>
  seen.some(({ from, to, payload }) => (from === HBONE_PORT || to === HBONE_PORT) && payload[0] === APPLICATION_DATA && payload[1] === 3);

export const hasText = (seen: readonly Packet[], text: string): boolean => seen.some(({ payload }) => payload.includes(text));

/** A pcap file of Ethernet frames (pcap-savefile(5)), little-endian. */
function packets(file: Buffer): Packet[] {
  const found: Packet[] = [];
  for (let at = 24; at + 16 <= file.length; ) {
    const length = file.readUInt32LE(at + 8);
    const frame = file.subarray(at + 16, at + 16 + length);
    at += 16 + length;
    const ip = frame.subarray(ETHERNET_BYTES);
    if (ip.length < 40 || ip.readUInt8(9) !== TCP) continue;
    const tcp = ip.subarray((ip.readUInt8(0) & 0x0f) * 4, ip.readUInt16BE(2));
    if (tcp.length < 20) continue;
    found.push({ from: tcp.readUInt16BE(0), to: tcp.readUInt16BE(2), payload: tcp.subarray((tcp.readUInt8(12) >> 4) * 4) });
  }
  return found;
}
