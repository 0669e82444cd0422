import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seconds } from '../../../common/base/clock.ts';
import { silentLog } from '../../../common/base/log.ts';
import { WorkloadRequest, WorkloadResponse, ZdsHello } from '../../../common/codec/gen/zds.ts';
import { createSegment, SeriesReader, SeriesWriter } from '../../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../../../ztunnel/metrics.ts';
import { type PodNetns, PodTable } from '../../../ztunnel/supervisor/pods.ts';
import { ZdsClient, type ZdsSocket } from '../../../ztunnel/supervisor/zds-client.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const info = (name: string) => ({ name, namespace: 'shop', serviceAccount: name });

class FakeNetns implements PodNetns {
  readonly fd: number;
  readonly #identity: string;
  closed = false;
  constructor(fd: number, identity: string) {
    this.fd = fd;
    this.#identity = identity;
  }
  identity(): string {
    return this.#identity;
  }
  close(): void {
    this.closed = true;
  }
}

/** A pod table whose starts succeed unless the pod is in `failing`. */
function table() {
  const clock = new FakeClock();
  const events: string[] = [];
  const failing = new Set<string>();
  /** What the next stops wait for. */
  const stopping: Promise<void>[] = [];
  const reader = new SeriesReader(metricFamilies);
  const segment = createSegment(100);
  reader.attach(0, segment);
  const pods = new PodTable({
    start: async ({ uid, netnsFd }) => {
      events.push(`start ${uid} ${netnsFd}`);
      await Promise.resolve();
      if (failing.has(uid)) throw new Error(`cannot listen for ${uid}`);
    },
    stop(uid) {
      events.push(`stop ${uid}`);
      return stopping.shift() ?? Promise.resolve();
    },
    clock,
    log: silentLog,
    series: new SeriesWriter(segment, (announcement) => reader.announce(0, [announcement])),
  });
  const gauge = (family: (typeof metrics)[keyof typeof metrics]) => reader.samples(family)[0]?.value;
  return { pods, clock, events, failing, stopping, gauge };
}

test('a pod that is added again as it is starts once, and its second descriptor is closed', async () => {
  const { pods, events, gauge } = table();
  pods.connected();
  const again = new FakeNetns(8, 'ns1');
  await pods.add('a', info('a'), new FakeNetns(7, 'ns1'));
  await pods.add('a', info('a'), again);
  assert.deepEqual(events, ['start a 7']);
  assert.equal(again.closed, true);
  assert.equal(gauge(metrics.activeProxies), 1);
  assert.equal(gauge(metrics.proxiesStarted), 1);
});

test('a pod that comes back with another namespace is started anew with the newest one', async () => {
  const { pods, events } = table();
  pods.connected();
  const old = new FakeNetns(7, 'ns1');
  await pods.add('a', info('a'), old);
  await pods.add('a', info('a'), new FakeNetns(8, 'ns2'));
  assert.deepEqual(events, ['start a 7', 'stop a', 'start a 8']);
  assert.equal(old.closed, true);
});

test('a pod that cannot be served is reported, is pending, and is tried again every five seconds', async () => {
  const { pods, clock, events, failing, gauge } = table();
  pods.connected();
  failing.add('a');
  await assert.rejects(pods.add('a', info('a'), new FakeNetns(7, 'ns1')), /cannot listen for a/);
  pods.snapshotSent();
  assert.equal(pods.ready, false);
  assert.equal(gauge(metrics.pendingProxies), 1);
  assert.deepEqual(pods.states(), [{ uid: 'a', info: info('a'), state: 'Pending' }]);
  await clock.advance(seconds(5));
  await clock.advance(seconds(5));
  assert.equal(events.length, 3);
  failing.clear();
  await clock.advance(seconds(5));
  assert.equal(pods.ready, true);
  await clock.advance(seconds(30));
  assert.equal(events.length, 4);
});

test('adding a pending pod again tries at once', async () => {
  const { pods, failing } = table();
  pods.connected();
  failing.add('a');
  await assert.rejects(pods.add('a', info('a'), new FakeNetns(7, 'ns1')));
  failing.clear();
  await pods.add('a', info('a'), new FakeNetns(8, 'ns1'));
  pods.snapshotSent();
  assert.equal(pods.ready, true);
});

