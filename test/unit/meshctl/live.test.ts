/** Figures, edges and policies as meshctl makes them of what proxies count and hold. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { difference, type Picture, type ProxyDelta, type Series } from '../../../meshctl/live/counters.ts';
import { edges } from '../../../meshctl/live/edges.ts';
import { figures, quantile } from '../../../meshctl/live/figures.ts';
import { inFront, meaning, nodePolicies, otherwise, waypointPolicies } from '../../../meshctl/live/policies.ts';

const web = { source_workload: 'web', source_workload_namespace: 'shop', connection_security_policy: 'mutual_tls' };
const orders = {
  destination_service: 'orders.shop.svc.cluster.local',
  destination_workload: 'orders-v1',
  destination_workload_namespace: 'shop',
};
const series = (family: string, labels: Record<string, string>, value: number): Series => ({ family, labels, value });
const opened = 'istio_tcp_connections_opened_total';
const ztunnel = (...of: Series[]): ProxyDelta => ({ kind: 'ztunnel', seconds: 2, series: of });
const waypoint = (...of: Series[]): ProxyDelta => ({ kind: 'waypoint', seconds: 2, series: of });

test('a connection that both ends count is one, and its figures are those of the caller', () => {
  const { edges: found, services } = figures([
    ztunnel(
      series(opened, { ...web, ...orders, reporter: 'source' }, 10),
      series('istio_tcp_connections_failed_total', { ...web, ...orders, reporter: 'source' }, 1),
      series('istio_tcp_received_bytes_total', { ...web, ...orders, reporter: 'source' }, 400),
    ),
    ztunnel(series(opened, { ...web, ...orders, reporter: 'destination' }, 10)),
  ]);
  assert.equal(found.length, 1);
  const [edge] = found;
  assert.deepEqual(
    [edge?.source, edge?.destination, edge?.protocol, edge?.rate, edge?.success, edge?.in, edge?.mtls],
    ['shop/web', 'shop/orders', 'tcp', 5, 0.9, 200, 'yes'],
  );
  assert.deepEqual(
    services.map(({ service, rate }) => [service, rate]),
    [['shop/orders', 5]],
  );
});

test('where a waypoint counts requests, their connections are not shown besides, nor what the waypoint opens itself', () => {
  const request = { ...web, ...orders, reporter: 'waypoint' };
  const { edges: found } = figures(
    [
      ztunnel(series(opened, { ...web, ...orders, reporter: 'source' }, 4)),
      waypoint(
        series('istio_requests_total', { ...request, response_code: '200' }, 18),
        series('istio_requests_total', { ...request, response_code: '503' }, 2),
        series('istio_request_duration_milliseconds_bucket', { ...request, le: '5' }, 10),
        series('istio_request_duration_milliseconds_bucket', { ...request, le: '10' }, 20),
        series('istio_request_duration_milliseconds_bucket', { ...request, le: '+Inf' }, 20),
      ),
      ztunnel(series(opened, { source_workload: 'waypoint', source_workload_namespace: 'shop', ...orders, reporter: 'destination' }, 1)),
    ],
    new Set(['shop/waypoint']),
  );
  assert.equal(found.length, 1);
  const [edge] = found;
  assert.deepEqual([edge?.protocol, edge?.rate, edge?.success, edge?.p50, edge?.p99], ['http', 10, 0.9, 5, 9.9]);
});

test('a caller without a ztunnel is seen from the called end, in the clear; a namespace can be asked for; refusals are by code', () => {
  const plain = { source_workload: 'old', source_workload_namespace: 'legacy', connection_security_policy: 'unknown', ...orders };
  const delta = ztunnel(
    series(opened, { ...plain, reporter: 'destination' }, 2),
    series('warren_refusals_total', { code: 'POLICY_DENIED', policy: 'shop/p' }, 3),
  );
  const { edges: found, refusals } = figures([delta]);
  assert.deepEqual(
    found.map(({ source, mtls }) => [source, mtls]),
    [['legacy/old', 'no']],
  );
  assert.deepEqual(refusals, [{ code: 'POLICY_DENIED', policy: 'shop/p', count: 3 }]);
  assert.equal(figures([delta], new Set(), 'other').edges.length, 0);
  assert.equal(figures([delta], new Set(), 'legacy').edges.length, 1);
});

test('a quantile lies within its bucket, and beyond the last bound is that bound', () => {
  const buckets = new Map([
    [10, 5],
    [20, 10],
    [Infinity, 12],
  ]);
  assert.deepEqual([quantile(buckets, 0), quantile(buckets, 0.5), quantile(buckets, 0.99)], [0, 12, 20]);
  assert.equal(quantile(new Map(), 0.5), undefined);
});

test('the difference of two pictures leaves out what did not change and who was not there, and survives a restart', () => {
  const picture = (timeMs: number, values: Record<string, number>, proxy = 'a'): Picture => ({
    proxies: new Map([
      [proxy, { kind: 'ztunnel', timeMs, series: Object.entries(values).map(([family, value]) => series(family, {}, value)) }],
    ]),
    missing: [],
  });
  const [delta] = difference(
    picture(1000, { same: 5, grown: 5, restarted: 100 }),
    picture(3000, { same: 5, grown: 8, restarted: 7, fresh: 1 }),
  );
  assert.equal(delta?.seconds, 2);
  assert.deepEqual(
    delta?.series.map(({ family, value }) => [family, value]),
    [
      ['grown', 3],
      ['restarted', 7],
      ['fresh', 1],
    ],
  );
  assert.deepEqual(difference(picture(0, {}), picture(1, { all: 9 }, 'new')), []);
});

test('edges carry identities where TLS proved them, and the reason where it did not', () => {
  const [secure, leaving, plain] = edges([
    ztunnel(
      series(
        opened,
        {
          ...web,
          ...orders,
          reporter: 'source',
          source_principal: 'spiffe://x/ns/shop/sa/web',
          destination_principal: 'spiffe://x/ns/shop/sa/orders',
        },
        3,
      ),
      series(opened, { ...web, connection_security_policy: 'unknown', reporter: 'source', destination_workload: 'unknown' }, 1),
      series(opened, { source_workload: 'unknown', ...orders, connection_security_policy: 'unknown', reporter: 'destination' }, 1),
    ),
  ]).sort((a, b) => Number(b.mtls) - Number(a.mtls) || (a.source > b.source ? -1 : 1));
  assert.deepEqual([secure?.client, secure?.server, secure?.why], ['spiffe://x/ns/shop/sa/web', 'spiffe://x/ns/shop/sa/orders', '']);
  assert.deepEqual([leaving?.source, leaving?.mtls, leaving?.why], ['shop/web', false, 'leaves the mesh']);
  assert.deepEqual([plain?.source, plain?.why], ['outside the mesh', 'from outside, or its node']);
});

const dump = {
  workloads: [
    { namespace: 'shop', name: 'orders-1', authorizationPolicies: ['shop/chosen'], services: ['shop/orders.shop.svc.cluster.local'] },
  ],
  services: [
    {
      namespace: 'shop',
      name: 'orders',
      hostname: 'orders.shop.svc.cluster.local',
      vips: [],
      waypoint: { destination: 'shop/wp.shop.svc' },
    },
    { namespace: 'shop', name: 'wp', hostname: 'wp.shop.svc', vips: [] },
  ],
  policies: [
    {
      namespace: 'istio-system',
      name: 'all',
      scope: 'Global',
      action: 'Deny',
      rules: [[[{ notPrincipals: [{ Presence: [] }] }]]],
    },
    {
      namespace: 'shop',
      name: 'chosen',
      scope: 'WorkloadSelector',
      action: 'Allow',
      rules: [[[{ principals: [{ Exact: 'x/ns/a/sa/b' }] }], [{ destinationPorts: [80] }]]],
    },
    { namespace: 'shop', name: 'of-another', scope: 'WorkloadSelector', action: 'Allow', rules: [] },
    { namespace: 'other', name: 'ns', scope: 'Namespace', action: 'Deny', rules: [] },
  ],
};
const pod = { namespace: 'shop', name: 'orders-1' };

test("a pod's policies are those of the mesh, of its namespace and of selectors, each with what it does", () => {
  const found = nodePolicies(dump, pod, 'here');
  assert.deepEqual(
    found.map((policy) => [policy.policy, policy.because, meaning(policy)]),
    [
      ['istio-system/all', 'the whole mesh', 'refuses what has no identity'],
      ['shop/chosen', 'its selector', 'allows from x/ns/a/sa/b, and to port 80'],
    ],
  );
  assert.equal(otherwise(found), 'what no ALLOW rule matches is refused');
  assert.equal(otherwise([]), 'everything is allowed');
});

test('waypoints before a pod are found, and of their policies those for its services', () => {
  assert.deepEqual(inFront(dump, pod), { services: ['shop/orders.shop.svc.cluster.local'], waypoints: ['shop/wp'] });
  const target = (value: string) => ({ type: { $case: 'service', value } });
  const rule = {
    from: [],
    to: [{ methods: [{ type: { $case: 'exact', value: 'GET' } }], paths: [{ type: { $case: 'prefix', value: '/a' } }] }],
    when: [],
  };
  const found = waypointPolicies(
    {
      httpAuthorizations: [
        {
          namespace: 'shop',
          name: 'mine',
          action: 1,
          dryRun: true,
          targets: [target('shop/orders.shop.svc.cluster.local')],
          rules: [rule],
        },
        { namespace: 'shop', name: 'yours', action: 0, targets: [target('shop/other.shop.svc.cluster.local')], rules: [rule] },
      ],
    },
    ['shop/orders.shop.svc.cluster.local'],
    'wp',
  );
  assert.deepEqual(
    found.map((policy) => [policy.policy, policy.because, meaning(policy)]),
    [['shop/mine', 'service shop/orders', 'would refuse (dry run) GET /a*']],
  );
  assert.equal(otherwise(found), 'everything is allowed', 'a dry run decides nothing');
});
