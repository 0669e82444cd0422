import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Gateway, readGateway, readGatewayClass } from '../../../istiod-lite/model/gateway.ts';
import { type BindingRequest, bindWaypoint, publishedWaypoint, waypointCondition } from '../../../istiod-lite/model/waypoint-binding.ts';
import * as make from '../../support/kube-objects.ts';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

function gateways(...objects: Record<string, unknown>[]): Map<string, Gateway> {
  return new Map(
    objects.flatMap((object) => {
      const read = readGateway(config, object, assert.fail);
      return read ? [[read.key, read] as const] : [];
    }),
  );
}

function bind(request: Partial<BindingRequest>, known: Map<string, Gateway>, classLabels: Record<string, string> = {}) {
  const full: BindingRequest = {
    traffic: 'service',
    namespace: 'shop',
    own: { labels: {}, annotations: {} },
    inherited: { labels: {}, annotations: {} },
    namespaceLabels: {},
    namespaceOnly: false,
    ...request,
  };
  const gatewayClass = readGatewayClass({ metadata: { name: 'istio-waypoint', labels: classLabels } }, () => undefined);
  return bindWaypoint(config, full, { gateway: (key) => known.get(key), gatewayClass: () => gatewayClass });
}

const words = (labels: Record<string, string>, annotations: Record<string, string> = {}) => ({ labels, annotations });
const use = (name: string, namespace?: string) =>
  words({ 'istio.io/use-waypoint': name, ...(namespace ? { 'istio.io/use-waypoint-namespace': namespace } : {}) });
const ready = gateways(make.gateway({ name: 'wp' }), make.gateway({ name: 'other' }));

test("an object's own label goes before its namespace's, and none opts out", () => {
  const inherited = use('wp');
  const bound = (own: { labels: Record<string, string>; annotations: Record<string, string> }) => {
    const binding = bind({ own, inherited }, ready);
    return binding.at === 'bound' ? binding.waypoint : binding.at;
  };
  assert.equal(bound(words({})), 'shop/wp');
  assert.equal(bound(use('other')), 'shop/other');
  assert.equal(bound(use('none')), 'unbound');
  assert.equal(bound(use('nobody')), 'absent', 'and does not fall back');
});

test('services of waypoints and of gateways between clusters are never bound', () => {
  for (const managed of ['istio.io-mesh-controller', 'istio.io-eastwest-controller']) {
    assert.equal(bind({ own: words({ 'gateway.istio.io/managed': managed }), inherited: use('wp') }, ready).at, 'unbound');
  }
  assert.equal(
    bind({ own: words({ 'gateway.istio.io/managed': 'istio.io-gateway-controller' }), inherited: use('wp') }, ready).at,
    'bound',
  );
});

test('a waypoint without an address is as good as none: its hostname is published and its absence told', () => {
  const binding = bind({ own: use('wp') }, gateways(make.gateway({ name: 'wp', ready: false })));
  assert.equal(binding.at, 'absent');
  const { destination } = publishedWaypoint(binding) ?? {};
  assert.deepEqual(destination, { $case: 'hostname', value: { namespace: 'shop', hostname: 'wp.shop.svc.cluster.local' } });
  assert.equal(waypointCondition(binding, undefined)?.reason, 'WaypointIsNotReady');
});

test('a waypoint of another namespace must let this one in', () => {
  const reason = (from: string) => {
    const known = gateways(make.gateway({ name: 'wp', namespace: 'infra', from }));
    const binding = bind({ own: use('wp', 'infra') }, known);
    return binding.at === 'rejected' ? binding.reason : binding.at;
  };
  assert.equal(reason('All'), 'bound');
  assert.equal(reason('Same'), 'AttachmentDenied');
  assert.equal(reason('Selector'), 'AttachmentDenied', 'a selector that is missing lets nobody in');
});

test('what only its own namespace may see goes through no waypoint of another one', () => {
  const known = gateways(make.gateway({ name: 'wp', namespace: 'infra', from: 'All' }));
  const binding = bind({ own: use('wp', 'infra'), namespaceOnly: true }, known);
  assert.equal(binding.at === 'rejected' && binding.reason, 'CrossNamespaceWaypointForbidden');
});

test('which traffic a waypoint takes is said by its label, else by its class, else it takes services', () => {
  const known = gateways(make.gateway({ name: 'wp' }));
  const own = use('wp');
  assert.equal(bind({ own }, known).at, 'bound');
  assert.equal(bind({ own, traffic: 'workload' }, known).at, 'rejected');
  assert.equal(bind({ own, traffic: 'workload' }, known, { 'istio.io/waypoint-for': 'all' }).at, 'bound');
  const none = gateways(make.gateway({ name: 'wp', labels: { 'istio.io/waypoint-for': 'none' } }));
  assert.equal(bind({ own }, none, { 'istio.io/waypoint-for': 'all' }).at, 'rejected');
});

test('a workload follows its namespace only to a waypoint that takes workloads; others are not its business', () => {
  const inherited = use('wp');
  assert.equal(bind({ traffic: 'workload', inherited }, ready).at, 'unbound');
  assert.equal(bind({ traffic: 'workload', inherited }, new Map()).at, 'unbound');
  const all = (isReady: boolean) => gateways(make.gateway({ name: 'wp', ready: isReady, labels: { 'istio.io/waypoint-for': 'all' } }));
  assert.equal(bind({ traffic: 'workload', inherited }, all(true)).at, 'bound');
  assert.equal(bind({ traffic: 'workload', inherited }, all(false)).at, 'absent');
});

test('a canary takes its share, and whatever is wrong with it leaves the primary bound', () => {
  const weights = (labels: Record<string, string>, weight?: string) => {
    const own = words(
      { 'istio.io/use-waypoint': 'wp', ...labels },
      weight === undefined ? {} : { 'istio.io/use-waypoint-canary-weight': weight },
    );
    const binding = bind({ own }, ready);
    assert.equal(binding.at, 'bound');
    return binding.at === 'bound' ? [binding.weighted.map(({ weight: share }) => share), binding.canaryProblem !== undefined] : [];
  };
  assert.deepEqual(weights({ 'istio.io/use-waypoint-canary': 'other' }, '5'), [[95, 5], false]);
  assert.deepEqual(weights({ 'istio.io/use-waypoint-canary': 'other' }), [[100, 0], false]);
  assert.deepEqual(weights({ 'istio.io/use-waypoint-canary': 'other' }, '101'), [[], true]);
  assert.deepEqual(weights({ 'istio.io/use-waypoint-canary': 'wp' }, '5'), [[], true]);
  assert.deepEqual(weights({ 'istio.io/use-waypoint-canary': 'nobody' }, '5'), [[], true]);
  assert.deepEqual(weights({}), [[], false]);
});

test('an address without a hostname will do, and the port is always that of HBONE', () => {
  const object = { ...make.gateway({ name: 'wp' }), status: { addresses: [{ value: '10.96.0.5' }] } };
  assert.deepEqual(publishedWaypoint(bind({ own: use('wp') }, gateways(object))), {
    destination: { $case: 'address', value: { network: '', address: Uint8Array.of(10, 96, 0, 5), length: undefined } },
    hboneMtlsPort: 15008,
  });
});
