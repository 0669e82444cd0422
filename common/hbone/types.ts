/**
 * The seam between HTTP/2 tunnels (common/hbone) and whoever carries connections through them (ztunnel, later the waypoint).
 * A byte pipe has two directions that end on their own: half-close is kept both ways, as TCP keeps it.
 */
import type { SocketAddress } from '../base/address.ts';
import type { CancelSignal } from '../base/cancellation.ts';
import type { ProxyError } from '../base/errors.ts';

/** Header fields in order; names in lower case. */
export type Headers = readonly (readonly [name: string, value: string])[];

/** One side of a relayed connection: an application's socket or a tunnel's stream. */
export interface Pipe {
  readonly kind: 'socket' | 'stream';
  /** Tears both directions down at once: RST for a socket, RST_STREAM (CANCEL) for a stream. */
  destroy(reason?: ProxyError): void;
}

/** An application's TCP socket with read buffers that leave room for a frame header (see AppSocket in app-socket.ts). */
export interface SocketPipe extends Pipe {
  readonly kind: 'socket';
  readonly local: SocketAddress;
  readonly remote: SocketAddress;
}

/** One CONNECT stream after its 200. */
export interface StreamPipe extends Pipe {
  readonly kind: 'stream';
  /** The response's header fields where we are the client, the request's where we are the server. */
  readonly headers: Headers;
}

export interface RelayResult {
  /** Bytes that `a` sent to `b`. */
  readonly forward: number;
  /** Bytes that `b` sent to `a`. */
  readonly backward: number;
  /** Absent where both directions ended in order, or with a reset that counts as an end (Istio's ztunnel, src/proxy/h2.rs). */
  readonly error: ProxyError | undefined;
}

/** A relay under way. The counters are live. */
export interface Relay {
  readonly forward: number;
  readonly backward: number;
  /** Bytes that have been read from one side and not yet been taken by the other. */
  readonly waiting: number;
  readonly done: Promise<RelayResult>;
  /** Ends both sides; `done` then carries the error. */
  abort(error: ProxyError): void;
}

/** A CONNECT request that arrived on a server connection; exactly one of accept and refuse is called. */
export interface ConnectRequest {
  readonly method: string;
  readonly authority: string;
  readonly headers: Headers;
  /** Sends 200 with these fields. Bytes that the peer sent meanwhile are kept, within the stream's window. */
  accept(headers: Headers): StreamPipe;
  /** Sends a header-only answer with END_STREAM. */
  refuse(status: number, headers: Headers): void;
  /** Aborted when the peer resets the stream or its connection ends before an answer. */
  readonly signal: CancelSignal;
}

export interface HboneLimits {
  /** Bytes of one stream's receive window (HTTP2_STREAM_WINDOW_SIZE). */
  readonly streamWindow: number;
  /** Bytes of the connection's receive window (HTTP2_CONNECTION_WINDOW_SIZE). */
  readonly connectionWindow: number;
  /** Largest frame payload accepted (HTTP2_FRAME_SIZE). */
  readonly maxFrameSize: number;
  /** Streams that a peer may have open on a connection to us. */
  readonly maxConcurrentStreams: number;
  /** Uncompressed size of one header block. */
  readonly maxHeaderListSize: number;
}

export const defaultServerLimits: HboneLimits = {
  streamWindow: 4 << 20,
  connectionWindow: 16 << 20,
  maxFrameSize: 1 << 20,
  maxConcurrentStreams: 200,
  maxHeaderListSize: 64 << 10,
};

export const defaultClientLimits: HboneLimits = { ...defaultServerLimits, maxConcurrentStreams: 0, maxHeaderListSize: 16 << 10 };
