/**
 * Splits a byte stream into messages: heads as text, bodies as slices of what arrived. It knows where things end and nothing of what
 * they mean; the handler says how each body is framed. Only a head or trailers that arrive in pieces are collected, within limits.
 */
import { latin1Of } from '../../base/latin1.ts';
import { bad, Http1Error } from './error.ts';
import { cleanTrailers, parseFields } from './fields.ts';
import { Framing } from './framing.ts';
import { tokenClass, valueClass } from './syntax.ts';

export interface MessageHandler {
  /**
   * @param text start line and fields, each line closed by CRLF, without the empty line
   * @returns bytes of the body, or one of Framing. For 0 the message has ended with its head, and `end` is not called.
   */
  head(text: string): number;
  /** A piece of the body, good until this returns. False: `push` stops behind it. */
  data(bytes: Buffer): boolean;
  /** The body is whole. */
  end(trailers: string[] | undefined): void;
}

export interface DecoderLimits {
  readonly maxStartLine: number;
  readonly maxFields: number;
  readonly maxFieldCount: number;
}

type State =
  | 'start'
  | 'start-lf'
  | 'head'
  | 'length'
  | 'open'
  | 'size'
  | 'size-space'
  | 'extension'
  | 'size-lf'
  | 'chunk'
  | 'chunk-cr'
  | 'chunk-lf'
  | 'trailers'
  | 'ended';

const CR = 13;
const LF = 10;
const HEAD_END = Buffer.from('\r\n\r\n', 'latin1');
/** Empty lines before a request that are skipped (RFC 9112 §2.2 asks for one). */
const MAX_BLANK_LINES = 2;
/** Bytes of chunk extensions in one body: nobody uses them but to keep a server busy. */
const MAX_EXTENSIONS = 4096;
const MAX_SIZE_DIGITS = 16;

/**
 * Keeps bytes between calls and does no I/O.
 * @throws {Http1Error} from push and finish; then it is spent
 * @see RFC 9112, sections 2 to 8
 */
export class MessageDecoder {
  /** Set by the handler's owner: `push` returns before the next piece. */
  paused = false;
  readonly #handler: MessageHandler;
  readonly #limits: DecoderLimits;
  #state: State = 'start';
  #blankLines = 0;
  /** Beginning of a head or of trailers: #held[0..#heldBytes). */
  #held = EMPTY;
  #heldBytes = 0;
  /** Body bytes still to come, of the message or of the chunk. */
  #left = 0;
  #digits = 0;
  #extensions = 0;

  constructor(limits: DecoderLimits, handler: MessageHandler) {
    this.#limits = limits;
    this.#handler = handler;
  }

  /** Whether a message has begun and its head is not whole: what a slow sender can hold open. */
  get insideHead(): boolean {
    return this.#state === 'head' || this.#state === 'start-lf';
  }

  /** Whether no byte of a message has been seen since the last one ended. */
  get idle(): boolean {
    return this.#state === 'start';
  }

  /** Whether a message ended and `next` has not been called. */
  get ended(): boolean {
    return this.#state === 'ended';
  }

  /** What follows is another message. */
  next(): void {
    this.#state = 'start';
    this.#blankLines = 0;
  }

  /** What follows is no HTTP. */
  raw(): void {
    this.#state = 'open';
  }

