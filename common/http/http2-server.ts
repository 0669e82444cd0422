/** The side of an HTTP/2 connection that answers. */
import type { Timer } from '../base/clock.ts';
import { ProxyError } from '../base/errors.ts';
import { ErrorCode, Http2ConnectionError } from '../codec/http2/errors.ts';
import { LARGEST_STREAM_ID } from '../codec/http2/frames.ts';
import type { HeaderField } from '../codec/http2/header-tables.ts';
import { type Endpoint, endpointOf } from '../hbone/endpoint.ts';
import type { Pipe } from '../hbone/types.ts';
import type { HttpServerConnection, HttpServerOptions } from './connections.ts';
import { Http2Connection } from './http2-connection.ts';
import { type Http2Request, readRequest, responseFields } from './http2-heads.ts';
import { Http2Stream } from './http2-stream.ts';
import type { BodySink, BodySource, RequestHead, ResponseHead, ServerExchange } from './types.ts';

const DRAIN_PING = Buffer.from('draining', 'latin1');
/** After the answer to that: a client's HTTP/2 layer answers before the client itself has heard, and what it asks meanwhile is not to be refused. */
const HEARD_MS = 1000;
/**
 * After that time, and before anything is refused: a second on our clock says nothing of a client that was not run meanwhile, or of what it sent
 * and has not come yet. What is answered to this one comes behind all that.
 */
const REFUSE_PING = Buffer.from('refusing', 'latin1');

/** Serves HTTP/2 with prior knowledge on a pipe of common/hbone, which is the connection's from now on. */
export const serveHttp2 = (pipe: Pipe, options: HttpServerOptions): HttpServerConnection => new Http2Server(endpointOf(pipe), options);

class Http2Server extends Http2Connection implements HttpServerConnection {
  place = -1;
  readonly #options: HttpServerOptions;
  #draining = false;
  /** Whoever has not asked anything yet is no longer waited for. */
  #ending = false;
  #heard: Timer | 'first request' | undefined;
  /** Streams after this one are refused: set by the second GOAWAY. */
  #lastStream = LARGEST_STREAM_ID;

  constructor(pipe: Endpoint, options: HttpServerOptions) {
    super(pipe, 'server', options.limits, options.clock, options.initial);
    this.#options = options;
  }

