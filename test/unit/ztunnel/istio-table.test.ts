import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

const folder = join(import.meta.dirname, '../..');

test("the table of what Istio's ztunnel is tested for names files that are there", () => {
  const table = readFileSync(join(folder, 'istio-ztunnel.md'), 'utf8');
  const named = [...table.matchAll(/`((?:unit|mesh|interop)\/[\w/-]+)`/g)].map(([, name = '']) => name);
  assert.ok(named.length > 40);
  const missing = named.filter((name) => ![`${name}.test.ts`, `${name}.ts`, name].some((path) => existsSync(join(folder, path))));
  assert.deepEqual([...new Set(missing)], []);
});
