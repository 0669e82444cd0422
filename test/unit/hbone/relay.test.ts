import assert from 'node:assert/strict';
import { once } from 'node:events';
import type net from 'node:net';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { systemClock } from '../../../common/base/clock.ts';
import { ProxyError } from '../../../common/base/errors.ts';
import { AppSocket } from '../../../common/hbone/app-socket.ts';
import { endpointOf } from '../../../common/hbone/endpoint.ts';
import { borrowReadBuffer, lentReadBuffers, returnReadBuffer } from '../../../common/hbone/read-buffers.ts';
import { relay } from '../../../common/hbone/relay.ts';
import { duplexOf } from '../../../common/hbone/stream-duplex.ts';
import type { Relay } from '../../../common/hbone/types.ts';
import { appPair, pattern, readAll, settle, type TunnelPair, type TunnelPairOptions, tunnelPair } from '../../support/tunnels.ts';

interface Path {
  /** Applications: the one that called, and the one that was called. */
  readonly caller: net.Socket;
  readonly callee: net.Socket;
  readonly relays: Relay[];
  readonly pair: TunnelPair | undefined;
}

/** caller ─ socket ═ tunnel ═ socket ─ callee */
async function tunnelled(t: TestContext, options: TunnelPairOptions = {}): Promise<Path> {
  const pair = tunnelPair(options);
  const [left, right] = [await appPair(t), await appPair(t)];
  const { near, far } = await pair.open();
  return { caller: left.app, callee: right.app, relays: [relay(left.socket, near), relay(far, right.socket)], pair };
}

/** caller ─ socket ═ socket ─ callee */
async function plain(t: TestContext): Promise<Path> {
  const [left, right] = [await appPair(t), await appPair(t)];
  return { caller: left.app, callee: right.app, relays: [relay(left.socket, right.socket)], pair: undefined };
}

const results = (path: Path) => Promise.all(path.relays.map(({ done }) => done));

for (const [kind, open] of [
  ['a tunnel', tunnelled],
  ['a plain relay', plain],
] as const) {
  test(`${kind} carries both directions to their ends and counts their bytes`, async (t) => {
    const path = await open(t);
    path.caller.end(pattern(300_000, 1));
    path.callee.end(pattern(500_000, 2));
    const [request, response] = await Promise.all([readAll(path.callee), readAll(path.caller)]);
    assert.ok(request.equals(pattern(300_000, 1)));
    assert.ok(response.equals(pattern(500_000, 2)));
    for (const result of await results(path)) assert.deepEqual(result, { forward: 300_000, backward: 500_000, error: undefined });
    assert.equal(lentReadBuffers(), 0);
  });

  test(`${kind} lets the callee speak first`, async (t) => {
    const { caller, callee } = await open(t);
    callee.write('220 ready');
    assert.equal(String((await once(caller, 'data'))[0]), '220 ready');
  });

  test(`${kind} keeps the way back open after the caller's end`, async (t) => {
    const path = await open(t);
    path.caller.end('question');
    assert.equal(String(await readAll(path.callee)), 'question');
    path.callee.write('answer, ');
    assert.equal(String((await once(path.caller, 'data'))[0]), 'answer, ');
    path.callee.end('and more');
    assert.equal(String(await readAll(path.caller)), 'and more');
    for (const { error } of await results(path)) assert.equal(error, undefined);
  });

  test(`${kind} keeps the way there open after the callee's end`, async (t) => {
    const path = await open(t);
    path.callee.end('hello');
    assert.equal(String(await readAll(path.caller)), 'hello');
    path.caller.end('I go on');
    assert.equal(String(await readAll(path.callee)), 'I go on');
    for (const { error } of await results(path)) assert.equal(error, undefined);
  });

  test(`${kind} ends the callee in order when the caller resets, and that is no error`, async (t) => {
    const path = await open(t);
    path.callee.resume();
    path.caller.write('x');
    await once(path.callee, 'data');
    path.caller.resetAndDestroy();
    await once(path.callee, 'end');
    path.callee.end();
    for (const { error } of await results(path)) assert.equal(error, undefined);
  });

  test(`${kind} delivers what the callee said before it reset`, async (t) => {
    const path = await open(t);
    const said = readAll(path.caller);
    path.callee.write('HTTP/1.1 413 Too Large', () => path.callee.resetAndDestroy());
    assert.equal(String(await said), 'HTTP/1.1 413 Too Large');
    path.caller.end();
    for (const { error } of await results(path)) assert.equal(error, undefined);
  });

  test(`${kind} that is aborted resets the nearest application, ends the other, and says why`, async (t) => {
    const path = await open(t);
    path.callee.on('error', () => {}).on('end', () => path.callee.end());
    const reset = once(path.caller, 'error');
    path.caller.write('x');
    await once(path.callee, 'data');
    path.relays[0]?.abort(new ProxyError('POLICY_REVOKED', 'policy shop/deny'));
    assert.equal((await reset)[0].code, 'ECONNRESET');
    assert.equal((await path.relays[0]?.done)?.error?.code, 'POLICY_REVOKED');
    if (!path.callee.closed) await once(path.callee, 'close');
    await results(path);
  });
}

