import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { imageName, resolveImage } from '../../../playground/images.ts';
import { AtomicFolder } from '../../../playground/kubelet/atomic-folder.ts';
import { privileges } from '../../../playground/kubelet/container-process.ts';
import { LogBuffer } from '../../../playground/kubelet/log-buffer.ts';
import { nodeNetwork } from '../../../playground/kubelet/plugin.ts';
import { etcFiles } from '../../../playground/kubelet/pod-files.ts';
import { portOf, startProbe } from '../../../playground/kubelet/probe.ts';
import { PodAddresses, planNode } from '../../../playground/network/plan.ts';
import { resolveInRoot } from '../../../playground/node/resolve-path.ts';
import type { Pod } from '../../../playground/objects.ts';
import { FakeClock } from '../../support/fake-clock.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'warren-unit-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

// ---- logs ------------------------------------------------------------------------------------------------------------------------------

test('a log keeps lines whole across chunks, each stream by itself', () => {
  const log = new LogBuffer(() => 5);
  log.push('stdout', 'one\ntw');
  log.push('stderr', 'bad\n');
  log.push('stdout', 'o\nrest');
  log.end();
  assert.deepEqual(
    log.read().map(({ text }) => text),
    ['one', 'bad', 'two', 'rest'],
  );
});

test('a log is bounded, and its newest lines stay', () => {
  const log = new LogBuffer(() => 0, 1000);
  for (let i = 0; i < 5000; i++) log.push('stdout', `line ${i}\n`);
  const lines = log.read();
  assert.ok(lines.length > 5 && lines.length < 20, `${lines.length} lines`);
  assert.equal(lines.at(-1)?.text, 'line 4999');
});

test('a line without an end is cut', () => {
  const log = new LogBuffer(() => 0);
  log.push('stdout', 'x'.repeat(300_000));
  assert.equal(log.read().length, 1);
});

test('a log is asked for its tail or from a time on, and followed to its end', () => {
  let now = 0;
  const log = new LogBuffer(() => now);
  for (const text of ['a', 'b', 'c']) {
    now += 10;
    log.push('stdout', `${text}\n`);
  }
  assert.deepEqual(
    log.read({ tailLines: 2 }).map(({ text }) => text),
    ['b', 'c'],
  );
  assert.deepEqual(
    log.read({ sinceMs: 30 }).map(({ text }) => text),
    ['c'],
  );
  const heard: string[] = [];
  log.follow({ line: ({ text }) => heard.push(text), end: () => heard.push('END') });
  log.push('stdout', 'd\n');
  log.end();
  log.follow({ line: () => undefined, end: () => heard.push('END AT ONCE') });
  assert.deepEqual(heard, ['d', 'END', 'END AT ONCE']);
});

// ---- probes ----------------------------------------------------------------------------------------------------------------------------

function probing(
  t: TestContext,
  results: boolean[],
  probe: { failureThreshold?: number; successThreshold?: number; periodSeconds?: number },
  eager = false,
) {
  const clock = new FakeClock();
  const told: string[] = [];
  const stop = startProbe({
    probe,
    clock,
    eager,
    attempt: async () => ({ success: results.shift() ?? true, detail: 'why' }),
    onVerdict: (success) => told.push(success ? 'up' : 'down'),
    onFailure: (detail) => told.push(detail),
  });
  t.after(stop);
  return { clock, told, stop };
}

test('a probe turns down after failureThreshold failures in a row and up after one success', async (t) => {
  const { clock, told } = probing(t, [true, false, false, true, false, false, false, true], { failureThreshold: 3, periodSeconds: 10 });
  await clock.advance(70_000);
  assert.deepEqual(told, ['up', 'why', 'why', 'why', 'why', 'why', 'down', 'up']);
});

test('an eager probe asks quickly and complains to nobody until it has been up once', async (t) => {
  const { clock, told } = probing(t, [false, false, false, true, false], { periodSeconds: 10, failureThreshold: 1 }, true);
  await clock.advance(700);
  assert.deepEqual(told, ['down', 'down', 'down', 'up']);
  await clock.advance(9_000);
  assert.equal(told.length, 4, 'from then on the period counts');
  await clock.advance(2_000);
  assert.deepEqual(told.slice(4), ['why', 'down']);
});

