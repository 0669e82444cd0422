/**
 * What both sides of an HTTP/2 connection have in common (a cohesive state machine, RFC 9113 §5-6): frames find their streams, windows are
 * kept, and whatever breaks the protocol ends here with a GOAWAY and one reason.
 */
import type { Clock, Timer } from '../base/clock.ts';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { ErrorCode, errorCodeName, Http2ConnectionError } from '../codec/http2/errors.ts';
import { type DataReceiver, FrameDecoder, type FrameHandler } from '../codec/http2/frame-decoder.ts';
import {
  CONNECTION_PREFACE,
  DEFAULT_FRAME_SIZE,
  DEFAULT_WINDOW,
  goawayFrame,
  headerFrames,
  LARGEST_STREAM_ID,
  pingFrame,
  rstStreamFrame,
  Setting,
  type SettingEntries,
  settingsAckFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../codec/http2/frames.ts';
import type { HeaderField } from '../codec/http2/header-tables.ts';
import { HpackDecoder } from '../codec/http2/hpack-decoder.ts';
import { HpackEncoder } from '../codec/http2/hpack-encoder.ts';
import { applySettings, defaultPeerSettings } from '../codec/http2/settings.ts';
import { StreamTable } from '../codec/http2/stream-table.ts';
import { ReceiveWindow, SendWindow } from '../codec/http2/windows.ts';
import type { Endpoint, PipeReader } from '../hbone/endpoint.ts';
import { FloodGuard } from '../hbone/flood-guard.ts';
import { type ReadBuffer, returnReadBuffer } from '../hbone/read-buffers.ts';
import { type Http2Stream, STREAM_WINDOW, type StreamHost } from './http2-stream.ts';
import { Output } from './output.ts';
import type { HttpLimits } from './types.ts';

/** Bytes that a peer may have under way on one connection: what a stuck receiver can make us hold. */
const CONNECTION_WINDOW = 8 << 20;
/** Time for the peer's preface and SETTINGS. */
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Time for what was written last (a GOAWAY) to leave before the pipe is cut off, and how often it is given. */
const CLOSE_TIMEOUT_MS = 1_000;
const MAX_LINGERS = 30;
/** Streams that we reset and whose late frames are still excused. */
const MAX_RECENT_RESETS = 1024;
const MAX_CONTINUATIONS = 16;
/** Bytes that wait for a peer which goes on asking: bodies stop long before, heads and acknowledgements cannot be held back. */
const MAX_UNREAD = 16 << 20;
/** RFC 8441, section 3. */
const ENABLE_CONNECT_PROTOCOL = 0x8;
/** Fields whose values hardly ever repeat, and those that no table on the way may keep (RFC 7541 §7.1.3). */
const UNINDEXED: ReadonlySet<string> = new Set([
  ':path',
  'traceparent',
  'tracestate',
  'x-request-id',
  'x-b3-spanid',
  'x-b3-traceid',
  'date',
  'etag',
  'content-length',
  'x-envoy-upstream-service-time',
]);
const SENSITIVE: ReadonlySet<string> = new Set(['authorization', 'proxy-authorization', 'set-cookie', 'cookie']);

export abstract class Http2Connection implements FrameHandler, PipeReader, StreamHost {
  readonly output: Output;
  readonly guard: FloodGuard;
  readonly sendWindow = new SendWindow(DEFAULT_WINDOW);
  readonly limits: HttpLimits;
  peer = defaultPeerSettings;
  /** Whether the peer takes extended CONNECT. */
  peerTakesProtocols = false;
  /** The highest stream that the peer has opened. */
  protected lastPeerStream = 0;
  protected readonly streams = new StreamTable<Http2Stream>();
  protected readonly clock: Clock;
  readonly #pipe: Endpoint;
  readonly #side: 'client' | 'server';
  readonly #decoder: FrameDecoder;
  readonly #headerDecoder: HpackDecoder;
  readonly #headerEncoder = new HpackEncoder({ unindexed: UNINDEXED, sensitive: SENSITIVE });
  readonly #receiveWindow = new ReceiveWindow(CONNECTION_WINDOW);
  readonly #roomAwaited = new Set<Http2Stream>();
  readonly #recentResets = new Set<number>();
  #lastOwnStream: number;
  #greetingTimer: Timer | undefined;
  #headerTimer: Timer | undefined;
  #idleTimer: Timer | undefined;
  #closeTimer: Timer | undefined;
  #lingers = 0;
  #activeAt: number;
  #closing = false;
  #closed = false;
  #error: ProxyError | undefined;

  constructor(pipe: Endpoint, side: 'client' | 'server', limits: HttpLimits, clock: Clock, initial?: Buffer) {
    this.#pipe = pipe;
    this.#side = side;
    this.limits = limits;
    this.clock = clock;
    this.output = new Output(pipe);
    this.guard = new FloodGuard(clock);
    const listSize = headerListSize(limits);
    this.#headerDecoder = new HpackDecoder(listSize);
    this.#lastOwnStream = side === 'client' ? -1 : 0;
    this.#decoder = new FrameDecoder(
      {
        expectPreface: side === 'server',
        maxFrameSize: DEFAULT_FRAME_SIZE,
        maxHeaderBlock: Math.max(listSize, DEFAULT_FRAME_SIZE),
        maxContinuations: MAX_CONTINUATIONS,
      },
      this,
    );
    this.#greetingTimer = clock.after(HANDSHAKE_TIMEOUT_MS, () =>
      this.protocolError(new Http2ConnectionError(ErrorCode.SETTINGS_TIMEOUT, `no SETTINGS within ${HANDSHAKE_TIMEOUT_MS / 1000} s`)),
    );
    this.#activeAt = clock.monotonic();
    this.#idleTimer = clock.after(limits.idleTimeoutMs, this.#idle);
    this.#greet();
    // Later, so that whoever made the connection knows it when its first exchange comes.
    queueMicrotask(() => {
      if (initial) this.#receive(initial);
      pipe.start(this);
    });
  }

  /** Whether nothing more is opened or accepted, because the connection is closed or about to be. */
  get over(): boolean {
    return this.#closing || this.#closed;
  }

  get openExchanges(): number {
    return this.streams.size;
  }

  // For the sides.

  /** A header block for a stream that nobody has opened yet. */
  protected abstract opened(streamId: number, fields: readonly HeaderField[], tooLarge: boolean, endStream: boolean): void;
  /** The peer will not take streams after this one. */
  protected abstract wentAway(lastStreamId: number): void;
  protected abstract pong(opaque: Buffer): void;
  protected abstract streamLeft(): void;
  protected abstract greeted(): void;
  abstract drain(): void;
  /** The pipe is closed and all streams are told. The last word. */
  protected abstract lost(error: ProxyError | undefined): void;

  protected add(stream: Http2Stream): void {
    this.streams.add(stream);
    // While a single stream is alive nothing waits for more frames of the turn: then waiting is all cost.
    this.output.eager = this.streams.size <= 1;
  }

  /** The next stream of our own; undefined when the numbers are used up. */
  protected nextStreamId(): number | undefined {
    if (this.#lastOwnStream + 2 > LARGEST_STREAM_ID) return undefined;
    this.#lastOwnStream += 2;
    return this.#lastOwnStream;
  }

  protected sendGoaway(lastStreamId: number, code: number, debug = ''): void {
    this.output.frame(goawayFrame(lastStreamId, code, debug));
  }

  protected sendPing(opaque: Buffer): void {
    this.output.frame(pingFrame(opaque, false));
  }

  /** Resets a stream that is not on the list. */
  protected refuseStream(streamId: number, code: number): void {
    this.#excuse(streamId);
    this.output.frame(rstStreamFrame(streamId, code));
  }

  /** Ends our direction when what was written has left; streams that are still open fail. */
  protected close(error?: ProxyError): void {
    if (this.over) return;
    this.#closing = true;
    this.#error ??= error;
    this.#decoder.stop();
    this.#stopTimers();
    this.#failStreams(error ?? new ProxyError('CONNECTION_LOST', 'the connection was closed'));
    this.output.flush();
    this.#pipe.end();
    if (!this.#closed) this.#linger();
  }

  /** The peer broke the protocol, or we did: GOAWAY with the code and the reason, then the end. */
  protected protocolError(reason: unknown): void {
    if (this.over) return;
    const code = reason instanceof Http2ConnectionError ? reason.code : ErrorCode.INTERNAL_ERROR;
    this.sendGoaway(this.lastPeerStream, code, errorMessage(reason));
    this.close(new ProxyError('HTTP2_FAILURE', `${errorCodeName(code)}: ${errorMessage(reason)}`, { cause: reason }));
  }

  destroy(error?: ProxyError): void {
    if (this.#closed) return;
    this.#error ??= error;
    this.#closing = true;
    this.#decoder.stop();
    this.#failStreams(error ?? new ProxyError('CONNECTION_LOST', 'the connection was torn down'));
    this.output.close();
    this.#pipe.destroy(error);
  }

  // For the streams.

  sendHeaders(streamId: number, fields: readonly HeaderField[], endStream: boolean): void {
    const block = this.#headerEncoder.encode(fields);
    this.output.frame(headerFrames(streamId, block, endStream, this.peer.maxFrameSize));
  }

  release(bytes: number): void {
    const increment = this.#receiveWindow.release(bytes);
    if (increment > 0 && !this.over) this.output.frame(windowUpdateFrame(0, increment));
  }

  awaitRoom(stream: Http2Stream): void {
    this.#roomAwaited.add(stream);
  }

  left(stream: Http2Stream, reset: boolean): void {
    this.streams.delete(stream.id);
    this.#roomAwaited.delete(stream);
    if (reset) this.#excuse(stream.id);
    this.output.eager = this.streams.size <= 1;
    if (this.streams.size === 0) this.#activeAt = this.clock.monotonic();
    this.streamLeft();
  }

  // From the codec.

  dataStart(streamId: number, length: number): DataReceiver | undefined {
    if (!this.#receiveWindow.receive(length))
      throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window allows");
    const stream = this.streams.get(streamId);
    if (!stream) this.#onClosedStream(streamId, 'DATA');
    else if (stream.remoteEnded) this.streamError(streamId, ErrorCode.STREAM_CLOSED, 'DATA after END_STREAM');
    else if (!stream.takesData) this.streamError(streamId, ErrorCode.PROTOCOL_ERROR, 'DATA before the response');
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
    const large = tooLarge || fields.length > this.limits.maxFieldCount + PSEUDO_FIELDS;
    const stream = this.streams.get(streamId);
    if (!stream) {
      if (this.#isIdle(streamId)) this.opened(streamId, fields, large, endStream);
      else this.#onClosedStream(streamId, 'HEADERS');
    } else if (stream.remoteEnded) this.streamError(streamId, ErrorCode.STREAM_CLOSED, 'HEADERS after END_STREAM');
    else stream.headers(fields, large, endStream);
  }

  rstStream(streamId: number, code: number): void {
    const stream = this.streams.get(streamId);
    if (stream) {
      if (this.#side === 'server') this.guard.count('reset');
      stream.resetByPeer(code);
      return;
    }
    // A stream may end on both sides at once; a reset that comes late is no offence.
    if (this.#isIdle(streamId)) throw idleStream('RST_STREAM', streamId);
  }

  settings(entries: SettingEntries): void {
    this.guard.count('settings');
    const before = this.peer;
    this.peer = applySettings(before, entries);
    for (const [id, value] of entries) {
      if (id === ENABLE_CONNECT_PROTOCOL) this.peerTakesProtocols = value === 1;
      if (id === Setting.ENABLE_PUSH && value !== 0 && this.#side === 'client')
        throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, 'a server that enables push');
    }
    this.#greetingTimer?.cancel();
    this.#greetingTimer = undefined;
    this.#headerEncoder.setPeerTableSize(this.peer.headerTableSize);
    const delta = this.peer.initialWindowSize - before.initialWindowSize;
    for (const stream of this.streams.all()) {
      if (!stream.sendWindow.grow(delta)) throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a stream window beyond 2^31-1');
    }
    this.output.frame(settingsAckFrame());
    if (delta > 0) this.#roomForAll();
    this.greeted();
  }

  settingsAck(): void {
    this.guard.count('settings');
  }

  ping(opaque: Buffer, ack: boolean): void {
    if (ack) {
      this.pong(opaque);
      return;
    }
    this.guard.count('ping');
    this.output.frame(pingFrame(opaque, true));
  }

  goaway(lastStreamId: number, code: number, debug: string): void {
    if (code !== ErrorCode.NO_ERROR) {
      const reason = debug === '' ? '' : ` (${debug})`;
      this.#error ??= new ProxyError('HTTP2_FAILURE', `the peer ended the connection: ${errorCodeName(code)}${reason}`);
    }
    this.wentAway(lastStreamId);
  }

  windowUpdate(streamId: number, increment: number): void {
    if (streamId === 0) {
      if (!this.sendWindow.grow(increment))
        throw new Http2ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, 'a connection window beyond 2^31-1');
      this.#roomForAll();
      return;
    }
    const stream = this.streams.get(streamId);
    if (!stream) {
      if (this.#isIdle(streamId)) throw idleStream('WINDOW_UPDATE', streamId);
    } else if (!stream.sendWindow.grow(increment))
      this.streamError(streamId, ErrorCode.FLOW_CONTROL_ERROR, 'a stream window beyond 2^31-1');
    else if (this.#roomAwaited.delete(stream)) stream.pump();
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

  // From the pipe.

  read(buffer: ReadBuffer, length: number): boolean {
    this.#receive(buffer.view.subarray(0, length));
    returnReadBuffer(buffer);
    return true;
  }

  slice(bytes: Buffer): boolean {
    this.#receive(bytes);
    return true;
  }

  /** What streams hold is bounded by their windows, whatever the pipe below allows. */
  get backlog(): number {
    return 0;
  }

  ended(): void {
    if (this.over) return;
    const error = new ProxyError('CONNECTION_LOST', 'the peer closed the connection');
    // A connection that nobody used has ended, not failed.
    this.close(this.streams.size > 0 ? error : undefined);
  }

  writable(): void {
    this.output.unblock();
    this.#roomForAll();
  }

  closed(error: ProxyError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.output.close();
    this.#stopTimers();
    this.#closeTimer?.cancel();
    const reason = this.#error ?? error;
    const broken = this.streams.size > 0;
    const loss = reason ?? new ProxyError('CONNECTION_LOST', 'the connection was lost');
    this.#failStreams(loss);
    this.lost(broken ? loss : reason);
  }

  #receive(chunk: Buffer): void {
    if (this.over) return;
    try {
      this.#decoder.push(chunk);
    } catch (reason) {
      this.protocolError(reason);
      return;
    }
    if (this.output.blocked && this.#pipe.backlog > MAX_UNREAD) {
      this.protocolError(
        new Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `${MAX_UNREAD >> 20} MiB of answers that the peer does not read`),
      );
      return;
    }
    if (this.#decoder.insideHeaderBlock && !this.over) {
      this.#headerTimer ??= this.clock.after(this.limits.headTimeoutMs, () =>
        this.protocolError(
          new Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, `a header block not complete within ${this.limits.headTimeoutMs / 1000} s`),
        ),
      );
    }
  }

  #roomForAll(): void {
    if (this.#roomAwaited.size === 0) return;
    const streams = [...this.#roomAwaited];
    this.#roomAwaited.clear();
    for (const stream of streams) stream.pump();
  }

  /** Frames that were under way when we reset the stream are excused; others are the peer's error. */
  #onClosedStream(streamId: number, what: string): void {
    if (this.#isIdle(streamId)) throw idleStream(what, streamId);
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
    this.#recentResets.add(streamId);
    if (this.#recentResets.size <= MAX_RECENT_RESETS) return;
    for (const oldest of this.#recentResets) {
      this.#recentResets.delete(oldest);
      return;
    }
  }

  #greet(): void {
    const own: SettingEntries =
      this.#side === 'client'
        ? [[Setting.ENABLE_PUSH, 0]]
        : [
            [Setting.MAX_CONCURRENT_STREAMS, this.limits.maxConcurrentStreams],
            [ENABLE_CONNECT_PROTOCOL, 1],
          ];
    const settings = settingsFrame([
      ...own,
      [Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW],
      [Setting.MAX_HEADER_LIST_SIZE, headerListSize(this.limits)],
    ]);
    if (this.#side === 'client') this.output.frame(CONNECTION_PREFACE);
    this.output.frame(settings);
    // The connection's window cannot be set, only raised from what it always begins with (RFC 9113 §6.9.2).
    this.output.frame(windowUpdateFrame(0, CONNECTION_WINDOW - DEFAULT_WINDOW));
  }

  // One timer that looks at the time when it fires, as in HTTP/1.1.
  readonly #idle = (): void => {
    const busy = this.streams.size > 0;
    const left = busy ? this.limits.idleTimeoutMs : this.#activeAt + this.limits.idleTimeoutMs - this.clock.monotonic();
    if (left > 0) this.#idleTimer = this.clock.after(left, this.#idle);
    else {
      this.sendGoaway(this.lastPeerStream, ErrorCode.NO_ERROR);
      this.close();
    }
  };

  #linger(): void {
    this.#closeTimer = this.clock.after(CLOSE_TIMEOUT_MS, () => {
      if (++this.#lingers > MAX_LINGERS) {
        this.#pipe.destroy();
        return;
      }
      if (this.#pipe.backlog === 0) this.#pipe.close();
      if (!this.#closed) this.#linger();
    });
  }

  #failStreams(error: ProxyError): void {
    for (const stream of this.streams.all()) stream.fail(error, false);
  }

  #stopTimers(): void {
    this.#greetingTimer?.cancel();
    this.#headerTimer?.cancel();
    this.#idleTimer?.cancel();
  }
}

/** :method, :scheme, :authority, :path, :protocol. */
const PSEUDO_FIELDS = 5;

/** What RFC 9113 §6.5.2 counts: 32 bytes for each field beside its name and value. */
const headerListSize = ({ maxStartLine, maxFields, maxFieldCount }: HttpLimits): number => maxStartLine + maxFields + 32 * maxFieldCount;

const idleStream = (what: string, streamId: number): Http2ConnectionError =>
  new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `${what} on stream ${streamId}, which nobody opened`);
