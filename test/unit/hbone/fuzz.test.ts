import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzFor, seedOf } from '../../fuzz/campaign.ts';
import { fuzzOnce } from '../../fuzz/http2.ts';

test('mutated HTTP/2 neither crashes, hangs nor leaves anything behind', async () => {
  for (let seed = 1; seed <= 100; seed++) await fuzzOnce(seed);
  assert.ok((await fuzzFor(200, process.env.CI ? 20_261_121 : seedOf(undefined), fuzzOnce)) > 0);
});
