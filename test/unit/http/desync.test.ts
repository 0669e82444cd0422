/**
 * What we send on is understood by those behind us as we understood it: each message of the corpus goes through a proxy of ours, and Node's
 * parser reads what comes out, whole requests and broken off ones alike.
 */
import assert from 'node:assert/strict';
import http from 'node:http';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import { connectHttp1 } from '../../../common/http/http1-client.ts';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { serveHttp2 } from '../../../common/http/http2-server.ts';
import type { BodySink, Fields, ServerExchange } from '../../../common/http/types.ts';
import {
  BAD_BODIES,
  BAD_HEADS,
  HTTP2_REQUESTS,
  LYING_RESPONSES,
  ODD_REQUESTS,
  postOf,
  SMUGGLED,
  SOUND_RESPONSES,
} from '../../support/desync-corpus.ts';
import { type ConnectedPipe, connected, proxyTo, served } from '../../support/http-ends.ts';
import { settle } from '../../support/tunnels.ts';

interface Request {
  readonly method: string;
  readonly path: string;
  readonly host: string;
  readonly body: string;
}

/** A connection to somebody behind us, and the whole requests that we believe to have sent on it. */
interface Behind {
  readonly upstream: ConnectedPipe;
  readonly whole: Request[];
  /** Of them, those that were taken back at once: they may have left or not. */
  readonly takenBack: Set<Request>;
}

const RESPONSE = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';

/** Sends an exchange on, over a connection that is free, and answers it when it is whole. */
function forwardTo(behind: Behind[]): (exchange: ServerExchange) => void {
  return (exchange) => {
    let to = behind.find(({ upstream }) => upstream.connection.usable);
    if (!to) {
      to = { upstream: connected(connectHttp1), whole: [], takenBack: new Set() };
      behind.push(to);
    }
    const { upstream, whole, takenBack } = to;
    const { method, path, authority, upgrade, bodyBytes } = exchange.head;
    let body = '';
    let answered = false;
    let request: Request | undefined;
    const done = (): void => {
      request = { method, path, host: authority, body };
      whole.push(request);
      queueMicrotask(() => upstream.pipe.feed(RESPONSE));
    };
    const bodiless = bodyBytes === 0 && upgrade === undefined;
    const sent = upstream.connection.request(exchange.head, bodiless ? undefined : exchange.body, {
      informational: (head) => exchange.inform(head),
      response(head, source) {
        answered = true;
        source.into(exchange.respond(head, source));
      },
      failed: (error) => exchange.abort(error),
    });
    exchange.onClientGone((error) => {
      if (request && !answered) takenBack.add(request);
      sent.abort(error);
    });
    if (bodiless || upgrade !== undefined) {
      done();
      return;
    }
    const tee: BodySink = {
      data(chunk) {
        body += chunk.toString('latin1');
        return sent.body.data(chunk);
      },
      end(trailers: Fields | undefined) {
        sent.body.end(trailers);
        done();
      },
      abort: (error) => sent.body.abort(error),
    };
    exchange.body.into(tee);
  };
}

/** Whole requests, as Node's parser finds them. */
async function asNodeReads(bytes: Buffer): Promise<Request[]> {
  const seen: Request[] = [];
  const server = http.createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      seen.push({ method, path: url, host: headers.host ?? '', body: Buffer.concat(chunks).toString('latin1') });
      response.end();
    });
    request.on('error', () => undefined);
  });
  server.on('clientError', (_error, socket) => socket.destroy());
  const [near, far] = duplexPair();
  near.on('error', () => undefined).resume();
  server.emit('connection', far);
  near.end(bytes);
  await settle(20);
  near.destroy();
  return seen;
}

async function through(serve: typeof serveHttp1, bytes: Buffer, chunk: number): Promise<{ behind: Behind[]; text: string }> {
  const behind: Behind[] = [];
  const front = served(serve, forwardTo(behind));
  await settle(1);
  for (let at = 0; at < bytes.length; at += chunk) front.pipe.feed(bytes.subarray(at, at + chunk));
  await settle(5);
  front.pipe.feedEnd();
  await settle(5);
  front.connection.destroy();
  return { behind, text: front.pipe.text };
}

async function agreed(serve: typeof serveHttp1, bytes: Buffer, chunk: number): Promise<Request[]> {
  const { behind } = await through(serve, bytes, chunk);
  for (const { upstream, whole, takenBack } of behind) {
    const read = await asNodeReads(Buffer.concat(upstream.pipe.output));
    const certain = whole.filter((request) => !takenBack.has(request));
    assert.deepEqual(read, read.length === certain.length ? certain : whole);
  }
  return behind.flatMap(({ whole, takenBack }) => whole.filter((request) => !takenBack.has(request)));
}

const chunked = (body: string): string => postOf('Transfer-Encoding: chunked\r\n', body);
const HTTP1_ROWS: readonly (readonly [string, string])[] = [
  ...BAD_HEADS.map(([name, , request]) => [name, request + SMUGGLED] as const),
  ...BAD_BODIES.map(([name, body]) => [name, chunked(body) + SMUGGLED] as const),
  ...ODD_REQUESTS,
];

test('HTTP/1.1 that could be understood in two ways is understood behind us as it was by us', async () => {
  for (const [name, text] of HTTP1_ROWS) {
    const bytes = Buffer.from(text, 'latin1');
    const whole = await agreed(serveHttp1, bytes, bytes.length).catch((error: unknown) => assert.fail(`${name}: ${error}`));
    assert.deepEqual(await agreed(serveHttp1, bytes, 7), whole, `${name}, in pieces`);
    for (const { path, host } of whole) if (path === '/smuggled') assert.equal(host, 'a', name);
  }
});

