import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MessageDecoder } from '../../../common/codec/http1/decoder.ts';
import { parseFields } from '../../../common/codec/http1/fields.ts';
import { Framing } from '../../../common/codec/http1/framing.ts';
import { parseRequest } from '../../../common/codec/http1/request.ts';
import { parseResponse } from '../../../common/codec/http1/response.ts';
import { isAuthority, isFieldValue, parseContentLength } from '../../../common/codec/http1/syntax.ts';
import { type HeadText, requestText, responseText, trailerText, writeHead } from '../../../common/codec/http1/write.ts';

const limits = { maxStartLine: 20_000, maxFields: 100_000, maxFieldCount: 100 };

const token = fc.string({ unit: fc.constantFrom(...'abcxyz-_.!#09'), minLength: 1, maxLength: 12 });
const value = fc
  .string({ unit: fc.constantFrom(...'ab ,;="\t\x80\xff/:'), maxLength: 30 })
  .map((text) => text.replace(/^[ \t]+|[ \t]+$/g, ''));
const OURS = new Set([
  'host',
  'connection',
  'te',
  'upgrade',
  'expect',
  'content-length',
  'transfer-encoding',
  'keep-alive',
  'proxy-connection',
  'trailer',
]);
const fields = fc
  .array(
    fc.tuple(
      token.filter((name) => !OURS.has(name)),
      value,
    ),
    { maxLength: 12 },
  )
  .map((list) => list.flat());
const path = fc.string({ unit: fc.constantFrom(...'abc/?=&%~.-'), maxLength: 40 }).map((text) => `/${text}`);

/** The bytes of a head, as they are written. */
function bytesOf(head: HeadText): Buffer {
  const out = Buffer.alloc(head.text.length);
  assert.equal(writeHead(out, 0, head), out.length);
  return out;
}

interface Message {
  head: string;
  body: string;
  trailers: string[] | undefined;
  whole: boolean;
}

/** What a decoder hands on of these bytes, cut where the test says. */
function decode(bytes: Buffer, cuts: readonly number[], framing: (head: string) => number): Message[] {
  const messages: Message[] = [];
  const decoder: MessageDecoder = new MessageDecoder(limits, {
    head(head) {
      messages.push({ head, body: '', trailers: undefined, whole: framing(head) === 0 });
      if (framing(head) === 0) decoder.next();
      return framing(head);
    },
    data(piece) {
      const last = messages.at(-1);
      if (last) last.body += piece.toString('latin1');
      return true;
    },
    end(trailers) {
      const last = messages.at(-1);
      if (last) Object.assign(last, { trailers, whole: true });
      decoder.next();
    },
  });
  let from = 0;
  for (const cut of [...cuts.map((at) => at % (bytes.length + 1)).sort((a, b) => a - b), bytes.length]) {
    const piece = bytes.subarray(from, cut);
    for (let at = 0; at < piece.length; ) at = decoder.push(piece, at);
    from = cut;
  }
  assert.ok(decoder.finish());
  return messages;
}

test('what is written as a request is read as the same request, however it is cut', () => {
  fc.assert(
    fc.property(
      token,
      path,
      fields,
      fc.array(fc.nat(), { maxLength: 8 }),
      fc.option(fc.string({ maxLength: 50 }), { nil: undefined }),
      (method, target, list, cuts, body) => {
        fc.pre(method !== 'CONNECT');
        const framing = body === undefined ? [] : [`content-length: ${body.length}\r\n`];
        const head = requestText({ method, authority: 'orders.shop:80', path: target, fields: list }, framing);
        const bytes = Buffer.concat([bytesOf(head), Buffer.from(body ?? '', 'latin1')]);
        const twice = Buffer.concat([bytes, bytes]);
        const messages = decode(twice, cuts, (text) => parseRequest(text, 100).framing);
        assert.equal(messages.length, 2);
        for (const message of messages) {
          const request = parseRequest(message.head, 100).head;
          assert.equal(request.method, method);
          assert.equal(request.path, target);
          assert.equal(request.authority, 'orders.shop:80');
          assert.deepEqual(request.fields, body === undefined ? list : [...list, 'content-length', String(body.length)]);
          assert.equal(message.body, Buffer.from(body ?? '', 'latin1').toString('latin1'));
          assert.ok(message.whole);
        }
      },
    ),
  );
});

