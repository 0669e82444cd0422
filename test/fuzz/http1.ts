/**
 * Throws mutated HTTP/1.1 at our server and our client until the time is over: nothing may be thrown, hang, or be left behind; a server
 * answers no more than it was asked, and what it takes for a request it takes at every chunk size.
 * `node test/fuzz/http1.ts [SECONDS] [SEED]`; a failure prints the seed of its case, which is a SEED.
 */
import type { ProxyError } from '../../common/base/errors.ts';
import { Http1Error } from '../../common/codec/http1/error.ts';
import { connectHttp1 } from '../../common/http/http1-client.ts';
import { serveHttp1 } from '../../common/http/http1-server.ts';
import { defaultHttpLimits, type ServerExchange } from '../../common/http/types.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { Collector, GivenBody, requestHead } from '../support/http-ends.ts';
import { MemoryPipe } from '../support/http-pipes.ts';
import { pick, type Random, randomOf } from '../support/seeded-random.ts';
import { settle } from '../support/tunnels.ts';
import { runAsProgram } from './campaign.ts';

const FIELDS = [
  'X-A: b',
  'Connection: keep-alive',
  'Connection: close',
  'Connection: x-a, upgrade',
  'Upgrade: websocket',
  'Expect: 100-continue',
  'TE: trailers',
  'Content-Length: 3',
  'Transfer-Encoding: chunked',
  'Cookie: a=b; c=d',
  'X-Empty:',
] as const;

function body(random: Random): { line: string; bytes: string } {
  const text = 'x'.repeat(random(3000));
  switch (random(3)) {
    case 0:
      return { line: '', bytes: '' };
    case 1:
      return { line: `Content-Length: ${text.length}\r\n`, bytes: text };
    default: {
      let bytes = '';
      for (let at = 0; at < text.length; ) {
        const size = 1 + random(500);
        const piece = text.slice(at, at + size);
        bytes += `${piece.length.toString(16)}${random(5) === 0 ? ';ext=1' : ''}\r\n${piece}\r\n`;
        at += size;
      }
      return { line: 'Transfer-Encoding: chunked\r\n', bytes: `${bytes}0\r\n${random(3) === 0 ? 'X-T: 1\r\n' : ''}\r\n` };
    }
  }
}

function message(random: Random, side: 'client' | 'server'): string {
  const { line, bytes } = body(random);
  const start =
    side === 'client'
      ? `${pick(random, ['GET', 'POST', 'HEAD', 'OPTIONS'])} ${pick(random, ['/', '/a?b', '*', 'http://a/'])} HTTP/1.${random(8) === 0 ? 0 : 1}\r\nHost: a\r\n`
      : `HTTP/1.${random(8) === 0 ? 0 : 1} ${pick(random, [200, 200, 204, 304, 100, 101, 500])} Reason\r\n`;
  let fields = line;
  for (let n = random(4); n > 0; n--) fields += `${pick(random, FIELDS)}\r\n`;
  return `${start}${fields}\r\n${bytes}`;
}

function mutate(bytes: Buffer, random: Random): Buffer {
  let out = Buffer.from(bytes);
  for (let n = random(5); n > 0 && out.length > 0; n--) {
    const at = random(out.length);
    const kind = random(5);
    if (kind === 0) out[at] = random(256);
    else if (kind === 1) out[at] = pick(random, [0, 9, 10, 13, 32, 58, 59]);
    else if (kind === 2) out = Buffer.concat([out.subarray(0, at), out.subarray(at + random(20))]);
    else if (kind === 3)
      out = Buffer.concat([out.subarray(0, at), Buffer.from(pick(random, ['\r\n', '\n', '\r', ' ', '\0', '\r\n\r\n'])), out.subarray(at)]);
    else out = Buffer.concat([out.subarray(0, at), out.subarray(Math.max(0, at - random(60)), at), out.subarray(at)]);
  }
  return out;
}

interface Outcome {
  /** What became an exchange, and its body where that came whole. */
  readonly requests: string[];
  readonly responses: number;
}

