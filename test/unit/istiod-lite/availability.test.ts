/** What proxies notice when the API server is away, when replicas come and go: nothing. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { minutes, seconds } from '../../../common/base/clock.ts';
import type { DeltaDiscoveryResponse } from '../../../common/codec/gen/discovery.ts';
import { createCsr } from '../../../common/codec/x509/csr.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import type { FakeKubeApi } from '../../support/fake-kube-api.ts';
import { ADDRESS, runPod, startTestIstiod, type TestIstiod, type TestStream } from '../../support/istiod.ts';
import { until } from '../../support/until.ts';

const IDENTITY = 'spiffe://cluster.local/ns/shop/sa/orders';
const csr = (): string => createCsr({ uri: IDENTITY, key: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey });
const names = ({ resources }: DeltaDiscoveryResponse): string[] => resources.map(({ name }) => name).sort();
const POD = (name: string): string => `Kubernetes//Pod/shop/${name}`;

/** Time goes on while requests are really made: each that a timer started is answered before the next one fires. */
async function pass(clock: FakeClock, kube: FakeKubeApi, ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += seconds(10)) {
    await clock.advance(seconds(10));
    for (let seen = -1; seen !== kube.requests.length; ) {
      seen = kube.requests.length;
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
  }
}

async function connected(mesh: TestIstiod): Promise<{ stream: TestStream; first: DeltaDiscoveryResponse }> {
  const stream = mesh.stream('ztunnel-node1');
  stream.subscribe(ADDRESS);
  const first = await stream.next();
  stream.ack(first);
  return { stream, first };
}

const WATCHED = ['pods', 'services', 'namespaces', 'nodes', 'configmaps'].map((kind) => `/api/v1/${kind}`);

test('the API server away for five minutes: streams stay, proxies come back, certificates are issued, and then the changes are told', async (t) => {
  // TLS goes by the real one.
  const clock = new FakeClock(Date.now());
  const mesh = await startTestIstiod(t, {
    clock,
    // Nobody turns the clock at the end.
    settings: { drainMs: 0 },
    prepare: (kube) => {
      runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' });
      runPod(kube, { name: 'goes', ip: '10.1.0.2' });
    },
  });
  const { stream } = await connected(mesh);
  await mesh.sign('ztunnel-node1', { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } });

  mesh.kube.intercept = () => ({ status: 503, reason: 'ServiceUnavailable' });
  for (const collection of WATCHED) mesh.kube.cutWatches(collection);
  mesh.kube.remove('/api/v1/pods', 'shop/goes');
  runPod(mesh.kube, { name: 'comes', ip: '10.1.0.3' });
  // Nor will it remember what happened meanwhile.
  for (const collection of WATCHED) mesh.kube.forget(collection);
  await pass(clock, mesh.kube, minutes(5));

  assert.equal(mesh.istiod.ready, true);
  assert.ok(stream.silent, 'nothing is told, and nothing taken away');
  const { first } = await connected(mesh);
  assert.ok(names(first).includes(POD('goes')), 'who comes back gets the last known state');
  const { certChain } = await mesh.sign('ztunnel-node1', { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } });
  assert.ok(certChain.length > 0);

  mesh.kube.intercept = undefined;
  const told = { added: new Set<string>(), removed: new Set<string>() };
  await Promise.all([
    (async () => {
      while (!told.added.has(POD('comes')) || !told.removed.has(POD('goes'))) await pass(clock, mesh.kube, seconds(10));
    })(),
    (async () => {
      while (!(told.added.has(POD('comes')) && told.removed.has(POD('goes')))) {
        const push = await stream.next();
        stream.ack(push);
        for (const name of names(push)) told.added.add(name);
        for (const name of push.removedResources) told.removed.add(name);
      }
    })(),
  ]);
  assert.deepEqual([[...told.added], [...told.removed]], [[POD('comes')], [POD('goes')]], 'what changed, and nothing else');
});

test('a replica that leaves asks its proxies to go one after the other, and tells those that are left of changes until then', async (t) => {
  const mesh = await startTestIstiod(t, { settings: { drainMs: 3000 } });
  const streams = await Promise.all([1, 2, 3, 4].map(async () => (await connected(mesh)).stream));
  const left = (): TestStream[] => streams.filter(({ error }) => error === undefined);
  const closing = mesh.istiod.close();
  assert.equal(mesh.istiod.ready, false);
  await until(() => left().length < 4);
  runPod(mesh.kube, { name: 'late', ip: '10.1.0.4' });
  const last = left().at(-1);
  assert.ok(last && names(await last.next()).includes(POD('late')));
  await closing;
  await until(() => left().length === 0);
  assert.deepEqual(new Set(streams.map(({ error }) => error?.code)), new Set([status.UNAVAILABLE]));
});