test('what is written as a chunked response is read as the same response, however it is cut', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 200, max: 599 }),
      fields,
      fields,
      fc.array(fc.string({ minLength: 1, maxLength: 40 })),
      fc.array(fc.nat(), { maxLength: 8 }),
      (status, list, trailers, chunks, cuts) => {
        fc.pre(status !== 204 && status !== 304);
        const bytes = Buffer.concat([
          bytesOf(responseText(status, list, ['transfer-encoding: chunked\r\n'])),
          ...chunks.map((chunk) => Buffer.from(`${Buffer.byteLength(chunk).toString(16)}\r\n${chunk}\r\n`)),
          bytesOf(trailerText(trailers)),
        ]);
        const [message] = decode(bytes, cuts, (text) => parseResponse(text, 100, 'GET').framing);
        assert.ok(message?.whole);
        const response = parseResponse(message.head, 100, 'GET');
        assert.equal(response.framing, Framing.CHUNKED);
        assert.equal(response.head.status, status);
        assert.deepEqual(response.head.fields, list);
        assert.equal(message.body, Buffer.from(chunks.join('')).toString('latin1'));
        assert.deepEqual(message.trailers, trailers.length === 0 ? undefined : trailers);
      },
    ),
  );
});

test('whatever bytes a field has, it is read whole, refused, or never written', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary-ascii', maxLength: 12 }), fc.string({ unit: 'binary-ascii', maxLength: 12 }), (name, text) => {
      let written: Buffer;
      try {
        written = bytesOf(responseText(200, [name, text], []));
      } catch (error) {
        assert.ok(error instanceof TypeError || error instanceof assert.AssertionError);
        return;
      }
      const lines = written.toString('latin1').slice('HTTP/1.1 200 OK\r\n'.length, -2);
      try {
        const read = parseFields(lines, 0, 100);
        assert.ok(read.length <= 2);
      } catch (error) {
        assert.equal(error instanceof Error && 'status' in error ? error.status : error, 400);
      }
    }),
  );
});

test('an authority is a host and perhaps a port', () => {
  for (const good of ['a', 'a.b-c_d:80', '10.0.0.1:8080', '[fd00::1]', '[fd00::1]:80', 'a:0', 'a:65535'])
    assert.ok(isAuthority(good), good);
  for (const wrong of [
    '',
    ':80',
    'a:',
    'a:b',
    'a:65536',
    'a:123456',
    'a b',
    'a,b',
    'u@a',
    'a/b',
    'a?b',
    '[fd00::1',
    'fd00::1',
    'a%41',
    '[]',
    'a\tb',
    'a:80:80',
  ])
    assert.ok(!isAuthority(wrong), wrong);
});

test('a length is digits alone, and a value begins and ends with something', () => {
  assert.equal(parseContentLength('0'), 0);
  assert.equal(parseContentLength('007'), 7);
  assert.equal(parseContentLength('999999999999999'), 999_999_999_999_999);
  for (const wrong of ['', ' 1', '1 ', '+1', '-1', '0x1', '1e3', '1.0', '1_0', '٣', '9999999999999999'])
    assert.equal(parseContentLength(wrong), undefined, wrong);
  for (const good of ['', 'a', 'a b', 'a\tb', '\xff']) assert.ok(isFieldValue(good));
  for (const wrong of [' a', 'a ', '\ta', 'a\r', 'a\nb', '\0', '\x7f', '\u2603']) assert.ok(!isFieldValue(wrong), JSON.stringify(wrong));
});
