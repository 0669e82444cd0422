/** RateLimitPolicies: which waypoint is told what, and what their status says of each target. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RateLimits } from '../../../common/codec/gen/waypoint.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;
const GATEWAY_API = 'gateway.networking.k8s.io';
const web = { group: '', kind: 'Service', name: 'web' };
const limit = { name: 'a', requests: 10, per: '1m' };

const policy = (
  o: { name?: string; targetRefs?: Json[]; limits?: Json[]; createdAt?: string; annotations?: Json; namespace?: string } = {},
): Json => ({
  metadata: {
    name: o.name ?? 'few',
    namespace: o.namespace ?? 'shop',
    generation: 3,
    creationTimestamp: o.createdAt ?? '2026-01-01T00:00:00Z',
    annotations: o.annotations ?? {},
  },
  spec: { targetRefs: o.targetRefs ?? [web], limits: o.limits ?? [limit] },
});

const told = (mesh: TranslatedMesh, waypoint = 'wp'): RateLimits[] => {
  mesh.flush();
  return mesh.index.waypointResources('shop', waypoint).rateLimits.map(({ bytes }) => RateLimits.decode(bytes));
};
const accepted = (mesh: TranslatedMesh, name = 'few'): string[] =>
  (mesh.status(`RateLimitPolicy shop/${name}`)?.status?.ancestors ?? []).map((entry) => {
    const { ancestorRef, conditions } = entry as {
      ancestorRef: Json;
      conditions: { status: string; reason: string; observedGeneration: number }[];
    };
    return conditions.map(({ status, reason }) => `${ancestorRef.kind}/${ancestorRef.name} ${status} ${reason}`).join();
  });

test('a Service’s waypoint is told its limits, with the burst that was meant', () => {
  const mesh = TranslatedMesh.shop().set('RateLimitPolicy', policy({ limits: [{ ...limit, by: ['source.principal'] }] }));
  assert.deepEqual(told(mesh), [
    {
      namespace: 'shop',
      name: 'few',
      targets: [{ type: { $case: 'service', value: 'shop/web.shop.svc.cluster.local' } }],
      limits: [{ name: 'a', requests: 10, periodMs: 60_000, burst: 10, by: ['source.principal'], when: [], fairBetween: [] }],
      dryRun: false,
    },
  ]);
  assert.deepEqual(accepted(mesh), ['Service/web True Accepted']);
  mesh.remove('RateLimitPolicy', policy());
  assert.deepEqual(told(mesh), []);
});

test('a status repeats each target as it was written', () => {
  const mesh = TranslatedMesh.shop().set(
    'RateLimitPolicy',
    policy({ targetRefs: [web, { group: GATEWAY_API, kind: 'Gateway', name: 'none' }] }),
  );
  assert.deepEqual(accepted(mesh), ['Service/web True Accepted', 'Gateway/none False TargetNotFound']);
  const [first] = mesh.status('RateLimitPolicy shop/few')?.status?.ancestors ?? [];
  assert.deepEqual((first as { ancestorRef: Json }).ancestorRef, web);
});

test('a route’s limits go to the waypoints that read it, with its rule', () => {
  const target = { group: GATEWAY_API, kind: 'HTTPRoute', name: 'split', sectionName: 'slow' };
  const mesh = TranslatedMesh.shop().set('RateLimitPolicy', policy({ targetRefs: [target] }));
  assert.deepEqual(accepted(mesh), ['HTTPRoute/split False TargetNotFound']);
  mesh.set('HTTPRoute', make.httpRoute({ name: 'split', rules: [{ name: 'slow', backendRefs: [{ name: 'web', port: 80 }] }] }));
  assert.deepEqual(accepted(mesh), ['HTTPRoute/split True Accepted']);
  assert.deepEqual(told(mesh)[0]?.targets, [
    { type: { $case: 'route', value: { service: 'shop/web.shop.svc.cluster.local', route: 'HTTPRoute shop/split', section: 'slow' } } },
  ]);
  mesh.set('HTTPRoute', make.httpRoute({ name: 'split', rules: [{ name: 'fast', backendRefs: [{ name: 'web', port: 80 }] }] }));
  assert.deepEqual(accepted(mesh), ['HTTPRoute/split False TargetNotFound']);
  assert.match(JSON.stringify(mesh.status('RateLimitPolicy shop/few')?.status), /no rule named slow/);
});

test('a route whose service has no waypoint is limited by nobody, and the status says so as it changes', () => {
  const mesh = TranslatedMesh.shop()
    .set('HTTPRoute', make.httpRoute({ name: 'split', rules: [{ backendRefs: [{ name: 'web', port: 80 }] }] }))
    .set('RateLimitPolicy', policy({ targetRefs: [{ group: GATEWAY_API, kind: 'HTTPRoute', name: 'split' }] }));
  assert.deepEqual(accepted(mesh), ['HTTPRoute/split True Accepted']);
  mesh.set('Namespace', make.namespace('shop', {}));
  assert.deepEqual(accepted(mesh), ['HTTPRoute/split False AncestorNotBound']);
});

test('of two policies for one target the older one counts, of equals the first by name, and the other one says so', () => {
  const mesh = TranslatedMesh.shop()
    .set('RateLimitPolicy', policy({ name: 'b', createdAt: '2026-01-02T00:00:00Z' }))
    .set('RateLimitPolicy', policy({ name: 'c', createdAt: '2026-01-02T00:00:00Z' }));
  assert.deepEqual([accepted(mesh, 'b'), accepted(mesh, 'c')], [['Service/web True Accepted'], ['Service/web False Conflicted']]);
  mesh.set('RateLimitPolicy', policy({ name: 'z', createdAt: '2026-01-01T00:00:00Z' }));
  assert.deepEqual([accepted(mesh, 'b'), accepted(mesh, 'z')], [['Service/web False Conflicted'], ['Service/web True Accepted']]);
  assert.deepEqual(
    told(mesh).map(({ name }) => name),
    ['z'],
  );
  mesh.remove('RateLimitPolicy', policy({ name: 'z' }));
  assert.deepEqual(
    told(mesh).map(({ name }) => name),
    ['b'],
  );
  assert.deepEqual(accepted(mesh, 'b'), ['Service/web True Accepted']);
});

test('a Gateway’s limits hold for everything that the waypoint serves, beside those of its services', () => {
  const mesh = TranslatedMesh.shop()
    .set('RateLimitPolicy', policy({ name: 'all', targetRefs: [{ group: GATEWAY_API, kind: 'Gateway', name: 'wp' }] }))
    .set('RateLimitPolicy', policy());
  assert.deepEqual(
    told(mesh).map(({ name, targets }) => [name, targets[0]?.type?.$case]),
    [
      ['all', 'everything'],
      ['few', 'service'],
    ],
  );
});

for (const [what, written, problem, kept] of [
  ['no number', { requests: 0, per: '1s' }, /requests: 0 is no number of requests/, 0],
  ['no period', { requests: 1, per: 'often' }, /per: "often" is no period/, 0],
  ['an attribute that is none', { ...limit, by: ['source.shoeSize', 'request.path'] }, /by: "source.shoeSize" is nothing/, 1],
  ['a condition that is none', { ...limit, when: [{ key: 'moon', values: ['full'] }] }, /when: "moon" is not known/, 1],
  ['a range that is none', { ...limit, when: [{ key: 'source.ip', values: ['everywhere'] }] }, /the values of source.ip cannot be read/, 1],
] as const) {
  test(`a limit with ${what}: what is left of it counts, and the status says what is not as written`, () => {
    const mesh = TranslatedMesh.shop().set('RateLimitPolicy', policy({ limits: [written as Json] }));
    assert.equal(told(mesh)[0]?.limits.length ?? 0, kept);
    assert.match(JSON.stringify(mesh.status('RateLimitPolicy shop/few')?.status).replaceAll('\\"', '"'), problem);
    assert.deepEqual(accepted(mesh), [`Service/web ${kept === 0 ? 'False Invalid' : 'True PartiallyInvalid'}`]);
  });
}

test('dry-run is asked for as of any policy', () => {
  const mesh = TranslatedMesh.shop().set('RateLimitPolicy', policy({ annotations: { 'istio.io/dry-run': 'true' } }));
  assert.equal(told(mesh)[0]?.dryRun, true);
});

test('a policy cannot reach into another namespace', () => {
  const mesh = TranslatedMesh.shop().set(
    'RateLimitPolicy',
    policy({ namespace: 'elsewhere', targetRefs: [{ ...web, namespace: 'shop' }] }),
  );
  assert.deepEqual(told(mesh), []);
});
