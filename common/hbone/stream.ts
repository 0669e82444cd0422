/**
 * One tunnel: a CONNECT stream and its two byte directions, each with its flow-control window. What the application does not take yet
 * waits here, within the window that was announced; what the peer does not take yet is at most one read, because the source is paused.
 */
import { ProxyError } from '../base/errors.ts';
import { ErrorCode, errorCodeName } from '../codec/http2/errors.ts';
import type { DataReceiver } from '../codec/http2/frame-decoder.ts';
import { Flag, rstStreamFrame, windowUpdateFrame } from '../codec/http2/frames.ts';
import { type ReceiveWindow, SendWindow } from '../codec/http2/windows.ts';
import { ByteQueue } from './byte-queue.ts';
import type { Endpoint, PipeReader } from './endpoint.ts';
import type { FloodGuard } from './flood-guard.ts';
import type { Outbox } from './outbox.ts';
import { forfeitReadBuffer, type ReadBuffer, returnReadBuffer, sharedReadBuffer } from './read-buffers.ts';
import { keep } from './receive-buffers.ts';
import { TunnelNotOpened } from './refusal.ts';
import type { Headers, StreamPipe } from './types.ts';

/** What streams share: their connection, as they see it. */
export interface StreamCarrier {
  readonly outbox: Outbox;
  readonly guard: FloodGuard;
  readonly sendWindow: SendWindow;
  /** Largest payload that the peer accepts. */
  readonly peerFrameSize: number;
  /** The code of a reset for a tunnel that nobody wants any more. */
  readonly cancelCode: number;
  /** Bytes that will not be held any longer; the connection's window grows by them in time. */
  release(bytes: number): void;
  /** `writable` is due once the windows and the socket allow. */
  awaitRoom(stream: TunnelStream): void;
  /** The stream takes no place on the connection any more. `reset` says whether we reset it, so that frames may still be coming. */
  left(stream: TunnelStream, reset: boolean): void;
}

/** Who waits for the answer to a CONNECT, or for our answer to one. Told once, unless the answer comes first. */
export interface HeadListener {
  /** A header block for the stream; the first final one is the answer. */
  head(fields: Headers, endStream: boolean): void;
  failed(error: ProxyError): void;
}

interface Pending {
  bytes: Buffer;
  /** Whether pieces of it have been sent. */
  begun: boolean;
  readonly buffer: ReadBuffer | undefined;
}

export class TunnelStream implements StreamPipe, Endpoint, DataReceiver {
  readonly kind = 'stream';
  readonly id: number;
  readonly sendWindow: SendWindow;
  headers: Headers = [];
  /** Which run of the outbox its answer is a part of. */
  answeredIn = -1;
  /** Not a CONNECT, so that what follows its head is a message's and not a tunnel's. */
  refusedMethod = false;
  /** Set until the CONNECT is answered. */
  waiting: HeadListener | undefined;
  readonly #carrier: StreamCarrier;
  readonly #receiveWindow: ReceiveWindow;
  #reader: PipeReader | undefined;
  readonly #inbox = new ByteQueue();
  /** Whether the reader takes more. */
  #flowing = false;
  /** Delivered, but the reader still holds it. */
  #held = 0;
  /** What a reader looked at and gave back. */
  #given: Buffer | undefined;
  #frameBytes = 0;
  /** Read but not yet sent, for want of a window. */
  #pending: Pending[] = [];
  #endAfterPending = false;
  #sourcePaused = false;
  /** END_STREAM was sent, or nothing can be sent any more. */
  #localEnded = false;
  /** END_STREAM or a reset was received. */
  #remoteEnded = false;
  #endDelivered = false;
  /** On the connection's list of streams. */
  #alive = true;
  #closed = false;
  #failure: ProxyError | undefined;

  constructor(id: number, carrier: StreamCarrier, sendWindow: number, receiveWindow: ReceiveWindow) {
    this.id = id;
    this.#carrier = carrier;
    this.sendWindow = new SendWindow(sendWindow);
    this.#receiveWindow = receiveWindow;
  }

  get remoteEnded(): boolean {
    return this.#remoteEnded;
  }

  get alive(): boolean {
    return this.#alive;
  }

  // From the connection.

  /** Accounts for a DATA frame that begins. @returns false where it is more than the stream's window */
  receive(length: number): boolean {
    return this.#receiveWindow.receive(length);
  }

