/** The side of an HTTP/2 connection that asks. */
import { ProxyError } from '../base/errors.ts';
import { ErrorCode, Http2ConnectionError } from '../codec/http2/errors.ts';
import type { HeaderField } from '../codec/http2/header-tables.ts';
import { type Endpoint, endpointOf } from '../hbone/endpoint.ts';
import type { Pipe } from '../hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions } from './connections.ts';
import { Http2Connection } from './http2-connection.ts';
import { readResponse, requestFields } from './http2-heads.ts';
import { Http2Stream } from './http2-stream.ts';
import type { BodySink, BodySource, ClientExchange, ClientListener, RequestHead } from './types.ts';

/** What we assume that a peer allows until its SETTINGS say so. */
const ASSUMED_STREAMS = 100;
/** 1xx responses before the final one; a server that sends more of them sends nothing else. */
const MAX_INFORMATIONAL = 16;

/** Speaks HTTP/2 with prior knowledge on a pipe of common/hbone, which is the connection's from now on. */
export const connectHttp2 = (pipe: Pipe, options: HttpClientOptions): HttpClientConnection => new Http2Client(endpointOf(pipe), options);

class Http2Client extends Http2Connection implements HttpClientConnection {
  readonly #options: HttpClientOptions;
  #draining = false;
  #greeted = false;

  constructor(pipe: Endpoint, options: HttpClientOptions) {
    super(pipe, 'client', options.limits, options.clock);
    this.#options = options;
  }

  get usable(): boolean {
    return !this.#draining && !this.over && this.streams.size < this.#streamLimit;
  }

  request(head: RequestHead, source: BodySource | undefined, listener: ClientListener): ClientExchange {
    const fields = requestFields(head);
    const refusal =
      head.upgrade !== undefined && this.#greeted && !this.peerTakesProtocols ? 'the server takes no other protocol' : undefined;
    const id = this.usable && refusal === undefined ? this.nextStreamId() : undefined;
    const stream = new SentStream(id ?? 0, this, head, source, listener);
    if (id === undefined) {
      // The numbers are used up: others will do better.
      if (this.usable && refusal === undefined) this.drain();
      stream.neverSent(new ProxyError('CONNECTION_LOST', refusal ?? 'the connection takes no request'));
      return stream;
    }
    this.add(stream);
    stream.send(fields);
    return stream;
  }

  drain(): void {
    if (this.#draining || this.over) return;
    this.#draining = true;
    this.sendGoaway(0, ErrorCode.NO_ERROR);
    this.streamLeft();
  }

  protected opened(streamId: number): void {
    throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `HEADERS on stream ${streamId}, which nobody opened`);
  }

  protected wentAway(lastStreamId: number): void {
    this.#draining = true;
    const refused = this.streams.all().filter(({ id }) => id > lastStreamId);
    for (const stream of refused) stream.fail(new ProxyError('CONNECTION_LOST', 'the server is going away'), true);
    this.streamLeft();
  }

  protected greeted(): void {
    this.#greeted = true;
  }

  protected pong(): void {}

  protected streamLeft(): void {
    if (!this.#draining) this.#options.onRoom?.();
    else if (this.streams.size === 0) this.close();
  }

  protected lost(error: ProxyError | undefined): void {
    this.#options.onClose(error);
  }

  get #streamLimit(): number {
    return Math.min(this.limits.maxConcurrentStreams, this.#greeted ? this.peer.maxConcurrentStreams : ASSUMED_STREAMS);
  }
}

class SentStream extends Http2Stream implements ClientExchange {
  readonly #head: RequestHead;
  readonly #listener: ClientListener;
  /** Bytes that the connection had sent before this request. */
  readonly #writtenBefore: number;
  #responded = false;
  #informational = 0;

  constructor(id: number, connection: Http2Client, head: RequestHead, source: BodySource | undefined, listener: ClientListener) {
    super(id, connection);
    this.#head = head;
    this.#listener = listener;
    this.source = source;
    this.#writtenBefore = connection.output.written;
  }

  get body(): BodySink {
    return this;
  }

  get takesData(): boolean {
    return this.#responded;
  }

  send(fields: HeaderField[]): void {
    const { bodyBytes, upgrade } = this.#head;
    const endStream = bodyBytes === 0 && upgrade === undefined;
    this.connection.sendHeaders(this.id, fields, endStream);
    if (upgrade === undefined) this.announce(bodyBytes);
    if (endStream) this.endWithHead();
  }

  neverSent(error: ProxyError): void {
    this.localEnded = true;
    this.remoteEnded = true;
    queueMicrotask(() => {
      if (!this.quiet) this.#listener.failed(error, true);
    });
  }

  headers(fields: readonly HeaderField[], tooLarge: boolean, endStream: boolean): void {
    if (this.#responded) {
      this.receiveTrailers(fields, tooLarge, endStream);
      return;
    }
    const head = tooLarge ? 'a head that is too large' : readResponse(fields, endStream, this.#head.method);
    if (typeof head === 'string') {
      this.connection.streamError(this.id, ErrorCode.PROTOCOL_ERROR, head);
      return;
    }
    if (head.status < 200) {
      if (++this.#informational > MAX_INFORMATIONAL)
        this.connection.streamError(this.id, ErrorCode.ENHANCE_YOUR_CALM, 'too many informational responses');
      else this.#listener.informational(head);
      return;
    }
    this.#responded = true;
    const changes = this.#head.upgrade !== undefined && head.status < 300;
    this.expect(changes || this.#head.method === 'HEAD' || head.status === 304 || head.status === 204 ? undefined : head.bodyBytes);
    this.#listener.response(changes ? { status: 101, fields: head.fields, bodyBytes: undefined } : head, this);
    if (endStream) this.endRemote(undefined);
  }

  cancel(): void {
    if (!this.alive) return;
    this.quiet = true;
    this.reset(ErrorCode.CANCEL, CANCELLED);
  }

  abort(error: ProxyError): void {
    this.quiet = true;
    this.reset(ErrorCode.CANCEL, error);
  }

  override endRemote(...args: Parameters<Http2Stream['endRemote']>): void {
    super.endRemote(...args);
    // The server has answered without waiting for the rest, so it does not want it.
    if (this.remoteEnded && !this.localEnded && this.alive && this.#head.upgrade === undefined) {
      this.quiet = true;
      this.reset(ErrorCode.CANCEL, CANCELLED);
    }
  }

  protected failed(error: ProxyError, unsent: boolean): void {
    if (!this.#responded) this.#listener.failed(error, unsent || this.connection.output.written === this.#writtenBefore);
  }
}

const CANCELLED = new ProxyError('CONNECTION_LOST', 'the request was cancelled');
