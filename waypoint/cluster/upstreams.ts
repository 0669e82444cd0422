/**
 * HTTP connections to endpoints, kept alive for the next request: HTTP/1.1 connections carry one request at a time, the one that was used
 * last first; HTTP/2 connections carry as many as they may, and one more is opened when all are full. Where the service's settings say how
 * many connections there may be, further requests wait for one, and how many of them may wait is limited too.
 */
import type { Clock, Timer } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { Pipe } from '../../common/hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions } from '../../common/http/connections.ts';
import type { HttpLimits } from '../../common/http/types.ts';
import type { PickedEndpoint } from './endpoint.ts';

export type HttpVersion = 'http1' | 'http2';

export interface UpstreamsOptions {
  readonly limits: HttpLimits;
  readonly clock: Clock;
  dial(endpoint: PickedEndpoint, signal: AbortSignal, version: HttpVersion): Promise<Pipe>;
  readonly connect: Readonly<Record<HttpVersion, (pipe: Pipe, options: HttpClientOptions) => HttpClientConnection>>;
}

/** Connections to one endpoint; requests beyond that are refused. */
const MAX_CONNECTIONS = 1024;
/** Requests that wait for a connection where the settings do not say: Envoy's. */
const MAX_WAITING = 1024;

interface Waiter {
  readonly endpoint: PickedEndpoint;
  readonly give: (connection: HttpClientConnection) => void;
  readonly fail: (error: unknown) => void;
}

interface Entry {
  readonly key: string;
  readonly open: Set<HttpClientConnection>;
  /** HTTP/1.1 connections that wait for a request. */
  readonly idle: HttpClientConnection[];
  opening: number;
  /** The HTTP/2 connection that is being opened, for all who wait for one. */
  shared: Promise<HttpClientConnection> | undefined;
  /** Requests for which there may be no further connection. */
  readonly waiting: Set<Waiter>;
  /** Requests that each connection has had, where that is limited. */
  readonly served: Map<HttpClientConnection, number> | undefined;
}

export class Upstreams {
  readonly #options: UpstreamsOptions;
  /** By the endpoint's key: a key of both would have to be made for each request. */
  readonly #entries: Readonly<Record<HttpVersion, Map<string, Entry>>> = { http1: new Map(), http2: new Map() };
  readonly #ended = new AbortController();

  constructor(options: UpstreamsOptions) {
    this.#options = options;
  }

