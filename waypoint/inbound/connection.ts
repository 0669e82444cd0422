/**
 * One connection of a caller to a target: finds out what it speaks, and hands it to HTTP or to byte-for-byte passing. A port's declared
 * protocol decides; where nobody declared one, the first bytes do, and a client that stays silent waits for a server that speaks first.
 */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage, type ProxyError } from '../../common/base/errors.ts';
import { Roster } from '../../common/base/roster.ts';
import type { AppProtocol } from '../../common/decision/mesh-view.ts';
import type { Pipe } from '../../common/hbone/types.ts';
import type { HttpServerConnection, HttpServerOptions } from '../../common/http/connections.ts';
import { serveHttp1 } from '../../common/http/http1-server.ts';
import { serveHttp2 } from '../../common/http/http2-server.ts';
import { type SniffedProtocol, sniff } from '../../common/http/sniff.ts';
import type { HttpLimits } from '../../common/http/types.ts';
import type { Connection } from '../http/context.ts';
import { type RequestServer, serveRequest } from '../http/pipeline.ts';
import { Passthrough, type PassthroughParts } from '../tcp/passthrough.ts';
import { Shedder } from './rebalance.ts';

export interface ConnectionParts extends Omit<RequestServer, 'telemetry'>, Omit<PassthroughParts, 'telemetry'> {
  readonly telemetry: RequestServer['telemetry'] & PassthroughParts['telemetry'];
  readonly clock: Clock;
  readonly limits: HttpLimits;
  readonly sniffTimeoutMs: number;
}

/** A client of a port that was declared to be HTTP speaks first; this is for one that opens connections ahead. */
const HTTP_SNIFF_MS = 10_000;

/** What is open: to be drained, looked at again, and ended. */
export class Connections {
  readonly #parts: ConnectionParts;
  readonly #http = new Roster<HttpServerConnection>();
  readonly #bytes = new Roster<Passthrough>();
  readonly #shedder: Shedder<HttpServerConnection>;
  #sniffing = 0;
  #draining = false;
  #ended: ProxyError | undefined;
  #whenEmpty: (() => void) | undefined;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    this.#shedder = new Shedder(() => this.#http.all(), parts);
  }

  get size(): number {
    return this.#http.size + this.#bytes.size + this.#sniffing;
  }

  serve(pipe: Pipe, connection: Connection, id: string): void {
    const { clock, sniffTimeoutMs } = this.#parts;
    const { protocol } = connection.target;
    if (protocol === 'TCP' || protocol === 'TLS') {
      this.#begin(pipe, connection, id, 'bytes');
      return;
    }
    this.#sniffing++;
    // By call and not by promise: the reader that comes next is there before the pipe has been told to stop for the one before.
    sniff(pipe, { timeoutMs: protocol === undefined ? sniffTimeoutMs : HTTP_SNIFF_MS, clock }, (found) => {
      this.#sniffing--;
      this.#begin(pipe, connection, id, protocolOf(found, protocol));
    });
  }

  /** Asks a part of the clients to connect again, which bytes that are passed on cannot be asked. @returns how many */
  shed(part: number): number {
    return this.#shedder.shed(part);
  }

  /** Asks clients to go elsewhere when their requests are answered. */
  drain(): void {
    this.#draining = true;
    for (const connection of this.#http.all()) connection.drain();
  }

  /** Whoever has not come with a request by now is no longer waited for. */
  endIdle(): void {
    this.#draining = true;
    for (const connection of this.#http.all()) connection.endIdle();
  }

  policiesChanged(): void {
    for (const connection of this.#bytes.all()) connection.recheck();
  }

  abortAll(error: ProxyError): void {
    this.#ended = error;
    for (const connection of this.#http.all()) connection.destroy(error);
    for (const connection of this.#bytes.all()) connection.abort(error);
  }

  empty(): Promise<void> {
    if (this.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#whenEmpty = resolve;
    });
  }

  #begin(pipe: Pipe, connection: Connection, id: string, protocol: 'http1' | 'http2' | 'bytes'): void {
    try {
      if (this.#ended) pipe.destroy(this.#ended);
      else if (protocol === 'bytes') this.#serveBytes(pipe, connection, id);
      else this.#serveHttp(pipe, connection, protocol === 'http2' ? serveHttp2 : serveHttp1);
    } catch (reason) {
      // A fault of ours: this connection is lost, the worker goes on.
      pipe.destroy();
      this.#parts.log.error({ id, error: errorMessage(reason) }, 'connection handler failed');
    }
    this.#left();
  }

  #serveHttp(pipe: Pipe, connection: Connection, serve: (pipe: Pipe, options: HttpServerOptions) => HttpServerConnection): void {
    const { limits, clock } = this.#parts;
    const server: HttpServerConnection = serve(pipe, {
      limits,
      clock,
      onExchange: (exchange) => serveRequest(this.#parts, connection, exchange),
      onClose: () => {
        this.#http.delete(server);
        this.#left();
      },
    });
    this.#http.add(server);
    if (this.#draining) server.drain();
  }

  #serveBytes(pipe: Pipe, connection: Connection, id: string): void {
    const passthrough = new Passthrough(this.#parts, pipe, connection, id);
    this.#bytes.add(passthrough);
    void passthrough.run().finally(() => {
      this.#bytes.delete(passthrough);
      this.#left();
    });
  }

  #left(): void {
    if (this.size > 0) return;
    this.#whenEmpty?.();
    this.#whenEmpty = undefined;
  }
}

/** What a connection speaks that began so. */
function protocolOf(found: SniffedProtocol, declared: AppProtocol | undefined): 'http1' | 'http2' | 'bytes' {
  if (found === 'http1' || found === 'http2') return found;
  if (declared === undefined) return 'bytes';
  // Whatever it is, the server of the declared protocol says what is wrong with it.
  return declared === 'HTTP11' ? 'http1' : 'http2';
}
