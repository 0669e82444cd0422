import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type InboundRoute, inboundService, resolveInbound } from '../../../common/decision/inbound.ts';
import type { Workload } from '../../../common/decision/mesh-view.ts';
import { memberOf, service, waypointAt, waypointNamed, workload } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';
import type { MeshContents } from '../../support/plain-mesh.ts';

const api = service({ name: 'api', vips: ['10.96.0.1'], ports: { 80: 8080, 90: 0 } });
const server = workload({ name: 'server', addresses: ['10.0.0.2', 'fd00::2'], protocol: 'HBONE', services: memberOf([api, { 90: 9191 }]) });

for (const [kind, meshOf] of Object.entries(meshes)) {
  describe(`a CONNECT (${kind} mesh)`, () => {
    const resolve = (
      authority: string,
      contents: MeshContents = {},
      local: Workload = server,
      podIp = local.addresses[0] ?? '',
    ): InboundRoute =>
      resolveInbound(meshOf({ services: [api, ...(contents.services ?? [])], workloads: [local, ...(contents.workloads ?? [])] }), {
        local,
        podIp,
        network: '',
        authority,
      });
    const refusal = (route: InboundRoute): string | undefined => ('refuse' in route ? route.refuse : undefined);

    test("to the pod's address is delivered there", () => {
      assert.deepEqual(resolve('10.0.0.2:8080'), { to: { ip: '10.0.0.2', port: 8080 } });
      assert.deepEqual(resolve('[fd00::2]:8080', {}, server, 'fd00::2'), { to: { ip: 'fd00::2', port: 8080 } });
    });

    test('to another address is refused with both', () => {
      const route = resolve('10.0.0.3:8080');
      assert.deepEqual(route, { refuse: 'IP_MISMATCH', message: 'ip mismatch: 10.0.0.3 != 10.0.0.2' });
      assert.equal(refusal(resolve('127.0.0.1:8080')), 'IP_MISMATCH');
      assert.equal(refusal(resolve('[fd00::2]:8080')), 'IP_MISMATCH');
    });

    test('without a port, or with something else than host and port, is a bad request', () => {
      for (const authority of [
        '',
        '10.0.0.2',
        'api',
        '[fd00::2]',
        ':80',
        'api:',
        'api:99999',
        'api:-1',
        'a b:80',
        'http://api:80',
        'x'.repeat(400),
      ]) {
        assert.equal(refusal(resolve(authority)), 'BAD_REQUEST', JSON.stringify(authority));
      }
    });

    test('to our own ports is refused, whichever way they are named', () => {
      for (const port of [15001, 15006, 15008]) assert.equal(refusal(resolve(`10.0.0.2:${port}`)), 'SELF_CALL');
      const loop = service({ name: 'loop', ports: { 80: 15008 } });
      const local = { ...server, services: memberOf(loop) };
      assert.equal(refusal(resolve(`${loop.hostname}:80`, { services: [loop] }, local)), 'SELF_CALL');
      const tunnelled = { ...server, applicationTunnel: { protocol: 'NONE', port: 15006 } } as const;
      assert.equal(refusal(resolve('10.0.0.2:80', {}, tunnelled)), 'SELF_CALL');
    });

    test("to a hostname is delivered to the endpoint's own port, else the service's", () => {
      assert.deepEqual(resolve(`${api.hostname}:80`), { to: { ip: '10.0.0.2', port: 8080 }, service: api });
      assert.deepEqual(resolve(`${api.hostname}:90`), { to: { ip: '10.0.0.2', port: 9191 }, service: api });
      assert.equal(refusal(resolve(`${api.hostname}:91`)), 'SERVICE_UNKNOWN');
    });

    test('to a hostname that is unknown, hidden, or not of this pod is refused', () => {
      assert.equal(refusal(resolve('nobody.example.com:80')), 'SERVICE_UNKNOWN');
      const hidden = service({ name: 'hidden', namespace: 'other', namespaceOnly: true });
      assert.equal(
        refusal(resolve(`${hidden.hostname}:80`, { services: [hidden] }, { ...server, services: memberOf(hidden) })),
        'SERVICE_UNKNOWN',
      );
      const foreign = service({ name: 'foreign' });
      assert.equal(refusal(resolve(`${foreign.hostname}:80`, { services: [foreign] })), 'SERVICE_UNKNOWN');
    });

    describe('at a waypoint', () => {
      const gateway = service({ name: 'waypoint', vips: ['10.96.9.9'], ports: { 15008: 15008 } });
      const waypoint = workload({ name: 'waypoint', addresses: ['10.0.9.9'], services: memberOf(gateway), healthy: false });
      const attached = [waypointAt('10.0.9.9'), waypointAt('10.96.9.9'), waypointNamed('shop', gateway.hostname)];

      test('is taken for a workload or service that has this waypoint, also while the waypoint is unhealthy', () => {
        for (const at of attached) {
          const target = workload({ name: 'target', addresses: ['10.0.0.7'], waypoint: at });
          const guarded = service({ name: 'guarded', vips: ['10.96.0.7'], waypoint: at });
          const contents = { services: [gateway, guarded], workloads: [target] };
          assert.deepEqual(resolve('10.0.0.7:8080', contents, waypoint), { to: { ip: '10.0.9.9', port: 8080 } });
          assert.deepEqual(resolve('10.96.0.7:80', contents, waypoint), { to: { ip: '10.0.9.9', port: 80 } });
        }
      });

      test('is refused for whoever has another waypoint or none', () => {
        const contents = {
          services: [gateway],
          workloads: [
            workload({ name: 'none', addresses: ['10.0.0.7'] }),
            workload({ name: 'other', addresses: ['10.0.0.8'], waypoint: waypointAt('10.0.9.8') }),
          ],
        };
        assert.equal(refusal(resolve('10.0.0.7:80', contents, waypoint)), 'IP_MISMATCH');
        assert.equal(refusal(resolve('10.0.0.8:80', contents, waypoint)), 'IP_MISMATCH');
      });
    });

    describe('to an application tunnel', () => {
      const tunnel = (protocol: 'PROXY' | 'NONE', port: number): Workload => ({ ...server, applicationTunnel: { protocol, port } });

      test('goes to its port, and by PROXY protocol tells the original destination', () => {
        const expected = { to: { ip: '10.0.0.2', port: 15088 }, tunnel: { protocol: 'PROXY', target: { ip: '10.9.9.9', port: 80 } } };
        assert.deepEqual(resolve('10.9.9.9:80', {}, tunnel('PROXY', 15088)), expected);
      });

      test('without PROXY protocol or without a port of its own changes no more than that', () => {
        assert.deepEqual(resolve('10.9.9.9:80', {}, tunnel('NONE', 15088)), { to: { ip: '10.0.0.2', port: 15088 } });
        const kept = resolve('10.9.9.9:80', {}, tunnel('PROXY', 0));
        assert.deepEqual('to' in kept && kept.to, { ip: '10.0.0.2', port: 80 });
      });

      test('by hostname names a virtual address: of the own network and of IPv4 before others', () => {
        const many = {
          ...api,
          addresses: [
            { network: 'net-2', ip: '10.2.0.1' },
            { network: '', ip: 'fd00:96::1' },
            { network: '', ip: '10.96.0.9' },
          ],
        };
        const local = { ...tunnel('PROXY', 15088), services: memberOf(many) };
        const route = resolveInbound(meshOf({ services: [many], workloads: [local] }), {
          local,
          podIp: '10.0.0.2',
          network: '',
          authority: `${many.hostname}:80`,
        });
        assert.deepEqual('tunnel' in route && route.tunnel?.target, { ip: '10.96.0.9', port: 80 });
        const headless = { ...api, addresses: [] };
        const none = resolveInbound(meshOf({ services: [headless], workloads: [local] }), {
          local,
          podIp: '10.0.0.2',
          network: '',
          authority: `${headless.hostname}:80`,
        });
        assert.equal(refusal(none), 'SERVICE_UNKNOWN');
      });
    });

    test("is labelled with the service that the peer named, if the pod is in it, else by the port's service", () => {
      const other = service({ name: 'other', ports: { 81: 8080 } });
      const local = { ...server, services: memberOf([api, { 90: 9191 }], other) };
      const view = meshOf({ services: [api, other], workloads: [local] });
      assert.equal(inboundService(view, local, 8080, other.hostname)?.name, 'other');
      assert.equal(inboundService(view, local, 8080, 'unknown.example.com')?.name, 'api');
      assert.equal(inboundService(view, local, 9191)?.name, 'api');
      assert.equal(inboundService(view, local, 22), undefined);
    });
  });
}
