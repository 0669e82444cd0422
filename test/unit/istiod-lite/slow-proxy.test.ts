import assert from 'node:assert/strict';
import { connect } from 'node:http2';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { AggregatedDiscoveryServiceService, type DeltaDiscoveryRequest } from '../../../common/codec/gen/discovery.ts';
import { ADDRESS, runPod, startTestIstiod, type TestIstiod, ztunnelNode } from '../../support/istiod.ts';
import { until } from '../../support/until.ts';

/** A proxy that opens a stream, asks for everything, and never reads: a bare HTTP/2 client whose window stays shut. */
async function stuckProxy({ roots, istiod }: TestIstiod, token: string): Promise<{ resetCode: Promise<number>; close(): void }> {
  const session = connect(`https://localhost:${istiod.grpcPort}`, { ca: roots, servername: 'istiod.istio-system.svc' });
  const { path, requestSerialize } = AggregatedDiscoveryServiceService.deltaAggregatedResources;
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization: `Bearer ${token}`,
  });
  stream.pause();
  const message = requestSerialize({ ...EMPTY, typeUrl: ADDRESS, node: ztunnelNode('ztunnel-node1') });
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  stream.write(Buffer.concat([head, message]));
  const resetCode = new Promise<number>((resolve) => {
    stream.on('error', () => undefined);
    stream.on('close', () => resolve(stream.rstCode ?? 0));
    stream.on('aborted', () => stream.resume());
  });
  return { resetCode, close: () => session.destroy() };
}

const EMPTY: DeltaDiscoveryRequest = {
  typeUrl: '',
  resourceNamesSubscribe: [],
  resourceNamesUnsubscribe: [],
  initialResourceVersions: {},
  responseNonce: '',
};

// Real flow control is what is tested here, so time is real too, and short.
test('a proxy that stops reading is cut, and the others do not notice', async (t) => {
  const mesh = await startTestIstiod(t, {
    settings: { sendTimeoutMs: 1000 },
    prepare(kube) {
      for (let i = 0; i < 600; i++)
        runPod(kube, { name: `pod-with-a-name-that-takes-its-place-in-the-window-${i}`, ip: `10.1.${i >> 8}.${i & 255}` });
    },
  });
  const stuck = await stuckProxy(mesh, 'ztunnel-node1');
  t.after(() => stuck.close());
  const good = mesh.stream('ztunnel-node1');
  good.subscribe(ADDRESS);
  assert.equal((await good.next()).resources.length, 601);
  await until(() => mesh.log.entries.some(({ message, fields }) => message === 'stream ended' && fields.code === 'DEADLINE_EXCEEDED'));
  assert.equal(await stuck.resetCode, 8);
  assert.equal(JSON.parse(await mesh.http('/debug/syncz')).length, 1);
  assert.match(await mesh.http('/metrics'), /pilot_xds_write_timeout 1\n/);
  runPod(mesh.kube, { name: 'late', ip: '10.9.9.9' });
  assert.deepEqual(
    (await good.next()).resources.map(({ name }) => name),
    ['Kubernetes//Pod/shop/late'],
  );
});

test('a connection that is old is asked to come again, and what changed last is told before', async (t) => {
  const mesh = await startTestIstiod(t, { settings: { maxConnectionAgeMs: 100 } });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  await stream.next();
  const { code, details } = await stream.failure();
  assert.deepEqual([code, details], [status.UNAVAILABLE, 'the connection is old; connect again']);
});

test('a proxy that never acknowledges is let go', async (t) => {
  const mesh = await startTestIstiod(t, { settings: { ackTimeoutMs: 100 } });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  await stream.next();
  await stream.failure();
  const line = mesh.log.entries.find(({ message, fields }) => message === 'stream ended' && fields.code === 'DEADLINE_EXCEEDED');
  assert.match(String(line?.fields.error), /a response was not acknowledged for 0.1 s/);
  assert.equal(line?.fields.proxy, 'ztunnel-node1.istio-system');
});

test('more proxies than allowed are refused by name of the limit', async (t) => {
  const mesh = await startTestIstiod(t, { settings: { maxProxies: 1 } });
  const first = mesh.stream('ztunnel-node1');
  first.subscribe(ADDRESS);
  await first.next();
  const second = mesh.stream('ztunnel-node1');
  second.subscribe(ADDRESS);
  const { code, details } = await second.failure();
  assert.deepEqual([code, details], [status.RESOURCE_EXHAUSTED, '1 proxies are connected already']);
});
