/**
 * What each connected proxy last said about itself, its latest refusals, and a way to ask it more: what meshctl reads. Bounded for each
 * proxy. A proxy is asked over the stream that it opened, so nobody needs to reach it.
 */
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

interface Waiting {
  readonly pieces: Uint8Array[];
  bytes: number;
  settle(outcome: Buffer | AskError): void;
}

class Reporter implements ReportingProxy {
  status: ProxyStatus | undefined;
  refusals: RefusalRow[] = [];
  readonly #waiting = new Map<number, Waiting>();
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
    this.#left();
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
  #answered({ id, json, last, error }: Answer): void {
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

export class ProxyReports {
  readonly #proxies = new Set<Reporter>();
  readonly #clock: Clock;
  #waiting = 0;

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
    const proxy = [...this.#proxies].find(({ status }) => status && `${status.name}.${status.namespace}` === proxyId);
    if (!proxy) throw new AskError('absent', `no proxy ${proxyId.slice(0, 300)} reports to this istiod`);
    if (this.#waiting >= MAX_WAITING) throw new AskError('busy', `${MAX_WAITING} questions wait for answers already; try again`);
    this.#waiting++;
    try {
      return await proxy.ask(question, this.#clock);
    } finally {
      this.#waiting--;
    }
  }
}
