/** Kubernetes' channel protocol over a WebSocket: the first byte of each message says which stream it belongs to. */
import { PassThrough, Writable } from 'node:stream';
import type { WebSocket } from 'ws';

const CLOSE_CHANNEL = 255;
const MAX_BEHIND_BYTES = 4 << 20;

export class WebSocketChannels {
  readonly #socket: WebSocket;
  readonly #readers = new Map<number, PassThrough>();

  constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data, isBinary) => {
      const bytes = Array.isArray(data) ? Buffer.concat(data) : Buffer.from(data as Buffer);
      // Text messages of base64 protocols are not offered; a text message is a channel in ASCII otherwise.
      if (!isBinary || bytes.length === 0) return;
      const channel = bytes[0] ?? 0;
      if (channel === CLOSE_CHANNEL) {
        this.#readers.get(bytes[1] ?? 0)?.end();
        return;
      }
      const reader = this.#readers.get(channel);
      if (!reader || reader.writableEnded) return;
      if (!reader.write(bytes.subarray(1))) {
        socket.pause();
        reader.once('drain', () => socket.resume());
      }
    });
    socket.on('close', () => {
      for (const reader of this.#readers.values()) reader.end();
    });
    socket.on('error', () => socket.terminate());
  }

  reader(channel: number): PassThrough {
    const reader = new PassThrough();
    this.#readers.set(channel, reader);
    return reader;
  }

  writer(channel: number): Writable {
    const socket = this.#socket;
    return new Writable({
      write(chunk: Buffer, _encoding, callback) {
        if (socket.readyState !== socket.OPEN) {
          callback();
          return;
        }
        const behind = socket.bufferedAmount > MAX_BEHIND_BYTES;
        const message = Buffer.concat([Buffer.from([channel]), chunk]);
        // Waiting for the socket only when it is behind keeps small writes cheap.
        if (behind) socket.send(message, () => callback());
        else {
          socket.send(message);
          callback();
        }
      },
    });
  }

  onClose(run: () => void): void {
    this.#socket.once('close', run);
  }

  close(): void {
    this.#socket.close(1000);
  }
}