test('a stopped probe asks and tells no more', async (t) => {
  const { clock, told, stop } = probing(t, [], { periodSeconds: 1 });
  await clock.advance(100);
  stop();
  await clock.advance(60_000);
  assert.deepEqual([told, clock.pending], [['up'], 0]);
});

test("a probe's port is a number or a name of the container's", () => {
  const container = { name: 'c', ports: [{ name: 'http', containerPort: 8080 }] };
  assert.deepEqual([portOf(80, container), portOf('http', container), portOf('81', container)], [80, 8080, 81]);
  assert.throws(() => portOf('nope', container), /container c has no port named nope/);
});

// ---- files -----------------------------------------------------------------------------------------------------------------------------

const file = (text: string) => ({ content: Buffer.from(text), mode: 0o644 });

test('a folder changes all at once: every file is a link through one that is swapped', (t) => {
  const path = join(folder(t), 'volume');
  const volume = new AtomicFolder(path);
  assert.equal(
    volume.write(
      new Map([
        ['a', file('1')],
        ['deep/b', file('2')],
      ]),
    ),
    true,
  );
  assert.equal(readlinkSync(join(path, 'a')), '..data/a');
  const first = readlinkSync(join(path, '..data'));
  assert.equal(
    volume.write(
      new Map([
        ['a', file('1')],
        ['deep/b', file('2')],
      ]),
    ),
    false,
    'the same again is no change',
  );
  assert.equal(volume.write(new Map([['a', file('3')]])), true);
  assert.equal(readFileSync(join(path, 'a'), 'utf8'), '3');
  assert.deepEqual(readdirSync(path).sort(), ['..2', '..data', 'a'], 'what went is gone, the old version too');
  assert.notEqual(readlinkSync(join(path, '..data')), first);
});

test('a file that would leave its volume is refused', (t) => {
  const volume = new AtomicFolder(join(folder(t), 'volume'));
  for (const path of ['../x', '/x', 'a/../../x']) assert.throws(() => volume.write(new Map([[path, file('')]])), /leaves the volume/);
});

test('links are followed inside the other root, absolute ones too', (t) => {
  const root = folder(t);
  mkdirSync(join(root, 'run/netns'), { recursive: true });
  mkdirSync(join(root, 'var'));
  symlinkSync('/run', join(root, 'var/run'));
  symlinkSync('netns', join(root, 'run/ns'));
  symlinkSync('loop', join(root, 'loop'));
  assert.equal(resolveInRoot(root, '/var/run/netns/x'), '/run/netns/x');
  assert.equal(resolveInRoot(root, '/var/run/ns/not/there'), '/run/netns/not/there');
  assert.equal(resolveInRoot(root, '/../../etc'), '/etc');
  assert.throws(() => resolveInRoot(root, '/loop'), /too many levels/);
});

test('a node takes the first CNI configuration that can be used, with its plugins in order', (t) => {
  const root = folder(t);
  const node = { path: (inNode: string) => join(root, inNode) };
  const write = (name: string, text: string): void => writeFileSync(join(root, 'etc/cni/net.d', name), text);
  mkdirSync(join(root, 'etc/cni/net.d'), { recursive: true });
  assert.equal(nodeNetwork(node), undefined);
  write('00-half.conf', '{"type": "istio-cni"');
  write('05-empty.conflist', '{"name": "none", "plugins": []}');
  write('20-chain.conflist', '{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "playground"}, {"type": "istio-cni"}]}');
  write('30-later.conflist', '{"name": "later", "plugins": [{"type": "bridge"}]}');
  assert.deepEqual(nodeNetwork(node)?.plugins, [{ type: 'playground' }, { type: 'istio-cni' }]);
  write('10-first.conflist', '{"name": "first", "plugins": [{"type": "bridge"}]}');
  assert.equal(nodeNetwork(node)?.name, 'first');
});

// ---- what a container gets -------------------------------------------------------------------------------------------------------------

