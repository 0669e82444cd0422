/** The side of an HTTP/1.1 connection that answers. Requests that come pipelined wait for their turn: one exchange at a time. */
import type { Clock } from '../base/clock.ts';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { Http1Error } from '../codec/http1/error.ts';
import { Framing } from '../codec/http1/framing.ts';
import { type Http1Request, parseRequest } from '../codec/http1/request.ts';
import { responseText } from '../codec/http1/write.ts';
import { type Endpoint, endpointOf } from '../hbone/endpoint.ts';
import type { Pipe } from '../hbone/types.ts';
import type { HttpServerConnection, HttpServerOptions } from './connections.ts';
import { Http1Connection } from './http1-connection.ts';
import { Http1Exchange } from './http1-exchange.ts';
import type { BodySink, BodySource, HttpLimits, RequestHead, ResponseHead, ServerExchange } from './types.ts';
import { acceptKey } from './websocket-key.ts';

/** Bytes of a request's body that are read though it has been answered, before the connection is given up for it. */
const MAX_DISCARDED = 1 << 20;

/** Serves HTTP/1.1 on a pipe of common/hbone, which is the connection's from now on. */
export const serveHttp1 = (pipe: Pipe, options: HttpServerOptions): HttpServerConnection => new Http1Server(endpointOf(pipe), options);

class Http1Server extends Http1Connection implements HttpServerConnection {
  place = -1;
  readonly #options: HttpServerOptions & { readonly limits: HttpLimits; readonly clock: Clock };
  #exchange: ServedExchange | undefined;
  #draining = false;
  /** Idle is over, too: nobody waits for a request that may be on its way. */
  #ending = false;
  /** The client will send nothing more, but may still read. */
  #halfClosed = false;
  /** The next request is not read before the client has read the last answers. */
  #waitsForRoom = false;

  constructor(pipe: Endpoint, options: HttpServerOptions) {
    super(pipe, options.limits, options.clock, options.initial);
    this.#options = options;
  }

  get openExchanges(): number {
    return this.#exchange ? 1 : 0;
  }

  get draining(): boolean {
    return this.#draining;
  }

  drain(): void {
    this.#draining = true;
  }

  endIdle(): void {
    this.drain();
    this.#ending = true;
    if (!this.#exchange) this.closeSoon();
  }

  // From the decoder.

  head(text: string): number {
    const request = parseRequest(text, this.limits.maxFieldCount);
    const exchange = new ServedExchange(this, request);
    this.#exchange = exchange;
    this.#options.onExchange(exchange);
    if (request.framing !== 0 && !exchange.wanted) this.decoder.paused = true;
    return request.framing;
  }

  data(bytes: Buffer): boolean {
    const exchange = this.#exchange;
    if (!exchange) return true;
    let more = exchange.receive(bytes);
    if (exchange.discarded > MAX_DISCARDED) {
      more = false;
      if (exchange.outgoingEnded) this.closeSoon();
    }
    if (!more) this.decoder.paused = true;
    return more;
  }

  end(trailers: string[] | undefined): void {
    const exchange = this.#exchange;
    if (!exchange) return;
    exchange.endIncoming(trailers);
    this.settle(exchange);
  }

  // From the exchange.

  /** A message of the exchange has ended; when both have, the next one's turn has come. */
  settle(exchange: ServedExchange): void {
    if (this.#exchange !== exchange || !exchange.outgoingEnded) return;
    if (!exchange.incomingEnded) {
      if (!exchange.keepAlive || exchange.discarded > MAX_DISCARDED) this.closeSoon();
      return;
    }
    this.#exchange = undefined;
    this.activeAt = this.clock.monotonic();
    // An answer that began before the draining has promised the client one more request; the answer to that will take it back.
    if (!exchange.keepAlive || this.#ending || this.#halfClosed) {
      if (exchange.isLast) this.closeNow();
      else this.closeSoon();
      return;
    }
    // A client that asks and does not read must not make us hold answer after answer.
    if (this.output.blocked) this.#waitsForRoom = true;
    else this.#nextTurn();
  }

  #nextTurn(): void {
    this.decoder.next();
    this.letIn();
  }

  /** The connection is another protocol's from now on. */
  changeProtocol(exchange: ServedExchange): void {
    this.decoder.raw();
    if (exchange.wanted) this.letIn();
    else this.decoder.paused = true;
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
    this.#halfClosed = true;
    if (!exchange) this.closeSoon();
    else if (!inOrder) this.destroy(new ProxyError('CONNECTION_LOST', 'the client closed the connection inside its request'));
  }

  protected failed(reason: unknown): void {
    const status = reason instanceof Http1Error ? reason.status : 500;
    const message = errorMessage(reason);
    this.error ??= new ProxyError('BAD_REQUEST', message, { cause: reason });
    const exchange = this.#exchange;
    const answered = exchange?.responded ?? false;
    this.#exchange = undefined;
    exchange?.clientGone(this.error);
    if (answered) this.destroy(this.error);
    else this.#refuse(status, message);
  }

  protected headTimedOut(): void {
    this.error ??= new ProxyError('BAD_REQUEST', `a request head not complete within ${this.limits.headTimeoutMs / 1000} s`);
    this.#refuse(408, this.error.message);
  }

  protected roomOut(): void {
    this.#exchange?.roomOut();
    if (!this.#waitsForRoom || this.over) return;
    this.#waitsForRoom = false;
    if (this.#ending || this.#halfClosed) this.closeSoon();
    else this.#nextTurn();
  }

  protected lost(error: ProxyError | undefined): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    exchange?.clientGone(error ?? new ProxyError('CONNECTION_LOST', 'the client closed the connection'));
    this.#options.onClose(error);
  }

  #refuse(status: number, message: string): void {
    const body = `${message}\n`;
    const framing = ['content-type: text/plain\r\n', `content-length: ${body.length}\r\n`, CLOSE];
    this.output.head(responseText(status, [], framing));
    this.output.text(body);
    this.closeSoon();
  }
}

const CLOSE = 'connection: close\r\n';
const KEEP_ALIVE = 'connection: keep-alive\r\n';
const CHUNKED = 'transfer-encoding: chunked\r\n';

class ServedExchange extends Http1Exchange implements ServerExchange {
  readonly head: RequestHead;
  keepAlive: boolean;
  /** The client has said that nothing follows, and has sent nothing that could. */
  readonly isLast: boolean;
  responded = false;
  readonly #server: Http1Server;
  #expectsContinue: boolean;
  #onGone: ((error: ProxyError) => void) | undefined;
  #gone: ProxyError | undefined;

