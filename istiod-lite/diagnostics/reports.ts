/**
 * What each connected proxy last said about itself, its latest refusals, and a way to ask it more: what meshctl reads. Bounded for each
 * proxy. A proxy is asked over the stream that it opened, so nobody needs to reach it.
 */
import { Readable } from 'node:stream';
import { type Clock, seconds } from '../../common/base/clock.ts';
import type { Answer, ProxyQuery, ProxyReport, ProxyStatus, Refusal } from '../../common/codec/gen/diagnostics.ts';

/** One row of /debug/proxies. */
export interface ProxyRow extends Omit<ProxyStatus, 'soonestExpiry'> {
  /** Seconds since 1970; 0 where the proxy has no certificate. */
  readonly soonestExpiry: number;
  readonly refusals: readonly RefusalRow[];
}

export interface RefusalRow extends Omit<Refusal, 'timeMs'> {
  readonly timeMs: number;
}

export type Question = NonNullable<ProxyQuery['question']>;

/** A proxy's stream, as the one who took it sees it. */
export interface ReportingProxy {
  take(report: ProxyReport): void;
  leave(): void;
}

/** Why a proxy could not be asked, or did not answer. */
export class AskError extends Error {
  /** `absent`: no such proxy reports to this replica. */
  readonly why: 'absent' | 'failed' | 'busy';

  constructor(why: AskError['why'], message: string) {
    super(message);
    this.why = why;
  }
}

const MAX_REFUSALS = 50;
/** Bytes of one answer; the dump of a mesh of 100,000 workloads has 60 MB. */
const MAX_ANSWER_BYTES = 128 * 2 ** 20;
/** Answers that one replica waits for at once. */
const MAX_WAITING = 16;
const ANSWER_TIMEOUT_MS = seconds(20);
/** Answers that go on, which one replica hands out at once. */
const MAX_FOLLOWED = 32;
/** Of one of them, what waits for a slow reader; more is lost, and counted. */
const FOLLOWED_BUFFER_BYTES = 1 << 20;

interface Waiting {
  readonly pieces: Uint8Array[];
  bytes: number;
  settle(outcome: Buffer | AskError): void;
}

/** An answer that goes on until somebody has enough of it. */
interface Followed {
  readonly stream: Readable;
  begun: ((problem?: AskError) => void) | undefined;
  lost: number;
}

class Reporter implements ReportingProxy {
  status: ProxyStatus | undefined;
  refusals: RefusalRow[] = [];
  readonly #waiting = new Map<number, Waiting>();
  readonly #followed = new Map<number, Followed>();
  readonly #send: (query: ProxyQuery) => void;
  readonly #left: () => void;
  #lastQuery = 0;

  constructor(send: (query: ProxyQuery) => void, left: () => void) {
    this.#send = send;
    this.#left = left;
  }

  take({ status, refusals, answers }: ProxyReport): void {
    if (status) this.status = status;
    const rows = refusals.map((refusal) => ({ ...refusal, timeMs: Number(refusal.timeMs) }));
    if (rows.length > 0) this.refusals = [...this.refusals, ...rows].slice(-MAX_REFUSALS);
    for (const answer of answers) this.#answered(answer);
  }

