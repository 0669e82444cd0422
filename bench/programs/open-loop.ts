/**
 * Requests at a fixed rate, whatever becomes of them: `open-loop.ts IP PORT CONNECTIONS PER_SECOND SECONDS`. A request's time begins when it was
 * due, so one that waits for a free connection has waited; a load that slows down with what it measures would hide that. Prints {p50, p99} in
 * microseconds, and how many there were.
 */
import net from 'node:net';

const [ip = '', port = '', connections = '', perSecond = '', seconds = ''] = process.argv.slice(2);
const REQUEST = Buffer.from(`GET / HTTP/1.1\r\nHost: ${ip}:${port}\r\n\r\n`);
/** Of the beginning, in which connections are made and nobody has run yet. */
const UNCOUNTED_MS = 500;

interface Connection {
  readonly socket: net.Socket;
  /** When the request that is under way was due. */
  due: number;
  received: number;
}

const idle: Connection[] = [];
const waiting: number[] = [];
const durations: number[] = [];
/** Bytes of one answer: all are alike. */
let answerBytes = 0;
const startedAt = performance.now();

function ask(connection: Connection, due: number): void {
  connection.due = due;
  connection.received = 0;
  connection.socket.write(REQUEST);
}

function received(connection: Connection, chunk: Buffer): void {
  if (answerBytes === 0) answerBytes = chunk.length;
  connection.received += chunk.length;
  if (connection.received < answerBytes) return;
  if (connection.due - startedAt > UNCOUNTED_MS) durations.push((performance.now() - connection.due) * 1000);
  const next = waiting.shift();
  if (next === undefined) idle.push(connection);
  else ask(connection, next);
}

await Promise.all(
  Array.from({ length: Number(connections) }, async () => {
    const socket = net.connect({ host: ip, port: Number(port), noDelay: true });
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const connection = { socket, due: 0, received: 0 };
    socket.on('data', (chunk) => received(connection, chunk as Buffer));
    idle.push(connection);
  }),
);

const intervalMs = 1000 / Number(perSecond);
const begin = performance.now() + 50;
const end = begin + Number(seconds) * 1000;
let due = begin;
const tick = setInterval(() => {
  const now = performance.now();
  for (; due <= now && due < end; due += intervalMs) {
    const connection = idle.pop();
    if (connection) ask(connection, due);
    else waiting.push(due);
  }
  if (due < end || (idle.length < Number(connections) && now < end + 5000)) return;
  clearInterval(tick);
  durations.sort((a, b) => a - b);
  const at = (part: number): number => Math.round(durations[Math.floor(durations.length * part)] ?? Number.NaN);
  console.log(JSON.stringify({ p50: at(0.5), p99: at(0.99), requests: durations.length }));
  process.exit(0);
}, 1);
