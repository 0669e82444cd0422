import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Netns } from '../../common/linux/netns.ts';
import { fdOf, socketFromFd } from '../../common/linux/node.ts';
import {
  closeFd,
  gatherConnections,
  listenTcp,
  originalDestination,
  spreadConnections,
  tcpSocket,
  udpSocket,
} from '../../common/linux/sockets.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { joinNetns, makeNetns, withoutNamespaces } from '../support/netns.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 60_000 };

test('a listener and a connection made inside namespaces meet there, and nowhere else', options, async (t) => {
  const [a, b] = [makeNetns(t), makeNetns(t)];
  const at = joinNetns(a, b, 1);
  const server = echoServer(listenTcp({ netns: b.netns, address: '::', port: 7000 }));
  t.after(() => server.close());
  for (const [family, host] of [
    [4, at.b.v4],
    [6, at.b.v6],
  ] as const) {
    assert.equal(await echo(tcpSocket({ netns: a.netns, family }), host, 7000), 'hello');
  }
  await assert.rejects(echo(tcpSocket({ family: 4 }), '127.0.0.1', 7000), { code: 'ECONNREFUSED' });
});

test(
  'connections to a shared port are gathered at one listener, spread again, and spread where there is none of that number',
  options,
  async (t) => {
    const a = makeNetns(t);
    const listen = (): number => listenTcp({ netns: a.netns, address: '::', port: 7000, reusePort: true });
    const fds = [listen(), listen(), listen()];
    const taken = fds.map(() => 0);
    for (const [i, fd] of fds.entries()) {
      const server = echoServer(fd, () => {
        taken[i] = (taken[i] ?? 0) + 1;
      });
      t.after(() => server.close());
    }
    /** How many of 48 connections each listener has. */
    const shares = async (): Promise<number[]> => {
      taken.fill(0);
      for (let i = 0; i < 48; i++) assert.equal(await echo(tcpSocket({ netns: a.netns, family: 4 }), '127.0.0.1', 7000), 'hello');
      return [...taken];
    };
    const all = async (): Promise<void> => assert.ok((await shares()).every((share) => share > 0));
    await all();
    gatherConnections(fds[0] ?? -1, 1);
    assert.deepEqual(await shares(), [0, 48, 0]);
    gatherConnections(fds[2] ?? -1, 0);
    assert.deepEqual(await shares(), [48, 0, 0]);
    gatherConnections(fds[2] ?? -1, 3);
    await all();
    gatherConnections(fds[2] ?? -1, 2);
    spreadConnections(fds[0] ?? -1);
    await all();
    spreadConnections(fds[0] ?? -1);
    const alone = listenTcp({ netns: a.netns, address: '::', port: 7001 });
    t.after(() => closeFd(alone));
    assert.throws(() => gatherConnections(alone, 0), { code: 'EINVAL', syscall: 'setsockopt' });
  },
);

test('a source address that nobody has is used when the routes lead back', options, async (t) => {
  const [a, b] = [makeNetns(t), makeNetns(t)];
  const at = joinNetns(a, b, 1);
  b.exec('ip', 'route', 'add', '192.0.2.0/24', 'via', at.a.v4);
  b.exec('ip', 'route', 'add', '2001:db8::/64', 'via', at.a.v6);
  a.exec('ip', 'route', 'add', 'local', '192.0.2.0/24', 'dev', 'lo');
  a.exec('ip', 'route', 'add', 'local', '2001:db8::/64', 'dev', 'lo');
  const seen: (string | undefined)[] = [];
  const server = echoServer(listenTcp({ netns: b.netns, address: '::', port: 7000 }), (socket) => seen.push(socket.remoteAddress));
  t.after(() => server.close());
  const sources = [
    { family: 4, source: { ip: '192.0.2.9', port: 0 }, to: at.b.v4 },
    { family: 6, source: { ip: '2001:db8::9', port: 0 }, to: at.b.v6 },
  ] as const;
  for (const { family, source, to } of sources) {
    const keepalive = { timeS: 180, intervalS: 180, probes: 9 };
    assert.equal(await echo(tcpSocket({ netns: a.netns, family, mark: 1337, source, keepalive }), to, 7000), 'hello');
  }
  assert.deepEqual(seen, ['::ffff:192.0.2.9', '2001:db8::9']);
});

test('the original destination of a redirected connection is known, for both families', options, async (t) => {
  const a = makeNetns(t);
  a.exec(
    'nft',
    'add table inet t; add chain inet t o { type nat hook output priority -100; }; add rule inet t o tcp dport 80 redirect to :7001',
  );
  a.exec('ip', 'route', 'add', 'local', '192.0.2.0/24', 'dev', 'lo');
  a.exec('ip', 'route', 'add', 'local', '2001:db8::/64', 'dev', 'lo');
  const seen: unknown[] = [];
  const server = echoServer(
    listenTcp({ netns: a.netns, address: '::', port: 7001, transparent: 'require', mark: 1337, reusePort: true }),
    (s) => seen.push(originalDestination(fdOf(s))),
  );
  t.after(() => server.close());
  await echo(tcpSocket({ netns: a.netns, family: 4 }), '192.0.2.1', 80);
  await echo(tcpSocket({ netns: a.netns, family: 6 }), '2001:db8::1', 80);
  assert.deepEqual(seen, [
    { ip: '192.0.2.1', port: 80 },
    { ip: '2001:db8::1', port: 80 },
  ]);
});

