import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { chooseServiceByAddress, chooseServiceByHostname } from '../../../common/decision/choose-service.ts';
import type { Service } from '../../../common/decision/mesh-view.ts';
import { cidr, service } from '../../support/builders.ts';
import { meshes } from '../../support/meshes.ts';

const range = (text: string, network = ''): Service['ranges'] => [{ network, cidr: cidr(text) }];

for (const [kind, meshOf] of Object.entries(meshes)) {
  describe(`choosing a service (${kind} mesh)`, () => {
    const byAddress = (services: readonly Service[], client: string, ip = '10.96.0.1', network = ''): string | undefined =>
      chooseServiceByAddress(meshOf({ services }), network, ip, client)?.namespace;
    const vip = (namespace: string, fields: Partial<Service> = {}): Service =>
      service({ name: 's', namespace, vips: ['10.96.0.1'], ...(fields as object) });

    test('of one address: the own namespace, then a canonical one, then the first', () => {
      const services = [vip('first'), vip('canonical', { canonical: true }), vip('own')];
      assert.equal(byAddress(services, 'own'), 'own');
      assert.equal(byAddress(services, 'elsewhere'), 'canonical');
      assert.equal(byAddress([vip('first'), vip('second')], 'elsewhere'), 'first');
    });

    test('of one hostname: the own namespace, then canonical, then the preferred namespace, then the first', () => {
      const named = (namespace: string, fields: Partial<Service> = {}): Service =>
        service({ name: 's', namespace, hostname: 'api.example.com', ...(fields as object) });
      const choose = (services: readonly Service[], client: string, preferred?: string): string | undefined =>
        chooseServiceByHostname(meshOf({ services }), 'api.example.com', client, preferred)?.namespace;
      assert.equal(choose([named('a'), named('b'), named('c', { canonical: true })], 'b'), 'b');
      assert.equal(choose([named('a'), named('b'), named('c', { canonical: true })], 'x', 'b'), 'c');
      assert.equal(choose([named('a'), named('b')], 'x', 'b'), 'b');
      assert.equal(choose([named('a'), named('b')], 'x'), 'a');
    });

    test('a service of one namespace does not exist for others', () => {
      const hidden = vip('hidden', { namespaceOnly: true });
      assert.equal(byAddress([hidden], 'hidden'), 'hidden');
      assert.equal(byAddress([hidden], 'elsewhere'), undefined);
      assert.equal(chooseServiceByHostname(meshOf({ services: [hidden] }), hidden.hostname, 'elsewhere'), undefined);
    });

    test('an exact address that the client may not see leaves the way to a range', () => {
      const hidden = vip('hidden', { namespaceOnly: true });
      const wide = service({ name: 'wide', namespace: 'wide', ranges: range('10.96.0.0/16') });
      assert.equal(byAddress([hidden, wide], 'elsewhere'), 'wide');
      assert.equal(byAddress([hidden, wide], 'hidden'), 'hidden');
    });

    test('an exact address beats every range, the longest range beats shorter ones', () => {
      const ranges = ['0.0.0.0/0', '10.0.0.0/8', '10.96.0.0/16', '10.96.0.0/30'].map((text, i) =>
        service({ name: `r${i}`, namespace: `len-${i}`, ranges: range(text) }),
      );
      assert.equal(byAddress(ranges, 'x'), 'len-3');
      assert.equal(byAddress(ranges, 'x', '10.96.0.9'), 'len-2');
      assert.equal(byAddress(ranges, 'x', '10.97.0.1'), 'len-1');
      assert.equal(byAddress(ranges, 'x', '192.0.2.1'), 'len-0');
      assert.equal(byAddress([...ranges, vip('exact')], 'x'), 'exact');
    });

    test('among ranges the own namespace beats a longer prefix, and canonical decides between equal ones', () => {
      const wide = service({ name: 'wide', namespace: 'own', ranges: range('10.0.0.0/8') });
      const narrow = service({ name: 'narrow', namespace: 'other', ranges: range('10.96.0.0/24') });
      const canonical = service({ name: 'canonical', namespace: 'canonical', ranges: range('10.96.0.0/24'), canonical: true });
      assert.equal(byAddress([narrow, wide, canonical], 'own'), 'own');
      assert.equal(byAddress([narrow, wide, canonical], 'x'), 'canonical');
    });

    test('families and networks do not mix', () => {
      const services = [
        service({ name: 'v4', namespace: 'v4', ranges: range('0.0.0.0/0') }),
        service({ name: 'far', namespace: 'far', ranges: range('10.0.0.0/8', 'net-2') }),
      ];
      assert.equal(byAddress(services, 'x', 'fd00::1'), undefined);
      assert.equal(byAddress(services, 'x', '10.0.0.1'), 'v4');
      assert.equal(byAddress(services, 'x', '10.0.0.1', 'net-2'), 'far');
      assert.equal(byAddress([vip('v')], 'x', '10.96.0.1', 'net-2'), undefined);
    });
  });
}
