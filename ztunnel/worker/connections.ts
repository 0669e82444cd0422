/**
 * The open connections of one worker: what `config_dump` shows, what a policy change re-examines, and what a drain or a removed pod ends.
 */
import type { ProxyError } from '../../common/base/errors.ts';
import type { Relay } from '../../common/hbone/types.ts';
import type { ConnectionDump } from '../protocol.ts';

export interface Tracked extends ConnectionDump {
  /** Looks at the connection again under today's policies; an error means that it is no longer allowed. */
  readonly recheck?: () => ProxyError | undefined;
}

/** One connection from its first decision to its end. */
export class LiveConnection {
  readonly #controller = new AbortController();
  #relay: Relay | undefined;

  /** Aborted with a ProxyError as reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on an abort goes to the relay. Where one came before, the relay ends at once. */
  relaying(relay: Relay): void {
    this.#relay = relay;
    if (this.signal.aborted) relay.abort(this.signal.reason as ProxyError);
  }

  abort(error: ProxyError): void {
    if (this.signal.aborted) return;
    this.#controller.abort(error);
    this.#relay?.abort(error);
  }
}

export class ConnectionTable {
  readonly #open = new Map<LiveConnection, { podUid: string; tracked: Tracked | undefined }>();
  #whenEmpty: (() => void)[] = [];

  get size(): number {
    return this.#open.size;
  }

  add(podUid: string): LiveConnection {
    const connection = new LiveConnection();
    this.#open.set(connection, { podUid, tracked: undefined });
    return connection;
  }

  /** What is known of it by now. */
  describe(connection: LiveConnection, tracked: Tracked): void {
    const entry = this.#open.get(connection);
    if (entry) entry.tracked = tracked;
  }

  remove(connection: LiveConnection): void {
    this.#open.delete(connection);
    if (this.#open.size > 0) return;
    const waiting = this.#whenEmpty;
    this.#whenEmpty = [];
    for (const resolve of waiting) resolve();
  }

  /** Ends the connections that today's policies refuse. @returns how many */
  recheck(podUid?: string): number {
    let ended = 0;
    for (const [connection, entry] of this.#open) {
      if (podUid !== undefined && entry.podUid !== podUid) continue;
      const error = entry.tracked?.recheck?.();
      if (!error) continue;
      ended++;
      connection.abort(error);
    }
    return ended;
  }

  abortAll(error: ProxyError, podUid?: string): void {
    for (const [connection, entry] of this.#open) if (podUid === undefined || entry.podUid === podUid) connection.abort(error);
  }

  empty(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenEmpty.push(resolve));
  }

  dump(): ConnectionDump[] {
    const found: ConnectionDump[] = [];
    for (const { tracked } of this.#open.values()) {
      if (!tracked) continue;
      const { uid, direction, src, originalDst, actualDst, protocol } = tracked;
      found.push({ uid, direction, src, originalDst, actualDst, protocol });
    }
    return found;
  }
}
