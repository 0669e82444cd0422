/** Which endpoint gets a request, and which connection. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { ServiceTraffic } from '../../../common/codec/gen/waypoint.ts';
import { type Service, serviceKey, type Workload } from '../../../common/decision/mesh-view.ts';
import { compileTraffic } from '../../../common/decision/traffic-model.ts';
import type { Pipe } from '../../../common/hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions } from '../../../common/http/connections.ts';
import { defaultHttpLimits } from '../../../common/http/types.ts';
import { ClusterState } from '../../../waypoint/cluster/cluster-state.ts';
import type { PickedEndpoint } from '../../../waypoint/cluster/endpoint.ts';
import { EndpointState } from '../../../waypoint/cluster/endpoint-state.ts';
import { type Balancing, EndpointPicker } from '../../../waypoint/cluster/picker.ts';
import { type HttpVersion, Upstreams } from '../../../waypoint/cluster/upstreams.ts';
import { staticRoutes } from '../../../waypoint/supervisor/static-routes.ts';
import { memberOf, service, workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';

const orders = service({ name: 'orders', ports: { 80: 8080 } });
const NONE: ReadonlySet<string> = new Set();

function pickerOf(
  pods: readonly Workload[],
  options: { balancing?: Balancing; random?: () => number; of?: Service; self?: Workload; policy?: string } = {},
) {
  const mesh = new PlainMesh({ services: [options.of ?? orders], workloads: pods });
  const told = staticRoutes(`traffic: [{namespace: shop, hostname: ${orders.hostname}, policy: {${options.policy ?? ''}}}]`);
  const traffic = told.flatMap(({ resources }) => resources.map(({ bytes }) => compileTraffic(ServiceTraffic.decode(bytes))))[0];
  const clock = new FakeClock();
  const picker = new EndpointPicker({
    view: mesh,
    self: () => options.self ?? workload({ name: 'waypoint', node: 'node-1' }),
    balancing: options.balancing ?? 'round_robin',
    random: options.random ?? (() => 0),
    configuration: { trafficOf: () => (options.policy === undefined ? undefined : traffic), labelOf: () => undefined },
    clock,
    workers: 1,
    events: { ejected: () => undefined },
  });
  const names = (count: number, of = options.of ?? orders): (string | undefined)[] =>
    Array.from({ length: count }, () => picker.pick(of, 80, NONE)?.workload.name);
  return { mesh, picker, names, clock };
}

const pod = (name: string, fields: Partial<Workload> = {}): Workload =>
  workload({ name, addresses: [`10.0.0.${name.charCodeAt(0) - 96}`], services: memberOf(orders), ...fields });

test('requests go round, each endpoint as often as the others', () => {
  const { names } = pickerOf([pod('a'), pod('b'), pod('c')]);
  assert.deepEqual(names(6), ['b', 'c', 'a', 'b', 'c', 'a']);
});

test('how many endpoints of a service are put aside can be seen, for as long as they are', async () => {
  const { picker, clock } = pickerOf([pod('a'), pod('b'), pod('c')], {
    policy: 'outlierDetection: {consecutive5xx: 1, baseEjectionMs: 30000, maxEjectionPercent: 70}',
  });
  for (let i = 0; i < 2; i++) {
    const endpoint = picker.pick(orders, 80, NONE);
    assert.ok(endpoint);
    endpoint.cluster.report(endpoint.key, endpoint.load, 'server-error', clock.monotonic());
  }
  assert.deepEqual(picker.circuits(), [{ name: `${serviceKey(orders)}:80`, ejected: 2 }]);
  await clock.advance(30_001);
  assert.deepEqual(picker.circuits(), [{ name: `${serviceKey(orders)}:80`, ejected: 0 }]);
});

test('an endpoint that weighs twice as much gets twice as many, in turn and not in a row', () => {
  const { names } = pickerOf([pod('a', { capacity: 2 }), pod('b'), pod('c')]);
  const got = names(8);
  assert.equal(got.filter((name) => name === 'a').length, 4);
  assert.deepEqual(got.slice(0, 4), ['a', 'b', 'c', 'a']);
});

test('what is unhealthy, weighs nothing, has no address or is in another network gets nothing', () => {
  const { names } = pickerOf([
    pod('a', { healthy: false }),
    pod('b', { capacity: 0 }),
    pod('c', { addresses: [] }),
    pod('d', { network: 'far' }),
    pod('e'),
  ]);
  assert.deepEqual(names(3), ['e', 'e', 'e']);
});

test('near endpoints get everything while there are any, where the service asks for that', () => {
  const near = service({
    name: 'orders',
    ports: { 80: 8080 },
    loadBalancing: { preferences: ['NODE'], mode: 'FAILOVER', allowUnhealthy: false },
  });
  const { names, mesh, picker } = pickerOf([pod('a', { node: 'node-1' }), pod('b', { node: 'node-2' })], { of: near });
  assert.deepEqual(names(3), ['a', 'a', 'a']);
  mesh.put({ workload: pod('a', { node: 'node-1', healthy: false }) });
  picker.stateChanged();
  assert.deepEqual(names(2), ['b', 'b']);
});

test('an endpoint that refused is not chosen again while there is another one', () => {
  const { picker } = pickerOf([pod('a'), pod('b')]);
  const first = picker.pick(orders, 80, NONE);
  const second = picker.pick(orders, 80, new Set([first?.key ?? '']));
  assert.notEqual(second?.key, first?.key);
  const all = new Set([first?.key ?? '', second?.key ?? '']);
  assert.ok(picker.pick(orders, 80, all), 'after all have refused, somebody is asked again');
});

test('of two endpoints the one with fewer requests under way is chosen', () => {
  const sequence = [0, 0.5, 0, 0.5];
  const { picker } = pickerOf([pod('a'), pod('b')], { balancing: 'least_request', random: () => sequence.shift() ?? 0 });
  const busy = picker.pick(orders, 80, NONE);
  if (busy) busy.load.active = 5;
  assert.notEqual(picker.pick(orders, 80, NONE)?.key, busy?.key);
});

test('requests under way are remembered when the mesh changes', () => {
  const { picker } = pickerOf([pod('a')]);
  const before = picker.pick(orders, 80, NONE);
  if (before) before.load.active = 3;
  picker.stateChanged();
  assert.equal(picker.pick(orders, 80, NONE)?.load.active, 3);
});

test("an endpoint says where it is, on the port that it has, and whom its tunnel's end has to be", () => {
  const named = service({ name: 'orders', ports: { 80: 0 }, subjectAltNames: ['spiffe://cluster.local/ns/shop/sa/alias'] });
  const { picker } = pickerOf([pod('a', { protocol: 'HBONE', serviceAccount: 'orders', services: memberOf([named, { 80: 9999 }]) })], {
    of: named,
  });
  const endpoint = picker.pick(named, 80, NONE);
  assert.deepEqual(endpoint?.address, { ip: '10.0.0.1', port: 9999 });
  assert.deepEqual(endpoint?.peers, ['spiffe://cluster.local/ns/shop/sa/alias', 'spiffe://cluster.local/ns/shop/sa/orders']);
  assert.equal(pickerOf([pod('a')]).picker.pick(orders, 80, NONE)?.peers, undefined, 'plain TCP where there is no tunnel');
});

test("a service's address family is kept to", () => {
  const six = service({ name: 'orders', ports: { 80: 8080 }, ipFamily: 'IPV6' });
  const { picker } = pickerOf([pod('a', { addresses: ['10.0.0.1', 'fd00::1'], services: memberOf(six) })], { of: six });
  assert.equal(picker.pick(six, 80, NONE)?.address?.ip, 'fd00::1');
});

test('no such port is no endpoint', () => {
  const { picker } = pickerOf([pod('a')]);
  assert.equal(picker.pick(orders, 81, NONE), undefined);
});

// Connections

class FakeConnection implements HttpClientConnection {
  usable = true;
  openExchanges = 0;
  destroyed = false;
  readonly options: HttpClientOptions;

  constructor(options: HttpClientOptions) {
    this.options = options;
  }

  request(): never {
    throw new Error('not in this test');
  }

  drain(): void {}

  destroy(): void {
    this.destroyed = true;
    this.options.onClose();
  }
}

function upstreamsOf(dial: (signal: AbortSignal) => Promise<Pipe> = () => Promise.resolve({ kind: 'socket', destroy: () => undefined })) {
  const made: FakeConnection[] = [];
  let dials = 0;
  const connect = (_pipe: Pipe, options: HttpClientOptions): FakeConnection => {
    const connection = new FakeConnection(options);
    made.push(connection);
    return connection;
  };
  const upstreams = new Upstreams({
    limits: defaultHttpLimits,
    clock: new FakeClock(),
    dial: (_endpoint, signal) => {
      dials++;
      return dial(signal);
    },
    connect: { http1: connect, http2: connect },
  });
  return { upstreams, made, dials: () => dials };
}

const endpoint = (name: string): PickedEndpoint => ({
  key: `${serviceKey(orders)} ${name}`,
  workload: workload({ name }),
  service: orders,
  address: { ip: '10.0.0.1', port: 8080 },
  port: 8080,
  peers: undefined,
  load: new EndpointState(0),
  cluster: new ClusterState('shop/orders:80', 1, { ejected: () => undefined }),
});
const open = (upstreams: Upstreams, version: HttpVersion, name = 'a', signal = new AbortController().signal) =>
  upstreams.open(endpoint(name), version, () => signal);

test('an HTTP/1.1 connection is used again when its request is over, the last one first, and only for its endpoint', async () => {
  const { upstreams, made } = upstreamsOf();
  await open(upstreams, 'http1');
  await open(upstreams, 'http1');
  assert.equal(upstreams.ready(endpoint('a'), 'http1'), undefined, 'both have a request');
  made[0]?.options.onRoom?.();
  made[1]?.options.onRoom?.();
  assert.equal(upstreams.ready(endpoint('b'), 'http1'), undefined);
  assert.equal(upstreams.ready(endpoint('a'), 'http2'), undefined);
  assert.equal(upstreams.ready(endpoint('a'), 'http1'), made[1]);
  assert.equal(upstreams.ready(endpoint('a'), 'http1'), made[0]);
  assert.equal(upstreams.ready(endpoint('a'), 'http1'), undefined);
});

test('an idle connection that was closed, or takes nothing any more, is passed over', async () => {
  const { upstreams, made } = upstreamsOf();
  for (let i = 0; i < 3; i++) await open(upstreams, 'http1');
  for (const connection of made) connection.options.onRoom?.();
  made[2]?.options.onClose();
  if (made[1]) made[1].usable = false;
  assert.equal(upstreams.ready(endpoint('a'), 'http1'), made[0]);
  assert.equal(upstreams.size, 2);
});

test('those who want HTTP/2 to one endpoint at once wait for one connection', async () => {
  const gate = Promise.withResolvers<Pipe>();
  const { upstreams, made, dials } = upstreamsOf(() => gate.promise);
  const waiting = [open(upstreams, 'http2'), open(upstreams, 'http2'), open(upstreams, 'http2')];
  gate.resolve({ kind: 'socket', destroy: () => undefined });
  const got = await Promise.all(waiting);
  assert.deepEqual([dials(), new Set(got).size, upstreams.ready(endpoint('a'), 'http2') === made[0]], [1, 1, true]);
  if (made[0]) made[0].usable = false;
  assert.equal(upstreams.ready(endpoint('a'), 'http2'), undefined, 'it is full');
  await open(upstreams, 'http2');
  assert.equal(dials(), 2);
});

test('one who gives up waiting does not take the connection from the others', async () => {
  const gate = Promise.withResolvers<Pipe>();
  const { upstreams } = upstreamsOf(() => gate.promise);
  const leaving = new AbortController();
  const first = open(upstreams, 'http2', 'a', leaving.signal);
  const second = open(upstreams, 'http2');
  leaving.abort(new ProxyError('CLIENT_GONE', 'left'));
  await assert.rejects(first, { code: 'CLIENT_GONE' });
  gate.resolve({ kind: 'socket', destroy: () => undefined });
  assert.ok(await second);
});

test('a dial that fails is told to all who wait, and the next one dials again', async () => {
  let fail = true;
  const { upstreams, dials } = upstreamsOf(() =>
    fail ? Promise.reject(new ProxyError('UPSTREAM_CONNECT', 'refused')) : Promise.resolve({ kind: 'socket', destroy: () => undefined }),
  );
  const results = await Promise.allSettled([open(upstreams, 'http2'), open(upstreams, 'http2')]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  fail = false;
  await open(upstreams, 'http2');
  assert.equal(dials(), 2);
});

test('there is a limit to the connections of one endpoint, and others have theirs', async () => {
  const { upstreams } = upstreamsOf();
  for (let i = 0; i < 1024; i++) await open(upstreams, 'http1');
  await assert.rejects(open(upstreams, 'http1'), { code: 'OVERLOADED' });
  assert.ok(await open(upstreams, 'http1', 'b'));
});

test('at the end nothing stays open and nothing can be opened', async () => {
  const { upstreams, made } = upstreamsOf((signal) =>
    signal.aborted ? Promise.reject(signal.reason) : Promise.resolve({ kind: 'socket', destroy: () => undefined }),
  );
  await open(upstreams, 'http1');
  upstreams.destroy(new ProxyError('DRAINED', 'over'));
  assert.deepEqual([made[0]?.destroyed, upstreams.size], [true, 0]);
  await assert.rejects(open(upstreams, 'http1'), { code: 'DRAINED' });
});

test('where a service keeps the destination, the address that was asked for is the endpoint, in the clear and on its own port', () => {
  const anywhere = service({
    name: 'outside',
    ports: { 80: 8080, 81: 0 },
    loadBalancing: { preferences: [], mode: 'PASSTHROUGH', allowUnhealthy: true },
  });
  const { picker } = pickerOf([], { of: anywhere });
  assert.equal(picker.keepsDestination(anywhere, 80), true);
  const endpoint = picker.original(anywhere, 80, '192.0.2.7');
  assert.deepEqual([endpoint.address, endpoint.peers], [{ ip: '192.0.2.7', port: 8080 }, undefined]);
  assert.equal(picker.original(anywhere, 81, '192.0.2.7').port, 81);
  assert.equal(picker.keepsDestination(orders, 80), false);
});

test('when everybody near has refused, those farther away are asked, and not before', () => {
  const near = service({
    name: 'orders',
    ports: { 80: 8080 },
    loadBalancing: { preferences: ['NODE'], mode: 'FAILOVER', allowUnhealthy: false },
  });
  const { picker, names } = pickerOf([pod('a', { node: 'node-1' }), pod('b', { node: 'node-2' })], { of: near });
  assert.deepEqual(names(3), ['a', 'a', 'a']);
  const first = picker.pick(near, 80, NONE);
  assert.equal(picker.pick(near, 80, new Set([first?.key ?? '']))?.workload.name, 'b');
});
