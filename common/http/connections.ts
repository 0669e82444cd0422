/** What both versions offer to whoever proxies: server connections that bring exchanges, client connections that take requests. */
import type { Clock } from '../base/clock.ts';
import type { ProxyError } from '../base/errors.ts';
import type { Member } from '../base/roster.ts';
import type { BodySource, ClientExchange, ClientListener, HttpLimits, RequestHead, ServerExchange } from './types.ts';

export interface HttpServerOptions {
  readonly limits: HttpLimits;
  readonly clock: Clock;
  /**
   * A request's head has arrived whole and is sound. Whatever is malformed is answered by the connection and never comes here.
   * What this throws ends the connection with 500.
   */
  onExchange(exchange: ServerExchange): void;
  /** Called once, when the pipe is closed. Without an error it ended in order; BAD_REQUEST and HTTP2_FAILURE say what the peer did wrong. */
  onClose(error?: ProxyError): void;
  /** Bytes that were read from the pipe already. */
  readonly initial?: Buffer;
}

export interface HttpServerConnection extends Member {
  /**
   * Tells the client to go elsewhere: GOAWAY, or Connection: close with the next answer. Over HTTP/1.1 only an answer can say so, and a
   * request may be on its way while nothing is open, so such a connection stays until it has had an answer, or `endIdle`.
   */
  drain(): void;
  /** Drains, and closes as soon as no request is open. */
  endIdle(): void;
  /** Tears the connection down; exchanges learn that their client is gone. */
  destroy(error?: ProxyError): void;
  readonly openExchanges: number;
}

export interface HttpClientOptions {
  readonly limits: HttpLimits;
  readonly clock: Clock;
  /** Called once, when the pipe is closed; without an error it ended in order. */
  onClose(error?: ProxyError): void;
  /** A request has ended, and the connection has room for another one. Called before the response's body is told of its end. */
  onRoom?(): void;
}

export interface HttpClientConnection {
  /**
   * Sends a head at once; the body goes into the exchange's `body`, and `source` is held back and let go as the connection has room.
   * Where the connection is not usable the listener is told `failed` with `unsent`, later than this returns. After the caller's own `abort`
   * or `cancel` nothing is called any more.
   * @throws {TypeError} for a head that cannot be written: a control character in a value, a path that is none
   */
  request(head: RequestHead, source: BodySource | undefined, listener: ClientListener): ClientExchange;
  /** Closes when the requests under way are answered; not usable any more. */
  drain(): void;
  destroy(error?: ProxyError): void;
  readonly openExchanges: number;
  /** Whether a request can be sent now. */
  readonly usable: boolean;
}
