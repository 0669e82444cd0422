/** Connections to endpoints within the limits of a service: who waits, who is refused, and who is served when one becomes free. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ProxyError } from '../../../common/base/errors.ts';
import { ServiceTraffic } from '../../../common/codec/gen/waypoint.ts';
import { compileTraffic } from '../../../common/decision/traffic-model.ts';
import { defaultClientLimits } from '../../../common/hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions } from '../../../common/http/connections.ts';
import { defaultHttpLimits } from '../../../common/http/types.ts';
import type { WorkerCertificates } from '../../../common/tls/worker-certificates.ts';
import { ClusterState } from '../../../waypoint/cluster/cluster-state.ts';
import { Dialer } from '../../../waypoint/cluster/dial.ts';
import type { PickedEndpoint } from '../../../waypoint/cluster/endpoint.ts';
import { EndpointState } from '../../../waypoint/cluster/endpoint-state.ts';
import { Upstreams } from '../../../waypoint/cluster/upstreams.ts';
import { staticRoutes } from '../../../waypoint/supervisor/static-routes.ts';
import { workload } from '../../support/builders.ts';
import { FakeClock } from '../../support/fake-clock.ts';

class FakeConnection implements HttpClientConnection {
  usable = true;
  openExchanges = 0;
  readonly options: HttpClientOptions;

  constructor(options: HttpClientOptions) {
    this.options = options;
  }

  request(): never {
    throw new Error('not in this test');
  }

  drain(): void {
    this.usable = false;
  }

  destroy(): void {
    this.options.onClose();
  }
}

function limited(pool: string, workers = 1) {
  const traffic = staticRoutes(`traffic: [{namespace: s, hostname: h, policy: {connectionPool: {${pool}}}}]`).flatMap(
    ({ resources }) => resources,
  );
  const cluster = new ClusterState('s/h:80', 1 / workers, { ejected: () => undefined });
  cluster.policy = compileTraffic(ServiceTraffic.decode(traffic[0]?.bytes ?? new Uint8Array())).policy;
  const made: FakeConnection[] = [];
  const connect = (_: unknown, options: HttpClientOptions): FakeConnection => {
    const connection = new FakeConnection(options);
    made.push(connection);
    return connection;
  };
  const clock = new FakeClock();
  const upstreams = new Upstreams({
    limits: defaultHttpLimits,
    clock,
    dial: () => Promise.resolve({ kind: 'socket', destroy: () => undefined }),
    connect: { http1: connect, http2: connect },
  });
  const endpoint = (name: string): PickedEndpoint => ({
    key: name,
    workload: workload({ name }),
    service: undefined,
    address: { ip: '10.0.0.1', port: 8080 },
    port: 8080,
    peers: undefined,
    load: new EndpointState(0),
    cluster,
  });
  const open = (name = 'a', signal = new AbortController().signal) => upstreams.open(endpoint(name), 'http1', () => signal);
  return { cluster, made, upstreams, endpoint, open, clock };
}

test('beyond the limit requests wait for a connection, the first one first, and beyond the second limit they are refused', async () => {
  const { made, open, cluster } = limited('maxConnections: 1, maxPendingRequests: 2');
  const first = await open();
  const order: string[] = [];
  const waiting = async (name: string): Promise<HttpClientConnection> => {
    const got = await open();
    order.push(name);
    return got;
  };
  const [second, third] = [waiting('second'), waiting('third')];
  await assert.rejects(open(), { code: 'OVERLOADED' });
  assert.deepEqual([made.length, cluster.pending], [1, 2]);
  made[0]?.options.onRoom?.();
  assert.equal(await second, first);
  made[0]?.options.onRoom?.();
  assert.equal(await third, first);
  assert.deepEqual([order, cluster.pending, cluster.connections], [['second', 'third'], 0, 1]);
});

test('who waits gets a new connection where the old one goes', async () => {
  const { made, open } = limited('maxConnections: 1');
  await open();
  const waiting = open();
  made[0]?.options.onClose();
  assert.equal(await waiting, made[1]);
});

test('who gives up waiting makes room for another one', async () => {
  const { open, cluster } = limited('maxConnections: 1, maxPendingRequests: 1');
  await open();
  const leaving = new AbortController();
  const waiting = open('a', leaving.signal);
  leaving.abort(new ProxyError('CLIENT_GONE', 'left'));
  await assert.rejects(waiting, { code: 'CLIENT_GONE' });
  assert.equal(cluster.pending, 0);
});

test('an endpoint without a connection gets one in any case', async () => {
  const { made, open } = limited('maxConnections: 1');
  await open('a');
  await open('b');
  assert.equal(made.length, 2);
});

test('a connection takes so many requests and then no more', async () => {
  const { made, open, upstreams, endpoint } = limited('maxRequestsPerConnection: 2');
  await open();
  made[0]?.options.onRoom?.();
  assert.equal(upstreams.ready(endpoint('a'), 'http1'), made[0]);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(made[0]?.usable, false);
});

test('a connection is given no more requests when it is old, and one that is gone leaves no timer', async () => {
  const { made, open, clock } = limited('maxConnectionDurationMs: 60000');
  await open();
  await clock.advance(59_999);
  assert.equal(made[0]?.usable, true);
  await clock.advance(1);
  assert.equal(made[0]?.usable, false);
  await open();
  made[1]?.options.onClose();
  assert.equal(clock.pending, 0);
});

test('a connection that nobody uses is kept as long as the service says', async () => {
  const { made, open } = limited('idleTimeoutMs: 5000');
  await open();
  assert.equal(made[0]?.options.limits.idleTimeoutMs, 5000);
});

test('an HTTP/2 connection carries so many requests at once, and the next one gets a connection of its own', async () => {
  const { made, upstreams, endpoint } = limited('maxConcurrentStreams: 2');
  const signal = new AbortController().signal;
  const open = () => upstreams.open(endpoint('a'), 'http2', () => signal);
  const first = await open();
  const [connection] = made;
  assert.ok(connection);
  connection.openExchanges = 1;
  assert.equal(upstreams.ready(endpoint('a'), 'http2'), first);
  connection.openExchanges = 2;
  assert.equal(upstreams.ready(endpoint('a'), 'http2'), undefined);
  assert.notEqual(await open(), first);
});

test('a connection that does not come about is given up after connectTimeout', async () => {
  const { endpoint, clock } = limited('connectTimeoutMs: 30');
  const dialer = new Dialer({
    identity: 'spiffe://cluster.local/ns/shop/sa/waypoint',
    self: () => workload({ name: 'waypoint', addresses: ['10.0.0.9'] }),
    // Nothing comes of the tunnel: it stops at its first step.
    certificates: {
      get: (_: string, signal: AbortSignal) =>
        new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    } as unknown as WorkerCertificates,
    clock,
    resolver: { resolve: () => Promise.resolve([]) },
    randomHex: (digits) => '00'.repeat(digits / 2),
    limits: defaultClientLimits,
    maxStreamsPerConnection: 100,
    unusedReleaseMs: 1000,
  });
  const dialed = dialer.connect({ ...endpoint('a'), peers: ['spiffe://cluster.local/ns/shop/sa/a'] }, new AbortController().signal);
  const refused = assert.rejects(dialed, { code: 'UPSTREAM_CONNECT', message: /within 30 ms/ });
  await clock.advance(30);
  await refused;
});

test('a worker has its part of a limit', () => {
  assert.equal(limited('maxConnections: 7', 2).cluster.limit('maxConnections'), 4);
  assert.equal(limited('maxConnections: 1', 4).cluster.limit('maxConnections'), 1);
  assert.equal(limited('').cluster.limit('maxRequests'), Number.POSITIVE_INFINITY);
});
