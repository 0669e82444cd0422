/**
 * Looks at the first bytes of a connection whose protocol nobody declared, without taking them. A client that waits for its server to speak
 * first sends none: then time decides.
 */
import type { Clock } from '../base/clock.ts';
import { tokenClass } from '../codec/http1/syntax.ts';
import { CONNECTION_PREFACE } from '../codec/http2/frames.ts';
import { type Endpoint, endpointOf, type PipeReader } from '../hbone/endpoint.ts';
import { type ReadBuffer, returnReadBuffer } from '../hbone/read-buffers.ts';
import type { Pipe } from '../hbone/types.ts';

export type SniffedProtocol = 'http1' | 'http2' | 'tls' | 'other';

export interface SniffOptions {
  /** How long to wait for the bytes that decide; then it is `other`. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/**
 * Tells what a pipe speaks as soon as the bytes decide: by call, so that whoever starts it from within costs it no stop in between. The pipe can
 * be served, connected or relayed then as if nobody had looked; what ended or broke meanwhile is told to whoever starts it.
 */
export function sniff(pipe: Pipe, options: SniffOptions, resolve: (found: SniffedProtocol) => void): void {
  new Sniffer(endpointOf(pipe), options, { decide: protocolOf, otherwise: 'other', resolve });
}

/**
 * Looks at the first bytes until `decide` makes something of them; as `sniff`, but by promise.
 * @param decide from all bytes so far; undefined asks for more
 * @param otherwise where time is over, or there will be no more
 */
export const peek = <T>(pipe: Pipe, options: SniffOptions, decide: (bytes: Buffer) => T | undefined, otherwise: T): Promise<T> =>
  new Promise((resolve) => new Sniffer(endpointOf(pipe), options, { decide, otherwise, resolve }));

interface Sniffing<T> {
  decide(bytes: Buffer): T | undefined;
  readonly otherwise: T;
  resolve(decided: T): void;
}

/** Longest request line that is waited for. */
const MAX_LINE = 8192;
const MAX_METHOD = 32;

/** What these bytes begin; undefined where more are needed to tell. */
export function protocolOf(bytes: Buffer): SniffedProtocol | undefined {
  if (bytes.length === 0) return undefined;
  if (bytes[0] === 0x16) return bytes.length < 2 ? undefined : bytes[1] === 3 ? 'tls' : 'other';
  const common = Math.min(bytes.length, CONNECTION_PREFACE.length);
  if (bytes.subarray(0, common).equals(CONNECTION_PREFACE.subarray(0, common)))
    return common === CONNECTION_PREFACE.length ? 'http2' : undefined;
  return beginsRequest(bytes);
}

/** Method, space, target, space, version: words alone do not do, because other protocols of lines begin with one too. */
function beginsRequest(bytes: Buffer): SniffedProtocol | undefined {
  let at = 0;
  while (at < bytes.length && (tokenClass[bytes[at] ?? 0] ?? 0) !== 0) at++;
  if (at === 0 || at > MAX_METHOD) return 'other';
  if (at === bytes.length) return undefined;
  if (bytes[at] !== SPACE) return 'other';
  const target = at + 1;
  const lineEnd = bytes.indexOf(LF);
  if (lineEnd < 0) {
    for (let i = target; i < bytes.length; i++) if ((bytes[i] ?? 0) < SPACE && bytes[i] !== CR) return 'other';
    return bytes.length > MAX_LINE ? 'http1' : undefined;
  }
  // A line with a version is a request, sound or not: what is wrong with it, the server says.
  return / HTTP\/\d\.\d\r?$/.test(bytes.toString('latin1', target, lineEnd)) ? 'http1' : 'other';
}

const SPACE = 32;
const CR = 13;
const LF = 10;

class Sniffer<T> implements PipeReader {
  readonly #pipe: Endpoint;
  readonly #sniffing: Sniffing<T>;
  readonly #timer: ReturnType<Clock['after']>;
  #seen: Buffer = Buffer.alloc(0);
  #decided = false;

  constructor(pipe: Endpoint, { timeoutMs, clock }: SniffOptions, sniffing: Sniffing<T>) {
    this.#pipe = pipe;
    this.#sniffing = sniffing;
    this.#timer = clock.after(timeoutMs, () => this.#decide(sniffing.otherwise));
    pipe.start(this);
  }

  read(buffer: ReadBuffer, length: number): boolean {
    const more = this.slice(buffer.view.subarray(0, length));
    returnReadBuffer(buffer);
    return more;
  }

  slice(bytes: Buffer): boolean {
    this.#seen = Buffer.concat([this.#seen, bytes]);
    if (this.#decided) return false;
    const decided = this.#sniffing.decide(this.#seen);
    if (decided !== undefined) this.#decide(decided);
    return decided === undefined;
  }

  get backlog(): number {
    return this.#seen.length;
  }

  ended(): void {
    this.#decide(this.#sniffing.otherwise);
  }

  writable(): void {}

  closed(): void {
    this.#decide(this.#sniffing.otherwise);
  }

  #decide(decided: T): void {
    if (this.#decided) return;
    this.#decided = true;
    this.#timer.cancel();
    this.#pipe.giveBack(this.#seen);
    this.#sniffing.resolve(decided);
  }
}
