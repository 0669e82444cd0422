import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NodeAuthorizer, type PodFacts } from '../../../istiod-lite/access/node-authorizer.ts';
import type { Caller } from '../../../istiod-lite/access/token-review.ts';

const ORDERS = 'spiffe://cluster.local/ns/shop/sa/orders';
const pod = (more: Partial<PodFacts> = {}): PodFacts => ({
  namespace: 'shop',
  name: 'orders-1',
  uid: 'u1',
  serviceAccount: 'orders',
  node: 'n1',
  failed: false,
  ...more,
});
const ztunnel = (more: Partial<PodFacts> = {}): PodFacts =>
  pod({ namespace: 'istio-system', name: 'zt', uid: 'z1', serviceAccount: 'ztunnel', ...more });
const caller: Caller = { namespace: 'istio-system', serviceAccount: 'ztunnel', podName: 'zt', podUid: 'z1' };

function verdict(pods: PodFacts[], who: Partial<Caller> = {}, identity = ORDERS): string {
  const authorizer = new NodeAuthorizer(['istio-system/ztunnel']);
  for (const facts of pods) authorizer.podChanged(facts);
  const answer = authorizer.authorize({ ...caller, ...who }, identity);
  return answer.allowed ? 'allowed' : answer.reason;
}

test('a ztunnel may have the identity of a pod on its node', () => {
  assert.equal(verdict([ztunnel(), pod()]), 'allowed');
  assert.equal(verdict([ztunnel(), pod()], {}, 'spiffe://another.domain/ns/shop/sa/orders'), 'allowed');
});

test('each condition of node authorisation refuses by itself', () => {
  assert.match(verdict([ztunnel(), pod()], { serviceAccount: 'default' }), /default is not trusted/);
  assert.match(verdict([ztunnel(), pod()], { namespace: 'shop' }), /shop\/ztunnel is not trusted/);
  assert.match(verdict([ztunnel(), pod()], {}, 'orders'), /is no SPIFFE identity/);
  assert.match(verdict([pod()]), /istio-system\/zt is not known/);
  assert.match(verdict([ztunnel(), pod()], { podName: '' }), /\(none in the token\) is not known/);
  assert.match(verdict([ztunnel({ uid: 'new' }), pod()]), /another uid/);
  assert.match(verdict([ztunnel({ serviceAccount: 'other' }), pod()]), /runs as other/);
  assert.match(verdict([ztunnel({ node: '' }), pod()]), /on no node/);
  assert.match(verdict([ztunnel(), pod({ node: 'n2' })]), /no pod of shop\/orders runs on node n1/);
  assert.match(verdict([ztunnel(), pod({ failed: true })]), /no pod of shop\/orders/);
  assert.match(verdict([ztunnel(), pod({ serviceAccount: 'default' })]), /no pod of shop\/orders/);
  assert.match(verdict([ztunnel(), pod({ namespace: 'shop2' })]), /no pod of shop\/orders/);
});

test('an identity is gone from a node with its last pod', () => {
  const authorizer = new NodeAuthorizer(['istio-system/ztunnel']);
  const allowed = (): boolean => authorizer.authorize(caller, ORDERS).allowed;
  authorizer.podChanged(ztunnel());
  authorizer.podChanged(pod());
  authorizer.podChanged(pod());
  authorizer.podChanged(pod({ name: 'orders-2', uid: 'u2' }));
  authorizer.podRemoved(pod());
  assert.equal(allowed(), true);
  authorizer.podChanged(pod({ name: 'orders-2', uid: 'u2', failed: true }));
  assert.equal(allowed(), false);
  authorizer.podRemoved({ namespace: 'shop', name: 'orders-2' });
  authorizer.podRemoved({ namespace: 'shop', name: 'never-was' });
  authorizer.podChanged(pod({ name: 'orders-3', node: '' }));
  assert.equal(allowed(), false);
  authorizer.podChanged(pod({ name: 'orders-3' }));
  assert.equal(allowed(), true);
});
