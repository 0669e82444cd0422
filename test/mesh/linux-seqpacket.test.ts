import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { AF_UNIX, libc, SOCK_SEQPACKET } from '../../common/linux/libc.ts';
import { Netns } from '../../common/linux/netns.ts';
import { SeqpacketServer, SeqpacketSocket } from '../../common/linux/seqpacket.ts';
import { encodeUnixAddress } from '../../common/linux/sockaddr.ts';
import { openDescriptors, sendDescriptors } from '../support/descriptors.ts';
import { until } from '../support/until.ts';

const options = { timeout: 60_000 };

interface Received {
  readonly messages: { text: string; fds: number[] }[];
  closed: boolean;
  error?: Error;
}

test('messages keep their borders, in both directions', options, async (t) => {
  const { server, client } = await pair(t);
  for (const text of ['one', 'two', 'x'.repeat(1024)]) client.socket.send(Buffer.from(text));
  server.socket.send(Buffer.from('back'));
  await until(() => server.seen.messages.length === 3 && client.seen.messages.length === 1);
  assert.deepEqual(
    server.seen.messages.map(({ text }) => text.length),
    [3, 3, 1024],
  );
  assert.equal(client.seen.messages[0]?.text, 'back');
});

test('more messages than are read in one turn all arrive, in order', options, async (t) => {
  const { server, client } = await pair(t);
  const sent = Array.from({ length: 100 }, (_, i) => `message ${i}`);
  for (const text of sent) client.socket.send(Buffer.from(text));
  await until(() => server.seen.messages.length === 100);
  assert.deepEqual(
    server.seen.messages.map(({ text }) => text),
    sent,
  );
});

test('a promise settled in a message listener goes on in the same turn', options, async (t) => {
  const { server, client } = await pair(t);
  server.onText = (text) => void Promise.resolve().then(() => server.socket.send(Buffer.from(`${text}!`)));
  client.socket.send(Buffer.from('hello'));
  await until(() => client.seen.messages.length === 1);
  assert.equal(client.seen.messages[0]?.text, 'hello!');
});

test('a descriptor arrives as one of its own, close-on-exec, for the same file', options, async (t) => {
  const { server, client } = await pair(t);
  const netns = Netns.current();
  client.socket.send(Buffer.from('with'), netns.fd);
  const before = netns.identity();
  netns.close();
  await until(() => server.seen.messages.length === 1);
  const fds = server.seen.messages[0]?.fds ?? [];
  assert.equal(fds.length, 1);
  const received = Netns.fromFd(fds[0] ?? -1);
  assert.equal(received.identity(), before);
  received.close();
});

test('a message that is too long ends the connection with a reason, on either side of the limit', options, async (t) => {
  const { server, client, raw } = await pair(t);
  assert.throws(() => client.socket.send(Buffer.alloc(1025)), /1025 bytes; the limit is 1024/);
  assert.throws(() => client.socket.send(Buffer.alloc(0)), /empty message/);
  const netns = Netns.current();
  t.after(() => netns.close());
  const open = openDescriptors();
  sendDescriptors(raw, Buffer.alloc(1025, 1), [netns.fd]);
  await until(() => server.seen.closed && client.seen.closed);
  assert.match(server.seen.error?.message ?? '', /more than 1024 bytes/);
  assert.equal(openDescriptors(), open - 2, 'the descriptor beside it was closed, and both ends of the connection');
});

test('more descriptors than anybody sends end the connection, and none of them stays open', options, async (t) => {
  const { server, client, raw } = await pair(t);
  const netns = Netns.current();
  t.after(() => netns.close());
  const open = openDescriptors();
  sendDescriptors(
    raw,
    Buffer.from('x'),
    Array.from({ length: 9 }, () => netns.fd),
  );
  await until(() => server.seen.closed && client.seen.closed);
  assert.match(server.seen.error?.message ?? '', /more than 4 descriptors/);
  assert.equal(openDescriptors(), open - 2);
});

test('the end of the peer is a close without a reason, after what it sent', options, async (t) => {
  const { server, client } = await pair(t);
  client.socket.send(Buffer.from('last'));
  client.socket.close();
  await until(() => server.seen.closed);
  assert.deepEqual([server.seen.messages.length, server.seen.error], [1, undefined]);
  assert.throws(() => client.socket.send(Buffer.from('x')), /closed/);
});

