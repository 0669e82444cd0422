/**
 * ZDS, ztunnel's side (Istio's ztunnel, src/inpod): connects to the node agent's socket for ever, says hello, takes one message after the
 * other and acknowledges each when it is done. What breaks the protocol is refused with its reason, and the connection is made anew.
 */
import { Backoff } from '../../common/base/backoff.ts';
import { type Clock, sleep } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { Version, WorkloadRequest, WorkloadResponse, ZdsHello } from '../../common/codec/gen/zds.ts';
import { type PodNetns, type PodTable, ZdsProtocolError } from './pods.ts';

/** As much of a SeqpacketSocket as is used here. */
export interface ZdsSocket {
  send(data: Uint8Array): void;
  onMessage(fn: (data: Buffer, fds: number[]) => void): void;
  onClose(fn: (error?: Error) => void): void;
  close(): void;
}

export interface ZdsClientOptions {
  readonly path: string;
  connect(path: string): ZdsSocket;
  /** Takes the descriptor over. @throws where it is no network namespace; then it stays open */
  netns(fd: number): PodNetns;
  closeFd(fd: number): void;
  readonly pods: PodTable;
  readonly clock: Clock;
  readonly log: Log;
}

const FIRST_WAIT_MS = 20;
const LONGEST_WAIT_MS = 15_000;
/** The agent waits for each answer before it sends on; a few more may come from one that does not. */
const MAX_WAITING = 64;
const MAX_ERROR_BYTES = 900;

export class ZdsClient {
  readonly #options: ZdsClientOptions;
  readonly #stop = new AbortController();
  readonly #backoff: Backoff;
  #running: Promise<void> | undefined;

  constructor(options: ZdsClientOptions) {
    this.#options = options;
    this.#backoff = new Backoff({ firstMs: FIRST_WAIT_MS, maxMs: LONGEST_WAIT_MS, jitter: 0, random: () => 0.5 });
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Pods that are served stay served. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, log, pods, path } = this.#options;
    while (!this.#stop.signal.aborted) {
      const problem = await this.#serve();
      pods.disconnected();
      if (this.#stop.signal.aborted) return;
      const waitMs = this.#backoff.next();
      log.warn({ path, error: problem, retryMs: waitMs }, 'no connection to the node agent');
      await sleep(clock, waitMs, this.#stop.signal).catch(() => undefined);
    }
  }

  /** One connection, from hello to its end. @returns why it ended */
  async #serve(): Promise<string> {
    const { path, pods, log } = this.#options;
    let socket: ZdsSocket;
    try {
      socket = this.#options.connect(path);
    } catch (error) {
      return errorMessage(error);
    }
    const { promise: ended, resolve: end } = Promise.withResolvers<string>();
    const stopped = (): void => end('stopped');
    this.#stop.signal.addEventListener('abort', stopped, { once: true });
    pods.connected();
    socket.onClose((error) => end(error ? errorMessage(error) : 'the node agent closed the connection'));
    const queue = new MessageQueue(socket, this.#options, (snapshotComplete) => snapshotComplete && this.#backoff.reset(), end);
    socket.onMessage((data, fds) => queue.push(data, fds));
    try {
      socket.send(ZdsHello.encode({ version: Version.V1 }).finish());
      log.info({ path }, 'connected to the node agent');
      return await ended;
    } catch (error) {
      return errorMessage(error);
    } finally {
      this.#stop.signal.removeEventListener('abort', stopped);
      queue.close();
      socket.close();
    }
  }
}

/** Messages of one connection, worked off one at a time. */
class MessageQueue {
  readonly #socket: ZdsSocket;
  readonly #options: ZdsClientOptions;
  readonly #handled: (snapshotComplete: boolean) => void;
  readonly #end: (problem: string) => void;
  readonly #waiting: { data: Buffer; fds: number[] }[] = [];
  #busy = false;
  #closed = false;

