/** Connections that carry no HTTP: who may pass by the name that TLS asks for, and where they go. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import type { AppProtocol } from '../../../common/decision/mesh-view.ts';
import { EndpointPicker } from '../../../waypoint/cluster/picker.ts';
import { targetOf } from '../../../waypoint/inbound/hbone.ts';
import { kindOf } from '../../../waypoint/supervisor/resources.ts';
import { staticRoutes } from '../../../waypoint/supervisor/static-routes.ts';
import { Passthrough } from '../../../waypoint/tcp/passthrough.ts';
import { Configuration } from '../../../waypoint/worker/configuration.ts';
import { memberOf, service, workload } from '../../support/builders.ts';
import { helloOf } from '../../support/client-hello.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { MemoryPipe, pipePair } from '../../support/http-pipes.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';
import { recordingLog } from '../../support/recording-log.ts';
import { settle } from '../../support/tunnels.ts';

const CALLER = 'spiffe://cluster.local/ns/shop/sa/client';

/** One connection to `db`, which has two pods, on a port that speaks what is said. */
function connection(config: string, protocol: AppProtocol | undefined, refusing: readonly string[] = []) {
  const clock = new FakeClock();
  const db = service({
    name: 'db',
    ports: { 5432: 5432 },
    appProtocols: new Map(protocol ? [[5432, protocol]] : []),
  });
  const pods = ['db-1', 'db-2'].map((name, i) => workload({ name, addresses: [`10.0.0.${i + 1}`], services: memberOf(db) }));
  const view = new PlainMesh({ services: [db], workloads: pods });
  const configuration = new Configuration(recordingLog());
  for (const { typeUrl, resources } of staticRoutes(config)) configuration.apply({ kind: kindOf(typeUrl), resources, removed: [] });
  const picker = new EndpointPicker({
    view,
    self: () => workload({ name: 'waypoint' }),
    balancing: 'round_robin',
    configuration,
    random: () => 0,
    clock,
    workers: 1,
    events: { ejected: () => undefined },
  });
  const [client, pipe] = pipePair();
  const dialed: string[] = [];
  const upstream = new MemoryPipe();
  const ended: (ProxyError | undefined)[] = [];
  const passing = new Passthrough(
    {
      configuration,
      view,
      picker,
      clock,
      sniffTimeoutMs: 200,
      random: () => 0,
      dialer: {
        connect: ({ workload: { name } }) => {
          dialed.push(name);
          if (refusing.includes(name)) return Promise.reject(new ProxyError('UPSTREAM_CONNECT', `${name} refused`));
          return Promise.resolve(upstream);
        },
      },
      telemetry: {
        tcpOpened: () =>
          ({ running: () => undefined, ended: (error?: ProxyError) => void ended.push(error) }) as unknown as ReturnType<
            ConstructorParameters<typeof Passthrough>[0]['telemetry']['tcpOpened']
          >,
      },
    },
    pipe,
    {
      caller: {
        address: { ip: '10.0.9.9', port: 4711 },
        identity: parseSpiffeId(CALLER),
        principal: CALLER,
        workload: undefined,
        baggage: undefined,
      },
      target: targetOf({ service: db, port: 5432, ip: '10.96.0.9' }),
      local: { ip: '10.0.0.9', port: 15008 },
    },
    'id',
  );
  const over = passing.run();
  return { clock, client, dialed, upstream, ended, over, passing, configuration };
}

const sni = (action: 'ALLOW' | 'DENY', value: string): string =>
  `policies: [{namespace: shop, name: sni, action: ${action}, targets: [{everything: {}}],
    rules: [{when: [{key: connection.sni, values: [{exact: ${value}}]}]}]}]`;

test('a DENY by connection.sni refuses TLS that asks for that name, before anything is dialled', async () => {
  const { client, dialed, ended, over } = connection(sni('DENY', 'admin.example'), 'TLS');
  client.writeSlice(await helloOf('Admin.example'));
  await over;
  assert.deepEqual(dialed, []);
  assert.equal(ended[0]?.code, 'POLICY_DENIED');
  assert.equal(ended[0]?.policy, 'shop/sni');
});

test('an ALLOW by connection.sni lets TLS of that name pass, its first bytes first, and nothing else', async () => {
  const good = connection(sni('ALLOW', 'open.example'), 'TLS');
  const hello = await helloOf('open.example');
  good.client.writeSlice(hello);
  await settle(5);
  assert.equal(good.dialed.length, 1);
  assert.deepEqual(Buffer.concat(good.upstream.output), hello);
  for (const bytes of [await helloOf('other.example'), await helloOf(undefined), Buffer.from('SELECT 1')]) {
    const bad = connection(sni('ALLOW', 'open.example'), 'TLS');
    bad.client.writeSlice(bytes);
    await bad.over;
    assert.equal(bad.ended[0]?.code, 'POLICY_DENIED');
  }
});

