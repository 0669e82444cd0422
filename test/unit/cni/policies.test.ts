import assert from 'node:assert/strict';
import { test } from 'node:test';
import { appliedPolicy, keepPolicy, type PolicyObject } from '../../../cni/enrol/policies.ts';

type Spec = NonNullable<PolicyObject['spec']>;

const policy = (key: string, spec: Spec = {}, metadata: Partial<PolicyObject['metadata']> = {}): PolicyObject => {
  const [namespace = '', name = ''] = key.split('/');
  return { metadata: { namespace, name, ...metadata }, spec };
};
const mode = (text: string): Spec => ({ mtls: { mode: text } });
const web = { selector: { matchLabels: { app: 'web' } } };

const applied = (peerAuthentications: PolicyObject[], authorizationPolicies: PolicyObject[] = []): string => {
  const pod = { metadata: { namespace: 'shop', name: 'web-1', labels: { app: 'web', version: 'v1' } } };
  const found = appliedPolicy({ peerAuthentications, authorizationPolicies, rootNamespace: 'istio-system' }, pod);
  return found ? `${found.kind} ${found.policy}` : 'none';
};

test('STRICT of the mesh, of the namespace or of the workload applies; the narrowest with a mode decides', () => {
  const mesh = policy('istio-system/default', mode('STRICT'));
  assert.equal(applied([mesh]), 'PeerAuthentication istio-system/default');
  assert.equal(applied([mesh, policy('shop/default', mode('PERMISSIVE'))]), 'none');
  assert.equal(applied([mesh, policy('shop/default', mode('UNSET'))]), 'PeerAuthentication istio-system/default');
  assert.equal(
    applied([policy('shop/default', mode('PERMISSIVE')), policy('shop/web', { ...web, ...mode('STRICT') })]),
    'PeerAuthentication shop/web',
  );
  assert.equal(applied([mesh, policy('shop/web', { ...web, ...mode('DISABLE') })]), 'none');
});

test('STRICT for others, or in another namespace, does not', () => {
  assert.equal(applied([policy('shop/db', { selector: { matchLabels: { app: 'db' } }, ...mode('STRICT') })]), 'none');
  assert.equal(applied([policy('other/default', mode('STRICT'))]), 'none');
  assert.equal(
    applied([policy('istio-system/ztunnel', { ...web, ...mode('STRICT') })]),
    'none',
    "a selector in the root namespace is that namespace's",
  );
});

test('of two as narrow as each other the older decides, and a single STRICT port is enough', () => {
  const [old, young] = [{ creationTimestamp: '2026-01-01T00:00:00Z' }, { creationTimestamp: '2026-02-01T00:00:00Z' }];
  assert.equal(applied([policy('shop/b', mode('STRICT'), young), policy('shop/c', mode('PERMISSIVE'), old)]), 'none');
  assert.equal(applied([policy('shop/b', mode('STRICT'), old), policy('shop/a', mode('PERMISSIVE'), young)]), 'PeerAuthentication shop/b');
  const port = policy('shop/web', { ...web, ...mode('PERMISSIVE'), portLevelMtls: { 8080: { mode: 'STRICT' } } });
  assert.equal(applied([port]), 'PeerAuthentication shop/web');
});

test('an AuthorizationPolicy applies by selector, by namespace, or for the whole mesh', () => {
  for (const key of ['shop/all', 'istio-system/all']) assert.equal(applied([], [policy(key)]), `AuthorizationPolicy ${key}`);
  assert.equal(applied([], [policy('shop/web', { ...web, action: 'DENY' })]), 'AuthorizationPolicy shop/web');
  assert.equal(applied([], [policy('istio-system/web', web)]), 'AuthorizationPolicy istio-system/web');
  assert.equal(applied([], [policy('shop/db', { selector: { matchLabels: { app: 'db' } } })]), 'none');
  assert.equal(applied([], [policy('other/all')]), 'none');
});

test('one that is only tried or only watches restricts nobody', () => {
  assert.equal(applied([], [policy('shop/a', { action: 'AUDIT' })]), 'none');
  assert.equal(applied([], [policy('shop/b', {}, { annotations: { 'istio.io/dry-run': 'true' } })]), 'none');
});

test('one for a waypoint or a service counts for the whole namespace: what is outside the mesh goes past the waypoint', () => {
  assert.equal(applied([], [policy('shop/l7', { targetRefs: [{ kind: 'Service', name: 'db' }] })]), 'AuthorizationPolicy shop/l7');
  assert.equal(applied([], [policy('shop/l7', { targetRef: { kind: 'Gateway', name: 'waypoint' } })]), 'AuthorizationPolicy shop/l7');
  assert.equal(applied([], [policy('istio-system/l7', { targetRefs: [{ kind: 'GatewayClass', name: 'istio-waypoint' }] })]), 'none');
});

test('of a policy no more is kept than decides, and that decides the same', () => {
  const rules = { rules: [{ from: [{ source: { principals: ['secret'] } }] }] } as unknown as Spec;
  const full = policy(
    'shop/web',
    { ...web, action: 'DENY', ...rules },
    { annotations: { 'istio.io/dry-run': 'true', note: 'x' }, managedFields: [1] },
  );
  const kept = keepPolicy(full);
  assert.doesNotMatch(JSON.stringify(kept), /secret|note|managedFields/);
  assert.equal(applied([], [kept]), applied([], [full]));
});
