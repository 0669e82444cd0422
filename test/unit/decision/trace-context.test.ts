/** Whose trace a request belongs to, in every form in which that is said. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readTraceContext, traceFieldNames, traceFields } from '../../../common/decision/trace-context.ts';

const T = '0af7651916cd43dd8448eb211c80319c';
const S = 'b7ad6b7169203331';
const own = { traceId: T, spanId: '00f067aa0ba902b7', sampled: true };
const none = { w3c: false, b3: false };

const brief = (fields: readonly string[]) => {
  const { traceId, parentId, sampled } = readTraceContext(fields);
  return [traceId, parentId, sampled];
};

const cases: readonly (readonly [name: string, fields: readonly string[], context: readonly unknown[]])[] = [
  ['traceparent', ['traceparent', `00-${T}-${S}-01`], [T, S, true]],
  ['traceparent that was not sampled', ['traceparent', `00-${T}-${S}-00`], [T, S, false]],
  ['traceparent of a later version with more behind it', ['traceparent', `cc-${T}-${S}-01-what-else`], [T, S, true]],
  ['B3 in one header', ['b3', `${T}-${S}-1-05e3ac9a4f6e3b90`], [T, S, true]],
  ['B3 with 64 bits', ['b3', `${S}-${S}-0`], [`0000000000000000${S}`, S, false]],
  ['B3 without a decision', ['b3', `${T}-${S}`], [T, S, undefined]],
  ['B3 for debugging', ['b3', `${T}-${S}-d`], [T, S, true]],
  ['a decision of B3 alone', ['b3', '0'], [undefined, undefined, false]],
  ['B3 in several headers', ['x-b3-traceid', T, 'x-b3-spanid', S, 'x-b3-sampled', '1'], [T, S, true]],
  ['B3 in capitals', ['x-b3-traceid', T.toUpperCase(), 'x-b3-spanid', S.toUpperCase(), 'x-b3-sampled', 'false'], [T, S, false]],
  ['debug flag of B3', ['x-b3-traceid', T, 'x-b3-spanid', S, 'x-b3-flags', '1'], [T, S, true]],
  ['W3C before B3', ['b3', `${S}-${S}-0`, 'traceparent', `00-${T}-${S}-01`], [T, S, true]],
  ['B3 where traceparent is nonsense', ['traceparent', 'x', 'b3', `${T}-${S}-1`], [T, S, true]],
];

for (const [name, fields, context] of cases) test(`${name} is read`, () => assert.deepEqual(brief(fields), context));

test('what is malformed is no trace', () => {
  for (const fields of [
    ['traceparent', `00-${T}-${S}-01-more`],
    ['traceparent', `ff-${T}-${S}-01`],
    ['traceparent', `00-${'0'.repeat(32)}-${S}-01`],
    ['traceparent', `00-${T}-${'0'.repeat(16)}-01`],
    ['traceparent', `00-${T.toUpperCase()}-${S}-01`],
    ['traceparent', `00-${T}-${S}-01`, 'traceparent', `00-${T}-${S}-01`],
    ['b3', `${T}x-${S}-1`],
    ['x-b3-traceid', T],
    ['x-b3-traceid', T, 'x-b3-spanid', '0'.repeat(16)],
  ])
    assert.deepEqual(brief(fields), [undefined, undefined, undefined], fields.join(' '));
});

test('a request goes on in the forms in which it came and in those that the receiver wants', () => {
  const w3c = readTraceContext(['traceparent', `00-${T}-${S}-01`, 'tracestate', 'a=1', 'tracestate', 'b=2']);
  assert.deepEqual(traceFields(own, w3c, none), ['traceparent', `00-${T}-${own.spanId}-01`, 'tracestate', 'a=1,b=2']);
  const multi = ['x-b3-traceid', T, 'x-b3-spanid', own.spanId, 'x-b3-sampled', '1', 'x-b3-parentspanid', S];
  assert.deepEqual(traceFields(own, w3c, { w3c: false, b3: true }).slice(4), multi);
  const single = readTraceContext(['b3', `${T}-${S}-1`]);
  assert.deepEqual(traceFields(own, single, none), ['b3', `${T}-${own.spanId}-1-${S}`]);
  assert.deepEqual(traceFields({ ...own, sampled: false }, readTraceContext([]), { w3c: true, b3: false }), [
    'traceparent',
    `00-${T}-${own.spanId}-00`,
  ]);
});

test('whatever comes, what goes on is well formed and reads back as the same trace', () => {
  const name = fc.constantFrom(...traceFieldNames);
  const value = fc.oneof(fc.string({ maxLength: 60 }), fc.constantFrom(`00-${T}-${S}-01`, `${T}-${S}-1`, T, S, '1', '0', 'd'));
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 8 }), fc.boolean(), (pairs, b3) => {
      const came = readTraceContext(pairs.flat());
      const back = readTraceContext(traceFields(own, came, { w3c: !b3, b3 }));
      assert.deepEqual([back.traceId, back.parentId, back.sampled], [own.traceId, own.spanId, true]);
    }),
  );
});
