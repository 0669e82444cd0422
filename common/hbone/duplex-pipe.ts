/** A Node stream as one side of a relay or of an HTTP connection: what `duplexOf` does, the other way round. For TLS that we begin ourselves. */
import type { Duplex } from 'node:stream';
import { ProxyError } from '../base/errors.ts';
import type { Endpoint, PipeReader } from './endpoint.ts';
import { type ReadBuffer, returnReadBuffer } from './read-buffers.ts';
import { keep } from './receive-buffers.ts';
import type { SocketPipe } from './types.ts';

/** Bytes that may wait in the stream before its writer is asked to pause. */
const WRITE_LIMIT = 256 << 10;

/** Takes the stream over. Half-close is kept as far as the stream keeps it. */
export function pipeOf(stream: Duplex, about: Pick<SocketPipe, 'local' | 'remote'>): SocketPipe {
  return new DuplexPipe(stream, about);
}

class DuplexPipe implements SocketPipe, Endpoint {
  readonly kind = 'socket';
  readonly local: SocketPipe['local'];
  readonly remote: SocketPipe['remote'];
  readonly #stream: Duplex;
  #reader: PipeReader | undefined;
  #given: Buffer | undefined;
  #ended = false;
  #closed = false;
  #error: Error | undefined;

  constructor(stream: Duplex, { local, remote }: Pick<SocketPipe, 'local' | 'remote'>) {
    this.#stream = stream;
    this.local = local;
    this.remote = remote;
    stream
      .on('error', (error) => {
        this.#error = error;
      })
      .on('drain', () => this.#reader?.writable())
      .on('end', () => {
        this.#ended = true;
        this.#reader?.ended();
      })
      .on('close', () => {
        this.#closed = true;
        this.#reader?.closed(this.#failure());
      });
  }

  start(reader: PipeReader): void {
    if (this.#reader) throw new Error('this stream has a reader already');
    this.#reader = reader;
    const given = this.#given;
    this.#given = undefined;
    const more = given === undefined || reader.slice(given);
    if (this.#ended) reader.ended();
    if (this.#closed) {
      reader.closed(this.#failure());
      return;
    }
    this.#stream.on('data', this.#deliver);
    if (!more) this.#stream.pause();
  }

  giveBack(bytes: Buffer): void {
    this.#reader = undefined;
    this.#stream.off('data', this.#deliver);
    this.#stream.pause();
    if (bytes.length > 0) this.#given = bytes;
  }

  resume(): void {
    if (!this.#closed) this.#stream.resume();
  }

  writeRead(buffer: ReadBuffer, length: number): boolean {
    const copy = Buffer.from(buffer.view.subarray(0, length));
    returnReadBuffer(buffer);
    return this.#write(copy);
  }

  writeSlice(bytes: Buffer): boolean {
    return this.#write(keep(bytes));
  }

  get backlog(): number {
    return this.#stream.writableNeedDrain ? this.#stream.writableLength : 0;
  }

  end(): void {
    this.#stream.end();
  }

  close(): void {
    this.#stream.end();
    this.#stream.resume();
    if (this.#ended) this.#stream.destroy();
  }

  destroy(reason?: ProxyError): void {
    if (this.#closed) return;
    this.#error ??= reason;
    this.#stream.destroy();
  }

  readonly #deliver = (chunk: Buffer): void => {
    if (this.#reader?.slice(chunk) === false) this.#stream.pause();
  };

  #write(bytes: Buffer): boolean {
    return this.#stream.write(bytes) || this.#stream.writableLength < WRITE_LIMIT;
  }

  #failure(): ProxyError | undefined {
    return this.#error && ProxyError.from(this.#error, 'CONNECTION_LOST', 'connection to the server');
  }
}
