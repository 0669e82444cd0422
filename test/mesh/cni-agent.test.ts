import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import type { CacheContent } from '../../cni/plugin/cache.ts';
import { NAMESPACES, PODS, startAgentWorld } from '../support/agent-world.ts';
import { openDescriptors } from '../support/descriptors.ts';
import { makeNetns, type TestNetns, withoutNamespaces } from '../support/netns.ts';
import { until } from '../support/until.ts';
import { ack } from '../support/zds-client.ts';

// Each test stands in a namespace of its own as the node, so that its rules for probes meet nobody else's.
const options = { skip: withoutNamespaces ?? false, timeout: 90_000 };
const DAEMON_SETS = '/apis/apps/v1/daemonsets';

test('label on: a running pod is handed to ztunnel, captured and annotated; label off: nothing of it is left', options, async (t) => {
  const world = await startAgentWorld(t);
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
  const world = await startAgentWorld(t);
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
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  await world.start();
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  const calling = world.cmdAdd(pod);
  await until(() => /redirect to :15001/.test(networkOf(pod.ns)));
  const ztunnel = world.ztunnel();
  assert.deepEqual(await calling, { status: 200, body: '' });
  // A retry may meet the snapshot, and then the pod is added twice, which is one pod to ztunnel.
  assert.deepEqual(new Set(ztunnel.namespaces), new Set([pod.ns.netns.identity()]));
  await until(() => world.annotation('shop/orders') === 'enabled');
});

test('a pod that is created right after its namespace was labelled does not slip past a watch that is late', options, async (t) => {
  const world = await startAgentWorld(t);
  await world.start();
  const ztunnel = world.ztunnel();
  world.kube.cutWatches(NAMESPACES);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  assert.equal((await world.cmdAdd(pod)).status, 200);
  assert.ok(ztunnel.seen.includes('add shop/orders +1'));
});

test('a pod that is not of the mesh starts at once, without a ztunnel', options, async (t) => {
  const world = await startAgentWorld(t);
  await world.start();
  const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
  assert.equal((await world.cmdAdd(pod)).status, 200);
  assert.equal(networkOf(pod.ns).includes('redirect'), false);
  const stranger = await world.post(JSON.stringify({ Netns: '/var/run/netns/none', PodName: 'x', PodNamespace: 'kube-system' }));
  assert.equal(stranger.status, 200);
});

