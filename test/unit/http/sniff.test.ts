import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONNECTION_PREFACE, settingsFrame } from '../../../common/codec/http2/frames.ts';
import { relay } from '../../../common/hbone/relay.ts';
import type { Pipe } from '../../../common/hbone/types.ts';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { type SniffedProtocol, type SniffOptions, sniff } from '../../../common/http/sniff.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { answer, served } from '../../support/http-ends.ts';
import { MemoryPipe } from '../../support/http-pipes.ts';
import { appPair, readAll, settle, tunnelPair } from '../../support/tunnels.ts';

const sniffed = (pipe: Pipe, options: SniffOptions): Promise<SniffedProtocol> => new Promise((resolve) => sniff(pipe, options, resolve));

const TABLE: readonly (readonly [protocol: string, bytes: string])[] = [
  ['http1', 'GET / HTTP/1.1\r\n'],
  ['http1', 'OPTIONS * HTTP/1.0\r\n'],
  ['http1', 'GET /a b HTTP/1.1\n'],
  ['http1', 'PRI / HTTP/1.1\r\n'],
  // No preface after all: the server answers 505.
  ['http1', 'PRI * HTTP/2.0\r\n\r\nXX'],
  ['http2', CONNECTION_PREFACE.toString('latin1')],
  ['tls', '\x16\x03\x01'],
  ['other', '\x16\x01'],
  ['other', 'EHLO example.com\r\n'],
  ['other', 'SSH-2.0-OpenSSH_9\r\n'],
  ['other', '*1\r\n$4\r\nPING\r\n'],
  ['other', '\0\0\0\x08\x04\xd2\x16\x2f'],
  ['other', `${'a'.repeat(100)} / HTTP/1.1\r\n`],
];

test('the first bytes decide, at every chunk size', async () => {
  for (const [protocol, bytes] of TABLE) {
    for (const chunk of [1, 3, 1000]) {
      const pipe = new MemoryPipe();
      const result = sniffed(pipe, { timeoutMs: 1000, clock: new FakeClock() });
      for (let at = 0; at < bytes.length; at += chunk) pipe.feed(bytes.slice(at, at + chunk));
      // Those that need more bytes to tell get none.
      if (protocol === 'other') pipe.feedEnd();
      assert.equal(await result, protocol, JSON.stringify(bytes));
    }
  }
});

test('a client that says nothing waits for its server: time decides', async () => {
  for (const bytes of ['', 'GE']) {
    const clock = new FakeClock();
    const pipe = new MemoryPipe();
    const result = sniffed(pipe, { timeoutMs: 1000, clock });
    if (bytes !== '') pipe.feed(bytes);
    await clock.advance(1000);
    assert.equal(await result, 'other');
    assert.equal(clock.pending, 0);
  }
});

test('what was looked at is served as if nobody had looked', async () => {
  const pipe = new MemoryPipe();
  const result = sniffed(pipe, { timeoutMs: 1000, clock: new FakeClock() });
  pipe.feed('GET /a HTT');
  pipe.feed('P/1.1\r\nHost: a\r\n');
  assert.equal(await result, 'http1');
  pipe.feed('\r\n');
  const { exchanges } = served(serveHttp1, (exchange) => answer(exchange, 200, 'ok'), {}, pipe);
  await settle(2);
  assert.equal(exchanges[0]?.head.path, '/a');
  assert.match(pipe.text, /ok$/);
});

test('an application socket is relayed whole after it was looked at, its end included', async (t) => {
  for (const bytes of ['EHLO a\r\n', 'GET / HTTP/1.1\r\n\r\n', '']) {
    const { app, socket } = await appPair(t);
    const other = await appPair(t);
    const clock = new FakeClock();
    const result = sniffed(socket, { timeoutMs: 1000, clock });
    app.end(bytes);
    await result;
    const received = readAll(other.app);
    relay(socket, other.socket);
    assert.equal((await received).toString(), bytes);
    assert.equal(clock.pending, 0);
    other.app.end();
  }
});

test('a tunnel is relayed whole after it was looked at', async (t) => {
  const pair = tunnelPair();
  const { near, far } = await pair.open();
  const from = await appPair(t);
  const to = await appPair(t);
  relay(from.socket, near);
  const result = sniffed(far, { timeoutMs: 1000, clock: pair.clock });
  const sent = Buffer.concat([CONNECTION_PREFACE, settingsFrame([]), Buffer.alloc(500_000, 'x')]);
  from.app.end(sent);
  assert.equal(await result, 'http2');
  const received = readAll(to.app);
  relay(far, to.socket);
  assert.ok((await received).equals(sent));
  to.app.end();
});