test('where a policy asks for a server name a silent client is decided on after the time of detection, in the stricter way', async () => {
  const { clock, dialed, ended, over } = connection(sni('DENY', 'admin.example'), undefined);
  await settle(2);
  assert.equal(ended.length, 0);
  await clock.advance(200);
  await over;
  assert.deepEqual(dialed, []);
  assert.equal(ended[0]?.code, 'POLICY_DENIED');
});

test('a policy without server names does not wait: a server that speaks first is heard at once', async () => {
  const { client, upstream, dialed } = connection(
    'policies: [{namespace: shop, name: all, targets: [{everything: {}}], rules: [{}]}]',
    'TCP',
  );
  await settle(2);
  assert.equal(dialed.length, 1);
  upstream.feed('220 ready');
  await settle(2);
  assert.equal(client.waiting, 9);
});

test('a connection from before a rule about server names does not get past it', async () => {
  const { configuration, passing, ended, over } = connection('', 'TCP');
  await settle(2);
  for (const { typeUrl, resources } of staticRoutes(sni('DENY', 'admin.example')))
    configuration.apply({ kind: kindOf(typeUrl), resources, removed: [] });
  passing.recheck();
  await over;
  assert.equal(ended[0]?.code, 'POLICY_REVOKED');
});

test('a connection of bytes is closed when it is as old as its service allows, and one that ended before leaves no timer', async () => {
  const limit = `traffic: [{namespace: shop, hostname: db.shop.svc.cluster.local, policy: {connectionPool: {maxConnectionDurationMs: 60000}}}]`;
  const old = connection(limit, 'TCP');
  await settle(3);
  await old.clock.advance(59_000);
  assert.equal(old.ended.length, 0);
  await old.clock.advance(1000);
  await old.over;
  assert.equal(old.ended[0]?.code, 'TIME_OVER');
  const short = connection(limit, 'TCP');
  await settle(3);
  short.passing.abort(new ProxyError('DRAINED', 'over'));
  await short.over;
  assert.equal(short.clock.pending, 0);
});

test('a connection of bytes is closed when it has been silent for as long as its service allows, in either direction', async () => {
  const limit = `traffic: [{namespace: shop, hostname: db.shop.svc.cluster.local, policy: {connectionPool: {tcpIdleTimeoutMs: 8000}}}]`;
  const silent = connection(limit, 'TCP');
  await settle(3);
  for (const end of [silent.client, silent.upstream, silent.client]) {
    await silent.clock.advance(7000);
    if (end === silent.client) silent.client.writeSlice(Buffer.from('ping'));
    else silent.upstream.feed('pong');
    await settle(3);
    assert.equal(silent.ended.length, 0);
  }
  await silent.clock.advance(7000);
  assert.equal(silent.ended.length, 0);
  await silent.clock.advance(2000);
  await silent.over;
  assert.equal(silent.ended.at(-1)?.code, 'TIME_OVER');
  assert.match(silent.ended.at(-1)?.message ?? '', /silent for 8 s/);
  assert.equal(silent.clock.pending, 0);
});

const TLS_ROUTE = `routes: [{namespace: shop, hostname: db.shop.svc.cluster.local, ports: [{port: 5432, connections: [
  {name: TLSRoute shop/db, serverNames: ["*.db.example"], backends: [{to: {namespace: shop, hostname: db.shop.svc.cluster.local, port: 5432}}]}]}]}]`;

test('a rule for a server name takes TLS of that name, and what no rule takes is refused', async () => {
  const good = connection(TLS_ROUTE, 'TLS');
  const hello = await helloOf('one.db.example');
  good.client.writeSlice(hello.subarray(0, 40));
  await settle(3);
  assert.deepEqual(good.dialed, [], 'half a hello does not decide');
  good.client.writeSlice(hello.subarray(40));
  await settle(5);
  assert.equal(good.dialed.length, 1);
  assert.deepEqual(Buffer.concat(good.upstream.output), hello);
  const other = connection(TLS_ROUTE, 'TLS');
  other.client.writeSlice(await helloOf('db.example'));
  await other.over;
  assert.equal(other.ended[0]?.code, 'ROUTE_UNMATCHED');
});

test('an endpoint that refuses costs a connection nothing while there is another one', async () => {
  const moved = connection('', 'TCP', ['db-2']);
  await settle(3);
  assert.deepEqual([moved.dialed, moved.ended], [['db-2', 'db-1'], []]);
  const lost = connection('', 'TCP', ['db-1', 'db-2']);
  await lost.over;
  assert.deepEqual([lost.dialed, lost.ended[0]?.code], [['db-2', 'db-1'], 'UPSTREAM_CONNECT']);
});
