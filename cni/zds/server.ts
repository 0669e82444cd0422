/**
 * The node agent's side of ZDS: ztunnels connect, each is told about all pods, then about changes. While one ztunnel replaces another both
 * are connected: pods are added to the newest, and taken from all.
 */
import type { Clock } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { SeqpacketServer } from '../../common/linux/seqpacket.ts';
import { ZdsConnection, type ZdsRequest, type ZdsSocket } from './connection.ts';
import { encodeAdd, encodeDel, encodeKeep, type ZdsPod } from './messages.ts';

export interface SnapshotPod extends ZdsPod {
  /** Descriptor of the pod's namespace; undefined where it could not be found: ztunnel keeps what it has. */
  netnsFd(): number | undefined;
  /** Told how the ztunnel that asked for the snapshot answered. */
  settle(error: Error | undefined): void;
}

/** What the server needs of SeqpacketServer. */
export interface ZdsListener extends Pick<SeqpacketServer, 'pause' | 'resume' | 'close'> {
  onConnection(fn: (socket: ZdsSocket) => void): void;
}

export interface ZdsServerOptions {
  readonly listener: ZdsListener;
  readonly clock: Clock;
  readonly log: Log;
  snapshot(): readonly SnapshotPod[];
  /** Number of ztunnels that have said hello, whenever it changes. */
  onConnected(count: number): void;
  /** The newest ztunnel is gone and an older one is left, which has not been told what the newest was. */
  onFailover(): void;
}

/** Nobody is there to be told. The next ztunnel gets everything with its snapshot. */
export class NoZtunnelError extends Error {
  constructor(what: string) {
    super(`cannot ${what}: no ztunnel is connected on this node`);
    this.name = 'NoZtunnelError';
  }
}

// Five a second: a ztunnel that crashes and comes back must not occupy the agent.
const ACCEPT_INTERVAL_MS = 200;
// One, and one that replaces it; the rest are leftovers that will time out.
/** Of this process: in a test ztunnel need not be root. */
const OWNER = process.geteuid?.() ?? 0;
const MAX_CONNECTIONS = 8;

export class ZdsServer {
  readonly #options: ZdsServerOptions;
  /** Oldest first. */
  readonly #connections: ZdsConnection[] = [];
  #closed = false;

  constructor(options: ZdsServerOptions) {
    this.#options = options;
    options.listener.onConnection((socket) => this.#accept(socket));
  }

  /** Ztunnels that have said hello. */
  get connected(): number {
    return this.#connections.filter(({ usable }) => usable).length;
  }

  /** At least one ztunnel has had its whole snapshot. */
  get synced(): boolean {
    return this.#connections.some(({ synced }) => synced);
  }

  /** Resolves when the newest ztunnel serves the pod. @throws {NoZtunnelError} {ZdsRefusal} Error where it went away or kept silent */
  add(pod: ZdsPod, netnsFd: () => number | undefined): Promise<void> {
    const what = `add ${pod.namespace}/${pod.name}`;
    const newest = this.#connections.findLast(({ usable }) => usable);
    if (!newest) return Promise.reject(new NoZtunnelError(what));
    return answer((settle) => newest.request({ what, data: encodeAdd(pod), fd: netnsFd, settle }));
  }

  /** Resolves when every ztunnel has answered. One that is away will not find the pod in its next snapshot, so nothing fails. */
  async remove(uid: string): Promise<void> {
    const what = `remove ${uid}`;
    const usable = this.#connections.filter((connection) => connection.usable);
    const answers = usable.map((connection) => answer((settle) => connection.request({ what, data: encodeDel(uid), settle })));
    for (const result of await Promise.allSettled(answers)) {
      if (result.status === 'rejected') this.#options.log.warn({ uid, error: errorMessage(result.reason) }, 'ztunnel did not remove a pod');
    }
  }

  close(): void {
    this.#closed = true;
    this.#options.listener.close();
    for (const connection of [...this.#connections]) connection.close('the node agent is stopping');
  }

  #accept(socket: ZdsSocket): void {
    const { listener, clock, log } = this.#options;
    listener.pause();
    clock.after(ACCEPT_INTERVAL_MS, () => {
      if (!this.#closed) listener.resume();
    });
    if (this.#closed || this.#connections.length >= MAX_CONNECTIONS) {
      log.warn({ connections: this.#connections.length }, 'a ztunnel was turned away: too many are connected');
      socket.close();
      return;
    }
    const { pid, uid } = peerOf(socket);
    const peer = `pid ${pid}, uid ${uid}`;
    // It would be given the network namespaces of all pods. The socket's mode keeps others out already, unless somebody has changed it.
    if (uid !== 0 && uid !== OWNER) {
      log.warn({ peer }, 'somebody who may not be a ztunnel was turned away');
      socket.close();
      return;
    }
    let greeted = false;
    const connection: ZdsConnection = new ZdsConnection(socket, {
      clock,
      log,
      peer,
      snapshot: () => {
        greeted = true;
        log.info({ ztunnel: peer }, 'ztunnel connected');
        // The state is usable from here on, so the count includes it.
        this.#options.onConnected(this.connected);
        return this.#options.snapshot().map(asRequest);
      },
      onClose: () => {
        const index = this.#connections.indexOf(connection);
        const newer = this.#connections.slice(index + 1).some(({ usable }) => usable);
        this.#connections.splice(index, 1);
        this.#options.onConnected(this.connected);
        if (greeted && !newer && this.connected > 0 && !this.#closed) this.#options.onFailover();
      },
    });
    this.#connections.push(connection);
  }
}

function asRequest(pod: SnapshotPod): ZdsRequest {
  const fd = pod.netnsFd();
  return {
    what: `${fd === undefined ? 'keep' : 'add'} ${pod.namespace}/${pod.name}`,
    data: fd === undefined ? encodeKeep(pod.uid) : encodeAdd(pod),
    ...(fd !== undefined && { fd: pod.netnsFd }),
    settle: (error) => pod.settle(error),
  };
}

const answer = (start: (settle: (error: Error | undefined) => void) => void): Promise<void> =>
  new Promise((resolve, reject) => start((error) => (error ? reject(error) : resolve())));

function peerOf(socket: ZdsSocket): { readonly pid?: number; readonly uid?: number } {
  try {
    return socket.peer();
  } catch {
    // Gone before it was looked at.
    return {};
  }
}
