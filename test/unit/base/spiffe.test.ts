import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatSpiffeId, parseSpiffeId } from '../../../common/base/spiffe.ts';

test('an identity is read and written as Istio does', () => {
  const id = parseSpiffeId('spiffe://cluster.local/ns/shop/sa/web');
  assert.deepEqual(id, { trustDomain: 'cluster.local', namespace: 'shop', serviceAccount: 'web' });
  assert.equal(formatSpiffeId(id ?? assert.fail()), 'spiffe://cluster.local/ns/shop/sa/web');
});

test('anything but the five pieces is no identity', () => {
  for (const bad of [
    '',
    'cluster.local/ns/a/sa/b',
    'spiffe://td/ns/a/sa',
    'spiffe://td/ns/a/sa/b/c',
    'spiffe://td/sa/a/ns/b',
    'https://td/ns/a/sa/b',
  ]) {
    assert.equal(parseSpiffeId(bad), undefined, bad);
  }
});
