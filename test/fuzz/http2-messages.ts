/**
 * Throws mutated HTTP/2 with requests and responses in it at our server and our client until the time is over: nothing may be thrown, hang
 * or be left behind. `node test/fuzz/http2-messages.ts [SECONDS] [SEED]`; a failure prints the seed of its case, which is a SEED.
 */
import type { ProxyError } from '../../common/base/errors.ts';
import {
  CONNECTION_PREFACE,
  Flag,
  FrameType,
  frame,
  goawayFrame,
  headerFrames,
  rstStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../common/codec/http2/frames.ts';
import { HpackEncoder } from '../../common/codec/http2/hpack-encoder.ts';
import type { HttpClientConnection, HttpServerConnection } from '../../common/http/connections.ts';
import { connectHttp2 } from '../../common/http/http2-client.ts';
import { serveHttp2 } from '../../common/http/http2-server.ts';
import { defaultHttpLimits } from '../../common/http/types.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { Collector, echo, GivenBody, requestHead } from '../support/http-ends.ts';
import { MemoryPipe } from '../support/http-pipes.ts';
import { type Random, randomOf } from '../support/seeded-random.ts';
import { settle } from '../support/tunnels.ts';
import { runAsProgram } from './campaign.ts';

function fieldsOf(random: Random, side: 'client' | 'server'): [string, string][] {
  const fields: [string, string][] =
    side === 'client'
      ? [
          [':method', random(3) === 0 ? 'POST' : 'GET'],
          [':scheme', 'http'],
          [':authority', 'a'],
          [':path', `/${random(100)}`],
        ]
      : [[':status', ['200', '204', '304', '100', '503'][random(5)] ?? '200']];
  // Trailers, or a head without its beginning.
  if (random(4) === 0) fields.splice(0, 4);
  if (random(4) === 0) fields.push(['content-length', String(random(50))]);
  if (random(4) === 0) fields.push(['x-long', 'x'.repeat(random(300))]);
  if (random(20) === 0) fields.push(['Connection', 'close']);
  return fields;
}

function validFrame(random: Random, encoder: HpackEncoder, side: 'client' | 'server'): Buffer {
  const stream = 1 + 2 * random(8);
  switch (random(8)) {
    case 0:
    case 1:
    case 2:
      return Buffer.from(headerFrames(stream, encoder.encode(fieldsOf(random, side)), random(3) === 0, 1 + random(200)));
    case 3:
    case 4:
      return frame(FrameType.DATA, random(3) === 0 ? Flag.END_STREAM : 0, stream, Buffer.alloc(random(60)));
    case 5:
      return windowUpdateFrame(random(2) * stream, 1 + random(100_000));
    case 6:
      return random(3) === 0 ? settingsFrame([[1 + random(6), 16_384 + random(50_000)]]) : rstStreamFrame(stream, random(14));
    default:
      return random(8) === 0
        ? goawayFrame(random(9), random(14))
        : frame(random(12), random(256), random(8), Buffer.alloc(random(20), random(256)));
  }
}

function mutate(bytes: Buffer, random: Random): Buffer {
  let out = Buffer.from(bytes);
  for (let n = random(5); n > 0 && out.length > 0; n--) {
    const at = random(out.length);
    const kind = random(3);
    if (kind === 0) out[at] = random(256);
    else if (kind === 1) out[at] = (out[at] ?? 0) ^ (1 << random(8));
    else out = Buffer.concat([out.subarray(0, at), out.subarray(at + random(20))]);
  }
  return out;
}

/** One connection's life. @throws what it should not */
export async function fuzzOnce(seed: number): Promise<void> {
  const random = randomOf(seed);
  const side = random(2) === 0 ? 'client' : 'server';
  const pipe = new MemoryPipe();
  const clock = new FakeClock();
  let closed = 0;
  let asked = 0;
  let told = 0;
  let fault: ProxyError | undefined;
  const onClose = (error?: ProxyError): void => {
    closed++;
    if (error?.message.startsWith('INTERNAL_ERROR')) fault = error;
  };
  const options = { limits: { ...defaultHttpLimits, maxConcurrentStreams: 6 }, clock, onClose };
  const client: HttpClientConnection | undefined = side === 'server' ? connectHttp2(pipe, options) : undefined;
  const connection: Pick<HttpServerConnection, 'destroy' | 'drain' | 'openExchanges'> =
    client ??
    serveHttp2(pipe, {
      ...options,
      onExchange(exchange) {
        exchange.onClientGone(() => {});
        const kind = random(4);
        if (kind === 0) echo(exchange);
        else if (kind === 1) exchange.body.into(new Collector());
        else if (kind === 2)
          new GivenBody(['x'.repeat(random(200_000))]).into(exchange.respond({ status: 200, fields: [], bodyBytes: undefined }, undefined));
        else setImmediate(() => echo(exchange));
      },
    });
  await settle(1);
  if (client) {
    for (let i = 0; i < 6; i++) {
      const source = new GivenBody(['x'.repeat(random(100_000))]);
      asked++;
      const exchange = client.request(
        requestHead({ method: random(3) === 0 ? 'HEAD' : 'POST', bodyBytes: random(3) === 0 ? 0 : undefined }),
        source,
        {
          informational() {},
          response(_, body) {
            told++;
            body.into(new Collector());
            if (random(6) === 0) body.cancel();
          },
          failed: () => void told++,
        },
      );
      source.into(exchange.body);
    }
  }
  const encoder = new HpackEncoder();
  const frames = [side === 'client' ? CONNECTION_PREFACE : Buffer.alloc(0), settingsFrame([])];
  for (let n = random(40); n > 0; n--) frames.push(validFrame(random, encoder, side));
  const bytes = random(3) === 0 ? Buffer.concat(frames) : mutate(Buffer.concat(frames), random);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random(random(2) === 0 ? 5000 : 50);
    pipe.feed(bytes.subarray(at, at + size));
    at += size;
    if (random(6) === 0) await settle(1);
  }
  await settle(2);
  const end = random(4);
  if (end < 2) pipe.feedEnd();
  else if (end === 2) connection.drain();
  await settle(2);
  connection.destroy();
  await settle(2);
  await clock.advance(2_000);
  if (fault) throw fault;
  if (closed !== 1) throw new Error(`closed ${closed} times`);
  if (connection.openExchanges !== 0) throw new Error(`${connection.openExchanges} streams are left`);
  if (told !== asked) throw new Error(`${asked} requests, told of ${told}`);
  if (clock.pending !== 0) throw new Error(`${clock.pending} timers are left`);
}

await runAsProgram(import.meta.url, fuzzOnce);
