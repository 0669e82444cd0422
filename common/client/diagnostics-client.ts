/**
 * A proxy's report to istiod: its status every few seconds and its latest refusals, over one stream that is opened again for ever. Nothing
 * waits for it: where the stream is away, or istiod is Istio's own and does not know the service, refusals gather up to a limit and the rest
 * are counted together.
 */
import { Client, type ClientDuplexStream, status as GrpcStatus } from '@grpc/grpc-js';
import { Backoff } from '../base/backoff.ts';
import { type Clock, minutes, seconds, sleep } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { type CountedRefusal, RefusalTally } from '../base/refusal-tally.ts';
import { DiagnosticsService, type ProxyQuery, type ProxyReport, type ProxyStatus, type Refusal } from '../codec/gen/diagnostics.ts';
import { CHANNEL_OPTIONS, callMetadata, channelCredentials, type GrpcEndpoint, type TokenSource } from './grpc-endpoint.ts';

export interface DiagnosticsClientOptions {
  readonly endpoint: GrpcEndpoint;
  readonly token: TokenSource;
  readonly clusterId: string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Asked for at each report. */
  status(): ProxyStatus;
}

const REPORT_MS = seconds(2);
const LONGEST_WAIT_MS = seconds(30);
/** An istiod that does not know the service may be replaced by one that does. */
const UNKNOWN_SERVICE_WAIT_MS = minutes(5);

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
    const { endpoint, token, clusterId, clock } = this.#options;
    const client = new Client(endpoint.target, channelCredentials(endpoint), CHANNEL_OPTIONS);
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
      stream.on('data', () => undefined);
      const cancel = (): void => stream.cancel();
      this.#stop.signal.addEventListener('abort', cancel, { once: true });
      const signal = AbortSignal.any([this.#stop.signal, ended.signal]);
      try {
        for (;;) {
          signal.throwIfAborted();
          stream.write({ status: this.#options.status(), refusals: this.#takeRefusals() });
          await sleep(clock, REPORT_MS, signal);
          onReport();
        }
      } finally {
        this.#stop.signal.removeEventListener('abort', cancel);
        stream.cancel();
      }
    } finally {
      client.close();
    }
  }

  #takeRefusals(): Refusal[] {
    const timeMs = BigInt(Math.round(this.#options.clock.now()));
    return this.#refusals.take().map((refusal) => ({ ...refusal, timeMs }));
  }
}
