/** Which pod of a waypoint a connection takes: the least busy one, and another one where that is gone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { SocketAddress } from '../../../common/base/address.ts';
import { ProxyError } from '../../../common/base/errors.ts';
import type { Workload } from '../../../common/decision/mesh-view.ts';
import type { AppSocket } from '../../../common/hbone/app-socket.ts';
import { TunnelNotOpened, TunnelRefused } from '../../../common/hbone/refusal.ts';
import { carryOutbound } from '../../../ztunnel/outbound/outbound.ts';
import type { ConnectionFacts } from '../../../ztunnel/worker/connection-facts.ts';
import { ConnectionTable } from '../../../ztunnel/worker/connections.ts';
import type { PodContext } from '../../../ztunnel/worker/context.ts';
import { GatewayLoad } from '../../../ztunnel/worker/gateway-load.ts';
import { memberOf, service, waypointAt, workload } from '../../support/builders.ts';
import { MemoryPipe } from '../../support/http-pipes.ts';
import { PlainMesh } from '../../support/plain-mesh.ts';
import { settle } from '../../support/tunnels.ts';

const CLIENT = workload({ name: 'client', addresses: ['10.0.0.9'], protocol: 'HBONE' });
const TO: SocketAddress = { ip: '10.96.0.1', port: 80 };

/** A client of a service with a waypoint of so many pods; `fails` says what becomes of a tunnel to one of them. */
function mesh(pods: number, fails: (ip: string) => Error | undefined) {
  const waypoint = service({ name: 'waypoint', vips: ['10.96.0.9'], ports: { 15008: 15008 } });
  const web = service({ name: 'web', vips: [TO.ip], waypoint: waypointAt('10.96.0.9') });
  const replicas = Array.from({ length: pods }, (_, i) =>
    workload({ name: `waypoint-${i}`, addresses: [`10.0.1.${i}`], protocol: 'HBONE', services: memberOf(waypoint) }),
  );
  const view = new PlainMesh({ services: [waypoint, web], workloads: [CLIENT, ...replicas] });
  const gatewayLoad = new GatewayLoad();
  const connections = new ConnectionTable();
  const asked: string[] = [];
  const opened: MemoryPipe[] = [];
  const ends: { to: string | undefined; error: ProxyError | undefined }[] = [];
  // As much of a pod as an outbound connection looks at.
  const pod = {
    spec: { uid: 'client' },
    local: { get: () => CLIENT },
    pool: {
      connect: ({ to }: { to: SocketAddress }) => {
        asked.push(to.ip);
        const error = fails(to.ip);
        if (error) return Promise.reject(error);
        const pipe = new MemoryPipe();
        opened.push(pipe);
        return Promise.resolve(pipe);
      },
    },
    parts: {
      view,
      gatewayLoad,
      connections,
      random: Math.random,
      randomHex: (digits: number) => '07'.repeat(digits / 2),
      settings: { network: '', outboundTrafficPolicy: 'ALLOW_ANY' },
      telemetry: {
        opened: (first: ConnectionFacts) => {
          let facts = first;
          return {
            moved: (next: ConnectionFacts) => {
              facts = next;
            },
            running: () => undefined,
            ended: (error?: ProxyError) => void ends.push({ to: facts.destinationWorkload?.name, error }),
          };
        },
      },
    },
  } as unknown as PodContext;
  const live = connections.add('client');
  const connect = () => {
    const app = new MemoryPipe();
    const over = carryOutbound(pod, live, app as unknown as AppSocket, { ip: '10.0.0.9', port: 4711 }, TO);
    return { app, over };
  };
  const loadOf = (replica: Workload | undefined): number => (replica ? gatewayLoad.of(replica) : 0);
  return { connect, asked, opened, ends, replicas, loadOf, gatewayLoad, live };
}

test('connections spread evenly over the pods of a waypoint, and what has ended does not count', async () => {
  const { connect, replicas, loadOf, opened, gatewayLoad } = mesh(5, () => undefined);
  const open = Array.from({ length: 50 }, () => connect());
  await settle(5);
  assert.deepEqual(replicas.map(loadOf), [10, 10, 10, 10, 10]);
  for (const pipe of opened) pipe.lose();
  await Promise.all(open.map(({ over }) => over));
  assert.equal(gatewayLoad.size, 0);
});

for (const [name, error] of [
  ['refuses the connection', () => new ProxyError('UPSTREAM_CONNECT', 'refused')],
  ['goes away before it has answered', () => new TunnelNotOpened('the peer is going away')],
  ['says that it is full', () => new TunnelRefused(503, [])],
] as const) {
  test(`where a pod of a waypoint ${name}, another one carries the connection, and one line says which`, async () => {
    const { connect, asked, opened, ends, replicas, loadOf } = mesh(2, (ip) => (ip === '10.0.1.0' ? error() : undefined));
    const open = Array.from({ length: 6 }, () => connect());
    await settle(5);
    assert.ok(asked.includes('10.0.1.0'));
    assert.deepEqual([opened.length, replicas.map(loadOf)], [6, [0, 6]]);
    for (const pipe of opened) pipe.lose();
    await Promise.all(open.map(({ over }) => over));
    assert.deepEqual(
      ends,
      Array.from({ length: 6 }, () => ({ to: 'waypoint-1', error: undefined })),
    );
  });
}

test('where all of them are gone three have been asked, each once, and the connection fails with the last reason', async () => {
  const { connect, asked, ends, gatewayLoad } = mesh(5, (ip) => new ProxyError('UPSTREAM_CONNECT', `${ip} refused`));
  await connect().over;
  assert.deepEqual([asked.length, new Set(asked).size, gatewayLoad.size], [3, 3, 0]);
  assert.deepEqual(
    ends.map(({ error }) => error?.message),
    [`${asked[2]} refused`],
  );
});

test('pods that do not answer at all are given up after the second one', async () => {
  const { connect, asked } = mesh(5, () => new ProxyError('UPSTREAM_TIMEOUT', 'no answer'));
  await connect().over;
  assert.equal(asked.length, 2);
});

test('what a waypoint decides stands: a policy is not asked twice', async () => {
  const { connect, asked, ends } = mesh(3, () => new TunnelRefused(401, []));
  await connect().over;
  assert.equal(asked.length, 1);
  assert.equal(ends[0]?.error?.code, 'UPSTREAM_STATUS');
});
