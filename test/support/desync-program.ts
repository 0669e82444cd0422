/**
 * Sends the corpus of ambiguous messages to ports that are named, one after another, and says what arrived at the end of each way:
 * `desync-program.ts PORT=ORIGIN…`, where the port is a waypoint's and the origin is served here, behind whatever stands in between. One line
 * of JSON: for each way, for each message, the whole requests that arrived.
 */
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { BAD_BODIES, BAD_HEADS, http2Requests, ODD_REQUESTS, postOf, SMUGGLED } from './desync-corpus.ts';

/** What tells whose requests arrive, however late: each message is for a host of its own. */
const hostOf = (i: number): string => `m${i}`;
const HTTP1: readonly (readonly [name: string, text: string])[] = [
  ...BAD_HEADS.map(([name, status, request]) => [name, status === 0 ? request : request + SMUGGLED] as const),
  ...BAD_BODIES.map(([name, body]) => [name, postOf('Transfer-Encoding: chunked\r\n', body) + SMUGGLED] as const),
  ...ODD_REQUESTS,
];
const MESSAGES: readonly (readonly [name: string, bytes: Buffer])[] = [
  ...HTTP1.map(([name, text], i): [string, Buffer] => {
    const own = text.replace(/Host:( ?)a(?=\r\n)/g, `Host:$1${hostOf(i)}`).replace(/http:\/\/a(?=[/? ])/g, `http://${hostOf(i)}`);
    return [name, Buffer.from(own, 'latin1')];
  }),
  ...http2Requests('a').map(([name], j): [string, Buffer] => {
    const [, bytes = Buffer.alloc(0)] = http2Requests(hostOf(HTTP1.length + j))[j] ?? [];
    return [`HTTP/2: ${name}`, bytes];
  }),
];
/** For a connection that stays open: what it was to bring has come long since. */
const PATIENCE_MS = 1000;
/** A connection of HTTP/2 stays open in any case: until its request has arrived, or so long where it may not. */
const HTTP2_MS = 100;
/** These do arrive. */
const SOUND = /^HTTP\/2: (?:a request|a request with a body|a Host that agrees|TE that is trailers|cookies in pieces)$/;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function way(port: number, originPort: number): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = { others: [] };
  for (const [name] of MESSAGES) found[name] = [];
  const origin = http.createServer((request, response) => {
    let bytes = 0;
    request.on('data', (chunk: Buffer) => (bytes += chunk.length));
    request.on('end', () => {
      const [, number] = /^m(\d+)$/.exec(request.headers.host ?? '') ?? [];
      const [name = 'others'] = number === undefined ? [] : (MESSAGES[Number(number)] ?? []);
      // A flood's requests may arrive or be cancelled before.
      if (request.url !== '/flood') found[name]?.push(`${request.method} ${request.url}, ${bytes} bytes`);
      response.end('ok');
    });
    request.on('error', () => undefined);
  });
  origin.listen(originPort, '127.0.0.1');
  await once(origin, 'listening');
  for (const [name, bytes] of MESSAGES) {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('error', () => undefined).resume();
    if (name.startsWith('HTTP/2')) {
      socket.write(bytes);
      const until = performance.now() + (SOUND.test(name) ? 10 * PATIENCE_MS : HTTP2_MS);
      while (found[name]?.length === 0 && !socket.destroyed && performance.now() < until) await pause(5);
      socket.destroy();
    } else {
      socket.end(bytes);
      const timer = setTimeout(() => socket.destroy(), PATIENCE_MS);
      await new Promise((resolve) => socket.once('close', resolve));
      clearTimeout(timer);
    }
  }
  await pause(PATIENCE_MS);
  origin.closeAllConnections();
  origin.close();
  return found;
}

const ways = process.argv.slice(2).map((argument) => argument.split('=').map(Number));
console.log(JSON.stringify(await Promise.all(ways.map(([port = 0, origin = 0]) => way(port, origin)))));
