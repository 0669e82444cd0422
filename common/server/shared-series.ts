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
  /** Values in the order of the family's labels; behind them further labels, each as name and value. */
  readonly values: readonly string[];
  /** The series is over, its slot will be another one's. */
  readonly ended?: true;
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
  readonly #series = new Map<string, Series>();
  readonly #free: { slot: number; from: number }[] = [];
  readonly #overflow = new Map<string, number>();
  #used = 0;
  /** Counts `expire`. */
  #period = 0;
  /** Times that a series was asked for and did not fit. */
  overflowed = 0;

  constructor(segment: SeriesSegment, announce: (announcement: SeriesAnnouncement) => void) {
    this.#values = new Float64Array(segment.memory);
    this.#maxSeries = segment.maxSeries;
    this.#announce = announce;
  }

  /**
   * The slot of a series, made at its first use. Keep it: looking up costs a string of all label values.
   * @param values one for each label of the family, in its order; behind them further labels, each as name and value
   */
  slot(family: MetricFamily, values: readonly string[]): number {
    const key = seriesKey(family.name, values);
    const known = this.#series.get(key);
    if (known) {
      known.askedIn = this.#period;
      return known.slot;
    }
    if (this.#series.size >= this.#maxSeries) return this.#overflowSlot(family);
    const slot = this.#create(family, values);
    this.#series.set(key, { slot, family, values, askedIn: this.#period });
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

  /** Which period it is: a slot that was asked for in an earlier one has to be asked for again before it is counted in. */
  get period(): number {
    return this.#period;
  }

  /**
   * Ends a period. Series of families that expire, and that were not asked for in the last `periods`, are over; their slots are used again
   * two periods later, when no reader can take them for the old ones any more.
   * @param isHeld slots that somebody still counts in without asking
   */
  expire(periods: number, isHeld: (slot: number) => boolean): void {
    this.#period++;
    for (const [key, { slot, family, values, askedIn }] of this.#series) {
      if (!family.expires || this.#period - askedIn <= periods || isHeld(slot)) continue;
      this.#series.delete(key);
      this.#announce({ slot, family: family.name, values, ended: true });
      this.#free.push({ slot, from: this.#period + 2 });
    }
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
    const slot = this.#nextSlot();
    this.#announce({ slot, family: family.name, values });
    return slot;
  }

  #nextSlot(): number {
    const [free] = this.#free;
    if (free && free.from <= this.#period) {
      this.#free.shift();
      this.#values[free.slot] = 0;
      return free.slot;
    }
    const slot = this.#used++;
    if (slot >= this.#values.length) throw new RangeError('more metric families than a segment has room for');
    return slot;
  }
}

interface Series {
  readonly slot: number;
  readonly family: MetricFamily;
  readonly values: readonly string[];
  /** The period in which it was last asked for. */
  askedIn: number;
}

const seriesKey = (family: string, values: readonly string[]): string => `${family}\u0000${values.join('\u0000')}`;

/** One series over all of its writers. */
interface Total {
  readonly family: MetricFamily;
  /** Made once, so that its text can be remembered. */
  readonly labels: Sample['labels'];
  /** Writer to slot, of those that count in it now. */
  readonly slots: Map<number, number>;
  /** What writers have counted that ended or gave the series up: a counter must never go back. */
  retired: number;
}

/** Adds up the segments of all writers, and keeps what writers that are gone have counted. */
export class SeriesReader {
  readonly #families: ReadonlyMap<string, MetricFamily>;
  readonly #segments = new Map<number, Float64Array>();
  readonly #totals = new Map<string, Total>();

  constructor(families: readonly MetricFamily[]) {
    this.#families = new Map(countedFamilies(families).map((family) => [family.name, family]));
  }

  attach(writer: number, segment: SeriesSegment): void {
    this.#segments.set(writer, new Float64Array(segment.memory));
  }

  /** Announcements of families that are not in the table are passed over. */
  announce(writer: number, announcements: readonly SeriesAnnouncement[]): void {
    if (!this.#segments.has(writer)) return;
    for (const { family: name, values, slot, ended } of announcements) {
      const key = seriesKey(name, values);
      const known = this.#totals.get(key);
      if (ended) {
        if (!known) continue;
        this.#retire(known, writer);
        if (known.slots.size === 0) this.#totals.delete(key);
        continue;
      }
      const family = this.#families.get(name);
      if (!family) continue;
      const total = known ?? { family, labels: labelsOf(family, values), slots: new Map(), retired: 0 };
      total.slots.set(writer, slot);
      this.#totals.set(key, total);
    }
  }

  /** The writer has ended: its counters stay counted, its gauges go. */
  detach(writer: number): void {
    for (const [key, total] of this.#totals) {
      if (!total.slots.has(writer)) continue;
      this.#retire(total, writer);
      if (total.slots.size === 0 && total.family.type !== 'counter') this.#totals.delete(key);
    }
    this.#segments.delete(writer);
  }

  #retire(total: Total, writer: number): void {
    if (total.family.type === 'counter') total.retired += this.#valueOf(writer, total.slots.get(writer));
    total.slots.delete(writer);
  }

  #valueOf(writer: number, slot: number | undefined): number {
    return slot === undefined ? 0 : (this.#segments.get(writer)?.[slot] ?? 0);
  }

  /** One family's series with their sums, in the order in which they came up. */
  samples(family: MetricFamily): Sample[] {
    return this.collect().get(family.name) ?? [];
  }

  /** Sums of all series by family name. */
  collect(): Map<string, Sample[]> {
    const found = new Map<string, Sample[]>();
    for (const { family, labels, slots, retired } of this.#totals.values()) {
      let value = retired;
      for (const [writer, slot] of slots) value += this.#valueOf(writer, slot);
      if (family.hideZero && value === 0) continue;
      const samples = found.get(family.name);
      if (samples) samples.push({ labels, value });
      else found.set(family.name, [{ labels, value }]);
    }
    return found;
  }
}

/** Labels without a value are left out. */
function labelsOf(family: MetricFamily, values: readonly string[]): Sample['labels'] {
  const labels = family.labels.map((label, i) => [label, values[i] ?? ''] as const);
  for (let i = family.labels.length; i + 1 < values.length; i += 2) labels.push([values[i] ?? '', values[i + 1] ?? '']);
  return labels.filter(([, value]) => value !== '');
}
