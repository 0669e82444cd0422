/** Who dials a pod past its service's waypoint, and whether the pod minds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Workload } from '../../../common/decision/mesh-view.ts';
import { decidePolicy } from '../../../common/decision/policy.ts';
import { waypointBypass } from '../../../common/decision/waypoint-bypass.ts';
import { memberOf, service, waypointAt, waypointNamed, workload } from '../../support/builders.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const gateway = service({ name: 'waypoint', vips: ['10.96.0.20'] });
const orders = service({ name: 'orders', vips: ['10.96.0.1'], waypoint: waypointNamed('shop', gateway.hostname) });
const plain = service({ name: 'plain', vips: ['10.96.0.2'] });
const waypoint = workload({ name: 'waypoint-1', addresses: ['10.0.0.20'], serviceAccount: 'waypoint', services: memberOf(gateway) });
const client = workload({ name: 'client', addresses: ['10.0.0.1'], serviceAccount: 'client' });
const shared = workload({ name: 'shared', addresses: ['10.0.0.3'], serviceAccount: 'waypoint' });
const bound = workload({ name: 'server', addresses: ['10.0.0.2'], services: memberOf([orders, { 80: 8080 }], [plain, { 80: 9090 }]) });

const from = ({ addresses, namespace, serviceAccount, trustDomain }: Workload, port = 8080) => ({
  source: { ip: addresses[0] ?? '', port: 40_000 },
  identity: { namespace, serviceAccount, trustDomain },
  destination: { ip: '10.0.0.2', port },
});

const meshWith = (local: Workload): PlainMesh => {
  const mesh = new PlainMesh();
  for (const one of [gateway, orders, plain]) mesh.put({ service: one });
  for (const one of [waypoint, client, shared, local]) mesh.put({ workload: one });
  return mesh;
};

test('a caller that is not the waypoint passes it by; the waypoint is known by identity and address together', () => {
  const mesh = meshWith(bound);
  assert.equal(waypointBypass(mesh, bound, from(waypoint)), undefined);
  const seen = waypointBypass(mesh, bound, from(client));
  assert.deepEqual([seen?.services.map(({ hostname }) => hostname), seen?.waypoint], [[orders.hostname], `shop/${gateway.hostname}`]);
  assert.ok(waypointBypass(mesh, bound, from(shared)), 'the account alone is not enough');
  assert.ok(waypointBypass(mesh, bound, { ...from(waypoint), identity: undefined }), 'nor is the address');
});

test('a port of a service without a waypoint passes none by; a port of no service passes all of them by', () => {
  const mesh = meshWith(bound);
  assert.equal(waypointBypass(mesh, bound, from(client, 9090)), undefined);
  assert.deepEqual(waypointBypass(mesh, bound, from(client, 7070)), { services: [], waypoint: `shop/${gateway.hostname}` });
});

test('of a pod that several services lead to, all those whose waypoint is passed by are named', () => {
  const canary = service({ name: 'orders-v1', vips: ['10.96.0.3'], waypoint: waypointNamed('shop', gateway.hostname) });
  const local = { ...bound, services: memberOf([canary, { 80: 8080 }], [plain, { 81: 8080 }], [orders, { 80: 8080 }]) };
  const mesh = meshWith(local);
  mesh.put({ service: canary });
  assert.deepEqual(waypointBypass(mesh, local, from(client))?.services, [canary, orders]);
});

test('a pod refuses what passes its waypoint by where it asks for it, but on the ports that it leaves out', () => {
  const local = { ...bound, requireWaypoint: { always: true, exceptPorts: [7070] } };
  const mesh = meshWith(local);
  const refused = decidePolicy(mesh, local, from(client));
  assert.deepEqual([refused.allowed, refused.code], [false, 'WAYPOINT_BYPASSED']);
  assert.match(refused.reason, /from its waypoint shop\/waypoint/);
  assert.equal(decidePolicy(mesh, local, from(waypoint)).allowed, true);
  assert.equal(decidePolicy(mesh, local, from(client, 7070)).allowed, true);
  assert.equal(decidePolicy(mesh, local, from(client, 7071)).allowed, false);
  assert.equal(decidePolicy(meshWith(bound), bound, from(client)).allowed, true, 'nobody asked for it');
});

test('a pod that asks for a waypoint and has none is dialled by nobody; one whose namespace asks is left alone', () => {
  const alone = workload({ name: 'server', addresses: ['10.0.0.2'] });
  const always = { ...alone, requireWaypoint: { always: true, exceptPorts: [] } };
  assert.match(decidePolicy(meshWith(always), always, from(client)).reason, /nothing of it is bound to one/);
  const inherited = { ...alone, requireWaypoint: { always: false, exceptPorts: [] } };
  assert.equal(decidePolicy(meshWith(inherited), inherited, from(client)).allowed, true);
});

test("the pod's own waypoint counts as well", () => {
  const local = workload({ name: 'server', addresses: ['10.0.0.2'], waypoint: waypointAt('10.0.0.20') });
  assert.ok(waypointBypass(meshWith(local), local, from(client)));
  assert.equal(waypointBypass(meshWith(local), local, from(waypoint)), undefined);
});
