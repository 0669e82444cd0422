import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzFor, seedOf } from '../../fuzz/campaign.ts';
import * as http1 from '../../fuzz/http1.ts';
import * as http2 from '../../fuzz/http2-messages.ts';

const FIRST_SEED = process.env.CI ? 20_261_121 : seedOf(undefined);

test('mutated HTTP/1.1 neither crashes, hangs nor leaves anything behind, and means the same at every chunk size', async () => {
  for (let seed = 1; seed <= 100; seed++) await http1.fuzzOnce(seed);
  assert.ok((await fuzzFor(200, FIRST_SEED, http1.fuzzOnce)) > 0);
});

test('mutated requests and responses of HTTP/2 neither crash, hang nor leave anything behind', async () => {
  for (let seed = 1; seed <= 100; seed++) await http2.fuzzOnce(seed);
  assert.ok((await fuzzFor(200, FIRST_SEED, http2.fuzzOnce)) > 0);
});
