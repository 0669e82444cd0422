/** The side that opens tunnels. */
import type { Duplex } from 'node:stream';
import type { CancelSignal } from '../base/cancellation.ts';
import type { Clock } from '../base/clock.ts';
import type { ProxyError } from '../base/errors.ts';
import { ErrorCode, Http2ConnectionError } from '../codec/http2/errors.ts';
import { type ConnectionRole, TunnelConnection } from './connection.ts';
import { TunnelNotOpened, TunnelRefused } from './refusal.ts';
import { readResponseHead } from './request-head.ts';
import type { HboneLimits, Headers, StreamPipe } from './types.ts';

export interface HboneClientOptions {
  readonly limits: HboneLimits;
  readonly clock: Clock;
  /** Streams that we open at most, however many the peer allows; 100 where it is not given. */
  readonly maxStreams?: number;
  /** Called once, when the socket is closed; without an error it ended in order. */
  onClose(error?: ProxyError): void;
  /** Called when a stream has ended: there is room for one more. */
  onStreamEnd?(): void;
}

export interface ConnectOptions {
  readonly authority: string;
  /** Fields beside `:method` and `:authority`; names in lower case. */
  readonly headers: Headers;
  /** Aborting gives the tunnel up; connect rejects with the signal's reason. */
  readonly signal?: CancelSignal;
}

/** What we assume that a peer allows until its SETTINGS say so (Istio's ztunnel, src/proxy/h2). */
const ASSUMED_STREAMS = 100;

/** One HTTP/2 connection to a peer, over a socket whose TLS handshake is done. */
export class HboneClient implements ConnectionRole {
  readonly #connection: TunnelConnection;
  readonly #options: HboneClientOptions;
  #draining = false;

  constructor(socket: Duplex, options: HboneClientOptions) {
    this.#options = options;
    this.#connection = new TunnelConnection(socket, { side: 'client', limits: options.limits, clock: options.clock }, this);
  }

  get openStreams(): number {
    return this.#connection.streams.size;
  }

  /** Streams that may be open at once. */
  get streamLimit(): number {
    const allowed = this.#connection.peer.maxConcurrentStreams;
    return Math.min(this.#options.maxStreams ?? ASSUMED_STREAMS, Number.isFinite(allowed) ? allowed : ASSUMED_STREAMS);
  }

  /** Whether the connection takes no more streams, now or ever. */
  get draining(): boolean {
    return this.#draining || this.#connection.over;
  }

  /** Whether a stream can be opened now, and would get anywhere. */
  get usable(): boolean {
    return !this.draining && this.openStreams < this.streamLimit && !this.#connection.stalled;
  }

  /**
   * Opens a tunnel. Nothing of the application is sent before the peer's 200.
   * @throws {TunnelRefused} the peer answered something else
   * @throws {TunnelNotOpened} the peer did not process the request: it may be sent elsewhere
   * @throws {ProxyError} CONNECTION_LOST or HTTP2_FAILURE: the connection ended, or the peer reset the stream
   */
  connect({ authority, headers, signal }: ConnectOptions): Promise<StreamPipe> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const id = this.usable ? this.#connection.nextStreamId() : undefined;
      if (id === undefined) {
        // Stream numbers are used up after a billion tunnels; the connection ends with its last streams.
        if (this.usable) this.goAway();
        reject(new TunnelNotOpened('the tunnel connection takes no more streams'));
        return;
      }
      const stream = this.#connection.add(id);
      const abort = (): void => {
        settle();
        stream.reset(ErrorCode.CANCEL, undefined);
        reject(signal?.reason);
      };
      const settle = (): void => {
        stream.waiting = undefined;
        signal?.removeEventListener('abort', abort);
      };
      signal?.addEventListener('abort', abort, { once: true });
      stream.waiting = {
        head: (fields, endStream) => {
          const answer = readResponseHead(fields);
          if (!answer) return this.#connection.streamError(id, ErrorCode.PROTOCOL_ERROR, 'a malformed response');
          // 1xx: the answer is still to come (RFC 9110 §15.2).
          if (answer.status < 200 && !endStream) return;
          settle();
          if (answer.status === 200) {
            stream.headers = answer.headers;
            if (endStream) stream.endRemote();
            resolve(stream);
          } else {
            const refused = new TunnelRefused(answer.status, answer.headers);
            if (endStream) stream.endRemote();
            stream.reset(ErrorCode.CANCEL, refused);
            reject(refused);
          }
        },
        failed: (error) => {
          settle();
          reject(error);
        },
      };
      this.#connection.sendHeaders(id, [[':method', 'CONNECT'], [':authority', authority], ...headers], false);
    });
  }

  /** Opens nothing any more, and closes once the open streams have ended. */
  goAway(): void {
    if (this.draining) return;
    this.#draining = true;
    this.#connection.sendGoaway(0, ErrorCode.NO_ERROR);
    this.streamLeft();
  }

  destroy(error?: ProxyError): void {
    this.#connection.destroy(error);
  }

  // ConnectionRole

  opened(streamId: number): void {
    throw new Http2ConnectionError(ErrorCode.PROTOCOL_ERROR, `HEADERS on stream ${streamId}, which nobody opened`);
  }

  goaway(lastStreamId: number): void {
    this.#draining = true;
    const refused = this.#connection.streams.all().filter(({ id }) => id > lastStreamId);
    for (const stream of refused) stream.fail(new TunnelNotOpened('the peer is going away'));
    this.streamLeft();
  }

  pong(): void {}

  streamLeft(): void {
    if (this.#draining && this.#connection.streams.size === 0) this.#connection.close();
    this.#options.onStreamEnd?.();
  }

  closed(error: ProxyError | undefined): void {
    this.#options.onClose(error);
  }
}
