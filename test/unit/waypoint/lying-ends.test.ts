/**
 * Backends and callers that stall, end, reset or lie at every byte, through the whole pipeline between real connections: what the other end gets is
 * right, or says what went wrong, or can be seen to be cut short; and a connection that is in doubt is used no more.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FrameDecoder } from '../../../common/codec/http2/frame-decoder.ts';
import {
  CONNECTION_PREFACE,
  Flag,
  FrameType,
  frame,
  headerFrames,
  settingsAckFrame,
  settingsFrame,
} from '../../../common/codec/http2/frames.ts';
import { HpackDecoder } from '../../../common/codec/http2/hpack-decoder.ts';
import { HpackEncoder } from '../../../common/codec/http2/hpack-encoder.ts';
import { connectHttp1 } from '../../../common/http/http1-client.ts';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { connectHttp2 } from '../../../common/http/http2-client.ts';
import { serveHttp2 } from '../../../common/http/http2-server.ts';
import { SOUND_RESPONSES } from '../../support/desync-corpus.ts';
import { FrameRecorder, generousDecoder } from '../../support/frame-recorder.ts';
import { type ConnectedPipe, connected, type ServedPipe, served } from '../../support/http-ends.ts';
import { settle } from '../../support/tunnels.ts';
import { type PipelineWorld, pipelineWorld } from '../../support/waypoint-fakes.ts';

type Version = 'http1' | 'http2';
const HOST = 'orders.shop.svc.cluster.local';
const TIMEOUT_MS = 1000;
const CONFIG = `
routes:
- {namespace: shop, hostname: ${HOST}, ports: [{port: 80, table: [{rule: 0}], rules: [{name: r, requestTimeoutMs: ${TIMEOUT_MS}, backends: [{to: {namespace: shop, hostname: ${HOST}, port: 80}}]}]}]}`;

interface Ends {
  readonly world: PipelineWorld;
  readonly front: ServedPipe;
  readonly upstreams: ConnectedPipe[];
}

/** A caller's connection, and connections to backends that are kept while they can be used. */
function ends(caller: Version, backend: Version): Ends {
  const upstreams: ConnectedPipe[] = [];
  const world = pipelineWorld(() => undefined, CONFIG, {
    upstreams: {
      ready: () => upstreams.find(({ connection }) => connection.usable && connection.openExchanges === 0)?.connection,
      open() {
        const upstream = connected(backend === 'http1' ? connectHttp1 : connectHttp2);
        upstreams.push(upstream);
        return Promise.resolve(upstream.connection);
      },
    },
  });
  return { world, front: served(caller === 'http1' ? serveHttp1 : serveHttp2, world.serve), upstreams };
}

type How = 'stalls' | 'ends' | 'resets';

function stop({ pipe }: { pipe: ConnectedPipe['pipe'] }, how: How): void {
  if (how === 'ends') pipe.feedEnd();
  if (how === 'resets') pipe.lose();
}

/** What the caller has in its hands when everything is over. */
type Outcome = { at: 'whole'; status: number; body: string; refusal: string } | { at: 'cut' } | { at: 'open' };

function outcomeOf({ pipe }: ServedPipe, caller: Version): Outcome {
  const whole = caller === 'http1' ? http1Answer(pipe.text) : http2Answer(Buffer.concat(pipe.output));
  if (whole === 'reset') return { at: 'cut' };
  if (whole) return { at: 'whole', ...whole };
  return { at: pipe.closed || pipe.outputEnded ? 'cut' : 'open' };
}

interface Answered {
  readonly status: number;
  readonly body: string;
  readonly refusal: string;
}

function http1Answer(text: string): Answered | undefined {
  const end = text.indexOf('\r\n\r\n') + 4;
  if (end < 4) return undefined;
  const [head, rest] = [text.slice(0, end), text.slice(end)];
  const status = Number(head.slice(9, 12));
  if (status < 200) return http1Answer(rest);
  const refusal = /\r\nx-warren-refusal: code=(\w+)/.exec(head)?.[1] ?? '';
  const length = /\r\ncontent-length: (\d+)\r\n/.exec(head)?.[1];
  if (length !== undefined) return rest.length === Number(length) ? { status, body: rest, refusal } : undefined;
  const body = http1Chunks(rest);
  return body === undefined ? undefined : { status, body, refusal };
}

function http1Chunks(text: string): string | undefined {
  let [body, left] = ['', text];
  for (;;) {
    const [line, digits = '0'] = /^([0-9a-f]+)\r\n/.exec(left) ?? [];
    if (line === undefined) return undefined;
    const bytes = Number.parseInt(digits, 16);
    if (bytes === 0) return left.endsWith('\r\n\r\n') ? body : undefined;
    if (left.length < line.length + bytes + 2) return undefined;
    body += left.slice(line.length, line.length + bytes);
    left = left.slice(line.length + bytes + 2);
  }
}

