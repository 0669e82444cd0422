import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statusBody } from '../../../istiod-lite/model/conditions.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const backend = { name: 'web', port: 80 };
const rules = [{ backendRefs: [backend] }];
const FINE = ['Accepted=True Accepted', 'ResolvedRefs=True ResolvedRefs', 'ResolvedWaypoints=True ResolvedWaypoints'];

const parentsOf = (mesh: TranslatedMesh, route: string): readonly Record<string, unknown>[] =>
  (mesh.status(route)?.status?.parents ?? []) as readonly Record<string, unknown>[];

test('a route repeats its parent reference as it was written, under the name of the gateway controller, for its generation', () => {
  const mesh = TranslatedMesh.shop().set('HTTPRoute', make.httpRoute({ name: 'r', port: 80, rules }));
  const [parent] = parentsOf(mesh, 'HTTPRoute shop/r');
  assert.deepEqual(parent?.parentRef, { group: '', kind: 'Service', name: 'web', port: 80 });
  assert.equal(parent?.controllerName, 'istio.io/gateway-controller');
  assert.deepEqual(mesh.conditions('HTTPRoute shop/r'), FINE);
  assert.deepEqual(
    mesh.status('HTTPRoute shop/r')?.conditions.map(({ observedGeneration }) => observedGeneration),
    [1, 1, 1],
  );
  assert.equal(mesh.status('HTTPRoute shop/r')?.path, '/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/r/status');
});

test('a parent that is not there is no matching parent until it comes', () => {
  const mesh = TranslatedMesh.shop().set('HTTPRoute', make.httpRoute({ name: 'r', service: 'late', rules }));
  assert.equal(mesh.conditions('HTTPRoute shop/r')[0], 'Accepted=False NoMatchingParent');
  assert.equal(mesh.routes().length, 0);
  mesh.set('Service', make.service({ name: 'late' }));
  assert.deepEqual(mesh.conditions('HTTPRoute shop/r'), FINE);
  assert.deepEqual(
    mesh.routes().map(({ hostname }) => hostname),
    ['late.shop.svc.cluster.local'],
  );
});

test('backends that are missing, or of a kind that nothing can be sent to, are named, and the route follows when they come', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{ backendRefs: [backend, { name: 'v2', port: 81 }] }] }));
  assert.equal(mesh.conditions('HTTPRoute shop/r')[1], 'ResolvedRefs=False BackendNotFound');
  assert.equal(mesh.message('HTTPRoute shop/r', 'ResolvedRefs'), 'there is no Service shop/v2');
  mesh.set('Service', make.service({ name: 'v2' }));
  assert.equal(mesh.message('HTTPRoute shop/r', 'ResolvedRefs'), 'Service shop/v2 has no port 81');
  mesh.set('Service', make.service({ name: 'v2', ports: [{ port: 81 }] }));
  assert.deepEqual(mesh.conditions('HTTPRoute shop/r'), FINE);
  assert.equal(mesh.routes()[0]?.ports[0]?.rules[0]?.backends[1]?.to?.port, 81);
  mesh.set(
    'HTTPRoute',
    make.httpRoute({ name: 'r', rules: [{ backendRefs: [{ group: 'apps', kind: 'Deployment', name: 'v2', port: 81 }] }] }),
  );
  assert.equal(mesh.conditions('HTTPRoute shop/r')[1], 'ResolvedRefs=False InvalidKind');
});

test('a backend by hostname is found when its ServiceEntry comes', () => {
  const mesh = TranslatedMesh.shop();
  const away = { group: 'networking.istio.io', kind: 'Hostname', name: 'x.example.com', port: 443 };
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules: [{ backendRefs: [away] }] }));
  assert.equal(mesh.conditions('HTTPRoute shop/r')[1], 'ResolvedRefs=False BackendNotFound');
  const spec = { hosts: ['x.example.com'], ports: [{ number: 443, name: 'tls', protocol: 'TLS' }], resolution: 'DNS' };
  mesh.set('ServiceEntry', make.serviceEntry({ name: 'e', spec }));
  assert.deepEqual(mesh.conditions('HTTPRoute shop/r'), FINE);
  assert.equal(mesh.routes()[0]?.ports[0]?.rules[0]?.backends[0]?.to?.hostname, 'x.example.com');
});

