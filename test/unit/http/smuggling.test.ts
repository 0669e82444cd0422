/** Requests that two readers could understand in two ways: each is refused, closes its connection, and never becomes an exchange. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { BAD_BODIES, BAD_HEADS, getOf as get, HOST as H, postOf as post, SMUGGLED } from '../../support/desync-corpus.ts';
import { Collector, served } from '../../support/http-ends.ts';
import { settle } from '../../support/tunnels.ts';

const CHUNK_SIZES = [1, 2, 3, 7, 64, 100_000];

function feed(bytes: string, chunk: number, into: { feed(bytes: string): void }): void {
  for (let at = 0; at < bytes.length; at += chunk) into.feed(bytes.slice(at, at + chunk));
}

for (const [name, status, request] of BAD_HEADS) {
  test(`${name}: ${status === 0 ? 'one request' : status}`, async () => {
    for (const chunk of CHUNK_SIZES) {
      const { pipe, exchanges, ended } = served(serveHttp1);
      await settle(1);
      feed(request + (status === 0 ? '' : SMUGGLED), chunk, pipe);
      await settle(1);
      if (status === 0) {
        assert.equal(exchanges.length, 1);
        continue;
      }
      assert.equal(exchanges.length, 0, `an exchange at chunk size ${chunk}`);
      assert.match(pipe.text, new RegExp(`^HTTP/1.1 ${status} [\\s\\S]*\r\nconnection: close\r\n\r\n`), `chunk size ${chunk}`);
      assert.equal(pipe.text.match(/HTTP\/1\.1/g)?.length, 1);
      assert.ok(pipe.outputEnded);
      pipe.feedEnd();
      await settle(1);
      assert.equal(ended[0]?.error?.code, 'BAD_REQUEST');
    }
  });
}

for (const [name, body] of BAD_BODIES) {
  test(`${name}: the body fails, and nothing behind it is read`, async () => {
    for (const chunk of CHUNK_SIZES) {
      const sink = new Collector();
      const { pipe, exchanges } = served(serveHttp1, (exchange) => exchange.body.into(sink));
      await settle(1);
      feed(post('Transfer-Encoding: chunked\r\n', body) + SMUGGLED, chunk, pipe);
      await settle(1);
      assert.equal(exchanges.length, 1);
      assert.equal(sink.error?.code, 'BAD_REQUEST', `chunk size ${chunk}`);
      assert.match(pipe.text, /^HTTP\/1\.1 400 /);
      assert.ok(pipe.outputEnded);
    }
  });
}

test('a start line, fields, and a number of fields beyond the limits get 414 and 431', async () => {
  const cases: [number, string][] = [
    [414, `GET /${'a'.repeat(600)} HTTP/1.1\r\n${H}\r\n`],
    [414, `GET /${'a'.repeat(5000)}`],
    [431, get(`${H}A: ${'b'.repeat(1200)}\r\n`)],
    [431, `GET / HTTP/1.1\r\n${H}A: ${'b'.repeat(5000)}`],
    [431, get(H + 'a: b\r\n'.repeat(10))],
  ];
  for (const [status, request] of cases) {
    for (const chunk of [1, 64, 100_000]) {
      const { pipe, exchanges } = served(serveHttp1, undefined, { maxStartLine: 512, maxFields: 1024, maxFieldCount: 10 });
      await settle(1);
      feed(request, chunk, pipe);
      await settle(1);
      assert.equal(exchanges.length, 0);
      assert.match(pipe.text, new RegExp(`^HTTP/1.1 ${status} `), `${request.slice(0, 20)} at ${chunk}`);
      assert.ok(pipe.outputEnded);
    }
  }
});