test('what is refused is not sent on, and a request that hides in a body stays there', async () => {
  const hidden = [...BAD_HEADS.filter(([, status]) => status !== 0).map(([name, , request]) => [name, request + SMUGGLED] as const)];
  for (const [name, text] of hidden) assert.deepEqual(await agreed(serveHttp1, Buffer.from(text, 'latin1'), 100_000), [], name);
  for (const [name, text] of ODD_REQUESTS) {
    if (!text.includes(SMUGGLED)) continue;
    const whole = await agreed(serveHttp1, Buffer.from(text, 'latin1'), 100_000);
    assert.ok(
      whole.every(({ path }) => path !== '/smuggled'),
      name,
    );
  }
});

test('HTTP/2 that could be understood in two ways as HTTP/1.1 is refused, or understood behind us as it was by us', async () => {
  for (const [name, bytes] of HTTP2_REQUESTS) {
    const whole = await agreed(serveHttp2, bytes, 100_000).catch((error: unknown) => assert.fail(`${name}: ${error}`));
    assert.ok(
      whole.every(({ path }) => path !== '/smuggled'),
      name,
    );
    if (/^H2\.|in the (?:name|value|path|method|authority)|bare|NUL/.test(name)) assert.deepEqual(whole, [], name);
  }
});

test('floods end their connection', async () => {
  for (const [name, bytes] of HTTP2_REQUESTS) {
    if (!/flood|rapid|without end/.test(name)) continue;
    const front = served(serveHttp2, forwardTo([]));
    await settle(1);
    front.pipe.feed(bytes);
    await settle(2);
    assert.ok(front.pipe.outputEnded || front.pipe.closed, name);
    front.connection.destroy();
  }
});

/** A client's connection, and one to an upstream that it is sent on to. */
async function asking(): Promise<{ front: ReturnType<typeof served>; upstream: ConnectedPipe }> {
  const upstream = connected(connectHttp1);
  const front = served(
    serveHttp1,
    proxyTo(() => upstream.connection),
  );
  await settle(1);
  front.pipe.feed('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
  await settle(1);
  return { front, upstream };
}

test('an upstream that stalls, ends or resets at any byte never makes a response that looks whole', async () => {
  for (const [name, text, body] of SOUND_RESPONSES) {
    for (let cut = 0; cut <= text.length; cut++) {
      for (const how of ['stalls', 'ends', 'resets'] as const) {
        const { front, upstream } = await asking();
        upstream.pipe.feed(text.slice(0, cut));
        await settle(1);
        if (how === 'ends') upstream.pipe.feedEnd();
        if (how === 'resets') upstream.pipe.lose();
        await settle(1);
        const about = `${name}, ${how} after ${cut} of ${text.length} bytes`;
        if (cut === text.length) {
          assert.equal(wholeBody(front.pipe.text), body, about);
        } else {
          assert.equal(wholeBody(front.pipe.text), undefined, about);
          assert.equal(front.pipe.destroyedFor !== undefined, how !== 'stalls', about);
        }
        front.connection.destroy();
        upstream.connection.destroy();
      }
    }
  }
});

test('an upstream that lies never makes a response that looks whole', async () => {
  for (const [name, text] of LYING_RESPONSES) {
    const { front, upstream } = await asking();
    upstream.pipe.feed(text);
    await settle(2);
    assert.equal(wholeBody(front.pipe.text), undefined, name);
    assert.ok(front.pipe.destroyedFor, name);
    assert.equal(upstream.connection.usable, false, name);
  }
});

/** The body of a whole response; undefined where there is none. */
function wholeBody(text: string): string | undefined {
  const end = text.indexOf('\r\n\r\n') + 4;
  if (end < 4) return undefined;
  const [head, rest] = [text.slice(0, end), text.slice(end)];
  if (/^HTTP\/1\.1 1\d\d /.test(head)) return wholeBody(rest);
  const length = /\r\ncontent-length: (\d+)\r\n/.exec(head)?.[1];
  if (length !== undefined) return rest.length === Number(length) ? rest : undefined;
  let [body, left] = ['', rest];
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

test('the corpus has messages of every class that was published', () => {
  const requests = [...HTTP1_ROWS, ...HTTP2_REQUESTS].map(([name]) => name);
  const has = (where: readonly string[], pattern: RegExp): boolean => where.some((name) => pattern.test(name));
  for (const [what, pattern] of [
    ['CL.TE', /CL\.TE/],
    ['TE.CL', /TE\.CL/],
    ['TE.TE', /TE\.TE/],
    ['H2.CL', /^H2\.CL/],
    ['H2.TE', /^H2\.TE/],
    ['CL.0', /^CL\.0/],
    ['bare CR', /bare CR/],
    ['bare LF', /bare LF/],
    ['a header with a space', /space before the colon/],
    ['a folded header', /folded/],
    ['two Hosts', /^two Hosts/],
    ['an absolute target for another host', /absolute target for somebody else/],
    ['tunnelling through an upgrade', /upgrade that nobody makes/],
    ['tunnelling through h2c', /upgrade to h2c/],
    ['tunnelling through a WebSocket that is none', /websocket of a version/],
    ['tunnelling through CONNECT', /tunnel to a protocol/],
    ['chunk sizes', /chunk size/],
    ['chunk extensions', /extension/],
    ['invalid UTF-8', /invalid UTF-8/],
    ['percent-encodings', /percent/],
    ['rapid reset', /rapid reset/],
    ['CONTINUATION', /CONTINUATION/],
    ['settings', /flood of SETTINGS/],
    ['what has no end', /never ends?|without end/],
  ] as const)
    assert.ok(has(requests, pattern), what);
  assert.ok(LYING_RESPONSES.length > 10 && SOUND_RESPONSES.length >= 3);
});