/** Serves these bytes in chunks of one size; answers come at once, later, or while the body comes, as the seed says. */
async function serveBytes(bytes: Buffer, chunk: number, seed: number): Promise<Outcome> {
  const random = randomOf(seed);
  const pipe = new MemoryPipe();
  const clock = new FakeClock();
  const requests: string[] = [];
  let closed = 0;
  let fault: ProxyError | undefined;
  const respond = (exchange: ServerExchange): void =>
    new GivenBody(['ok'], random(3) === 0 ? ['x-t', '1'] : undefined).into(
      exchange.respond({ status: 200, fields: [], bodyBytes: random(2) === 0 ? 2 : undefined }, undefined),
    );
  const connection = serveHttp1(pipe, {
    limits: { ...defaultHttpLimits, maxStartLine: 500, maxFields: 1500, maxFieldCount: 20 },
    clock,
    onClose(error) {
      closed++;
      if (error?.cause !== undefined && !(error.cause instanceof Http1Error)) fault = error;
    },
    onExchange(exchange) {
      const sink = new Collector();
      const index = requests.push(`${exchange.head.method} ${exchange.head.path} ${exchange.head.fields.join()}`) - 1;
      exchange.body.into(sink);
      sink.whole.then(
        ({ body: whole, trailers }) => {
          requests[index] += ` whole ${whole.toString('latin1')} ${trailers?.join()}`;
          respond(exchange);
        },
        () => {},
      );
    },
  });
  await settle(1);
  for (let at = 0; at < bytes.length; at += chunk) pipe.feed(bytes.subarray(at, at + chunk));
  await settle(4);
  pipe.feedEnd();
  await settle(4);
  connection.destroy();
  await clock.advance(2_000);
  if (fault) throw fault;
  if (closed !== 1) throw new Error(`closed ${closed} times`);
  if (connection.openExchanges !== 0) throw new Error('an exchange is left');
  if (clock.pending !== 0) throw new Error(`${clock.pending} timers are left`);
  const responses = pipe.text.match(/HTTP\/1\.1 [2-5]/g)?.length ?? 0;
  if (responses > requests.length + 1) throw new Error(`${responses} responses to ${requests.length} requests`);
  return { requests, responses };
}

async function fuzzServer(bytes: Buffer, seed: number, random: Random): Promise<void> {
  const whole = await serveBytes(bytes, bytes.length + 1, seed);
  const pieces = await serveBytes(bytes, 1 + random(40), seed);
  // How much of a body was seen before it failed may differ, and of the last request whether it was answered; not what was asked.
  if (whole.requests.join('\n') !== pieces.requests.join('\n'))
    throw new Error(`at once ${JSON.stringify(whole.requests)}, in pieces ${JSON.stringify(pieces.requests)}`);
}

async function fuzzClient(bytes: Buffer, random: Random): Promise<void> {
  const pipe = new MemoryPipe();
  const clock = new FakeClock();
  let closed = 0;
  let told = 0;
  let fault: ProxyError | undefined;
  const onClose = (error?: ProxyError): void => {
    closed++;
    // What a Collector says of a body that does not end as bodies do.
    if (/after the end|a second end/.test(error?.message ?? '')) fault = error;
  };
  const connection = connectHttp1(pipe, { limits: defaultHttpLimits, clock, onClose });
  const ask = (): void => {
    const sink = new Collector();
    const source = new GivenBody(['hello']);
    const exchange = connection.request(
      requestHead({
        method: pick(random, ['GET', 'HEAD', 'POST']),
        bodyBytes: random(2) === 0 ? undefined : 5,
        upgrade: random(6) === 0 ? 'websocket' : undefined,
      }),
      source,
      {
        informational() {},
        response: (_, from) => {
          told++;
          from.into(sink);
          if (random(8) === 0) from.cancel();
        },
        failed: () => void told++,
      },
    );
    source.into(exchange.body);
  };
  ask();
  await settle(1);
  let asked = 1;
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random(400);
    pipe.feed(bytes.subarray(at, at + size));
    at += size;
    if (connection.usable && random(2) === 0) {
      ask();
      asked++;
      await settle(1);
    }
  }
  if (random(2) === 0) pipe.feedEnd();
  else pipe.lose();
  await settle(2);
  connection.destroy();
  await clock.advance(2_000);
  if (fault) throw fault;
  if (closed !== 1) throw new Error(`closed ${closed} times`);
  if (told !== asked) throw new Error(`${asked} requests, told of ${told}`);
  if (connection.openExchanges !== 0) throw new Error('an exchange is left');
  if (clock.pending !== 0) throw new Error(`${clock.pending} timers are left`);
}

/** One connection's life. @throws what it should not */
export async function fuzzOnce(seed: number): Promise<void> {
  const random = randomOf(seed);
  const side = random(2) === 0 ? 'client' : 'server';
  let text = '';
  for (let n = 1 + random(4); n > 0; n--) text += message(random, side);
  const bytes = mutate(Buffer.from(text, 'latin1'), random);
  if (side === 'client') await fuzzServer(bytes, seed, random);
  else await fuzzClient(bytes, random);
}

await runAsProgram(import.meta.url, fuzzOnce);