  /** Consumes bytes from `at` until the chunk ends, the message ends, or the handler pauses. @returns the offset behind them */
  push(chunk: Buffer, at: number): number {
    const end = chunk.length;
    while (at < end && !this.paused) {
      switch (this.#state) {
        case 'start':
          if (chunk[at] === CR) {
            if (++this.#blankLines > MAX_BLANK_LINES) throw bad('empty lines instead of a message');
            this.#state = 'start-lf';
            at++;
          } else {
            // A byte that no start line begins with: TLS, an older protocol, or the rest of another message.
            if ((tokenClass[chunk[at] ?? 0] ?? 0) === 0) throw bad('bytes that begin no message');
            this.#state = 'head';
          }
          break;
        case 'start-lf':
          if (chunk[at++] !== LF) throw bad('CR without LF');
          this.#state = 'start';
          break;
        case 'head':
          at = this.#head(chunk, at);
          break;
        case 'length':
        case 'chunk': {
          const take = Math.min(this.#left, end - at);
          this.#left -= take;
          const piece = chunk.subarray(at, at + take);
          at += take;
          const more = this.#handler.data(piece);
          if (this.#left === 0) this.#bodyPieceEnds();
          if (!more) return at;
          break;
        }
        case 'open':
          this.#handler.data(at === 0 ? chunk : chunk.subarray(at));
          return end;
        case 'size':
          this.#size(chunk[at++] ?? 0);
          break;
        case 'size-space':
        case 'extension':
          this.#extension(chunk[at++] ?? 0);
          break;
        case 'size-lf':
          if (chunk[at++] !== LF) throw bad('CR without LF after a chunk size');
          this.#state = this.#left > 0 ? 'chunk' : 'trailers';
          break;
        case 'chunk-cr':
          if (chunk[at++] !== CR) throw bad('a chunk that is longer than its size');
          this.#state = 'chunk-lf';
          break;
        case 'chunk-lf':
          if (chunk[at++] !== LF) throw bad('a chunk that is longer than its size');
          this.#beginSize();
          break;
        case 'trailers':
          at = this.#trailers(chunk, at);
          break;
        case 'ended':
          return at;
      }
    }
    return at;
  }

  /**
   * The peer ends its direction.
   * @returns whether that is in order: between messages, or where it is the end of the body (`end` is called then)
   */
  finish(): boolean {
    switch (this.#state) {
      case 'start':
      case 'ended':
        return true;
      case 'open':
        this.#end(undefined);
        return true;
      default:
        return false;
    }
  }

  #begin(text: string): void {
    const { maxStartLine, maxFields } = this.#limits;
    const line = text.indexOf('\r\n');
    if (line > maxStartLine) throw new Http1Error(414, `a start line of more than ${maxStartLine} bytes`);
    if (text.length - line > maxFields + 2) throw new Http1Error(431, `fields of more than ${maxFields} bytes`);
    // The state is set first: the handler may call `next` or `raw`.
    this.#state = 'ended';
    const framing = this.#handler.head(text);
    if (framing > 0) {
      this.#left = framing;
      this.#state = 'length';
    } else if (framing === Framing.CHUNKED) {
      this.#extensions = 0;
      this.#beginSize();
    } else if (framing < 0) this.#state = 'open';
  }

  #bodyPieceEnds(): void {
    if (this.#state === 'chunk') this.#state = 'chunk-cr';
    else this.#end(undefined);
  }

  #end(trailers: string[] | undefined): void {
    this.#state = 'ended';
    this.#handler.end(trailers);
  }

  #head(chunk: Buffer, at: number): number {
    if (this.#heldBytes === 0) {
      const end = chunk.indexOf(HEAD_END, at);
      if (end >= 0) {
        this.#begin(latin1Of(chunk, at, end + 2));
        return end + 4;
      }
    }
    const end = this.#collect(chunk, at, this.#limits.maxStartLine + this.#limits.maxFields + 4);
    if (end.found) {
      const text = this.#held.toString('latin1', 0, this.#heldBytes - 2);
      this.#letGo();
      this.#begin(text);
    } else this.#checkStartLine();
    return end.at;
  }

