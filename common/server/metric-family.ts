/** A row of a component's metrics table: what a family is called, which labels it has in which order, and what it says. */

export interface MetricFamily {
  /** As it is exposed: counters end in `_total`. */
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  /** Label names in the order in which they are written. */
  readonly labels: readonly string[];
  /** One sentence for people. */
  readonly help: string;
  /** Unstable families may change between versions; their help text says so (a convention of Istio's ztunnel). */
  readonly stable: boolean;
  /** Upper bounds of a histogram's buckets, ascending; +Inf is added. */
  readonly buckets?: readonly number[];
  /** Series that nobody has counted in for a while go (peers come and vanish for ever). */
  readonly expires?: boolean;
  /** Of the values, where the name ends in it (OpenMetrics 1.0, "Unit"). */
  readonly unit?: string;
  /** Leave a series out while its value is zero. */
  readonly hideZero?: boolean;
}

export interface Sample {
  /** Pairs in the family's order. */
  readonly labels: readonly (readonly [name: string, value: string])[];
  readonly value: number;
}

/** The series that a histogram is kept as: one counter for each bucket, their labels with `le` behind them, and sum and count. */
export interface HistogramParts {
  readonly bucket: MetricFamily;
  readonly sum: MetricFamily;
  readonly count: MetricFamily;
}

export function histogramParts(family: MetricFamily): HistogramParts {
  const part = (suffix: string, labels: readonly string[]): MetricFamily => ({
    ...family,
    name: `${family.name}_${suffix}`,
    type: 'counter',
    labels,
  });
  return { bucket: part('bucket', [...family.labels, 'le']), sum: part('sum', family.labels), count: part('count', family.labels) };
}

/** Families as they are counted: histograms in their parts. */
export const countedFamilies = (families: readonly MetricFamily[]): MetricFamily[] =>
  families.flatMap((family) => (family.type === 'histogram' ? Object.values(histogramParts(family)) : [family]));

/** The sentence of a family as HELP shows it. */
export const helpText = ({ help, stable }: MetricFamily): string => (stable ? help : `${help} (unstable)`);
