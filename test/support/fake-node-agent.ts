/** A node agent in the test's hand: one ZDS connection at a time, each message and its answer as the test says. */
import { once } from 'node:events';
import type { TestContext } from 'node:test';
import { WorkloadRequest, WorkloadResponse, ZdsHello } from '../../common/codec/gen/zds.ts';
import { SeqpacketServer, type SeqpacketSocket } from '../../common/linux/seqpacket.ts';
import type { PodInfo } from '../../ztunnel/settings.ts';

export interface FakeNodeAgent {
  readonly path: string;
  /** Resolves with the n-th connection (from 0), after its hello. */
  connection(n: number): Promise<AgentConnection>;
}

export interface AgentConnection {
  /** Each resolves with the ACK's error text; empty means accepted. */
  add(uid: string, info: PodInfo, netnsFd: number | undefined): Promise<string>;
  keep(uid: string): Promise<string>;
  del(uid: string): Promise<string>;
  snapshotSent(): Promise<string>;
  raw(bytes: Uint8Array): Promise<string>;
  close(): void;
  readonly closed: Promise<void>;
}

export function startNodeAgent(t: TestContext, path: string): FakeNodeAgent {
  const connections: AgentConnection[] = [];
  const arrivals = new EventTarget();
  const open: SeqpacketSocket[] = [];
  const server = SeqpacketServer.listen(path, 0o600);
  server.onConnection((socket) => {
    open.push(socket);
    void accept(socket).then((connection) => {
      connections.push(connection);
      arrivals.dispatchEvent(new Event('arrival'));
    });
  });
  t.after(() => {
    for (const socket of open) socket.close();
    server.close();
  });
  return {
    path,
    async connection(n) {
      for (;;) {
        const connection = connections[n];
        if (connection) return connection;
        await once(arrivals, 'arrival');
      }
    },
  };
}

function accept(socket: SeqpacketSocket): Promise<AgentConnection> {
  return new Promise((resolve) => {
    const waiting: ((data: Buffer) => void)[] = [];
    const { promise: closed, resolve: close } = Promise.withResolvers<void>();
    let greeted = false;
    const ask = (bytes: Uint8Array, fd?: number): Promise<string> =>
      new Promise((answered, failed) => {
        waiting.push((data) => answered(WorkloadResponse.decode(data).payload?.value.error ?? 'no answer'));
        void closed.then(() => failed(new Error('the connection was closed')));
        socket.send(bytes, fd);
      });
    const request = (payload: NonNullable<WorkloadRequest['payload']>): Uint8Array => WorkloadRequest.encode({ payload }).finish();
    const connection: AgentConnection = {
      add: (uid, workloadInfo, netnsFd) => ask(request({ $case: 'add', value: { uid, workloadInfo } }), netnsFd),
      keep: (uid) => ask(request({ $case: 'keep', value: { uid } })),
      del: (uid) => ask(request({ $case: 'del', value: { uid } })),
      snapshotSent: () => ask(request({ $case: 'snapshotSent', value: {} })),
      raw: (bytes) => ask(bytes),
      close: () => socket.close(),
      closed,
    };
    socket.onClose(() => close());
    socket.onMessage((data) => {
      if (!greeted) {
        greeted = ZdsHello.decode(data).version === 1;
        resolve(connection);
        return;
      }
      waiting.shift()?.(data);
    });
  });
}
