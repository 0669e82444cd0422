import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { test } from 'node:test';
import { ZdsRefusal } from '../../../cni/zds/connection.ts';
import { NoZtunnelError, type SnapshotPod, ZdsServer } from '../../../cni/zds/server.ts';
import { silentLog } from '../../../common/base/log.ts';
import { closeFd } from '../../../common/linux/sockets.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeSeqpacketListener, type FakeSeqpacketSocket } from '../../support/fake-seqpacket.ts';
import { ack, HELLO, requestText } from '../../support/zds-client.ts';

const pod = (name: string) => ({ uid: `uid-${name}`, name, namespace: 'shop', serviceAccount: name });

test('hello, then the snapshot one by one with descriptors, then its end', () => {
  const { listener, snapshot, settled } = setUp();
  snapshot.push(inSnapshot('a', 11), inSnapshot('b', undefined));
  const ztunnel = listener.connect();
  assert.deepEqual(texts(ztunnel), []);
  ztunnel.receive(HELLO);
  assert.deepEqual(texts(ztunnel), ['add shop/a +11']);
  ztunnel.receive(ack());
  assert.deepEqual(texts(ztunnel), ['add shop/a +11', 'keep uid-b']);
  ztunnel.receive(ack());
  ztunnel.receive(ack());
  assert.deepEqual(texts(ztunnel), ['add shop/a +11', 'keep uid-b', 'snapshot sent']);
  assert.deepEqual(settled, ['a: ok', 'b: ok']);

  function inSnapshot(name: string, fd: number | undefined): SnapshotPod {
    return { ...pod(name), netnsFd: () => fd, settle: (error) => settled.push(`${name}: ${error?.message ?? 'ok'}`) };
  }
});

test('who is not root is no ztunnel, and hears nothing of any pod', () => {
  const { listener, server } = setUp();
  const stranger = listener.connect(1000);
  assert.equal(stranger.closed, true);
  stranger.receive(HELLO);
  assert.deepEqual(texts(stranger), []);
  assert.equal(server.connected, 0);
});

test('a change waits until the message before it is answered', async () => {
  const { server, ztunnel } = connected();
  const adding = server.add(pod('a'), () => 7);
  const removing = server.remove('uid-b');
  assert.deepEqual(texts(ztunnel).slice(1), ['add shop/a +7']);
  ztunnel.receive(ack());
  await adding;
  assert.deepEqual(texts(ztunnel).slice(1), ['add shop/a +7', 'del uid-b']);
  ztunnel.receive(ack());
  await removing;
});

test('a refusal is told to who asked, and the connection stays', async () => {
  const { server, ztunnel } = connected();
  const adding = server.add(pod('a'), () => 7);
  ztunnel.receive(ack('port 15008 is taken'));
  await assert.rejects(adding, (error) => error instanceof ZdsRefusal && error.message.includes('shop/a: port 15008 is taken'));
  assert.equal(ztunnel.closed, false);
  assert.equal(server.connected, 1);
});

test('a ztunnel that does not answer within five seconds is disconnected, and everything waiting fails with the reason', async () => {
  const { server, ztunnel, clock, counts } = connected();
  const results = Promise.allSettled([server.add(pod('a'), () => 7), server.add(pod('b'), () => 8)]);
  await clock.advance(4999);
  assert.equal(ztunnel.closed, false);
  await clock.advance(1);
  assert.equal(ztunnel.closed, true);
  const messages = (await results).map((result) => (result.status === 'rejected' ? result.reason.message : 'ok'));
  assert.deepEqual(messages, [
    'cannot add shop/a: no answer within 5 s to: add shop/a',
    'cannot add shop/b: no answer within 5 s to: add shop/a',
  ]);
  assert.equal(counts.at(-1), 0);
});

test('a ztunnel that never says hello is disconnected, and gets no pods meanwhile', async () => {
  const { listener, server, clock } = setUp();
  const ztunnel = listener.connect();
  await assert.rejects(
    server.add(pod('a'), () => 7),
    NoZtunnelError,
  );
  await clock.advance(5000);
  assert.equal(ztunnel.closed, true);
  assert.deepEqual(ztunnel.sent, []);
});

const lies: readonly (readonly [what: string, Uint8Array])[] = [
  ['bytes that are no protobuf', Buffer.from('ffffffff', 'hex')],
  ['an empty response', Buffer.from('1200', 'hex')],
];
for (const [what, bytes] of lies) {
  test(`instead of an answer ${what}: disconnected, and who waited is told`, async () => {
    const { server, ztunnel } = connected();
    const adding = server.add(pod('a'), () => 7);
    ztunnel.receive(bytes);
    await assert.rejects(adding, /cannot add shop\/a: protocol error: ztunnel sent a response/);
    assert.equal(ztunnel.closed, true);
  });
}

test('an answer to nothing, a second hello, and another version are protocol errors', () => {
  const one = connected();
  one.ztunnel.receive(ack());
  assert.equal(one.ztunnel.closed, true);
  const two = connected();
  two.ztunnel.receive(HELLO);
  assert.equal(two.ztunnel.closed, true);
  const three = setUp().listener.connect();
  three.receive(Buffer.from('0802', 'hex'));
  assert.equal(three.closed, true);
});

test('a descriptor from ztunnel is closed, and so is the connection', () => {
  const { ztunnel } = connected();
  const fd = openSync('/dev/null', 'r');
  ztunnel.receive(ack(), [fd]);
  assert.equal(ztunnel.closed, true);
  assert.throws(() => closeFd(fd), { code: 'EBADF' });
});

