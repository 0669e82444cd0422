/** Carries bytes between two pipes, each direction at the pace of its slower side, until both directions have ended. */
import type { ProxyError } from '../base/errors.ts';
import { type Endpoint, endpointOf, type PipeReader } from './endpoint.ts';
import type { ReadBuffer } from './read-buffers.ts';
import type { Pipe, Relay, RelayResult } from './types.ts';

/**
 * Joins socket and stream, socket and socket, or stream and stream. Half-close passes both ways. A reset that counts as an end
 * (Istio's ztunnel, src/proxy/h2.rs) ends the other side in order; a failure tears it down.
 * @throws {TypeError} for pipes that common/hbone did not make
 */
export function relay(a: Pipe, b: Pipe): Relay {
  return new Carrier(endpointOf(a), endpointOf(b));
}

class Carrier implements Relay {
  readonly done: Promise<RelayResult>;
  readonly #a: Side;
  readonly #b: Side;
  readonly #resolve: (result: RelayResult) => void;
  #error: ProxyError | undefined;

  constructor(a: Endpoint, b: Endpoint) {
    const { promise, resolve } = Promise.withResolvers<RelayResult>();
    this.done = promise;
    this.#resolve = resolve;
    const closed = (side: Side, error: ProxyError | undefined): void => this.#closed(side, error);
    this.#a = new Side(a, b, closed);
    this.#b = new Side(b, a, closed);
    a.start(this.#a);
    b.start(this.#b);
  }

  get forward(): number {
    return this.#a.bytes;
  }

  get backward(): number {
    return this.#b.bytes;
  }

  get waiting(): number {
    return this.#a.pipe.backlog + this.#b.pipe.backlog;
  }

  abort(error: ProxyError): void {
    if (this.#a.over && this.#b.over) return;
    this.#error ??= error;
    this.#a.pipe.destroy(error);
    this.#b.pipe.destroy(error);
  }

  #closed(side: Side, error: ProxyError | undefined): void {
    this.#error ??= error;
    const other = side === this.#a ? this.#b : this.#a;
    if (other.over) this.#resolve({ forward: this.forward, backward: this.backward, error: this.#error });
    else if (error) other.pipe.destroy(error);
    else other.pipe.close();
  }
}

/** One pipe's reader: what comes out of it goes into the other. */
class Side implements PipeReader {
  readonly pipe: Endpoint;
  /** Bytes that came out of the pipe. */
  bytes = 0;
  over = false;
  readonly #other: Endpoint;
  readonly #onClosed: (side: Side, error: ProxyError | undefined) => void;

  constructor(pipe: Endpoint, other: Endpoint, onClosed: (side: Side, error: ProxyError | undefined) => void) {
    this.pipe = pipe;
    this.#other = other;
    this.#onClosed = onClosed;
  }

  read(buffer: ReadBuffer, length: number): boolean {
    this.bytes += length;
    return this.#other.writeRead(buffer, length);
  }

  slice(bytes: Buffer): boolean {
    this.bytes += bytes.length;
    return this.#other.writeSlice(bytes);
  }

  get backlog(): number {
    return this.#other.backlog;
  }

  ended(): void {
    this.#other.end();
  }

  writable(): void {
    this.#other.resume();
  }

  closed(error: ProxyError | undefined): void {
    if (this.over) return;
    this.over = true;
    this.#onClosed(this, error);
  }
}
