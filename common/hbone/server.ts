/** The side that accepts tunnels. */
import type { Duplex } from 'node:stream';
import { Cancellation, type CancelSignal } from '../base/cancellation.ts';
import type { Clock } from '../base/clock.ts';
import type { ProxyError } from '../base/errors.ts';
import { ErrorCode, Http2ConnectionError } from '../codec/http2/errors.ts';
import { LARGEST_STREAM_ID } from '../codec/http2/frames.ts';
import { type ConnectionRole, TunnelConnection } from './connection.ts';
import { type RequestHead, readRequestHead } from './request-head.ts';
import type { TunnelStream } from './stream.ts';
import type { ConnectRequest, HboneLimits, Headers, StreamPipe } from './types.ts';

export interface HboneServerOptions {
  readonly limits: HboneLimits;
  readonly clock: Clock;
  onConnect(request: ConnectRequest): void;
  /** Called once, when the socket is closed; without an error it ended in order. */
  onClose(error?: ProxyError): void;
}

const DRAIN_PING = Buffer.from('draining', 'latin1');

/** One HTTP/2 connection from a peer, over a socket whose TLS handshake is done. */
export class HboneServerConnection implements ConnectionRole {
  readonly #connection: TunnelConnection;
  readonly #options: HboneServerOptions;
  #draining = false;
  /** Streams after this one are refused: set by the second GOAWAY. */
  #lastStream = LARGEST_STREAM_ID;

  constructor(socket: Duplex, options: HboneServerOptions) {
    this.#options = options;
    this.#connection = new TunnelConnection(socket, { side: 'server', limits: options.limits, clock: options.clock }, this);
  }

  get openStreams(): number {
    return this.#connection.streams.size;
  }

  /** Sends GOAWAY, takes what the peer had sent before it heard, lets streams finish and closes (RFC 9113, section 6.8). */
  drain(): void {
    if (this.#draining || this.#connection.over) return;
    this.#draining = true;
    // The answer to the PING says that the peer has seen the first GOAWAY.
    this.#connection.sendGoaway(LARGEST_STREAM_ID, ErrorCode.NO_ERROR);
    this.#connection.sendPing(DRAIN_PING);
  }

  /** Tears everything down at once; streams fail with the error. */
  destroy(error?: ProxyError): void {
    this.#connection.destroy(error);
  }

  // ConnectionRole

  opened(streamId: number, fields: Headers, tooLarge: boolean, endStream: boolean): void {
    const connection = this.#connection;
    if ((streamId & 1) === 0)
      throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `a client's stream with the even number ${streamId}`);
    connection.lastPeerStream = streamId;
    if (streamId > this.#lastStream || connection.streams.size >= this.#options.limits.maxConcurrentStreams) {
      connection.guard.count('refused');
      connection.refuseStream(streamId, ErrorCode.REFUSED_STREAM);
      return;
    }
    const head = tooLarge ? undefined : readRequestHead(fields);
    if (typeof head === 'string') {
      connection.guard.count('malformed');
      connection.refuseStream(streamId, ErrorCode.PROTOCOL_ERROR);
      return;
    }
    const stream = connection.add(streamId);
    stream.refusedMethod = head !== undefined && head.method !== 'CONNECT';
    if (endStream) stream.endRemote();
    const request = new IncomingConnect(stream, connection, head ?? { method: '', authority: '', headers: [] });
    if (head) this.#options.onConnect(request);
    else request.refuse(431, []);
  }

  /** The client opens nothing any more; it closes when it is done. */
  goaway(): void {}

  pong(opaque: Buffer): void {
    if (!this.#draining || !opaque.equals(DRAIN_PING) || this.#lastStream !== LARGEST_STREAM_ID) return;
    this.#lastStream = this.#connection.lastPeerStream;
    this.#connection.sendGoaway(this.#lastStream, ErrorCode.NO_ERROR);
    this.streamLeft();
  }

  streamLeft(): void {
    if (this.#lastStream !== LARGEST_STREAM_ID && this.#connection.streams.size === 0) this.#connection.close();
  }

  closed(error: ProxyError | undefined): void {
    this.#options.onClose(error);
  }
}

class IncomingConnect implements ConnectRequest {
  readonly method: string;
  readonly authority: string;
  readonly headers: Headers;
  readonly #stream: TunnelStream;
  readonly #connection: TunnelConnection;
  #answered = false;
  #failure: ProxyError | undefined;
  /** Made when somebody asks: most requests are answered before anybody could want to abort them. */
  #abort: Cancellation | undefined;

  constructor(stream: TunnelStream, connection: TunnelConnection, head: RequestHead) {
    this.#stream = stream;
    this.#connection = connection;
    this.method = head.method;
    this.authority = head.authority;
    this.headers = head.headers;
    stream.waiting = {
      head: () => {},
      failed: (error) => {
        this.#failure = error;
        this.#abort?.abort(error);
      },
    };
  }

  get signal(): CancelSignal {
    if (!this.#abort) {
      this.#abort = new Cancellation();
      if (this.#failure) this.#abort.abort(this.#failure);
    }
    return this.#abort;
  }

  accept(headers: Headers): StreamPipe {
    this.#answer();
    this.#stream.headers = this.headers;
    // A stream that is gone by now tells its reader so at once.
    if (this.#stream.alive) this.#connection.sendHeaders(this.#stream.id, [[':status', '200'], ...headers], false);
    return this.#stream;
  }

  refuse(status: number, headers: Headers): void {
    this.#answer();
    if (!this.#stream.alive) return;
    this.#connection.sendHeaders(this.#stream.id, [[':status', String(status)], ...headers], true);
    this.#stream.endLocal();
    // The answer is complete, and what the client still has to say does not matter (RFC 9113 §8.1).
    this.#stream.reset(ErrorCode.NO_ERROR, undefined);
  }

  #answer(): void {
    if (this.#answered) throw new Error('this CONNECT has been answered already');
    this.#answered = true;
    this.#stream.waiting = undefined;
    this.#stream.answeredIn = this.#connection.outbox.runs;
  }
}
