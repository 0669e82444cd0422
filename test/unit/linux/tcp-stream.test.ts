/** Streams on libuv's handles against Node's own sockets, over loopback. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { type TestContext, test } from 'node:test';
import { libc, SOL_TCP, TCP_NODELAY } from '../../../common/linux/libc.ts';
import { fdOf } from '../../../common/linux/node.ts';
import { hasEnded, tcpSocket } from '../../../common/linux/sockets.ts';
import { listenAt } from '../../../common/linux/tcp-listener.ts';
import { TcpStream, type TcpStreamOwner } from '../../../common/linux/tcp-stream.ts';
import { openDescriptors } from '../../support/descriptors.ts';
import { until } from '../../support/until.ts';

class Recorder implements TcpStreamOwner {
  readonly stream: TcpStream;
  readonly chunks: Buffer[] = [];
  readonly events: string[] = [];
  readonly #buffer = Buffer.alloc(64 << 10);
  readonly #waiting = new Map<string, () => void>();
  reads = Infinity;

  constructor(stream: TcpStream) {
    this.stream = stream;
    stream.owner = this;
  }

  nextBuffer = (): Uint8Array => this.#buffer;
  read(length: number): boolean {
    this.chunks.push(Buffer.from(this.#buffer.subarray(0, length)));
    this.#tell('read');
    return --this.reads > 0;
  }
  ended = (): void => this.#tell('ended');
  drained = (): void => this.#tell('drained');
  closed(error: Error | undefined): void {
    this.#tell(error ? `closed ${'code' in error ? error.code : error.message}` : 'closed');
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString();
  }

  /** Resolves when the event has happened, maybe before. */
  async has(event: string): Promise<void> {
    if (!this.events.includes(event)) await new Promise<void>((resolve) => this.#waiting.set(event, resolve));
  }

  #tell(event: string): void {
    this.events.push(event);
    this.#waiting.get(event)?.();
  }
}

/** A stream that is connected to a socket of Node's. */
async function pair(t: TestContext): Promise<{ ours: Recorder; theirs: net.Socket }> {
  const server = net.createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const accepted = once(server, 'connection');
  const ours = new Recorder(TcpStream.unconnected());
  await new Promise<void>((resolve, reject) =>
    ours.stream.connect({ ip: '127.0.0.1', port: (server.address() as net.AddressInfo).port }, (error) =>
      error ? reject(error) : resolve(),
    ),
  );
  const [theirs]: net.Socket[] = await accepted;
  assert.ok(theirs);
  theirs.on('error', () => undefined);
  t.after(() => {
    theirs.destroy();
    ours.stream.close();
  });
  return { ours, theirs };
}

const received = (socket: net.Socket): Promise<Buffer> =>
  new Promise((resolve) => {
    const chunks: Buffer[] = [];
    socket
      .on('data', (chunk) => chunks.push(typeof chunk === 'string' ? Buffer.from(chunk) : chunk))
      .on('end', () => resolve(Buffer.concat(chunks)))
      .resume();
  });

test('bytes go both ways, and each direction ends on its own', async (t) => {
  const { ours, theirs } = await pair(t);
  ours.stream.startReading();
  const reading = received(theirs);
  ours.stream.write(Buffer.from('hello '));
  ours.stream.write(Buffer.from('there'));
  ours.stream.end();
  assert.equal((await reading).toString(), 'hello there');
  theirs.end('and back');
  await ours.has('closed');
  assert.equal(ours.text, 'and back');
  assert.deepEqual(ours.events.slice(-2), ['ended', 'closed']);
  assert.equal(ours.stream.fd, -1);
});

test('where an end is expected, it is told in one breath with the last bytes', async (t) => {
  for (const expected of [true, false]) {
    const { ours, theirs } = await pair(t);
    if (expected) ours.stream.expectEnd();
    theirs.end('all of it');
    await once(theirs, 'finish');
    ours.stream.startReading();
    await ours.has('read');
    assert.deepEqual(ours.events, expected ? ['read', 'ended'] : ['read']);
    await ours.has('ended');
    ours.stream.end();
    await ours.has('closed');
    assert.deepEqual(ours.events, ['read', 'ended', 'closed']);
  }
});