  constructor(server: Http1Server, request: Http1Request) {
    super(server);
    this.#server = server;
    this.head = request.head;
    this.keepAlive = request.keepAlive;
    this.isLast = !request.keepAlive && request.framing === 0;
    this.#expectsContinue = request.expectsContinue;
    // Where another protocol is asked for, what comes is known only when it has been answered.
    this.incomingEnded = request.framing === 0 && request.head.upgrade === undefined;
  }

  get body(): BodySource {
    return this;
  }

  inform(head: ResponseHead): void {
    if (this.responded || this.#gone || this.head.version === '1.0') return;
    if (head.status === 100) this.#expectsContinue = false;
    this.#server.output.head(responseText(head.status, head.fields, []));
  }

  respond(head: ResponseHead, source: BodySource | undefined): BodySink {
    if (this.responded) throw new Error('this request has been answered already');
    if (this.#gone) {
      this.responded = true;
      this.outgoingEnded = true;
      source?.cancel();
      return this;
    }
    // A client that was not told to go on may send the body or not: what comes next could be either.
    if (this.#expectsContinue || this.#server.draining) this.keepAlive = false;
    // Nor is it certain what a client that asked for another protocol, and did not wait, sends next.
    if (this.head.upgrade !== undefined) this.keepAlive = false;
    const framing = this.#frame(head);
    this.#server.output.head(responseText(head.status, head.fields, framing));
    this.responded = true;
    this.source = source;
    if (this.head.upgrade !== undefined) {
      if (head.status === 101) this.#server.changeProtocol(this);
      else this.endIncoming(undefined);
    }
    return this;
  }

  onClientGone(listener: (error: ProxyError) => void): void {
    this.#onGone = listener;
    if (this.#gone) listener(this.#gone);
  }

  cancel(): void {
    this.discardIncoming();
  }

  abort(error: ProxyError): void {
    if (!this.outgoingEnded) this.#server.destroy(error);
  }

  /** Nobody can be answered any more. */
  clientGone(error: ProxyError): void {
    const unanswered = !this.outgoingEnded;
    this.#gone = error;
    this.failIncoming(error);
    if (unanswered) this.#onGone?.(error);
    this.cancelOutgoing();
  }

  protected override incomingWanted(): void {
    if (!this.#expectsContinue || this.responded || this.#gone) return;
    this.#expectsContinue = false;
    this.#server.output.text('HTTP/1.1 100 Continue\r\n\r\n');
  }

  protected outgoingDone(): void {
    if (this.outgoing === Framing.RAW) this.#server.endOutput();
    else if (!this.incomingEnded) this.discardIncoming();
    this.#server.settle(this);
  }

  /** Decides how the response's body ends, and says so. */
  #frame({ status, bodyBytes, fields }: ResponseHead): string[] {
    const { version, method, upgrade } = this.head;
    if (status === 101 && upgrade !== undefined) {
      this.outgoing = Framing.RAW;
      this.keepAlive = false;
      return ['connection: upgrade\r\n', `upgrade: ${upgrade}\r\n`, ...acceptKey(this.head.fields, fields)];
    }
    const framing: string[] = [];
    this.bodiless = method === 'HEAD' || status === 304 || status === 204 || status < 200;
    if (bodyBytes !== undefined) {
      this.outgoing = this.bodiless ? 0 : bodyBytes;
      if (status !== 204 && status >= 200) framing.push(`content-length: ${bodyBytes}\r\n`);
    } else if (!this.bodiless) {
      if (version === '1.1') {
        this.outgoing = Framing.CHUNKED;
        framing.push(CHUNKED);
      } else {
        this.outgoing = Framing.UNTIL_CLOSE;
        this.keepAlive = false;
      }
    }
    if (!this.keepAlive) framing.push(CLOSE);
    else if (version === '1.0') framing.push(KEEP_ALIVE);
    return framing;
  }
}