  constructor(socket: ZdsSocket, options: ZdsClientOptions, handled: (snapshotComplete: boolean) => void, end: (problem: string) => void) {
    this.#socket = socket;
    this.#options = options;
    this.#handled = handled;
    this.#end = end;
  }

  push(data: Buffer, fds: number[]): void {
    if (this.#closed || this.#waiting.length >= MAX_WAITING) {
      this.#closeAll(fds);
      this.#end('the node agent sends without waiting for answers');
      return;
    }
    this.#waiting.push({ data, fds });
    if (!this.#busy) void this.#work();
  }

  close(): void {
    this.#closed = true;
    for (const { fds } of this.#waiting.splice(0)) this.#closeAll(fds);
  }

  async #work(): Promise<void> {
    this.#busy = true;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      let problem = '';
      let fatal = false;
      try {
        this.#handled(await this.#handle(next.data, next.fds));
      } catch (error) {
        problem = errorMessage(error);
        fatal = error instanceof ZdsProtocolError;
        this.#options.log.error({ error: problem }, 'the node agent is told no');
      }
      if (this.#closed) break;
      this.#answer(problem);
      if (fatal) this.#end(problem);
    }
    this.#busy = false;
  }

  #answer(error: string): void {
    const text = Buffer.from(error).subarray(0, MAX_ERROR_BYTES).toString();
    try {
      this.#socket.send(WorkloadResponse.encode({ payload: { $case: 'ack', value: { error: text } } }).finish());
    } catch (problem) {
      this.#end(errorMessage(problem));
    }
  }

  /** @returns whether that was the end of a snapshot */
  async #handle(data: Buffer, fds: number[]): Promise<boolean> {
    const { pods } = this.#options;
    const payload = this.#parse(data, fds);
    switch (payload.$case) {
      case 'add': {
        const { uid, workloadInfo } = payload.value;
        const [fd, ...more] = fds;
        if (fd === undefined || more.length > 0) {
          this.#closeAll(fds);
          throw new ZdsProtocolError(`AddWorkload ${uid}: expected one descriptor, got ${fds.length}`);
        }
        if (uid === '' || !workloadInfo || workloadInfo.name === '' || workloadInfo.namespace === '') {
          this.#closeAll(fds);
          throw new ZdsProtocolError(`AddWorkload ${uid}: workload info with name and namespace is missing`);
        }
        const { name, namespace, serviceAccount } = workloadInfo;
        await pods.add(uid, { name, namespace, serviceAccount }, this.#netns(fd, uid));
        return false;
      }
      case 'keep':
        pods.keep(payload.value.uid);
        return false;
      case 'del':
        await pods.delete(payload.value.uid);
        return false;
      case 'snapshotSent':
        pods.snapshotSent();
        return true;
    }
  }

  #parse(data: Buffer, fds: number[]): NonNullable<WorkloadRequest['payload']> {
    let payload: WorkloadRequest['payload'];
    try {
      payload = WorkloadRequest.decode(data).payload;
    } catch (error) {
      this.#closeAll(fds);
      throw new ZdsProtocolError(`not a ZDS message: ${errorMessage(error)}`);
    }
    if (!payload) {
      this.#closeAll(fds);
      throw new ZdsProtocolError('a message without a known request');
    }
    if (payload.$case !== 'add' && fds.length > 0) {
      this.#closeAll(fds);
      throw new ZdsProtocolError(`a descriptor came with ${payload.$case}, which has none`);
    }
    return payload;
  }

  #netns(fd: number, uid: string): PodNetns {
    try {
      return this.#options.netns(fd);
    } catch (error) {
      this.#options.closeFd(fd);
      throw new ZdsProtocolError(`AddWorkload ${uid}: ${errorMessage(error)}`);
    }
  }

  #closeAll(fds: readonly number[]): void {
    for (const fd of fds) this.#options.closeFd(fd);
  }
}