test('a deleted pod stops at once after the snapshot, and is not tried again', async () => {
  const { pods, clock, events, failing } = table();
  pods.connected();
  failing.add('a');
  await assert.rejects(pods.add('a', info('a'), new FakeNetns(7, 'ns1')));
  await pods.add('b', info('b'), new FakeNetns(8, 'ns2'));
  pods.snapshotSent();
  await pods.delete('a');
  await pods.delete('b');
  await clock.advance(seconds(20));
  assert.deepEqual(events, ['start a 7', 'start b 8', 'stop a', 'stop b']);
});

test('a deletion is answered when every worker has let go of the pod, or after two seconds', async () => {
  const { pods, clock, stopping } = table();
  pods.connected();
  for (const uid of ['a', 'b']) await pods.add(uid, info(uid), new FakeNetns(7, `ns-${uid}`));
  pods.snapshotSent();
  const letGo = Promise.withResolvers<void>();
  stopping.push(letGo.promise, new Promise(() => undefined));
  const answered: string[] = [];
  const [first, second] = ['a', 'b'].map((uid) => pods.delete(uid).then(() => answered.push(uid)));
  await clock.advance(seconds(1));
  assert.deepEqual(answered, []);
  letGo.resolve();
  await first;
  assert.deepEqual(answered, ['a']);
  await clock.advance(seconds(1));
  await second;
  assert.equal(clock.pending, 0);
});

test('pods are kept over a reconnect, and those that the new snapshot does not name are stopped', async () => {
  const { pods, events } = table();
  pods.connected();
  for (const uid of ['a', 'b', 'c', 'd']) await pods.add(uid, info(uid), new FakeNetns(7, `ns-${uid}`));
  pods.snapshotSent();
  pods.disconnected();
  assert.equal(pods.ready, false);
  pods.connected();
  events.length = 0;
  await pods.add('a', info('a'), new FakeNetns(9, 'ns-a'));
  pods.keep('b');
  pods.keep('d');
  await pods.delete('d');
  assert.deepEqual(events, [], 'nothing is stopped before the snapshot is complete');
  assert.equal(pods.ready, false);
  pods.snapshotSent();
  assert.deepEqual(events, ['stop c', 'stop d']);
  assert.equal(pods.ready, true);
});

test('what the protocol does not allow is refused', async () => {
  const { pods } = table();
  pods.connected();
  assert.throws(() => pods.keep('nobody'), /no such pod: nobody/);
  pods.snapshotSent();
  assert.throws(() => pods.snapshotSent(), /second SnapshotSent/);
  assert.throws(() => pods.keep('a'), /after the snapshot/);
});

/** The node agent's end of a connection. */
class FakeSocket implements ZdsSocket {
  readonly sent: Uint8Array[] = [];
  closed = false;
  #onMessage: (data: Buffer, fds: number[]) => void = () => undefined;
  #onClose: (error?: Error) => void = () => undefined;
  send(data: Uint8Array): void {
    this.sent.push(data);
  }
  onMessage(fn: (data: Buffer, fds: number[]) => void): void {
    this.#onMessage = fn;
  }
  onClose(fn: (error?: Error) => void): void {
    this.#onClose = fn;
  }
  close(): void {
    this.closed = true;
  }
  receive(payload: WorkloadRequest['payload'], ...fds: number[]): void {
    this.#onMessage(Buffer.from(WorkloadRequest.encode({ payload }).finish()), fds);
  }
  receiveRaw(hex: string): void {
    this.#onMessage(Buffer.from(hex, 'hex'), []);
  }
  hangUp(error?: Error): void {
    this.#onClose(error);
  }
  get acks(): string[] {
    return this.sent.slice(1).map((bytes) => WorkloadResponse.decode(bytes).payload?.value.error ?? 'none');
  }
}

