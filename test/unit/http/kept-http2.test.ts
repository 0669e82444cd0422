/** The HTTP/2 client of the tests' loads (test/support/kept-http2.mjs): what of Node's own it mends, and that it mends nothing else. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http2 from 'node:http2';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { portOf } from '../../support/tunnels.ts';

type KeptHttp2 = (url: string, opened: () => void, limit: () => void) => () => Promise<{ status: number; body: string }>;
// JavaScript, since pods run it as it is.
const { keptHttp2 } = (await import(new URL('../../support/kept-http2.mjs', import.meta.url).href)) as { keptHttp2: KeptHttp2 };

const goaway = (last: number): Buffer => {
  const frame = Buffer.alloc(17);
  frame.writeUInt8(8, 2);
  frame.writeUInt8(7, 3);
  frame.writeUInt32BE(last, 9);
  return frame;
};

/** Node's server behind a relay, which can speak for it. */
async function relayed(
  t: TestContext,
  onStream: (stream: http2.ServerHttp2Stream) => void,
): Promise<{ url: string; say: (frame: Buffer) => void }> {
  const server = http2.createServer().on('stream', (stream: http2.ServerHttp2Stream) => {
    stream.on('error', () => {});
    onStream(stream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  let last: net.Socket | undefined;
  const relay = net.createServer((socket) => {
    last = socket;
    const back = net.connect(portOf(server), '127.0.0.1');
    for (const one of [socket, back]) t.after(() => one.on('error', () => {}).destroy());
    socket.pipe(back).pipe(socket);
  });
  relay.listen(0, '127.0.0.1');
  await once(relay, 'listening');
  t.after(() => [server, relay].map((one) => one.close()));
  return { url: `http://127.0.0.1:${portOf(relay)}`, say: (frame) => last?.write(frame) };
}

test('a request that Node wrote no more, because a GOAWAY had come, goes over the next connection', async (t) => {
  let served = 0;
  const { url, say } = await relayed(t, (stream) => {
    served++;
    stream.respond();
    stream.end('here');
  });
  let connections = 0;
  const ask = keptHttp2(
    url,
    () => connections++,
    () => {},
  );
  assert.deepEqual(await ask(), { status: 200, body: 'here' });
  // Out of a timer: what is asked now is written after the next time that sockets are read.
  await sleep(20);
  say(goaway(2 ** 31 - 1));
  assert.deepEqual(await ask(), { status: 200, body: 'here' });
  assert.deepEqual([served, connections], [2, 2]);
});

test('what a server refuses is refused', async (t) => {
  let asked = 0;
  const { url, say } = await relayed(t, (stream) => {
    if (asked++ > 0) return say(goaway(1));
    stream.respond();
    stream.end();
  });
  const ask = keptHttp2(
    url,
    () => {},
    () => {},
  );
  await ask();
  await assert.rejects(ask(), /NGHTTP2_REFUSED_STREAM/);
  const refusing = await relayed(t, (stream) => stream.close(http2.constants.NGHTTP2_REFUSED_STREAM));
  await assert.rejects(
    keptHttp2(
      refusing.url,
      () => {},
      () => {},
    )(),
    /NGHTTP2_REFUSED_STREAM/,
  );
  assert.equal(asked, 2);
});