test('a route of a client namespace is accepted and read by nobody; one in the namespace of the waypoint is read', () => {
  const mesh = TranslatedMesh.shop();
  const parents = [{ group: '', kind: 'Service', name: 'web', namespace: 'shop' }];
  mesh.set('HTTPRoute', make.httpRoute({ name: 'consumer', namespace: 'client', parents, rules: [{}] }));
  assert.deepEqual(mesh.conditions('HTTPRoute client/consumer'), FINE);
  assert.match(mesh.message('HTTPRoute client/consumer', 'ResolvedWaypoints') ?? '', /no effect/);
  assert.deepEqual(mesh.routes(), []);
  mesh.set('Gateway', make.gateway({ name: 'edge', namespace: 'infra', from: 'All' }));
  mesh.set(
    'Service',
    make.service({ name: 'web', labels: { 'istio.io/use-waypoint': 'edge', 'istio.io/use-waypoint-namespace': 'infra' } }),
  );
  mesh.set('HTTPRoute', make.httpRoute({ name: 'ops', namespace: 'infra', parents, rules: [{}] }));
  assert.deepEqual(
    mesh.routes('infra/edge')[0]?.ports[0]?.rules.map(({ name }) => name),
    ['HTTPRoute infra/ops rule 0'],
  );
});

test('the message says where no waypoint reads the routes of a service', () => {
  const mesh = TranslatedMesh.shop()
    .set('Namespace', make.namespace('shop'))
    .set('HTTPRoute', make.httpRoute({ name: 'r', rules }));
  assert.match(mesh.message('HTTPRoute shop/r', 'ResolvedWaypoints') ?? '', /names a waypoint/);
  assert.deepEqual(mesh.routes(), []);
  mesh.set('Namespace', make.namespace('shop', { 'istio.io/use-waypoint': 'wp' }));
  assert.equal(mesh.message('HTTPRoute shop/r', 'ResolvedWaypoints'), 'read by waypoint shop/wp');
  assert.equal(mesh.routes().length, 1);
});

test('a route that names a waypoint as its parent is told that nothing comes of it', () => {
  const mesh = TranslatedMesh.shop().set('HTTPRoute', make.httpRoute({ name: 'r', parents: [{ name: 'wp' }], rules }));
  assert.deepEqual(mesh.status('HTTPRoute shop/r')?.status, { parents: [] });
  assert.match([...mesh.index.problems()].map(({ message }) => message).join(), /Gateway shop\/wp is a waypoint/);
});

test("routes of other controllers' Gateways are left alone, and what others wrote stays beside ours", () => {
  const mesh = TranslatedMesh.shop().set('HTTPRoute', make.httpRoute({ name: 'theirs', parents: [{ name: 'ingress' }], rules }));
  assert.equal(mesh.status('HTTPRoute shop/theirs'), undefined);
  const theirs = {
    controllerName: 'example.com/other',
    parentRef: { name: 'ingress' },
    conditions: [{ type: 'Accepted', status: 'True' }],
  };
  const parents = [{ name: 'ingress' }, { group: '', kind: 'Service', name: 'web' }];
  mesh.set('HTTPRoute', make.httpRoute({ name: 'both', parents, rules, status: { parents: [theirs] } }));
  const [first, second] = parentsOf(mesh, 'HTTPRoute shop/both');
  assert.deepEqual(first, theirs);
  assert.equal(second?.controllerName, 'istio.io/gateway-controller');
});