/** Of stream 1. */
function http2Answer(bytes: Buffer): Answered | 'reset' | undefined {
  const recorder = new FrameRecorder();
  new FrameDecoder(generousDecoder, recorder).push(bytes);
  const hpack = new HpackDecoder(65_536);
  let [status, refusal, body] = [0, '', ''];
  for (const event of recorder.events) {
    const [, kind, hex = '', flags = ''] = /^(headers|data|rst) 1(?: of \d+)?:? ?(\w*)(.*)$/.exec(event) ?? [];
    if (kind === 'rst') return 'reset';
    if (kind === 'headers') {
      for (const [name, value] of hpack.decode(Buffer.from(hex, 'hex')).fields) {
        if (name === ':status' && Number(value) >= 200) status = Number(value);
        if (name === 'x-warren-refusal') refusal = /code=(\w+)/.exec(value)?.[1] ?? '';
      }
    }
    if (kind === 'data') body += Buffer.from(hex, 'hex').toString('latin1');
    if (kind !== undefined && flags.endsWith(' end')) return { status, body, refusal };
  }
  return undefined;
}

const encoded = (fields: readonly (readonly [string, string])[], endStream: boolean, stream = 1): Buffer =>
  headerFrames(stream, new HpackEncoder().encode(fields.map(([name, value]): [string, string] => [name, value])), endStream, 16_384);
const data = (text: string, endStream: boolean): Buffer => frame(FrameType.DATA, endStream ? Flag.END_STREAM : 0, 1, Buffer.from(text));

const asking = (caller: Version, path = '/'): Buffer =>
  caller === 'http1'
    ? Buffer.from(`GET ${path} HTTP/1.1\r\nHost: orders\r\n\r\n`)
    : Buffer.concat([
        CONNECTION_PREFACE,
        settingsFrame([]),
        encoded(
          [
            [':method', 'GET'],
            [':scheme', 'http'],
            [':authority', 'orders'],
            [':path', path],
          ],
          true,
        ),
      ]);

const START = Buffer.concat([settingsFrame([]), settingsAckFrame()]);
const RESPONSES: Readonly<Record<Version, readonly (readonly [name: string, bytes: Buffer, body: string])[]>> = {
  http1: SOUND_RESPONSES.map(([name, text, body]) => [name, Buffer.from(text, 'latin1'), body]),
  http2: [
    [
      'a length',
      Buffer.concat([
        START,
        encoded(
          [
            [':status', '200'],
            ['content-length', '11'],
          ],
          false,
        ),
        data('hello ', false),
        data('world', true),
      ]),
      'hello world',
    ],
    ['trailers', Buffer.concat([START, encoded([[':status', '200']], false), data('hello', false), encoded([['x', 'y']], true)]), 'hello'],
  ],
};

const REASONS: Readonly<Record<How, RegExp>> = {
  stalls: /^REQUEST_TIMEOUT$/,
  ends: /^(?:CONNECTION_LOST|UPSTREAM_PROTOCOL|UPSTREAM_CONNECT|HTTP2_FAILURE|BACKEND_INVALID|REQUEST_TIMEOUT)$/,
  resets: /^(?:CONNECTION_LOST|UPSTREAM_PROTOCOL|UPSTREAM_CONNECT|HTTP2_FAILURE|BACKEND_INVALID|REQUEST_TIMEOUT)$/,
};

for (const [caller, backend] of [
  ['http1', 'http1'],
  ['http2', 'http1'],
  ['http2', 'http2'],
] as const) {
  test(`a backend of ${backend} that stalls, ends or resets at any byte: the caller of ${caller} gets its response, a reason, or a cut`, async () => {
    for (const [name, bytes, body] of RESPONSES[backend]) {
      for (const how of ['stalls', 'ends', 'resets'] as const) {
        for (let cut = 0; cut <= bytes.length; cut++) {
          const about = `${name}, ${how} after ${cut} of ${bytes.length} bytes`;
          const { world, front, upstreams } = ends(caller, backend);
          await settle(1);
          front.pipe.feed(asking(caller));
          let spoken = 0;
          // Whoever is asked again says the same.
          for (let turn = 0; turn < 8; turn++) {
            await settle(1);
            for (; spoken < upstreams.length; spoken++) {
              const upstream = upstreams[spoken];
              if (!upstream) continue;
              upstream.pipe.feed(bytes.subarray(0, cut));
              await settle(1);
              stop(upstream, how);
            }
            world.clock.advance(turn === 4 ? TIMEOUT_MS : 30);
          }
          const outcome = outcomeOf(front, caller);
          if (outcome.at === 'whole' && outcome.refusal === '') assert.deepEqual([outcome.status, outcome.body], [200, body], about);
          else if (outcome.at === 'whole') {
            assert.ok([502, 503, 504].includes(outcome.status), `${about}: ${outcome.status}`);
            assert.match(outcome.refusal, REASONS[how], about);
          } else assert.equal(outcome.at, 'cut', about);
          assert.equal(outcome.at === 'whole' && outcome.refusal === '', cut === bytes.length, about);
          // A stream of HTTP/2 that is given up leaves its connection as it was.
          if (cut < bytes.length && (how !== 'stalls' || backend === 'http1'))
            assert.ok(
              upstreams.every(({ connection }) => !connection.usable),
              `${about}: used again`,
            );
          front.connection.destroy();
          for (const { connection } of upstreams) connection.destroy();
        }
      }
    }
  });
}