test('a new pod that ztunnel refuses does not start, and the answer and an event say why', options, async (t) => {
  const world = await startAgentWorld(t, { CNI_ADD_TIMEOUT: '300ms' });
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
  const world = await startAgentWorld(t);
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

test(
  'an agent that cannot ask the API server says that it does not know, and the plugin has what it needs on the node',
  options,
  async (t) => {
    const world = await startAgentWorld(t);
    world.label('shop', 'ambient');
    const outside = world.pod('shop', 'outside', { labels: { 'istio.io/dataplane-mode': 'none' } });
    await world.start();
    const pod = world.pod('shop', 'orders', { phase: 'Pending', ip: false });
    const answer = world.kube.intercept;
    world.kube.intercept = (request) => (request.method === 'GET' ? { status: 500, message: 'etcd is away' } : answer?.(request));
    const { status, body } = await world.cmdAdd(pod);
    assert.equal(status, 503);
    assert.match(body, /pod shop\/orders: the API server could not be asked: .*etcd is away/);
    world.kube.intercept = answer;

    await until(() => Object.keys(cacheOf(world).pods).includes(outside.uid));
    const { namespaces, pods, excludeNamespaces } = cacheOf(world);
    assert.deepEqual(namespaces, { 'kube-system': 'out', legacy: 'out', shop: 'in' });
    assert.deepEqual([pods[outside.uid], excludeNamespaces], ['out', ['kube-system']]);
    world.label('legacy', 'ambient');
    await until(() => cacheOf(world).namespaces.legacy === 'in');
  },
);

test('only root is answered, whatever the mode of the socket', options, async (t) => {
  const world = await startAgentWorld(t);
  await world.start();
  const socket = join(world.folder, 'run/pluginevent.sock');
  for (const path of [world.folder, join(world.folder, 'run')]) chmodSync(path, 0o755);
  chmodSync(socket, 0o666);
  const program = `const s = require('node:net').connect(${JSON.stringify(socket)}, () => s.end('POST /cmdadd HTTP/1.0\\r\\n\\r\\n'));
    s.on('data', (data) => console.log('answered', String(data))).on('error', (error) => console.log(error.code)).on('close', () => console.log('closed'))`;
  const ask = (uid: number): Promise<string> =>
    new Promise((resolve) => {
      execFile(process.execPath, ['-e', program], { uid, gid: uid, cwd: '/' }, (_error, stdout) => resolve(stdout));
    });
  const stranger = await ask(65_534);
  assert.doesNotMatch(stranger, /answered/);
  assert.match(stranger, /closed/);
  assert.match(await ask(0), /answered HTTP\/1\.1 400/);
});

test('a thousand pods that start at once are all answered, and one that cannot be enrolled holds up no other', options, async (t) => {
  const world = await startAgentWorld(t, { CNI_ADD_TIMEOUT: '60s' });
  world.label('shop', 'ambient');
  await world.start();
  // No ztunnel: pods of the mesh wait.
  const held = world.cmdAdd(world.pod('shop', 'held', { phase: 'Pending', ip: false }));
  const ns = makeNetns(t);
  const answers = await Promise.all(
    Array.from({ length: 1000 }, (_, i) => world.cmdAdd(world.pod('legacy', `p${i}`, { phase: 'Pending', ip: false, ns }))),
  );
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  world.ztunnel();
  assert.equal((await held).status, 200);
});

test('a bypassed namespace leaves the mesh at once and comes back, and its pods say so', options, async (t) => {
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  const metadata = { name: 'shop', labels: { 'istio.io/dataplane-mode': 'ambient' } };
  world.kube.put(NAMESPACES, { metadata: { ...metadata, annotations: { 'warren.dev/bypass': 'true' } } });
  const bypassed = () => world.kube.get(PODS, 'shop/orders')?.metadata.annotations?.['warren.dev/bypassed'];
  await until(() => bypassed() === 'namespace' && world.annotation('shop/orders') === undefined);
  assert.doesNotMatch(networkOf(pod.ns), /redirect to :15006/);
  await until(() => cacheOf(world).namespaces.shop === 'out');
  assert.equal((await world.cmdAdd(world.pod('shop', 'later', { phase: 'Pending', ip: false }))).status, 200);

  world.kube.put(NAMESPACES, { metadata: { ...metadata, annotations: {} } });
  await until(() => world.annotation('shop/orders') === 'enabled' && bypassed() === undefined);
  assert.match(networkOf(pod.ns), /redirect to :15006/);
});

test("the node's own namespace is never captured, whoever names it", options, async (t) => {
  const world = await startAgentWorld(t, { CNI_ADD_TIMEOUT: '200ms' });
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
  const world = await startAgentWorld(t);
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
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  world.kube.put(DAEMON_SETS, { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  await world.stop();
  assert.match(networkOf(pod.ns), /redirect to :15001/);
  assert.match(readFileSync(world.conflist, 'utf8'), /istio-cni/);
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

test('a pod that was leaving when the agent was replaced goes on leaving, and ztunnel keeps it until then', options, async (t) => {
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  world.pod('legacy', 'outsider');
  const untouched = networkOf(pod.ns);
  world.kube.put(DAEMON_SETS, { metadata: { namespace: 'istio-system', name: 'istio-cni-node' } });
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  world.label('shop', undefined);
  await until(() => /tcp dport 0/.test(networkOf(pod.ns)));
  await world.stop();
  assert.notEqual(networkOf(pod.ns), untouched);

  await world.start();
  const ztunnel = world.ztunnel();
  await until(() => ztunnel.seen.length === 3);
  assert.deepEqual(ztunnel.seen, ['add shop/orders +1', 'snapshot sent', `del ${pod.uid}`]);
  await until(() => networkOf(pod.ns) === untouched);
});

test('a ztunnel that lies, sends what it may not, stalls or dies is disconnected; the next one is served', options, async (t) => {
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  world.pod('shop', 'orders');
  await world.start();
  const liar = world.ztunnel();
  liar.answer = () => Buffer.from('ffffff', 'hex');
  await until(() => liar.closed);
  const smuggler = world.ztunnel();
  smuggler.answer = () => undefined;
  await until(() => smuggler.seen.length === 1);
  smuggler.socket.send(ack(), world.node.netns.fd);
  await until(() => smuggler.closed);
  const stalled = world.ztunnel();
  stalled.answer = () => undefined;
  await until(() => stalled.seen.length === 1);
  const dead = world.ztunnel();
  dead.answer = () => undefined;
  await until(() => dead.seen.length === 1);
  dead.socket.close();
  const good = world.ztunnel();
  await until(() => good.seen.length === 2);
  assert.deepEqual(good.seen, ['add shop/orders +1', 'snapshot sent']);
  await until(() => world.annotation('shop/orders') === 'enabled');
  await until(() => stalled.closed);
  assert.equal(good.closed, false);
});

test('an agent that is uninstalled takes every pod out and leaves nothing', options, async (t) => {
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  const untouched = networkOf(pod.ns);
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  await world.stop();
  assert.equal(networkOf(pod.ns), untouched);
  assert.equal(world.annotation('shop/orders'), undefined);
  assert.doesNotMatch(readFileSync(world.conflist, 'utf8'), /istio-cni/);
  assert.deepEqual(readdirSync(join(world.folder, 'bin')), []);
  assert.equal(world.nodeRules(), '');
});

test('an agent whose rights were deleted before it ended takes its rules out all the same', options, async (t) => {
  const world = await startAgentWorld(t);
  world.label('shop', 'ambient');
  const pod = world.pod('shop', 'orders');
  const untouched = networkOf(pod.ns);
  await world.start();
  world.ztunnel();
  await until(() => world.annotation('shop/orders') === 'enabled');
  world.kube.put(DAEMON_SETS, { metadata: { name: 'istio-cni-node', namespace: 'istio-system' } });
  world.kube.intercept = () => ({ status: 403, reason: 'Forbidden' });
  await world.stop();
  assert.equal(networkOf(pod.ns), untouched);
  assert.doesNotMatch(readFileSync(world.conflist, 'utf8'), /istio-cni/);
  assert.equal(world.nodeRules(), '');
});

test('a pod that was deleted, or has finished, is taken from ztunnel, and its namespace is not held', options, async (t) => {
  const world = await startAgentWorld(t);
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
  // At least these two: something short-lived may have been open when they were counted.
  await until(() => openDescriptors() <= open - 2);
  await until(() => world.annotation('shop/job') === undefined);
});

test('an agent whose port is taken does not start, names it, and lets go of what it had begun', options, async (t) => {
  const world = await startAgentWorld(t);
  const taken = createServer().listen(0, '::');
  t.after(() => taken.close());
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  await assert.rejects(world.start({ MONITORING_PORT: String(port) }), new RegExp(`metrics: cannot listen on :: port ${port}`));
  assert.equal((await world.fetch('health', '/healthz')).status, 200);
  await world.stop();
  await assert.rejects(world.fetch('health', '/healthz'), /ECONNREFUSED|hang up/);
});

test('health, metrics, plugin and socket are where the documentation says', options, async (t) => {
  const world = await startAgentWorld(t);
  await world.start();
  const [, plugin] = JSON.parse(readFileSync(world.conflist, 'utf8')).plugins;
  assert.deepEqual(
    [plugin.type, plugin.cni_agent_run_dir, plugin.exclude_namespaces, plugin.pod_namespace],
    ['istio-cni', join(world.folder, 'run'), ['kube-system'], 'istio-system'],
  );
  assert.equal(statSync(world.onNode('istio-cni')).mode & 0o777, 0o755);
  assert.equal(statSync(world.onNode('istio-cni.d')).mode & 0o777, 0o700);
  assert.equal(statSync(world.onNode('istio-cni.d/cache.json')).mode & 0o777, 0o600);
  assert.equal(statSync(join(world.folder, 'run/pluginevent.sock')).mode & 0o777, 0o600);
  assert.equal(statSync(join(world.folder, 'ztunnel.sock')).mode & 0o777, 0o600);
  world.ztunnel();
  await until(async () => (await world.fetch('monitoring', '/metrics')).body.includes('ztunnel_connected 1'));
  assert.match((await world.fetch('monitoring', '/metrics')).body, /istio_cni_install_ready 1/);
  assert.equal((await world.fetch('health', '/readyz')).status, 200);
  assert.equal((await world.fetch('health', '/healthz')).status, 200);
});

/** What the plugin goes by while the agent is away. */
const cacheOf = (world: { onNode(name: string): string }): CacheContent =>
  JSON.parse(readFileSync(world.onNode('istio-cni.d/cache.json'), 'utf8'));

const networkOf = (ns: TestNetns): string =>
  ns.exec('nft', 'list', 'ruleset') + ['-4', '-6'].map((family) => ns.exec('ip', family, 'rule')).join('');