test('where an end is expected and does not come, reading goes on; where a reset comes instead, that is told', async (t) => {
  const { ours, theirs } = await pair(t);
  ours.stream.expectEnd();
  ours.stream.startReading();
  for (const word of ['one ', 'two ', 'three']) {
    theirs.write(word);
    await until(() => ours.text.endsWith(word));
  }
  assert.deepEqual(ours.events, ['read', 'read', 'read']);
  const other = await pair(t);
  other.ours.stream.expectEnd();
  other.theirs.write('x');
  await new Promise(setImmediate);
  other.theirs.resetAndDestroy();
  await once(other.theirs, 'close');
  other.ours.stream.startReading();
  await other.ours.has('closed ECONNRESET');
});

test('our end is on its way when it is said', async (t) => {
  const { ours, theirs } = await pair(t);
  theirs.pause();
  const fd = fdOf(theirs);
  ours.stream.write(Buffer.from('!'));
  assert.equal(hasEnded(fd), false);
  ours.stream.end();
  const byte = Buffer.alloc(1);
  assert.equal(libc.recv(fd, byte, 1, 0), 1);
  assert.equal(byte.toString(), '!');
  assert.equal(hasEnded(fd), true);
});

test('what is corked leaves in order and as one when it is uncorked, and the writer is told', async (t) => {
  const { ours, theirs } = await pair(t);
  let first: Buffer | undefined;
  theirs.once('data', (chunk: Buffer) => {
    first = chunk;
  });
  ours.stream.cork();
  for (const word of ['one ', 'two ', 'three']) ours.stream.write(Buffer.from(word));
  assert.equal(ours.stream.pending, 13);
  ours.stream.uncork();
  assert.equal(ours.stream.pending, 0);
  assert.deepEqual(ours.events, ['drained']);
  await once(theirs, 'data');
  assert.equal(first?.toString(), 'one two three');
});

test('writes beyond what the kernel takes wait, in order, and their memory is given back once it is not needed', async (t) => {
  const { ours, theirs } = await pair(t);
  theirs.pause();
  const pieces = Array.from({ length: 24 }, (_, index) => Buffer.alloc(1 << 20, index));
  let written = 0;
  for (const piece of pieces) ours.stream.write(piece, () => written++);
  assert.ok(ours.stream.pending > 0 && written < pieces.length);
  ours.stream.end();
  assert.ok((await received(theirs)).equals(Buffer.concat(pieces)));
  await ours.has('drained');
  assert.equal(written, pieces.length);
});

test('a reader that wants no more is not read to until it asks', async (t) => {
  const { ours, theirs } = await pair(t);
  ours.reads = 1;
  ours.stream.startReading();
  theirs.write('a');
  await ours.has('read');
  theirs.end('b');
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  assert.equal(ours.text, 'a');
  ours.reads = Infinity;
  ours.stream.startReading();
  await ours.has('ended');
  assert.equal(ours.text, 'ab');
});

test('a reader that wants no more, and asks again before the turn is over, is read to without a pause', async (t) => {
  const { ours, theirs } = await pair(t);
  const sent = Buffer.alloc(1 << 20, 'x');
  ours.reads = 0;
  const { read } = ours;
  ours.read = (length) => {
    queueMicrotask(() => ours.stream.startReading());
    return read.call(ours, length);
  };
  ours.stream.startReading();
  theirs.end(sent);
  await ours.has('ended');
  assert.ok(Buffer.concat(ours.chunks).equals(sent));
});

test('two may listen on one port, and a port that is taken otherwise is refused by name', async (t) => {
  const take = (streams: TcpStream[]) => ({
    onConnection: (stream: TcpStream) => void streams.push(stream),
    onError: (error: Error) => assert.ifError(error),
    mostInTurn: () => 1,
  });
  const taken: TcpStream[] = [];
  const one = listenAt({ ip: '127.0.0.1', port: 0 }, take(taken));
  const other = listenAt({ ip: '127.0.0.1', port: one.port }, take(taken));
  t.after(() => {
    for (const { close } of [one, other]) close();
    for (const stream of taken) stream.close();
  });
  const client = net.connect(one.port, '127.0.0.1');
  t.after(() => client.destroy());
  await once(client, 'connect');
  while (taken.length === 0) await new Promise(setImmediate);
  assert.equal(taken[0]?.remote?.port, client.localPort);
  // What is small leaves at once.
  const value = Buffer.alloc(4);
  const length = Buffer.from([4, 0, 0, 0]);
  assert.equal(libc.getsockopt(taken[0]?.fd ?? -1, SOL_TCP, TCP_NODELAY, value, length), 0);
  assert.notEqual(value.readUInt32LE(), 0);

  const alone = net.createServer().listen(0, '127.0.0.1');
  await once(alone, 'listening');
  t.after(() => alone.close());
  const { port } = alone.address() as net.AddressInfo;
  assert.throws(() => listenAt({ ip: '127.0.0.1', port }, take([])), {
    code: 'EADDRINUSE',
    message: new RegExp(`127\\.0\\.0\\.1:${port}$`),
  });
});

