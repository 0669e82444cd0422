/**
 * The series that a connection counts in: labels of who talks to whom, in Istio's order (Istio's ztunnel, src/proxy/metrics.rs), and the slots
 * that stand for them.
 */
import type { ResponseFlag } from '../../common/base/errors.ts';
import { histogramParts } from '../../common/server/metric-family.ts';
import { orUnknown, peerLabels, UNKNOWN } from '../../common/server/peer-labels.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import type { ConnectionFacts } from './connection-facts.ts';

interface ConnectSlots {
  /** One for each bound, and +Inf. */
  readonly buckets: readonly number[];
  readonly sum: number;
  readonly count: number;
}

export interface TrafficSlots {
  readonly opened: number;
  readonly closed: number;
  readonly received: number;
  readonly sent: number;
  /** Of outbound connections only: who opens one waits for it. */
  readonly connect: ConnectSlots | undefined;
}

/** The series of one set of labels, found with one look-up: labels are long, and every connection has them. */
export class SlotCache {
  readonly #series: SeriesWriter;
  readonly #known = new Map<string, { slots: TrafficSlots; period: number }>();
  /** The last ones that were asked for: a burst of connections is mostly between the same two, and the labels' text is long. */
  readonly #recent: { facts: ConnectionFacts; slots: TrafficSlots; period: number }[] = [];
  #at = 0;

  constructor(series: SeriesWriter) {
    this.#series = series;
  }

  get(facts: ConnectionFacts): TrafficSlots {
    const { period } = this.#series;
    for (const recent of this.#recent) if (recent.period === period && sameEnds(recent.facts, facts)) return recent.slots;
    const slots = this.#find(facts);
    this.#recent[this.#at] = { facts, slots, period };
    this.#at = (this.#at + 1) % MAX_RECENT;
    return slots;
  }

  #find(facts: ConnectionFacts): TrafficSlots {
    const labels = trafficLabels(facts, '-');
    const key = labels.join('\u0000');
    const series = this.#series;
    const known = this.#known.get(key);
    // Asking once in each period keeps the series alive.
    if (known?.period === series.period) return known.slots;
    const overflowed = series.overflowed;
    const slots = {
      opened: series.slot(metrics.opened, labels),
      closed: series.slot(metrics.closed, labels),
      received: series.slot(metrics.received, labels),
      sent: series.slot(metrics.sent, labels),
      connect: facts.direction === 'outbound' ? connectSlots(series, edgeLabels(facts)) : undefined,
    };
    // Overflow series stand for any labels; remembering each of those is what the limit is there to prevent.
    if (series.overflowed === overflowed) this.#known.set(key, { slots, period: series.period });
    return slots;
  }

  forget(periods: number): void {
    for (const [key, { period }] of this.#known) if (this.#series.period - period > periods) this.#known.delete(key);
  }
}

const MAX_RECENT = 8;

/** Whether all labels of the two are equal. By identity: what a view or a header says twice is one object. */
const sameEnds = (a: ConnectionFacts, b: ConnectionFacts): boolean =>
  a.direction === b.direction &&
  a.sourceWorkload === b.sourceWorkload &&
  a.destinationWorkload === b.destinationWorkload &&
  a.service === b.service &&
  a.sourceBaggage === b.sourceBaggage &&
  a.sourceIdentity === b.sourceIdentity &&
  a.mutualTls === b.mutualTls;

const CONNECT_PARTS = histogramParts(metrics.connectDuration);
export const CONNECT_BOUNDS = metrics.connectDuration.buckets ?? [];

function connectSlots(series: SeriesWriter, labels: readonly string[]): ConnectSlots {
  return {
    buckets: [...CONNECT_BOUNDS.map(String), '+Inf'].map((le) => series.slot(CONNECT_PARTS.bucket, [...labels, le])),
    sum: series.slot(CONNECT_PARTS.sum, labels),
    count: series.slot(CONNECT_PARTS.count, labels),
  };
}

/** In the order of EDGE_LABELS. */
function edgeLabels({ sourceWorkload: from, destinationWorkload: to, service }: ConnectionFacts): string[] {
  return [from?.workloadName, from?.namespace, service?.hostname, to?.workloadName, to?.namespace].map(orUnknown);
}

export function trafficLabels(facts: ConnectionFacts, flag: ResponseFlag): string[] {
  const { direction, sourceWorkload: from, sourceBaggage: said, sourceIdentity: principal, destinationWorkload: to, service } = facts;
  const peers = peerLabels({ reporter: direction === 'outbound' ? 'source' : 'destination', from, said, principal, service, to });
  peers.push('tcp', flag, facts.mutualTls ? 'mutual_tls' : UNKNOWN, ...localityLabels(facts));
  return peers;
}

const NO_LOCALITY = ['', '', '', ''];

/** There as soon as either end is known, if only with unknown values: so the real ztunnel's metrics were recorded. */
function localityLabels({ sourceWorkload: from, sourceBaggage: said, destinationWorkload: to }: ConnectionFacts): string[] {
  if (!from && !said && !to) return NO_LOCALITY;
  return [from?.locality.region || said?.region, from?.locality.zone || said?.zone, to?.locality.region, to?.locality.zone].map(orUnknown);
}
