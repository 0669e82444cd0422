/** Addresses that ServiceEntries are given, and claims that they may not make. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseCidr } from '../../../common/base/address.ts';
import { Address } from '../../../common/codec/gen/workload.ts';
import type { StatusWrite } from '../../../istiod-lite/model/conditions.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import * as make from '../../support/kube-objects.ts';

type Json = Record<string, unknown>;

const range = (text: string) => parseCidr(text) ?? assert.fail(text);

class Mesh {
  readonly index: MeshIndex;
  readonly #objects = new Map<string, Json>();
  readonly #written: StatusWrite[] = [];

  constructor(v4 = '240.240.0.0/16', more: { grantedHosts?: string[] } = {}) {
    this.index = new MeshIndex({
      clusterId: 'Kubernetes',
      domain: 'cluster.local',
      rootNamespace: 'istio-system',
      trustDomain: 'cluster.local',
      network: '',
      autoAddresses: { v4: range(v4), v6: range('2001:2::/48') },
      guardClaims: true,
      ...more,
    });
  }

  entry(
    name: string,
    spec: Json,
    meta: { namespace?: string; createdAt?: string; labels?: Record<string, string> } = {},
    status?: Json,
  ): this {
    const object = make.serviceEntry({
      name,
      ...meta,
      spec: { ports: [{ number: 80, name: 'http', protocol: 'HTTP' }], ...spec },
      ...(status ? { status } : {}),
    });
    this.#objects.set(name, object);
    return this.apply('ServiceEntry', object);
  }

  apply(kind: 'ServiceEntry' | 'Service' | 'Namespace', object: Json, type: 'modified' | 'deleted' = 'modified'): this {
    this.index.apply({ type, kind, object });
    return this;
  }

  remove(name: string): this {
    return this.apply('ServiceEntry', this.#objects.get(name) ?? {}, 'deleted');
  }

  /** What is to be written: `name host value …`. With `back` the objects show it from then on, as after a write. */
  allocated(back = true): string[] {
    const writes = this.index.flush().statuses;
    this.#written.push(...writes);
    return writes
      .filter(({ fieldManager }) => fieldManager === 'istio-ip-autoallocate')
      .map(({ name, status }) => {
        const addresses = (status?.addresses ?? []) as { host: string; value: string }[];
        const object = this.#objects.get(name);
        if (back && object) {
          const shown = { ...object, status: { addresses } };
          this.#objects.set(name, shown);
          this.apply('ServiceEntry', shown);
        }
        return [name, ...addresses.map(({ value }) => value)].join(' ');
      });
  }

  conditions(name: string): string[] {
    this.#written.push(...this.index.flush().statuses);
    const last = this.#written.filter((write) => write.name === name && write.fieldManager === 'istio-ambient-service').at(-1);
    return (last?.conditions ?? []).map(({ type, reason, message }) => `${type} ${reason} ${message}`);
  }

  /** Hostnames with their addresses. */
  published(): string[] {
    this.#written.push(...this.index.flush().statuses);
    return [...this.index.addresses()].flatMap(({ bytes }) => {
      const { type } = Address.decode(bytes);
      if (type?.$case !== 'service') return [];
      const { namespace, hostname, addresses } = type.value;
      return [
        [
          `${namespace}/${hostname}`,
          ...addresses.map(({ address, length }) => `${address.join('.')}${length === undefined ? '' : `/${length}`}`),
        ].join(' '),
      ];
    });
  }
}

const dns = (...hosts: string[]): Json => ({ hosts, resolution: 'DNS' });

test('each host without an address is given one of each family, and keeps it', () => {
  const mesh = new Mesh().entry('a', dns('a.example', 'b.example'));
  assert.deepEqual(mesh.allocated(), ['a 240.240.0.1 2001:2::1 240.240.0.2 2001:2::2']);
  assert.deepEqual(mesh.allocated(), [], 'what it shows is what it should');
  assert.ok(mesh.published().includes('shop/a.example 240.240.0.1 32.1.0.2.0.0.0.0.0.0.0.0.0.0.0.1'));
  mesh.entry('c', dns('c.example'));
  assert.deepEqual(mesh.allocated(), ['c 240.240.0.3 2001:2::3']);
});

test('none is given to who has its own, wants none, has no fixed name, or goes where the client was going', () => {
  const mesh = new Mesh();
  mesh.entry('own', { ...dns('a.example'), addresses: ['10.1.1.1'] });
  mesh.entry('off', dns('b.example'), { labels: { 'networking.istio.io/enable-autoallocate-ip': 'false' } });
  mesh.entry('wild', { hosts: ['*.example'], resolution: 'STATIC' });
  mesh.entry('none', { hosts: ['d.example'], resolution: 'NONE' });
  assert.deepEqual(mesh.allocated(), []);
  mesh.entry('dynamic', { hosts: ['*.example'], resolution: 'DYNAMIC_DNS' });
  assert.deepEqual(mesh.allocated(), ['dynamic 240.240.0.1 2001:2::1']);
});