test('a list of parents that others share is written for the very object that it was read from, and again when that has changed', () => {
  const index = new MeshIndex({ clusterId: 'c', domain: 'd', rootNamespace: 'istio-system', trustDomain: 't', network: '' });
  const theirs = { controllerName: 'example.com/other', parentRef: { name: 'ingress' }, conditions: [] };
  const versions = (resourceVersion: string, status: object) => {
    const route = make.httpRoute({ name: 'r', rules });
    const metadata = { ...(route.metadata as object), resourceVersion };
    index.apply({ type: 'modified', kind: 'HTTPRoute', object: { ...route, metadata, status } });
    return index.flush().statuses.map((write) => write.resourceVersion);
  };
  assert.deepEqual(versions('1', { parents: [] }), [undefined], 'nobody else is there');
  assert.deepEqual(versions('2', { parents: [theirs] }), ['2']);
  assert.deepEqual(versions('2', { parents: [theirs] }), [], 'on its way');
  assert.deepEqual(versions('3', { parents: [theirs] }), ['3'], 'a label has changed, and the write fails');
});

test('what has been written is not written again, nor when another order is shown; when somebody undoes it, it is', () => {
  const index = new MeshIndex({ clusterId: 'c', domain: 'd', rootNamespace: 'istio-system', trustDomain: 't', network: '' });
  const parents = [
    { group: '', kind: 'Service', name: 'web' },
    { group: '', kind: 'Service', name: 'other' },
  ];
  const route = (status?: Record<string, unknown>) => make.httpRoute({ name: 'r', parents, rules, ...(status ? { status } : {}) });
  const apply = (status?: Record<string, unknown>) => {
    index.apply({ type: 'modified', kind: 'HTTPRoute', object: route(status) });
    return index.flush().statuses;
  };
  const [write] = apply();
  assert.ok(write);
  assert.deepEqual(apply(), [], 'still on its way');
  const written = statusBody(write, '2026-01-01T00:00:00Z') as { parents: { conditions: object[] }[] };
  assert.deepEqual(
    apply({ parents: written.parents.toReversed().map((parent) => ({ ...parent, conditions: parent.conditions.toReversed() })) }),
    [],
  );
  assert.equal(apply({ parents: [] }).length, 1);
});

test('a condition that did not flip keeps its time, and one that did gets the present', () => {
  const mesh = TranslatedMesh.shop();
  const since = '2025-01-01T00:00:00Z';
  const shown = (status: string) => ({ type: 'ResolvedRefs', status, reason: 'old', message: '', lastTransitionTime: since });
  const parent = { controllerName: 'istio.io/gateway-controller', parentRef: { group: '', kind: 'Service', name: 'web' } };
  const timeOf = (status: string): unknown => {
    mesh.set('HTTPRoute', make.httpRoute({ name: 'r', rules, status: { parents: [{ ...parent, conditions: [shown(status)] }] } }));
    const write = mesh.status('HTTPRoute shop/r');
    const body = (write ? statusBody(write, 'now') : {}) as { parents?: { conditions: Record<string, unknown>[] }[] };
    return body.parents?.[0]?.conditions.find(({ type }) => type === 'ResolvedRefs')?.lastTransitionTime;
  };
  assert.equal(timeOf('True'), since);
  assert.equal(timeOf('False'), 'now');
});

test('a route that is deleted leaves no rule behind', () => {
  const route = make.httpRoute({ name: 'r', rules });
  const mesh = TranslatedMesh.shop().set('HTTPRoute', route);
  assert.equal(mesh.routes().length, 1);
  mesh.remove('HTTPRoute', route);
  assert.deepEqual(mesh.routes(), []);
});

test('a gRPC route gets a status when something is wrong with it', () => {
  const mesh = TranslatedMesh.shop().set('GRPCRoute', make.httpRoute({ name: 'g', rules }));
  assert.equal(mesh.status('GRPCRoute shop/g'), undefined);
  mesh.set('GRPCRoute', make.httpRoute({ name: 'g', rules: [{ backendRefs: [{ name: 'ghost', port: 80 }] }] }));
  assert.equal(mesh.conditions('GRPCRoute shop/g')[1], 'ResolvedRefs=False BackendNotFound');
});

