import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzz, fuzzOnce } from '../../fuzz/http1.ts';
import * as messages from '../../fuzz/http2-messages.ts';

test('mutated HTTP/1.1 neither crashes, hangs nor leaves anything behind, and means the same at every chunk size', async () => {
  for (let seed = 1; seed <= 100; seed++) await fuzzOnce(seed);
  assert.ok((await fuzz(200, process.env.CI ? 20_261_121 : Date.now() % 1_000_000_000)) > 0);
});

test('mutated requests and responses of HTTP/2 neither crash, hang nor leave anything behind', async () => {
  for (let seed = 1; seed <= 100; seed++) await messages.fuzzOnce(seed);
  assert.ok((await messages.fuzz(200, Date.now() % 1_000_000_000)) > 0);
});
