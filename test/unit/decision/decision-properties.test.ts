/** What holds for every mesh, however odd. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parseSocketAddress } from '../../../common/base/address.ts';
import { chooseServiceByAddress } from '../../../common/decision/choose-service.ts';
import { isGateway } from '../../../common/decision/gateway.ts';
import { resolveInbound } from '../../../common/decision/inbound.ts';
import { routeOutbound } from '../../../common/decision/outbound.ts';
import { OWN_PORTS } from '../../../common/decision/ports.ts';
import { IPS, NETWORKS, services, workloads } from '../../support/arbitrary-mesh.ts';
import { workload } from '../../support/builders.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const contents = fc.record({ workloads: fc.array(workloads, { maxLength: 6 }), services: fc.array(services, { maxLength: 4 }) });
const chance = fc.double({ min: 0, max: 0.999999, noNaN: true });
const request = fc.record({
  mesh: contents,
  network: fc.constantFrom(...NETWORKS),
  ip: fc.constantFrom(...IPS, '192.0.2.1'),
  port: fc.constantFrom(80, 81, 15008),
  namespace: fc.constantFrom('a', 'b', 'c'),
  chance,
});

describe('every outbound decision', () => {
  test('ends: with a destination, a hostname to resolve, or a reason', () => {
    fc.assert(
      fc.property(request, ({ mesh, network, ip, port, namespace, chance: at }) => {
        const source = workload({ name: 'client', namespace, network });
        const route = routeOutbound(new PlainMesh(mesh), { source, destination: { ip, port }, network, random: () => at });
        if ('refuse' in route) return assert.ok(route.message.length > 10);
        if (route.via === 'resolve') return assert.notEqual(route.hostname, '');
        assert.ok(
          parseSocketAddress(`${route.to.ip.includes(':') ? `[${route.to.ip}]` : route.to.ip}:${route.to.port}`) && route.to.port > 0,
        );
        if (route.via === 'hbone') assert.ok(route.peers.length > 0 && parseSocketAddress(route.authority));
      }),
      { numRuns: 500 },
    );
  });

  test('to a service with a waypoint goes to that waypoint or nowhere, whatever else the mesh holds', () => {
    fc.assert(
      fc.property(request, ({ mesh, network, ip, port, namespace, chance: at }) => {
        const view = new PlainMesh(mesh);
        const source = workload({ name: 'client', namespace, network });
        const service = view.workloadByAddress(network, ip) ? undefined : chooseServiceByAddress(view, network, ip, namespace);
        const gateway = service?.waypoint;
        fc.pre(gateway !== undefined);
        const route = routeOutbound(view, { source, destination: { ip, port }, network, random: () => at });
        if ('refuse' in route || route.via === 'resolve') return;
        assert.ok(route.via === 'hbone' || route.via === 'double-hbone', `it went ${route.via}`);
        assert.ok(gateway && isGateway(view, gateway, route.workload), 'it went to something else than the waypoint');
        if (route.via === 'hbone') assert.equal(route.waypoint, true);
      }),
      { numRuns: 300 },
    );
  });

  test('to a pod with a waypoint, by its own address, goes to that waypoint or nowhere, unless the caller is the waypoint', () => {
    fc.assert(
      fc.property(request, ({ mesh, network, ip, port, chance: at }) => {
        const view = new PlainMesh(mesh);
        const source = workload({ name: 'client', namespace: 'c', network });
        const target = view.workloadByAddress(network, ip);
        fc.pre(target?.waypoint !== undefined && view.servicesByAddress(network, ip).length === 0);
        const route = routeOutbound(view, { source, destination: { ip, port }, network, random: () => at });
        if ('refuse' in route || route.via === 'resolve') return;
        assert.ok(route.via === 'hbone' && route.waypoint);
        assert.ok(target?.waypoint && isGateway(view, target.waypoint, route.workload));
      }),
      { numRuns: 300 },
    );
  });

  test('in the clear goes to nobody who takes tunnels', () => {
    fc.assert(
      fc.property(request, ({ mesh, network, ip, port, namespace, chance: at }) => {
        const source = workload({ name: 'client', namespace, network });
        const route = routeOutbound(new PlainMesh(mesh), { source, destination: { ip, port }, network, random: () => at });
        if ('via' in route && route.via === 'tcp') assert.equal(route.workload.protocol, 'TCP');
      }),
      { numRuns: 300 },
    );
  });
});

describe('every inbound decision', () => {
  const authorities = fc.oneof(
    fc.string(),
    fc
      .tuple(fc.constantFrom(...IPS, 'x.example', '*.example', 'nobody.example'), fc.constantFrom(80, 81, 15001, 15008, 70000))
      .map(([host, port]) => `${host.includes(':') ? `[${host}]` : host}:${port}`),
  );

  test('delivers to the pod itself, never to our own ports, or says why not', () => {
    fc.assert(
      fc.property(contents, authorities, fc.nat(5), fc.constantFrom(...NETWORKS), (mesh, authority, index, network) => {
        const view = new PlainMesh(mesh);
        const local = mesh.workloads[index % Math.max(1, mesh.workloads.length)];
        fc.pre(local !== undefined);
        const podIp = local?.addresses[0] ?? '10.9.9.9';
        const route = resolveInbound(view, { local: local ?? assert.fail(), podIp, network, authority });
        if ('refuse' in route) return assert.ok(route.message.length > 5);
        assert.equal(route.to.ip, podIp);
        assert.ok(!OWN_PORTS.has(route.to.port));
      }),
      { numRuns: 600 },
    );
  });
});
