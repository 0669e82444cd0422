/**
 * Connections to peers, kept for the next tunnel (Istio's ztunnel, src/proxy/pool.rs). A connection belongs to one key, which has in it everything
 * that decided on how it was made: no tunnel of one pod rides on another pod's connection.
 */
import type { TLSSocket } from 'node:tls';
import { formatSocketAddress, type IpAddress, type SocketAddress } from '../base/address.ts';
import type { CancelSignal } from '../base/cancellation.ts';
import type { Clock, Timer } from '../base/clock.ts';
import { ProxyError } from '../base/errors.ts';
import { type ConnectOptions, HboneClient } from './client.ts';
import { TunnelNotOpened } from './refusal.ts';
import type { HboneLimits, StreamPipe } from './types.ts';

export interface PoolKey {
  /** SPIFFE URI that we prove to the peer. */
  readonly source: string;
  /** SPIFFE URIs of which the peer has to prove one. */
  readonly destinations: readonly string[];
  readonly to: SocketAddress;
  readonly sourceIp: IpAddress;
}

export interface HbonePoolOptions {
  readonly clock: Clock;
  /** Connects and shakes hands; the signal is aborted when nobody waits any more. */
  dial(key: PoolKey, signal: AbortSignal): Promise<TLSSocket>;
  readonly limits: HboneLimits;
  readonly maxStreamsPerConnection: number;
  /** A connection without streams is closed after this time. */
  readonly unusedReleaseMs: number;
}

/** Connections on which an unprocessed request is tried in turn, before its error is the answer. */
const MAX_ATTEMPTS = 4;

interface Entry {
  readonly name: string;
  readonly connections: Pooled[];
  dialing: Dialing | undefined;
}

/** One connection under way, and who waits for it. */
interface Dialing {
  readonly done: Promise<void>;
  readonly abort: AbortController;
  waiting: number;
}

interface Pooled {
  readonly client: HboneClient;
  idleSince: number | undefined;
  idleTimer: Timer | undefined;
}

export class HbonePool {
  readonly #options: HbonePoolOptions;
  readonly #entries = new Map<string, Entry>();
  #size = 0;
  #destroyed: ProxyError | undefined;

  constructor(options: HbonePoolOptions) {
    this.#options = options;
  }

  /** Connections that are open, those that only finish their last streams among them. */
  get size(): number {
    return this.#size;
  }

  /**
   * Opens a tunnel on a connection for the key, dialling one if need be; only one is dialled at a time for a key.
   * @throws what the dial threw; what HboneClient.connect throws; the signal's reason
   */
  async connect(key: PoolKey, options: ConnectOptions): Promise<StreamPipe> {
    const name = keyName(key);
    for (let attempt = 1; ; ) {
      if (this.#destroyed) throw this.#destroyed;
      if (options.signal?.aborted) throw options.signal.reason;
      const entry = this.#entry(name);
      const pooled = entry.connections.find(({ client }) => client.usable);
      if (!pooled) {
        // A dial that nobody waited for any more is not waited for again.
        if (!entry.dialing || entry.dialing.abort.signal.aborted) entry.dialing = this.#dial(entry, key);
        await join(entry.dialing, options.signal);
        continue;
      }
      pooled.idleSince = undefined;
      try {
        // The stream takes its place before anybody else looks.
        return await pooled.client.connect(options);
      } catch (error) {
        if (attempt++ === MAX_ATTEMPTS || !mayRetry(error, pooled.client)) throw error;
      }
    }
  }

  /** Tears all connections down; tunnels fail with the error, and nothing can be opened any more. */
  destroy(error?: ProxyError): void {
    const reason = error ?? new ProxyError('POD_REMOVED', 'the connection pool was closed');
    this.#destroyed = reason;
    for (const { connections, dialing } of [...this.#entries.values()]) {
      dialing?.abort.abort(reason);
      for (const { client } of [...connections]) client.destroy(reason);
    }
    this.#entries.clear();
  }

  #entry(name: string): Entry {
    const entry = this.#entries.get(name) ?? { name, connections: [], dialing: undefined };
    this.#entries.set(name, entry);
    return entry;
  }

  #dial(entry: Entry, key: PoolKey): Dialing {
    const abort = new AbortController();
    const { promise: done, resolve, reject } = Promise.withResolvers<void>();
    // Those who wait get the error; when nobody does any more, nobody needs it.
    done.catch(() => {});
    const dialing: Dialing = { done, abort, waiting: 0 };
    const open = async (): Promise<void> => {
      try {
        const socket = await this.#options.dial(key, abort.signal);
        if (this.#destroyed || abort.signal.aborted) {
          socket.destroy();
          throw this.#destroyed ?? abort.signal.reason;
        }
        this.#add(entry, socket);
      } finally {
        if (entry.dialing === dialing) entry.dialing = undefined;
        this.#forgetIfEmpty(entry);
      }
    };
    open().then(resolve, reject);
    return dialing;
  }

