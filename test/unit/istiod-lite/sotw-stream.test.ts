import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { minutes, seconds } from '../../../common/base/clock.ts';
import {
  AggregatedDiscoveryServiceService,
  ClientConfig,
  type DiscoveryRequest,
  DiscoveryResponse,
  DiscoveryRequest as Request,
} from '../../../common/codec/gen/discovery.ts';
import { AddressFacts } from '../../../istiod-lite/xds/address-facts.ts';
import { PushThrottle } from '../../../istiod-lite/xds/push-throttle.ts';
import { ResourceStore } from '../../../istiod-lite/xds/resource-store.ts';
import { SotwStream } from '../../../istiod-lite/xds/sotw-stream.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { ADDRESS, grpcClient, runPod, startTestIstiod, type TestIstiod, ztunnelNode } from '../../support/istiod.ts';

const TYPE = 'type/address';
const TOOL = 'debug/tool';

function start() {
  const clock = new FakeClock();
  const store = new ResourceStore(TYPE);
  const sent: DiscoveryResponse[] = [];
  const events: string[] = [];
  let taken: (() => void) | undefined;
  let slow = false;
  let nonces = 0;
  let ended: string | undefined;
  const stream = new SotwStream({
    stores: () => new Map([[TYPE, store]]),
    made: () =>
      new Map([[TOOL, { resources: () => [{ typeUrl: 'made', value: Buffer.from(`${nonces}`) }], controlPlane: { identifier: 'us' } }]]),
    clock,
    throttle: new PushThrottle({ clock, slots: 1 }),
    limits: { writeTimeoutMs: seconds(60), ackTimeoutMs: minutes(5), maxUnanswered: 100 },
    observer: {
      sent: () => undefined,
      rejected: ({ error }) => void events.push(`rejected ${error}`),
      staleNonce: () => void events.push('stale'),
      writeTimeout: () => void events.push('timeout'),
    },
    transport: {
      write(frame, done) {
        sent.push(DiscoveryResponse.decode(frame));
        if (slow) taken = done;
        else done();
      },
      fail: (code, message) => {
        ended = `${code}: ${message}`;
      },
    },
    systemVersion: () => 'v',
    nonce: () => `n${++nonces}`,
  });
  const put = (...names: string[]): void => {
    const change = store.apply(
      names.map((name) => ({ name, version: `${nonces}`, bytes: Buffer.from(name), aliases: [`/${name}`] })),
      [],
      0,
    );
    if (change) stream.changed(change);
  };
  const ask = (request: Partial<DiscoveryRequest>): void =>
    stream.receive({ versionInfo: '', resourceNames: [], typeUrl: TYPE, responseNonce: '', ...request });
  const values = (n: number): string[] => (sent[n]?.resources ?? []).map(({ value }) => Buffer.from(value).toString());
  const pace = { slow: () => (slow = true), take: () => taken?.() };
  return { clock, store, stream, sent, events, put, ask, values, pace, end: () => ended };
}

test('each response has everything, an acknowledgement brings none, and a change everything again', () => {
  const { put, ask, values, sent } = start();
  put('a', 'b');
  ask({});
  assert.deepEqual(values(0), ['a', 'b']);
  ask({ responseNonce: 'n1' });
  assert.equal(sent.length, 1);
  put('c');
  assert.deepEqual(values(1), ['a', 'b', 'c']);
});

test('who names resources gets those, by alias too, and is not told of others', () => {
  const { put, ask, values, sent } = start();
  put('a', 'b', 'c');
  ask({ resourceNames: ['a', '/b', 'nothing'] });
  assert.deepEqual(values(0), ['a', 'b']);
  put('d');
  assert.equal(sent.length, 1);
  ask({ responseNonce: 'n1', resourceNames: ['c'] });
  assert.deepEqual(values(1), ['c'], 'other names are another question');
});

test('rejections are kept and not answered; answers to older responses say nothing', () => {
  const { put, ask, events, stream, sent } = start();
  ask({});
  ask({ responseNonce: 'n1', errorDetail: { code: 3, message: 'bad', details: [] } });
  assert.match(stream.status()[TYPE]?.lastError ?? '', /bad \(code 3\)/);
  put('a');
  ask({ responseNonce: 'n1' });
  assert.deepEqual(events, ['rejected bad (code 3)', 'stale']);
  ask({ responseNonce: 'n2' });
  assert.equal(stream.status()[TYPE]?.acked, 'n2');
  assert.equal(stream.status()[TYPE]?.lastError, '');
  assert.equal(sent.length, 2);
});

test('changes while a response is on its way are one response, and a client that never answers is let go', async () => {
  const { clock, put, ask, values, sent, pace, end } = start();
  pace.slow();
  ask({});
  put('a');
  put('b');
  assert.equal(sent.length, 1);
  pace.take();
  assert.deepEqual(values(1), ['a', 'b']);
  pace.take();
  await clock.advance(minutes(5));
  assert.match(end() ?? '', /^DEADLINE_EXCEEDED: a response was not acknowledged for 300 s/);
});

test('types that nobody serves are refused; what is made is made when it is asked for', () => {
  const { ask, values, end } = start();
  ask({ typeUrl: TOOL });
  ask({ typeUrl: TOOL });
  assert.deepEqual([values(0), values(1)], [['0'], ['1']]);
  ask({ typeUrl: 'x' });
  assert.match(end() ?? '', /^INVALID_ARGUMENT: type "x" is not served/);
});

