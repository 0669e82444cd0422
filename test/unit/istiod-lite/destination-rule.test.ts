/** DestinationRules from the object to what a waypoint is told, and what their status says. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Balancing, type ServiceTraffic, UpstreamHttp } from '../../../common/codec/gen/waypoint.ts';
import { compileTraffic, policyOf } from '../../../common/decision/traffic-model.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

type Json = Record<string, unknown>;

const rule = (spec: Json, meta: { name?: string; namespace?: string; createdAt?: string } = {}): Json =>
  make.destinationRule({ name: 'd', ...meta, spec: { host: 'web', ...spec } });

const trafficOf = (spec: Json): ServiceTraffic => {
  const [traffic] = TranslatedMesh.shop().set('DestinationRule', rule(spec)).traffic();
  return traffic ?? assert.fail('nothing is told');
};

test('a port has what it says and nothing of its service; a subset has what it says and inherits the rest', () => {
  const compiled = compileTraffic(
    trafficOf({
      trafficPolicy: {
        loadBalancer: { simple: 'RANDOM' },
        outlierDetection: { consecutive5xxErrors: 3 },
        portLevelSettings: [{ port: { number: 81 }, loadBalancer: { simple: 'LEAST_REQUEST' } }],
      },
      subsets: [
        { name: 'plain', labels: { version: 'v1' } },
        { name: 'own', labels: { version: 'v2' }, trafficPolicy: { loadBalancer: { simple: 'ROUND_ROBIN' } } },
      ],
    }),
  );
  const told = (port: number, subset: string) => {
    const policy = policyOf(compiled, port, subset);
    return [policy?.balancing, policy?.outliers?.consecutive5xx];
  };
  assert.deepEqual(told(80, ''), ['random', 3]);
  assert.deepEqual(told(81, ''), ['least_request', undefined]);
  assert.deepEqual(told(80, 'plain'), ['random', 3]);
  assert.deepEqual(told(80, 'own'), ['round_robin', 3]);
  assert.deepEqual(told(81, 'own'), ['least_request', undefined]);
});

test('every setting of a policy arrives in the units of the waypoint', () => {
  const { policy } = trafficOf({
    trafficPolicy: {
      loadBalancer: {
        consistentHash: { httpCookie: { name: 'user', path: '/p', ttl: '1h' }, maglev: { tableSize: '101' } },
        localityLbSetting: { distribute: [{ from: 'r1/*', to: { 'r1/z1': 80, 'r2/*': 20 } }] },
        warmup: { duration: '30s', minimumPercent: 5, aggression: 2 },
      },
      connectionPool: {
        tcp: { maxConnections: 7, connectTimeout: '30ms', maxConnectionDuration: '1h', idleTimeout: '90s' },
        http: {
          http1MaxPendingRequests: 1,
          http2MaxRequests: 2,
          maxRequestsPerConnection: 3,
          maxRetries: 4,
          idleTimeout: '5s',
          h2UpgradePolicy: 'UPGRADE',
        },
      },
      outlierDetection: {
        consecutiveGatewayErrors: 2,
        interval: '1s',
        baseEjectionTime: '1m',
        maxEjectionPercent: 50,
        minHealthPercent: 20,
      },
      tls: { mode: 'SIMPLE', subjectAltNames: ['a.example'] },
      proxyProtocol: { version: 'V2' },
      retryBudget: { percent: 25, minRetryConcurrency: 10 },
    },
  });
  assert.deepEqual(policy?.loadBalancer?.consistentHash, {
    key: { $case: 'cookie', value: { name: 'user', path: '/p', ttlS: 3600 } },
    table: { $case: 'maglevSize', value: 101 },
  });
  assert.deepEqual(policy?.loadBalancer?.locality?.distribute, [{ from: 'r1/*', to: { 'r1/z1': 80, 'r2/*': 20 } }]);
  assert.deepEqual(policy?.loadBalancer?.warmup, { durationMs: 30_000, minimumPercent: 5, aggressionMilli: 2000 });
  assert.deepEqual(policy?.connectionPool, {
    maxConnections: 7,
    connectTimeoutMs: 30,
    maxConnectionDurationMs: 3_600_000,
    maxPendingRequests: 1,
    maxRequests: 2,
    maxRequestsPerConnection: 3,
    maxRetries: 4,
    idleTimeoutMs: 5000,
    tcpIdleTimeoutMs: 90_000,
    maxConcurrentStreams: 0,
    http: UpstreamHttp.HTTP2,
  });
  assert.deepEqual([policy?.outlierDetection?.consecutive5xx, policy?.outlierDetection?.consecutiveGatewayErrors], [undefined, 2]);
  assert.deepEqual([policy?.outlierDetection?.baseEjectionMs, policy?.outlierDetection?.minHealthPercent], [60_000, 20]);
  assert.deepEqual([policy?.tls?.serverName, policy?.tls?.subjectAltNames], ['web.shop.svc.cluster.local', ['a.example']]);
  assert.deepEqual([policy?.proxyProtocol, policy?.retryBudget?.percent, policy?.retryBudget?.minConcurrency], [2, 25, 10]);
});

test('keep-alive probes that nobody sends are told in the status', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('DestinationRule', rule({ trafficPolicy: { connectionPool: { tcp: { tcpKeepalive: { time: '60s' } } } } }));
  assert.deepEqual(mesh.conditions('DestinationRule shop/d'), ['WaypointAccepted=True UnsupportedValue']);
});

test('PEAK_EWMA is asked for by an annotation, and holds where the rule leaves the choice open or asks for the least busy one', () => {
  const balancing = (spec: Json, word = 'PEAK_EWMA') => {
    const mesh = TranslatedMesh.shop();
    const object = rule(spec) as { metadata: Record<string, unknown> };
    mesh.set('DestinationRule', { ...object, metadata: { ...object.metadata, annotations: { 'warren.dev/load-balancer': word } } });
    return { policy: mesh.traffic()[0]?.policy?.loadBalancer?.balancing, mesh };
  };
  assert.equal(balancing({}).policy, Balancing.PEAK_EWMA);
  assert.equal(balancing({ trafficPolicy: { loadBalancer: { simple: 'LEAST_REQUEST' } } }).policy, Balancing.PEAK_EWMA);
  assert.equal(balancing({ trafficPolicy: { loadBalancer: { simple: 'ROUND_ROBIN' } } }).policy, Balancing.ROUND_ROBIN);
  const wrong = balancing({}, 'FASTEST');
  assert.notEqual(wrong.policy, Balancing.PEAK_EWMA);
  assert.deepEqual(wrong.mesh.conditions('DestinationRule shop/d'), ['WaypointAccepted=True UnsupportedValue']);
});

test('a subset is of labels, and the waypoint is told those labels of the pods of that namespace', () => {
  const mesh = TranslatedMesh.shop().set('DestinationRule', rule({ subsets: [{ name: 'v1', labels: { version: 'v1' } }] }));
  mesh.set('Pod', make.pod({ name: 'a', labels: { app: 'web', version: 'v1' } }));
  mesh.set('Pod', make.pod({ name: 'b', namespace: 'other', labels: { version: 'v1' } }));
  assert.deepEqual(
    mesh.labels().map(({ uid, labels }) => [uid, labels]),
    [['Kubernetes//Pod/shop/a', { version: 'v1' }]],
  );
  mesh.set('Pod', make.pod({ name: 'a', labels: { app: 'web', version: 'v2' } }));
  assert.deepEqual(
    mesh.labels().map(({ uid, labels }) => [uid, labels]),
    [['Kubernetes//Pod/shop/a', { version: 'v2' }]],
  );
  mesh.remove('DestinationRule', rule({}));
  assert.deepEqual([mesh.labels(), mesh.traffic()], [[], []]);
});

test('settings of a service that is only sent to are told to the waypoint that sends there', () => {
  const mesh = TranslatedMesh.shop()
    .set('Namespace', make.namespace('far'))
    .set('Service', make.service({ name: 'v2', namespace: 'far' }));
  mesh.set(
    'DestinationRule',
    make.destinationRule({ name: 'd', namespace: 'far', spec: { host: 'v2', trafficPolicy: { loadBalancer: { simple: 'RANDOM' } } } }),
  );
  assert.deepEqual(mesh.traffic(), []);
  const host = 'v2.far.svc.cluster.local';
  mesh.set('VirtualService', make.virtualService({ name: 'v', spec: { hosts: ['web'], http: [{ route: [{ destination: { host } }] }] } }));
  assert.deepEqual(
    mesh.traffic().map(({ hostname, policy }) => [hostname, policy?.loadBalancer?.balancing]),
    [[host, Balancing.RANDOM]],
  );
});

test("the waypoint's namespace has the first word, then the service's, then the root's; of one namespace subsets add up", () => {
  const mesh = TranslatedMesh.shop();
  const simple = (word: string): Json => ({ host: 'web.shop.svc.cluster.local', trafficPolicy: { loadBalancer: { simple: word } } });
  mesh.set('DestinationRule', rule(simple('RANDOM'), { namespace: 'istio-system' }));
  const balancing = () => mesh.traffic()[0]?.policy?.loadBalancer?.balancing;
  assert.equal(balancing(), Balancing.RANDOM);
  mesh.set(
    'DestinationRule',
    rule({ ...simple('ROUND_ROBIN'), subsets: [{ name: 'a', labels: { v: 'a' } }] }, { name: 'one', createdAt: '2026-01-01T00:00:00Z' }),
  );
  mesh.set(
    'DestinationRule',
    rule({ ...simple('LEAST_REQUEST'), subsets: [{ name: 'b', labels: { v: 'b' } }] }, { name: 'two', createdAt: '2026-01-02T00:00:00Z' }),
  );
  assert.equal(balancing(), Balancing.ROUND_ROBIN);
  assert.deepEqual(
    mesh.traffic()[0]?.subsets.map(({ name }) => name),
    ['a', 'b'],
  );
  assert.deepEqual(mesh.conditions('DestinationRule istio-system/d'), ['WaypointAccepted=False Conflicted']);
  mesh.set('DestinationRule', rule({ ...simple('RANDOM'), exportTo: ['nowhere'] }, { name: 'one', createdAt: '2026-01-01T00:00:00Z' }));
  assert.equal(balancing(), Balancing.LEAST_REQUEST, 'what is not exported is not seen');
});

test('what cannot be carried out without doing less refuses requests, and the status says which it is', () => {
  const mesh = TranslatedMesh.shop().set('DestinationRule', rule({ trafficPolicy: { tls: { mode: 'MUTUAL' } } }));
  assert.match(mesh.traffic()[0]?.policy?.refuse ?? '', /tls.mode MUTUAL/);
  assert.deepEqual(mesh.conditions('DestinationRule shop/d'), ['WaypointAccepted=True UnsupportedValue']);
  mesh.set('DestinationRule', rule({ trafficPolicy: { tls: { mode: 'ISTIO_MUTUAL' } } }));
  assert.equal(mesh.traffic()[0]?.policy?.refuse, '', 'tunnels are mutual in any case');
  assert.deepEqual(mesh.conditions('DestinationRule shop/d'), ['WaypointAccepted=True Accepted']);
  mesh.set('DestinationRule', rule({ host: 'ghost' }));
  assert.deepEqual(mesh.conditions('DestinationRule shop/d'), ['WaypointAccepted=False TargetNotFound']);
});
