/** What a bench is and what it reports: one row for each measurement, ours beside a peer's or a target. */

export interface Row {
  readonly bench: string;
  readonly case: string;
  readonly metric: string;
  readonly unit: string;
  readonly ours: number;
  /** The same measurement of the peer in the same run; null where there is none. */
  readonly peer: number | null;
  readonly peerName: string | null;
  /** ours / peer; null where there is no peer. */
  readonly ratio: number | null;
  /** What `ratio`, or `ours` where there is no peer, is held against; null where nothing is promised. */
  readonly target: number | null;
  /** null where there is no target. */
  readonly met: boolean | null;
}

export interface Bench {
  readonly name: string;
  /** One sentence for the list of benches. */
  readonly doc: string;
  /** Takes --cluster. */
  readonly onCluster?: boolean;
  /** Takes --minutes. */
  readonly timed?: boolean;
  /** Takes --only. */
  readonly selective?: boolean;
  /** Takes --profile. */
  readonly profiled?: boolean;
  run(options: BenchOptions): Promise<Row[]>;
}

export interface BenchOptions {
  readonly cluster: boolean;
  readonly minutes?: number;
  /** Cases whose names have this text in them, and no others. */
  readonly only?: string;
  /** Says of rows that miss their target where the processor time goes. */
  readonly profile?: boolean;
}

interface Measurement {
  readonly bench: string;
  readonly case: string;
  readonly metric: string;
  readonly unit: string;
  readonly ours: number;
  readonly target?: number;
  /** Whether a smaller number (memory, latency) or a larger one (throughput) meets the target. */
  readonly better: 'less' | 'more';
}

/** A measurement held against a number. */
export function absoluteRow({ target, better, ...row }: Measurement): Row {
  return { ...row, peer: null, peerName: null, ratio: null, ...judge(row.ours, target, better) };
}

/** A measurement held against a peer's in the same run; the target is a ratio. */
export function ratioRow({
  target,
  better,
  peer,
  peerName,
  ...row
}: Measurement & { readonly peer: number; readonly peerName: string }): Row {
  const ratio = peer === 0 ? null : row.ours / peer;
  return { ...row, peer, peerName, ratio, ...judge(ratio, target, better) };
}

/** The middle one, or the mean of the two in the middle. @throws RangeError where there is none */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  if (low === undefined || high === undefined) throw new RangeError('the median of nothing');
  return (low + high) / 2;
}

function judge(value: number | null, target: number | undefined, better: 'less' | 'more'): Pick<Row, 'target' | 'met'> {
  if (target === undefined) return { target: null, met: null };
  if (value === null) return { target, met: false };
  return { target, met: better === 'less' ? value <= target : value >= target };
}