  #add(entry: Entry, socket: TLSSocket): void {
    const { clock, limits, maxStreamsPerConnection } = this.#options;
    const client = new HboneClient(socket, {
      clock,
      limits,
      maxStreams: maxStreamsPerConnection,
      onClose: () => {
        this.#size--;
        pooled.idleTimer?.cancel();
        const at = entry.connections.indexOf(pooled);
        if (at >= 0) entry.connections.splice(at, 1);
        this.#forgetIfEmpty(entry);
      },
      onStreamEnd: () => {
        if (client.openStreams === 0 && !client.draining) this.#idle(pooled);
      },
    });
    const pooled: Pooled = { client, idleSince: undefined, idleTimer: undefined };
    this.#size++;
    // A pool whose entry was forgotten meanwhile takes it back.
    this.#entries.set(entry.name, entry);
    entry.connections.push(pooled);
    this.#idle(pooled);
  }

  /** One timer for each connection, re-armed for what is left: streams come and go far more often than connections are idle. */
  #idle(pooled: Pooled): void {
    const { clock, unusedReleaseMs } = this.#options;
    pooled.idleSince = clock.monotonic();
    if (pooled.idleTimer) return;
    const check = (): void => {
      pooled.idleTimer = undefined;
      if (pooled.idleSince === undefined || pooled.client.openStreams > 0) return;
      const left = pooled.idleSince + unusedReleaseMs - clock.monotonic();
      if (left <= 0) {
        pooled.client.goAway();
        return;
      }
      pooled.idleTimer = clock.after(left, check);
    };
    pooled.idleTimer = clock.after(unusedReleaseMs, check);
  }

  #forgetIfEmpty(entry: Entry): void {
    if (entry.connections.length === 0 && !entry.dialing && this.#entries.get(entry.name) === entry) this.#entries.delete(entry.name);
  }
}

/** Text in which no two keys are equal: none of the pieces has a line feed in it. */
const keyName = ({ source, destinations, to, sourceIp }: PoolKey): string =>
  `${source}\n${destinations.join(' ')}\n${formatSocketAddress(to)}\n${sourceIp}`;

/**
 * A request that was not processed goes to another connection; so does one whose connection died before the answer, because nothing of
 * the application was sent yet, and a pooled connection may have been dead for a while.
 */
function mayRetry(error: unknown, client: HboneClient): boolean {
  return error instanceof TunnelNotOpened || (error instanceof ProxyError && error.code === 'CONNECTION_LOST' && client.draining);
}

/** Waits for the dial, or for the signal; the last one to leave ends the dial. */
function join(dialing: Dialing, signal: CancelSignal | undefined): Promise<void> {
  dialing.waiting++;
  return new Promise((resolve, reject) => {
    const leave = (): void => {
      dialing.waiting--;
      signal?.removeEventListener('abort', abort);
    };
    const abort = (): void => {
      leave();
      if (dialing.waiting === 0) dialing.abort.abort(signal?.reason);
      reject(signal?.reason);
    };
    signal?.addEventListener('abort', abort, { once: true });
    dialing.done.then(
      () => {
        leave();
        resolve();
      },
      (error) => {
        leave();
        reject(error);
      },
    );
  });
}
