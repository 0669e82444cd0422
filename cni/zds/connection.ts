/**
 * One ztunnel on the line: hello, the snapshot, then whatever changes. One message is under way at a time, and its answer must come within
 * five seconds; a peer that says anything else, or nothing, is disconnected, as what it knows is no longer certain. It comes back and gets
 * a snapshot.
 */
import { type Clock, seconds, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { SeqpacketSocket } from '../../common/linux/seqpacket.ts';
import { closeFd } from '../../common/linux/sockets.ts';
import { decodeAck, decodeHello, encodeSnapshotSent } from './messages.ts';

/** What a connection needs of a socket. */
export type ZdsSocket = Pick<SeqpacketSocket, 'send' | 'onMessage' | 'onClose' | 'close' | 'peer'>;

export interface ZdsRequest {
  /** For log and errors: `add shop/orders-1`. */
  readonly what: string;
  readonly data: Uint8Array;
  /** Asked when the request leaves; the descriptor stays its owner's. undefined withdraws the request: its namespace has been closed. */
  fd?(): number | undefined;
  /** Exactly once: undefined where ztunnel acknowledged it. */
  settle(error: Error | undefined): void;
}

export interface ZdsConnectionOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Who it is, for the log. */
  readonly peer: string;
  /** Asked for when ztunnel has said hello. Without the SnapshotSent, which follows by itself. */
  snapshot(): readonly ZdsRequest[];
  onClose(): void;
}

/** ztunnel knows the pod, but cannot serve it (a NACK). It tries again by itself, and so do we. */
export class ZdsRefusal extends Error {
  constructor(what: string, reason: string) {
    super(`ztunnel refused to ${what}: ${reason}`);
    this.name = 'ZdsRefusal';
  }
}

const HELLO_TIMEOUT_MS = seconds(5);
const ACK_TIMEOUT_MS = seconds(5);
// Far more than the pods of a node: reached only by a ztunnel that acknowledges slowly for minutes.
const MAX_QUEUE = 4096;

type State =
  | { at: 'greeting'; timer: Timer }
  | { at: 'idle' }
  | { at: 'waiting'; request: ZdsRequest; timer: Timer }
  | { at: 'closed'; reason: string };

export class ZdsConnection {
  readonly #socket: ZdsSocket;
  readonly #options: ZdsConnectionOptions;
  readonly #queue: ZdsRequest[] = [];
  #state: State;
  #synced = false;

  constructor(socket: ZdsSocket, options: ZdsConnectionOptions) {
    this.#socket = socket;
    this.#options = options;
    this.#state = { at: 'greeting', timer: options.clock.after(HELLO_TIMEOUT_MS, () => this.close('no hello within 5 s')) };
    socket.onClose((error) => this.close(error ? errorMessage(error) : 'ztunnel closed the connection'));
    socket.onMessage((data, fds) => this.#receive(data, fds));
  }

  /** It has said hello, and is not closed. */
  get usable(): boolean {
    return this.#state.at === 'idle' || this.#state.at === 'waiting';
  }

  /** The whole snapshot has been acknowledged or refused. */
  get synced(): boolean {
    return this.#synced && this.usable;
  }

  /** Sends when everything before it has been answered. */
  request(request: ZdsRequest): void {
    const problem =
      this.#state.at === 'closed'
        ? this.#state.reason
        : this.#queue.length >= MAX_QUEUE
          ? `${MAX_QUEUE} messages wait for ztunnel`
          : undefined;
    if (problem !== undefined) {
      request.settle(new Error(`cannot ${request.what}: ${problem}`));
      return;
    }
    this.#queue.push(request);
    this.#next();
  }

  close(reason: string): void {
    const state = this.#state;
    if (state.at === 'closed') return;
    if (state.at !== 'idle') state.timer.cancel();
    this.#state = { at: 'closed', reason };
    this.#socket.close();
    this.#options.log.info({ ztunnel: this.#options.peer, reason, waiting: this.#queue.length }, 'ztunnel disconnected');
    const lost = state.at === 'waiting' ? [state.request, ...this.#queue] : this.#queue;
    this.#options.onClose();
    for (const request of lost.splice(0)) request.settle(new Error(`cannot ${request.what}: ${reason}`));
  }

  #receive(data: Buffer, fds: readonly number[]): void {
    for (const fd of fds) closeFd(fd);
    try {
      if (fds.length > 0) throw new Error('a descriptor, which only the node agent may send');
      this.#take(data);
    } catch (error) {
      this.close(`protocol error: ztunnel sent ${errorMessage(error)}`);
    }
  }

  #take(data: Buffer): void {
    const state = this.#state;
    if (state.at === 'closed') return;
    if (state.at === 'idle') throw new Error('a message that nobody had asked for');
    if (state.at === 'greeting') {
      decodeHello(data);
      state.timer.cancel();
      this.#greeted();
      return;
    }
    const refusal = decodeAck(data);
    state.timer.cancel();
    this.#state = { at: 'idle' };
    state.request.settle(refusal === '' ? undefined : new ZdsRefusal(state.request.what, refusal));
    this.#next();
  }

  #greeted(): void {
    this.#state = { at: 'idle' };
    const snapshot = this.#options.snapshot();
    this.#queue.push(...snapshot, this.#snapshotSent(snapshot.length));
    this.#next();
  }

  #snapshotSent(pods: number): ZdsRequest {
    return {
      what: 'finish the snapshot',
      data: encodeSnapshotSent(),
      settle: (error) => {
        // A closed connection has been logged; a refused end of the snapshot leaves nothing that could be relied on.
        if (error instanceof ZdsRefusal) this.close(error.message);
        if (error) return;
        this.#synced = true;
        this.#options.log.info({ ztunnel: this.#options.peer, pods }, 'ztunnel has the snapshot');
      },
    };
  }

  #next(): void {
    if (this.#state.at !== 'idle') return;
    const request = this.#queue.shift();
    if (!request) return;
    const fd = request.fd?.();
    if (request.fd && fd === undefined) {
      this.#skip(request, 'the pod left meanwhile');
      return;
    }
    const timer = this.#options.clock.after(ACK_TIMEOUT_MS, () => this.close(`no answer within 5 s to: ${request.what}`));
    this.#state = { at: 'waiting', request, timer };
    try {
      this.#socket.send(request.data, fd);
    } catch (error) {
      if (!(error instanceof RangeError)) {
        this.close(`cannot send: ${errorMessage(error)}`);
        return;
      }
      // One message that is too long fails alone: ztunnel has not seen anything of it.
      timer.cancel();
      this.#state = { at: 'idle' };
      this.#skip(request, error.message);
    }
  }

  #skip(request: ZdsRequest, reason: string): void {
    request.settle(new Error(`cannot ${request.what}: ${reason}`));
    this.#next();
  }
}
