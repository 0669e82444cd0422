/** test/istio-istiod.md against the tests that it names: each file is there, and has words of each sentence that stands behind it. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const folder = join(import.meta.dirname, '../..');
/** Not files: a runner of its own, and words in code style. */
const OTHERS = /^(?:conformance|istio|restricted|canonical|subject_alt_names|istio-ca-root-cert)$/;

const fileOf = (name: string): string | undefined =>
  [`${name}.test.ts`, `unit/istiod-lite/${name}.test.ts`, `${name}.ts`, name]
    .map((path) => join(folder, path))
    .find((path) => existsSync(path));

/** Rows of all tables, second column, as pairs of a name in code style and the text up to the next one. */
function* named(): Generator<readonly [name: string, text: string]> {
  for (const line of readFileSync(join(folder, 'istio-istiod.md'), 'utf8').split('\n')) {
    const [, right = ''] = line.split(' | ');
    if (!line.startsWith('| ') || right === '') continue;
    for (const [, name = '', text = ''] of right.matchAll(/`([^`]+)`([^`]*)/g)) if (!OTHERS.test(name)) yield [name, text];
  }
}

test("the table of what Istio's ambient mesh is tested for names files that are there", () => {
  const names = [...named()].map(([name]) => name);
  assert.ok(names.length > 100, String(names.length));
  assert.deepEqual(
    names.filter((name) => fileOf(name) === undefined),
    [],
  );
});

test('of each sentence that it quotes most words stand in the file that it names', () => {
  const astray = [...named()].flatMap(([name, text]) => {
    const file = fileOf(name);
    if (!file?.endsWith('.test.ts')) return [];
    const source = readFileSync(file, 'utf8').toLowerCase();
    const words = [...new Set(text.toLowerCase().match(/[a-z0-9’']{4,}/g) ?? [])];
    const found = words.filter((word) => source.includes(word)).length;
    return words.length > 2 && found < words.length * 0.6 ? [`${name}: ${text.trim()}`] : [];
  });
  assert.deepEqual(astray, []);
});