test('a reset is seen as one on either side', async (t) => {
  const one = await pair(t);
  one.ours.stream.startReading();
  one.theirs.resetAndDestroy();
  await one.ours.has('closed ECONNRESET');

  const other = await pair(t);
  const failed = once(other.theirs, 'error');
  other.theirs.resume();
  other.ours.stream.reset();
  const [error] = await failed;
  assert.equal(error.code, 'ECONNRESET');
  await other.ours.has('closed');
});

test('memory of writes that never left is given back when the stream is closed', async (t) => {
  const { ours, theirs } = await pair(t);
  theirs.pause();
  let written = 0;
  for (let index = 0; index < 32; index++) ours.stream.write(Buffer.alloc(1 << 20), () => written++);
  ours.stream.close();
  await ours.has('closed');
  assert.equal(written, 32);
  ours.stream.write(Buffer.from('late'), () => written++);
  assert.equal(written, 33);
});

/** A port of this machine that nobody listens on. */
async function freePort(): Promise<number> {
  const probe = net.createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as net.AddressInfo;
  probe.close();
  await once(probe, 'close');
  return port;
}

test('a connection that nobody takes is refused by name', async () => {
  const port = await freePort();
  const stream = TcpStream.unconnected();
  const error = await new Promise<Error | undefined>((resolve) => stream.connect({ ip: '127.0.0.1', port }, resolve));
  assert.equal(error?.message, `connect ECONNREFUSED 127.0.0.1:${port}`);
  stream.close();
});

test('a listener of the same machine is connected to at once, or refuses at once, or takes longer because it is busy', async (t) => {
  const dial = (port: number): TcpStream | undefined => TcpStream.connectedAtOnce(tcpSocket({ family: 4 }), { ip: '127.0.0.1', port });
  const server = net.createServer((socket) => socket.on('error', () => undefined).pipe(socket));
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 });
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as net.AddressInfo;
  const stream = dial(port);
  assert.ok(stream);
  const ours = new Recorder(stream);
  stream.startReading();
  stream.write(Buffer.from('hello'));
  stream.end();
  await ours.has('ended');
  assert.equal(ours.text, 'hello');

  const unused = await freePort();
  const before = openDescriptors();
  assert.throws(() => dial(unused), { message: `connect ECONNREFUSED 127.0.0.1:${unused}`, code: 'ECONNREFUSED' });
  assert.equal(openDescriptors(), before, 'a descriptor that is of no use is closed');

  // This thread does not accept while it dials.
  const queued: TcpStream[] = [];
  for (let next = dial(port); next; next = dial(port)) assert.ok(queued.push(next) < 8, 'the queue is full at last');
  assert.equal(openDescriptors(), before + queued.length);
  for (const one of queued) one.close();
});

test('a turn takes as many connections as it may, and the others have the turns after it', async (t) => {
  let most = 3;
  let turn = 0;
  const takenIn: number[] = [];
  const listener = listenAt(
    { ip: '127.0.0.1', port: 0 },
    {
      onConnection: (stream) => {
        takenIn.push(turn);
        stream.close();
      },
      onError: (error) => assert.ifError(error),
      mostInTurn: () => most,
    },
  );
  t.after(() => listener.close());
  /** How many of eight that wait each turn takes. */
  const taken = async (): Promise<number[]> => {
    takenIn.length = 0;
    const clients = Array.from({ length: 8 }, () =>
      TcpStream.connectedAtOnce(tcpSocket({ family: 4 }), { ip: '127.0.0.1', port: listener.port }),
    );
    while (takenIn.length < clients.length) {
      await new Promise(setImmediate);
      turn++;
    }
    for (const client of clients) client?.close();
    return [...Map.groupBy(takenIn, (one) => one).values()].map((some) => some.length);
  };
  assert.deepEqual(await taken(), [3, 3, 2]);
  most = 1;
  assert.deepEqual(await taken(), [1, 1, 1, 1, 1, 1, 1, 1]);
});
