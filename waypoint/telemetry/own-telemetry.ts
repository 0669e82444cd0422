/**
 * What Telemetry objects make of requests and connections, beside or instead of what everybody gets: labels of metrics changed, lines in other
 * forms, spans. Where no object says anything, nothing here is asked for more than once.
 */

import type { TelemetryFacts } from '../../common/decision/telemetry-facts.ts';
import type { CompiledLogger, CompiledMetrics, CompiledTelemetry } from '../../common/decision/telemetry-model.ts';
import type { MetricFamily } from '../../common/server/metric-family.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';

export interface LineWriting {
  write(line: string): void;
}

export interface OwnTelemetry {
  of(service: string | undefined): CompiledTelemetry | undefined;
  /** `spiffe://…` of the waypoint. */
  readonly identity: string;
  readonly stdout: LineWriting;
  readonly stderr: LineWriting;
}

export function writeLines({ stdout, stderr }: OwnTelemetry, loggers: readonly CompiledLogger[], facts: TelemetryFacts): void {
  for (const logger of loggers) {
    const line = logger.line(facts);
    if (line !== undefined) (logger.stderr ? stderr : stdout).write(line);
  }
}

/** The tags that all families together need, each worked out once. */
export const tagValues = ({ tags }: CompiledMetrics, facts: TelemetryFacts): string[] => tags.map((read) => read(facts));

/**
 * The slot of a series whose labels Telemetry changes; undefined for a metric that is switched off. Labels that the family does not have are
 * told behind its own ones, as pairs of name and value.
 * @param labels of the family as it is @param more behind them: a histogram's `le`
 */
export function changedSlot(
  series: SeriesWriter,
  { family, counted = family }: { readonly family: MetricFamily; readonly counted?: MetricFamily },
  labels: readonly string[],
  metrics: CompiledMetrics,
  values: readonly string[],
  more: readonly string[] = [],
): number | undefined {
  const change = metrics.families.get(family.name);
  if (!change) return series.slot(counted, [...labels, ...more]);
  if (change.disabled) return undefined;
  const changed = [...labels];
  const added: string[] = [];
  for (const [name, tag] of change.changes) {
    const at = family.labels.indexOf(name);
    if (at >= 0) changed[at] = tag < 0 ? '' : (values[tag] ?? '');
    else if (tag >= 0) added.push(name, values[tag] ?? '');
  }
  return series.slot(counted, [...changed, ...more, ...added]);
}
