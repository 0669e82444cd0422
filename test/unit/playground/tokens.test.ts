import assert from 'node:assert/strict';
import { createPublicKey, verify, type webcrypto } from 'node:crypto';
import { test } from 'node:test';
import { hours } from '../../../common/base/clock.ts';
import { Tokens } from '../../../playground/apiserver/identity/tokens.ts';
import { apiStore, pod } from '../../support/api-store.ts';

const issuer = 'https://issuer';

function start() {
  const { store, clock } = apiStore();
  const tokens = new Tokens({ clock, issuer, find: (kind, name, namespace) => store.get(kind, name, namespace) });
  const issue = (fields: object = {}): string =>
    tokens.issue({ namespace: 'default', serviceAccount: 'default', ...fields })?.token ?? assert.fail('no such account');
  return { store, clock, tokens, issue };
}

test("a token names its service account, and the server's own audience where none is asked for", () => {
  const { store, tokens, issue } = start();
  const verdict = tokens.review(issue());
  assert.ok('user' in verdict);
  assert.equal(verdict.user.username, 'system:serviceaccount:default:default');
  assert.equal(verdict.user.uid, store.get('ServiceAccount', 'default', 'default')?.metadata.uid);
  assert.deepEqual(verdict.user.groups, ['system:serviceaccounts', 'system:serviceaccounts:default', 'system:authenticated']);
  assert.deepEqual(verdict.audiences, [issuer]);
});

test('a token is for its audiences only', () => {
  const { tokens, issue } = start();
  const token = issue({ audiences: ['istio-ca', 'other'] });
  assert.match(JSON.stringify(tokens.review(token)), /token audiences .*istio-ca.* is invalid for the target audiences/);
  assert.deepEqual(tokens.review(token, ['vault', 'istio-ca']), { ...tokens.review(token, ['istio-ca']), audiences: ['istio-ca'] });
});

test('a token expires, after ten minutes at the least', () => {
  const { clock, tokens, issue } = start();
  const token = issue({ expirationSeconds: 60 });
  clock.jump(599_000);
  assert.ok('user' in tokens.review(token));
  clock.jump(2_000);
  assert.deepEqual(tokens.review(token), { error: 'invalid bearer token, service account token has expired' });
  assert.ok('user' in tokens.review(issue({ expirationSeconds: 60 })));
  clock.jump(-hours(1));
  assert.match(JSON.stringify(tokens.review(issue())), /user/);
});

test('a token bound to a pod says which, and ends with it', () => {
  const { store, tokens, issue } = start();
  const { uid = '' } = store.create(pod('a', {}, { nodeName: 'n1' })).metadata;
  const token = issue({ boundPod: { name: 'a', uid, nodeName: 'n1' } });
  const verdict = tokens.review(token);
  assert.ok('user' in verdict);
  const { 'authentication.kubernetes.io/credential-id': _, ...extra } = verdict.user.extra ?? {};
  assert.deepEqual(extra, {
    'authentication.kubernetes.io/pod-name': ['a'],
    'authentication.kubernetes.io/pod-uid': [uid],
    'authentication.kubernetes.io/node-name': ['n1'],
  });
  store.delete('Pod', 'a', 'default', { gracePeriodSeconds: 0 });
  assert.match(JSON.stringify(tokens.review(token)), /the pod that it is bound to has been deleted/);
});

test('a token ends with its service account, even if another of the name comes', () => {
  const { store, tokens, issue } = start();
  const token = issue();
  store.delete('ServiceAccount', 'default', 'default');
  store.create({ apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'default', namespace: 'default' } });
  assert.deepEqual(tokens.review(token), { error: 'invalid bearer token, service account has been deleted' });
});

test('what is no token, or signed by another, is refused', () => {
  const { tokens, issue } = start();
  const [head, body, signature] = issue().split('.');
  const forged = Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(body ?? '', 'base64url').toString()), sub: 'admin' })).toString(
    'base64url',
  );
  for (const token of ['', 'x', 'a.b.c', `${head}.${forged}.${signature}`, `${head}.${body}.${signature}.x`, start().issue()]) {
    assert.deepEqual(tokens.review(token), { error: 'invalid bearer token' }, token.slice(0, 20));
  }
});

test('the published key verifies tokens', () => {
  const { tokens, issue } = start();
  const [key] = (tokens.jwks() as { keys: webcrypto.JsonWebKey[] }).keys;
  const [head, body, signature = ''] = issue().split('.');
  const publicKey = createPublicKey({ key: key ?? assert.fail('no key'), format: 'jwk' });
  assert.ok(
    verify('sha256', Buffer.from(`${head}.${body}`), { key: publicKey, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url')),
  );
});
