/**
 * Splits a byte stream into HTTP/2 frames, checks what can be checked without knowing streams, and hands them to a handler. DATA is
 * handed on in slices of what arrived, never collected, because a tunnel's frame may be a megabyte long and its bytes are wanted now.
 * Header blocks are joined from HEADERS and CONTINUATION, within limits, so that the handler sees whole ones only.
 */
import { ErrorCode, Http2ConnectionError } from './errors.ts';
import { CONNECTION_PREFACE, Flag, FRAME_HEADER_BYTES, FrameType, type SettingEntries } from './frames.ts';

/** Where the bytes of one DATA frame go. */
export interface DataReceiver {
  /** A piece of the payload, without padding: part of a chunk that was pushed, and good for as long as that one is. */
  dataSlice(bytes: Buffer): void;
  /** The frame is complete. `padding` counts the padding and its length byte: they count for flow control, but nobody consumes them. */
  dataEnd(padding: number, endStream: boolean): void;
}

/** What a connection does with frames. Any method may throw Http2ConnectionError, which leaves `push`. */
export interface FrameHandler {
  /** A DATA frame begins; `length` is what it takes of the flow-control windows. Undefined: the bytes are dropped. */
  dataStart(streamId: number, length: number): DataReceiver | undefined;
  /** `block` is valid during the call only. */
  headers(streamId: number, block: Buffer, endStream: boolean): void;
  rstStream(streamId: number, code: number): void;
  settings(entries: SettingEntries): void;
  settingsAck(): void;
  /** `opaque` is valid during the call only. */
  ping(opaque: Buffer, ack: boolean): void;
  goaway(lastStreamId: number, code: number, debug: string): void;
  windowUpdate(streamId: number, increment: number): void;
  /** PRIORITY, or a frame of a type that the RFC does not know: both are to be ignored, but a flood of them is a flood. */
  ignored(type: number): void;
  /** The frame is wrong in a way that ends only its stream (RFC 9113, section 5.4.2). */
  streamError(streamId: number, code: number, message: string): void;
}

export interface FrameDecoderOptions {
  /** Whether the peer is a client, whose bytes begin with the connection preface. */
  readonly expectPreface: boolean;
  /** Largest payload accepted: what our SETTINGS_MAX_FRAME_SIZE says. */
  readonly maxFrameSize: number;
  /** Largest header block accepted, in bytes as they are on the wire. */
  readonly maxHeaderBlock: number;
  /** CONTINUATION frames accepted after one HEADERS. */
  readonly maxContinuations: number;
}

/** Settings in one frame; the RFC names six. */
const MAX_SETTINGS = 64;
/** Bytes of a GOAWAY's debug text that are kept. */
const MAX_DEBUG = 256;

type State = 'preface' | 'header' | 'pad-length' | 'data' | 'payload' | 'skip';

/**
 * Keeps bytes between calls and does no I/O. Memory is bounded by the header-block limit and small constants.
 * @throws {Http2ConnectionError} from push; then it is spent
 * @see RFC 9113, sections 4 and 6
 */
export class FrameDecoder {
  readonly #handler: FrameHandler;
  readonly #options: FrameDecoderOptions;
  readonly #header = Buffer.allocUnsafeSlow(FRAME_HEADER_BYTES);
  #headerBytes = 0;
  #state: State;
  #prefaceBytes = 0;
  #settingsSeen = false;
  #stopped = false;

  #type = 0;
  #flags = 0;
  #streamId = 0;
  /** Payload bytes of the current frame that are still to come (without padding in state 'data'). */
  #left = 0;
  #padding = 0;
  /** Padding bytes still to be skipped after the data. */
  #skipAfter = 0;
  #receiver: DataReceiver | undefined;
  #payload: Buffer | undefined;
  #payloadBytes = 0;

  #blockStream = 0;
  #blockEndsStream = false;
  #block: Buffer[] = [];
  #blockBytes = 0;
  #continuations = 0;

  constructor(options: FrameDecoderOptions, handler: FrameHandler) {
    this.#options = options;
    this.#handler = handler;
    this.#state = options.expectPreface ? 'preface' : 'header';
  }

