/** A scripted ztunnel: says hello when told to, notes each request with what came beside it, and answers as the test wants. */
import type { TestContext } from 'node:test';
import { WorkloadRequest, WorkloadResponse, ZdsHello } from '../../common/codec/gen/zds.ts';
import { Netns } from '../../common/linux/netns.ts';
import { SeqpacketSocket } from '../../common/linux/seqpacket.ts';
import { closeFd } from '../../common/linux/sockets.ts';

export const HELLO = ZdsHello.encode({ version: 1 }).finish();
export const ack = (error = ''): Uint8Array => WorkloadResponse.encode({ payload: { $case: 'ack', value: { error } } }).finish();

/** `add NAMESPACE/NAME`, `keep UID`, `del UID`, `snapshot sent`. */
export function requestText(data: Uint8Array): string {
  const { payload } = WorkloadRequest.decode(data);
  switch (payload?.$case) {
    case 'add':
      return `add ${payload.value.workloadInfo?.namespace}/${payload.value.workloadInfo?.name}`;
    case 'keep':
      return `keep ${payload.value.uid}`;
    case 'del':
      return `del ${payload.value.uid}`;
    case 'snapshotSent':
      return 'snapshot sent';
    default:
      return 'nothing';
  }
}

export class ZdsClient {
  readonly socket: SeqpacketSocket;
  readonly seen: string[] = [];
  /** Identities of the namespaces that came, in the order of their adds. */
  readonly namespaces: string[] = [];
  closed = false;
  /** What to answer; undefined: nothing. */
  answer: (request: string) => Uint8Array | undefined = () => ack();

  private constructor(socket: SeqpacketSocket) {
    this.socket = socket;
    socket.onClose(() => {
      this.closed = true;
    });
    socket.onMessage((data, fds) => this.#receive(data, fds));
  }

  static connect(t: TestContext, path: string): ZdsClient {
    const client = new ZdsClient(SeqpacketSocket.connect(path));
    t.after(() => client.socket.close());
    return client;
  }

  hello(): this {
    this.socket.send(HELLO);
    return this;
  }

  #receive(data: Buffer, fds: readonly number[]): void {
    const request = requestText(data);
    this.seen.push(fds.length > 0 ? `${request} +${fds.length}` : request);
    for (const fd of fds) {
      this.namespaces.push(Netns.fromFd(fd).identity());
      closeFd(fd);
    }
    const answer = this.answer(request);
    if (answer) this.socket.send(answer);
  }
}
