import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type GatewayAddress,
  type Service,
  Service as ServiceMessage,
  type Workload,
  Workload as WorkloadMessage,
} from '../../../common/codec/gen/workload.ts';
import { ADDRESS_TYPE, serviceResource, workloadResource } from '../../../istiod-lite/model/resources.ts';
import { AddressFacts } from '../../../istiod-lite/xds/address-facts.ts';
import { AddressScopes } from '../../../istiod-lite/xds/address-scopes.ts';
import { type ResourceChange, ResourceStore } from '../../../istiod-lite/xds/resource-store.ts';

const EMPTY = new Uint8Array();
const HOST = (name: string, namespace = 'shop'): string => `${name}.${namespace}.svc.cluster.local`;
const gateway = (name: string, namespace = 'shop'): GatewayAddress => ({
  destination: { $case: 'hostname', value: { namespace, hostname: HOST(name, namespace) } },
  hboneMtlsPort: 15008,
});

const service = (name: string, more: Partial<Service> = {}) =>
  serviceResource({ ...ServiceMessage.decode(EMPTY), name, namespace: 'shop', hostname: HOST(name), ...more });
const workload = (name: string, services: string[], more: Partial<Workload> = {}) =>
  workloadResource({
    ...WorkloadMessage.decode(EMPTY),
    uid: name,
    name,
    namespace: 'shop',
    services: Object.fromEntries(services.map((of) => [`shop/${HOST(of)}`, { ports: [] }])),
    ...more,
  });

function start(...resources: ReturnType<typeof service>[]) {
  const all = new ResourceStore(ADDRESS_TYPE);
  all.apply(resources, [], 0);
  const facts = new AddressFacts(all);
  const scopes = new AddressScopes(all, facts);
  const store = scopes.storeOf({ namespace: 'shop', host: 'wp' }, new Set());
  const names = (): string[] => [...store.values()].map(({ name }) => name).sort();
  const apply = (changed: ReturnType<typeof service>[], removed: string[] = []): readonly string[] => {
    const change = all.apply(changed, removed, 1);
    if (!change) return [];
    facts.changed(change.names);
    return scopes.addressesChanged(change).flatMap(told);
  };
  return { all, scopes, store, names, apply };
}

const told = (change: ResourceChange): string[] => [...change.names].sort();

test('a waypoint sees what is bound to its Gateway, what stands behind that, and its own pods', () => {
  const { names } = start(
    service('orders', { waypoint: gateway('wp') }),
    service('free'),
    service('foreign', { waypoint: gateway('other') }),
    service('canary', { waypoint: gateway('other'), weightedWaypoints: [{ destination: gateway('wp'), weight: 10 }] }),
    service('wp'),
    workload('orders-1', ['orders']),
    workload('free-1', ['free']),
    workload('both-1', ['free', 'orders']),
    workload('wp-1', ['wp']),
    workload('alone', [], { waypoint: gateway('wp') }),
    workload('other-ns', [], { waypoint: gateway('wp', 'elsewhere') }),
  );
  assert.deepEqual(names(), [
    'alone',
    'both-1',
    'orders-1',
    `shop/${HOST('canary')}`,
    `shop/${HOST('orders')}`,
    `shop/${HOST('wp')}`,
    'wp-1',
  ]);
});

test('changes of others are not told; binding a service tells it with its workloads, unbinding takes both away', () => {
  const { apply, names } = start(service('orders'), workload('orders-1', ['orders']));
  assert.deepEqual(names(), []);
  assert.deepEqual(apply([workload('orders-2', ['orders'])]), []);
  assert.deepEqual(apply([service('orders', { waypoint: gateway('wp') })]), ['orders-1', 'orders-2', `shop/${HOST('orders')}`]);
  assert.deepEqual(apply([workload('orders-3', ['orders'])]), ['orders-3']);
  assert.deepEqual(apply([], ['orders-1']), ['orders-1']);
  assert.deepEqual(apply([service('orders')]), ['orders-2', 'orders-3', `shop/${HOST('orders')}`]);
  assert.deepEqual(names(), []);
});

test('services that its routes name are seen as long as they do', () => {
  const { scopes, names } = start(service('backend'), workload('backend-1', ['backend']));
  const named = new Set([`shop/${HOST('backend')}`, 'shop/missing']);
  assert.deepEqual(scopes.routesChanged({ namespace: 'shop', host: 'wp' }, named, 1).flatMap(told), [
    'backend-1',
    `shop/${HOST('backend')}`,
  ]);
  assert.deepEqual(scopes.routesChanged({ namespace: 'shop', host: 'wp' }, named, 2), []);
  scopes.routesChanged({ namespace: 'shop', host: 'wp' }, new Set(), 3);
  assert.deepEqual(names(), []);
});

test('bytes are those of the store of everything', () => {
  const { all, store } = start(service('orders', { waypoint: gateway('wp') }));
  const name = `shop/${HOST('orders')}`;
  assert.equal(store.get(name)?.encoded, all.get(name)?.encoded);
});

test('whatever changes in whatever order, a waypoint ends with what it would get if it came new', () => {
  let seed = 7;
  const random = (n: number): number => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31;
    return seed % n;
  };
  const { all, scopes, names, apply } = start();
  for (let i = 0; i < 500; i++) {
    const name = `s${random(4)}`;
    if (random(2)) apply([service(name, random(2) ? { waypoint: gateway(random(2) ? 'wp' : 'other') } : {})]);
    else if (random(3)) apply([workload(`w${random(8)}`, [name, `s${random(4)}`], random(4) ? {} : { waypoint: gateway('wp') })]);
    else apply([], [random(2) ? `w${random(8)}` : `shop/${HOST(name)}`]);
    if (i % 25 === 0) scopes.routesChanged({ namespace: 'shop', host: 'wp' }, new Set([`shop/${HOST(`s${random(4)}`)}`]), i);
    if (i % 100 !== 99) continue;
    scopes.routesChanged({ namespace: 'shop', host: 'wp' }, new Set(), i);
    const fresh = new AddressScopes(all, new AddressFacts(all)).storeOf({ namespace: 'shop', host: 'wp' }, new Set());
    assert.deepEqual(names(), [...fresh.values()].map((stored) => stored.name).sort());
  }
});