test('without connection tracking there is no original destination', options, async (t) => {
  const a = makeNetns(t);
  const seen: unknown[] = [];
  const server = echoServer(listenTcp({ netns: a.netns, address: '::', port: 7001 }), (s) => seen.push(originalDestination(fdOf(s))));
  t.after(() => server.close());
  await echo(tcpSocket({ netns: a.netns, family: 4 }), '127.0.0.1', 7001);
  assert.deepEqual(seen, [undefined]);
});

test('a taken port is an error that names it, and leaves no descriptor behind', options, (t) => {
  const a = makeNetns(t);
  const fd = listenTcp({ netns: a.netns, address: '0.0.0.0', port: 7000 });
  t.after(() => closeFd(fd));
  const open = openDescriptors();
  assert.throws(() => listenTcp({ netns: a.netns, address: '127.0.0.1', port: 7000 }), {
    code: 'EADDRINUSE',
    syscall: 'bind',
    message: /127\.0\.0\.1:7000/,
  });
  assert.equal(openDescriptors(), open);
});

test('datagrams arrive on a socket made inside', options, async (t) => {
  const a = makeNetns(t);
  const socket = dgram.createSocket('udp6');
  t.after(() => socket.close());
  socket.bind({ fd: udpSocket({ netns: a.netns, address: '::', port: 5353, mark: 1337 }) });
  const sender = dgram.createSocket('udp4');
  t.after(() => sender.close());
  sender.bind({ fd: udpSocket({ netns: a.netns, address: '127.0.0.1', port: 0 }) });
  sender.send('ping', 5353, '127.0.0.1');
  const [data] = await once(socket, 'message');
  assert.equal(String(data), 'ping');
});

test('a child is born in the namespace, nested runs come back one by one, and a throw comes back too', options, async (t) => {
  const [a, b] = [makeNetns(t), makeNetns(t)];
  const [home, inA, inB] = [identityHere(), a.netns.identity(), b.netns.identity()];
  const visited = a.netns.run(() => [identityHere(), b.netns.run(identityHere), identityHere()]);
  assert.deepEqual(visited, [inA, inB, inA]);
  assert.throws(
    () =>
      a.netns.run(() => {
        throw new Error('inside');
      }),
    /inside/,
  );
  assert.throws(() => a.netns.run(async () => 1), /must be synchronous/);
  assert.equal(identityHere(), home);
  const child = a.netns.run(() => spawn('readlink', ['/proc/self/ns/net'], { stdio: ['ignore', 'pipe', 'inherit'] }));
  const [text] = await once(child.stdout, 'data');
  assert.equal(String(text).trim(), `net:[${inA.split(':')[1]}]`);
});

test('a closed namespace is not entered', options, (t) => {
  const a = makeNetns(t);
  const again = Netns.open(a.path);
  again.close();
  again.close();
  assert.throws(() => again.run(() => 1), /was closed/);
});

test('a worker thread enters and leaves on its own', options, async (t) => {
  const a = makeNetns(t);
  const worker = new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     import(workerData.module).then(({ Netns }) => {
       const here = () => { const n = Netns.current(); try { return n.identity(); } finally { n.close(); } };
       const before = here();
       parentPort.postMessage([before, Netns.open(workerData.path).run(here), here()]);
     });`,
    { eval: true, workerData: { path: a.path, module: new URL('../../common/linux/netns.ts', import.meta.url).href } },
  );
  const [message] = await once(worker, 'message');
  await once(worker, 'exit');
  assert.deepEqual(message, [identityHere(), a.netns.identity(), identityHere()]);
});

for (const where of ['the main thread', 'a worker'] as const) {
  test(`in ${where}, a way back that fails ends the process rather than leave it in a stranger's network`, options, async (t) => {
    const a = makeNetns(t);
    const module = (name: string): string => JSON.stringify(new URL(`../../common/linux/${name}.ts`, import.meta.url).href);
    const script = `
      const { Netns } = await import(${module('netns')});
      const { closeFd } = await import(${module('sockets')});
      const { readdirSync, readlinkSync } = await import('node:fs');
      const home = readlinkSync('/proc/thread-self/ns/net');
      const namespaceFds = () => readdirSync('/proc/self/fd').filter((fd) => { try { return readlinkSync('/proc/self/fd/' + fd) === home; } catch { return false; } });
      Netns.open(${JSON.stringify(a.path)}).run(() => { for (const fd of namespaceFds()) closeFd(Number(fd)); });
      console.log('went on');`;
    const body =
      where === 'a worker'
        ? `new (require('node:worker_threads').Worker)(${JSON.stringify(`(async () => {${script}})()`)}, { eval: true });`
        : `(async () => {${script}})()`;
    // Without core files: the kernel would write the whole heap.
    const child = spawn('prlimit', ['--core=0', process.execPath, '-e', body], { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    child.stdout.on('data', (chunk) => {
      output += String(chunk);
    });
    const [, signal] = await once(child, 'close');
    assert.deepEqual([signal, output], ['SIGABRT', '']);
  });
}

function identityHere(): string {
  const netns = Netns.current();
  try {
    return netns.identity();
  } finally {
    netns.close();
  }
}

function echoServer(fd: number, onConnection: (socket: net.Socket) => void = () => {}): net.Server {
  const server = net.createServer((socket) => {
    onConnection(socket);
    socket.on('error', () => socket.destroy());
    socket.pipe(socket);
  });
  return server.listen({ fd });
}

/** Connects in a later tick than the one that made the socket, says hello and returns what comes back. */
async function echo(fd: number, host: string, port: number): Promise<string> {
  const socket = socketFromFd(fd);
  await new Promise((resolve) => setImmediate(resolve));
  socket.connect({ host, port });
  socket.end('hello');
  let text = '';
  for await (const chunk of socket) text += String(chunk);
  return text;
}