  /** Whether a header block has begun and not ended: what a slow sender can hold open. */
  get insideHeaderBlock(): boolean {
    return this.#blockStream !== 0 || (this.#state === 'payload' && this.#type === FrameType.HEADERS);
  }

  /** Whether the peer's preface and first SETTINGS have arrived. */
  get greeted(): boolean {
    return this.#settingsSeen;
  }

  /** Handles no further frame, not even of the chunk being pushed. */
  stop(): void {
    this.#stopped = true;
  }

  push(chunk: Buffer): void {
    const end = chunk.length;
    let at = 0;
    while (at < end && !this.#stopped) {
      switch (this.#state) {
        case 'header':
          if (this.#headerBytes === 0 && end - at >= FRAME_HEADER_BYTES) {
            this.#begin(chunk, at);
            at += FRAME_HEADER_BYTES;
          } else {
            this.#header[this.#headerBytes++] = chunk[at++] ?? 0;
            if (this.#headerBytes === FRAME_HEADER_BYTES) {
              this.#headerBytes = 0;
              this.#begin(this.#header, 0);
            }
          }
          break;
        case 'data': {
          const take = Math.min(this.#left, end - at);
          this.#left -= take;
          if (take > 0) this.#receiver?.dataSlice(at === 0 && take === end ? chunk : chunk.subarray(at, at + take));
          at += take;
          if (this.#left === 0) this.#endData();
          break;
        }
        case 'pad-length':
          this.#beginPadded(chunk[at++] ?? 0);
          break;
        case 'skip': {
          const take = Math.min(this.#left, end - at);
          this.#left -= take;
          at += take;
          if (this.#left === 0) this.#state = 'header';
          break;
        }
        case 'payload':
          at = this.#collect(chunk, at);
          break;
        case 'preface':
          if (chunk[at++] !== CONNECTION_PREFACE[this.#prefaceBytes++])
            throw violation('the peer does not begin with the HTTP/2 connection preface');
          if (this.#prefaceBytes === CONNECTION_PREFACE.length) this.#state = 'header';
          break;
      }
    }
  }

  #begin(from: Buffer, at: number): void {
    const length = (byte(from, at) << 16) | (byte(from, at + 1) << 8) | byte(from, at + 2);
    const type = byte(from, at + 3);
    const flags = byte(from, at + 4);
    const streamId = uint31(from, at + 5);
    this.#type = type;
    this.#flags = flags;
    this.#streamId = streamId;
    this.#left = length;
    if (length > this.#options.maxFrameSize)
      throw sizeError(`a frame of ${length} bytes, more than the ${this.#options.maxFrameSize} that we accept`);
    if (!this.#settingsSeen) {
      if (type !== FrameType.SETTINGS || (flags & Flag.ACK) !== 0) throw violation("the peer's first frame is not SETTINGS");
      this.#settingsSeen = true;
    }
    if (this.#blockStream !== 0 && (type !== FrameType.CONTINUATION || streamId !== this.#blockStream)) {
      throw violation(`frame ${type} on stream ${streamId} inside the header block of stream ${this.#blockStream}`);
    }
    if (type === FrameType.DATA) this.#beginData(streamId, length, flags);
    else if (this.#checkControl(type, flags, streamId, length)) this.#expect('payload');
    else this.#expect('skip');
  }

  #beginData(streamId: number, length: number, flags: number): void {
    if (streamId === 0) throw violation('DATA on stream 0');
    this.#padding = 0;
    this.#skipAfter = 0;
    if ((flags & Flag.PADDED) !== 0 && length === 0) throw sizeError('padded DATA without a length of padding');
    this.#receiver = this.#handler.dataStart(streamId, length);
    if ((flags & Flag.PADDED) !== 0) this.#state = 'pad-length';
    else if (length === 0) this.#endData();
    else this.#state = 'data';
  }

  #beginPadded(padLength: number): void {
    const length = this.#left;
    if (padLength >= length) throw violation(`${padLength} bytes of padding in a frame of ${length}`);
    this.#padding = padLength + 1;
    this.#skipAfter = padLength;
    this.#left = length - 1 - padLength;
    if (this.#left === 0) this.#endData();
    else this.#state = 'data';
  }

  #endData(): void {
    const receiver = this.#receiver;
    this.#receiver = undefined;
    // The state is set first: the receiver may end the connection.
    this.#left = this.#skipAfter;
    this.#state = this.#left > 0 ? 'skip' : 'header';
    receiver?.dataEnd(this.#padding, (this.#flags & Flag.END_STREAM) !== 0);
  }

  /** The checks of stream identifier and length that RFC 9113, section 6, gives for each type; false where the payload is skipped. */
  #checkControl(type: number, flags: number, streamId: number, length: number): boolean {
    switch (type) {
      case FrameType.HEADERS:
        if (streamId === 0) throw violation('HEADERS on stream 0');
        this.#checkBlock(length);
        return true;
      case FrameType.CONTINUATION:
        if (this.#blockStream === 0) throw violation('CONTINUATION without HEADERS');
        this.#continuations++;
        if (this.#continuations > this.#options.maxContinuations)
          throw calm(`more than ${this.#options.maxContinuations} CONTINUATION frames in a header block`);
        this.#checkBlock(length);
        return true;
      case FrameType.RST_STREAM:
        if (streamId === 0) throw violation('RST_STREAM on stream 0');
        if (length !== 4) throw sizeError(`RST_STREAM of ${length} bytes`);
        return true;
      case FrameType.SETTINGS:
        if (streamId !== 0) throw violation(`SETTINGS on stream ${streamId}`);
        if ((flags & Flag.ACK) !== 0 ? length !== 0 : length % 6 !== 0) throw sizeError(`SETTINGS of ${length} bytes`);
        if (length > MAX_SETTINGS * 6) throw calm(`more than ${MAX_SETTINGS} settings in a frame`);
        return true;
      case FrameType.PING:
        if (streamId !== 0) throw violation(`PING on stream ${streamId}`);
        if (length !== 8) throw sizeError(`PING of ${length} bytes`);
        return true;
      case FrameType.GOAWAY:
        if (streamId !== 0) throw violation(`GOAWAY on stream ${streamId}`);
        if (length < 8) throw sizeError(`GOAWAY of ${length} bytes`);
        return true;
      case FrameType.WINDOW_UPDATE:
        if (length !== 4) throw sizeError(`WINDOW_UPDATE of ${length} bytes`);
        return true;
      case FrameType.PUSH_PROMISE:
        throw violation('PUSH_PROMISE, which we do not allow');
      case FrameType.PRIORITY:
        if (streamId === 0) throw violation('PRIORITY on stream 0');
        this.#handler.ignored(type);
        if (length === 5) return true;
        this.#handler.streamError(streamId, ErrorCode.FRAME_SIZE_ERROR, `PRIORITY of ${length} bytes`);
        return false;
      default:
        this.#handler.ignored(type);
        return false;
    }
  }

  #checkBlock(length: number): void {
    if (this.#blockBytes + length > this.#options.maxHeaderBlock)
      throw calm(`a header block of more than ${this.#options.maxHeaderBlock} bytes`);
  }

  /** Waits for the payload, or for its end; an empty one is complete already. */
  #expect(state: 'payload' | 'skip'): void {
    if (this.#left > 0) {
      this.#state = state;
      return;
    }
    this.#state = 'header';
    if (state === 'payload') this.#complete(EMPTY);
  }

  #collect(chunk: Buffer, at: number): number {
    const take = Math.min(this.#left, chunk.length - at);
    const next = at + take;
    if (this.#payload === undefined && take === this.#left) {
      this.#state = 'header';
      this.#complete(chunk.subarray(at, next));
      return next;
    }
    // GOAWAY's debug text may be as long as a frame; only its beginning is kept.
    this.#payload ??= Buffer.allocUnsafe(Math.min(this.#left, this.#type === FrameType.GOAWAY ? 8 + MAX_DEBUG : this.#left));
    const room = Math.min(take, this.#payload.length - this.#payloadBytes);
    chunk.copy(this.#payload, this.#payloadBytes, at, at + room);
    this.#payloadBytes += room;
    this.#left -= take;
    if (this.#left === 0) {
      const payload = this.#payload;
      this.#payload = undefined;
      this.#payloadBytes = 0;
      this.#state = 'header';
      this.#complete(payload);
    }
    return next;
  }

  #complete(payload: Buffer): void {
    const streamId = this.#streamId;
    switch (this.#type) {
      case FrameType.HEADERS:
        this.#blockEndsStream = (this.#flags & Flag.END_STREAM) !== 0;
        this.#blockStream = streamId;
        this.#fragment(stripHeaders(payload, this.#flags, streamId));
        break;
      case FrameType.CONTINUATION:
        this.#fragment(payload);
        break;
      case FrameType.PRIORITY:
        if (uint31(payload, 0) === streamId) throw violation(`stream ${streamId} depends on itself`);
        break;
      case FrameType.RST_STREAM:
        this.#handler.rstStream(streamId, payload.readUInt32BE(0));
        break;
      case FrameType.SETTINGS:
        if ((this.#flags & Flag.ACK) !== 0) this.#handler.settingsAck();
        else this.#handler.settings(readSettings(payload));
        break;
      case FrameType.PING:
        this.#handler.ping(payload, (this.#flags & Flag.ACK) !== 0);
        break;
      case FrameType.GOAWAY:
        this.#handler.goaway(uint31(payload, 0), payload.readUInt32BE(4), payload.toString('utf8', 8, 8 + MAX_DEBUG));
        break;
      case FrameType.WINDOW_UPDATE: {
        const increment = uint31(payload, 0);
        if (increment > 0) this.#handler.windowUpdate(streamId, increment);
        else if (streamId === 0) throw violation('WINDOW_UPDATE by 0');
        else this.#handler.streamError(streamId, ErrorCode.PROTOCOL_ERROR, 'WINDOW_UPDATE by 0');
        break;
      }
    }
  }

  #fragment(fragment: Buffer): void {
    const last = (this.#flags & Flag.END_HEADERS) !== 0;
    if (!last) {
      // A copy: the chunk may be large, and the block stays open for as long as the peer likes.
      this.#block.push(Buffer.from(fragment));
      this.#blockBytes += fragment.length;
      return;
    }
    const block = this.#block.length === 0 ? fragment : Buffer.concat([...this.#block, fragment]);
    const streamId = this.#blockStream;
    this.#block = [];
    this.#blockBytes = 0;
    this.#blockStream = 0;
    this.#continuations = 0;
    this.#handler.headers(streamId, block, this.#blockEndsStream);
  }
}

const EMPTY = Buffer.alloc(0);

/**
 * Takes padding and priority off a HEADERS payload. Priorities are passed over (RFC 9113, section 5.3.2), but who sends nonsense in them is no peer
 * to go on with (RFC 7540, section 5.3.1).
 */
function stripHeaders(payload: Buffer, flags: number, streamId: number): Buffer {
  let from = 0;
  let to = payload.length;
  if ((flags & Flag.PADDED) !== 0) {
    if (to < 1) throw sizeError('padded HEADERS without a length of padding');
    to -= byte(payload, 0);
    from = 1;
  }
  if ((flags & Flag.PRIORITY) !== 0) {
    if (payload.length < from + 5) throw sizeError('HEADERS with priority, but too short for it');
    if (uint31(payload, from) === streamId) throw violation(`stream ${streamId} depends on itself`);
    from += 5;
  }
  if (from > to) throw violation(`${payload.length - to} bytes of padding in HEADERS of ${payload.length}`);
  return payload.subarray(from, to);
}

function readSettings(payload: Buffer): SettingEntries {
  const entries: [number, number][] = [];
  for (let at = 0; at < payload.length; at += 6) entries.push([payload.readUInt16BE(at), payload.readUInt32BE(at + 2)]);
  return entries;
}

const byte = (from: Buffer, at: number): number => from[at] ?? 0;
const uint31 = (from: Buffer, at: number): number =>
  ((byte(from, at) & 0x7f) << 24) | (byte(from, at + 1) << 16) | (byte(from, at + 2) << 8) | byte(from, at + 3);

const violation = (message: string): Http2ConnectionError => new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, message);
const sizeError = (message: string): Http2ConnectionError => new Http2ConnectionError(ErrorCode.FRAME_SIZE_ERROR, message);
const calm = (message: string): Http2ConnectionError => new Http2ConnectionError(ErrorCode.ENHANCE_YOUR_CALM, message);
