import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { NodeAgent } from '../../cni/agent.ts';
import { cniSettings } from '../../cni/settings.ts';
import { systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { readSettings } from '../../common/base/settings.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { FakeKubeApi } from '../support/fake-kube-api.ts';
import { makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { ack, ZdsClient } from '../support/zds-client.ts';

// Each test stands in a namespace of its own as the node, so that its rules for probes meet nobody else's.
const options = { skip: withoutNamespaces ?? false, timeout: 30_000 };
const PODS = '/api/v1/pods';
const NAMESPACES = '/api/v1/namespaces';
const DAEMON_SETS = '/apis/apps/v1/daemonsets';
const REDIRECTION = 'ambient.istio.io/redirection';

test('label on: a running pod is handed to ztunnel, captured and annotated; label off: nothing of it is left', options, async (t) => {
  const world = await startWorld(t);
  const pod = world.pod('shop', 'orders');
  const untouched = networkOf(pod.ns);
  await world.start();
  const ztunnel = world.ztunnel();
  await until(() => ztunnel.seen.length === 1);
  assert.deepEqual(ztunnel.seen, ['snapshot sent']);

  world.label('shop', 'ambient');
  await until(() => world.annotation('shop/orders') === 'enabled');
  assert.deepEqual(ztunnel.seen.slice(1), ['add shop/orders +1']);
  assert.deepEqual(ztunnel.namespaces, [pod.ns.netns.identity()]);
  assert.match(networkOf(pod.ns), /redirect to :15001/);
  assert.match(world.nodeRules(), /elements = \{ 10\.0\.0\.1 comment/);

  world.label('shop', undefined);
  await until(() => ztunnel.seen.length === 3);
  assert.deepEqual(ztunnel.seen.slice(2), [`del ${pod.uid}`]);
  await until(() => networkOf(pod.ns) === untouched);
  assert.equal(world.annotation('shop/orders'), undefined);
  assert.doesNotMatch(world.nodeRules(), /elements/);
});

test("a pod's own label wins over its namespace's, in both directions", options, async (t) => {
  const world = await startWorld(t);
  world.pod('shop', 'opted-out', { labels: { 'istio.io/dataplane-mode': 'none' } });
  world.pod('legacy', 'opted-in', { labels: { 'istio.io/dataplane-mode': 'ambient' } });
  world.pod('kube-system', 'dns', { labels: { 'istio.io/dataplane-mode': 'ambient' } });
  world.label('shop', 'ambient');
  await world.start();
  const ztunnel = world.ztunnel();
  await until(() => world.annotation('legacy/opted-in') === 'enabled');
  assert.deepEqual(ztunnel.seen.filter((text) => text.startsWith('add')).length, 1);
  await until(() => world.events().some((message) => message.includes('namespace kube-system is excluded')));
});

test('a new pod waits for ztunnel, and starts when it is served', options, async (t) => {
  const world = await startWorld(t);
  world.label('shop', 'ambient');
  await world.start();
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  const calling = world.cmdAdd(pod);
  await until(() => /redirect to :15001/.test(networkOf(pod.ns)));
  const ztunnel = world.ztunnel();
  assert.deepEqual(await calling, { status: 200, body: '' });
  assert.deepEqual(ztunnel.namespaces, [pod.ns.netns.identity()]);
  await until(() => world.annotation('shop/orders') === 'enabled');
});

test('a pod that is created right after its namespace was labelled does not slip past a watch that is late', options, async (t) => {
  const world = await startWorld(t);
  await world.start();
  const ztunnel = world.ztunnel();
  world.kube.cutWatches(NAMESPACES);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  assert.equal((await world.cmdAdd(pod)).status, 200);
  assert.ok(ztunnel.seen.includes('add shop/orders +1'));
});

test('a pod that is not of the mesh starts at once, without a ztunnel', options, async (t) => {
  const world = await startWorld(t);
  await world.start();
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  assert.equal((await world.cmdAdd(pod)).status, 200);
  assert.equal(networkOf(pod.ns).includes('redirect'), false);
  const stranger = await world.post(JSON.stringify({ Netns: '/var/run/netns/none', PodName: 'x', PodNamespace: 'kube-system' }));
  assert.equal(stranger.status, 200);
});

test('a new pod that ztunnel refuses does not start, and the answer and an event say why', options, async (t) => {
  const world = await startWorld(t, { CNI_ADD_TIMEOUT: '300ms' });
  world.label('shop', 'ambient');
  await world.start();
  const ztunnel = world.ztunnel();
  ztunnel.answer = (request) => ack(request.startsWith('add') ? 'port 15008 is taken' : '');
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  const { status, body } = await world.cmdAdd(pod);
  assert.equal(status, 500);
  assert.match(body, /pod shop\/orders: ztunnel refused to add shop\/orders: port 15008 is taken/);
  await until(() => world.annotation('shop/orders') === 'pending');
  assert.ok(world.events().some((message) => message.includes('port 15008 is taken')));
  ztunnel.answer = () => ack();
  await until(() => world.annotation('shop/orders') === 'enabled');
});

test('bad calls of the plugin are refused by name and disturb nothing', options, async (t) => {
  const world = await startWorld(t);
  world.label('shop', 'ambient');
  await world.start();
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  const event = (fields: object): string => JSON.stringify({ Netns: pod.ns.path, PodName: 'orders', PodNamespace: 'shop', ...fields });
  assert.deepEqual(await world.post('{'), { status: 400, body: 'the body is no JSON\n' });
  assert.match((await world.post(event({ Netns: 'relative' }))).body, /Netns: expected an absolute path/);
  assert.match((await world.post(event({ IPs: [{ IP: 'ten' }] }))).body, /IPs\[0\]: expected an address/);
  assert.match((await world.post(event({ PodName: 'ghost' }))).body, /pod shop\/ghost: .*404/);
  assert.match((await world.post('x'.repeat(70_000))).body, /larger than 65536 bytes/);
  assert.equal((await world.post(event({}), '/cmddel')).status, 404);
});

test("the node's own namespace is never captured, whoever names it", options, async (t) => {
  const world = await startWorld(t, { CNI_ADD_TIMEOUT: '200ms' });
  world.label('shop', 'ambient');
  await world.start();
  world.ztunnel();
  world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  const answer = await world.post(JSON.stringify({ Netns: world.node.path, PodName: 'orders', PodNamespace: 'shop' }));
  assert.equal(answer.status, 500);
  assert.match(answer.body, /the node's own network namespace/);
  assert.equal(world.node.exec('ip', 'rule').includes('0x111'), false);
});

test('a ztunnel that comes later makes a pending pod enabled', options, async (t) => {
  const world = await startWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  await world.start();
  await until(() => world.annotation('shop/orders') === 'pending');
  assert.match(networkOf(pod.ns), /redirect to :15001/);
  const ztunnel = world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  assert.deepEqual(ztunnel.seen.slice(0, 2), ['add shop/orders +1', 'snapshot sent']);
});

test('another agent takes over: rules and annotation stay, and the snapshot has the pods', options, async (t) => {
  const world = await startWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  world.kube.put(DAEMON_SETS, { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  await world.stop();
  assert.match(networkOf(pod.ns), /redirect to :15001/);
  assert.ok(existsSync(world.marker));
  assert.equal(world.annotation('shop/orders'), 'enabled');

  pod.ns.exec('nft', 'delete', 'table', 'inet', 'istio-ambient-nat');
  const patches = world.patches();
  await world.start();
  const ztunnel = world.ztunnel();
  await until(() => ztunnel.seen.length >= 2);
  assert.deepEqual(ztunnel.seen, ['add shop/orders +1', 'snapshot sent']);
  await until(() => /redirect to :15001/.test(networkOf(pod.ns)));
  assert.equal(world.patches(), patches, 'the annotation did not flap');
});

test('an agent that is uninstalled takes every pod out and leaves nothing', options, async (t) => {
  const world = await startWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  const untouched = networkOf(pod.ns);
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  await world.stop();
  assert.equal(networkOf(pod.ns), untouched);
  assert.equal(world.annotation('shop/orders'), undefined);
  assert.equal(existsSync(world.marker), false);
  assert.equal(world.nodeRules(), '');
});

test('a pod that was deleted, or has finished, is taken from ztunnel, and its namespace is not held', options, async (t) => {
  const world = await startWorld(t);
  world.label('shop', 'ambient');
  const pods = [world.pod('shop', 'orders'), world.pod('shop', 'job')];
  await world.start();
  const ztunnel = world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled' && world.annotation('shop/job') === 'enabled');
  const open = openDescriptors();
  world.kube.remove(PODS, 'shop/orders');
  world.finish('shop/job');
  await until(() => ztunnel.seen.filter((text) => text.startsWith('del')).length === 2);
  assert.deepEqual(new Set(ztunnel.seen.filter((text) => text.startsWith('del'))), new Set(pods.map(({ uid }) => `del ${uid}`)));
  await until(() => openDescriptors() === open - 2);
  await until(() => world.annotation('shop/job') === undefined);
});

test('health, metrics, marker and socket are where the documentation says', options, async (t) => {
  const world = await startWorld(t);
  await world.start();
  assert.deepEqual(JSON.parse(readFileSync(world.marker, 'utf8')), {
    type: 'istio-cni',
    socket: join(world.folder, 'run/pluginevent.sock'),
    path: '/cmdadd',
    excludeNamespaces: ['kube-system'],
  });
  assert.equal(statSync(join(world.folder, 'run/pluginevent.sock')).mode & 0o777, 0o600);
  assert.equal(statSync(join(world.folder, 'ztunnel.sock')).mode & 0o777, 0o600);
  world.ztunnel();
  await until(async () => (await world.fetch('monitoring', '/metrics')).body.includes('ztunnel_connected 1'));
  assert.match((await world.fetch('monitoring', '/metrics')).body, /istio_cni_install_ready 1/);
  assert.equal((await world.fetch('health', '/readyz')).status, 200);
  assert.equal((await world.fetch('health', '/healthz')).status, 200);
});

interface TestPod {
  readonly uid: string;
  readonly ns: TestNetns;
  readonly name: string;
  readonly namespace: string;
}

interface PodOptions {
  readonly labels?: Record<string, string>;
  readonly phase?: string;
  /** Whether the status has its address already. */
  readonly ip?: boolean;
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

/** A node of its own, an API server, and the agent between them. */
async function startWorld(t: TestContext, env: Record<string, string> = {}) {
  const kube = await FakeKubeApi.start(t);
  const folder = mkdtempSync(join(tmpdir(), 'warren-cni-'));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, 'netns'));
  const node = makeNetns(t);
  const ports = { health: await freePort(), monitoring: await freePort() };
  const settings = readSettings(cniSettings, {
    NODE_NAME: 'node-1',
    POD_NETNS_DIR: join(folder, 'netns'),
    ZTUNNEL_UDS_ADDRESS: join(folder, 'ztunnel.sock'),
    CNI_AGENT_RUN_DIR: join(folder, 'run'),
    MOUNTED_CNI_NET_DIR: join(folder, 'net.d'),
    HEALTH_PORT: String(ports.health),
    MONITORING_PORT: String(ports.monitoring),
    ...env,
  });
  for (const name of ['shop', 'legacy', 'kube-system']) kube.put(NAMESPACES, { metadata: { name } });
  let patches = 0;
  kube.intercept = ({ method, path, body }) => {
    const pod = /^\/api\/v1\/namespaces\/([^/]+)\/pods\/([^/]+)\/status$/.exec(path);
    if (method !== 'PATCH' || !pod) return undefined;
    const existing = kube.get(PODS, `${pod[1]}/${pod[2]}`);
    if (!existing) return { status: 404, reason: 'NotFound' };
    patches++;
    const changed = (body as { metadata: { annotations: Record<string, string | null> } }).metadata.annotations;
    const annotations = Object.fromEntries(
      Object.entries({ ...existing.metadata.annotations, ...changed }).filter(([, value]) => value !== null),
    );
    kube.put(PODS, { ...existing, metadata: { ...existing.metadata, annotations: annotations as Record<string, string> } });
    return { status: 200 };
  };

  let agent: NodeAgent | undefined;
  let addresses = 0;
  const stop = async (): Promise<void> => {
    const stopping = agent;
    agent = undefined;
    await stopping?.stop();
  };
  t.after(stop);
  const socketPath = join(folder, 'run/pluginevent.sock');
  return {
    kube,
    folder,
    node,
    marker: join(folder, 'net.d/warren-cni.json'),
    async start(): Promise<void> {
      agent = new NodeAgent({ settings, api: kube.client(), clock: systemClock, random: () => 0.5, log: silentLog, nodeNetns: node.netns });
      await agent.start();
    },
    stop,
    ztunnel: () => ZdsClient.connect(t, settings.ztunnelSocket).hello(),
    pod(namespace: string, name: string, { labels = {}, phase = 'Running', ip = true }: PodOptions = {}): TestPod {
      const ns = makeNetns(t);
      const podIP = `10.0.0.${++addresses}`;
      const object = kube.put(PODS, {
        metadata: { namespace, name, labels },
        spec: { nodeName: 'node-1', serviceAccountName: name },
        status: { phase, ...(ip && { podIP, podIPs: [{ ip: podIP }] }) },
      });
      const uid = object.metadata.uid ?? '';
      symlinkSync(ns.path, join(folder, 'netns', uid));
      return { uid, ns, name, namespace };
    },
    finish(key: string): void {
      const pod = kube.get(PODS, key);
      assert.ok(pod);
      kube.put(PODS, { ...pod, status: { ...(pod.status as object), phase: 'Succeeded' } });
    },
    label(namespace: string, mode: string | undefined): void {
      kube.put(NAMESPACES, { metadata: { name: namespace, labels: mode === undefined ? {} : { 'istio.io/dataplane-mode': mode } } });
    },
    annotation: (key: string): string | undefined => kube.get(PODS, key)?.metadata.annotations?.[REDIRECTION],
    patches: () => patches,
    events: (): string[] => kube.keys('/api/v1/events').map((key) => String(kube.get('/api/v1/events', key)?.message)),
    nodeRules: () => node.exec('nft', 'list', 'ruleset'),
    post: (body: string, path = '/cmdadd') => call({ socketPath, path, method: 'POST' }, body),
    cmdAdd: ({ ns, name, namespace }: TestPod) =>
      call(
        { socketPath, path: '/cmdadd', method: 'POST' },
        JSON.stringify({ Netns: ns.path, PodName: name, PodNamespace: namespace, IPs: [{ IP: '10.0.9.9', Mask: 'ffffffff' }] }),
      ),
    fetch: (which: keyof typeof ports, path: string) => call({ host: '127.0.0.1', port: ports[which], path }, ''),
  };
}

function call(options: http.RequestOptions, body: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = http.request(options, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function freePort(): Promise<number> {
  const server = http.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address ? address.port : 0;
}

const networkOf = (ns: TestNetns): string =>
  ns.exec('nft', 'list', 'ruleset') + ['-4', '-6'].map((family) => ns.exec('ip', family, 'rule')).join('');

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 8000;
  while (!(await condition())) {
    assert.ok(performance.now() < deadline, 'it did not happen within 8 s');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
