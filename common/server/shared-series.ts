/**
 * Counters that data workers write and a scrape reads, without either waiting for the other (design decisions 6 and 7): one segment of
 * shared memory for each worker, one float for each series, a single writer. A worker announces a series once, by message; from then on
 * counting is one store, and a scrape adds the segments up.
 *
 * A 64-bit store to an aligned address is not torn on the machines that we support, and a reader that sees the value before the last one is
 * right a moment later, so neither side uses atomics.
 */
import { countedFamilies, histogramParts, type MetricFamily, type Sample } from './metric-family.ts';

/** One new series: which slot it has, and what it is. Small plain data, made for postMessage. */
export interface SeriesAnnouncement {
  readonly slot: number;
  readonly family: string;
  /** Values in the order of the family's labels. */
  readonly values: readonly string[];
}

export interface SeriesSegment {
  readonly memory: SharedArrayBuffer;
  /** Series that the writer may create by name; each family has one overflow series on top. */
  readonly maxSeries: number;
}

// Room for the overflow series of every family, and for the counter of what went there.
const RESERVED_SLOTS = 256;
/** Label value of the series that takes what does not fit any more. */
export const OVERFLOW_LABEL = 'other';

/** Memory for one writer. Untouched pages cost nothing. */
export function createSegment(maxSeries: number): SeriesSegment {
  return { memory: new SharedArrayBuffer((maxSeries + RESERVED_SLOTS) * 8), maxSeries };
}

export class SeriesWriter {
  readonly #values: Float64Array;
  readonly #maxSeries: number;
  readonly #announce: (announcement: SeriesAnnouncement) => void;
  readonly #slots = new Map<string, number>();
  readonly #overflow = new Map<string, number>();
  #used = 0;
  /** Times that a series was asked for and did not fit. */
  overflowed = 0;

  constructor(segment: SeriesSegment, announce: (announcement: SeriesAnnouncement) => void) {
    this.#values = new Float64Array(segment.memory);
    this.#maxSeries = segment.maxSeries;
    this.#announce = announce;
  }

  /**
   * The slot of a series, made at its first use. Keep it: looking up costs a string of all label values.
   * @param values one for each label of the family, in its order
   */
  slot(family: MetricFamily, values: readonly string[]): number {
    const key = `${family.name}\u0000${values.join('\u0000')}`;
    const known = this.#slots.get(key);
    if (known !== undefined) return known;
    if (this.#slots.size >= this.#maxSeries) return this.#overflowSlot(family);
    const slot = this.#create(family, values);
    this.#slots.set(key, slot);
    return slot;
  }

  /** Counts one value in a histogram's series. */
  observe(family: MetricFamily, values: readonly string[], value: number): void {
    const { bucket, sum, count } = histogramParts(family);
    for (const bound of family.buckets ?? []) {
      this.add(this.slot(bucket, [...values, String(bound)]), value <= bound ? 1 : 0);
    }
    this.add(this.slot(bucket, [...values, '+Inf']), 1);
    this.add(this.slot(sum, values), value);
    this.add(this.slot(count, values), 1);
  }

  add(slot: number, amount: number): void {
    this.#values[slot] = (this.#values[slot] ?? 0) + amount;
  }

  set(slot: number, value: number): void {
    this.#values[slot] = value;
  }

  get(slot: number): number {
    return this.#values[slot] ?? 0;
  }

  #overflowSlot(family: MetricFamily): number {
    this.overflowed++;
    let slot = this.#overflow.get(family.name);
    if (slot === undefined) {
      slot = this.#create(
        family,
        family.labels.map(() => OVERFLOW_LABEL),
      );
      this.#overflow.set(family.name, slot);
    }
    return slot;
  }

  #create(family: MetricFamily, values: readonly string[]): number {
    const slot = this.#used++;
    if (slot >= this.#values.length) throw new RangeError('more metric families than a segment has room for');
    this.#announce({ slot, family: family.name, values });
    return slot;
  }
}

/** Adds up the segments of all writers, and keeps what writers that are gone have counted. */
export class SeriesReader {
  readonly #families: ReadonlyMap<string, MetricFamily>;
  readonly #segments = new Map<number, { values: Float64Array; series: SeriesAnnouncement[] }>();
  /** Counters of writers that ended: a counter must never go back. */
  readonly #retired = new Map<string, { family: MetricFamily; values: readonly string[]; value: number }>();

  constructor(families: readonly MetricFamily[]) {
    this.#families = new Map(countedFamilies(families).map((family) => [family.name, family]));
  }

  attach(writer: number, segment: SeriesSegment): void {
    this.#segments.set(writer, { values: new Float64Array(segment.memory), series: [] });
  }

  /** Announcements of families that are not in the table are passed over. */
  announce(writer: number, announcements: readonly SeriesAnnouncement[]): void {
    this.#segments.get(writer)?.series.push(...announcements);
  }

  /** The writer has ended: its counters stay counted, its gauges go. */
  detach(writer: number): void {
    const segment = this.#segments.get(writer);
    if (!segment) return;
    this.#segments.delete(writer);
    for (const { slot, family: name, values } of segment.series) {
      const family = this.#families.get(name);
      if (family?.type !== 'counter') continue;
      const key = `${name}\u0000${values.join('\u0000')}`;
      const before = this.#retired.get(key)?.value ?? 0;
      this.#retired.set(key, { family, values, value: before + (segment.values[slot] ?? 0) });
    }
  }

  /** One family's series with their sums, in the order in which they came up. */
  samples(family: MetricFamily): Sample[] {
    return this.collect().get(family.name) ?? [];
  }

  /** Sums of all series by family name. */
  collect(): Map<string, Sample[]> {
    const sums = new Map<string, { family: MetricFamily; values: readonly string[]; value: number }>();
    for (const [key, { family, values, value }] of this.#retired) sums.set(key, { family, values, value });
    for (const segment of this.#segments.values()) {
      for (const { slot, family: name, values } of segment.series) {
        const family = this.#families.get(name);
        if (!family) continue;
        const key = `${name}\u0000${values.join('\u0000')}`;
        const sum = sums.get(key);
        const value = segment.values[slot] ?? 0;
        if (sum) sum.value += value;
        else sums.set(key, { family, values, value });
      }
    }
    const found = new Map<string, Sample[]>();
    for (const { family, values, value } of sums.values()) {
      if (family.hideZero && value === 0) continue;
      const labels = family.labels.map((label, i) => [label, values[i] ?? ''] as const).filter(([, text]) => text !== '');
      const samples = found.get(family.name);
      if (samples) samples.push({ labels, value });
      else found.set(family.name, [{ labels, value }]);
    }
    return found;
  }
}
