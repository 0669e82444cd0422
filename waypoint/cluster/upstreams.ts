/**
 * HTTP connections to endpoints, kept alive for the next request: HTTP/1.1 connections carry one request at a time, the one that was used
 * last first; HTTP/2 connections carry as many as they may, and one more is opened when all are full.
 */
import type { Clock } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { Pipe } from '../../common/hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions } from '../../common/http/connections.ts';
import type { HttpLimits } from '../../common/http/types.ts';
import type { PickedEndpoint } from './picker.ts';

export type HttpVersion = 'http1' | 'http2';

export interface UpstreamsOptions {
  readonly limits: HttpLimits;
  readonly clock: Clock;
  dial(endpoint: PickedEndpoint, signal: AbortSignal): Promise<Pipe>;
  readonly connect: Readonly<Record<HttpVersion, (pipe: Pipe, options: HttpClientOptions) => HttpClientConnection>>;
}

/** Connections to one endpoint; requests beyond that are refused. */
const MAX_CONNECTIONS = 1024;

interface Entry {
  readonly key: string;
  readonly open: Set<HttpClientConnection>;
  /** HTTP/1.1 connections that wait for a request. */
  readonly idle: HttpClientConnection[];
  opening: number;
  /** The HTTP/2 connection that is being opened, for all who wait for one. */
  shared: Promise<HttpClientConnection> | undefined;
}

export class Upstreams {
  readonly #options: UpstreamsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #ended = new AbortController();

  constructor(options: UpstreamsOptions) {
    this.#options = options;
  }

  /** Connections that are open. */
  get size(): number {
    let size = 0;
    for (const { open } of this.#entries.values()) size += open.size;
    return size;
  }

  /** A connection that can take a request at once. */
  ready(endpoint: PickedEndpoint, version: HttpVersion): HttpClientConnection | undefined {
    const entry = this.#entries.get(keyOf(endpoint, version));
    if (!entry) return undefined;
    if (version === 'http2') {
      for (const connection of entry.open) if (connection.usable) return connection;
      return undefined;
    }
    for (let connection = entry.idle.pop(); connection; connection = entry.idle.pop()) if (connection.usable) return connection;
    return undefined;
  }

  /** @throws {ProxyError} what the dial threw; OVERLOADED where there are too many; the signal's reason */
  open(endpoint: PickedEndpoint, version: HttpVersion, signal: () => AbortSignal): Promise<HttpClientConnection> {
    const key = keyOf(endpoint, version);
    const entry = this.#entries.get(key) ?? { key, open: new Set(), idle: [], opening: 0, shared: undefined };
    this.#entries.set(key, entry);
    if (entry.open.size + entry.opening >= MAX_CONNECTIONS) {
      return Promise.reject(new ProxyError('OVERLOADED', `${MAX_CONNECTIONS} connections to ${endpoint.key} are open already`));
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
    for (const { open } of [...this.#entries.values()]) for (const connection of [...open]) connection.destroy(error);
  }

  async #open(entry: Entry, endpoint: PickedEndpoint, version: HttpVersion, signal: AbortSignal): Promise<HttpClientConnection> {
    const { dial, connect, limits, clock } = this.#options;
    entry.opening++;
    try {
      const pipe = await dial(endpoint, signal);
      const connection: HttpClientConnection = connect[version](pipe, {
        limits,
        clock,
        onClose: () => {
          entry.open.delete(connection);
          const at = entry.idle.indexOf(connection);
          if (at >= 0) entry.idle.splice(at, 1);
          this.#forgetIfEmpty(entry);
        },
        ...(version === 'http1' ? { onRoom: () => void entry.idle.push(connection) } : {}),
      });
      entry.open.add(connection);
      this.#entries.set(entry.key, entry);
      return connection;
    } finally {
      entry.opening--;
      this.#forgetIfEmpty(entry);
    }
  }

  #forgetIfEmpty(entry: Entry): void {
    if (entry.open.size === 0 && entry.opening === 0 && this.#entries.get(entry.key) === entry) this.#entries.delete(entry.key);
  }
}

const keyOf = (endpoint: PickedEndpoint, version: HttpVersion): string => `${version} ${endpoint.key}`;

function orAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
