/**
 * The open connections of one worker: what `config_dump` shows, what a policy change re-examines, and what a drain or a removed pod ends.
 */
import { Cancellation } from '../../common/base/cancellation.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import { type Member, Roster } from '../../common/base/roster.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { ConnectionDump } from '../protocol.ts';

export interface Tracked extends ConnectionDump {
  /** Looks at the connection again under today's policies; an error means that it is no longer allowed. */
  readonly recheck?: () => ProxyError | undefined;
}

/** One connection from its first decision to its end. */
export class LiveConnection implements Member {
  readonly podUid: string;
  place = -1;
  /** What is known of it by now. */
  tracked: Tracked | undefined;
  /** Aborted with a ProxyError as reason. */
  readonly cancelled = new Cancellation();
  #relay: Relay | undefined;

  constructor(podUid: string) {
    this.podUid = podUid;
  }

  /** The same as Node has it. */
  get signal(): AbortSignal {
    return this.cancelled.signal;
  }

  /** Bytes of it that wait for a slow reader. */
  get waiting(): number {
    return this.#relay?.waiting ?? 0;
  }

  /** From now on an abort goes to the relay. Where one came before, the relay ends at once. */
  relaying(relay: Relay): void {
    this.#relay = relay;
    if (this.cancelled.aborted) relay.abort(this.cancelled.reason as ProxyError);
  }

  abort(error: ProxyError): void {
    if (this.cancelled.aborted) return;
    this.cancelled.abort(error);
    this.#relay?.abort(error);
  }
}

export class ConnectionTable {
  readonly #open = new Roster<LiveConnection>();
  readonly #counts = new Map<string, number>();
  #whenEmpty: (() => void)[] = [];

  get size(): number {
    return this.#open.size;
  }

  add(podUid: string): LiveConnection {
    const connection = new LiveConnection(podUid);
    this.#open.add(connection);
    this.#counts.set(podUid, (this.#counts.get(podUid) ?? 0) + 1);
    return connection;
  }

  countOf(podUid: string): number {
    return this.#counts.get(podUid) ?? 0;
  }

  /** Bytes that wait, by pod; every pod with connections is in it. */
  waiting(): Map<string, number> {
    const sums = new Map<string, number>();
    for (const { podUid, waiting } of this.#open.all()) sums.set(podUid, (sums.get(podUid) ?? 0) + waiting);
    return sums;
  }

  /** Ends those of the pod's connections that hold most, until half of what waits is gone. @returns how many */
  cutLargest(podUid: string, error: ProxyError): number {
    const own = this.#open.all().filter((connection) => connection.podUid === podUid && connection.waiting > 0);
    const sorted = own.map((connection) => ({ connection, waiting: connection.waiting })).sort((a, b) => b.waiting - a.waiting);
    let left = sorted.reduce((sum, { waiting }) => sum + waiting, 0) / 2;
    let ended = 0;
    for (const { connection, waiting } of sorted) {
      if (left <= 0) break;
      left -= waiting;
      ended++;
      connection.abort(error);
    }
    return ended;
  }

  remove(connection: LiveConnection): void {
    if (!this.#open.delete(connection)) return;
    const { podUid } = connection;
    const left = (this.#counts.get(podUid) ?? 1) - 1;
    if (left > 0) this.#counts.set(podUid, left);
    else this.#counts.delete(podUid);
    if (this.#open.size > 0) return;
    const waiting = this.#whenEmpty;
    this.#whenEmpty = [];
    for (const resolve of waiting) resolve();
  }

  /** Ends the connections that today's policies refuse. @returns how many */
  recheck(podUid?: string): number {
    let ended = 0;
    for (const connection of this.#open.all()) {
      if (podUid !== undefined && connection.podUid !== podUid) continue;
      const error = connection.tracked?.recheck?.();
      if (!error) continue;
      ended++;
      connection.abort(error);
    }
    return ended;
  }

  abortAll(error: ProxyError, podUid?: string): void {
    for (const connection of this.#open.all()) if (podUid === undefined || connection.podUid === podUid) connection.abort(error);
  }

  empty(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenEmpty.push(resolve));
  }

  dump(): ConnectionDump[] {
    const found: ConnectionDump[] = [];
    for (const { tracked } of this.#open.all()) {
      if (!tracked) continue;
      const { uid, direction, src, originalDst, actualDst, protocol } = tracked;
      found.push({ uid, direction, src, originalDst, actualDst, protocol });
    }
    return found;
  }
}