  /** Two GOAWAYs, so that what the client sent before it heard is still served (RFC 9113 §6.8). */
  drain(): void {
    if (this.#draining || this.over) return;
    this.#draining = true;
    this.sendGoaway(LARGEST_STREAM_ID, ErrorCode.NO_ERROR);
    this.sendPing(DRAIN_PING);
  }

  endIdle(): void {
    this.drain();
    this.#ending = true;
    if (this.#heard === 'first request') this.#refuseMore();
  }

  protected opened(streamId: number, fields: readonly HeaderField[], tooLarge: boolean, endStream: boolean): void {
    if ((streamId & 1) === 0)
      throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `a client's stream with the even number ${streamId}`);
    this.lastPeerStream = streamId;
    if (streamId > this.#lastStream || this.streams.size >= this.limits.maxConcurrentStreams) {
      this.guard.count('refused');
      this.refuseStream(streamId, ErrorCode.REFUSED_STREAM);
      return;
    }
    const request = tooLarge ? { status: 431 } : readRequest(fields, endStream);
    if (typeof request === 'string') {
      this.guard.count('malformed');
      this.refuseStream(streamId, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    if ('status' in request) {
      this.guard.count('malformed');
      this.sendHeaders(streamId, responseFields({ status: request.status, fields: [], bodyBytes: 0 }), true);
      // The answer is complete, and what the client still has to say does not matter (RFC 9113 §8.1).
      if (!endStream) this.refuseStream(streamId, ErrorCode.NO_ERROR);
      return;
    }
    const stream = new ServedStream(streamId, this, request, endStream);
    this.add(stream);
    this.#options.onExchange(stream);
    if (this.#heard === 'first request') this.#refuseMore();
  }

  /** The client opens nothing any more; it closes when it is done. */
  protected wentAway(): void {}

  protected greeted(): void {}

  protected pong(opaque: Buffer): void {
    if (!this.#draining) return;
    if (opaque.equals(DRAIN_PING)) this.#heard ??= this.clock.after(HEARD_MS, () => this.sendPing(REFUSE_PING));
    if (!opaque.equals(REFUSE_PING)) return;
    // Who connected to us while we were draining is about to ask something, and has nowhere else to have it answered.
    if (this.lastPeerStream === 0 && !this.#ending) this.#heard = 'first request';
    else this.#refuseMore();
  }

  #refuseMore(): void {
    if (this.over || this.#lastStream !== LARGEST_STREAM_ID) return;
    this.#lastStream = this.lastPeerStream;
    this.sendGoaway(this.#lastStream, ErrorCode.NO_ERROR);
    this.streamLeft();
  }

  protected streamLeft(): void {
    if (this.#lastStream !== LARGEST_STREAM_ID && this.streams.size === 0) this.close();
  }

  protected lost(error: ProxyError | undefined): void {
    if (typeof this.#heard === 'object') this.#heard.cancel();
    this.#options.onClose(error);
  }
}

class ServedStream extends Http2Stream implements ServerExchange {
  readonly head: RequestHead;
  readonly takesData = true;
  #responded = false;
  /** The stream carries another protocol. */
  #changed = false;
  #expectsContinue: boolean;
  #onGone: ((error: ProxyError) => void) | undefined;
  #gone: ProxyError | undefined;

  constructor(id: number, connection: Http2Server, request: Http2Request, endStream: boolean) {
    super(id, connection);
    this.head = request.head;
    this.#expectsContinue = request.expectsContinue;
    this.remoteEnded = endStream;
    this.expect(request.head.upgrade === undefined ? request.head.bodyBytes : undefined);
  }

  get body(): BodySource {
    return this;
  }

  inform(head: ResponseHead): void {
    if (this.#responded || !this.alive) return;
    if (head.status === 100) this.#expectsContinue = false;
    this.connection.sendHeaders(this.id, responseFields(head), false);
  }

  respond(head: ResponseHead, source: BodySource | undefined): BodySink {
    if (this.#responded) throw new Error('this request has been answered already');
    if (!this.alive) {
      this.#responded = true;
      this.localEnded = true;
      source?.cancel();
      return this;
    }
    // In HTTP/2 another protocol begins with a success (RFC 8441 §5).
    const changes = head.status === 101 && this.head.upgrade !== undefined;
    const bodiless =
      !changes && (head.bodyBytes === 0 || this.head.method === 'HEAD' || head.status === 204 || head.status === 304 || head.status < 200);
    const fields = responseFields(changes ? { status: 200, fields: head.fields, bodyBytes: undefined } : head);
    this.#responded = true;
    this.#changed = changes;
    this.source = source;
    this.connection.sendHeaders(this.id, fields, bodiless);
    if (!changes) this.announce(bodiless ? undefined : head.bodyBytes);
    if (bodiless) this.endWithHead();
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
    if (this.localEnded) return;
    this.quiet = true;
    this.reset(ErrorCode.INTERNAL_ERROR, error);
  }

  headers(fields: readonly HeaderField[], tooLarge: boolean, endStream: boolean): void {
    this.receiveTrailers(fields, tooLarge, endStream);
  }

  protected failed(error: ProxyError): void {
    if (this.localEnded) return;
    this.#gone = error;
    this.#onGone?.(error);
  }

  protected override outgoingDone(): void {
    // Another protocol's directions end each on its own.
    if (this.remoteEnded || !this.alive || this.#changed) return;
    // The answer is complete, and what the client still has to say does not matter (RFC 9113 §8.1).
    this.discardIncoming();
    this.quiet = true;
    this.reset(ErrorCode.NO_ERROR, ANSWERED);
  }

  protected override incomingWanted(): void {
    if (!this.#expectsContinue || this.#responded || !this.alive || this.bodyStarted) return;
    this.#expectsContinue = false;
    this.connection.sendHeaders(this.id, [[':status', '100']], false);
  }
}

const ANSWERED = new ProxyError('CONNECTION_LOST', 'the request was answered before it was whole');
