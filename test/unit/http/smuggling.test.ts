/** Requests that two readers could understand in two ways: each is refused, closes its connection, and never becomes an exchange. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serveHttp1 } from '../../../common/http/http1-server.ts';
import { Collector, served } from '../../support/http-ends.ts';
import { settle } from '../../support/tunnels.ts';

const H = 'Host: a\r\n';
const get = (lines: string): string => `GET / HTTP/1.1\r\n${lines}\r\n`;
const post = (lines: string, body = ''): string => `POST / HTTP/1.1\r\n${H}${lines}\r\n${body}`;
const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';

const HEADS: readonly (readonly [name: string, status: number, request: string])[] = [
  [
    'Content-Length and Transfer-Encoding (CL.TE)',
    400,
    post('Content-Length: 6\r\nTransfer-Encoding: chunked\r\n', `0\r\n\r\n${SMUGGLED}`),
  ],
  ['Transfer-Encoding and Content-Length (TE.CL)', 400, post('Transfer-Encoding: chunked\r\nContent-Length: 3\r\n', `1\r\nZ\r\n0\r\n\r\n`)],
  ['two Transfer-Encodings (TE.TE)', 400, post('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n')],
  ['two Transfer-Encodings, both chunked', 400, post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['chunked twice in a list', 400, post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')],
  ['identity', 400, post('Transfer-Encoding: identity\r\n')],
  ['xchunked', 400, post('Transfer-Encoding: xchunked\r\n')],
  ['quoted chunked', 400, post('Transfer-Encoding: "chunked"\r\n')],
  ['chunked with a parameter', 400, post('Transfer-Encoding: chunked;q=1\r\n')],
  ['chunked that is not last', 400, post('Transfer-Encoding: chunked, gzip\r\n')],
  ['a coding that we do not know before chunked', 501, post('Transfer-Encoding: gzip, chunked\r\n')],
  ['an empty Transfer-Encoding', 400, post('Transfer-Encoding:\r\n')],
  ['a vertical tab before chunked', 400, post('Transfer-Encoding: \x0bchunked\r\n')],
  ['a space in the name', 400, post('Transfer Encoding: chunked\r\n')],
  ['a space before the colon', 400, post('Transfer-Encoding : chunked\r\n')],
  ['a tab before the colon', 400, post('Content-Length\t: 5\r\n', 'AAAAA')],
  ['a name that begins with a space', 400, post(' Transfer-Encoding: chunked\r\n')],
  ['a NUL in the name', 400, post('Transfer-Encoding\0: chunked\r\n')],
  ['an underscore is another field, so Content-Length counts alone', 0, post('Transfer_Encoding: chunked\r\nContent-Length: 0\r\n')],
  ['Transfer-Encoding in HTTP/1.0', 400, `POST / HTTP/1.0\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ['two Content-Lengths that differ', 400, post('Content-Length: 5\r\nContent-Length: 6\r\n', 'AAAAAA')],
  ['two Content-Lengths that agree', 400, post('Content-Length: 5\r\nContent-Length: 5\r\n', 'AAAAA')],
  ['a list of Content-Lengths', 400, post('Content-Length: 5, 5\r\n', 'AAAAA')],
  ['a Content-Length with a plus', 400, post('Content-Length: +5\r\n', 'AAAAA')],
  ['a negative Content-Length', 400, post('Content-Length: -5\r\n')],
  ['a Content-Length with a space inside', 400, post('Content-Length: 5 5\r\n')],
  ['a hexadecimal Content-Length', 400, post('Content-Length: 0x5\r\n', 'AAAAA')],
  ['a Content-Length with a fraction', 400, post('Content-Length: 5.0\r\n', 'AAAAA')],
  ['a Content-Length beyond all bounds', 400, post('Content-Length: 18446744073709551621\r\n', 'AAAAA')],
  ['an empty Content-Length', 400, post('Content-Length: \r\n')],
  ['a folded Content-Length', 400, post('Content-Length:\r\n 5\r\n', 'AAAAA')],
  ['a folded field', 400, get(`${H}A: b\r\n\tc\r\n`)],
  ['a fold before the first field', 400, `GET / HTTP/1.1\r\n ${H}\r\n`],
  ['a bare LF after the request line', 400, `GET / HTTP/1.1\n${H}\r\n`],
  ['bare LFs everywhere', 400, 'GET / HTTP/1.1\nHost: a\n\n'],
  ['a bare LF between fields', 400, get('Host: a\nB: c\r\n')],
  ['a bare CR between fields', 400, get('Host: a\rB: c\r\n')],
  ['a bare CR in a value', 400, get(`${H}A: b\rTransfer-Encoding: chunked\r\n`)],
  ['a bare CR in the request line', 400, `GET /\r HTTP/1.1\r\n${H}\r\n`],
  ['CR CR LF', 400, get(`${H}A: b\r\r\n`)],
  ['a NUL in a value', 400, get(`${H}A: b\0c\r\n`)],
  ['a control character in a value', 400, get(`${H}A: b\x01c\r\n`)],
  ['DEL in a value', 400, get(`${H}A: \x7f\r\n`)],
  ['a field without a colon', 400, get(`${H}garbage\r\n`)],
  ['a field without a name', 400, get(`${H}: b\r\n`)],
  ['a name with a bracket', 400, get(`${H}a[b]: c\r\n`)],
  ['a name beyond ASCII', 400, get(`${H}n\xe9: c\r\n`)],
  ['no Host', 400, get('A: b\r\n')],
  ['two Hosts', 400, get('Host: a\r\nHost: b\r\n')],
  ['two Hosts that agree', 400, get('Host: a\r\nHost: a\r\n')],
  ['an empty Host', 400, get('Host:\r\n')],
  ['a list of Hosts', 400, get('Host: a, b\r\n')],
  ['a Host with a user', 400, get('Host: u@a\r\n')],
  ['a Host with a path', 400, get('Host: a/b\r\n')],
  ['a Host with a space', 400, get('Host: a b\r\n')],
  ['a Host with a port that is none', 400, get('Host: a:99999\r\n')],
  ['a Host with two ports', 400, get('Host: a:80:90\r\n')],
  ['a Host with a colon and no port', 400, get('Host: a:\r\n')],
  ['an absolute target for somebody else', 400, `GET http://b/ HTTP/1.1\r\n${H}\r\n`],
  ['an absolute target with a user', 400, `GET http://u@a/ HTTP/1.1\r\n${H}\r\n`],
  ['an absolute target of another scheme', 400, `GET ftp://a/ HTTP/1.1\r\n${H}\r\n`],
  ['a target that is no path', 400, `GET a/b HTTP/1.1\r\n${H}\r\n`],
  ['a star for GET', 400, `GET * HTTP/1.1\r\n${H}\r\n`],
  ['a fragment', 400, `GET /a#b HTTP/1.1\r\n${H}\r\n`],
  ['a space in the target', 400, `GET /a b HTTP/1.1\r\n${H}\r\n`],
  ['a tab for a space', 400, `GET\t/ HTTP/1.1\r\n${H}\r\n`],
  ['two spaces', 400, `GET  / HTTP/1.1\r\n${H}\r\n`],
  ['a byte beyond ASCII in the target', 400, `GET /\xff HTTP/1.1\r\n${H}\r\n`],
  ['a space after the version', 400, `GET / HTTP/1.1 \r\n${H}\r\n`],
  ['no version', 400, `GET /\r\n${H}\r\n`],
  ['a version in lower case', 400, `GET / http/1.1\r\n${H}\r\n`],
  ['a version with two digits', 400, `GET / HTTP/1.10\r\n${H}\r\n`],
  ['HTTP/2.0', 505, `GET / HTTP/2.0\r\n${H}\r\n`],
  ['HTTP/0.9', 505, `GET / HTTP/0.9\r\n${H}\r\n`],
  ['the preface of HTTP/2', 505, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  ['CONNECT', 501, 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n'],
  ['a method that is no token', 400, `GE(T / HTTP/1.1\r\n${H}\r\n`],
  ['Connection that names Content-Length', 400, post('Connection: content-length\r\nContent-Length: 5\r\n', 'AAAAA')],
  ['Connection that names Host', 400, get(`${H}Connection: close, host\r\n`)],
  ['Connection that names Transfer-Encoding', 400, post('Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['an expectation that we do not know', 417, get(`${H}Expect: the-unexpected\r\n`)],
  ['TLS', 400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n'],
  ['three empty lines', 400, `\r\n\r\n\r\n${get(H)}`],
  ['a CR before the request that is no line', 400, `\r${get(H)}`],
];

/** Sound heads with bodies that break off the rails: the exchange is there, its body fails, and nothing after it is read. */
const BODIES: readonly (readonly [name: string, body: string])[] = [
  ['a chunk size that is no number', 'zz\r\n'],
  ['an empty chunk size', '\r\n'],
  ['a chunk size with 0x', '0x5\r\nAAAAA\r\n0\r\n\r\n'],
  ['a negative chunk size', '-1\r\n'],
  ['a chunk size with a sign', '+5\r\nAAAAA\r\n0\r\n\r\n'],
  ['a space before the chunk size', ' 5\r\nAAAAA\r\n0\r\n\r\n'],
  ['a space after the chunk size', '5 \r\nAAAAA\r\n0\r\n\r\n'],
  ['a chunk size beyond all bounds', 'FFFFFFFFFFFFFFFF\r\n'],
  ['a chunk size that wraps to zero', '10000000000000000\r\n\r\n'],
  ['a chunk size with more zeros than sense', `${'0'.repeat(40)}5\r\n`],
  ['a chunk size that ends with LF', '5\nAAAAA\r\n0\r\n\r\n'],
  ['a chunk size that ends with CR', '5\rAAAAA\r\n0\r\n\r\n'],
  ['a chunk longer than its size', `1\r\nAB\r\n0\r\n\r\n${SMUGGLED}`],
  ['a chunk that ends with LF', '1\r\nA\n0\r\n\r\n'],
  ['an extension with a bare LF', `1;a\nb\r\nA\r\n0\r\n\r\n`],
  ['an extension with a NUL', '1;\0\r\nA\r\n0\r\n\r\n'],
  ['an extension without end', `1;${'a'.repeat(5000)}`],
  ['trailers that are folded', '0\r\nA: b\r\n c\r\n\r\n'],
  ['a trailer with a space before the colon', '0\r\nA : b\r\n\r\n'],
  ['a trailer with a bare LF', '0\r\nA: b\nC: d\r\n\r\n'],
  ['a trailer section that ends with LF', '0\r\n\n'],
];

const CHUNK_SIZES = [1, 2, 3, 7, 64, 100_000];

function feed(bytes: string, chunk: number, into: { feed(bytes: string): void }): void {
  for (let at = 0; at < bytes.length; at += chunk) into.feed(bytes.slice(at, at + chunk));
}

for (const [name, status, request] of HEADS) {
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

for (const [name, body] of BODIES) {
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
