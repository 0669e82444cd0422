/** Two busy pods at one data worker: each has its share of a turn, so what one of them begins waits, and none of it is lost. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { makePair } from '../support/pair.ts';
import { call, podInfo, startEcho, startShared } from '../support/pair-programs.ts';
import { type Program, startProgram } from '../support/programs.ts';

const options = { skip: withoutNamespaces ?? false, timeout: 120_000 };
const ONE_WORKER = { ZTUNNEL_WORKER_THREADS: '1' };

/** Asks again and again over one connection, and says `over ANSWERS` when that ends. */
function keepAsking(t: TestContext, netns: TestNetns, ip: string): Program {
  return startProgram(t, netns, '-e', [
    `const socket = require('node:net').connect(8080, '${ip}', () => socket.write('x'));
    let [answers, bytes] = [0, 0];
    socket.on('data', (data) => {
      if ((bytes += data.length) < 2) return;
      bytes = 0;
      if (answers++ === 0) console.log('answered');
      socket.write('x');
    });
    socket.on('error', () => undefined).on('close', () => console.log('over', answers));
    process.on('SIGTERM', () => socket.end());`,
  ]);
}

/** Opens so many connections, 64 at a time, and says `ANSWERED of ENDED` at the end. */
function openMany(t: TestContext, netns: TestNetns, ip: string, count: number): Program {
  return startProgram(t, netns, '-e', [
    `const net = require('node:net');
    let [begun, ended, answered] = [0, 0, 0];
    const next = () => {
      if (begun === ${count}) return;
      if (++begun === 65) console.log('on the way');
      let whole = '';
      const socket = net.connect(8080, '${ip}', () => socket.end('x'));
      socket.on('data', (data) => { whole += data; }).on('error', () => undefined).on('close', () => {
        if (whole === 'xx') answered++;
        if (++ended === ${count}) console.log(answered, 'of', ended);
        else next();
      });
    };
    for (let i = 0; i < 64; i++) next();`,
  ]);
}

test('a pod that opens many connections beside a busy one has them all served, and the other one its answers', options, async (t) => {
  const pair = await makePair(t);
  const { ztunnel } = await startShared(t, pair, ONE_WORKER);
  for (const pod of [pair.client, pair.server]) await startEcho(t, pod.netns);
  const other = keepAsking(t, pair.server.netns, pair.client.v4);
  await other.line(/^answered/);
  assert.equal(await openMany(t, pair.client.netns, pair.server.v4, 1000).line(/ of /), '1000 of 1000');
  other.kill();
  assert.ok(Number((await other.line(/^over/)).split(' ')[1]) > 100);
  assert.doesNotMatch(ztunnel.output(), /handler failed|\terror\t/);
});

test('connections that wait for their turn end with their pod, and the worker goes on', options, async (t) => {
  const pair = await makePair(t);
  const { ztunnel, connection } = await startShared(t, pair, ONE_WORKER);
  for (const pod of [pair.client, pair.server]) await startEcho(t, pod.netns);
  const other = keepAsking(t, pair.server.netns, pair.client.v4);
  await other.line(/^answered/);
  const many = openMany(t, pair.client.netns, pair.server.v4, 100_000);
  await many.line(/^on the way/);
  assert.equal(await connection.del('uid-client'), '');
  await other.line(/^over/);
  many.kill('SIGKILL');
  assert.equal(await connection.add('uid-client', podInfo(pair.client), pair.client.netns.netns.fd), '');
  const deadline = Date.now() + 30_000;
  while ((await call(pair.client.netns, pair.server.v4, 8080)).received === '') {
    assert.ok(Date.now() < deadline, ztunnel.output());
    await sleep(100);
  }
  assert.doesNotMatch(ztunnel.output(), /handler failed/);
});
