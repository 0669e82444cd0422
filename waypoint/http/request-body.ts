/**
 * A request's body on its way to one attempt after another. What is handed on is also kept, up to a limit and until the response begins, so
 * that the request can be sent again; a body that is longer than that can be sent once only.
 */
import type { ProxyError } from '../../common/base/errors.ts';
import type { BodySink, BodySource, Fields, ServerExchange } from '../../common/http/types.ts';
import { GrpcMessages, isGrpc } from './grpc.ts';

/** Bytes of one request that are kept for another attempt. */
export const KEEP_BYTES = 64 << 10;
/** Bytes that all requests of a worker keep together; beyond that, bodies are not kept. */
const KEEP_TOTAL = 64 << 20;
/** A connection that is told to wait may hand on what it has read. */
const MORE_BYTES = 1 << 20;
let keptTotal = 0;

// One for all: most requests have no body.
const NOTHING_KEPT: Buffer[] = [];

export class RequestBody implements BodySource, BodySink {
  readonly #exchange: ServerExchange;
  /** Bytes received. */
  bytes = 0;
  /** Where it is gRPC. */
  readonly messages: GrpcMessages | undefined;
  #sink: BodySink | undefined;
  #started = false;
  #settled = false;
  #kept: Buffer[] | undefined = NOTHING_KEPT;
  #keptBytes = 0;
  #ended: { readonly trailers: Fields | undefined } | undefined;
  #failed: ProxyError | undefined;
  /** Who wants to see its beginning before anything is sent: until then nothing is forgotten. */
  #first: { readonly bytes: number; readonly use: (beginning: { bytes: Buffer; whole: boolean } | 'lost') => void } | undefined;
  #keepBytes = KEEP_BYTES;
  /** Called with the whole body, or with undefined where it was not kept. */
  #whenWhole: ((body: Buffer | undefined) => void)[] | undefined;

  constructor(exchange: ServerExchange) {
    this.#exchange = exchange;
    if (isGrpc(exchange.head.fields)) this.messages = new GrpcMessages();
  }

  get isEmpty(): boolean {
    return this.#exchange.head.bodyBytes === 0 && this.#exchange.head.upgrade === undefined;
  }

  /** Whether another attempt would get all of it. */
  get replayable(): boolean {
    return this.#kept !== undefined && this.#failed === undefined;
  }

  /** Sends the body into an attempt's sink: what is kept first, then what still comes. Takes it away from the attempt before. */
  into(sink: BodySink): void {
    this.#sink = sink;
    for (const chunk of this.#kept ?? []) sink.data(chunk);
    this.#keepBytes = KEEP_BYTES;
    if (this.#keptBytes > KEEP_BYTES) this.#forget();
    if (this.#failed) sink.abort(this.#failed);
    else if (this.#ended) sink.end(this.#ended.trailers);
    else if (!this.#started) {
      this.#started = true;
      this.#exchange.body.into(this);
    } else this.#exchange.body.resume();
  }

  resume(): void {
    this.#exchange.body.resume();
  }

  /** The attempt wants no more of it. What comes until the next attempt waits. */
  cancel(): void {
    this.#sink = undefined;
  }

  /** No attempt will follow: only mirrors still want what is kept. */
  settle(): void {
    this.#settled = true;
    if (!this.#whenWhole) this.#forget();
  }

  /** The request is over. */
  release(): void {
    this.#tellWhole(undefined);
    this.#forget();
  }

  /**
   * Its first bytes, before it is sent anywhere; all of it stays to be sent.
   * @param use called once; `lost` where the worker keeps too much already, and then the request cannot be sent
   */
  beginning(bytes: number, use: (beginning: { bytes: Buffer; whole: boolean } | 'lost') => void): void {
    if (this.isEmpty || !this.#kept || this.#failed) {
      use(this.isEmpty ? { bytes: Buffer.alloc(0), whole: true } : 'lost');
      return;
    }
    this.#first = { bytes, use };
    // What is on its way when we stop reading has to be kept too.
    this.#keepBytes = Math.max(KEEP_BYTES, bytes + MORE_BYTES);
    if (this.#started) this.#lookFirst();
    else {
      this.#started = true;
      this.#exchange.body.into(this);
    }
  }

  #lookFirst(): void {
    const first = this.#first;
    if (!first) return;
    const kept = this.#kept;
    if (kept && !this.#failed && !this.#ended && this.#keptBytes <= first.bytes) return;
    this.#first = undefined;
    if (!kept || this.#failed) first.use('lost');
    else first.use({ bytes: Buffer.concat(kept).subarray(0, first.bytes), whole: this.#keptBytes <= first.bytes });
  }

  /** The whole body for a mirror: undefined where it is longer than KEEP_BYTES or never whole. */
  whole(use: (body: Buffer | undefined) => void): void {
    if (this.isEmpty) use(Buffer.alloc(0));
    else if (this.#kept === undefined || this.#failed) use(undefined);
    else if (this.#ended) use(Buffer.concat(this.#kept));
    else {
      this.#whenWhole ??= [];
      this.#whenWhole.push(use);
    }
  }

  // BodySink: what the client sends.

  data(chunk: Buffer): boolean {
    this.bytes += chunk.length;
    this.messages?.data(chunk);
    this.#keep(chunk);
    if (this.#first) {
      this.#lookFirst();
      return this.#first !== undefined;
    }
    // Between attempts it waits; the next attempt resumes it after it has had what is kept.
    return this.#sink ? this.#sink.data(chunk) : false;
  }

  end(trailers: Fields | undefined): void {
    this.#ended = { trailers };
    this.#lookFirst();
    if (this.#whenWhole) this.#tellWhole(this.#kept && Buffer.concat(this.#kept));
    this.#sink?.end(trailers);
  }

  abort(error: ProxyError): void {
    this.#failed = error;
    this.#lookFirst();
    this.#tellWhole(undefined);
    this.#sink?.abort(error);
  }

  #keep(chunk: Buffer): void {
    if (!this.#kept) return;
    if (this.#keptBytes + chunk.length > this.#keepBytes || keptTotal + chunk.length > KEEP_TOTAL) {
      this.#tellWhole(undefined);
      this.#forget();
      return;
    }
    // The chunk is its sender's when we return.
    if (this.#kept === NOTHING_KEPT) this.#kept = [];
    this.#kept.push(Buffer.from(chunk));
    this.#keptBytes += chunk.length;
    keptTotal += chunk.length;
  }

  #forget(): void {
    if (!this.#kept) return;
    keptTotal -= this.#keptBytes;
    this.#kept = undefined;
    this.#keptBytes = 0;
  }

  #tellWhole(body: Buffer | undefined): void {
    const waiting = this.#whenWhole;
    this.#whenWhole = undefined;
    if (waiting) for (const use of waiting) use(body);
    if (this.#settled) this.#forget();
  }
}

/** A body of our own making. */
export function bufferSource(bytes: Buffer): BodySource {
  return {
    into(sink) {
      if (bytes.length > 0) sink.data(bytes);
      sink.end(undefined);
    },
    resume: () => undefined,
    cancel: () => undefined,
  };
}
