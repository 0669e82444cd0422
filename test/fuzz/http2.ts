/**
 * Throws mutated HTTP/2 at our server and our client until the time is over: nothing may be thrown, hang, be left behind, or take memory
 * beyond its limits. `node test/fuzz/http2.ts [SECONDS] [SEED]`; a failure prints the seed of its case, which is a SEED.
 */
import {
  CONNECTION_PREFACE,
  Flag,
  FrameType,
  frame,
  goawayFrame,
  headerFrames,
  pingFrame,
  rstStreamFrame,
  settingsFrame,
  windowUpdateFrame,
} from '../../common/codec/http2/frames.ts';
import { HpackEncoder } from '../../common/codec/http2/hpack-encoder.ts';
import { HboneClient } from '../../common/hbone/client.ts';
import { lentReadBuffers } from '../../common/hbone/read-buffers.ts';
import { HboneServerConnection } from '../../common/hbone/server.ts';
import { duplexOf } from '../../common/hbone/stream-duplex.ts';
import { defaultClientLimits, defaultServerLimits } from '../../common/hbone/types.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type Random, randomOf } from '../support/seeded-random.ts';
import { memoryPair, settle } from '../support/tunnels.ts';
import { runAsProgram } from './campaign.ts';

function validFrame(random: Random, encoder: HpackEncoder, side: 'client' | 'server'): Buffer {
  const stream = 1 + 2 * random(6);
  switch (random(10)) {
    case 0:
    case 1: {
      const head: [string, string][] =
        side === 'client'
          ? [
              [':method', 'CONNECT'],
              [':authority', `10.0.0.${random(9)}:80`],
            ]
          : [[':status', random(4) === 0 ? '503' : '200']];
      return headerFrames(stream, encoder.encode([...head, ['baggage', 'x'.repeat(random(200))]]), random(5) === 0, 1 + random(100));
    }
    case 2:
    case 3:
    case 4:
      return frame(FrameType.DATA, random(4) === 0 ? Flag.END_STREAM : 0, stream, Buffer.alloc(random(3000), random(256)));
    case 5:
      return windowUpdateFrame(random(2) * stream, random(100_000));
    case 6:
      return rstStreamFrame(stream, random(14));
    case 7:
      return settingsFrame([[1 + random(6), random(2) === 0 ? random(100_000) : 16384 + random(1 << 20)]]);
    case 8:
      return pingFrame(Buffer.alloc(8, random(256)), random(2) === 0);
    default:
      return random(10) === 0
        ? goawayFrame(random(9), random(14))
        : frame(random(16), random(256), random(8), Buffer.alloc(random(20), random(256)));
  }
}

function mutate(bytes: Buffer, random: Random): Buffer {
  let out = Buffer.from(bytes);
  for (let n = random(6); n > 0 && out.length > 0; n--) {
    const at = random(out.length);
    const kind = random(4);
    if (kind === 0) out[at] = random(256);
    else if (kind === 1) out[at] = (out[at] ?? 0) ^ (1 << random(8));
    else if (kind === 2) out = Buffer.concat([out.subarray(0, at), out.subarray(at + random(20))]);
    else out = Buffer.concat([out.subarray(0, at), out.subarray(Math.max(0, at - random(40)), at), out.subarray(at)]);
  }
  return out;
}

/** One connection's life. @throws what it should not */
export async function fuzzOnce(seed: number): Promise<void> {
  const random = randomOf(seed);
  const side = random(2) === 0 ? 'client' : 'server';
  const clock = new FakeClock();
  const [near, far] = memoryPair();
  let closed = 0;
  const onClose = (): void => void closed++;
  let destroy: () => void;
  let open: () => number;
  if (side === 'client') {
    const server = new HboneServerConnection(far, {
      clock,
      limits: defaultServerLimits,
      onClose,
      onConnect: (request) => {
        if (random(4) === 0) return request.refuse(401, []);
        const stream = duplexOf(request.accept([['baggage', 'a=b']]));
        stream.on('error', () => {});
        if (random(3) > 0) stream.pipe(stream);
      },
    });
    destroy = () => server.destroy();
    open = () => server.openStreams;
  } else {
    const client = new HboneClient(far, { clock, limits: defaultClientLimits, onClose });
    for (let i = 0; i < 6; i++) {
      client.connect({ authority: '10.0.0.1:80', headers: [] }).then(
        (pipe) =>
          duplexOf(pipe)
            .on('error', () => {})
            .on('data', () => {})
            .end(Buffer.alloc(random(100_000))),
        () => {},
      );
    }
    destroy = () => client.destroy();
    open = () => client.openStreams;
  }
  near.on('data', () => {}).on('error', () => {});
  const encoder = new HpackEncoder();
  const frames = [side === 'client' ? CONNECTION_PREFACE : Buffer.alloc(0), settingsFrame([])];
  for (let n = random(40); n > 0; n--) frames.push(validFrame(random, encoder, side));
  const bytes = random(5) === 0 ? Buffer.concat(frames) : mutate(Buffer.concat(frames), random);
  for (let at = 0; at < bytes.length; ) {
    const size = 1 + random(random(2) === 0 ? 5000 : 50);
    near.write(bytes.subarray(at, at + size));
    at += size;
    if (random(4) === 0) await settle(1);
  }
  await settle(3);
  if (random(2) === 0) near.destroy();
  else destroy();
  await settle(4);
  await clock.advance(2_000);
  if (closed !== 1) throw new Error(`closed ${closed} times`);
  if (open() !== 0) throw new Error(`${open()} streams are left`);
  if (clock.pending !== 0) throw new Error(`${clock.pending} timers are left`);
  if (lentReadBuffers() !== 0) throw new Error(`${lentReadBuffers()} read buffers are left`);
}

await runAsProgram(import.meta.url, fuzzOnce);
