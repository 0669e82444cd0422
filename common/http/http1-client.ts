/** The side of an HTTP/1.1 connection that asks. One request at a time: pipelining would let one slow answer hold up the next request. */
import { errorMessage, ProxyError } from '../base/errors.ts';
import { Framing } from '../codec/http1/framing.ts';
import { parseResponse } from '../codec/http1/response.ts';
import { requestText } from '../codec/http1/write.ts';
import { type Endpoint, endpointOf } from '../hbone/endpoint.ts';
import type { Pipe } from '../hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions } from './connections.ts';
import { Http1Connection } from './http1-connection.ts';
import { Http1Exchange } from './http1-exchange.ts';
import type { BodySink, BodySource, ClientExchange, ClientListener, RequestHead } from './types.ts';
import { requestKey } from './websocket-key.ts';

/** 1xx responses before the final one; a server that sends more of them sends nothing else. */
const MAX_INFORMATIONAL = 16;

/** Speaks HTTP/1.1 on a pipe of common/hbone, which is the connection's from now on. */
export const connectHttp1 = (pipe: Pipe, options: HttpClientOptions): HttpClientConnection => new Http1Client(endpointOf(pipe), options);

class Http1Client extends Http1Connection implements HttpClientConnection {
  readonly #options: HttpClientOptions;
  #exchange: SentExchange | undefined;
  #draining = false;

  constructor(pipe: Endpoint, options: HttpClientOptions) {
    super(pipe, options.limits, options.clock);
    this.#options = options;
  }

  get openExchanges(): number {
    return this.#exchange ? 1 : 0;
  }

  get usable(): boolean {
    return !this.#exchange && !this.#draining && !this.over;
  }

  request(head: RequestHead, source: BodySource | undefined, listener: ClientListener): ClientExchange {
    const exchange = new SentExchange(this, head, source, listener);
    if (!this.usable) {
      queueMicrotask(() => exchange.fail(new ProxyError('CONNECTION_LOST', 'the connection takes no request'), true));
      return exchange;
    }
    exchange.send();
    this.#exchange = exchange;
    return exchange;
  }