function client() {
  const made = table();
  const sockets: FakeSocket[] = [];
  const closedFds: number[] = [];
  let refuse = 0;
  const zds = new ZdsClient({
    path: '/run/zds.sock',
    connect: () => {
      if (refuse > 0) {
        refuse--;
        throw new Error('ENOENT');
      }
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    netns: (fd) => {
      if (fd === 666) throw new Error('descriptor 666 is no network namespace');
      return new FakeNetns(fd, `ns-${fd}`);
    },
    closeFd: (fd) => closedFds.push(fd),
    pods: made.pods,
    clock: made.clock,
    log: silentLog,
  });
  const socket = (): FakeSocket => {
    const last = sockets.at(-1);
    assert.ok(last);
    return last;
  };
  return { ...made, zds, sockets, socket, closedFds, refuse: (times: number) => (refuse = times) };
}

const add = (uid: string, workloadInfo: { name: string; namespace: string; serviceAccount: string } | undefined = info(uid)) =>
  ({ $case: 'add', value: { uid, workloadInfo } }) as const;
const snapshotSent = { $case: 'snapshotSent', value: {} } as const;

test('it says hello, serves what it is told to, and acknowledges each message when it is done', async (t) => {
  const { zds, socket, clock, events, pods } = client();
  t.after(() => zds.stop());
  zds.start();
  assert.equal(ZdsHello.decode(socket().sent[0] ?? Buffer.alloc(0)).version, 1);
  socket().receive(add('a'), 7);
  socket().receive(add('b'), 8);
  assert.deepEqual(socket().acks, [], 'not before the listeners are bound');
  await clock.advance(0);
  socket().receive(snapshotSent);
  await clock.advance(0);
  assert.deepEqual(socket().acks, ['', '', '']);
  assert.deepEqual(events, ['start a 7', 'start b 8']);
  assert.equal(pods.ready, true);
  socket().receive({ $case: 'del', value: { uid: 'a' } });
  await clock.advance(0);
  assert.equal(events.at(-1), 'stop a');
});

test('a pod that cannot be served is a NACK with the reason, and the connection stays', async (t) => {
  const { zds, socket, sockets, clock, failing } = client();
  t.after(() => zds.stop());
  zds.start();
  failing.add('a');
  socket().receive(add('a'), 7);
  await clock.advance(0);
  assert.deepEqual(socket().acks, ['cannot listen for a']);
  socket().receive(snapshotSent);
  await clock.advance(0);
  assert.equal(sockets.length, 1);
  assert.equal(socket().closed, false);
});

for (const [name, send, expected, fds] of [
  [
    'AddWorkload without a descriptor',
    (socket: FakeSocket) => socket.receive(add('a')),
    /AddWorkload a: expected one descriptor, got 0/,
    [],
  ],
  ['AddWorkload with two descriptors', (socket: FakeSocket) => socket.receive(add('a'), 7, 8), /got 2/, [7, 8]],
  [
    'AddWorkload without workload info',
    (socket: FakeSocket) => socket.receive({ $case: 'add', value: { uid: 'a' } }, 7),
    /workload info/,
    [7],
  ],
  ['a descriptor that is no namespace', (socket: FakeSocket) => socket.receive(add('a'), 666), /no network namespace/, [666]],
  [
    'a descriptor with a message that has none',
    (socket: FakeSocket) => socket.receive({ $case: 'del', value: { uid: 'a' } }, 7),
    /came with del/,
    [7],
  ],
  ['bytes that are no message', (socket: FakeSocket) => socket.receiveRaw('0aff'), /not a ZDS message/, []],
  ['a request that is not known', (socket: FakeSocket) => socket.receiveRaw('7a00'), /without a known request/, []],
] as const) {
  test(`${name} is refused with its reason and a new connection, and nothing leaks`, async (t) => {
    const { zds, sockets, clock, closedFds, events } = client();
    t.after(() => zds.stop());
    zds.start();
    const [first] = sockets;
    assert.ok(first);
    send(first);
    await clock.advance(0);
    assert.match(first.acks[0] ?? '', expected);
    assert.equal(first.closed, true);
    assert.deepEqual(closedFds, fds);
    assert.deepEqual(events, []);
    await clock.advance(20);
    assert.equal(sockets.length, 2);
  });
}

test('it connects again after 20 ms, doubling to 15 s, and from the start after a snapshot', async (t) => {
  const { zds, sockets, clock, refuse, socket, pods } = client();
  t.after(() => zds.stop());
  refuse(3);
  zds.start();
  for (const wait of [20, 40, 80]) {
    await clock.advance(wait - 1);
    assert.equal(sockets.length, 0);
    await clock.advance(1);
  }
  assert.equal(sockets.length, 1);
  socket().receive(snapshotSent);
  await clock.advance(0);
  assert.equal(pods.ready, true);
  socket().hangUp();
  await clock.advance(0);
  assert.equal(pods.ready, false);
  await clock.advance(20);
  assert.equal(sockets.length, 2);
});

test('an agent that floods without waiting for answers is cut off, and its descriptors are closed', async (t) => {
  const { zds, sockets, clock, closedFds } = client();
  t.after(() => zds.stop());
  zds.start();
  const [first] = sockets;
  for (let i = 0; i < 100; i++) first?.receive(add(`pod${i}`), 100 + i);
  await clock.advance(0);
  assert.equal(first?.closed, true);
  assert.ok(closedFds.length > 0);
});
