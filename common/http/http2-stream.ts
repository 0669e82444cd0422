/**
 * One request and its response on an HTTP/2 connection, as both sides see it: a message that comes in and one that goes out, each with its
 * flow-control window. What the receiver does not take waits here, within the window; what the peer does not take is at most one piece,
 * because its source is held back.
 */
import { ProxyError } from '../base/errors.ts';
import { ErrorCode, errorCodeName } from '../codec/http2/errors.ts';
import type { DataReceiver } from '../codec/http2/frame-decoder.ts';
import { Flag, rstStreamFrame, windowUpdateFrame } from '../codec/http2/frames.ts';
import type { HeaderField } from '../codec/http2/header-tables.ts';
import type { PeerSettings } from '../codec/http2/settings.ts';
import { ReceiveWindow, SendWindow } from '../codec/http2/windows.ts';
import { ByteQueue } from '../hbone/byte-queue.ts';
import type { FloodGuard } from '../hbone/flood-guard.ts';
import { holderOf } from '../hbone/receive-buffers.ts';
import { readTrailers, trailerFields } from './http2-heads.ts';
import type { Output } from './output.ts';
import type { BodySink, BodySource, Fields } from './types.ts';

/** Bytes of a stream that the peer may send before they are taken. */
export const STREAM_WINDOW = 256 << 10;

/** What streams share: their connection, as they see it. */
export interface StreamHost {
  readonly output: Output;
  readonly guard: FloodGuard;
  readonly sendWindow: SendWindow;
  readonly peer: PeerSettings;
  sendHeaders(streamId: number, fields: readonly HeaderField[], endStream: boolean): void;
  /** Bytes that are not held any longer; the connection's window grows by them in time. */
  release(bytes: number): void;
  /** `pump` is due once the windows and the pipe allow. */
  awaitRoom(stream: Http2Stream): void;
  /** The stream takes no place on the connection any more. `reset`: by us, so that frames may still be coming. */
  left(stream: Http2Stream, reset: boolean): void;
  /** The peer broke a rule that concerns the stream only. */
  streamError(streamId: number, code: number, message: string): void;
}

export abstract class Http2Stream implements BodySource, BodySink, DataReceiver {
  readonly id: number;
  readonly sendWindow: SendWindow;
  bodyStarted = false;
  /** END_STREAM was sent, or nothing more will be. */
  localEnded = false;
  /** END_STREAM was received, or nothing more is expected. */
  remoteEnded = false;
  protected source: BodySource | undefined;
  /** Its owner ended it, and wants to hear no more of it. */
  protected quiet = false;
  protected readonly connection: StreamHost;
  readonly #receiveWindow = new ReceiveWindow(STREAM_WINDOW);
  /** On the connection's list. */
  #alive = true;

  #sink: BodySink | undefined;
  readonly #inbox = new ByteQueue();
  #flowing = false;
  #discarding = false;
  #frameBytes = 0;
  /** Of the content-length: what is still to come. */
  #expected: number | undefined;
  #trailers: Fields | undefined;
  #endDelivered = false;
  #failure: ProxyError | undefined;

  /** Bytes that the windows did not let go yet. */
  #pending: Buffer | undefined;
  #announced: number | undefined;
  #ending: { readonly trailers: Fields | undefined } | undefined;
  #sourceWaits = false;

  constructor(id: number, connection: StreamHost) {
    this.id = id;
    this.connection = connection;
    this.sendWindow = new SendWindow(connection.peer.initialWindowSize);
  }

  get alive(): boolean {
    return this.#alive;
  }

  // For the sides.

  /** Whether a body may come now: not before its head. */
  abstract readonly takesData: boolean;
  /** A header block on this stream that is not its first. */
  abstract headers(fields: readonly HeaderField[], tooLarge: boolean, endStream: boolean): void;
  /** The stream failed before it was whole: the peer reset it, broke the rules, or its connection is lost. */
  protected abstract failed(error: ProxyError, unsent: boolean): void;
  protected outgoingDone(): void {}
  protected incomingWanted(): void {}

  /** What the incoming head said of its body. */
  protected expect(bodyBytes: number | undefined): void {
    this.#expected = bodyBytes;
  }

  /** What the outgoing head said of its body. */
  protected announce(bodyBytes: number | undefined): void {
    this.#announced = bodyBytes;
  }