test('where two show one address the older keeps it, and what somebody wrote is never given away', () => {
  const mesh = new Mesh();
  const status = { addresses: ['240.240.0.1', '2001:2::1'].map((value) => ({ host: 'x.example', value })) };
  mesh.entry('young', dns('x.example'), { createdAt: '2026-01-02T00:00:00Z' }, status);
  mesh.entry('old', dns('x.example'), { createdAt: '2026-01-01T00:00:00Z' }, status);
  assert.deepEqual(mesh.allocated(), ['young 240.240.0.2 2001:2::2']);
  mesh.entry('mine', { hosts: ['y.example'], resolution: 'STATIC', addresses: ['240.240.0.1'] }, { createdAt: '2026-01-03T00:00:00Z' });
  assert.deepEqual(mesh.allocated(), ['old 240.240.0.3 2001:2::1']);
});

test('an address goes with its reason, and is not given out again at once', () => {
  const mesh = new Mesh().entry('a', dns('a.example'));
  mesh.allocated();
  mesh.entry('a', { hosts: ['a.example'], resolution: 'NONE' }, {}, { addresses: [{ host: 'a.example', value: '240.240.0.1' }] });
  assert.deepEqual(mesh.allocated(), ['a']);
  mesh.remove('a').entry('b', dns('b.example'));
  assert.deepEqual(mesh.allocated(), ['b 240.240.0.2 2001:2::2']);
});

test('a range that is used up gives nothing, and nobody hangs', () => {
  const mesh = new Mesh('240.240.0.0/30').entry('a', dns('a.example', 'b.example', 'c.example'));
  assert.deepEqual(mesh.allocated(false), ['a 240.240.0.1 2001:2::1 240.240.0.2 2001:2::2 2001:2::3']);
});

test('what is not written yet is handed out once, and to nobody else', () => {
  const mesh = new Mesh().entry('a', dns('a.example'));
  assert.deepEqual(mesh.allocated(false), ['a 240.240.0.1 2001:2::1']);
  mesh.entry('b', dns('b.example'));
  assert.deepEqual(mesh.allocated(false), ['b 240.240.0.2 2001:2::2']);
});

const claim = (host: string, addresses: string[] = []): Json => ({
  hosts: [host],
  resolution: 'STATIC',
  addresses,
  endpoints: [{ address: '192.0.2.1' }],
});

for (const [what, host, addresses] of [
  ["a name of another namespace's Service", 'api.bank.svc.cluster.local', []],
  ['all names of the cluster', '*.cluster.local', []],
  ['everything', '*', []],
  ["a cloud's metadata server", 'evil.example', ['169.254.169.254']],
  ['a range with link-local addresses in it', 'evil.example', ['169.0.0.0/8']],
] as const) {
  test(`a tenant who claims ${what} gets nothing of it, and is told`, () => {
    const mesh = new Mesh().entry('e', claim(host, [...addresses]), { namespace: 'tenant' });
    assert.match(mesh.conditions('e').join(), /warren\.dev\/ClaimRefused ForeignClaim/);
    assert.deepEqual(
      mesh.published().filter((line) => addresses.length === 0 || line.split(' ').length > 1),
      [],
    );
  });
}

test("a tenant cannot take another one's Service address, nor the API server's, whoever comes first", () => {
  const mesh = new Mesh().entry('e', claim('evil.example', ['10.96.0.1', '10.96.7.7']), { namespace: 'tenant' });
  assert.equal(mesh.published().length, 1);
  assert.deepEqual(mesh.conditions('e'), []);
  mesh.apply('Service', make.service({ name: 'kubernetes', namespace: 'default', vip: '10.96.0.1' }));
  assert.ok(mesh.published().includes('tenant/evil.example 10.96.7.7'), mesh.published().join('; '));
  assert.match(mesh.conditions('e').join(), /10\.96\.0\.1/);
  mesh.apply('Service', make.service({ name: 'kubernetes', namespace: 'default', vip: '10.96.0.1' }), 'deleted');
  assert.ok(mesh.published().includes('tenant/evil.example 10.96.0.1 10.96.7.7'));
});

test('its own names are a namespace’s to claim, everything is the root’s, and an administrator may grant the rest', () => {
  const own = new Mesh().entry('e', claim('api.tenant.svc.cluster.local'), { namespace: 'tenant' });
  assert.equal(own.published().length, 1);
  const root = new Mesh().entry('e', claim('api.bank.svc.cluster.local', ['169.254.20.10']), { namespace: 'istio-system' });
  assert.equal(root.published()[0]?.startsWith('istio-system/api.bank'), true);
  const granted = new Mesh(undefined, { grantedHosts: ['tenant=*.bank.svc.cluster.local'] });
  assert.equal(granted.entry('e', claim('api.bank.svc.cluster.local'), { namespace: 'tenant' }).published().length, 1);
});
