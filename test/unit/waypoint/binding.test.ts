import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type BindingRequest, resolveBinding } from '../../../waypoint/inbound/binding.ts';
import { memberOf, service, waypointAt, waypointNamed, workload } from '../../support/builders.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const gateway = waypointNamed('shop', 'waypoint.shop.svc.cluster.local');
const waypointService = service({ name: 'waypoint', vips: ['10.96.0.20'], ports: { 15008: 15008 } });
const self = workload({ name: 'waypoint-1', addresses: ['10.0.0.20'], services: memberOf(waypointService) });
const orders = service({ name: 'orders', vips: ['10.96.0.1'], ports: { 80: 8080 }, waypoint: gateway });
const free = service({ name: 'free', vips: ['10.96.0.2'] });
const foreign = service({ name: 'foreign', vips: ['10.96.0.3'], waypoint: waypointNamed('shop', 'other.shop.svc.cluster.local') });
const pod = workload({ name: 'db-0', addresses: ['10.0.0.5'], waypoint: gateway });
const freePod = workload({ name: 'free-0', addresses: ['10.0.0.6'] });
const mesh = new PlainMesh({ services: [waypointService, orders, free, foreign], workloads: [self, pod, freePod] });

const ask = (authority: string, view = mesh, more: Partial<BindingRequest> = {}) =>
  resolveBinding(view, {
    waypoint: { namespace: 'shop', host: 'waypoint.shop.svc', self },
    network: '',
    authority,
    callerNamespace: 'shop',
    ...more,
  });

test('a service that is bound to this waypoint is served by its virtual address and by its name', () => {
  assert.deepEqual(ask('10.96.0.1:80'), { service: orders, port: 80, ip: '10.96.0.1' });
  assert.deepEqual(ask('orders.shop.svc.cluster.local:80'), { service: orders, port: 80, ip: undefined });
  assert.deepEqual(ask('ORDERS.shop.svc.cluster.local:80'), { service: orders, port: 80, ip: undefined });
});

test('a pod that is bound itself is served by its own address', () => {
  assert.deepEqual(ask('10.0.0.5:5432'), { workload: pod, port: 5432, ip: '10.0.0.5' });
});

for (const [what, authority] of [
  ['a service that is bound to nothing', '10.96.0.2:80'],
  ['a service that is bound to another waypoint', '10.96.0.3:80'],
  ['a pod that is bound to nothing', '10.0.0.6:80'],
  ['an address that nobody knows', '192.0.2.1:80'],
  ['a name that nobody knows', 'example.com:443'],
] as const) {
  test(`${what} is refused`, () => {
    const binding = ask(authority);
    assert.equal('refuse' in binding && binding.refuse, 'WAYPOINT_NOT_BOUND');
  });
}

test('a port that the service does not have, and what is no host and port, are refused with their own reasons', () => {
  const port = ask('10.96.0.1:81');
  assert.equal('refuse' in port && port.refuse, 'SERVICE_UNKNOWN');
  for (const authority of ['orders', 'orders:', ':80', 'orders:70000', '']) {
    const binding = ask(authority);
    assert.equal('refuse' in binding && binding.refuse, 'BAD_REQUEST', authority);
  }
});

test('a waypoint is meant by the address of its service or of its pod as well', () => {
  for (const gatewayAddress of [waypointAt('10.96.0.20'), waypointAt('10.0.0.20')]) {
    const bound = service({ name: 'orders', vips: ['10.96.0.1'], waypoint: gatewayAddress });
    const view = new PlainMesh({ services: [waypointService, bound], workloads: [self] });
    assert.deepEqual(ask('10.96.0.1:80', view), { service: bound, port: 80, ip: '10.96.0.1' });
  }
});

test('a weighted waypoint is one of its waypoints', () => {
  const shared = service({ name: 'orders', vips: ['10.96.0.1'], weightedWaypoints: [{ gateway, weight: 1 }] });
  const view = new PlainMesh({ services: [shared] });
  assert.deepEqual(ask('10.96.0.1:80', view), { service: shared, port: 80, ip: '10.96.0.1' });
});

test('a waypoint of the same name in another namespace is another one', () => {
  const binding = ask('10.96.0.1:80', mesh, { waypoint: { namespace: 'other', host: 'waypoint.other.svc', self: undefined } });
  assert.equal('refuse' in binding && binding.refuse, 'WAYPOINT_NOT_BOUND');
});

test('a name that only begins like the waypoint is another one', () => {
  const other = service({ name: 'orders', vips: ['10.96.0.1'], waypoint: waypointNamed('shop', 'waypoint.shop.svcx.example') });
  const binding = ask('10.96.0.1:80', new PlainMesh({ services: [other] }));
  assert.equal('refuse' in binding && binding.refuse, 'WAYPOINT_NOT_BOUND');
});

test("where services of two namespaces claim one address, the caller's own is meant, and only bound ones count", () => {
  const here = service({ name: 'db', namespace: 'shop', hostname: 'db.example', vips: ['10.96.0.9'], waypoint: gateway });
  const there = service({ name: 'db', namespace: 'other', hostname: 'db.example', vips: ['10.96.0.9'], waypoint: gateway });
  const unbound = service({ name: 'db', namespace: 'third', hostname: 'db.example', vips: ['10.96.0.9'] });
  const view = new PlainMesh({ services: [unbound, here, there] });
  const chosen = (callerNamespace: string) => {
    const binding = ask('10.96.0.9:80', view, { callerNamespace });
    return 'service' in binding ? binding.service.namespace : 'refused';
  };
  assert.deepEqual([chosen('shop'), chosen('other'), chosen('third')], ['shop', 'other', 'shop']);
});