test('facts of the mesh follow its resources', () => {
  const store = new ResourceStore(ADDRESS);
  const facts = new AddressFacts(store);
  assert.deepEqual([...facts.names()], []);
  store.apply([{ name: 'x', version: '1', bytes: new Uint8Array() }], [], 0);
  facts.changed(['x']);
  assert.deepEqual([...facts.names()], ['x']);
  store.apply([], ['x'], 0);
  facts.changed(['x']);
  assert.equal(facts.get('x'), undefined);
});

/** One request in the older form. @returns the first response, or how the stream ended */
function askOnce(mesh: TestIstiod, token: string, request: Partial<DiscoveryRequest>): Promise<DiscoveryResponse | ServiceError> {
  const client = grpcClient(mesh.target, mesh.roots);
  const metadata = new Metadata();
  metadata.set('authorization', `Bearer ${token}`);
  const serialize = (message: DiscoveryRequest): Buffer => Buffer.from(Request.encode(message).finish());
  const { path, responseDeserialize } = AggregatedDiscoveryServiceService.streamAggregatedResources;
  const call = client.makeBidiStreamRequest(path, serialize, responseDeserialize, metadata);
  call.write({ versionInfo: '', resourceNames: [], typeUrl: '', responseNonce: '', ...request });
  return new Promise<DiscoveryResponse | ServiceError>((resolve) => {
    call.once('data', resolve);
    call.once('error', resolve);
  }).finally(() => client.close());
}

test('the older form is served to those who may have the type; who is connected is told to accounts of the system', async (t) => {
  const mesh = await startTestIstiod(t, { prepare: (kube) => runPod(kube, { name: 'web-1', ip: '10.1.0.1' }) });
  mesh.kube.tokens.set('ops', { username: 'system:serviceaccount:istio-system:ops' });
  mesh.kube.tokens.set('web', { username: 'system:serviceaccount:shop:web' });
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  stream.ack(await stream.next());
  const all = await askOnce(mesh, 'ztunnel-node1', { typeUrl: ADDRESS, node: ztunnelNode('ztunnel-node1') });
  assert.ok('resources' in all && all.resources.length === 2);
  const synced = await askOnce(mesh, 'ops', { typeUrl: 'istio.io/debug/syncz' });
  assert.ok('resources' in synced);
  const [config] = synced.resources.map(({ value }) => ClientConfig.decode(value));
  assert.deepEqual([config?.node?.id, config?.node?.metadata?.ISTIO_VERSION], ['ztunnel-node1.istio-system', '1.30.0']);
  // What istioctl reads the replica from.
  const { Component, ID } = JSON.parse(synced.controlPlane?.identifier ?? '{}');
  assert.deepEqual([Component, typeof ID], ['istiod', 'string']);
  assert.equal(all.controlPlane, undefined);
  assert.deepEqual(
    config?.genericXdsConfigs.map(({ typeUrl }) => typeUrl),
    [ADDRESS],
  );
  const refused = async (token: string, request: Partial<DiscoveryRequest>): Promise<string> => {
    const answer = await askOnce(mesh, token, request);
    return 'code' in answer ? status[answer.code] : 'answered';
  };
  assert.equal(await refused('web', { typeUrl: 'istio.io/debug/syncz' }), 'PERMISSION_DENIED');
  assert.equal(await refused('web', { typeUrl: ADDRESS, node: ztunnelNode('x', 'shop') }), 'PERMISSION_DENIED');
  assert.equal(await refused('ztunnel-node1', { typeUrl: 'nonsense', node: ztunnelNode('ztunnel-node1') }), 'INVALID_ARGUMENT');
});

test('a ztunnel that asks for one address gets what belongs to it, and what runs on its own node', async (t) => {
  const mesh = await startTestIstiod(t, {
    prepare(kube) {
      runPod(kube, { name: 'web-1', ip: '10.1.0.1', node: 'node2' });
      runPod(kube, { name: 'other', ip: '10.1.0.2', node: 'node2', app: 'other' });
      runPod(kube, { name: 'near', ip: '10.1.0.3', app: 'other' });
      kube.put('/api/v1/services', {
        metadata: { name: 'web', namespace: 'shop' },
        spec: {
          clusterIP: '10.2.0.1',
          clusterIPs: ['10.2.0.1'],
          selector: { app: 'web' },
          ports: [{ name: 'http', port: 80, targetPort: 8080 }],
        },
      });
    },
  });
  const stream = mesh.stream('ztunnel-node1');
  const near = ['Kubernetes//Pod/istio-system/ztunnel-node1', 'Kubernetes//Pod/shop/near'];
  stream.subscribe(ADDRESS, { resourceNamesSubscribe: ['/10.2.0.1'], resourceNamesUnsubscribe: ['*'] });
  const first = await stream.next();
  const names = (response: typeof first): string[] => response.resources.map(({ name }) => name).sort();
  assert.deepEqual(names(first), [...near, 'Kubernetes//Pod/shop/web-1', 'shop/web.shop.svc.cluster.local'].sort());
  stream.ack(first);
  runPod(mesh.kube, { name: 'other-2', ip: '10.1.0.4', node: 'node2', app: 'other' });
  runPod(mesh.kube, { name: 'web-2', ip: '10.1.0.5', node: 'node2' });
  const second = await stream.next();
  assert.deepEqual(names(second), ['Kubernetes//Pod/shop/web-2'], 'an endpoint of the service, and no others');
  stream.ack(second);
  mesh.kube.remove('/api/v1/pods', 'shop/web-2');
  assert.deepEqual((await stream.next()).removedResources, ['Kubernetes//Pod/shop/web-2']);
  stream.send({ typeUrl: ADDRESS, resourceNamesSubscribe: ['/10.9.9.9'] });
  assert.deepEqual((await stream.next()).removedResources, ['/10.9.9.9'], 'what is not there is said to be gone');
});
