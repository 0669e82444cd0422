/**
 * Messages that two readers could understand in two ways, by the classes in which such attacks were published, and sound ones that look like
 * them. All are for the host `a`, and what must not become a request asks for `/smuggled`. Tests show what our server makes of them
 * (smuggling.test.ts), that whoever reads what we send on understands the same (desync.test.ts), Node's parser and real servers alike.
 */
import { ErrorCode } from '../../common/codec/http2/errors.ts';
import {
  CONNECTION_PREFACE,
  Flag,
  FrameType,
  frame,
  headerFrames,
  rstStreamFrame,
  settingsFrame,
} from '../../common/codec/http2/frames.ts';
import { HpackEncoder } from '../../common/codec/http2/hpack-encoder.ts';

export const HOST = 'Host: a\r\n';
const H = HOST;
export const getOf = (lines: string): string => `GET / HTTP/1.1\r\n${lines}\r\n`;
export const postOf = (lines: string, body = ''): string => `POST / HTTP/1.1\r\n${H}${lines}\r\n${body}`;
/** What must never be taken for a request of its own. */
export const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n';

export const BAD_HEADS: readonly (readonly [name: string, status: number, request: string])[] = [
  [
    'Content-Length and Transfer-Encoding (CL.TE)',
    400,
    postOf('Content-Length: 6\r\nTransfer-Encoding: chunked\r\n', `0\r\n\r\n${SMUGGLED}`),
  ],
  [
    'Transfer-Encoding and Content-Length (TE.CL)',
    400,
    postOf('Transfer-Encoding: chunked\r\nContent-Length: 3\r\n', `1\r\nZ\r\n0\r\n\r\n`),
  ],
  ['two Transfer-Encodings (TE.TE)', 400, postOf('Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n', '0\r\n\r\n')],
  ['two Transfer-Encodings, both chunked', 400, postOf('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['chunked twice in a list', 400, postOf('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')],
  ['identity', 400, postOf('Transfer-Encoding: identity\r\n')],
  ['xchunked', 400, postOf('Transfer-Encoding: xchunked\r\n')],
  ['quoted chunked', 400, postOf('Transfer-Encoding: "chunked"\r\n')],
  ['chunked with a parameter', 400, postOf('Transfer-Encoding: chunked;q=1\r\n')],
  ['chunked that is not last', 400, postOf('Transfer-Encoding: chunked, gzip\r\n')],
  ['a coding that we do not know before chunked', 501, postOf('Transfer-Encoding: gzip, chunked\r\n')],
  ['an empty Transfer-Encoding', 400, postOf('Transfer-Encoding:\r\n')],
  ['a vertical tab before chunked', 400, postOf('Transfer-Encoding: \x0bchunked\r\n')],
  ['a space in the name', 400, postOf('Transfer Encoding: chunked\r\n')],
  ['a space before the colon', 400, postOf('Transfer-Encoding : chunked\r\n')],
  ['a tab before the colon', 400, postOf('Content-Length\t: 5\r\n', 'AAAAA')],
  ['a name that begins with a space', 400, postOf(' Transfer-Encoding: chunked\r\n')],
  ['a NUL in the name', 400, postOf('Transfer-Encoding\0: chunked\r\n')],
  ['an underscore is another field, so Content-Length counts alone', 0, postOf('Transfer_Encoding: chunked\r\nContent-Length: 0\r\n')],
  ['Transfer-Encoding in HTTP/1.0', 400, `POST / HTTP/1.0\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
  ['two Content-Lengths that differ', 400, postOf('Content-Length: 5\r\nContent-Length: 6\r\n', 'AAAAAA')],
  ['two Content-Lengths that agree', 400, postOf('Content-Length: 5\r\nContent-Length: 5\r\n', 'AAAAA')],
  ['a list of Content-Lengths', 400, postOf('Content-Length: 5, 5\r\n', 'AAAAA')],
  ['a Content-Length with a plus', 400, postOf('Content-Length: +5\r\n', 'AAAAA')],
  ['a negative Content-Length', 400, postOf('Content-Length: -5\r\n')],
  ['a Content-Length with a space inside', 400, postOf('Content-Length: 5 5\r\n')],
  ['a hexadecimal Content-Length', 400, postOf('Content-Length: 0x5\r\n', 'AAAAA')],
  ['a Content-Length with a fraction', 400, postOf('Content-Length: 5.0\r\n', 'AAAAA')],
  ['a Content-Length beyond all bounds', 400, postOf('Content-Length: 18446744073709551621\r\n', 'AAAAA')],
  ['an empty Content-Length', 400, postOf('Content-Length: \r\n')],
  ['a folded Content-Length', 400, postOf('Content-Length:\r\n 5\r\n', 'AAAAA')],
  ['a folded field', 400, getOf(`${H}A: b\r\n\tc\r\n`)],
  ['a fold before the first field', 400, `GET / HTTP/1.1\r\n ${H}\r\n`],
  ['a bare LF after the request line', 400, `GET / HTTP/1.1\n${H}\r\n`],
  ['bare LFs everywhere', 400, 'GET / HTTP/1.1\nHost: a\n\n'],
  ['a bare LF between fields', 400, getOf('Host: a\nB: c\r\n')],
  ['a bare CR between fields', 400, getOf('Host: a\rB: c\r\n')],
  ['a bare CR in a value', 400, getOf(`${H}A: b\rTransfer-Encoding: chunked\r\n`)],
  ['a bare CR in the request line', 400, `GET /\r HTTP/1.1\r\n${H}\r\n`],
  ['CR CR LF', 400, getOf(`${H}A: b\r\r\n`)],
  ['a NUL in a value', 400, getOf(`${H}A: b\0c\r\n`)],
  ['a control character in a value', 400, getOf(`${H}A: b\x01c\r\n`)],
  ['DEL in a value', 400, getOf(`${H}A: \x7f\r\n`)],
  ['a field without a colon', 400, getOf(`${H}garbage\r\n`)],
  ['a field without a name', 400, getOf(`${H}: b\r\n`)],
  ['a name with a bracket', 400, getOf(`${H}a[b]: c\r\n`)],
  ['a name beyond ASCII', 400, getOf(`${H}n\xe9: c\r\n`)],
  ['no Host', 400, getOf('A: b\r\n')],
  ['two Hosts', 400, getOf('Host: a\r\nHost: b\r\n')],
  ['two Hosts that agree', 400, getOf('Host: a\r\nHost: a\r\n')],
  ['an empty Host', 400, getOf('Host:\r\n')],
  ['a list of Hosts', 400, getOf('Host: a, b\r\n')],
  ['a Host with a user', 400, getOf('Host: u@a\r\n')],
  ['a Host with a path', 400, getOf('Host: a/b\r\n')],
  ['a Host with a space', 400, getOf('Host: a b\r\n')],
  ['a Host with a port that is none', 400, getOf('Host: a:99999\r\n')],
  ['a Host with two ports', 400, getOf('Host: a:80:90\r\n')],
  ['a Host with a colon and no port', 400, getOf('Host: a:\r\n')],
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
  ['Connection that names Content-Length', 400, postOf('Connection: content-length\r\nContent-Length: 5\r\n', 'AAAAA')],
  ['Connection that names Host', 400, getOf(`${H}Connection: close, host\r\n`)],
  ['Connection that names Transfer-Encoding', 400, postOf('Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n')],
  ['an expectation that we do not know', 417, getOf(`${H}Expect: the-unexpected\r\n`)],
  ['TLS', 400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n'],
  ['three empty lines', 400, `\r\n\r\n\r\n${getOf(H)}`],
  ['a CR before the request that is no line', 400, `\r${getOf(H)}`],
];

/** Sound heads with bodies that break off the rails: the exchange is there, its body fails, and nothing after it is read. */
export const BAD_BODIES: readonly (readonly [name: string, body: string])[] = [
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

/** Sound, or read over by many: whatever we make of them, those behind us make the same. */
export const ODD_REQUESTS: readonly (readonly [name: string, bytes: string])[] = [
  ['CL.0: a GET with a body', getOf(`${H}Content-Length: ${SMUGGLED.length}\r\n`) + SMUGGLED],
  ['CL.0: a HEAD with a body', `HEAD / HTTP/1.1\r\n${H}Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`],
  [
    'a GET with a chunked body',
    getOf(`${H}Transfer-Encoding: chunked\r\n`) + `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`,
  ],
  ['a body of no bytes, and a request behind it', postOf('Content-Length: 0\r\n') + getOf(H)],
  ['a Content-Length with leading zeros', postOf('Content-Length: 0005\r\n', 'AAAAA')],
  ['Chunked in other letters', postOf('Transfer-Encoding: ChUnKeD\r\n', '5\r\nAAAAA\r\n0\r\n\r\n')],
  ['a chunk size with leading zeros', postOf('Transfer-Encoding: chunked\r\n', '0000005\r\nAAAAA\r\n000\r\n\r\n')],
  ['a chunk with an extension', postOf('Transfer-Encoding: chunked\r\n', '5;a="b;c"\r\nAAAAA\r\n0;x\r\n\r\n')],
  ['a trailer that says Content-Length', postOf('Transfer-Encoding: chunked\r\n', `0\r\nContent-Length: 50\r\nX: y\r\n\r\n`) + getOf(H)],
  ['a trailer that says Transfer-Encoding', postOf('Transfer-Encoding: chunked\r\n', `0\r\nTransfer-Encoding: chunked\r\n\r\n`) + getOf(H)],
  ['spaces and tabs around values', postOf('Content-Length: \t5 \t\r\n', 'AAAAA')],
  ['no space behind the colon', 'POST / HTTP/1.1\r\nHost:a\r\nContent-Length:5\r\n\r\nAAAAA'],
  ['an empty line first', `\r\n${getOf(H)}`],
  ['two requests in one piece', getOf(H) + getOf(H)],
  ['a body, and a request behind it', postOf('Content-Length: 5\r\n', 'AAAAA') + getOf(H)],
  ['an absolute target of the same host', `GET http://a/x HTTP/1.1\r\n${H}\r\n`],
  ['an absolute target without a path', `GET http://a HTTP/1.1\r\n${H}\r\n`],
  ['an absolute target with a query and no path', `GET http://a?x HTTP/1.1\r\n${H}\r\n`],
  ['a star', `OPTIONS * HTTP/1.1\r\n${H}\r\n`],
  ['HTTP/1.0 with a body', `POST / HTTP/1.0\r\n${H}Content-Length: 5\r\n\r\nAAAAA${SMUGGLED}`],
  ['HTTP/1.0 that keeps the connection', `GET / HTTP/1.0\r\n${H}Connection: keep-alive\r\n\r\n${getOf(H)}`],
  ['HTTP/1.7', `GET / HTTP/1.7\r\n${H}\r\n`],
  ['an expectation', postOf('Expect: 100-continue\r\nContent-Length: 5\r\n', 'AAAAA')],
  ['an expectation without a body', getOf(`${H}Expect: 100-continue\r\n`)],
  ['close, and a request behind it', getOf(`${H}Connection: close\r\n`) + SMUGGLED],
  ['Connection that names other fields', getOf(`${H}Connection: X-Secret, close\r\nX-Secret: y\r\nX-Open: z\r\n`)],
  ['an upgrade that nobody makes, and a request in the new protocol', getOf(`${H}Connection: Upgrade\r\nUpgrade: nothing\r\n`) + SMUGGLED],
  ['an upgrade to h2c', getOf(`${H}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n`)],
  ['an upgrade with a body', postOf('Connection: Upgrade\r\nUpgrade: nothing\r\nContent-Length: 5\r\n', 'AAAAA')],
  [
    'a websocket of a version that nobody speaks',
    getOf(`${H}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n`) + SMUGGLED,
  ],
  ['invalid UTF-8 in a value', getOf(`${H}X: \xc3\x28\xff\r\n`)],
  ['percent-encoded dots and slashes', `GET /x/%2e%2e/%2f..%5c%2e/y%00%0d%0a HTTP/1.1\r\n${H}\r\n`],
  ['percent signs without digits', `GET /%zz%u002f%c0%ae%? HTTP/1.1\r\n${H}\r\n`],
  ['a name with an underscore', postOf('Content_Length: 3\r\nContent-Length: 5\r\n', 'AAAAA')],
  [
    'forwarded fields of the client',
    getOf(`${H}X-Forwarded-Host: b\r\nForwarded: host=b\r\nX-Original-URL: /smuggled\r\nX-Rewrite-URL: /smuggled\r\n`),
  ],
  ['a method that few know', `PURGE / HTTP/1.1\r\n${H}Content-Length: 5\r\n\r\nAAAAA`],
  ['TRACE with a body', `TRACE / HTTP/1.1\r\n${H}Content-Length: 5\r\n\r\nAAAAA`],
  ['a body that never comes', postOf('Content-Length: 50\r\n', 'AAAAA')],
  ['chunks that never end', postOf('Transfer-Encoding: chunked\r\n', '5\r\nAAAAA\r\n')],
  ['a head that never ends', `GET / HTTP/1.1\r\n${H}A: b`],
];

type Field = readonly [name: string, value: string];
const askedOf =
  (host: string) =>
  (method: string, more: readonly Field[] = [], path = '/', authority = host): [string, string][] => [
    [':method', method],
    [':scheme', 'http'],
    [':authority', authority],
    [':path', path],
    ...more.map(([name, value]): [string, string] => [name, value]),
  ];

/** A whole connection of HTTP/2: a request's fields, its body, where there is one, and what comes behind it. */
function http2(fields: readonly Field[], body?: string, behind: readonly Buffer[] = []): Buffer {
  const block = new HpackEncoder().encode(fields.map(([name, value]): [string, string] => [name, value]));
  const frames = [headerFrames(1, block, body === undefined, 16_384)];
  if (body !== undefined) frames.push(frame(FrameType.DATA, Flag.END_STREAM, 1, Buffer.from(body, 'latin1')));
  return Buffer.concat([CONNECTION_PREFACE, settingsFrame([]), ...frames, ...behind]);
}

const FLOOD = 3000;
const times = (make: (i: number) => Buffer): Buffer[] => Array.from({ length: FLOOD }, (_, i) => make(i));
const opened = (i: number): Buffer => headerFrames(1 + 2 * i, new HpackEncoder().encode(askedOf('a')('GET', [], '/flood')), false, 16_384);

/** The same in HTTP/2, whose every field has a length of its own until somebody writes it as text. @param host that they are for */
export function http2Requests(host: string): readonly (readonly [name: string, bytes: Buffer])[] {
  const asked = askedOf(host);
  return [
    ['a request', http2(asked('GET'))],
    ['a request with a body', http2(asked('POST', [['content-length', '5']]), 'AAAAA')],
    ['H2.CL: less than the body', http2(asked('POST', [['content-length', '0']]), SMUGGLED)],
    ['H2.CL: more than the body', http2(asked('POST', [['content-length', '500']]), 'AAAAA')],
    [
      'H2.CL: two lengths',
      http2(
        asked('POST', [
          ['content-length', '5'],
          ['content-length', '6'],
        ]),
        'AAAAA',
      ),
    ],
    ['H2.CL: a length that is no number', http2(asked('POST', [['content-length', '+5']]), 'AAAAA')],
    ['H2.CL: a length without a body', http2(asked('GET', [['content-length', '5']]))],
    ['H2.TE: chunked', http2(asked('POST', [['transfer-encoding', 'chunked']]), `0\r\n\r\n${SMUGGLED}`)],
    ['H2.TE: in the value of another field', http2(asked('POST', [['x', `b\r\ntransfer-encoding: chunked`]]), `0\r\n\r\n${SMUGGLED}`)],
    ['H2.TE: in the name of a field', http2(asked('POST', [['x: b\r\ntransfer-encoding', 'chunked']]), `0\r\n\r\n${SMUGGLED}`)],
    ['a name with a colon', http2(asked('GET', [['x:y', 'z']]))],
    ['a name with a space', http2(asked('GET', [['x ', 'z']]))],
    ['a name in upper case', http2(asked('GET', [['X', 'z']]))],
    ['a value with a bare CR', http2(asked('GET', [['x', 'a\rb']]))],
    ['a value with a bare LF', http2(asked('GET', [['x', 'a\nb']]))],
    ['a value with a NUL', http2(asked('GET', [['x', 'a\0b']]))],
    ['a value that ends with a space', http2(asked('GET', [['x', 'a ']]))],
    ['a request in the path', http2(asked('GET', [], `/ HTTP/1.1\r\nHost: a\r\n\r\n${SMUGGLED}`))],
    ['a space in the path', http2(asked('GET', [], '/ x'))],
    ['an empty path', http2(asked('GET', [], ''))],
    ['an absolute path for somebody else', http2(asked('GET', [], 'http://b/smuggled'))],
    ['a request in the method', http2(asked(`GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET`))],
    ['a request in the authority', http2(asked('GET', [], '/', `a\r\n\r\n${SMUGGLED}`))],
    ['an authority with a user', http2(asked('GET', [], '/', 'u@a'))],
    ['a Host that differs', http2(asked('GET', [['host', 'b']]))],
    ['a Host that agrees', http2(asked('GET', [['host', host]]))],
    [
      'two Hosts',
      http2(
        asked('GET', [
          ['host', host],
          ['host', 'b'],
        ]),
      ),
    ],
    ['two paths', http2([...asked('GET'), [':path', '/smuggled']])],
    ['a pseudo-field behind a field', http2([...asked('GET', [['x', 'y']]), [':authority', host]])],
    ['a pseudo-field that nobody knows', http2(asked('GET', [[':smuggled', '/']]))],
    ['a Connection field', http2(asked('GET', [['connection', 'close']]))],
    ['an Upgrade field', http2(asked('GET', [['upgrade', 'websocket']]))],
    ['TE that is not trailers', http2(asked('GET', [['te', 'chunked']]))],
    ['TE that is trailers', http2(asked('GET', [['te', 'trailers']]))],
    [
      'CONNECT',
      http2([
        [':method', 'CONNECT'],
        [':authority', 'a:80'],
      ]),
    ],
    ['CONNECT with a path', http2(asked('CONNECT'))],
    ['a tunnel to a protocol that nobody speaks', http2([...asked('CONNECT'), [':protocol', 'smuggle']], SMUGGLED)],
    [
      'cookies in pieces',
      http2(
        asked('GET', [
          ['cookie', 'a=b'],
          ['cookie', 'c=d'],
        ]),
      ),
    ],
    [
      'rapid reset',
      Buffer.concat([
        http2(asked('GET', [], '/flood')),
        ...times((i) => Buffer.concat([opened(i + 1), rstStreamFrame(3 + 2 * i, ErrorCode.CANCEL)])),
      ]),
    ],
    [
      'a flood of SETTINGS',
      http2(
        asked('GET', [], '/flood'),
        '',
        times(() => settingsFrame([])),
      ),
    ],
    [
      'a flood of PING',
      http2(
        asked('GET', [], '/flood'),
        '',
        times(() => frame(FrameType.PING, 0, 0, Buffer.alloc(8))),
      ),
    ],
    [
      'a flood of empty DATA',
      http2(asked('GET', [], '/flood'), undefined, [opened(1), ...times(() => frame(FrameType.DATA, 0, 3, Buffer.alloc(0)))]),
    ],
    [
      'CONTINUATION without end',
      http2(asked('GET', [], '/flood'), undefined, [
        frame(FrameType.HEADERS, 0, 3, Buffer.alloc(1, 0x82)),
        ...times(() => frame(FrameType.CONTINUATION, 0, 3, Buffer.alloc(100, 0x82))),
      ]),
    ],
  ];
}

/** The same for one host. */
export const HTTP2_REQUESTS = http2Requests('a');

/** Responses of an upstream that lies, by what is wrong with them; none may reach a client as a whole response. */
export const LYING_RESPONSES: readonly (readonly [name: string, bytes: string])[] = [
  ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nhello'],
  ['a length and chunks', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'],
  ['a length that is no number', 'HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello'],
  ['a coding that nobody knows', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, smuggled\r\n\r\nhello'],
  ['a folded field', 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n'],
  ['a bare CR', 'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n'],
  ['a bare LF', 'HTTP/1.1 200 OK\nContent-Length: 0\n\n'],
  ['a space before the colon', 'HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello'],
  ['a status of two digits', 'HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n'],
  ['another protocol', 'SSH-2.0-OpenSSH_9.2\r\n\r\n'],
  ['an answer in HTTP/2', 'HTTP/2 200\r\nContent-Length: 0\r\n\r\n'],
  [
    'a change of protocol that nobody asked for',
    'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: smuggled\r\n\r\nhello',
  ],
  ['a chunk longer than its size', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello\r\n0\r\n\r\n'],
  ['informational responses without end', 'HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(100)],
  ['a head without end', `HTTP/1.1 200 OK\r\n${'X: y\r\n'.repeat(20_000)}`],
];

/** Sound responses with their bodies: cut off at any byte they are not whole. */
export const SOUND_RESPONSES: readonly (readonly [name: string, bytes: string, body: string])[] = [
  ['a length', 'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX: y\r\n\r\nhello world', 'hello world'],
  ['chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: u\r\n\r\n', 'hello world'],
  ['an early hint first', 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', 'hello'],
];