  dataSlice(bytes: Buffer): void {
    this.#frameBytes += bytes.length;
    if (this.#closed) this.#carrier.release(bytes.length);
    else if (this.#flowing && this.#inbox.length === 0 && (this.#held === 0 || bytes.length > SMALL_SLICE)) this.#deliver(bytes);
    else this.#inbox.push(bytes);
  }

  dataEnd(padding: number, endStream: boolean): void {
    if (padding > 0) this.#consumed(padding);
    if (endStream) this.endRemote();
    else if (this.#frameBytes === 0) this.#carrier.guard.count('emptyData');
    this.#frameBytes = 0;
  }

  endRemote(): void {
    if (this.#remoteEnded) return;
    this.#remoteEnded = true;
    this.#leaveIfEnded();
    this.#deliverEnd();
  }

  /** RST_STREAM arrived. */
  resetByPeer(code: number): void {
    const orderly = code === ErrorCode.NO_ERROR || code === ErrorCode.CANCEL || code === ErrorCode.STREAM_CLOSED;
    const error = new ProxyError('CONNECTION_LOST', `the peer reset the tunnel: ${errorCodeName(code)}`);
    if (this.waiting || !orderly) {
      this.fail(code === ErrorCode.REFUSED_STREAM ? new TunnelNotOpened('the peer has no room for the stream') : error);
      return;
    }
    this.#stopSending();
    this.#remoteEnded = true;
    this.#leave(false);
    this.#deliverEnd();
  }

  /** The stream cannot go on: its connection is lost, or the peer reset it in anger. What was not delivered yet is dropped. */
  fail(error: ProxyError): void {
    this.#leave(false);
    this.#finish(error);
  }

  /** Ends the stream with RST_STREAM. */
  reset(code: number, error: ProxyError | undefined): void {
    if (this.#alive) this.#carrier.outbox.frame(rstStreamFrame(this.id, code));
    this.#leave(true);
    this.#finish(error);
  }

  /** Sends what the windows allow now, and lets the source go on when all is sent. */
  pump(): void {
    this.#sendPending();
    if (!this.#sourcePaused) return;
    if (this.#pending.length > 0 || this.#carrier.outbox.congested) {
      this.#carrier.awaitRoom(this);
      return;
    }
    this.#sourcePaused = false;
    this.#reader?.writable();
  }

  /** The answer that ended the wait was final and ended our direction too (a refusal). */
  endLocal(): void {
    this.#localEnded = true;
    this.#leaveIfEnded();
  }

  // From the relay.

  start(reader: PipeReader): void {
    if (this.#reader) throw new Error('this tunnel has a reader already');
    this.#reader = reader;
    if (this.#closed) {
      reader.closed(this.#failure);
      return;
    }
    const given = this.#given;
    this.#given = undefined;
    this.#flowing = true;
    if (given) this.#deliver(given);
    if (this.#flowing) this.resume();
  }

  giveBack(bytes: Buffer): void {
    this.#reader = undefined;
    this.#flowing = false;
    this.#endDelivered = false;
    if (bytes.length === 0) return;
    // It was held for the one that looked, and will be for the one that comes.
    this.#held -= bytes.length;
    this.#given = bytes;
  }

  get backlog(): number {
    return this.#pending.reduce((sum, { bytes }) => sum + bytes.length, 0);
  }

  resume(): void {
    this.#flowing = true;
    this.#settleHeld(this.#reader?.backlog ?? 0);
    while (this.#flowing && !this.#closed && this.#inbox.shift(this.#deliverPiece));
    this.#deliverEnd();
  }

  writeRead(buffer: ReadBuffer, length: number): boolean {
    const carrier = this.#carrier;
    const fits = length <= this.sendWindow.available && length <= carrier.sendWindow.available && length <= carrier.peerFrameSize;
    if (fits && this.#pending.length === 0 && !this.#localEnded) {
      this.sendWindow.available -= length;
      carrier.sendWindow.available -= length;
      carrier.outbox.read(this.id, buffer, length, buffer !== sharedReadBuffer);
      return carrier.outbox.congested ? this.#pauseSource() : true;
    }
    if (this.#localEnded) {
      returnReadBuffer(buffer);
      return true;
    }
    if (buffer === sharedReadBuffer) return this.writeSlice(Buffer.from(buffer.view.subarray(0, length)));
    return this.#queue({ bytes: buffer.view.subarray(0, length), begun: false, buffer });
  }

  writeSlice(bytes: Buffer): boolean {
    if (this.#localEnded) return true;
    // What leaves now is copied on its way; only what has to wait is kept.
    const sent = this.#pending.length === 0 ? this.#sendNow(bytes) : 0;
    if (sent < bytes.length) this.#pending.push({ bytes: keep(bytes.subarray(sent)), begun: false, buffer: undefined });
    return this.#sent();
  }

  end(): void {
    if (this.#localEnded || this.#endAfterPending) return;
    if (this.#pending.length > 0) this.#endAfterPending = true;
    else this.#sendEnd();
  }

  close(): void {
    if (this.#closed) return;
    if (this.#alive) {
      if (this.#pending.length === 0 && !this.#localEnded) this.#sendEnd();
      if (this.#alive) this.#carrier.outbox.frame(rstStreamFrame(this.id, this.#carrier.cancelCode));
      this.#leave(true);
    }
    this.#finish(undefined);
  }

  destroy(reason?: ProxyError): void {
    if (!this.#closed) this.reset(ErrorCode.CANCEL, reason);
  }

  readonly #deliverPiece = (bytes: Buffer): void => this.#deliver(bytes);

  #deliver(bytes: Buffer): void {
    if (this.#reader?.slice(bytes) === false) this.#flowing = false;
    this.#held += bytes.length;
    this.#settleHeld(this.#reader?.backlog ?? 0);
  }

  /** The peer may send as much again as the reader has got rid of. */
  #settleHeld(backlog: number): void {
    const rid = this.#held - backlog;
    if (rid <= 0) return;
    this.#held -= rid;
    this.#consumed(rid);
  }

  #deliverEnd(): void {
    if (!this.#remoteEnded || this.#endDelivered || this.#inbox.length > 0 || !this.#reader || this.#closed) return;
    this.#endDelivered = true;
    this.#reader.ended();
    this.#closeIfEnded();
  }

  #consumed(bytes: number): void {
    this.#carrier.release(bytes);
    if (this.#remoteEnded || !this.#alive) return;
    const increment = this.#receiveWindow.release(bytes);
    if (increment > 0) this.#carrier.outbox.frame(windowUpdateFrame(this.id, increment));
  }

  #queue(pending: Pending): boolean {
    this.#pending.push(pending);
    this.#sendPending();
    return this.#sent();
  }

  /** @returns whether the source may go on */
  #sent(): boolean {
    return this.#pending.length === 0 && !this.#carrier.outbox.congested ? true : this.#pauseSource();
  }

  /** @returns how many of them the windows allow */
  #sendNow(bytes: Buffer): number {
    const carrier = this.#carrier;
    let sent = 0;
    while (sent < bytes.length) {
      const room = Math.min(this.sendWindow.available, carrier.sendWindow.available, carrier.peerFrameSize, bytes.length - sent);
      if (room <= 0) break;
      this.sendWindow.available -= room;
      carrier.sendWindow.available -= room;
      carrier.outbox.data(this.id, room === bytes.length ? bytes : bytes.subarray(sent, sent + room), 0);
      sent += room;
    }
    return sent;
  }

  #pauseSource(): boolean {
    this.#sourcePaused = true;
    this.#carrier.awaitRoom(this);
    return false;
  }

  #sendPending(): void {
    const carrier = this.#carrier;
    for (;;) {
      const next = this.#pending[0];
      if (!next) break;
      const room = Math.min(this.sendWindow.available, carrier.sendWindow.available, carrier.peerFrameSize);
      if (room <= 0) return;
      const { buffer } = next;
      const last = next.bytes.length <= room;
      const piece = last ? next.bytes : next.bytes.subarray(0, room);
      this.sendWindow.available -= piece.length;
      carrier.sendWindow.available -= piece.length;
      if (last) this.#pending.shift();
      else {
        next.bytes = next.bytes.subarray(room);
        next.begun = true;
      }
      carrier.outbox.data(this.id, piece, 0, last && buffer ? () => returnReadBuffer(buffer) : undefined);
    }
    if (this.#endAfterPending) this.#sendEnd();
  }

  #sendEnd(): void {
    this.#endAfterPending = false;
    this.#localEnded = true;
    this.#carrier.outbox.data(this.id, NOTHING, Flag.END_STREAM);
    this.#leaveIfEnded();
    this.#closeIfEnded();
  }

  /** Nothing more is sent; what waited is dropped, and its source goes on into the void until it learns of the end. */
  #stopSending(): void {
    this.#localEnded = true;
    this.#endAfterPending = false;
    for (const { buffer, begun } of this.#pending) {
      if (buffer && begun) forfeitReadBuffer(buffer);
      else if (buffer) returnReadBuffer(buffer);
    }
    this.#pending = [];
    if (!this.#sourcePaused) return;
    this.#sourcePaused = false;
    this.#reader?.writable();
  }

  #leaveIfEnded(): void {
    if (this.#localEnded && this.#remoteEnded) this.#leave(false);
  }

  #leave(reset: boolean): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#carrier.left(this, reset);
  }

  #closeIfEnded(): void {
    if (this.#localEnded && this.#endDelivered) this.#finish(undefined);
  }

  #finish(error: ProxyError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#failure = error;
    this.#stopSending();
    this.#carrier.release(this.#inbox.length + this.#held + (this.#given?.length ?? 0));
    this.#held = 0;
    this.#given = undefined;
    this.#inbox.clear();
    const { waiting } = this;
    this.waiting = undefined;
    waiting?.failed(error ?? new ProxyError('CONNECTION_LOST', 'the tunnel was closed before it was answered'));
    this.#reader?.closed(error);
  }
}

const NOTHING = Buffer.alloc(0);
/** Pieces up to here wait while the reader holds others, and are joined meanwhile: a million of one byte must not cost a million writes. */
const SMALL_SLICE = 2048;