test('with two ztunnels pods are added to the newest that has said hello, and taken from both', async () => {
  const { listener, server } = setUp();
  const [old, fresh, silent] = [listener.connect(), listener.connect(), listener.connect()];
  for (const ztunnel of [old, fresh]) {
    ztunnel.receive(HELLO);
    ztunnel.receive(ack());
  }
  const adding = server.add(pod('a'), () => 7);
  fresh.receive(ack());
  await adding;
  const removing = server.remove('uid-a');
  for (const ztunnel of [old, fresh]) ztunnel.receive(ack());
  await removing;
  assert.deepEqual([texts(old).slice(1), texts(fresh).slice(1), texts(silent)], [['del uid-a'], ['add shop/a +7', 'del uid-a'], []]);
});

test('when the newest dies, the one before it is told about the next pod', async () => {
  const { listener, server } = setUp();
  const [old, fresh] = [listener.connect(), listener.connect()];
  for (const ztunnel of [old, fresh]) {
    ztunnel.receive(HELLO);
    ztunnel.receive(ack());
  }
  const lost = server.add(pod('a'), () => 7);
  fresh.end();
  await assert.rejects(lost, /ztunnel closed the connection/);
  const again = server.add(pod('a'), () => 7);
  old.receive(ack());
  await again;
});

test('only when the newest is lost must the one before it be told everything again', () => {
  for (const [lost, failover] of [
    [0, 0],
    [1, 1],
  ] as const) {
    const { listener, failovers } = setUp();
    const both = [listener.connect(), listener.connect()];
    for (const ztunnel of both) {
      ztunnel.receive(HELLO);
      ztunnel.receive(ack());
    }
    listener.connect().end();
    both[lost]?.end();
    assert.equal(failovers.length, failover);
    both[1 - lost]?.end();
    assert.equal(failovers.length, failover, 'with nobody left there is nothing to tell');
  }
});

test('a removal does not fail for want of a ztunnel, nor for one that dies', async () => {
  const { server, ztunnel } = connected();
  const removing = server.remove('uid-a');
  ztunnel.end();
  await removing;
  await server.remove('uid-b');
});

test('a pod that leaves while its message waits is not sent with a descriptor that means something else by now', async () => {
  const { server, ztunnel } = connected();
  const first = server.add(pod('a'), () => 7);
  const second = server.add(pod('b'), () => undefined);
  ztunnel.receive(ack());
  await first;
  await assert.rejects(second, /cannot add shop\/b: the pod left meanwhile/);
  assert.deepEqual(texts(ztunnel).slice(1), ['add shop/a +7']);
  assert.equal(ztunnel.closed, false);
});

test('a message that is too long fails alone; a socket that cannot send is closed', async () => {
  const { server, ztunnel } = connected();
  ztunnel.failNext = new RangeError('a message of 2000 bytes');
  await assert.rejects(
    server.add(pod('a'), () => 7),
    /a message of 2000 bytes/,
  );
  assert.equal(ztunnel.closed, false);
  ztunnel.failNext = new Error('EAGAIN');
  await assert.rejects(
    server.add(pod('b'), () => 7),
    /cannot send: EAGAIN/,
  );
  assert.equal(ztunnel.closed, true);
});

test('a refused end of the snapshot starts over', () => {
  const { listener, server } = setUp();
  const ztunnel = listener.connect();
  ztunnel.receive(HELLO);
  assert.equal(server.synced, false);
  ztunnel.receive(ack('busy'));
  assert.equal(ztunnel.closed, true);
});

test('five connections a second are taken, and no more than eight are kept', async () => {
  const { listener, clock } = setUp();
  const all = [listener.connect()];
  assert.equal(listener.paused, true);
  await clock.advance(199);
  assert.equal(listener.paused, true);
  await clock.advance(1);
  assert.equal(listener.paused, false);
  for (let i = 0; i < 8; i++) all.push(listener.connect());
  assert.deepEqual(
    all.map(({ closed }) => closed),
    [...Array(8).fill(false), true],
  );
});

test('closing ends every connection and does not listen again', async () => {
  const { listener, server, ztunnel, clock, counts } = connected();
  server.close();
  assert.deepEqual([ztunnel.closed, listener.closed, counts.at(-1)], [true, true, 0]);
  listener.paused = true;
  await clock.advance(1000);
  assert.equal(listener.paused, true);
  assert.equal(clock.pending, 0);
});

function setUp() {
  const clock = new FakeClock();
  const listener = new FakeSeqpacketListener();
  const snapshot: SnapshotPod[] = [];
  const settled: string[] = [];
  const counts: number[] = [];
  const failovers: number[] = [];
  const onConnected = (count: number): void => void counts.push(count);
  const server = new ZdsServer({
    listener,
    clock,
    log: silentLog,
    snapshot: () => snapshot,
    onConnected,
    onFailover: () => void failovers.push(1),
  });
  return { failovers, clock, listener, snapshot, settled, counts, server };
}

/** A ztunnel that has had an empty snapshot. */
function connected() {
  const world = setUp();
  const ztunnel = world.listener.connect();
  ztunnel.receive(HELLO);
  ztunnel.receive(ack());
  assert.equal(world.server.synced, true);
  return { ...world, ztunnel };
}

const texts = (socket: FakeSeqpacketSocket): string[] =>
  socket.sent.map(({ data, fd }) => (fd === undefined ? requestText(data) : `${requestText(data)} +${fd}`));