test('of two replicas that start together both serve, one writes, both sign with the same root; the other goes on alone', async (t) => {
  const a = await startTestIstiod(t, {
    settings: { podName: 'a' },
    prepare: (kube) => runPod(kube, { name: 'orders-1', ip: '10.1.0.1', account: 'orders' }),
  });
  const b = await startTestIstiod(t, { settings: { podName: 'b' }, api: a.kube });
  assert.equal(a.roots, b.roots);
  assert.equal(a.kube.requests.filter(({ method, path }) => method === 'POST' && path.endsWith('/secrets')).length, 1);
  const writers = async (): Promise<string[]> =>
    (await Promise.all([a, b].map(async (mesh) => /^warren_writer (\d)$/m.exec(await mesh.http('/metrics'))?.[1] ?? ''))).sort();
  await until(() => a.kube.get('/apis/coordination.k8s.io/v1/leases', 'istio-system/istio-leader') !== undefined);
  await until(() => a.kube.keys('/api/v1/configmaps').length === 2);
  assert.deepEqual(await writers(), ['0', '1']);
  for (const mesh of [a, b]) {
    assert.ok(names((await connected(mesh)).first).includes(POD('orders-1')));
    const { certChain } = await mesh.sign('ztunnel-node1', { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } });
    assert.equal(certChain.at(-1), a.roots);
  }
  await a.istiod.close();
  assert.ok(names((await connected(b)).first).includes(POD('orders-1')));
});

test('a rolling restart of all replicas loses nothing: who is sent on from one to the next ends with exactly what there is', async (t) => {
  const a = await startTestIstiod(t, {
    settings: { podName: 'a', drainMs: 200 },
    prepare: (kube) => {
      runPod(kube, { name: 'stays', ip: '10.1.0.1', account: 'orders' });
      runPod(kube, { name: 'goes-0', ip: '10.1.1.0' });
    },
  });
  const { kube } = a;
  const replica = (podName: string): Promise<TestIstiod> => startTestIstiod(t, { settings: { podName, drainMs: 200 }, api: kube });
  const held = new Map<string, string>();
  const take = (push: DeltaDiscoveryResponse): void => {
    for (const { name, version } of push.resources) held.set(name, version);
    for (const name of push.removedResources) held.delete(name);
  };
  /** Told until the stream ends, as a ztunnel is that goes from replica to replica with what it has. */
  const follow = async (mesh: TestIstiod): Promise<void> => {
    const stream = mesh.stream('ztunnel-node1');
    stream.subscribe(ADDRESS, { initialResourceVersions: Object.fromEntries(held) });
    try {
      for (;;) {
        const push = await stream.next();
        take(push);
        stream.ack(push);
      }
    } catch {
      // Sent on.
    }
  };
  let running = [a, await replica('b')];
  const keysOf = async (mesh: TestIstiod): Promise<void> => {
    const { certChain } = await mesh.sign('ztunnel-node1', { csr: csr(), metadata: { ImpersonatedIdentity: IDENTITY } });
    assert.equal(certChain.at(-1), a.roots, 'the root stays the same one');
  };
  for (const [round, name] of ['c', 'd'].entries()) {
    const [leaving, staying] = running;
    assert.ok(leaving && staying);
    const following = follow(leaving);
    await until(() => held.has(POD('stays')));
    const next = await replica(name);
    const closing = leaving.istiod.close();
    // While one leaves and the other has just come.
    runPod(kube, { name: `comes-${round}`, ip: `10.1.2.${round}` });
    kube.remove('/api/v1/pods', `shop/goes-${round}`);
    runPod(kube, { name: `goes-${round + 1}`, ip: `10.1.1.${round + 1}` });
    await Promise.all([closing, following]);
    await keysOf(staying);
    running = [staying, next];
  }
  const [, last] = running;
  assert.ok(last);
  const following = follow(last);
  const expected = [POD('comes-0'), POD('comes-1'), POD('goes-2'), POD('stays')];
  const shop = (): string[] => [...held.keys()].filter((key) => key.startsWith(POD(''))).sort();
  await until(() => shop().join() === expected.join());
  await last.istiod.close();
  await following;
  assert.deepEqual(shop(), expected);
});