  leave(): void {
    for (const { settle } of this.#waiting.values()) settle(new AskError('failed', 'the proxy went away'));
    for (const { stream, begun } of this.#followed.values()) {
      begun?.(new AskError('failed', 'the proxy went away'));
      stream.push(null);
    }
    // Nobody is there any more to be told that nobody listens.
    this.#followed.clear();
    this.#left();
  }

  /** Resolves with the answer once it has begun. @throws {AskError} */
  async follow(question: Question, clock: Clock): Promise<Readable> {
    const id = ++this.#lastQuery;
    const { promise, resolve } = Promise.withResolvers<AskError | undefined>();
    const stream = new Readable({
      highWaterMark: FOLLOWED_BUFFER_BYTES,
      read() {
        // Pieces come when the proxy has some.
      },
      destroy: (error, done) => {
        if (this.#followed.delete(id)) this.#send({ id: ++this.#lastQuery, question: { $case: 'cancel', value: { of: id } } });
        done(error);
      },
    });
    const followed: Followed = { stream, begun: resolve, lost: 0 };
    this.#followed.set(id, followed);
    const timer = clock.after(ANSWER_TIMEOUT_MS, () =>
      resolve(new AskError('failed', `the proxy did not answer within ${ANSWER_TIMEOUT_MS / 1000} s`)),
    );
    this.#send({ id, question });
    const problem = await promise;
    timer.cancel();
    followed.begun = undefined;
    if (!problem) return stream;
    stream.destroy();
    throw problem;
  }

  /** @throws {AskError} */
  async ask(question: Question, clock: Clock): Promise<Buffer> {
    const id = ++this.#lastQuery;
    const { promise, resolve } = Promise.withResolvers<Buffer | AskError>();
    const timer = clock.after(ANSWER_TIMEOUT_MS, () =>
      resolve(new AskError('failed', `the proxy did not answer within ${ANSWER_TIMEOUT_MS / 1000} s`)),
    );
    this.#waiting.set(id, { pieces: [], bytes: 0, settle: resolve });
    this.#send({ id, question });
    const outcome = await promise;
    timer.cancel();
    this.#waiting.delete(id);
    if (outcome instanceof AskError) throw outcome;
    return outcome;
  }

  /** Pieces of an answer that nobody waits for any more are let go. */
  #answered(answer: Answer): void {
    const followed = this.#followed.get(answer.id);
    if (followed) this.#goesOn(followed, answer);
    else this.#ends(answer);
  }

  #goesOn(followed: Followed, { id, json, last, error }: Answer): void {
    const { stream, begun } = followed;
    begun?.(error === '' ? undefined : new AskError('failed', error));
    if (json.length > 0) {
      // Pieces are whole lines, so that leaving one out leaves the others readable.
      if (stream.readableLength + json.length > FOLLOWED_BUFFER_BYTES) followed.lost += linesIn(json);
      else {
        if (followed.lost > 0) stream.push(`${JSON.stringify({ lost: followed.lost })}\n`);
        followed.lost = 0;
        stream.push(json);
      }
    }
    if (!last) return;
    this.#followed.delete(id);
    stream.push(null);
  }

  #ends({ id, json, last, error }: Answer): void {
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    waiting.bytes += json.length;
    if (error !== '') waiting.settle(new AskError('failed', error));
    else if (waiting.bytes > MAX_ANSWER_BYTES)
      waiting.settle(new AskError('failed', `the answer is longer than ${MAX_ANSWER_BYTES} bytes`));
    else {
      waiting.pieces.push(json);
      if (last) waiting.settle(Buffer.concat(waiting.pieces));
    }
  }
}

function linesIn(json: Uint8Array): number {
  let lines = 0;
  for (const byte of json) if (byte === 10) lines++;
  return lines;
}

export class ProxyReports {
  readonly #proxies = new Set<Reporter>();
  readonly #clock: Clock;
  #waiting = 0;
  #followed = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param send a query to the proxy */
  connect(send: (query: ProxyQuery) => void): ReportingProxy {
    const proxy = new Reporter(send, () => void this.#proxies.delete(proxy));
    this.#proxies.add(proxy);
    return proxy;
  }

  rows(): ProxyRow[] {
    return [...this.#proxies].flatMap(({ status, refusals }) =>
      status ? [{ ...status, soonestExpiry: Number(status.soonestExpiry), refusals }] : [],
    );
  }

  /** @param proxyId `POD.NAMESPACE`. @returns the answer's JSON. @throws {AskError} */
  async ask(proxyId: string, question: Question): Promise<Buffer> {
    const proxy = this.#find(proxyId);
    if (this.#waiting >= MAX_WAITING) throw new AskError('busy', `${MAX_WAITING} questions wait for answers already; try again`);
    this.#waiting++;
    try {
      return await proxy.ask(question, this.#clock);
    } finally {
      this.#waiting--;
    }
  }

  /** An answer that goes on: lines of JSON, until the stream is destroyed or the proxy ends it. @throws {AskError} */
  async follow(proxyId: string, question: Question): Promise<Readable> {
    const proxy = this.#find(proxyId);
    if (this.#followed >= MAX_FOLLOWED) throw new AskError('busy', `${MAX_FOLLOWED} taps are open on this istiod already`);
    this.#followed++;
    try {
      const stream = await proxy.follow(question, this.#clock);
      stream.once('close', () => this.#followed--);
      return stream;
    } catch (error) {
      this.#followed--;
      throw error;
    }
  }

  #find(proxyId: string): Reporter {
    const proxy = [...this.#proxies].find(({ status }) => status && `${status.name}.${status.namespace}` === proxyId);
    if (!proxy) throw new AskError('absent', `no proxy ${proxyId.slice(0, 300)} reports to this istiod`);
    return proxy;
  }
}
