/**
 * One request and its response on an HTTP/1.1 connection: the message that comes in, as a source, and the message that goes out, as a
 * sink. Both sides of a connection have one of each, so both build on this; one object for all of it, because there is one per request.
 */
import { ProxyError } from '../base/errors.ts';
import { Framing } from '../codec/http1/framing.ts';
import { trailerText } from '../codec/http1/write.ts';
import type { Http1Connection } from './http1-connection.ts';
import type { BodySink, BodySource, Fields } from './types.ts';

export abstract class Http1Exchange implements BodySource, BodySink {
  /** Bytes of the incoming body beyond the head were handed on. */
  bodyStarted = false;
  /** The incoming message is whole. */
  incomingEnded = false;
  /** The outgoing message is whole, or nobody will say more of it. */
  outgoingEnded = false;
  /** Bytes of the outgoing body that are still to come, or one of Framing. */
  protected outgoing = 0;
  /** What is sent has no body, whatever is said (HEAD, 204, 304). */
  protected bodiless = false;
  protected source: BodySource | undefined;
  readonly #connection: Http1Connection;
  #sink: BodySink | undefined;
  #trailers: Fields | undefined;
  #failure: ProxyError | undefined;
  #discarded = 0;
  #discarding = false;
  /** `data` returned false. */
  #sourceWaits = false;

  constructor(connection: Http1Connection) {
    this.#connection = connection;
  }

  /** Whether incoming bytes have somewhere to go. */
  get wanted(): boolean {
    return this.#sink !== undefined || this.#discarding;
  }

  /** Bytes of the incoming body that nobody wanted. */
  get discarded(): number {
    return this.#discarded;
  }

  // BodySource: the incoming message.

  into(sink: BodySink): void {
    if (this.#sink) throw new Error('this body has a sink already');
    if (this.#discarding) return;
    this.#sink = sink;
    if (this.#failure) sink.abort(this.#failure);
    else if (this.incomingEnded) sink.end(this.#trailers);
    else {
      this.incomingWanted();
      this.#connection.letIn();
    }
  }

  resume(): void {
    if (!this.incomingEnded && this.wanted) this.#connection.letIn();
  }

  abstract cancel(): void;

  /** @returns whether to go on */
  receive(bytes: Buffer): boolean {
    if (this.#discarding) {
      this.#discarded += bytes.length;
      return true;
    }
    this.bodyStarted = true;
    return this.#sink?.data(bytes) ?? true;
  }

  endIncoming(trailers: Fields | undefined): void {
    if (this.incomingEnded) return;
    this.incomingEnded = true;
    this.#trailers = trailers;
    if (!this.#discarding) this.#sink?.end(trailers);
  }

  failIncoming(error: ProxyError): void {
    if (this.incomingEnded) return;
    this.incomingEnded = true;
    this.#failure = error;
    if (!this.#discarding) this.#sink?.abort(error);
  }

  /** What still comes in goes nowhere. */
  protected discardIncoming(): void {
    this.#discarding = true;
    if (!this.incomingEnded) this.#connection.letIn();
  }

  /** Somebody takes the incoming body, for the first time. */
  protected incomingWanted(): void {}

  // BodySink: the outgoing message.

  data(chunk: Buffer): boolean {
    if (this.outgoingEnded || this.bodiless || chunk.length === 0) return true;
    const { output } = this.#connection;
    if (this.outgoing >= 0) {
      if (chunk.length > this.outgoing) {
        this.abort(new ProxyError('CONNECTION_LOST', 'a body longer than its Content-Length'));
        return true;
      }
      this.outgoing -= chunk.length;
      output.bytes(chunk);
    } else if (this.outgoing === Framing.CHUNKED) {
      output.text(`${chunk.length.toString(16)}\r\n`);
      output.bytes(chunk);
      output.text('\r\n');
    } else output.bytes(chunk);
    if (!output.blocked) return true;
    this.#sourceWaits = true;
    return false;
  }

  end(trailers: Fields | undefined): void {
    if (this.outgoingEnded) return;
    const { output } = this.#connection;
    if (this.outgoing > 0 && !this.bodiless) {
      this.abort(new ProxyError('CONNECTION_LOST', `a body ${this.outgoing} bytes shorter than its Content-Length`));
      return;
    }
    if (this.outgoing === Framing.CHUNKED && !this.bodiless) {
      if (trailers === undefined) output.text('0\r\n\r\n');
      else output.head(trailerText(trailers));
    }
    this.outgoingEnded = true;
    this.outgoingDone();
  }

  abstract abort(error: ProxyError): void;

  protected abstract outgoingDone(): void;

  /** The connection takes more. */
  roomOut(): void {
    if (!this.#sourceWaits) return;
    this.#sourceWaits = false;
    this.source?.resume();
  }

  /** Nothing can be sent any more. */
  cancelOutgoing(): void {
    if (this.outgoingEnded) return;
    this.outgoingEnded = true;
    this.source?.cancel();
  }
}
