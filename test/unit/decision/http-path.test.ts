import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { normalizePath } from '../../../common/decision/http-path.ts';

for (const [path, normal] of [
  ['/', '/'],
  ['/a/b?c=/../d', '/a/b?c=/../d'],
  ['/x/../admin', '/admin'],
  ['/./admin', '/admin'],
  ['/a/b/..', '/a/'],
  ['/a/.', '/a/'],
  ['/../../admin', '/admin'],
  ['/x/%2e%2E/admin', '/admin'],
  ['/%61dmin', '/admin'],
  ['/x\\..\\admin', '/admin'],
  ['/a%2Fb', '/a%2Fb'],
  ['/a%5cb', '/a%5cb'],
  ['/a%20b%ZZ%', '/a%20b%ZZ%'],
  ['/a//b', '/a//b'],
  ['/a//../b', '/a/b'],
  ['/...', '/...'],
  ['/.hidden', '/.hidden'],
  ['/%252e%252e/admin', '/%252e%252e/admin'],
  ['/%%36%31dmin', '/admin'],
  ['*', '*'],
] as const) {
  test(`${path} is ${normal}`, () => assert.equal(normalizePath(path), normal));
}

test('a normalized path is normal, starts with a slash, and has no dot segments', () => {
  const piece = fc.constantFrom('/', '.', '..', '%2e', '%2E', '\\', 'a', '%61', '%2f', '%', '?', '//', '%36', '%31', '6', '1');
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const once = normalizePath(`/${pieces.join('')}`);
      assert.equal(once[0], '/');
      assert.doesNotMatch(once.split('?')[0] ?? '', /\/\.{1,2}(?:\/|$)/);
      assert.equal(normalizePath(once), once);
    }),
  );
});

test('a path that unfolds a thousand times over costs no more than any other', () => {
  let nested = '3';
  for (let i = 0; i < 4000; i++) nested = `%${nested}3`;
  assert.equal(normalizePath(`/${nested}`), '/3');
});
