import assert from 'node:assert/strict';
import { test } from 'node:test';
import { codecs, fuzz, fuzzOnce } from '../../fuzz/codecs.ts';

for (const codec of codecs) {
  test(`mutated input of ${codec.name} gets an answer or a clear no`, () => {
    for (let seed = 1; seed <= 300; seed++) fuzzOnce(codec, seed);
    assert.ok(fuzz(codec, 30, process.env.CI ? 20_261_121 : Date.now() % 1_000_000_000) > 0);
  });
}
