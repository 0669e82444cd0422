import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createMetrics } from '../../../istiod-lite/metrics.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { ROUTES_TYPE } from '../../../istiod-lite/model/resources.ts';
import { DeltaStream } from '../../../istiod-lite/xds/delta-stream.ts';
import { Proxies } from '../../../istiod-lite/xds/proxies.ts';
import { Publisher } from '../../../istiod-lite/xds/publisher.ts';
import { PushThrottle } from '../../../istiod-lite/xds/push-throttle.ts';
import { decodeResponse } from '../../../istiod-lite/xds/response.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import * as make from '../../support/kube-objects.ts';
import { recordingLog } from '../../support/recording-log.ts';

const ADDRESS = 'type.googleapis.com/istio.workload.Address';
const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};
const pod = (name: string, ip: string) => ({
  metadata: { name, namespace: 'shop', uid: name },
  spec: { nodeName: 'n', serviceAccountName: 'default' },
  status: { phase: 'Running', podIP: ip, podIPs: [{ ip }] },
});

function start() {
  const clock = new FakeClock();
  const log = recordingLog();
  const index = new MeshIndex(config);
  const proxies = new Proxies(clock, () => undefined);
  const metrics = createMetrics({ processMetrics: false });
  const publisher = new Publisher({ index, proxies, metrics, clock, log, intervalMs: 100, writeStatuses: () => undefined });
  const connect = () => {
    const names: string[][] = [];
    const failures: unknown[] = [];
    const stream = new DeltaStream({
      stores: () => publisher.stores,
      clock,
      throttle: new PushThrottle({ clock, slots: 1 }),
      limits: { writeTimeoutMs: 1e6, ackTimeoutMs: 1e6, maxUnanswered: 1000 },
      observer: { sent: () => undefined, rejected: () => undefined, staleNonce: () => undefined, writeTimeout: () => undefined },
      systemVersion: () => publisher.version,
      nonce: () => 'n',
      transport: {
        write(frame, done) {
          names.push(decodeResponse(frame).resources.map(({ name }) => name));
          done();
        },
        fail: () => undefined,
      },
    });
    stream.receive({
      typeUrl: ADDRESS,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: {},
      responseNonce: '',
    });
    proxies.add({
      node: { type: 'ztunnel', name: 'z', id: 'z', namespace: 'n', serviceAccount: '', node: '', version: '', gateway: '', clusterId: '' },
      stream,
      stores: publisher.stores,
      peer: '',
      failed: (error) => void failures.push(error),
    });
    return { names, failures, stream };
  };
  const add = (name: string, ip: string): void => publisher.apply({ type: 'added', kind: 'Pod', object: pod(name, ip) });
  return { clock, log, index, publisher, connect, add };
}

test('nothing is told before the cluster has been read, then everything at once, then each change', async () => {
  const { clock, publisher, connect, add } = start();
  const proxy = connect();
  add('a', '10.0.0.1');
  add('b', '10.0.0.2');
  await clock.advance(1000);
  assert.deepEqual(proxy.names, [[]]);
  publisher.start();
  assert.deepEqual(proxy.names[1], ['Kubernetes//Pod/shop/a', 'Kubernetes//Pod/shop/b']);
  add('c', '10.0.0.3');
  await clock.advance(0);
  assert.deepEqual(proxy.names[2], ['Kubernetes//Pod/shop/c']);
});

test('a proxy whose telling fails does not keep the others from being told', async () => {
  const { clock, publisher, connect, add } = start();
  publisher.start();
  const [broken, good] = [connect(), connect()];
  broken.stream.changed = () => {
    throw new Error('bug');
  };
  add('a', '10.0.0.1');
  await clock.advance(0);
  assert.equal(broken.failures.length, 1);
  assert.deepEqual(good.names[1], ['Kubernetes//Pod/shop/a']);
});

test('what a failed flush lost is told by the next one', async () => {
  const { clock, log, index, publisher, connect, add } = start();
  publisher.start();
  const proxy = connect();
  const flush = index.flush.bind(index);
  let fail = true;
  index.flush = (...args) => {
    const changes = flush(...args);
    if (fail) throw new Error('bug');
    return changes;
  };
  add('lost', '10.0.0.1');
  await clock.advance(200);
  assert.equal(log.entries.filter(({ message }) => message === 'changes could not be published').length, 1);
  assert.equal(proxy.names.length, 1);
  fail = false;
  add('next', '10.0.0.2');
  await clock.advance(200);
  assert.deepEqual(proxy.names.flat().sort(), ['Kubernetes//Pod/shop/lost', 'Kubernetes//Pod/shop/next']);
});

test('routes and policies of waypoints that a failed flush lost are made good too, and so are those that it was to remove', async () => {
  const { clock, index, publisher, add } = start();
  publisher.start();
  const apply = (type: 'added' | 'deleted', kind: 'Service' | 'HTTPRoute', object: unknown) => publisher.apply({ type, kind, object });
  const bound = (name: string) => make.service({ name, labels: { 'istio.io/use-waypoint': 'wp' } });
  const route = (service: string) => make.httpRoute({ name: `to-${service}`, service, rules: [{}] });
  const told = () => [...(publisher.waypointStores('shop/wp', 'wp').get(ROUTES_TYPE)?.values() ?? [])].map(({ name }) => name);
  apply('added', 'Service', bound('first'));
  apply('added', 'HTTPRoute', route('first'));
  await clock.advance(200);
  assert.deepEqual(told(), ['shop/first.shop.svc.cluster.local']);
  const flush = index.flush.bind(index);
  index.flush = (...args) => {
    flush(...args);
    index.flush = flush;
    throw new Error('bug');
  };
  apply('added', 'Service', bound('second'));
  apply('added', 'HTTPRoute', route('second'));
  apply('deleted', 'HTTPRoute', route('first'));
  await clock.advance(200);
  add('next', '10.0.0.2');
  await clock.advance(200);
  assert.deepEqual(told(), ['shop/second.shop.svc.cluster.local']);
});
