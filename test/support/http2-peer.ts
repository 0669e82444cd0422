/** A peer of our HTTP/2 connection, either side, whose frames are written by hand. */
import { FrameDecoder } from '../../common/codec/http2/frame-decoder.ts';
import { CONNECTION_PREFACE, Flag, FrameType, frame, headerFrames, settingsFrame } from '../../common/codec/http2/frames.ts';
import { HpackDecoder } from '../../common/codec/http2/hpack-decoder.ts';
import { HpackEncoder } from '../../common/codec/http2/hpack-encoder.ts';
import { connectHttp2 } from '../../common/http/http2-client.ts';
import { serveHttp2 } from '../../common/http/http2-server.ts';
import type { HttpLimits, ServerExchange } from '../../common/http/types.ts';
import { FrameRecorder, generousDecoder } from './frame-recorder.ts';
import { connected, served } from './http-ends.ts';
import type { MemoryPipe } from './http-pipes.ts';
import { settle } from './tunnels.ts';

export type Field = [string, string];
export const GET: Field[] = [
  [':method', 'GET'],
  [':scheme', 'http'],
  [':authority', 'a'],
  [':path', '/'],
];
export const POST: Field[] = [[':method', 'POST'], ...GET.slice(1)];

/** Header blocks that we send are decoded. */
export class Http2Peer {
  readonly #pipe: MemoryPipe;
  readonly #recorder = new FrameRecorder();
  readonly #decoder: FrameDecoder;
  readonly #hpack = new HpackDecoder(1 << 20);
  readonly #encoder = new HpackEncoder();
  #seen = 0;

  constructor(pipe: MemoryPipe, side: 'client' | 'server') {
    this.#pipe = pipe;
    this.#recorder.headers = (id, block, end) => {
      const fields = this.#hpack.decode(block).fields.map(([name, value]) => `${name}=${value}`);
      this.#recorder.events.push(`headers ${id}: ${fields.join(' ')}${end ? ' end' : ''}`);
    };
    this.#decoder = new FrameDecoder({ ...generousDecoder, expectPreface: side === 'server' }, this.#recorder);
    if (side === 'client') pipe.feed(CONNECTION_PREFACE);
  }

  async greet(entries: [number, number][] = []): Promise<void> {
    this.#pipe.feed(settingsFrame(entries));
    await this.take();
  }

  headers(id: number, fields: readonly Field[], end: boolean): Buffer {
    return Buffer.from(headerFrames(id, this.#encoder.encode(fields), end, 16384));
  }

  async send(...frames: Buffer[]): Promise<string[]> {
    this.#pipe.feed(Buffer.concat(frames));
    return this.take();
  }

  /** What came since the last call, without what every connection says. */
  async take(): Promise<string[]> {
    await settle(3);
    const bytes = Buffer.concat(this.#pipe.output.splice(0));
    this.#decoder.push(bytes);
    const events = this.#recorder.events.slice(this.#seen);
    this.#seen = this.#recorder.events.length;
    return events.filter((event) => !/^settings|^window 0 /.test(event));
  }
}

export const data = (id: number, text: string | Buffer, end = false): Buffer =>
  frame(FrameType.DATA, end ? Flag.END_STREAM : 0, id, Buffer.from(text));

/** Our server, greeted by a client. */
export async function servedPeer(
  onExchange: (exchange: ServerExchange) => void = () => {},
  limits: Partial<HttpLimits> = {},
  settings: [number, number][] = [],
) {
  const server = served(serveHttp2, onExchange, limits);
  const peer = new Http2Peer(server.pipe, 'client');
  await settle(1);
  await peer.greet(settings);
  return { ...server, peer };
}

/** Our client, greeted by a server. */
export async function connectedPeer(settings: [number, number][] = [], limits: Partial<HttpLimits> = {}) {
  const client = connected(connectHttp2, limits);
  const peer = new Http2Peer(client.pipe, 'server');
  await settle(1);
  await peer.greet(settings);
  return { ...client, peer };
}