const pod = (spec: Partial<Pod['spec']>): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web-1', namespace: 'shop' },
  spec: { containers: [], ...spec },
});

test("a pod resolves the cluster's names first; one on the node's network does not search", () => {
  assert.equal(
    etcFiles(pod({}), 'node1', ['10.244.1.2'])['/etc/resolv.conf'],
    'search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n',
  );
  assert.equal(etcFiles(pod({ hostNetwork: true }), 'node1', [])['/etc/resolv.conf'], 'nameserver 10.96.0.10\n');
  const own = pod({
    dnsPolicy: 'None',
    dnsConfig: { nameservers: ['1.2.3.4'], searches: ['x.y'], options: [{ name: 'ndots', value: '1' }] },
  });
  assert.equal(etcFiles(own, 'node1', [])['/etc/resolv.conf'], 'search x.y\nnameserver 1.2.3.4\noptions ndots:1\n');
});

test('a pod knows itself by name in /etc/hosts, and the aliases it asked for', () => {
  const hosts =
    etcFiles(pod({ hostname: 'db-0', subdomain: 'db', hostAliases: [{ ip: '9.9.9.9', hostnames: ['nine'] }] }), 'node1', ['10.244.1.2'])[
      '/etc/hosts'
    ] ?? '';
  assert.match(hosts, /^10\.244\.1\.2\tdb-0\.db\.shop\.svc\.cluster\.local\tdb-0$/m);
  assert.match(hosts, /^9\.9\.9\.9\tnine$/m);
});

test('images are known by their last two parts; others run their command on the machine', () => {
  assert.equal(imageName('gcr.io/istio-release/app:1.30@sha256:abc'), 'istio-release/app');
  assert.equal(imageName('localhost:5000/warren/echo:dev'), 'warren/echo');
  assert.deepEqual(resolveImage({ name: 'c', image: 'busybox', command: ['sleep'], args: ['1'] }, '/node', '/nowhere').argv, [
    'sleep',
    '1',
  ]);
  assert.deepEqual(resolveImage({ name: 'c', image: 'warren/echo:1', args: ['--port=1'] }, '/node', '/nowhere').argv.slice(-2), [
    '/opt/warren/playground/programs/echo.ts',
    '--port=1',
  ]);
  assert.throws(
    () => resolveImage({ name: 'c', image: 'nginx' }, '/node', '/nowhere'),
    /image "nginx" is none of the playground's, and container c has no command/,
  );
});

test('a container has the capabilities of its security context and no others', () => {
  const bounding = (...args: Parameters<typeof privileges>): string =>
    privileges(...args).find((word) => word.startsWith('--bounding-set')) ?? '';
  assert.doesNotMatch(bounding({}), /sys_admin/);
  assert.match(bounding({}), /\+net_bind_service/);
  assert.equal(bounding({ capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] } }), '--bounding-set=-all,+net_bind_service');
  assert.deepEqual(privileges({ privileged: true }), []);
  assert.deepEqual(privileges({ runAsUser: 1337, capabilities: { drop: ['all'] } }).slice(1), [
    '--reuid=1337',
    '--regid=1337',
    '--clear-groups',
    '--inh-caps=-all',
    '--bounding-set=-all',
  ]);
});

// ---- addresses -------------------------------------------------------------------------------------------------------------------------

test("a node's pod addresses rest as long as possible before they are given again, and run out with an error", () => {
  const addresses = new PodAddresses(planNode(3, true));
  const first = addresses.take();
  assert.deepEqual(first, { v4: '10.244.3.2', v6: 'fd00:10:244:3::2' });
  addresses.release(first);
  assert.equal(addresses.take().v4, '10.244.3.3');
  for (let i = 0; i < 252; i++) addresses.take();
  assert.throws(() => addresses.take(), /node3 has no free pod address: 253 are in use/);
});

test('without IPv6 on the machine nodes and pods have IPv4 only', () => {
  const plan = planNode(1, false);
  assert.deepEqual([plan.addresses.v6, plan.podCidrs.v6, new PodAddresses(plan).take().v6], [undefined, undefined, undefined]);
});
