/** Expressions of users: what they come to, what is refused and where, and that nothing that anybody writes throws when it runs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type CelAttributes, compileCel } from '../../../common/decision/cel.ts';
import { CelSyntaxError, parseCel } from '../../../common/decision/cel-syntax.ts';
import { CelError, CelTime, type CelValue, celText } from '../../../common/decision/cel-values.ts';

interface Subject {
  readonly code?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly path?: string;
  readonly ms?: number;
}

const attributes: CelAttributes<Subject> = new Map([
  ['response.code', { type: 'int', read: ({ code }: Subject) => (code === undefined ? undefined : BigInt(code)) }],
  ['request.path', { type: 'string', read: ({ path }: Subject) => path }],
  ['request.duration', { type: 'duration', read: ({ ms }: Subject) => (ms === undefined ? undefined : new CelTime('duration', ms)) }],
  ['request.time', { type: 'timestamp', read: () => new CelTime('timestamp', Date.UTC(2026, 10, 21, 19, 5, 7)) }],
  ['connection.mtls', { type: 'bool', read: () => true }],
  ['request.headers', { entries: 'string', read: ({ headers }: Subject, name: string) => headers?.[name] }],
]);

const run = (source: string, subject: Subject = {}): CelValue => compileCel(source, attributes).evaluate(subject);

function problem(source: string): string {
  try {
    compileCel(source, attributes);
  } catch (error) {
    assert.ok(error instanceof CelSyntaxError);
    return error.message;
  }
  return 'accepted';
}

const request: Subject = { code: 503, path: '/api/v1', ms: 750, headers: { 'x-team': 'blue', 'user-agent': 'curl/8' } };

const cases: readonly (readonly [source: string, value: CelValue])[] = [
  ['response.code >= 500', true],
  ['response.code == 503 && request.path.startsWith("/api")', true],
  ['response.code in [200, 204]', false],
  ['response.code / 100 == 5', true],
  ['-7 / 2', -3n],
  ['-7 % 3', -1n],
  ['1.5 + 2.0', 3.5],
  ['1 == 1.0', true],
  ['2 < 2.5', true],
  ['0x10 + 010', 26n],
  ['7u', 7n],
  ['1e3 == 1000.0', true],
  ['.5 < 1.0', true],
  ["request.headers['x-team']", 'blue'],
  ['request.headers["x-" + "team"]', 'blue'],
  ["'x-team' in request.headers", true],
  ["'x-none' in request.headers", false],
  ['has(request.headers["x-none"])', false],
  ['has(request.path)', true],
  ["has(request.headers.none) ? request.headers.none : 'unknown'", 'unknown'],
  ['request.duration > duration("500ms")', true],
  ['request.duration + duration("250ms") == duration("1s")', true],
  ['request.time > timestamp("2026-01-01T00:00:00Z")', true],
  ['request.time.getHours()', 19n],
  ['request.time - timestamp("2026-11-21T19:05:00Z") == duration("7s")', true],
  ["request.path.matches('v[0-9]')", true],
  ["request.path.contains('v2') || request.path.endsWith('1')", true],
  ['string(response.code) + "x"', '503x'],
  ['int("42") + 1', 43n],
  ['size(request.path) == 7', true],
  ['"ä".size()', 1n],
  ['[1, 2, 3,][1]', 2n],
  ['[1] + [2] == [1, 2]', true],
  ['!connection.mtls', false],
  ['connection.mtls ? 1 : 2', 1n],
  ["r'a\\n' == 'a\\\\n'", true],
  ['"\\u00e4\\x41\\101" == "äAA"', true],
  ['\'\'\'a\'b\'\'\' + """c"d"""', `a'bc"d`],
  ['true || request.headers.none == "a"', true],
  ['request.headers.none == "a" || true', true],
  ['request.headers.none == "a" && false', false],
  ['null == null', true],
  ['bool("true")', true],
  ['// a comment\n1', 1n],
];

for (const [source, value] of cases) {
  test(`${source.replaceAll('\n', ' ')} is ${String(value)}`, () => assert.deepEqual(run(source, request), value));
}

test('an absent attribute is an error, which comparisons pass on and a filter takes for no', () => {
  for (const source of [
    'response.code == 200',
    'request.headers.none == "a" || false',
    'request.path + "x"',
    '!has(request.path) && response.code > 1',
  ])
    assert.equal(run(source) instanceof CelError || run(source) === false, true, source);
  assert.ok(run('response.code > 1') instanceof CelError);
});

test('what does not fit is an error and no wrong number', () => {
  for (const source of ['9223372036854775807 + 1', '1 / (response.code - 503)', '1 % 0', '[1][response.code]', 'int("x")'])
    assert.ok((source === 'int("x")' ? undefined : run(source, request)) instanceof CelError || problem(source) !== 'accepted', source);
});

test('times that no calendar has are errors, where a header says them as well', () => {
  const much: Subject = { ...request, headers: { age: '99999999999999999999h' } };
  for (const source of [
    'request.time + duration(request.headers.age)',
    '(request.time + duration(request.headers.age)).getFullYear()',
    'string(request.time - duration("87000000h"))',
    'timestamp(response.code * 9000000000000000)',
    '(response.code > 0 ? request.time : 1) + request.time',
    'duration("1h") - (response.code > 0 ? request.time : 1)',
    '-(response.code > 0 ? request.time : 1)',
  ])
    assert.ok(run(source, much) instanceof CelError, source);
  assert.equal(problem('timestamp(9000000000000000)'), 'at character 11: the timestamp is out of range');
  assert.equal(problem('duration("99999999999999999999h")'), 'at character 10: the duration is out of range');
});

const refused: readonly (readonly [source: string, message: string])[] = [
  ['', 'at character 1: the expression has no end'],
  ['response.code =', 'at character 15: "=" is not understood'],
  ["response.code == '200'", 'at character 15: == does not go with int and string'],
  ['request.colour', 'at character 9: there is no attribute request.colour'],
  ['requests.path', 'at character 1: there is no attribute requests'],
  ['request.path.foo', 'at character 14: there is no attribute request.path.foo'],
  ['request.headers == "a"', 'at character 9: request.headers is a map: one of its values is needed'],
  ['request.path && true', 'at character 9: && takes bool, and this is string'],
  ['!request.path', 'at character 1: ! takes bool, and this is string'],
  ['[1].exists(x, x == 1)', 'at character 5: there is no function exists'],
  ['request.path.lowerAscii()', 'at character 14: there is no function lowerAscii'],
  ['foo(1)', 'at character 1: there is no function foo'],
  ['request.path.matches("(?=a)")', 'at character 22: look-around and back-references are not supported'],
  ['request.path.matches("[")', 'at character 22: Invalid regular expression: /[/: Unterminated character class'],
  ['request.path.matches(request.path)', 'at character 30: matches takes a text that is written out'],
  ['duration("soon") < request.duration', 'at character 10: "soon" is no duration'],
  ['"open', 'at character 1: the text has no end'],
  ['b"a"', 'at character 1: bytes are not supported'],
  ['{"a": 1}', 'at character 1: "{" is not expected here'],
  ['1 2', 'at character 3: "2" is not expected here'],
  ['"\\q"', 'at character 2: this escape is not understood'],
  ['99999999999999999999', 'at character 1: 99999999999999999999 is too large'],
  ['if', 'at character 1: "if" is not expected here'],
];

for (const [source, message] of refused) test(`${source} is refused`, () => assert.equal(problem(source), message));

test('an expression of another type than the one needed is refused', () => {
  assert.throws(() => compileCel('response.code', attributes, 'bool'), /of type int, where bool is needed/);
  assert.equal(compileCel('response.code > 1', attributes, 'bool').type, 'bool');
});

test('size and depth are limited', () => {
  assert.match(problem(`"${'a'.repeat(5000)}"`), /longer than 4096/);
  assert.match(problem(`${'('.repeat(100)}1${')'.repeat(100)}`), /more than 64 deep/);
  assert.match(problem('!'.repeat(1000).concat('true')), /more than 64 deep/);
  assert.match(problem(Array(200).fill('1').join('+')), /more than 64 operators/);
  assert.match(problem(`request${'.a'.repeat(200)}`), /more than 64 members/);
});

test('a pattern that explodes elsewhere ends at once here', () => {
  assert.equal(run("request.path.matches('^(a|a)*$')", { path: 'b'.repeat(50) }), false);
});

test('values as tags: numbers, durations and lists have one spelling, errors have none', () => {
  assert.deepEqual([503n, true, 'a', 1.5, new CelTime('duration', 1500), ['a', 1n], null, new CelError('x')].map(celText), [
    '503',
    'true',
    'a',
    '1.5',
    '1.5s',
    'a,1',
    undefined,
    undefined,
  ]);
});

test('no text makes the parser fail otherwise than by its own error, and what compiles runs', () => {
  const pieces = fc.constantFrom(
    'request.path',
    'response.code',
    '1',
    '"a"',
    '(',
    ')',
    '[',
    ']',
    '==',
    '+',
    '-',
    '!',
    '?',
    ':',
    '&&',
    'in',
    'has(',
    ',',
    'true',
    '.',
    'size(',
    'string(',
    'request.time',
    'request.duration',
    'timestamp(',
    'duration(',
    '"87000000h"',
    '253402300799',
    '9223372036854775807',
    '.getFullYear()',
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string({ maxLength: 40 }),
        fc.array(pieces, { maxLength: 12 }).map((all) => all.join(' ')),
      ),
      (source) => {
        try {
          parseCel(source);
          celText(compileCel(source, attributes).evaluate(request));
        } catch (error) {
          assert.ok(error instanceof CelSyntaxError, String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});
