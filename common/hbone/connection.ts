/**
 * One HTTP/2 connection that carries tunnels: the part that client and server have in common (a cohesive state machine, RFC 9113 §5-6).
 * Frames come in by the codec's callbacks, streams find their windows here, and whatever breaks the protocol ends here with a GOAWAY and
 * one reason.
 */
import net from 'node:net';
import type { Duplex } from 'node:stream';
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { ErrorCode, errorCodeName, Http2ConnectionError } from '../codec/http2/errors.ts';
import { type DataReceiver, FrameDecoder, type FrameHandler } from '../codec/http2/frame-decoder.ts';
import {
  CONNECTION_PREFACE,
  DEFAULT_WINDOW,
  goawayFrame,
  headerFrames,
  LARGEST_STREAM_ID,
  LARGEST_WINDOW,
  pingFrame,
  rstStreamFrame,
  Setting,
  type SettingEntries,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../codec/http2/frames.ts';
import { HpackDecoder } from '../codec/http2/hpack-decoder.ts';
import { HpackEncoder } from '../codec/http2/hpack-encoder.ts';
import { applySettings, defaultPeerSettings } from '../codec/http2/settings.ts';
import { StreamTable } from '../codec/http2/stream-table.ts';
import { ReceiveWindow, SendWindow } from '../codec/http2/windows.ts';
import { FloodGuard } from './flood-guard.ts';
import { Keepalive, PONG_TIMEOUT_MS } from './keepalive.ts';
import { Outbox } from './outbox.ts';
import { receiveFrom } from './receive-buffers.ts';
import { type StreamCarrier, TunnelStream } from './stream.ts';
import type { HboneLimits, Headers } from './types.ts';

/** The half of the connection that client and server do differently. */
export interface ConnectionRole {
  /** A header block for a stream that nobody has opened yet. */
  opened(streamId: number, fields: Headers, tooLarge: boolean, endStream: boolean): void;
  /** The peer will not take streams after this one. */
  goaway(lastStreamId: number): void;
  /** The answer to a `ping` with this payload. */
  pong(opaque: Buffer): void;
  /** A stream has left the list. */
  streamLeft(): void;
  /** The socket is closed and all streams are told; the last word. */
  closed(error: ProxyError | undefined): void;
}

export interface ConnectionOptions {
  readonly side: 'client' | 'server';
  readonly limits: HboneLimits;
  readonly clock: Clock;
}

/** Time for the peer's preface and SETTINGS, and for a header block to be complete. */
export const HANDSHAKE_TIMEOUT_MS = 10_000;
export const HEADER_BLOCK_TIMEOUT_MS = 10_000;
/** Time for what was written last (a GOAWAY) to leave before the socket is cut off. */
const CLOSE_TIMEOUT_MS = 1_000;
/** Without a window for so long a connection is no place for another stream. */
const STALLED_AFTER_MS = 1_000;
/** Streams that we reset and whose late frames are still excused. */
const MAX_RECENT_RESETS = 1024;
/** A tunnel's CONNECT takes one or two CONTINUATION frames at most. */
const MAX_CONTINUATIONS = 16;
const KEEPALIVE_PING = Buffer.from('keep-up!', 'latin1');
/** Fields whose values differ from one tunnel to the next. */
const UNINDEXED: ReadonlySet<string> = new Set(['traceparent', 'forwarded', 'x-warren-refusal', 'date']);

export class TunnelConnection implements FrameHandler, StreamCarrier {
  readonly outbox: Outbox;
  readonly guard: FloodGuard;
  readonly sendWindow = new SendWindow(DEFAULT_WINDOW);
  readonly streams = new StreamTable<TunnelStream>();
  readonly cancelCode: number;
  peer = defaultPeerSettings;
  /** The highest stream that the peer has opened. */
  lastPeerStream = 0;
  readonly #socket: Duplex;
  readonly #side: 'client' | 'server';
  readonly #limits: HboneLimits;
  readonly #clock: Clock;
  readonly #role: ConnectionRole;
  readonly #decoder: FrameDecoder;
  readonly #headerDecoder: HpackDecoder;
  readonly #headerEncoder = new HpackEncoder({ unindexed: UNINDEXED });
  readonly #receiveWindow: ReceiveWindow;
  readonly #keepalive: Keepalive;
  readonly #roomAwaited = new Set<TunnelStream>();
  /** Streams that we reset, and in which run of the outbox. */
  readonly #recentResets = new Map<number, number>();
  #greetingTimer: Timer | undefined;
  #headerTimer: Timer | undefined;
  #closeTimer: Timer | undefined;
  /** The highest stream that we have opened. */
  #lastOwnStream: number;
  #windowGrewAt = 0;
  /** The peer has acknowledged our SETTINGS, and keeps to our windows. */
  #settingsHeard = false;
  #closing = false;
  #closed = false;
  #error: ProxyError | undefined;

  constructor(socket: Duplex, { side, limits, clock }: ConnectionOptions, role: ConnectionRole) {
    this.#socket = socket;
    this.#side = side;
    this.#limits = limits;
    this.#clock = clock;
    this.#role = role;
    this.outbox = new Outbox(socket);
    this.guard = new FloodGuard(clock);
    this.#receiveWindow = new ReceiveWindow(Math.max(limits.connectionWindow, DEFAULT_WINDOW));
    this.#headerDecoder = new HpackDecoder(limits.maxHeaderListSize);
    this.#lastOwnStream = side === 'client' ? -1 : 0;
    // A server that has answered and wants no more says so without error (RFC 9113 §8.1); a client cancels.
    this.cancelCode = side === 'client' ? ErrorCode.CANCEL : ErrorCode.NO_ERROR;
    const maxHeaderBlock = Math.max(limits.maxHeaderListSize, 16 << 10);
    this.#decoder = new FrameDecoder(
      { expectPreface: side === 'server', maxFrameSize: limits.maxFrameSize, maxHeaderBlock, maxContinuations: MAX_CONTINUATIONS },
      this,
    );
    this.#keepalive = new Keepalive({ clock, ping: () => this.sendPing(KEEPALIVE_PING), dead: () => this.#dead() });
    this.#greetingTimer = clock.after(HANDSHAKE_TIMEOUT_MS, () =>
      this.fail(new Http2ConnectionError(ErrorCode.SETTINGS_TIMEOUT, `no SETTINGS within ${HANDSHAKE_TIMEOUT_MS / 1000} s`)),
    );
    if (socket instanceof net.Socket) socket.setNoDelay(true);
    this.#greet();
    receiveFrom(socket, (piece) => this.#receive(piece));
    socket
      .on('drain', () => this.#roomForAll())
      .on('end', () => this.#lost(new ProxyError('CONNECTION_LOST', 'the peer closed the tunnel connection')))
      .on('error', (error) => this.#lost(ProxyError.from(error, 'CONNECTION_LOST', 'tunnel connection')))
      .on('close', () => this.#gone());
    if (socket.destroyed) queueMicrotask(() => this.#gone());
  }

  get peerFrameSize(): number {
    return this.peer.maxFrameSize;
  }

  /** Whether nothing more is opened or accepted, because the connection is closed or about to be. */
  get over(): boolean {
    return this.#closing || this.#closed;
  }

  /**
   * Whether nothing can be sent on any stream for want of the connection's window, and that for a while: a few applications that do not
   * read are enough (Istio's ztunnel, src/proxy/h2 gives the connection four streams' worth).
   */
  get stalled(): boolean {
    return this.sendWindow.available <= 0 && this.#clock.monotonic() - this.#windowGrewAt >= STALLED_AFTER_MS;
  }

  // For the roles.

  /** Puts a stream on the list. */
  add(id: number): TunnelStream {
    const { streamWindow } = this.#limits;
    const receiveWindow = new ReceiveWindow(streamWindow, this.#settingsHeard ? streamWindow : DEFAULT_WINDOW);
    const stream = new TunnelStream(id, this, this.peer.initialWindowSize, receiveWindow);
    this.streams.add(stream);
    this.outbox.eager = this.streams.size <= 1;
    return stream;
  }

  /** The next stream of our own; undefined when the numbers are used up. */
  nextStreamId(): number | undefined {
    if (this.#lastOwnStream + 2 > LARGEST_STREAM_ID) return undefined;
    this.#lastOwnStream += 2;
    return this.#lastOwnStream;
  }

  sendHeaders(streamId: number, fields: Headers, endStream: boolean): void {
    const block = this.#headerEncoder.encode(fields);
    this.outbox.frame(headerFrames(streamId, block, endStream, this.peer.maxFrameSize));
  }

  sendGoaway(lastStreamId: number, code: number, debug = ''): void {
    this.outbox.frame(goawayFrame(lastStreamId, code, debug));
  }

  sendPing(opaque: Buffer): void {
    this.outbox.frame(pingFrame(opaque, false));
  }

  /** Resets a stream that is not on the list. */
  refuseStream(streamId: number, code: number): void {
    this.#excuse(streamId);
    this.outbox.frame(rstStreamFrame(streamId, code));
  }

  /** Closes the socket when what was written has left; streams that are still open fail. */
  close(error?: ProxyError): void {
    if (this.over) return;
    this.#closing = true;
    this.#error ??= error;
    this.#decoder.stop();
    this.#stopTimers();
    this.outbox.flush();
    this.#failStreams(error ?? new ProxyError('CONNECTION_LOST', 'the tunnel connection was closed'));
    this.#socket.end();
    this.#closeTimer = this.#clock.after(CLOSE_TIMEOUT_MS, () => this.#socket.destroy());
  }

  /** The peer broke the protocol, or we did: GOAWAY with the code and the reason, then the end. */
  fail(reason: unknown): void {
    if (this.over) return;
    const code = reason instanceof Http2ConnectionError ? reason.code : ErrorCode.INTERNAL_ERROR;
    const message = `${errorCodeName(code)}: ${errorMessage(reason)}`;
    this.sendGoaway(this.lastPeerStream, code, errorMessage(reason));
    this.close(new ProxyError('HTTP2_FAILURE', message, { cause: reason }));
  }

  destroy(error?: ProxyError): void {
    if (this.#closed) return;
    this.#error ??= error;
    this.#decoder.stop();
    this.#socket.destroy();
    this.#lost(error ?? new ProxyError('CONNECTION_LOST', 'the tunnel connection was torn down'));
  }

  // For the streams.

  release(bytes: number): void {
    const increment = this.#receiveWindow.release(bytes);
    if (increment > 0 && !this.over) this.outbox.frame(windowUpdateFrame(0, increment));
  }

  awaitRoom(stream: TunnelStream): void {
    this.#roomAwaited.add(stream);
  }

  left(stream: TunnelStream, reset: boolean): void {
    this.streams.delete(stream.id);
    this.#roomAwaited.delete(stream);
    if (reset) this.#excuse(stream.id);
    this.outbox.eager = this.streams.size <= 1;
    this.#role.streamLeft();
  }

  // From the codec.

  dataStart(streamId: number, length: number): DataReceiver | undefined {
    if (!this.#receiveWindow.receive(length)) {
      throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows");
    }
    const stream = this.streams.get(streamId);
    if (!stream) this.#onClosedStream(streamId, 'DATA');
    else if (stream.remoteEnded) this.streamError(streamId, ErrorCode.STREAM_CLOSED, 'DATA after END_STREAM');
    else if (stream.waiting && this.#side === 'client') this.streamError(streamId, ErrorCode.PROTOCOL_ERROR, 'DATA before the response');
    else if (stream.receive(length)) return stream;
    else this.streamError(streamId, ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window allows");
    if (length === 0) this.guard.count('emptyData');
    this.release(length);
    return undefined;
  }

  headers(streamId: number, block: Buffer, endStream: boolean): void {
    this.#headerTimer?.cancel();
    this.#headerTimer = undefined;
    // Every block is decoded, wanted or not: the next one builds on it.
    const { fields, tooLarge } = this.#headerDecoder.decode(block);
    const stream = this.streams.get(streamId);
    if (!stream) {
      if (this.#isIdle(streamId)) this.#role.opened(streamId, fields, tooLarge, endStream);
      else this.#onClosedStream(streamId, 'HEADERS');
    } else if (stream.remoteEnded) this.streamError(streamId, ErrorCode.STREAM_CLOSED, 'HEADERS after END_STREAM');
    else if (stream.waiting && this.#side === 'client') stream.waiting.head(fields, endStream);
    // Trailers of a request that is no CONNECT, before its refusal has left: it deserves the refusal.
    else if (stream.refusedMethod && endStream) stream.endRemote();
    // A tunnel has no trailers (RFC 9113 §8.5).
    else this.streamError(streamId, ErrorCode.PROTOCOL_ERROR, 'HEADERS inside a tunnel');
  }

  rstStream(streamId: number, code: number): void {
    const stream = this.streams.get(streamId);
    if (stream) {
      // Who does not wait for the answer is counted, whether it is still made or has not left yet.
      if (this.#side === 'server' && (stream.waiting || stream.answeredIn === this.outbox.runs)) this.guard.count('reset');
      stream.resetByPeer(code);
      return;
    }
    // A stream may end on both sides at once; a reset that comes late is no offence, and whoever sent it sends nothing after it.
    if (this.#isIdle(streamId)) throw idle('RST_STREAM', streamId);
    if (this.#side === 'server' && this.#recentResets.get(streamId) === this.outbox.runs) this.guard.count('reset');
    this.#recentResets.delete(streamId);
  }

  settings(entries: SettingEntries): void {
    this.guard.count('settings');
    const before = this.peer;
    this.peer = applySettings(before, entries);
    if (this.#side === 'client' && entries.some(([id, value]) => id === Setting.ENABLE_PUSH && value !== 0)) {
      throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, 'a server that enables push');
    }
    this.#greetingTimer?.cancel();
    this.#headerEncoder.setPeerTableSize(this.peer.headerTableSize);
    const delta = this.peer.initialWindowSize - before.initialWindowSize;
    for (const stream of this.streams.all()) {
      if (!stream.sendWindow.grow(delta)) throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a stream window beyond 2^31-1');
    }
    this.outbox.frame(settingsAckFrame());
    if (delta > 0) this.#roomForAll();
  }

  settingsAck(): void {
    this.#settingsHeard = true;
    this.guard.count('settings');
  }

  ping(opaque: Buffer, ack: boolean): void {
    if (!ack) {
      this.guard.count('ping');
      this.outbox.frame(pingFrame(opaque, true));
    } else if (opaque.equals(KEEPALIVE_PING)) this.#keepalive.pong();
    else this.#role.pong(opaque);
  }

  goaway(lastStreamId: number, code: number, debug: string): void {
    if (code !== ErrorCode.NO_ERROR) {
      const reason = debug === '' ? '' : ` (${debug})`;
      this.#error ??= new ProxyError('HTTP2_FAILURE', `the peer ended the connection: ${errorCodeName(code)}${reason}`);
    }
    this.#role.goaway(lastStreamId);
  }

  windowUpdate(streamId: number, increment: number): void {
    if (streamId === 0) {
      this.#windowGrewAt = this.#clock.monotonic();
      if (!this.sendWindow.grow(increment))
        throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a connection window beyond 2^31-1');
      this.#roomForAll();
      return;
    }
    const stream = this.streams.get(streamId);
    if (!stream) {
      if (this.#isIdle(streamId)) throw idle('WINDOW_UPDATE', streamId);
    } else if (!stream.sendWindow.grow(increment)) {
      this.streamError(streamId, ErrorCode.FLOW_CONTROL_ERROR, 'a stream window beyond 2^31-1');
    } else if (this.#roomAwaited.delete(stream)) stream.pump();
  }

  ignored(): void {
    this.guard.count('ignored');
  }

  streamError(streamId: number, code: number, message: string): void {
    this.guard.count('malformed');
    const stream = this.streams.get(streamId);
    if (stream) stream.reset(code, new ProxyError('HTTP2_FAILURE', `${errorCodeName(code)}: ${message}`));
    // A stream that was never opened cannot be reset, so the error is the connection's (RFC 9113 §5.4.1 lets us).
    else if (this.#isIdle(streamId)) throw new Http2ConnectionError(code, message);
    else this.refuseStream(streamId, code);
  }

  /** Frames that were under way when we reset the stream are excused; others are the peer's error. */
  #onClosedStream(streamId: number, what: string): void {
    if (this.#isIdle(streamId)) throw idle(what, streamId);
    if (this.#recentResets.has(streamId)) return;
    this.guard.count('closed');
    if (what === 'HEADERS') throw new Http2ConnectionError(ErrorCode.STREAM_CLOSED, `HEADERS on stream ${streamId}, which is closed`);
    this.refuseStream(streamId, ErrorCode.STREAM_CLOSED);
  }

  #isIdle(streamId: number): boolean {
    const own = (streamId & 1) === (this.#side === 'client' ? 1 : 0);
    return streamId > (own ? this.#lastOwnStream : this.lastPeerStream);
  }

  #excuse(streamId: number): void {
    this.#recentResets.set(streamId, this.outbox.runs);
    if (this.#recentResets.size <= MAX_RECENT_RESETS) return;
    for (const oldest of this.#recentResets.keys()) {
      this.#recentResets.delete(oldest);
      return;
    }
  }

  #greet(): void {
    const { streamWindow, connectionWindow, maxFrameSize, maxHeaderListSize, maxConcurrentStreams } = this.#limits;
    const own: SettingEntries =
      this.#side === 'client' ? [[Setting.ENABLE_PUSH, 0]] : [[Setting.MAX_CONCURRENT_STREAMS, maxConcurrentStreams]];
    const settings = settingsFrame([
      ...own,
      [Setting.INITIAL_WINDOW_SIZE, Math.min(streamWindow, LARGEST_WINDOW)],
      [Setting.MAX_FRAME_SIZE, maxFrameSize],
      [Setting.MAX_HEADER_LIST_SIZE, maxHeaderListSize],
    ]);
    const frames = this.#side === 'client' ? [CONNECTION_PREFACE, settings] : [settings];
    // The connection's window cannot be set, only raised from what it always begins with (RFC 9113 §6.9.2).
    if (connectionWindow > DEFAULT_WINDOW) frames.push(windowUpdateFrame(0, connectionWindow - DEFAULT_WINDOW));
    this.outbox.frame(Buffer.concat(frames));
  }

  #receive(chunk: Buffer): void {
    if (this.over) return;
    try {
      this.#decoder.push(chunk);
    } catch (reason) {
      this.fail(reason);
      return;
    }
    if (this.#decoder.insideHeaderBlock && !this.over) {
      this.#headerTimer ??= this.#clock.after(HEADER_BLOCK_TIMEOUT_MS, () =>
        this.fail(
          new Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `a header block not complete within ${HEADER_BLOCK_TIMEOUT_MS / 1000} s`),
        ),
      );
    }
  }

  #roomForAll(): void {
    const streams = [...this.#roomAwaited];
    this.#roomAwaited.clear();
    for (const stream of streams) stream.pump();
  }

  #dead(): void {
    const error = new ProxyError('CONNECTION_LOST', `no answer to a PING within ${PONG_TIMEOUT_MS / 1000} s`);
    if (this.#side === 'client') {
      this.destroy(error);
      return;
    }
    this.sendGoaway(this.lastPeerStream, ErrorCode.NO_ERROR);
    this.close(error);
  }

  #lost(error: ProxyError): void {
    if (this.#closed) return;
    // A connection that nobody used has ended, not failed.
    if (this.streams.size > 0) this.#error ??= error;
    this.#failStreams(error);
    this.#socket.destroy();
  }

  #gone(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stopTimers();
    this.#closeTimer?.cancel();
    const error = new ProxyError('CONNECTION_LOST', 'the tunnel connection was lost');
    if (this.streams.size > 0) this.#error ??= error;
    this.#failStreams(this.#error ?? error);
    this.#role.closed(this.#error);
  }

  #failStreams(error: ProxyError): void {
    for (const stream of this.streams.all()) stream.fail(error);
  }

  #stopTimers(): void {
    this.#keepalive.stop();
    this.#greetingTimer?.cancel();
    this.#headerTimer?.cancel();
  }
}

const idle = (what: string, streamId: number): Http2ConnectionError =>
  new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `${what} on stream ${streamId}, which nobody opened`);