test('a slow reader stops the sender within the windows, and nothing is lost', async (t) => {
  const pair = tunnelPair();
  const { app, socket } = await appPair(t);
  const { near, far } = await pair.open();
  const carrying = relay(socket, near);
  const reader = duplexOf(far);
  const total = 24 << 20;
  const sent = pattern(1 << 20);
  for (let i = 0; i < total >> 20; i++) app.write(sent);
  app.end();
  while (carrying.forward < 4 << 20) await settle(1);
  await settle(500);
  // The stream's window, one read that waits, and what the reader itself holds.
  assert.ok(carrying.forward >= 4 << 20 && carrying.forward <= (4 << 20) + (256 << 10), `${carrying.forward} bytes are under way`);
  let received = 0;
  for await (const chunk of reader) {
    const at = received % sent.length;
    const head = Math.min(chunk.length, sent.length - at);
    assert.equal(Buffer.compare(chunk.subarray(0, head), sent.subarray(at, at + head)), 0);
    received += chunk.length;
  }
  assert.equal(received, total);
  reader.end();
  assert.equal((await carrying.done).forward, total);
});

test('tiny frames to a reader that is behind are joined, and their window is given back only when it has them', async () => {
  const pair = tunnelPair({ serverLimits: { streamWindow: 40_000 } });
  await settle();
  const { near, far } = await pair.open();
  const taken: number[] = [];
  const reader = {
    backlog: 1,
    read: () => true,
    slice: (bytes: Buffer) => taken.push(bytes.length) > 0,
    ended() {},
    writable() {},
    closed() {},
  };
  const pipe = endpointOf(far);
  pipe.start(reader);
  const sender = duplexOf(near);
  for (let i = 0; i < 60_000; i++) sender.write('x');
  await settle(500);
  assert.deepEqual(taken, [1], 'one write waits, the rest is joined');
  reader.backlog = 0;
  pipe.resume();
  await settle(500);
  assert.equal(
    taken.reduce((sum, length) => sum + length, 0),
    60_000,
  );
  // What the window of 40,000 allowed, joined; a byte or two more or less by when the first one was given back.
  assert.deepEqual(taken.slice(0, 3), [1, 16_384, 16_384]);
  assert.ok(Math.abs((taken[3] ?? 0) - 7_231) < 3);
});

/** For pipes that are only written to. */
const noReader = { backlog: 0, read: () => true, slice: () => true, ended() {}, writable() {}, closed() {} };

test('a read that takes several frames stays as it is until the last one is written', async () => {
  const pair = tunnelPair({ serverLimits: { maxFrameSize: 16_384 } });
  await settle();
  const { near, far } = await pair.open();
  const received = readAll(duplexOf(far));
  const pipe = endpointOf(near);
  pipe.start(noReader);
  const sent: Buffer[] = [];
  // The last frame of each is so small that it could be copied.
  for (let i = 0; i < 30; i++) {
    const bytes = pattern(3 * 16_384 + 100 + i, i);
    const buffer = borrowReadBuffer();
    assert.ok(buffer);
    bytes.copy(buffer.view);
    sent.push(bytes);
    pipe.writeRead(buffer, bytes.length);
  }
  pipe.end();
  assert.ok((await received).equals(Buffer.concat(sent)));
  assert.equal(lentReadBuffers(), 0);
});

test('a read of which pieces are on their way when its tunnel is reset is not read into again', async () => {
  const pair = tunnelPair({ serverLimits: { maxFrameSize: 16_384, streamWindow: 20_000 } });
  await settle();
  const { near } = await pair.open();
  const pipe = endpointOf(near);
  pipe.start(noReader);
  const buffer = borrowReadBuffer();
  assert.ok(buffer);
  pipe.writeRead(buffer, 50_000);
  pipe.destroy();
  const next = borrowReadBuffer();
  assert.ok(next);
  assert.notEqual(next, buffer);
  returnReadBuffer(next);
  assert.equal(lentReadBuffers(), 0);
});

test('a stalled tunnel does not hold up another one of its connection', async (t) => {
  const pair = tunnelPair();
  const stalled = await pair.open();
  const { app, socket } = await appPair(t);
  relay(socket, stalled.near);
  app.write(Buffer.alloc(8 << 20));
  duplexOf(stalled.far);
  const other = await pair.open();
  const [near, far] = [duplexOf(other.near), duplexOf(other.far)];
  near.end(pattern(6 << 20));
  assert.ok((await readAll(far)).equals(pattern(6 << 20)));
});