  /** Connections that are open. */
  get size(): number {
    let size = 0;
    for (const { open } of this.#all()) size += open.size;
    return size;
  }

  /** A connection that can take a request at once. */
  ready(endpoint: PickedEndpoint, version: HttpVersion): HttpClientConnection | undefined {
    const entry = this.#entries[version].get(endpoint.key);
    if (!entry) return undefined;
    const found = version === 'http2' ? shareable(entry, endpoint) : lastIdle(entry);
    return found && taken(entry, endpoint, found);
  }

  /** @throws {ProxyError} what the dial threw; OVERLOADED where there are too many; the signal's reason */
  open(endpoint: PickedEndpoint, version: HttpVersion, signal: () => AbortSignal): Promise<HttpClientConnection> {
    const entry = this.#entry(endpoint, version);
    const { cluster } = endpoint;
    if (entry.open.size + entry.opening >= MAX_CONNECTIONS) {
      return Promise.reject(new ProxyError('OVERLOADED', `${MAX_CONNECTIONS} connections to ${endpoint.key} are open already`));
    }
    // An endpoint without a connection gets one in any case, or it could never be asked.
    if (entry.open.size + entry.opening > 0 && !entry.shared && cluster.connections >= cluster.limit('maxConnections')) {
      return this.#wait(entry, endpoint, signal());
    }
    if (version === 'http1') return this.#open(entry, endpoint, version, AbortSignal.any([signal(), this.#ended.signal]));
    // The one who asked first may go; the others still want it.
    entry.shared ??= this.#open(entry, endpoint, version, this.#ended.signal).finally(() => {
      entry.shared = undefined;
    });
    return orAborted(entry.shared, signal());
  }

  destroy(error: ProxyError): void {
    this.#ended.abort(error);
    for (const { waiting } of this.#all()) for (const { fail } of [...waiting]) fail(error);
    for (const { open } of this.#all()) for (const connection of [...open]) connection.destroy(error);
  }

  #entry(endpoint: PickedEndpoint, version: HttpVersion): Entry {
    const { key } = endpoint;
    const known = this.#entries[version].get(key);
    if (known) return known;
    const counted = (endpoint.cluster.policy?.pool?.maxRequestsPerConnection ?? 0) > 0;
    const entry: Entry = {
      key,
      open: new Set(),
      idle: [],
      opening: 0,
      shared: undefined,
      waiting: new Set(),
      served: counted ? new Map() : undefined,
    };
    this.#entries[version].set(key, entry);
    return entry;
  }

  #all(): Entry[] {
    return [...this.#entries.http1.values(), ...this.#entries.http2.values()];
  }

  async #open(entry: Entry, endpoint: PickedEndpoint, version: HttpVersion, signal: AbortSignal): Promise<HttpClientConnection> {
    const { dial, connect, limits, clock } = this.#options;
    const { cluster } = endpoint;
    const pool = cluster.policy?.pool;
    entry.opening++;
    cluster.connections++;
    let open = false;
    let oldAge: Timer | undefined;
    try {
      const pipe = await dial(endpoint, signal, version);
      const connection: HttpClientConnection = connect[version](pipe, {
        limits: pool && pool.idleTimeoutMs > 0 ? { ...limits, idleTimeoutMs: pool.idleTimeoutMs } : limits,
        clock,
        onClose: () => {
          oldAge?.cancel();
          entry.open.delete(connection);
          entry.served?.delete(connection);
          cluster.connections--;
          const at = entry.idle.indexOf(connection);
          if (at >= 0) entry.idle.splice(at, 1);
          this.#serveNext(entry, version);
          this.#forgetIfEmpty(entry, version);
        },
        onRoom: () => {
          const [waiter] = entry.waiting;
          if (waiter && connection.usable) waiter.give(taken(entry, endpoint, connection));
          else if (version === 'http1') entry.idle.push(connection);
        },
      });
      open = true;
      entry.open.add(connection);
      this.#entries[version].set(entry.key, entry);
      if (pool && pool.maxConnectionDurationMs > 0) oldAge = clock.after(pool.maxConnectionDurationMs, () => connection.drain());
      return taken(entry, endpoint, connection);
    } finally {
      entry.opening--;
      if (!open) {
        cluster.connections--;
        this.#serveNext(entry, version);
      }
      this.#forgetIfEmpty(entry, version);
    }
  }

  #wait(entry: Entry, endpoint: PickedEndpoint, signal: AbortSignal): Promise<HttpClientConnection> {
    const { cluster } = endpoint;
    if (cluster.pending >= Math.min(cluster.limit('maxPendingRequests'), MAX_WAITING)) {
      const message = `${cluster.name} has ${cluster.connections} connections, which is its limit, and ${cluster.pending} requests wait`;
      return Promise.reject(new ProxyError('OVERLOADED', message));
    }
    cluster.pending++;
    return new Promise((resolve, reject) => {
      const settled = (): void => {
        entry.waiting.delete(waiter);
        cluster.pending--;
        signal.removeEventListener('abort', abort);
      };
      const waiter: Waiter = {
        endpoint,
        give: (connection) => {
          settled();
          resolve(connection);
        },
        fail: (error) => {
          settled();
          reject(error);
        },
      };
      const abort = (): void => waiter.fail(signal.reason);
      entry.waiting.add(waiter);
      signal.addEventListener('abort', abort, { once: true });
      if (signal.aborted) abort();
    });
  }

  /** A connection has gone: whoever waits longest gets a new one. */
  #serveNext(entry: Entry, version: HttpVersion): void {
    const [waiter] = entry.waiting;
    if (!waiter || this.#ended.signal.aborted || entry.opening > 0) return;
    this.#open(entry, waiter.endpoint, version, this.#ended.signal).then(
      (connection) => {
        // The one it was opened for may have left.
        const [next] = entry.waiting;
        if (next) next.give(connection);
        else if (version === 'http1') entry.idle.push(connection);
      },
      (error: unknown) => {
        if (entry.waiting.has(waiter)) waiter.fail(error);
      },
    );
  }

  #forgetIfEmpty(entry: Entry, version: HttpVersion): void {
    if (entry.open.size > 0 || entry.opening > 0 || entry.waiting.size > 0) return;
    const entries = this.#entries[version];
    if (entries.get(entry.key) === entry) entries.delete(entry.key);
  }
}

function shareable({ open }: Entry, { cluster }: PickedEndpoint): HttpClientConnection | undefined {
  const streams = cluster.policy?.pool?.maxConcurrentStreams || Number.POSITIVE_INFINITY;
  for (const connection of open) if (connection.usable && connection.openExchanges < streams) return connection;
  return undefined;
}

function lastIdle({ idle }: Entry): HttpClientConnection | undefined {
  for (let connection = idle.pop(); connection; connection = idle.pop()) if (connection.usable) return connection;
  return undefined;
}

/** Counts the request that the connection is about to have; after the last one that it may have, it closes. */
function taken({ served }: Entry, { cluster }: PickedEndpoint, connection: HttpClientConnection): HttpClientConnection {
  if (!served) return connection;
  const count = (served.get(connection) ?? 0) + 1;
  served.set(connection, count);
  const most = cluster.policy?.pool?.maxRequestsPerConnection ?? 0;
  // Drained when the request is on it: until then it has to take one.
  if (most > 0 && count >= most) setImmediate(() => connection.drain());
  return connection;
}

function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
