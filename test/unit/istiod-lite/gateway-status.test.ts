import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as make from '../../support/kube-objects.ts';
import { TranslatedMesh } from '../../support/translated-mesh.ts';

const HOSTNAME = { type: 'Hostname', value: 'new.shop.svc.cluster.local' };
const gateway = make.gateway({ name: 'new', ready: false });
const service = make.service({ name: 'new', vip: '10.96.0.9' });
const pod = (ready: boolean) => make.pod({ name: 'new-1', labels: { 'gateway.networking.k8s.io/gateway-name': 'new' }, ready });

const programmed = (mesh: TranslatedMesh): string | undefined =>
  mesh.conditions('Gateway shop/new').find((word) => word.startsWith('Programmed'));
const addresses = (mesh: TranslatedMesh): unknown => mesh.status('Gateway shop/new')?.status?.addresses;

test('a waypoint has an address once its Service has one and a pod is ready, and says until then what is missing', () => {
  const mesh = TranslatedMesh.shop().set('Gateway', gateway);
  assert.deepEqual(mesh.conditions('Gateway shop/new'), [
    'Accepted=True Accepted',
    'Programmed=False AddressNotUsable',
    'ResolvedRefs=True ResolvedRefs',
  ]);
  mesh.set('Service', service);
  assert.equal(programmed(mesh), 'Programmed=False AddressNotAssigned');
  mesh.set('Pod', pod(false));
  assert.equal(programmed(mesh), 'Programmed=False AddressNotAssigned');
  mesh.set('Pod', pod(true));
  assert.equal(programmed(mesh), 'Programmed=True Programmed');
  assert.deepEqual(addresses(mesh), [{ type: 'IPAddress', value: '10.96.0.9' }, HOSTNAME]);
});

test('an address is never withdrawn, and follows the Service', () => {
  const shown = { ...gateway, status: { addresses: [{ type: 'IPAddress', value: '10.96.0.9' }, HOSTNAME] } };
  const mesh = TranslatedMesh.shop().set('Gateway', shown).set('Pod', pod(false));
  assert.equal(programmed(mesh), 'Programmed=True Programmed');
  assert.deepEqual(addresses(mesh), shown.status.addresses, 'without a Service');
  mesh.set('Service', make.service({ name: 'new', vip: '10.96.0.10' }));
  assert.deepEqual(addresses(mesh), [{ type: 'IPAddress', value: '10.96.0.10' }, HOSTNAME]);
});

test('a waypoint has one listener, HBONE on port 15008; others are refused by name', () => {
  const listeners = [
    { name: 'mesh', port: 15008, protocol: 'HBONE' },
    { name: 'port', port: 15000, protocol: 'HBONE' },
    { name: 'http', port: 15008, protocol: 'HTTP' },
  ];
  const mesh = TranslatedMesh.shop().set('Gateway', { ...gateway, spec: { gatewayClassName: 'istio-waypoint', listeners } });
  const told = (mesh.status('Gateway shop/new')?.status?.listeners ?? []) as {
    name: string;
    attachedRoutes: number;
    supportedKinds: { kind: string }[];
    conditions: { type: string; status: string; reason: string }[];
  }[];
  assert.deepEqual(
    told.map(({ name, attachedRoutes, supportedKinds, conditions }) => [
      name,
      attachedRoutes,
      supportedKinds.map(({ kind }) => kind),
      conditions.map(({ status, reason }) => `${status} ${reason}`)[0],
    ]),
    [
      ['mesh', 0, [], 'True Accepted'],
      ['port', 0, [], 'False UnsupportedProtocol'],
      ['http', 0, ['HTTPRoute', 'GRPCRoute'], 'False UnsupportedProtocol'],
    ],
  );
});

test('Gateways of other controllers and other revisions are left alone', () => {
  const mesh = TranslatedMesh.shop();
  mesh.set('Gateway', make.gateway({ name: 'theirs', className: 'someone-else', ready: false }));
  mesh.set('Gateway', make.gateway({ name: 'older', labels: { 'istio.io/rev': '1-20' }, ready: false }));
  assert.equal(mesh.status('Gateway shop/theirs'), undefined);
  assert.equal(mesh.status('Gateway shop/older'), undefined);
  mesh.set('GatewayClass', { metadata: { name: 'someone-else' }, spec: { controllerName: 'istio.io/mesh-controller' } });
  assert.equal(mesh.conditions('Gateway shop/theirs')[0], 'Accepted=True Accepted', 'the class turned out to be ours');
});

test('why a Gateway cannot be deployed stands in its status until it is taken back', () => {
  const mesh = TranslatedMesh.shop().set('Gateway', gateway);
  mesh.index.setGatewayProblem('shop/new', { reason: 'InvalidParameters', message: 'there is no ConfigMap shop/opts' });
  assert.equal(mesh.conditions('Gateway shop/new')[0], 'Accepted=False InvalidParameters');
  mesh.index.setGatewayProblem('shop/new', undefined);
  assert.equal(mesh.conditions('Gateway shop/new')[0], 'Accepted=True Accepted');
});

test("the class of waypoints is accepted, for its generation; others' classes are not", () => {
  const mesh = TranslatedMesh.shop();
  const write = mesh.status('GatewayClass /istio-waypoint');
  assert.equal(write?.path, '/apis/gateway.networking.k8s.io/v1/gatewayclasses/istio-waypoint/status');
  assert.deepEqual(
    write?.conditions.map(({ type, status, observedGeneration }) => [type, status, observedGeneration]),
    [['Accepted', 'True', 1]],
  );
  mesh.set('GatewayClass', { metadata: { name: 'other' }, spec: { controllerName: 'example.com/other' } });
  assert.equal(mesh.status('GatewayClass /other'), undefined);
});

test('a class of ours that says more than is carried out is not accepted, and is told of by name; of others nothing is said', () => {
  const spec = (controllerName: string) => ({ controllerName, parametersRef: { group: '', kind: 'ConfigMap', name: 'opts' } });
  const odd = { labels: { 'istio.io/waypoint-for': 'pods' }, annotations: { 'ambient.istio.io/waypoint-inbound-binding': 'TLS/8080' } };
  const mesh = TranslatedMesh.shop().set('GatewayClass', { metadata: { name: 'large', ...odd }, spec: spec('istio.io/mesh-controller') });
  assert.deepEqual(mesh.conditions('GatewayClass /large'), ['Accepted=False InvalidParameters']);
  const said = [...mesh.index.problems()].map(({ object, message }) => `${object}: ${message}`).join('\n');
  assert.match(said, /GatewayClass \/?large: .*spec\.parametersRef is not read/);
  assert.match(said, /GatewayClass \/?large: .*"pods" is none of service, workload, all, none/);
  assert.match(said, /GatewayClass \/?large: .*"TLS\/8080" is none of PROXY, NONE/);
  mesh.set('GatewayClass', { metadata: { name: 'theirs', ...odd }, spec: spec('example.com/other') });
  assert.ok(![...mesh.index.problems()].some(({ object }) => object.includes('theirs')));
});