test('a peer that does not read makes send fail, not wait', options, async (t) => {
  const { server, raw } = await pair(t);
  assert.ok(raw >= 0);
  assert.throws(
    () => {
      for (let i = 0; i < 10_000; i++) server.socket.send(Buffer.alloc(1024, 1));
    },
    { code: 'EAGAIN' },
  );
});

test('the peer is known by the kernel', options, async (t) => {
  const { server } = await pair(t);
  assert.deepEqual(server.socket.peer(), { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
});

test('a server takes over the path of one that died or still lives, and removes only its own file', options, async (t) => {
  const path = socketPath(t);
  writeFileSync(path, 'left behind');
  const first = SeqpacketServer.listen(path, 0o600);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const second = SeqpacketServer.listen(path, 0o600);
  first.close();
  assert.ok(statSync(path).isSocket());
  second.close();
  second.close();
  assert.equal(statSync(path, { throwIfNoEntry: false }), undefined);
  assert.throws(() => SeqpacketSocket.connect(path), { code: 'ENOENT', message: new RegExp(path) });
});

test('a paused server leaves callers waiting, and takes them when it goes on', options, async (t) => {
  const path = socketPath(t);
  const server = SeqpacketServer.listen(path, 0o600);
  t.after(() => server.close());
  let taken = 0;
  server.onConnection((socket) => {
    t.after(() => socket.close());
    taken++;
    server.pause();
  });
  for (let i = 0; i < 2; i++) {
    const client = SeqpacketSocket.connect(path);
    t.after(() => client.close());
  }
  await until(() => taken === 1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(taken, 1);
  server.resume();
  await until(() => taken === 2);
});

test('a worker that ends with an open socket does not take the process along', options, async (t) => {
  const path = socketPath(t);
  const server = SeqpacketServer.listen(path, 0o600);
  t.after(() => server.close());
  let gone = false;
  server.onConnection((socket) => {
    socket.onMessage(() => {});
    socket.onClose(() => {
      gone = true;
    });
    t.after(() => socket.close());
  });
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     import(workerData.module).then(({ SeqpacketSocket }) => {
       const socket = SeqpacketSocket.connect(workerData.path);
       socket.onMessage(() => {});
       socket.send(Buffer.from('x'));
       parentPort.postMessage('up');
     });`,
    { eval: true, workerData: { path, module: new URL('../../common/linux/seqpacket.ts', import.meta.url).href } },
  );
  await new Promise((resolve) => worker.once('message', resolve));
  await worker.terminate();
  assert.equal(gone, false, 'descriptors of koffi outlive a worker: whoever ends one closes its sockets first');
});

interface End {
  readonly socket: SeqpacketSocket;
  readonly seen: Received;
  onText: ((text: string) => void) | undefined;
}

/** A server's and a client's end, and the client's descriptor for what SeqpacketSocket refuses to send. */
async function pair(t: TestContext): Promise<{ server: End; client: End; raw: number }> {
  const path = socketPath(t);
  const listener = SeqpacketServer.listen(path, 0o600);
  t.after(() => listener.close());
  const accepted: SeqpacketSocket[] = [];
  listener.onConnection((socket) => accepted.push(socket));
  const raw = libc.socket(AF_UNIX, SOCK_SEQPACKET, 0);
  const address = encodeUnixAddress(path);
  assert.equal(libc.connect(raw, address, address.length), 0);
  await until(() => accepted.length === 1);
  const [socket] = accepted;
  assert.ok(socket);
  return { server: end(t, socket), client: end(t, new SeqpacketSocket(raw)), raw };
}

function end(t: TestContext, socket: SeqpacketSocket): End {
  const seen: Received = { messages: [], closed: false };
  const result: End = { socket, seen, onText: undefined };
  socket.onMessage((data, fds) => {
    const text = data.toString();
    seen.messages.push({ text, fds });
    result.onText?.(text);
  });
  socket.onClose((error) => {
    seen.closed = true;
    if (error) seen.error = error;
  });
  t.after(() => socket.close());
  return result;
}

function socketPath(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'warren-seqpacket-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, 's.sock');
}
