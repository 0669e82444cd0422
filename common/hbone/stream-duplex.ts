/** A tunnel, or an application's socket, as a Node stream: for a TLS handshake inside a tunnel (double HBONE), and for tests. */
import { Duplex } from 'node:stream';
import { ProxyError } from '../base/errors.ts';
import { type Endpoint, endpointOf } from './endpoint.ts';
import { returnReadBuffer } from './read-buffers.ts';
import { keep } from './receive-buffers.ts';
import type { Pipe } from './types.ts';

/**
 * Takes the pipe over; it can be relayed no more. Half-close is kept both ways; destroying the stream tears the pipe down.
 * @throws {TypeError} for a pipe that common/hbone did not make
 */
export function duplexOf(pipe: Pipe): Duplex {
  return new PipeDuplex(endpointOf(pipe));
}

class PipeDuplex extends Duplex {
  readonly #pipe: Endpoint;
  #pipeClosed = false;
  /** Waits for the pipe to take more. */
  #written: (() => void) | undefined;

  constructor(pipe: Endpoint) {
    super({ allowHalfOpen: true });
    this.#pipe = pipe;
    pipe.start({
      read: (buffer, length) => {
        const copy = Buffer.from(buffer.view.subarray(0, length));
        returnReadBuffer(buffer);
        return this.push(copy);
      },
      slice: (bytes) => this.push(keep(bytes)),
      // What was pushed is counted as taken: it is little, and whoever reads asks for more when it is gone.
      backlog: 0,
      ended: () => {
        this.push(null);
      },
      writable: () => this.#go(),
      closed: (error) => this.#closed(error),
    });
  }

  override _read(): void {
    this.#pipe.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#pipeClosed || this.#pipe.writeSlice(chunk)) done();
    else this.#written = done;
  }

  override _final(done: () => void): void {
    this.#pipe.end();
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.#pipeClosed) this.#pipe.destroy(error ? ProxyError.from(error, 'CONNECTION_LOST', 'tunnelled stream') : undefined);
    done(error);
  }

  #go(): void {
    const written = this.#written;
    this.#written = undefined;
    written?.();
  }

  #closed(error: ProxyError | undefined): void {
    this.#pipeClosed = true;
    this.#go();
    if (error) this.destroy(error);
    else if (!this.readableEnded) this.push(null);
  }
}
