import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ErrorCode, Http2ConnectionError } from '../../../common/codec/http2/errors.ts';
import { DynamicTable, type HeaderField } from '../../../common/codec/http2/header-tables.ts';
import { HpackDecoder } from '../../../common/codec/http2/hpack-decoder.ts';
import { HpackEncoder } from '../../../common/codec/http2/hpack-encoder.ts';
import { huffmanDecode, huffmanEncode, huffmanLength } from '../../../common/codec/http2/huffman.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const lines = (fields: readonly HeaderField[]): string[] => fields.map(([name, value]) => `${name}: ${value}`);

// RFC 7541, appendix C: blocks of one connection, one after the other.
const GET = [':method: GET', ':scheme: http', ':path: /', ':authority: www.example.com'];
const GET_HTTPS = [':method: GET', ':scheme: https', ':path: /index.html', ':authority: www.example.com', 'custom-key: custom-value'];
const MOVED = [':status: 302', 'cache-control: private', 'date: Mon, 21 Oct 2013 20:13:21 GMT', 'location: https://www.example.com'];
const FOUND = [
  ':status: 200',
  'cache-control: private',
  'date: Mon, 21 Oct 2013 20:13:22 GMT',
  'location: https://www.example.com',
  'content-encoding: gzip',
  'set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1',
];
const VECTORS: [name: string, tableSize: number, blocks: [bytes: string, fields: string[]][]][] = [
  ['C.2.1', 4096, [['400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572', ['custom-key: custom-header']]]],
  ['C.2.2', 4096, [['040c 2f73 616d 706c 652f 7061 7468', [':path: /sample/path']]]],
  ['C.2.3', 4096, [['1008 7061 7373 776f 7264 0673 6563 7265 74', ['password: secret']]]],
  ['C.2.4', 4096, [['82', [':method: GET']]]],
  [
    'C.3',
    4096,
    [
      ['8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d', GET],
      ['8286 84be 5808 6e6f 2d63 6163 6865', [...GET, 'cache-control: no-cache']],
      ['8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65', GET_HTTPS],
    ],
  ],
  [
    'C.4',
    4096,
    [
      ['8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff', GET],
      ['8286 84be 5886 a8eb 1064 9cbf', [...GET, 'cache-control: no-cache']],
      ['8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf', GET_HTTPS],
    ],
  ],
  [
    'C.5',
    256,
    [
      [
        `4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e 1768 7474
         7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d`,
        MOVED,
      ],
      ['4803 3330 37c1 c0bf', [':status: 307', ...MOVED.slice(1)]],
      [
        `88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a
         4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31`,
        FOUND,
      ],
    ],
  ],
  [
    'C.6',
    256,
    [
      [
        `4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae
         82ae 43d3`,
        MOVED,
      ],
      ['4883 640e ffc1 c0bf', [':status: 307', ...MOVED.slice(1)]],
      [
        `88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960
         d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07`,
        FOUND,
      ],
    ],
  ],
];
for (const [name, tableSize, blocks] of VECTORS) {
  test(`header blocks of RFC 7541, ${name}, decode to their fields`, () => {
    const decoder = new HpackDecoder(64 << 10, tableSize);
    for (const [bytes, fields] of blocks) assert.deepEqual(lines(decoder.decode(hex(bytes)).fields), fields);
  });
}

for (const [name, huffman] of [
  ['C.3', false],
  ['C.4', true],
] as const) {
  test(`the encoder writes the blocks of RFC 7541, ${name}`, () => {
    const encoder = new HpackEncoder({ huffman });
    for (const [bytes, fields] of VECTORS.find(([vector]) => vector === name)?.[2] ?? []) {
      const written = encoder.encode(fields.map((line) => line.split(/(?<=.): /, 2) as unknown as HeaderField));
      assert.equal(written.toString('hex'), hex(bytes).toString('hex'));
    }
  });
}

const BROKEN: [name: string, bytes: string][] = [
  ['index 0', '80'],
  ['an index beyond both tables', 'be'],
  ['a name index beyond both tables', '7f00 0161'],
  ['a number that does not end', 'ffff'],
  ['a number that is too large', 'ffffffffffff7f'],
  ['a literal without a value', '4001 61'],
  ['a string longer than the block', '4003 6161'],
  ['a table size above what we allow', '3fe2 1f'],
  ['a table size update after a field', '82 20'],
  ['three table size updates', '20 20 20 82'],
  ['Huffman padding of eight bits', '4082 07ff 0161'],
  ['Huffman padding that is not ones', '4081 00 0161'],
  ['the end-of-string symbol', '4084 ffff ffff 0161'],
];
for (const [name, bytes] of BROKEN) {
  test(`a header block with ${name} is a COMPRESSION_ERROR`, () => {
    assert.throws(
      () => new HpackDecoder(4096).decode(hex(bytes)),
      (error) => error instanceof Http2ConnectionError && error.code === ErrorCode.COMPRESSION_ERROR,
    );
  });
}

