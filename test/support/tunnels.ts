/** Tunnels for tests: both ends over a pair of streams in memory, our end against bytes written by hand, and applications' sockets. */
import { once } from 'node:events';
import net from 'node:net';
import { Duplex } from 'node:stream';
import type { TestContext } from 'node:test';
import type { ProxyError } from '../../common/base/errors.ts';
import { FrameDecoder } from '../../common/codec/http2/frame-decoder.ts';
import { CONNECTION_PREFACE, settingsFrame } from '../../common/codec/http2/frames.ts';
import { AppSocket } from '../../common/hbone/app-socket.ts';
import { HboneClient } from '../../common/hbone/client.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import {
  type ConnectRequest,
  defaultClientLimits,
  defaultServerLimits,
  type HboneLimits,
  type StreamPipe,
} from '../../common/hbone/types.ts';
import { FakeClock } from './fake-clock.ts';
import { FrameRecorder, generousDecoder } from './frame-recorder.ts';

export interface TunnelPair {
  readonly client: HboneClient;
  readonly server: HboneServerConnection;
  readonly clock: FakeClock;
  /** Requests that the test has not answered; only with `answer: 'later'`. */
  readonly requests: ConnectRequest[];
  /** The server's ends of accepted tunnels. */
  readonly accepted: StreamPipe[];
  /** How each side's connection ended: undefined while it is open. */
  readonly ended: { client?: { error: ProxyError | undefined }; server?: { error: ProxyError | undefined } };
  /** One tunnel, both ends. */
  open(authority?: string): Promise<{ near: StreamPipe; far: StreamPipe }>;
}

export interface TunnelPairOptions {
  readonly clientLimits?: Partial<HboneLimits>;
  readonly serverLimits?: Partial<HboneLimits>;
  readonly maxStreams?: number;
  /** `at once` accepts every request. */
  readonly answer?: 'at once' | 'later';
  onConnect?(request: ConnectRequest): void;
}

export function tunnelPair(options: TunnelPairOptions = {}): TunnelPair {
  const [near, far] = memoryPair();
  const clock = new FakeClock();
  const requests: ConnectRequest[] = [];
  const accepted: StreamPipe[] = [];
  const ended: TunnelPair['ended'] = {};
  const client = new HboneClient(near, {
    clock,
    limits: { ...defaultClientLimits, ...options.clientLimits },
    ...(options.maxStreams === undefined ? {} : { maxStreams: options.maxStreams }),
    onClose: (error) => {
      ended.client = { error };
    },
  });
  const server = new HboneServerConnection(far, {
    clock,
    limits: { ...defaultServerLimits, ...options.serverLimits },
    onConnect: (request) => {
      if (options.onConnect) options.onConnect(request);
      else if (options.answer === 'later') requests.push(request);
      else accepted.push(request.accept([]));
    },
    onClose: (error) => {
      ended.server = { error };
    },
  });
  const open = async (authority = '10.0.0.1:80') => {
    const pipe = await client.connect({ authority, headers: [] });
    const other = accepted.shift();
    if (!other) throw new Error('no tunnel was accepted');
    return { near: pipe, far: other };
  };
  return { client, server, clock, requests, accepted, ended, open };
}

/** A peer whose frames are written by hand; what our end answers is written down. */
export class RawPeer {
  readonly recorder = new FrameRecorder();
  readonly #socket: Duplex;
  closed = false;

  constructor(socket: Duplex, side: 'client' | 'server') {
    this.#socket = socket;
    const decoder = new FrameDecoder({ ...generousDecoder, expectPreface: side === 'server' }, this.recorder);
    socket.on('data', (chunk: Buffer) => decoder.push(chunk));
    socket.on('end', () => {
      this.closed = true;
      socket.end();
    });
    socket.on('error', () => {});
    if (side === 'client') socket.write(CONNECTION_PREFACE);
    socket.write(settingsFrame([]));
  }

  /** Writes bytes, and lets our end answer. */
  async send(...frames: Buffer[]): Promise<void> {
    this.#socket.write(Buffer.concat(frames));
    await settle();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Events since the last call. */
  take(): string[] {
    return this.recorder.events.splice(0);
  }
}

/** Lets everything happen that is under way in memory. */
export async function settle(turns = 12): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** An application's connection: its own end, and ours. */
export async function appPair(t: TestContext): Promise<{ app: net.Socket; socket: AppSocket }> {
  const server = net.createServer({ pauseOnConnect: true });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection');
  const app = net.connect({ port: portOf(server), host: '127.0.0.1', allowHalfOpen: true });
  await once(app, 'connect');
  const [socket] = await accepted;
  server.close();
  const ours = AppSocket.accepted(socket);
  t.after(() => {
    app.destroy();
    ours.destroy();
  });
  return { app, socket: ours };
}

export function portOf(server: net.Server): number {
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server does not listen on a port');
  return address.port;
}

/** Everything that a stream says until its end. It is left open: its other direction may go on. */
export function readAll(stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => resolve(Buffer.concat(chunks)));
    stream.on('error', reject);
  });
}

/** Two ends of a connection in memory. Like a socket's, its bytes are copied when they are written: the writer may use its buffer again. */
export function memoryPair(): [Duplex, Duplex] {
  const near = new MemoryEnd();
  const far = new MemoryEnd();
  near.other = far;
  far.other = near;
  return [near, far];
}

class MemoryEnd extends Duplex {
  other: MemoryEnd | undefined;
  #waiting: (() => void) | undefined;

  constructor() {
    super({ allowHalfOpen: false, highWaterMark: 64 << 10 });
  }

  override _read(): void {
    const waiting = this.other?.takeWaiting();
    if (waiting) process.nextTick(waiting);
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const copy = Buffer.from(chunk);
    // Later, as a network would: whoever writes is never answered before it has finished.
    process.nextTick(() => {
      if (this.other?.destroyed !== false || this.other.push(copy)) done();
      else this.#waiting = done;
    });
  }

  override _writev(chunks: { chunk: Buffer; encoding: BufferEncoding }[], done: () => void): void {
    this._write(Buffer.concat(chunks.map(({ chunk }) => chunk)), 'latin1', done);
  }

  override _final(done: () => void): void {
    this.other?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { other } = this;
    if (other && !other.readableEnded) setImmediate(() => other.destroyed || other.push(null));
    done(error);
  }

  takeWaiting(): (() => void) | undefined {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    return waiting;
  }
}
/** Bytes in which every position is recognizable. */
export function pattern(length: number, seed = 0): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = seed * 2654435761 + 1;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}
