/** The supervisor's counters: a segment of its own, as each worker has one, and the reader that adds all of them up. */
import { createSegment, SeriesReader, SeriesWriter } from '../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../metrics.ts';
import type { ZtunnelSettings } from '../settings.ts';

export interface Counters {
  readonly reader: SeriesReader;
  readonly series: SeriesWriter;
}

const SUPERVISOR_SERIES = 1000;
/** Workers have numbers from 0. */
const SUPERVISOR = -1;

export function supervisorCounters(settings: Pick<ZtunnelSettings, 'metadata'>): Counters {
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(SUPERVISOR_SERIES);
  reader.attach(SUPERVISOR, segment);
  const series = new SeriesWriter(segment, (announcement) => reader.announce(SUPERVISOR, [announcement]));
  series.set(series.slot(metrics.build, ['ztunnel', String(settings.metadata.ISTIO_VERSION ?? 'unknown')]), 1);
  return { reader, series };
}