test("a tunnel keeps to the peer's frame size and to windows of one byte", async () => {
  for (const serverLimits of [{ maxFrameSize: 16384 }, { maxFrameSize: 16384, streamWindow: 1, connectionWindow: 65_535 }]) {
    const pair = tunnelPair({ serverLimits });
    await settle();
    const { near, far } = await pair.open();
    const size = serverLimits.streamWindow === 1 ? 500 : 200_000;
    const [from, to] = [duplexOf(near), duplexOf(far)];
    from.end(pattern(size));
    assert.ok((await readAll(to)).equals(pattern(size)));
  }
});

test('bytes that come before the tunnel is accepted are kept for it, the end too', async () => {
  const pair = tunnelPair({ answer: 'later' });
  const opening = pair.client.connect({ authority: 'a:1', headers: [] });
  await settle();
  const [request] = pair.requests;
  assert.ok(request);
  const far = request.accept([]);
  const near = duplexOf(await opening);
  near.end('early');
  await settle();
  assert.equal(String(await readAll(duplexOf(far))), 'early');
});

test('a connection that breaks resets the applications, because their data was cut short', async (t) => {
  const path = await tunnelled(t);
  const [caller, callee] = [once(path.caller, 'error'), once(path.callee, 'error')];
  path.pair?.server.destroy(new ProxyError('DRAINED', 'time is over'));
  assert.deepEqual([(await caller)[0].code, (await callee)[0].code], ['ECONNRESET', 'ECONNRESET']);
  const [near, far] = await results(path);
  assert.deepEqual([near?.error?.code, far?.error?.code], ['CONNECTION_LOST', 'DRAINED']);
});

test('a relay takes no pipe of another make', () => {
  const pipe = { kind: 'socket', destroy() {} } as const;
  assert.throws(() => relay(pipe, pipe), TypeError);
});

test('an application socket knows both of its addresses, without IPv4-mapped spelling', async (t) => {
  const { app, socket } = await appPair(t);
  assert.deepEqual(socket.remote, { ip: '127.0.0.1', port: app.localPort });
  assert.deepEqual(socket.local, { ip: '127.0.0.1', port: app.remotePort });
});

test('connecting to nobody rejects with the error of the system, and an abort with its reason', async () => {
  const options = { timeoutMs: 1000, clock: systemClock };
  await assert.rejects(AppSocket.connect(undefined, { ip: '127.0.0.1', port: 1 }, options), { code: 'ECONNREFUSED' });
  const aborted = AbortSignal.abort(new ProxyError('DRAINED', 'no more'));
  await assert.rejects(AppSocket.connect(undefined, { ip: '127.0.0.1', port: 1 }, { ...options, signal: aborted }), { code: 'DRAINED' });
});

test('whatever applications do in whatever order, what arrives is a beginning of what was sent, and nothing is left behind', async (t) => {
  const action = fc.record({
    who: fc.constantFrom('caller', 'callee'),
    what: fc.oneof(
      { weight: 8, arbitrary: fc.record({ write: fc.integer({ min: 1, max: 200_000 }) }) },
      { weight: 2, arbitrary: fc.constantFrom('pause', 'resume', 'wait') },
      { weight: 1, arbitrary: fc.constantFrom('end', 'reset') },
    ),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 12 }), fc.boolean(), async (actions, small) => {
      const path = await tunnelled(t, small ? { serverLimits: { streamWindow: 5000, maxFrameSize: 16384 } } : {});
      const sides = { caller: side(path.caller), callee: side(path.callee) };
      for (const { who, what } of actions) await sides[who as 'caller' | 'callee'].act(what);
      const resets = actions.some(({ what }) => what === 'reset');
      for (const each of Object.values(sides)) await each.act('resume');
      for (const each of Object.values(sides)) await each.act('end');
      for (const { error } of await results(path)) assert.equal(error, undefined);
      await settle();
      for (const [from, to] of [
        [sides.caller, sides.callee],
        [sides.callee, sides.caller],
      ] as const) {
        const received = Buffer.concat(to.received);
        const sent = Buffer.concat(from.sent);
        assert.ok(received.equals(sent.subarray(0, received.length)), 'in order and unchanged');
        if (!resets) assert.equal(received.length, sent.length, 'complete');
      }
      assert.equal(lentReadBuffers(), 0);
      assert.deepEqual([path.pair?.client.openStreams, path.pair?.server.openStreams, path.pair?.ended], [0, 0, {}]);
    }),
    { numRuns: 60 },
  );
});

function side(socket: net.Socket) {
  const received: Buffer[] = [];
  const sent: Buffer[] = [];
  let over = false;
  socket.on('data', (chunk: Buffer) => received.push(chunk)).on('error', () => {});
  const act = async (what: string | { write: number }): Promise<void> => {
    if (what === 'wait') await settle(3);
    else if (what === 'pause') socket.pause();
    else if (what === 'resume') socket.resume();
    else if (over) return;
    else if (typeof what === 'object') {
      const bytes = pattern(what.write, sent.length);
      sent.push(bytes);
      socket.write(bytes);
    } else {
      over = true;
      if (what === 'end') socket.end();
      else socket.resetAndDestroy();
    }
  };
  return { received, sent, act };
}
