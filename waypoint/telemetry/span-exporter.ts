/**
 * Spans on their way to their receivers: collected for each receiver, sent in batches when there are many or a second has passed. A worker sends
 * them itself, over the same tunnels as requests, so a receiver in the mesh sees the waypoint's identity, and no thread waits for another one.
 * One batch of a receiver is under way at a time, the queue behind it is bounded, and what does not fit or is not taken is dropped and counted:
 * a receiver that is slow, hangs or is not there costs memory for one queue, and no request any time.
 */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { SpanReceiver } from '../../common/codec/gen/waypoint.ts';
import type { SpanRecord } from './span-record.ts';

export type DropReason = 'queue_full' | 'failed' | 'rejected';

export interface SpanExporterOptions {
  readonly clock: Clock;
  readonly log: Pick<Log, 'warn' | 'info'>;
  /** Sends one batch. @returns how many of them the receiver says that it did not take @throws where it did not answer well, or in time */
  send(receiver: SpanReceiver, spans: readonly SpanRecord[]): Promise<number>;
  exported(provider: string, count: number): void;
  dropped(provider: string, reason: DropReason, count: number): void;
}

interface Queue {
  readonly provider: string;
  readonly receiver: SpanReceiver;
  waiting: SpanRecord[];
  underWay: boolean;
  /** Of a batch that is not full. */
  timed: boolean;
  /** One line when it begins to fail, one when it works again. */
  failing: boolean;
}

const BATCH = 512;
/** About 2 kB each: 4 MB for a receiver that hangs. */
const MOST_WAITING = 2048;
const LATEST_MS = 1000;
/** Receivers at a time; each provider of the mesh is one. */
const MOST_RECEIVERS = 50;

export class SpanExporter {
  readonly #options: SpanExporterOptions;
  /** By what they are, since each resource that names one has its own copy. */
  readonly #queues = new Map<string, Queue>();
  readonly #keys = new WeakMap<SpanReceiver, string>();

  constructor(options: SpanExporterOptions) {
    this.#options = options;
  }

  add(provider: string, receiver: SpanReceiver, span: SpanRecord): void {
    const queue = this.#queue(provider, receiver);
    if (!queue || queue.waiting.length >= MOST_WAITING) {
      this.#options.dropped(provider, 'queue_full', 1);
      return;
    }
    queue.waiting.push(span);
    if (queue.waiting.length >= BATCH) void this.#flush(queue);
    else this.#flushLater(queue);
  }

  /** Sends what is left; resolves when it is sent or lost. */
  async close(): Promise<void> {
    await Promise.all([...this.#queues.values()].map((queue) => this.#flush(queue)));
  }

  #queue(provider: string, receiver: SpanReceiver): Queue | undefined {
    let key = this.#keys.get(receiver);
    if (key === undefined) {
      key = JSON.stringify([provider, receiver]);
      this.#keys.set(receiver, key);
    }
    const known = this.#queues.get(key);
    if (known) return known;
    if (this.#queues.size >= MOST_RECEIVERS) this.#forgetIdle();
    if (this.#queues.size >= MOST_RECEIVERS) return undefined;
    const queue: Queue = { provider, receiver, waiting: [], underWay: false, timed: false, failing: false };
    this.#queues.set(key, queue);
    return queue;
  }

  #forgetIdle(): void {
    for (const [key, { waiting, underWay }] of this.#queues) if (waiting.length === 0 && !underWay) this.#queues.delete(key);
  }

  #flushLater(queue: Queue): void {
    if (queue.timed) return;
    queue.timed = true;
    this.#options.clock.after(LATEST_MS, () => {
      queue.timed = false;
      void this.#flush(queue);
    });
  }

  async #flush(queue: Queue): Promise<void> {
    if (queue.underWay) return;
    queue.underWay = true;
    try {
      while (queue.waiting.length > 0) await this.#send(queue, queue.waiting.splice(0, BATCH));
    } finally {
      queue.underWay = false;
    }
  }

  async #send(queue: Queue, spans: readonly SpanRecord[]): Promise<void> {
    const { send, exported, dropped, log } = this.#options;
    const { provider, receiver } = queue;
    try {
      const rejected = Math.min(await send(receiver, spans), spans.length);
      exported(provider, spans.length - rejected);
      if (rejected > 0) dropped(provider, 'rejected', rejected);
      if (queue.failing) log.info({ provider }, 'spans are taken again');
      queue.failing = false;
    } catch (error) {
      dropped(provider, 'failed', spans.length);
      if (!queue.failing)
        log.warn({ provider, to: receiver.to?.hostname, error: errorMessage(error) }, 'spans are lost: the receiver does not take them');
      queue.failing = true;
    }
  }
}
