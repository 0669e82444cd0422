/**
 * The seam between HTTP connections (common/http: HTTP/1.1 and HTTP/2, both sides) and whoever proxies requests (waypoint). Callbacks, not
 * streams: a request that fits one read costs no object per chunk. Whoever receives a chunk owns it until it returns; whoever keeps one copies.
 */
import type { ProxyError } from '../base/errors.ts';

/** Flat: name, value, name, value, … in the order received; names in lower case. */
export type Fields = string[];

export interface RequestHead {
  readonly version: '1.0' | '1.1' | '2';
  readonly method: string;
  readonly scheme: string;
  /** Of :authority or Host, checked: exactly one, well-formed. */
  readonly authority: string;
  /** Path and query as received, starting with `/` (or `*` for OPTIONS). */
  readonly path: string;
  /** Without pseudo-headers, Host and hop-by-hop fields; those were checked and taken away. */
  readonly fields: Fields;
  /** Bytes announced; undefined where the length is not known ahead; 0 where there is no body. */
  readonly bodyBytes: number | undefined;
  /** Protocol asked for by Upgrade (HTTP/1.1) or :protocol (extended CONNECT), such as `websocket`. */
  readonly upgrade: string | undefined;
}

export interface ResponseHead {
  readonly status: number;
  readonly fields: Fields;
  readonly bodyBytes: number | undefined;
}

/** Takes a message's body. `data` answers whether to go on; after `false`, wait for the source's `resume`. */
export interface BodySink {
  data(chunk: Buffer): boolean;
  /** The message is whole. */
  end(trailers: Fields | undefined): void;
  /** The message will never be whole. */
  abort(error: ProxyError): void;
}

/** Where a body comes from, to be held back and let go. */
export interface BodySource {
  /** Sends the body, what has arrived of it already included, into the sink. Called at most once. */
  into(sink: BodySink): void;
  resume(): void;
  /** Nobody wants the rest. */
  cancel(): void;
}

/** One request that a server connection has received. */
export interface ServerExchange {
  readonly head: RequestHead;
  readonly body: BodySource;
  /** 1xx other than 101. */
  inform(head: ResponseHead): void;
  /** Sends the head; the body goes into the sink that is returned, whose source is `source`. */
  respond(head: ResponseHead, source: BodySource | undefined): BodySink;
  /** Before a response: the connection (HTTP/1.1) or stream (HTTP/2) ends at once. */
  abort(error: ProxyError): void;
  /** Called once when the client goes away before the response is whole. */
  onClientGone(listener: (error: ProxyError) => void): void;
  /** True where bytes of the request beyond the head were handed on: such a request cannot be sent again. */
  readonly bodyStarted: boolean;
}

/** One request that a client connection is sending. */
export interface ClientExchange {
  /** The request's body goes in here. */
  readonly body: BodySink;
  abort(error: ProxyError): void;
}

export interface ClientListener {
  informational(head: ResponseHead): void;
  response(head: ResponseHead, body: BodySource): void;
  /** Before a response. `unsent` says that the peer has certainly not handled the request (refused stream, GOAWAY below it, connection gone before a byte). */
  failed(error: ProxyError, unsent: boolean): void;
}

export interface HttpLimits {
  /** Bytes of request line, or of a response's status line. */
  readonly maxStartLine: number;
  /** Bytes of all fields of a head or of trailers. */
  readonly maxFields: number;
  readonly maxFieldCount: number;
  /** Time for a head to arrive whole once its first byte has. */
  readonly headTimeoutMs: number;
  /** Time without a request on a connection. */
  readonly idleTimeoutMs: number;
  /** Streams that a peer may have open on an HTTP/2 connection. */
  readonly maxConcurrentStreams: number;
}

export const defaultHttpLimits: HttpLimits = {
  maxStartLine: 16 << 10,
  maxFields: 60 << 10,
  maxFieldCount: 100,
  headTimeoutMs: 10_000,
  idleTimeoutMs: 3_600_000,
  maxConcurrentStreams: 100,
};
