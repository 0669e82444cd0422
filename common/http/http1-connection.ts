/**
 * What both sides of an HTTP/1.1 connection have in common: bytes from the pipe to the decoder and to nobody else while somebody is slow,
 * time limits, and an end that does not cut off what was written last.
 */
import type { Clock, Timer } from '../base/clock.ts';
import type { ProxyError } from '../base/errors.ts';
import { MessageDecoder, type MessageHandler } from '../codec/http1/decoder.ts';
import type { Endpoint, PipeReader } from '../hbone/endpoint.ts';
import { type ReadBuffer, returnReadBuffer } from '../hbone/read-buffers.ts';
import { type Holder, handling, holderOf } from '../hbone/receive-buffers.ts';
import { Output } from './output.ts';
import type { HttpLimits } from './types.ts';

/** From here on bytes that have to wait stay where they are. */
const COPY_LIMIT = 8 << 10;
/** Time for the peer to take what was written last and to close; bytes that it sends meanwhile are read, lest the kernel resets. */
const LINGER_MS = 1_000;
/** How many times that long a peer may take to read what waits for it. */
const MAX_LINGERS = 30;

export abstract class Http1Connection implements PipeReader, MessageHandler {
  readonly output: Output;
  protected readonly pipe: Endpoint;
  protected readonly decoder: MessageDecoder;
  protected readonly limits: HttpLimits;
  protected readonly clock: Clock;
  /** Why the connection ends, where that is not in order. */
  protected error: ProxyError | undefined;
  /** When a message ended last. */
  protected activeAt: number;
  #stash: Buffer | undefined;
  /** What the stash lies in, where that is no copy. */
  #stashHolder: Holder | undefined;
  #pushing = false;
  /** The pipe is to be told to go on: it was told to wait, or counts what is kept here as held. */
  #halted = false;
  #peerEnded = false;
  #closing = false;
  #closed = false;
  #idleTimer: Timer | undefined;
  #headTimer: Timer | undefined;
  #lingerTimer: Timer | undefined;
  #lingers = 0;

  constructor(pipe: Endpoint, limits: HttpLimits, clock: Clock, initial?: Buffer) {
    this.pipe = pipe;
    this.limits = limits;
    this.clock = clock;
    this.output = new Output(pipe);
    this.decoder = new MessageDecoder(limits, this);
    this.activeAt = clock.monotonic();
    this.#idleTimer = clock.after(limits.idleTimeoutMs, this.#idle);
    // Later, so that whoever made the connection knows it when its first exchange comes.
    queueMicrotask(() => {
      if (initial) this.#receive(initial);
      pipe.start(this);
    });
  }

  /** Whether nothing more is read or written. */
  protected get over(): boolean {
    return this.#closing || this.#closed;
  }

  // For the sides.

  abstract head(text: string): number;
  abstract data(bytes: Buffer): boolean;
  abstract end(trailers: string[] | undefined): void;
  /** The peer's direction ended; in order where that is between messages or the end of a body that has no other. */
  protected abstract inputEnded(inOrder: boolean): void;
  /** The peer sent what is no HTTP, or somebody threw. */
  protected abstract failed(reason: unknown): void;
  protected abstract headTimedOut(): void;
  protected abstract get busy(): boolean;
  /** The pipe takes more. */
  protected abstract roomOut(): void;
  /** The pipe is closed. The last word. */
  protected abstract lost(error: ProxyError | undefined): void;

