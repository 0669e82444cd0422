/** Spans of sampled requests: what each one tells, handed to the exporter of its receiver, and counted. */
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { TelemetryFacts } from '../../common/decision/telemetry-facts.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import type { RequestContext } from '../http/context.ts';
import { metrics } from '../metrics.ts';
import { type SendSpansParts, sendSpans } from './send-spans.ts';
import { SpanExporter } from './span-exporter.ts';
import { type SpanOrigin, spanRecord } from './span-record.ts';

export interface SpansOptions {
  readonly series: SeriesWriter;
  readonly clock: Clock;
  readonly log: Pick<Log, 'warn' | 'info'>;
  origin(): SpanOrigin;
  readonly send: SendSpansParts;
}

export class Spans {
  readonly #origin: () => SpanOrigin;
  readonly #exporter: SpanExporter;

  constructor({ series, clock, log, origin, send }: SpansOptions) {
    this.#origin = origin;
    this.#exporter = new SpanExporter({
      clock,
      log,
      send: sendSpans(send),
      exported: (provider, count) => series.add(series.slot(metrics.spansExported, [provider]), count),
      dropped: (provider, reason, count) => series.add(series.slot(metrics.spansDropped, [provider, reason]), count),
    });
  }

  /** The request is over, and was sampled. */
  finished({ span, connection: { target } }: RequestContext, facts: TelemetryFacts): void {
    if (!span) return;
    const { tracing } = span;
    const host = target.service?.hostname ?? target.workload?.name ?? target.ip ?? '';
    this.#exporter.add(tracing.provider, tracing.receiver, spanRecord(span, facts, `${host}:${target.port}`, this.#origin()));
  }

  /** What is left goes out, or is lost. */
  close(): Promise<void> {
    return this.#exporter.close();
  }
}
