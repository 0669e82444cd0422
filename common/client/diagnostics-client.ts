/**
 * A proxy's report to istiod: its status every few seconds and its latest refusals, over one stream that is opened again for ever; and its
 * answers to what people ask it by way of istiod. Nothing waits for it: where the stream is away, or istiod is Istio's own and does not know the service, refusals gather up to a limit and the rest
 * are counted together.
 */
import { once } from 'node:events';
import { Client, type ClientDuplexStream, status as GrpcStatus } from '@grpc/grpc-js';
import { Backoff } from '../base/backoff.ts';
import { type Clock, minutes, seconds, sleep } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type CountedRefusal, RefusalTally } from '../base/refusal-tally.ts';
import {
  type Answer,
  DiagnosticsService,
  type ProxyQuery,
  type ProxyReport,
  type ProxyStatus,
  type Refusal,
  type TapQuestion,
} from '../codec/gen/diagnostics.ts';
import { callMetadata, channelCredentials, channelOptions, type GrpcEndpoint, type TokenSource } from './grpc-endpoint.ts';
import type { TapOutput } from './tap-output.ts';

export interface DiagnosticsClientOptions {
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly clusterId: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Asked for at each report. */
  status(): ProxyStatus;
  /** @returns JSON. @throws {Error} saying why there is no answer */
  answer(question: Question): Promise<string>;
  /** Begins to show events. @returns what ends it. @throws {Error} saying why it cannot */
  tap(question: TapQuestion, output: TapOutput): () => void;
}

export type Question = NonNullable<ProxyQuery['question']>;

const REPORT_MS = seconds(2);
const LONGEST_WAIT_MS = seconds(30);
/** An istiod that does not know the service may be replaced by one that does. */
const UNKNOWN_SERVICE_WAIT_MS = minutes(5);

/** Bytes of an answer in one message: the status in between is not held up, and gRPC's limit of 4 MiB is far away. */
const PIECE_BYTES = 512 << 10;
/** Queries under way at once; answers can be large. */
const MAX_QUERIES = 4;

type Stream = ClientDuplexStream<ProxyReport, ProxyQuery>;

export class DiagnosticsClient {
  readonly #options: DiagnosticsClientOptions;
  readonly #stop = new AbortController();
  readonly #refusals = new RefusalTally();
  #running: Promise<void> | undefined;

  constructor(options: DiagnosticsClientOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('stopped'));
    await this.#running;
  }

  refused(refusals: readonly CountedRefusal[]): void {
    for (const refusal of refusals) this.#refusals.add(refusal);
  }

  async #run(): Promise<void> {
    const { clock, random, log } = this.#options;
    const { signal } = this.#stop;
    const backoff = new Backoff({ firstMs: 500, maxMs: LONGEST_WAIT_MS, jitter: 0.2, random });
    while (!signal.aborted) {
      let waitMs = 0;
      try {
        await this.#stream(() => backoff.reset());
      } catch (error) {
        if (signal.aborted) return;
        const unknown = error instanceof Error && 'code' in error && error.code === GrpcStatus.UNIMPLEMENTED;
        waitMs = unknown ? UNKNOWN_SERVICE_WAIT_MS : 0;
        log.debug({ error: errorMessage(error) }, unknown ? 'istiod takes no reports' : 'the report stream ended');
      }
      await sleep(clock, waitMs || backoff.next(), signal).catch(() => {
        // Stopped: the loop's condition ends it.
      });
    }
  }

  async #stream(onReport: () => void): Promise<void> {
    const { endpoint, token, clusterId, clock, log } = this.#options;
    const client = new Client(endpoint.target, channelCredentials(endpoint), channelOptions(endpoint));
    const ended = new AbortController();
    try {
      const { path, requestSerialize, responseDeserialize } = DiagnosticsService.report;
      const stream: Stream = client.makeBidiStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        callMetadata(endpoint, token, clusterId),
      );
      stream.on('error', (error) => ended.abort(error));
      stream.on('end', () => ended.abort(new Error('istiod ended the stream')));
      let queries = 0;
      const taps = new Map<number, () => void>();
      stream.on('data', (query: ProxyQuery) => {
        if (this.#followed(stream, query, taps)) return;
        if (queries >= MAX_QUERIES) {
          stream.write(report([refusal(query.id, `${MAX_QUERIES} queries are under way`)]));
          return;
        }
        queries++;
        this.#answer(stream, query, ended.signal)
          .catch((error: unknown) => log.debug({ error: errorMessage(error) }, 'a query could not be answered'))
          .finally(() => queries--);
      });
      const cancel = (): void => stream.cancel();
      this.#stop.signal.addEventListener('abort', cancel, { once: true });
      const signal = AbortSignal.any([this.#stop.signal, ended.signal]);
      try {
        for (;;) {
          signal.throwIfAborted();
          stream.write({ status: this.#options.status(), refusals: this.#takeRefusals(), answers: [] });
          await sleep(clock, REPORT_MS, signal);
          onReport();
        }
      } finally {
        this.#stop.signal.removeEventListener('abort', cancel);
        stream.cancel();
        for (const close of taps.values()) close();
      }
    } finally {
      client.close();
    }
  }

  /** Questions whose answer goes on. @returns false where it is none of these */
  #followed(stream: Stream, { id, question }: ProxyQuery, taps: Map<number, () => void>): boolean {
    if (question?.$case === 'cancel') {
      const { of } = question.value;
      taps.get(of)?.();
      taps.delete(of);
      return true;
    }
    if (question?.$case !== 'tap') return false;
    const write = (text: string, last: boolean): void => {
      stream.write(report([{ id, json: Buffer.from(text), last, error: '' }]));
    };
    const output: TapOutput = {
      lines(text) {
        // What nobody takes in time is not kept here: reports and answers go over the same stream.
        if (stream.writableNeedDrain) return false;
        write(text, false);
        return true;
      },
      end() {
        taps.delete(id);
        write('', true);
      },
    };
    try {
      taps.set(id, this.#options.tap(question.value, output));
    } catch (error) {
      stream.write(report([refusal(id, errorMessage(error))]));
    }
    return true;
  }

  async #answer(stream: Stream, { id, question }: ProxyQuery, gone: AbortSignal): Promise<void> {
    let json: Buffer;
    try {
      if (!question) throw new Error('this version of the proxy does not know the question');
      json = Buffer.from(await this.#options.answer(question));
    } catch (error) {
      stream.write(report([refusal(id, errorMessage(error))]));
      return;
    }
    for (let at = 0; at < json.length || at === 0; at += PIECE_BYTES) {
      gone.throwIfAborted();
      const last = at + PIECE_BYTES >= json.length;
      const taken = stream.write(report([{ id, json: json.subarray(at, at + PIECE_BYTES), last, error: '' }]));
      if (!taken) await once(stream, 'drain', { signal: gone });
    }
  }

  #takeRefusals(): Refusal[] {
    const timeMs = BigInt(Math.round(this.#options.clock.now()));
    return this.#refusals.take().map((refusal) => ({ ...refusal, timeMs, letThrough: refusal.letThrough ?? false }));
  }
}

const report = (answers: Answer[]): ProxyReport => ({ status: undefined, refusals: [], answers });

const refusal = (id: number, error: string): Answer => ({ id, json: new Uint8Array(), last: true, error });