test('a ServiceEntry is a parent too, for the hosts that the route names', () => {
  const mesh = TranslatedMesh.shop();
  const spec = { hosts: ['a.example.com', 'b.example.org'], ports: [{ number: 80, name: 'http', protocol: 'HTTP' }], resolution: 'DNS' };
  mesh.set('ServiceEntry', make.serviceEntry({ name: 'away', spec }));
  const parents = [{ group: 'networking.istio.io', kind: 'ServiceEntry', name: 'away' }];
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', parents, rules, spec: { hostnames: ['*.example.com'] } }));
  assert.deepEqual(
    mesh.routes().map(({ hostname }) => hostname),
    ['a.example.com'],
  );
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', parents, rules }));
  assert.equal(mesh.routes().length, 2);
});

test('routes of TCP and TLS are for connections: by server name, the most exact first, and requests do not see them', () => {
  const mesh = TranslatedMesh.shop().set('TCPRoute', make.httpRoute({ name: 't', rules }));
  const spec = { hostnames: ['*.example.com', 'a.example.com'] };
  mesh.set('TLSRoute', make.httpRoute({ name: 's', rules, spec }));
  assert.equal(mesh.conditions('TCPRoute shop/t')[0], 'Accepted=True Accepted');
  assert.equal(mesh.conditions('TLSRoute shop/s')[0], 'Accepted=True Accepted');
  const [port] = mesh.routes()[0]?.ports ?? [];
  assert.deepEqual(port?.table, []);
  assert.deepEqual(
    port?.connections.map(({ name, serverNames }) => [name, ...serverNames]),
    [['TLSRoute shop/s rule 0', 'a.example.com'], ['TLSRoute shop/s rule 0', '*.example.com'], ['TCPRoute shop/t rule 0']],
  );
});

test('what is wrong with a route when it is read stands beside what is wrong with what it names', () => {
  const timeouts = { request: 'soon' };
  const mesh = TranslatedMesh.shop().set('HTTPRoute', make.httpRoute({ name: 'r', service: 'late', rules: [{ timeouts }] }));
  mesh.flush();
  assert.deepEqual(
    [...mesh.index.problems()].map(({ object, message }) => `${object}: ${message}`),
    [
      'HTTPRoute shop/r: HTTPRoute shop/r rule 0: timeouts.request: "soon" is no duration',
      'HTTPRoute shop/r: there is no Service shop/late',
    ],
  );
});

test('routes and policies of a host follow whoever owns it', () => {
  const hostname = 'late.shop.svc.cluster.local';
  const mesh = TranslatedMesh.shop();
  const spec = { hosts: [hostname], ports: [{ number: 80, name: 'http', protocol: 'HTTP' }], resolution: 'STATIC' };
  const ENTRY = { group: 'networking.istio.io', kind: 'ServiceEntry', name: 'entry' };
  mesh.set('ServiceEntry', make.serviceEntry({ name: 'entry', spec }));
  mesh.set('HTTPRoute', make.httpRoute({ name: 'r', parents: [ENTRY], rules }));
  mesh.set('AuthorizationPolicy', make.authorizationPolicy({ name: 'p', spec: { targetRefs: [ENTRY], rules: [{}] } }));
  const told = () => [mesh.routes().map((routes) => routes.hostname), mesh.policies().length];
  assert.deepEqual(told(), [[hostname], 1]);
  // A Service goes before any ServiceEntry of its name.
  const service = make.service({ name: 'late' });
  mesh.set('Service', service);
  assert.deepEqual(told(), [[], 0]);
  mesh.set('HTTPRoute', make.httpRoute({ name: 'own', service: 'late', rules }));
  assert.deepEqual(told(), [[hostname], 0]);
  mesh.remove('Service', service);
  assert.deepEqual(told(), [[hostname], 1]);
  assert.match(mesh.routes()[0]?.ports[0]?.rules[0]?.name ?? '', /shop\/r /);
});
