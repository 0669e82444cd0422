/**
 * The text that Prometheus scrapes: always OpenMetrics (it ends in `# EOF`), under the content type that the scraper asked for, as Istio's
 * ztunnel does it (istio-data-plane.md §10.1). Families without a sample are left out.
 */
import { type MetricObjectWithValues, type MetricValue, Registry } from 'prom-client';
import { helpText, histogramParts, type MetricFamily, type Sample } from './metric-family.ts';

/** @param samples by family name; families are written in the table's order */
export async function metricsText(families: readonly MetricFamily[], samples: ReadonlyMap<string, readonly Sample[]>): Promise<string> {
  const registry = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE);
  for (const family of families) {
    const found = valuesOf(family, samples);
    if (found.length > 0) registry.registerMetric(asMetric(family, found) as Parameters<typeof registry.registerMetric>[0]);
  }
  return (await registry.metrics()).trim().concat('\n');
}

/** `Accept` decides the name of the format, never the format. */
export function metricsContentType(accept: string | undefined): string {
  const wantsOpenMetrics = (accept ?? '').split(',').some((entry) => entry.split(';')[0]?.trim() === 'application/openmetrics-text');
  return wantsOpenMetrics ? 'application/openmetrics-text;charset=utf-8;version=1.0.0' : 'text/plain; charset=utf-8';
}

interface NamedValue {
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
  /** Where it is not the family's own name: a part of a histogram. */
  readonly metricName?: string;
}

function valuesOf(family: MetricFamily, samples: ReadonlyMap<string, readonly Sample[]>): NamedValue[] {
  const named = ({ name }: MetricFamily, part: boolean): NamedValue[] =>
    (samples.get(name) ?? []).map(({ labels, value }) => ({
      labels: Object.fromEntries(labels),
      value,
      ...(part ? { metricName: name } : {}),
    }));
  if (family.type !== 'histogram') return named(family, false);
  const { bucket, sum, count } = histogramParts(family);
  return [...named(bucket, true), ...named(sum, true), ...named(count, true)];
}

/** prom-client writes `_total` itself in this format, behind a name that must not have it yet. */
function asMetric(family: MetricFamily, values: readonly NamedValue[]): object {
  const name = family.type === 'counter' ? family.name.replace(/_total$/, '') : family.name;
  const object: MetricObjectWithValues<MetricValue<string>> = {
    name,
    help: helpText(family),
    type: family.type,
    aggregator: 'sum',
    values,
  } as unknown as MetricObjectWithValues<MetricValue<string>>;
  return { ...object, labelNames: family.labels, get: () => object, reset: () => undefined };
}