const LIES = ['\r', '\n', ' ', '0', '9', 'a', '\xff'];

test('a backend that lies in any byte: the next response on that connection is never the rest of this one', async () => {
  for (const [name, bytes] of RESPONSES.http1) {
    for (let at = 0; at < bytes.length; at++) {
      for (const lie of LIES) {
        const about = `${name}, byte ${at} is ${JSON.stringify(lie)}`;
        const { world, front, upstreams } = ends('http1', 'http1');
        await settle(1);
        front.pipe.feed(asking('http1', '/first'));
        await settle(1);
        const lying = Buffer.from(bytes);
        lying[at] = lie.charCodeAt(0);
        upstreams[0]?.pipe.feed(lying);
        await settle(1);
        const first = outcomeOf(front, 'http1');
        const before = front.pipe.text.length;
        if (first.at === 'whole' && !front.pipe.closed && !front.pipe.outputEnded) {
          front.pipe.feed(asking('http1', '/second'));
          await settle(1);
          const asked = upstreams.find(({ pipe }) => pipe.text.includes('GET /second'));
          asked?.pipe.feed('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond');
          await settle(1);
          const second = http1Answer(front.pipe.text.slice(before));
          assert.ok(second === undefined || second.refusal !== '' || second.body === 'second', `${about}: ${front.pipe.text}`);
        } else {
          for (let turn = 0; turn < 3; turn++) {
            for (const upstream of upstreams) upstream.pipe.feedEnd();
            world.clock.advance(TIMEOUT_MS);
            await settle(1);
          }
          assert.notEqual(outcomeOf(front, 'http1').at, 'open', about);
        }
        front.connection.destroy();
        for (const { connection } of upstreams) connection.destroy();
      }
    }
  }
});

const REQUESTS: Readonly<Record<Version, readonly (readonly [name: string, bytes: Buffer])[]>> = {
  http1: [
    ['a length', Buffer.from('POST /p HTTP/1.1\r\nHost: orders\r\nContent-Length: 11\r\n\r\nhello world')],
    [
      'chunks',
      Buffer.from('POST /p HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nT: u\r\n\r\n'),
    ],
  ],
  http2: [
    [
      'a length',
      Buffer.concat([
        CONNECTION_PREFACE,
        settingsFrame([]),
        encoded(
          [
            [':method', 'POST'],
            [':scheme', 'http'],
            [':authority', 'orders'],
            [':path', '/p'],
            ['content-length', '11'],
          ],
          false,
        ),
        data('hello ', false),
        data('world', true),
      ]),
    ],
  ],
};

/** The body of a whole request, as a backend of HTTP/1.1 reads it. */
function wholeRequest(text: string): string | undefined {
  const end = text.indexOf('\r\n\r\n') + 4;
  if (end < 4) return undefined;
  const length = /\r\ncontent-length: (\d+)\r\n/i.exec(text)?.[1];
  const rest = text.slice(end);
  if (length !== undefined) return rest.length === Number(length) ? rest : undefined;
  return http1Chunks(rest);
}

for (const caller of ['http1', 'http2'] as const) {
  test(`a caller of ${caller} that stalls, ends or resets at any byte never makes a request that looks whole to a backend`, async () => {
    for (const [name, bytes] of REQUESTS[caller]) {
      for (const how of ['stalls', 'ends', 'resets'] as const) {
        for (let cut = 0; cut <= bytes.length; cut++) {
          const about = `${name}, ${how} after ${cut} of ${bytes.length} bytes`;
          const { world, front, upstreams } = ends(caller, 'http1');
          await settle(1);
          front.pipe.feed(bytes.subarray(0, cut));
          await settle(2);
          stop(front, how);
          for (let turn = 0; turn < 3; turn++) {
            world.clock.advance(TIMEOUT_MS);
            front.clock.advance(20_000);
            await settle(1);
          }
          const whole = upstreams.map(({ pipe }) => wholeRequest(pipe.text)).filter((body) => body !== undefined);
          if (cut < bytes.length) assert.deepEqual(whole, [], about);
          else if (how === 'stalls') assert.ok(whole.every((body) => body === 'hello world') && whole.length > 0, about);
          if (cut > 0 && cut < bytes.length)
            assert.ok(
              upstreams.every(({ connection }) => !connection.usable),
              `${about}: used again`,
            );
          front.connection.destroy();
          for (const { connection } of upstreams) connection.destroy();
        }
      }
    }
  });
}
