import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseCidr } from '../../../common/base/address.ts';
import { type OutboundRequest, type OutboundRoute, routeOutbound, serviceWaypoint } from '../../../common/decision/outbound.ts';
import { memberOf, service, waypointAt, waypointNamed, workload } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';
import type { MeshContents } from '../../support/plain-mesh.ts';

const client = workload({ name: 'client', addresses: ['10.0.0.1', 'fd00::1'], protocol: 'HBONE' });
const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/default';

for (const [kind, meshOf] of Object.entries(meshes)) {
  describe(`an outbound connection (${kind} mesh)`, () => {
    const route = (contents: MeshContents, ip: string, port = 80, request: Partial<OutboundRequest> = {}): OutboundRoute =>
      routeOutbound(meshOf({ ...contents, workloads: [client, ...(contents.workloads ?? [])] }), {
        source: client,
        destination: { ip, port },
        network: '',
        random: () => 0,
        ...request,
      });

    test('to somewhere unknown passes as it is', () => {
      assert.deepEqual(route({}, '192.0.2.1', 443), { via: 'passthrough', to: { ip: '192.0.2.1', port: 443 } });
    });

    test('under REGISTRY_ONLY goes to services, ServiceEntries of any form and workloads, and nowhere else', () => {
      const source = { ...client, outboundTrafficPolicy: 'REGISTRY_ONLY' as const };
      const entry = service({
        name: 'entry',
        vips: ['240.240.0.1'],
        loadBalancing: { preferences: [], mode: 'PASSTHROUGH', allowUnhealthy: true },
      });
      const cidr = parseCidr('198.51.100.0/24');
      assert.ok(cidr);
      const range = service({ name: 'range', ranges: [{ network: '', cidr }], loadBalancing: entry.loadBalancing });
      const pod = workload({ name: 'pod', addresses: ['10.0.0.2'] });
      const contents = { services: [entry, range], workloads: [pod] };
      for (const ip of ['240.240.0.1', '198.51.100.7', '10.0.0.2']) assert.ok('via' in route(contents, ip, 80, { source }), ip);
      const refused = route(contents, '192.0.2.1', 443, { source });
      assert.deepEqual(refused, {
        refuse: 'NOT_IN_REGISTRY',
        message: '192.0.2.1:443 is no known service, and outboundTrafficPolicy of namespace shop is REGISTRY_ONLY',
      });
    });

    test("a namespace's own outboundTrafficPolicy wins over the proxy's", () => {
      const request = { outboundTrafficPolicy: 'REGISTRY_ONLY' as const };
      assert.ok('refuse' in route({}, '192.0.2.1', 443, request));
      assert.ok('via' in route({}, '192.0.2.1', 443, { ...request, source: { ...client, outboundTrafficPolicy: 'ALLOW_ANY' } }));
    });

    test('to our own ports on loopback is refused, to other loopback ports it is not', () => {
      for (const port of [15001, 15006, 15008]) {
        const refused = route({}, '127.0.0.1', port);
        assert.deepEqual('refuse' in refused && refused.refuse, 'SELF_CALL');
      }
      assert.equal('via' in route({}, '::1', 15000) && 'passthrough', 'passthrough');
    });

    test('to a pod outside the mesh goes in the clear, to one in the mesh through a tunnel to its own address', () => {
      const plain = workload({ name: 'plain', addresses: ['10.0.0.2'] });
      const meshed = workload({ name: 'meshed', addresses: ['fd00::3'], protocol: 'HBONE', serviceAccount: 'api', namespace: 'other' });
      const direct = route({ workloads: [plain] }, '10.0.0.2');
      assert.deepEqual(direct, { via: 'tcp', to: { ip: '10.0.0.2', port: 80 }, workload: plain });
      const tunnel = route({ workloads: [meshed] }, 'fd00::3');
      assert.deepEqual(tunnel, {
        via: 'hbone',
        to: { ip: 'fd00::3', port: 15008 },
        authority: '[fd00::3]:80',
        peers: ['spiffe://cluster.local/ns/other/sa/api'],
        workload: meshed,
        waypoint: false,
      });
    });

    test('to a service names the service, its target port and its own identities', () => {
      const own = service({ name: 'api', vips: ['10.96.0.1'], subjectAltNames: ['spiffe://remote/ns/a/sa/b', IDENTITY] });
      const server = workload({ name: 'server', addresses: ['10.0.0.2'], protocol: 'HBONE', services: memberOf(own) });
      const found = route({ services: [own], workloads: [server] }, '10.96.0.1');
      assert.deepEqual(found, {
        via: 'hbone',
        to: { ip: '10.0.0.2', port: 15008 },
        authority: '10.0.0.2:8080',
        peers: ['spiffe://remote/ns/a/sa/b', IDENTITY],
        service: own,
        workload: server,
        waypoint: false,
      });
    });

    test('to a service without endpoints, or to a port it does not have, is refused and says so', () => {
      const own = service({ name: 'api', vips: ['10.96.0.1'] });
      const empty = route({ services: [own] }, '10.96.0.1');
      assert.deepEqual(empty, { refuse: 'NO_HEALTHY_UPSTREAM', message: 'no healthy upstream: 10.96.0.1:80', service: own });
      const server = workload({ name: 'server', addresses: ['10.0.0.2'], services: memberOf(own) });
      const port = route({ services: [own], workloads: [server] }, '10.96.0.1', 81);
      assert.equal('refuse' in port && port.message, 'no healthy upstream: 10.96.0.1:81');
    });

    test('to a pod that is unhealthy still goes there when the pod itself is addressed', () => {
      const sick = workload({ name: 'sick', addresses: ['10.0.0.2'], healthy: false });
      assert.equal('via' in route({ workloads: [sick] }, '10.0.0.2') && 'tcp', 'tcp');
    });

    test('to a node address that several host-network pods share passes as it is; by service it finds the right pod', () => {
      const own = service({ name: 'agent', vips: ['10.96.0.1'], ports: { 80: 80 } });
      const workloads = [
        workload({ name: 'agent', addresses: ['172.16.0.1'], hostNetwork: true, services: memberOf(own) }),
        workload({ name: 'other', addresses: ['172.16.0.1'], hostNetwork: true }),
      ];
      assert.equal('via' in route({ workloads }, '172.16.0.1') && 'passthrough', 'passthrough');
      const found = route({ services: [own], workloads }, '10.96.0.1');
      assert.equal('workload' in found && found.workload?.name, 'agent');
    });

    test('keeps to the families that the service allows, and else to the one that was asked for', () => {
      const pick = (ip: string, ipFamily: 'IPV4' | 'IPV6' | undefined): unknown => {
        const own = service({ name: 'api', vips: ['10.96.0.1', 'fd00:96::1'], ipFamily });
        const server = workload({ name: 'dual', addresses: ['10.0.0.2', 'fd00::2'], services: memberOf(own) });
        const found = route({ services: [own], workloads: [server] }, ip);
        return 'via' in found && found.via === 'tcp' ? found.to.ip : found;
      };
      assert.equal(pick('10.96.0.1', undefined), '10.0.0.2');
      assert.equal(pick('fd00:96::1', undefined), 'fd00::2');
      assert.equal(pick('10.96.0.1', 'IPV6'), 'fd00::2');
      assert.equal(pick('fd00:96::1', 'IPV4'), '10.0.0.2');
    });

    test('falls back to the other family where the workload has no address of the one asked for', () => {
      const own = service({ name: 'api', vips: ['fd00:96::1'] });
      const server = workload({ name: 'v4', addresses: ['10.0.0.2'], services: memberOf(own) });
      const found = route({ services: [own], workloads: [server] }, 'fd00:96::1');
      assert.equal('to' in found && found.to.ip, '10.0.0.2');
    });

    test('to a workload that is known by hostname asks for its addresses first', () => {
      const own = service({ name: 'db', vips: ['10.96.0.1'], ports: { 80: 5432 } });
      const server = workload({ name: 'db', hostname: 'db.example.com', services: memberOf(own) });
      const contents = { services: [own], workloads: [server] };
      assert.deepEqual(route(contents, '10.96.0.1'), { via: 'resolve', hostname: 'db.example.com' });
      const resolved = new Map([['db.example.com', ['fd00::7', '192.0.2.7']]]);
      const found = route(contents, '10.96.0.1', 80, { resolved });
      assert.deepEqual('to' in found && found.to, { ip: '192.0.2.7', port: 5432 });
      const none = route(contents, '10.96.0.1', 80, { resolved: new Map([['db.example.com', []]]) });
      assert.equal('refuse' in none && none.refuse, 'NO_HEALTHY_UPSTREAM');
    });

    test('to a service in passthrough mode goes to the original address, unless the service has a waypoint', () => {
      const mode = { mode: 'PASSTHROUGH' as const, preferences: [], allowUnhealthy: true };
      const open = service({ name: 'ext', vips: ['1.2.3.4'], loadBalancing: mode });
      assert.deepEqual(route({ services: [open] }, '1.2.3.4'), { via: 'passthrough', to: { ip: '1.2.3.4', port: 80 } });
      const guarded = service({ name: 'ext', vips: ['1.2.3.4'], loadBalancing: mode, waypoint: waypointAt('10.0.0.10') });
      const waypoint = workload({ name: 'waypoint', addresses: ['10.0.0.10'] });
      const found = route({ services: [guarded], workloads: [waypoint] }, '1.2.3.4');
      assert.equal('authority' in found && found.authority, '1.2.3.4:80');
    });

    describe('with a waypoint', () => {
      const gateway = service({ name: 'waypoint', vips: ['10.96.9.9'], ports: { 15008: 15008 } });
      const waypoint = workload({ name: 'waypoint-1', addresses: ['10.0.9.9'], serviceAccount: 'waypoint', services: memberOf(gateway) });
      const bound = service({ name: 'api', vips: ['10.96.0.1'], waypoint: waypointNamed('shop', gateway.hostname) });
      const server = workload({ name: 'server', addresses: ['10.0.0.2'], protocol: 'HBONE', services: memberOf(bound) });

      test('of the service goes to the waypoint, with the original destination as authority', () => {
        const found = route({ services: [gateway, bound], workloads: [waypoint, server] }, '10.96.0.1');
        assert.deepEqual(found, {
          via: 'hbone',
          to: { ip: '10.0.9.9', port: 15008 },
          authority: '10.96.0.1:80',
          peers: ['spiffe://cluster.local/ns/shop/sa/waypoint'],
          service: bound,
          workload: waypoint,
          waypoint: true,
        });
      });

      test('by address, service or pod, is the same', () => {
        for (const ip of ['10.96.9.9', '10.0.9.9']) {
          const own = { ...bound, waypoint: waypointAt(ip) };
          const found = route({ services: [gateway, own], workloads: [waypoint, server] }, '10.96.0.1');
          assert.deepEqual('to' in found && found.to, { ip: '10.0.9.9', port: 15008 });
        }
      });

      test('by hostname of a workload is the same', () => {
        const external = workload({ name: 'external', addresses: ['10.0.7.7'], hostname: 'wp.example.com' });
        const own = { ...bound, waypoint: waypointNamed('shop', 'wp.example.com') };
        const found = route({ services: [own], workloads: [external] }, '10.96.0.1');
        assert.deepEqual('to' in found && found.to, { ip: '10.0.7.7', port: 15008 });
      });

      test('that is not there, or has nobody healthy, is refused with its name: nothing goes around it', () => {
        const absent = route({ services: [bound], workloads: [server] }, '10.96.0.1');
        assert.ok('refuse' in absent);
        assert.equal(absent.refuse, 'WAYPOINT_ABSENT');
        assert.match(absent.message, /shop\/waypoint\.shop\.svc\.cluster\.local/);
        assert.deepEqual(absent.service, bound);
        const sick = { ...waypoint, healthy: false };
        const unhealthy = route({ services: [gateway, bound], workloads: [sick, server] }, '10.96.0.1');
        assert.equal('refuse' in unhealthy && unhealthy.refuse, 'WAYPOINT_ABSENT');
        const byAddress = route({ services: [{ ...bound, waypoint: waypointAt('10.0.9.9') }], workloads: [server] }, '10.96.0.1');
        assert.match('refuse' in byAddress ? byAddress.message : '', /10\.0\.9\.9:15008/);
      });

      test('of a workload goes to the waypoint when the workload itself is addressed, and not through its service', () => {
        const guarded = { ...server, waypoint: waypointAt('10.0.9.9') };
        const open = { ...bound, waypoint: undefined };
        const contents = { services: [open], workloads: [waypoint, guarded] };
        const addressed = route(contents, '10.0.0.2', 8080);
        assert.deepEqual('to' in addressed && [addressed.to.ip, 'authority' in addressed && addressed.authority], [
          '10.0.9.9',
          '10.0.0.2:8080',
        ]);
        const through = route(contents, '10.96.0.1');
        assert.deepEqual('to' in through && through.to, { ip: '10.0.0.2', port: 15008 });
        const absent = route({ workloads: [guarded] }, '10.0.0.2', 8080);
        assert.equal('refuse' in absent && absent.refuse, 'WAYPOINT_ABSENT');
      });

      test('does not send the waypoint itself back to the waypoint, but does send whoever merely shares its account', () => {
        const guarded = { ...server, waypoint: waypointNamed('shop', gateway.hostname) };
        const contents = { services: [gateway], workloads: [waypoint, guarded] };
        const own = route(contents, '10.0.0.2', 8080, { source: waypoint, sourceIp: '10.0.9.9' });
        assert.deepEqual('to' in own && own.to, { ip: '10.0.0.2', port: 15008 });
        const impostor = workload({ name: 'impostor', addresses: ['10.0.0.5'], serviceAccount: 'waypoint' });
        const other = route(contents, '10.0.0.2', 8080, { source: impostor, sourceIp: '10.0.0.5' });
        assert.deepEqual('to' in other && other.to.ip, '10.0.9.9');
        const elsewhere = route(contents, '10.0.0.2', 8080, { source: waypoint, sourceIp: '10.0.0.66' });
        assert.deepEqual('to' in elsewhere && elsewhere.to.ip, '10.0.9.9');
      });
    });

    describe('into another network', () => {
      const gateway = workload({ name: 'gateway', addresses: ['10.22.1.1'], network: 'net-2', serviceAccount: 'gateway' });
      const own = service({ name: 'api', vips: ['10.96.0.1'], subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/remote'] });
      const remote = workload({
        name: 'remote',
        network: 'net-2',
        services: memberOf(own),
        networkGateway: waypointAt('10.22.1.1', 15009, 'net-2'),
      });

      test('takes two tunnels: to the gateway, and within it to whom the service names', () => {
        const found = route({ services: [own], workloads: [remote, gateway] }, '10.96.0.1');
        assert.deepEqual(found, {
          via: 'double-hbone',
          to: { ip: '10.22.1.1', port: 15009 },
          authority: 'api.shop.svc.cluster.local:80',
          peers: ['spiffe://cluster.local/ns/shop/sa/gateway'],
          innerPeers: ['spiffe://cluster.local/ns/shop/sa/remote'],
          service: own,
          gateway,
          workload: remote,
        });
      });

      test('is refused without a gateway, or without one that is there', () => {
        const stray = { ...remote, addresses: ['10.5.5.5'], networkGateway: undefined };
        const none = route({ services: [own], workloads: [stray] }, '10.96.0.1');
        assert.equal('refuse' in none && none.refuse, 'NO_ROUTE');
        const missing = route({ services: [own], workloads: [remote] }, '10.96.0.1');
        assert.equal('refuse' in missing && missing.refuse, 'NO_ROUTE');
      });
    });
  });
}

describe('weighted waypoints', () => {
  const [first, second] = [waypointAt('10.0.0.1'), waypointAt('10.0.0.2')];
  const weights = (a: number, b: number): ReturnType<typeof service> =>
    service({
      name: 's',
      waypoint: waypointAt('10.0.0.9'),
      weightedWaypoints: [
        { gateway: first, weight: a },
        { gateway: second, weight: b },
      ],
    });

  test('share connections by weight', () => {
    const own = weights(9, 1);
    assert.equal(
      serviceWaypoint(own, () => 0.89),
      first,
    );
    assert.equal(
      serviceWaypoint(own, () => 0.91),
      second,
    );
  });

  test('without any weight leave the one waypoint', () => {
    const own = weights(0, 0);
    assert.equal(
      serviceWaypoint(own, () => 0.5),
      own.waypoint,
    );
  });
});