  /** Adds to what is held, up to the empty line if it is there. */
  #collect(chunk: Buffer, at: number, limit: number): { found: boolean; at: number } {
    const before = this.#heldBytes;
    const take = Math.min(chunk.length - at, limit + 1 - before);
    if (before + take > this.#held.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(1024, Math.min(2 * (before + take), limit + 1)));
      this.#held.copy(larger, 0, 0, before);
      this.#held = larger;
    }
    chunk.copy(this.#held, before, at, at + take);
    this.#heldBytes = before + take;
    const found = this.#held.subarray(0, this.#heldBytes).indexOf(HEAD_END, Math.max(0, before - 3));
    if (found >= 0) {
      this.#heldBytes = found + 4;
      return { found: true, at: at + found + 4 - before };
    }
    const text = this.#held;
    for (let i = before; i < this.#heldBytes; i++) {
      if (text[i] === LF && text[i - 1] !== CR) throw bad('LF without CR');
      if (text[i] === 0) throw bad('a NUL');
    }
    if (this.#heldBytes > limit) throw this.#tooLarge();
    return { found: false, at: at + take };
  }

  /** As soon as it is too long, and not only when it is whole. */
  #checkStartLine(): void {
    const { maxStartLine } = this.#limits;
    const line = this.#held.subarray(0, this.#heldBytes).indexOf(LF);
    if ((line < 0 ? this.#heldBytes : line) > maxStartLine + 1)
      throw new Http1Error(414, `a start line of more than ${maxStartLine} bytes`);
  }

  #tooLarge(): Http1Error {
    if (this.#state === 'head') this.#checkStartLine();
    return new Http1Error(431, `fields of more than ${this.#limits.maxFields} bytes`);
  }

  #letGo(): void {
    this.#held = EMPTY;
    this.#heldBytes = 0;
  }

  #beginSize(): void {
    this.#state = 'size';
    this.#left = 0;
    this.#digits = 0;
  }

  #size(byte: number): void {
    const digit = hexDigit(byte);
    if (digit >= 0) {
      this.#left = this.#left * 16 + digit;
      if (++this.#digits > MAX_SIZE_DIGITS || this.#left > Number.MAX_SAFE_INTEGER) throw bad('a chunk size beyond all bounds');
      return;
    }
    if (this.#digits === 0) throw bad('a chunk without a size');
    if (byte === CR) this.#state = 'size-lf';
    else if (byte === SEMICOLON) this.#state = 'extension';
    else if (byte === SPACE || byte === TAB) this.#state = 'size-space';
    else throw bad('a chunk size that is no hexadecimal number');
  }

  /** Extensions are read over (RFC 9112 §7.1.1); spaces are good before one only. */
  #extension(byte: number): void {
    if (++this.#extensions > MAX_EXTENSIONS) throw bad(`chunk extensions of more than ${MAX_EXTENSIONS} bytes`);
    if (this.#state === 'size-space') {
      if (byte === SEMICOLON) this.#state = 'extension';
      else if (byte !== SPACE && byte !== TAB) throw bad('a space after a chunk size');
    } else if (byte === CR) this.#state = 'size-lf';
    else if (valueClass[byte] === 0) throw bad('a forbidden character in a chunk extension');
  }

  #trailers(chunk: Buffer, at: number): number {
    // No trailers: the rule.
    if (this.#heldBytes === 0 && chunk[at] === CR && chunk[at + 1] === LF) {
      this.#end(undefined);
      return at + 2;
    }
    // With the CRLF of the chunk size in front, an empty list of trailers ends as any other head does.
    if (this.#heldBytes === 0) {
      this.#held = Buffer.allocUnsafeSlow(1024);
      this.#held[0] = CR;
      this.#held[1] = LF;
      this.#heldBytes = 2;
    }
    const end = this.#collect(chunk, at, this.#limits.maxFields + 4);
    if (!end.found) return end.at;
    const text = this.#held.toString('latin1', 2, this.#heldBytes - 2);
    this.#letGo();
    this.#end(text === '' ? undefined : cleanTrailers(parseFields(text, 0, this.#limits.maxFieldCount)));
    return end.at;
  }
}

const EMPTY = Buffer.alloc(0);
const SEMICOLON = 59;
const SPACE = 32;
const TAB = 9;

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 32;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}