  drain(): void {
    this.#draining = true;
    if (!this.#exchange) this.closeSoon();
  }

  // From the decoder.

  head(text: string): number {
    const exchange = this.#exchange;
    if (!exchange) throw new Error('a response that nobody asked for');
    return exchange.answered(text, this.limits.maxFieldCount);
  }

  data(bytes: Buffer): boolean {
    const more = this.#exchange?.receive(bytes) ?? true;
    if (!more) this.decoder.paused = true;
    return more;
  }

  end(trailers: string[] | undefined): void {
    const exchange = this.#exchange;
    if (!exchange) return;
    this.responseEnded(exchange);
    exchange.endIncoming(trailers);
  }

  // From the exchange.

  /** Whatever comes next is another response. */
  nextHead(): void {
    this.decoder.next();
  }

  holdBody(): void {
    this.decoder.paused = true;
  }

  /** The response is whole: the connection is free, or of no use any more. */
  responseEnded(exchange: SentExchange): void {
    if (this.#exchange !== exchange) return;
    if (exchange.raw && !exchange.outgoingEnded) return;
    this.#exchange = undefined;
    this.activeAt = this.clock.monotonic();
    const reusable = exchange.keepAlive && exchange.outgoingEnded && !this.#draining;
    // The server has answered without waiting for the rest, so it does not want it.
    exchange.cancelOutgoing();
    if (reusable) {
      this.decoder.next();
      this.letIn();
      this.#options.onRoom?.();
    } else this.closeSoon();
  }

  abandon(exchange: SentExchange, error: ProxyError | undefined): void {
    if (this.#exchange !== exchange) return;
    this.#exchange = undefined;
    this.destroy(error);
  }

  endOutput(): void {
    this.output.flush();
    this.pipe.end();
  }

  // From the connection.

  protected get busy(): boolean {
    return this.#exchange !== undefined;
  }

  protected inputEnded(inOrder: boolean): void {
    const exchange = this.#exchange;
    // A response that ends with the connection has been ended by the decoder; a changed protocol may go on in the other direction.
    if (exchange?.raw && inOrder) return;
    if (exchange) {
      this.#failExchange(new ProxyError('CONNECTION_LOST', 'the server closed the connection before its response was whole'));
      this.destroy();
    } else this.closeSoon();
  }

  protected failed(reason: unknown): void {
    const error = new ProxyError('UPSTREAM_PROTOCOL', `the response is no HTTP: ${errorMessage(reason)}`, { cause: reason });
    this.error ??= error;
    this.#failExchange(error);
    this.destroy(error);
  }

  protected headTimedOut(): void {
    this.failed(new Error(`a head not complete within ${this.limits.headTimeoutMs / 1000} s`));
  }

  protected roomOut(): void {
    this.#exchange?.roomOut();
  }

  protected lost(error: ProxyError | undefined): void {
    this.#failExchange(error ?? new ProxyError('CONNECTION_LOST', 'the connection was reset before the response was whole'));
    this.#options.onClose(error);
  }

  #failExchange(error: ProxyError): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    if (!exchange) return;
    const unsent = this.output.written === exchange.writtenBefore;
    // What was not sent by now must not be sent either, if it is to be sent elsewhere.
    this.output.close();
    exchange.fail(error, unsent);
  }
}

const NO_LINES: readonly string[] = [];
const EMPTY_BODY: readonly string[] = ['content-length: 0\r\n'];
const CHUNKED: readonly string[] = ['transfer-encoding: chunked\r\n'];

class SentExchange extends Http1Exchange implements ClientExchange {
  keepAlive = false;
  /** The protocol was changed. */
  raw = false;
  /** Bytes that the connection had sent before this request. */
  readonly writtenBefore: number;
  readonly #client: Http1Client;
  readonly #head: RequestHead;
  readonly #listener: ClientListener;
  #responded = false;
  /** The owner wants to hear nothing any more. */
  #abandoned = false;
  #informational = 0;
  /** Sent by a hasty source before the server agreed to change the protocol. */
  #early: Buffer[] = [];

  constructor(client: Http1Client, head: RequestHead, source: BodySource | undefined, listener: ClientListener) {
    super(client);
    this.#client = client;
    this.#head = head;
    this.#listener = listener;
    this.source = source;
    this.writtenBefore = client.output.written;
  }

  get body(): BodySink {
    return this;
  }

  send(): void {
    const { method, bodyBytes, upgrade, fields } = this.#head;
    let framing: readonly string[];
    if (upgrade !== undefined) framing = ['connection: upgrade\r\n', `upgrade: ${upgrade}\r\n`, ...requestKey(fields, upgrade)];
    else if (bodyBytes === undefined) {
      this.outgoing = Framing.CHUNKED;
      framing = CHUNKED;
    } else if (bodyBytes > 0) {
      this.outgoing = bodyBytes;
      framing = [`content-length: ${bodyBytes}\r\n`];
    } else {
      this.outgoingEnded = true;
      framing = method === 'POST' || method === 'PUT' || method === 'PATCH' ? EMPTY_BODY : NO_LINES;
    }
    this.#client.output.head(requestText(this.#head, framing));
  }

  /** A response's head. @returns how its body is framed */
  answered(text: string, maxFieldCount: number): number {
    const response = parseResponse(text, maxFieldCount, this.#head.method);
    const { status } = response.head;
    if (status === 101) this.#changed(response.upgrade);
    else if (status < 200) {
      if (++this.#informational > MAX_INFORMATIONAL) throw new Error('too many informational responses');
      this.#client.nextHead();
      this.#listener.informational(response.head);
      return 0;
    }
    this.#responded = true;
    // A server that was asked for another protocol and answers in this one may still have read what came behind the request as the other.
    this.keepAlive = response.keepAlive && this.#head.upgrade === undefined;
    if (!this.raw && this.#head.upgrade !== undefined) this.outgoingEnded = true;
    if (response.framing === 0) {
      this.#client.responseEnded(this);
      this.incomingEnded = true;
    }
    this.#listener.response(response.head, this);
    if (response.framing !== 0 && !this.wanted) this.#client.holdBody();
    return response.framing;
  }

  override data(chunk: Buffer): boolean {
    if (this.#head.upgrade === undefined || this.raw || this.outgoingEnded) return super.data(chunk);
    this.#early.push(Buffer.from(chunk));
    return false;
  }

  override end(trailers: Parameters<BodySink['end']>[0]): void {
    // Where another protocol was asked for, only that one has an end of its own.
    if (this.#head.upgrade === undefined || this.raw) super.end(trailers);
  }

  cancel(): void {
    if (this.#abandoned || this.incomingEnded) return;
    this.#abandoned = true;
    this.#client.abandon(this, undefined);
    this.cancelOutgoing();
  }

  abort(error: ProxyError): void {
    if (this.#abandoned) return;
    this.#abandoned = true;
    this.#client.abandon(this, error);
    this.outgoingEnded = true;
  }

  fail(error: ProxyError, unsent: boolean): void {
    if (this.#abandoned) return;
    this.#abandoned = true;
    if (this.#responded) this.failIncoming(error);
    else this.#listener.failed(error, unsent);
    this.cancelOutgoing();
  }

  protected outgoingDone(): void {
    if (!this.raw) return;
    this.#client.endOutput();
    if (this.incomingEnded) this.#client.responseEnded(this);
  }

  #changed(protocol: string | undefined): void {
    const { upgrade } = this.#head;
    if (upgrade === undefined || protocol?.toLowerCase() !== upgrade.toLowerCase())
      throw new Error('101 to another protocol than was asked for');
    this.raw = true;
    this.outgoing = Framing.RAW;
    for (const bytes of this.#early.splice(0)) this.#client.output.bytes(bytes);
    this.source?.resume();
  }
}