  /** Goes on reading: a body is wanted, or a message has ended. */
  letIn(): void {
    this.decoder.paused = false;
    if (this.#pushing || this.#closed) return;
    const stash = this.#stash;
    if (stash && !this.#pushStash(stash)) return;
    if (this.decoder.paused) return;
    if (this.#peerEnded) this.#finish();
    else if (this.#halted) {
      this.#halted = false;
      this.pipe.resume();
    }
  }

  /** @returns whether all of it was taken */
  #pushStash(stash: Buffer): boolean {
    const holder = this.#stashHolder;
    this.#stash = undefined;
    this.#stashHolder = undefined;
    const before = handling(holder);
    let at = stash.length;
    try {
      at = this.#push(stash);
    } finally {
      handling(before);
    }
    if (at < stash.length && !this.over) {
      this.#stash = stash.subarray(at);
      this.#stashHolder = holder;
      return false;
    }
    holder?.release();
    return !this.over;
  }

  #dropStash(): void {
    this.#stash = undefined;
    this.#stashHolder?.release();
    this.#stashHolder = undefined;
  }

  /** Ends our direction after what was written, waits for the peer to do so too, and takes care that it ends in any case. */
  protected closeSoon(): void {
    if (this.over) return;
    this.#closing = true;
    this.#dropStash();
    this.#stopTimers();
    this.output.flush();
    this.pipe.end();
    if (this.#closed) return;
    this.#linger();
    if (this.#halted) {
      this.#halted = false;
      this.pipe.resume();
    }
  }

  /** The peer has said that it will send no more, so nothing is waited for but that it takes what was written. */
  protected closeNow(): void {
    // It has sent more all the same; and a tunnel that is closed is reset, which the peer may take for a failure.
    if (this.#stash !== undefined || this.pipe.kind === 'stream') {
      this.closeSoon();
      return;
    }
    if (this.over) return;
    this.#closing = true;
    this.#stopTimers();
    this.output.flush();
    this.pipe.close();
    if (!this.#closed) this.#linger();
  }

  /** Both directions end now. */
  destroy(error?: ProxyError): void {
    if (this.#closed) return;
    this.error ??= error;
    this.#closing = true;
    this.#dropStash();
    this.output.close();
    this.pipe.destroy(error);
  }

  // From the pipe.

  read(buffer: ReadBuffer, length: number): boolean {
    const more = this.#receive(buffer.view.subarray(0, length));
    returnReadBuffer(buffer);
    return more;
  }

  slice(bytes: Buffer): boolean {
    return this.#receive(bytes);
  }

  get backlog(): number {
    return this.#stash?.length ?? 0;
  }

  ended(): void {
    this.#peerEnded = true;
    if (this.#stash === undefined && !this.decoder.paused) this.#finish();
  }

  writable(): void {
    this.output.unblock();
    this.roomOut();
  }

  closed(error: ProxyError | undefined): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#dropStash();
    this.output.close();
    this.#stopTimers();
    this.#lingerTimer?.cancel();
    this.lost(this.error ?? error);
  }

  #receive(chunk: Buffer): boolean {
    if (this.over) return true;
    if (this.#stash) {
      const both = Buffer.concat([this.#stash, chunk]);
      this.#dropStash();
      this.#stash = both;
      this.#halted = true;
      return false;
    }
    const at = this.#push(chunk);
    if (this.over) return true;
    if (at < chunk.length) {
      // Mostly it is wanted before more comes, and stopping the pipe for that time costs two system calls for each message: what comes
      // meanwhile stops it.
      const rest = chunk.subarray(at);
      const holder = rest.length > COPY_LIMIT ? holderOf(chunk) : undefined;
      holder?.hold();
      this.#stash = holder ? rest : Buffer.from(rest);
      this.#stashHolder = holder;
      this.#halted = true;
      return true;
    }
    if (!this.decoder.paused) return true;
    this.#halted = true;
    return false;
  }

  #push(chunk: Buffer): number {
    this.#pushing = true;
    try {
      return this.decoder.push(chunk, 0);
    } catch (reason) {
      this.failed(reason);
      return chunk.length;
    } finally {
      this.#pushing = false;
      this.#watchHead();
    }
  }

  #finish(): void {
    if (this.over) return;
    this.inputEnded(this.decoder.finish());
  }

  #watchHead(): void {
    if (this.decoder.insideHead) {
      if (!this.over) this.#headTimer ??= this.clock.after(this.limits.headTimeoutMs, () => this.headTimedOut());
    } else if (this.#headTimer) {
      this.#headTimer.cancel();
      this.#headTimer = undefined;
    }
  }

  // One timer that looks at the time when it fires: setting one for each request would cost more than the rest of the bookkeeping.
  readonly #idle = (): void => {
    const left = this.busy ? this.limits.idleTimeoutMs : this.activeAt + this.limits.idleTimeoutMs - this.clock.monotonic();
    if (left > 0) this.#idleTimer = this.clock.after(left, this.#idle);
    else this.closeSoon();
  };

  #linger(): void {
    this.#lingerTimer = this.clock.after(LINGER_MS, () => {
      if (++this.#lingers > MAX_LINGERS) {
        this.pipe.destroy();
        return;
      }
      if (this.pipe.backlog === 0) this.pipe.close();
      if (!this.#closed) this.#linger();
    });
  }

  #stopTimers(): void {
    this.#idleTimer?.cancel();
    this.#headTimer?.cancel();
    this.#headTimer = undefined;
  }
}
