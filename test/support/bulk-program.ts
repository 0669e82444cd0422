/**
 * A large transfer in both directions at once, checked byte for byte: `serve PORT BYTES`, or `send HOST PORT BYTES`. Both sides send pseudo-random
 * bytes; the server ends with the digest of what it got, the client compares both and prints "intact".
 */
import { createHash } from 'node:crypto';
import net from 'node:net';
import { pipeline } from 'node:stream/promises';

const CHUNK = 64 * 1024;
const DIGEST_BYTES = 32;

/** Bytes that do not repeat, so that a lost, doubled or swapped piece shows: a counter under SHAKE. */
function* bytesOf(seed: string, length: number): Generator<Buffer> {
  for (let from = 0; from < length; from += CHUNK) {
    const outputLength = Math.min(CHUNK, length - from);
    yield createHash('shake256', { outputLength }).update(`${seed} ${from}`).digest();
  }
}

function digestOf(seed: string, length: number): Buffer {
  const hash = createHash('sha256');
  for (const chunk of bytesOf(seed, length)) hash.update(chunk);
  return hash.digest();
}

/** To the peer's end. Not an async iteration, whose end would destroy the socket for writing as well. */
function read(socket: net.Socket, took: (chunk: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.on('data', took).once('end', resolve).once('error', reject);
  });
}

async function answer(socket: net.Socket, length: number): Promise<void> {
  const hash = createHash('sha256');
  const received = read(socket, (chunk) => void hash.update(chunk));
  const answered = pipeline(async function* () {
    yield* bytesOf('server', length);
    await received;
    yield hash.digest();
  }, socket);
  await Promise.all([received, answered]);
}

async function send(host: string, port: number, length: number): Promise<string> {
  const socket = net.connect({ host, port, allowHalfOpen: true });
  const received: Buffer[] = [];
  const reading = read(socket, (chunk) => void received.push(chunk));
  await Promise.all([pipeline(bytesOf('client', length), socket), reading]);
  const all = Buffer.concat(received);
  if (all.length !== length + DIGEST_BYTES) return `${all.length} bytes came, ${length + DIGEST_BYTES} were sent`;
  const hash = createHash('sha256').update(all.subarray(0, length)).digest();
  if (!hash.equals(digestOf('server', length))) return 'what came is not what was sent';
  return all.subarray(length).equals(digestOf('client', length)) ? 'intact' : 'the server got something else';
}

const [role, ...rest] = process.argv.slice(2);
if (role === 'serve') {
  const [port, length] = rest.map(Number);
  net
    .createServer({ allowHalfOpen: true }, (socket) => void answer(socket, length ?? 0).catch(() => socket.destroy()))
    .listen({ host: '::', port });
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => process.exit());
} else {
  const [host = '', port, length] = rest;
  console.log(await send(host, Number(port), Number(length)));
}