test('a header list that is too large is cut, and the next block still decodes', () => {
  const encoder = new HpackEncoder();
  const decoder = new HpackDecoder(200);
  const large = decoder.decode(
    encoder.encode([
      ['a', 'x'.repeat(100)],
      ['b', 'y'.repeat(100)],
      ['c', 'z'],
    ]),
  );
  assert.equal(large.tooLarge, true);
  assert.deepEqual(
    large.fields.map(([name]) => name),
    ['a'],
  );
  assert.deepEqual(decoder.decode(encoder.encode([['c', 'z']])), { fields: [['c', 'z']], tooLarge: false });
});

test('the encoder keeps unindexed and sensitive fields out of the table, and marks sensitive ones', () => {
  const encoder = new HpackEncoder({ unindexed: new Set(['traceparent']), sensitive: new Set(['authorization']) });
  const first = encoder
    .encode([
      ['traceparent', 'v'],
      ['authorization', 'secret'],
      ['baggage', 'b'],
    ])
    .toString('hex');
  const second = encoder
    .encode([
      ['traceparent', 'v'],
      ['authorization', 'secret'],
      ['baggage', 'b'],
    ])
    .toString('hex');
  assert.equal(first.slice(0, 2), '00', 'literal without indexing');
  assert.match(first, /1f08067365/, 'never indexed, with the static name');
  assert.equal(second.slice(-2), 'be', 'the only field in the table');
});

test("the encoder announces the smallest and the last table size that the peer's settings had", () => {
  const encoder = new HpackEncoder();
  const decoder = new HpackDecoder(4096);
  const field: HeaderField[] = [['x-a', '1']];
  decoder.decode(encoder.encode(field));
  encoder.setPeerTableSize(0);
  encoder.setPeerTableSize(100);
  const block = encoder.encode(field);
  assert.equal(block.subarray(0, 3).toString('hex'), '203f45');
  assert.deepEqual(decoder.decode(block).fields, field);
  encoder.setPeerTableSize(1 << 20);
  assert.equal(encoder.encode(field).subarray(0, 3).toString('hex'), '3fe11f', 'never more than we are willing to fill');
});

test('the dynamic table evicts the oldest first and is emptied by a field that is too large', () => {
  const evicted: string[] = [];
  const table = new DynamicTable(110, ([name], serial) => evicted.push(`${name}${serial}`));
  table.add(['a', '1']);
  table.add(['b', '2']);
  table.add(['c', '3']);
  assert.deepEqual([table.length, table.size, table.get(0), table.get(2), table.get(3)], [3, 102, ['c', '3'], ['a', '1'], undefined]);
  table.add(['d', '4']);
  assert.deepEqual([evicted, table.get(2)], [['a0'], ['b', '2']]);
  table.add(['huge', 'x'.repeat(200)]);
  assert.deepEqual([table.length, table.size, evicted.length], [0, 0, 4]);
});

test('every byte survives Huffman coding', () => {
  const out = Buffer.alloc(4096);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const text = Buffer.from(bytes).toString('latin1');
      const end = huffmanEncode(text, out, 3);
      assert.equal(end - 3, huffmanLength(text));
      assert.equal(huffmanDecode(out, 3, end), text);
    }),
  );
});

test('any header lists survive any changes of the table size', () => {
  const name = fc.constantFrom(':authority', ':status', 'baggage', 'traceparent', 'x-a', 'x-b', 'cookie');
  const value = fc.oneof(
    fc.constantFrom('', '200', 'a', 'k8s.cluster.name=Kubernetes'),
    fc.string({ maxLength: 300, unit: 'binary-ascii' }),
  );
  const step = fc.oneof(
    fc.record({ fields: fc.array(fc.tuple(name, value), { maxLength: 8 }) }),
    fc.record({ tableSize: fc.integer({ min: 0, max: 5000 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 20 }), fc.boolean(), (steps, huffman) => {
      const encoder = new HpackEncoder({ huffman, unindexed: new Set(['traceparent']) });
      const decoder = new HpackDecoder(1 << 20);
      for (const next of steps) {
        if ('tableSize' in next) encoder.setPeerTableSize(next.tableSize);
        else assert.deepEqual(decoder.decode(encoder.encode(next.fields)).fields, next.fields);
      }
    }),
  );
});