  protected receiveTrailers(fields: readonly HeaderField[], tooLarge: boolean, endStream: boolean): void {
    const read = tooLarge ? 'trailers that are too large' : endStream ? readTrailers(fields) : 'trailers that do not end the stream';
    if (typeof read === 'string') this.connection.streamError(this.id, ErrorCode.PROTOCOL_ERROR, read);
    else this.endRemote(read.trailers);
  }

  // From the connection.

  /** Accounts for a DATA frame that begins. @returns false where it is more than the stream's window */
  receive(length: number): boolean {
    return this.#receiveWindow.receive(length);
  }

  dataSlice(bytes: Buffer): void {
    this.#frameBytes += bytes.length;
    if (this.#expected !== undefined) {
      this.#expected -= bytes.length;
      if (this.#expected < 0) {
        this.#consumed(bytes.length);
        if (this.#alive) this.connection.streamError(this.id, ErrorCode.PROTOCOL_ERROR, 'a body longer than its content-length');
        return;
      }
    }
    if (this.#discarding || !this.#alive) this.#consumed(bytes.length);
    else if (this.#flowing && this.#inbox.length === 0) this.#deliver(bytes);
    // The queue copies small pieces itself, and holds what can be held; the memory of others is the pipe's.
    else this.#inbox.push(bytes.length < 2048 || holderOf(bytes) ? bytes : Buffer.from(bytes));
  }

  dataEnd(padding: number, endStream: boolean): void {
    if (padding > 0) this.#consumed(padding);
    if (endStream) this.endRemote(undefined);
    else if (this.#frameBytes === 0) this.connection.guard.count('emptyData');
    this.#frameBytes = 0;
  }

  endRemote(trailers: Fields | undefined): void {
    if (this.remoteEnded) return;
    if ((this.#expected ?? 0) > 0) {
      this.connection.streamError(this.id, ErrorCode.PROTOCOL_ERROR, 'a body shorter than its content-length');
      return;
    }
    this.remoteEnded = true;
    this.#trailers = trailers;
    this.#leaveIfEnded();
    this.#deliverEnd();
  }

  /** RST_STREAM arrived. */
  resetByPeer(code: number): void {
    const refused = code === ErrorCode.REFUSED_STREAM;
    this.fail(new ProxyError('CONNECTION_LOST', `the peer reset the stream: ${errorCodeName(code)}`), refused);
  }

  /** The stream cannot go on. What was not delivered yet is dropped. */
  fail(error: ProxyError, unsent: boolean): void {
    if (!this.#alive) return;
    this.#leave(false);
    this.#finish(error, unsent);
  }

  /** Ends the stream with RST_STREAM; `error` is what the other side of the proxy is told. */
  reset(code: number, error: ProxyError): void {
    if (!this.#alive) return;
    this.connection.output.frame(rstStreamFrame(this.id, code));
    this.#leave(true);
    this.#finish(error, false);
  }

  /** Sends what the windows allow now, and lets the source go on when all is sent. */
  pump(): void {
    const { connection } = this;
    if (this.#pending) {
      const rest = this.#send(this.#pending);
      this.#pending = rest;
      if (rest) {
        connection.awaitRoom(this);
        return;
      }
      if (this.#ending) this.#sendEnd(this.#ending.trailers);
    }
    if (!this.#sourceWaits) return;
    if (connection.output.blocked) {
      connection.awaitRoom(this);
      return;
    }
    this.#sourceWaits = false;
    this.source?.resume();
  }

  // BodySource: the incoming message.

  into(sink: BodySink): void {
    if (this.#sink) throw new Error('this body has a sink already');
    if (this.#discarding) return;
    this.#sink = sink;
    if (this.#failure) {
      sink.abort(this.#failure);
      return;
    }
    this.incomingWanted();
    this.resume();
  }

  resume(): void {
    if (!this.#sink || this.#failure) return;
    this.#flowing = true;
    while (this.#flowing && this.#inbox.shift(this.#deliverPiece));
    this.#deliverEnd();
  }

  abstract cancel(): void;

  /** What still comes in goes nowhere. */
  protected discardIncoming(): void {
    if (this.#discarding) return;
    this.#discarding = true;
    const held = this.#inbox.length;
    this.#inbox.clear();
    this.#consumed(held);
  }

  // BodySink: the outgoing message.

  data(chunk: Buffer): boolean {
    if (this.localEnded || chunk.length === 0) return true;
    if (this.#announced !== undefined) {
      this.#announced -= chunk.length;
      if (this.#announced < 0) {
        this.abort(new ProxyError('CONNECTION_LOST', 'a body longer than its content-length'));
        return true;
      }
    }
    if (this.#pending) this.#pending = Buffer.concat([this.#pending, chunk]);
    else {
      const rest = this.#send(chunk);
      // The chunk is the caller's; only a copy may wait.
      if (rest) this.#pending = Buffer.from(rest);
    }
    if (!this.#pending && !this.connection.output.blocked) return true;
    this.#sourceWaits = true;
    this.connection.awaitRoom(this);
    return false;
  }

  end(trailers: Fields | undefined): void {
    if (this.localEnded || this.#ending) return;
    if ((this.#announced ?? 0) > 0) {
      this.abort(new ProxyError('CONNECTION_LOST', `a body ${this.#announced} bytes shorter than its content-length`));
      return;
    }
    if (this.#pending) this.#ending = { trailers };
    else this.#sendEnd(trailers);
  }

  abstract abort(error: ProxyError): void;

  /** The head that was sent said that nothing follows it. */
  protected endWithHead(): void {
    this.localEnded = true;
    this.outgoingDone();
    this.#leaveIfEnded();
  }

  /** Nothing more is sent. */
  protected stopSending(): void {
    this.#pending = undefined;
    this.#ending = undefined;
    if (this.localEnded) return;
    this.localEnded = true;
    this.source?.cancel();
  }

  /** @returns what the windows hold back */
  #send(bytes: Buffer): Buffer | undefined {
    const { connection } = this;
    let at = 0;
    while (at < bytes.length) {
      const room = Math.min(this.sendWindow.available, connection.sendWindow.available, connection.peer.maxFrameSize);
      if (room <= 0) return at === 0 ? bytes : bytes.subarray(at);
      const piece = at === 0 && bytes.length <= room ? bytes : bytes.subarray(at, at + room);
      this.sendWindow.available -= piece.length;
      connection.sendWindow.available -= piece.length;
      connection.output.data(this.id, piece, 0);
      at += piece.length;
    }
    return undefined;
  }

  #sendEnd(trailers: Fields | undefined): void {
    this.#ending = undefined;
    this.localEnded = true;
    const { connection } = this;
    if (trailers !== undefined) connection.sendHeaders(this.id, trailerFields(trailers), true);
    else if (!connection.output.endData(this.id)) connection.output.data(this.id, NOTHING, Flag.END_STREAM);
    this.outgoingDone();
    this.#leaveIfEnded();
  }

  readonly #deliverPiece = (bytes: Buffer): void => this.#deliver(bytes);

  #deliver(bytes: Buffer): void {
    this.bodyStarted = true;
    if (this.#sink?.data(bytes) === false) this.#flowing = false;
    this.#consumed(bytes.length);
  }

  #deliverEnd(): void {
    if (!this.remoteEnded || this.#endDelivered || this.#inbox.length > 0 || !this.#sink || this.#discarding || this.#failure) return;
    this.#endDelivered = true;
    this.#sink.end(this.#trailers);
  }

  #consumed(bytes: number): void {
    if (bytes === 0) return;
    this.connection.release(bytes);
    if (this.remoteEnded || !this.#alive) return;
    const increment = this.#receiveWindow.release(bytes);
    if (increment > 0) this.connection.output.frame(windowUpdateFrame(this.id, increment));
  }

  #leaveIfEnded(): void {
    if (this.localEnded && this.remoteEnded) this.#leave(false);
  }

  #leave(reset: boolean): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.connection.left(this, reset);
  }

  #finish(error: ProxyError, unsent: boolean): void {
    // What came in whole can still be delivered.
    const whole = this.remoteEnded;
    if (!whole) {
      this.#failure = error;
      this.remoteEnded = true;
      const held = this.#inbox.length;
      this.#inbox.clear();
      this.connection.release(held);
    }
    if (!this.quiet) {
      this.failed(error, unsent);
      if (!whole && !this.#discarding) this.#sink?.abort(error);
    }
    this.stopSending();
  }
}

const NOTHING = Buffer.alloc(0);
