/** Where a request is counted: the slots of its series, for Istio's metrics as they are and as Telemetry changes them. */
import type { CompiledMetrics } from '../../common/decision/telemetry-model.ts';
import { histogramParts, type MetricFamily } from '../../common/server/metric-family.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import { changedSlot } from './own-telemetry.ts';

/** undefined: switched off. */
export interface RequestSlots {
  readonly count: number | undefined;
  readonly duration: HistogramSlots | undefined;
  readonly requestBytes: HistogramSlots | undefined;
  readonly responseBytes: HistogramSlots | undefined;
  /** Of gRPC requests only. */
  readonly messages: { readonly request: number | undefined; readonly response: number | undefined } | undefined;
}

export interface HistogramSlots {
  readonly bounds: readonly number[];
  /** One for each bound, and +Inf. */
  readonly buckets: readonly number[];
  readonly sum: number;
  readonly count: number;
}

/** What Telemetry changes, with the values of its tags for the request. */
export interface Changes {
  readonly metrics: CompiledMetrics;
  readonly values: readonly string[];
}

/** @param labels in the order of REQUEST_LABELS */
export function requestSlots(series: SeriesWriter, labels: readonly string[], grpc: boolean, changes?: Changes): RequestSlots {
  const slot = (family: MetricFamily): number | undefined =>
    changes ? changedSlot(series, { family }, labels, changes.metrics, changes.values) : series.slot(family, labels);
  const histogram = (family: MetricFamily): HistogramSlots | undefined => histogramSlots(series, family, labels, changes);
  return {
    count: slot(metrics.requests),
    duration: histogram(metrics.duration),
    requestBytes: histogram(metrics.requestBytes),
    responseBytes: histogram(metrics.responseBytes),
    messages: grpc ? { request: slot(metrics.requestMessages), response: slot(metrics.responseMessages) } : undefined,
  };
}

function histogramSlots(
  series: SeriesWriter,
  family: MetricFamily,
  labels: readonly string[],
  changes: Changes | undefined,
): HistogramSlots | undefined {
  if (changes?.metrics.families.get(family.name)?.disabled) return undefined;
  const { bucket, sum, count } = histogramParts(family);
  const slot = (counted: MetricFamily, more: readonly string[]): number =>
    (changes ? changedSlot(series, { family, counted }, labels, changes.metrics, changes.values, more) : undefined) ??
    series.slot(counted, [...labels, ...more]);
  const bounds = family.buckets ?? [];
  return {
    bounds,
    buckets: [...bounds.map(String), '+Inf'].map((le) => slot(bucket, [le])),
    sum: slot(sum, []),
    count: slot(count, []),
  };
}

export function observe(series: SeriesWriter, slots: HistogramSlots | undefined, value: number): void {
  if (!slots) return;
  const { bounds, buckets, sum, count } = slots;
  for (let i = 0; i < buckets.length; i++) {
    const slot = buckets[i];
    if (slot !== undefined && value <= (bounds[i] ?? Infinity)) series.add(slot, 1);
  }
  series.add(sum, value);
  series.add(count, 1);
}
