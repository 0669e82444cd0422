import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeString, encodeString } from '../../../playground/programs/echo-grpc.ts';
import { durationMs, parseClientOptions, parseServerOptions } from '../../../playground/programs/echo-options.ts';
import { headerLines, weightedCode } from '../../../playground/programs/echo-server.ts';

test('a server without arguments has the ports of the original', () => {
  const { http, grpc, tcp, serverFirst } = parseServerOptions([]);
  assert.deepEqual([http, grpc, tcp, serverFirst], [[8080], [7070], [9090], []]);
});

test("the conformance suite's own arguments are understood", () => {
  const options = parseServerOptions(
    '--tcp=9090 --port=8080 --grpc=7070 --port=8443 --tls=8443 --crt=/cert.crt --key=/cert.key'.split(' '),
  );
  assert.deepEqual([options.http, options.tls, options.crt], [[8080, 8443], [8443], '/cert.crt']);
});

test('--server-first is for all TCP ports, or for those that it names', () => {
  assert.equal(parseServerOptions(['--server-first', '--tcp=9091']).serverFirst, 'all');
  assert.deepEqual(parseServerOptions(['--server-first=9091', '--tcp', '9091', '--tcp', '9092']).serverFirst, [9091]);
});

for (const [argv, complaint] of [
  [['--port=web'], /--port=web: expected a port/],
  [['--port=70000'], /expected a port/],
  [['--colour=blue'], /unknown argument --colour/],
] as const) {
  test(`server argument ${argv[0]} is refused by name`, () => assert.throws(() => parseServerOptions(argv), complaint));
}

test('a client call has scheme, authority, the path as written, method, headers and count', () => {
  const options = parseClientOptions(['http://echo:81/a/../b?x=%20', '--method=POST', '-H', 'Version:two', '-H=Host: other', '--count=3']);
  assert.deepEqual(
    [options.scheme, options.url.host, options.path, options.method, options.headers, options.count],
    [
      'http',
      'echo:81',
      '/a/../b?x=%20',
      'POST',
      [
        ['Version', 'two'],
        ['Host', 'other'],
      ],
      3,
    ],
  );
  assert.deepEqual(
    [parseClientOptions(['http://echo']).perSecond, parseClientOptions(['http://echo', '--qps=10']).perSecond],
    [undefined, 10],
  );
  assert.equal(parseClientOptions(['http://echo:80']).url.host, 'echo', "the scheme's own port is not said");
  assert.equal(parseClientOptions(['http://echo']).path, '/');
  assert.equal(parseClientOptions(['tcp://[fd00::1]:9090']).url.hostname, '[fd00::1]');
});

for (const [argv, complaint] of [
  [[], /usage: client URL/],
  [['echo'], /"echo" is no URL/],
  [['ftp://echo'], /scheme ftp is not/],
  [['http://echo', '-H', 'novalue'], /expected Name:Value/],
  [['http://echo', '--count=0'], /--count: expected/],
  [['http://echo', '--qps=many'], /--qps: expected/],
  [['http://echo', '--timeout=soon'], /"soon" is no duration/],
] as const) {
  test(`client call ${argv.join(' ') || 'without anything'} is refused with the reason`, () =>
    assert.throws(() => parseClientOptions(argv), complaint));
}

test('durations are as Go writes them', () => {
  assert.deepEqual(['1s', '250ms', '1.5s', '1m30s'].map(durationMs), [1000, 250, 1500, 90_000]);
});

test('headers are listed in Go’s spelling, sorted, without Host and pseudo-headers', () => {
  assert.deepEqual(headerLines([':path', '/', 'x-b3-id', '1', 'Host', 'h', 'ACCEPT', '*/*', 'accept', 'text']), [
    'RequestHeader=Accept:*/*',
    'RequestHeader=Accept:text',
    'RequestHeader=X-B3-Id:1',
  ]);
});

test('weighted codes come in their shares', () => {
  assert.deepEqual(
    [0, 0.49, 0.5, 0.99].map((random) => weightedCode('500:50,200:50', random)),
    [500, 500, 200, 200],
  );
  assert.equal(weightedCode('404', 0.3), 404);
});

test('a message of one string survives its encoding, whatever its length', () => {
  assert.equal(encodeString('hi').toString('hex'), '0a026869');
  assert.equal(encodeString('x'.repeat(200)).subarray(0, 3).toString('hex'), '0ac801');
  fc.assert(fc.property(fc.string({ maxLength: 20_000, unit: 'grapheme' }), (text) => decodeString(encodeString(text)) === text));
  assert.equal(decodeString(Buffer.alloc(0)), '');
});
