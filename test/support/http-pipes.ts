/** Pipes in memory for HTTP connections: fed and read by the test, or joined in pairs. What a reader was lent is scribbled over afterwards. */
import type { ProxyError } from '../../common/base/errors.ts';
import type { Endpoint, PipeReader } from '../../common/hbone/endpoint.ts';
import { type ReadBuffer, returnReadBuffer } from '../../common/hbone/read-buffers.ts';

export class MemoryPipe implements Endpoint {
  readonly kind = 'stream';
  readonly headers = [];
  /** Everything that was written. */
  output: Buffer[] = [];
  /** Whether writes are answered with "no more", until `unblock`. */
  full = false;
  /** Bytes that are said to wait here. */
  backlog = 0;
  /** Our side ended its direction. */
  outputEnded = false;
  closed = false;
  destroyedFor: ProxyError | undefined;
  peer: MemoryPipe | undefined;
  writes = 0;
  /** Times that the reader wanted no more. */
  stops = 0;
  #reader: PipeReader | undefined;
  #flowing = false;
  #input: Buffer[] = [];
  #inputEnded = false;
  #endDelivered = false;

  get text(): string {
    return Buffer.concat(this.output).toString('latin1');
  }

  /** Bytes that nobody has taken yet. */
  get waiting(): number {
    return this.#input.reduce((sum, { length }) => sum + length, 0);
  }

  feed(bytes: Buffer | string): void {
    this.#input.push(Buffer.from(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes));
    this.#deliver();
  }

  feedEnd(): void {
    this.#inputEnded = true;
    this.#deliver();
  }

  /** The connection is gone. */
  lose(error?: ProxyError): void {
    if (this.closed) return;
    this.closed = true;
    this.#reader?.closed(error);
  }

  unblock(): void {
    this.full = false;
    this.backlog = 0;
    if (!this.closed) this.#reader?.writable();
  }

  start(reader: PipeReader): void {
    this.#reader = reader;
    if (this.closed) {
      reader.closed(this.destroyedFor);
      return;
    }
    this.#flowing = true;
    this.#deliver();
  }

  giveBack(bytes: Buffer): void {
    this.#reader = undefined;
    this.#flowing = false;
    this.#endDelivered = false;
    if (bytes.length > 0) this.#input.unshift(bytes);
  }

  resume(): void {
    this.#flowing = true;
    this.#deliver();
  }

  writeRead(buffer: ReadBuffer, length: number): boolean {
    const room = this.writeSlice(Buffer.from(buffer.view.subarray(0, length)));
    returnReadBuffer(buffer);
    return room;
  }

  writeSlice(bytes: Buffer): boolean {
    if (this.closed || this.outputEnded) return true;
    this.writes++;
    const copy = Buffer.from(bytes);
    const { peer } = this;
    if (!peer) this.output.push(copy);
    else setImmediate(() => peer.feed(copy));
    return !this.full;
  }

  end(): void {
    if (this.outputEnded) return;
    this.outputEnded = true;
    const { peer } = this;
    if (peer) setImmediate(() => peer.feedEnd());
    if (this.#endDelivered) this.lose();
  }

  close(): void {
    this.end();
    const { peer } = this;
    if (peer) setImmediate(() => peer.lose());
    this.lose();
  }

  destroy(reason?: ProxyError): void {
    if (this.closed) return;
    this.destroyedFor = reason;
    const { peer } = this;
    if (peer) setImmediate(() => peer.lose());
    this.lose(reason);
  }

  #deliver(): void {
    while (this.#flowing && this.#reader && !this.closed) {
      const chunk = this.#input.shift();
      if (!chunk) break;
      if (this.#reader.slice(chunk) === false) {
        this.#flowing = false;
        this.stops++;
      }
      if (this.#reader) chunk.fill(0xee);
    }
    if (this.#inputEnded && this.#flowing && !this.#endDelivered && this.#input.length === 0 && this.#reader && !this.closed) {
      this.#endDelivered = true;
      this.#reader.ended();
      if (this.outputEnded) this.lose();
    }
  }
}

/** What one end writes, the other reads. */
export function pipePair(): [MemoryPipe, MemoryPipe] {
  const [near, far] = [new MemoryPipe(), new MemoryPipe()];
  near.peer = far;
  far.peer = near;
  return [near, far];
}
