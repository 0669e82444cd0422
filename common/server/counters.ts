/** A proxy's counters for `meshctl top` and `edges`: the families and labels that somebody asks for, added up over all workers and other labels. */
import type { CountersQuestion } from '../codec/gen/diagnostics.ts';
import type { SeriesReader } from './shared-series.ts';

export interface CounterSeries {
  readonly family: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

export interface Counters {
  /** Milliseconds since 1970: who compares two answers divides by their distance. */
  readonly timeMs: number;
  readonly series: readonly CounterSeries[];
}

const MAX_FAMILIES = 32;

export function countersOf(reader: Pick<SeriesReader, 'collect'>, { families, labels }: CountersQuestion, timeMs: number): Counters {
  const collected = reader.collect();
  const wanted = new Set(labels);
  const sums = new Map<string, { family: string; labels: Record<string, string>; value: number }>();
  for (const family of families.slice(0, MAX_FAMILIES)) {
    for (const sample of collected.get(family) ?? []) {
      const kept = sample.labels.filter(([name]) => wanted.has(name));
      const key = JSON.stringify([family, kept]);
      const known = sums.get(key);
      if (known) known.value += sample.value;
      else sums.set(key, { family, labels: Object.fromEntries(kept), value: sample.value });
    }
  }
  return { timeMs, series: [...sums.values()] };
}
