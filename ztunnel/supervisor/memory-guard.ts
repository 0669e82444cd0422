/**
 * One memory budget for the whole process, heap and buffers of all threads: what the kernel counts when it looks for somebody to kill. Over
 * it the pod that uses most gets no new connections; well over it, its connections with most waiting bytes are cut. Everybody else goes on.
 */
import { totalmem } from 'node:os';
import type { Clock } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { SeriesWriter } from '../../common/server/shared-series.ts';
import { metrics } from '../metrics.ts';
import type { PodUsage } from '../protocol.ts';

export interface MemoryGuardOptions {
  readonly budgetBytes: number;
  /** Resident memory of the process. */
  resident(): number;
  readonly clock: Clock;
  readonly log: Log;
  readonly series: SeriesWriter;
  /** @param cut its largest connections as well */
  shed(uid: string | undefined, cut: boolean): void;
}

const LOOK_MS = 500;
/** Below this part of the budget new connections are taken again. */
const CALM = 0.95;
const CUT = 1.1;
/** Memory that nobody's connections explain is not got back by refusing connections. */
const LEAST_SHARE = 0.05;

export class MemoryGuard {
  readonly #options: MemoryGuardOptions;
  readonly #usage = new Map<number, readonly PodUsage[]>();
  #shed: string | undefined;

  constructor(options: MemoryGuardOptions) {
    this.#options = options;
    const { series, budgetBytes } = options;
    series.set(series.slot(metrics.memoryBudget, []), budgetBytes);
    this.#arm();
  }

  /** What the pods of a worker weigh; an empty list when the worker is gone. */
  report(worker: number, usage: readonly PodUsage[]): void {
    if (usage.length === 0) this.#usage.delete(worker);
    else this.#usage.set(worker, usage);
  }

  look(): void {
    const { budgetBytes, resident, shed, log, series } = this.#options;
    const bytes = resident();
    const over = bytes > budgetBytes || (this.#shed !== undefined && bytes > budgetBytes * CALM);
    const largest = over ? this.#largest() : undefined;
    const cut = largest !== undefined && bytes > budgetBytes * CUT;
    if (largest !== this.#shed || cut) {
      if (largest !== this.#shed) {
        log.warn({ pod: largest, residentBytes: bytes, budgetBytes }, largest === undefined ? 'memory suffices again' : 'memory is short');
      }
      this.#shed = largest;
      shed(largest, cut);
    }
    series.set(series.slot(metrics.memoryShedding, []), largest === undefined ? 0 : 1);
  }

  #largest(): string | undefined {
    const sums = new Map<string, number>();
    for (const usage of this.#usage.values()) for (const { uid, bytes } of usage) sums.set(uid, (sums.get(uid) ?? 0) + bytes);
    let largest: string | undefined;
    let most = this.#options.budgetBytes * LEAST_SHARE;
    for (const [uid, bytes] of sums) {
      if (bytes < most) continue;
      largest = uid;
      most = bytes;
    }
    return largest;
  }

  #arm(): void {
    this.#options.clock.after(LOOK_MS, () => {
      this.look();
      this.#arm();
    });
  }
}

/**
 * Four fifths of what the container may have, or of half the machine where it has no limit.
 * @param wantedMb of the setting
 */
export function memoryBudget(wantedMb: number | undefined, constrained = process.constrainedMemory(), total = totalmem()): number {
  if (wantedMb !== undefined) return wantedMb * 2 ** 20;
  const available = constrained > 0 && constrained < total ? constrained : total / 2;
  return Math.floor(available * 0.8);
}
