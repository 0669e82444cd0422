/** scripts/cluster itself: nodes, networks, names, and that nothing is left, however it ends. */
import assert from 'node:assert/strict';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startCluster, type TestCluster, withoutCluster } from '../support/cluster.ts';
import { runProgram } from '../support/kube-commands.ts';
import { build } from './build.ts';
import { imageArchive } from './image-archive.ts';
import { PAUSE_IMAGE } from './pause-image.ts';

const skip = withoutCluster ?? false;

/** A pod on each node, behind a Service. */
const PODS = `
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: idle }
spec:
  selector: { matchLabels: { app: idle } }
  template:
    metadata: { labels: { app: idle } }
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{ name: idle, image: "test/own:1", imagePullPolicy: Never }]
---
apiVersion: v1
kind: Service
metadata: { name: idle }
spec: { selector: { app: idle }, ports: [{ port: 80 }] }
`;

function remains(cluster: TestCluster): string[] {
  return [
    ...globSync(`/sys/fs/cgroup/*/warren-cluster-${cluster.name}-*`),
    ...globSync(`/sys/fs/cgroup/warren-cluster-${cluster.name}-*`),
    ...globSync(`/run/warren-cluster/${cluster.name}`),
    ...globSync('/proc/[0-9]*/cmdline').filter((path) => contains(path, `/run/warren-cluster/${cluster.name}/`)),
  ];
}

function contains(path: string, text: string): boolean {
  try {
    return readFileSync(path, 'utf8').includes(text);
  } catch {
    // The process went away.
    return false;
  }
}

/** What is the whole machine's, and a kubelet or a container runtime would change. */
const machine = (): string[] =>
  ['vm/overcommit_memory', 'kernel/panic', 'kernel/panic_on_oops', 'net/ipv4/ip_forward']
    .map((name) => readFileSync(`/proc/sys/${name}`, 'utf8'))
    .concat(readFileSync('/proc/self/mounts', 'utf8').match(/.*(?:kubelet|containerd|warren-cluster|cni-).*/g) ?? [])
    .concat(globSync('/run/netns/cni-*'), globSync('/{etc,opt,var/lib}/cni'), globSync('/var/lib/{kubelet,containerd}'));

test('a cluster of two nodes, and another one beside it', { skip }, async (t) => {
  const before = machine();
  const cluster = await startCluster(t, { nodes: 2, images: [await ownImage(t)] });

  await t.test('runs pods of the images that were loaded, and pulls none', async () => {
    await cluster.apply(PODS);
    await cluster.apply(PODS.replaceAll('test/own:1', 'test/absent:1').replaceAll('idle', 'absent'));
    await cluster.eventually('the pods of a loaded image run', async () => {
      return (await cluster.kubectl('get', 'daemonset', 'idle', '-o', 'jsonpath={.status.numberReady}')) === '2';
    });
    await cluster.eventually('the pods of an absent image say so', async () => {
      return (await cluster.kubectl('get', 'pods', '-l', 'app=absent')).split('ErrImageNeverPull').length === 3;
    });
  });

  await t.test('routes between its pods, and to the API server by its Service', async () => {
    const columns = 'jsonpath={range .items[*]}{.spec.nodeName} {.status.podIP}{"\\n"}{end}';
    const placed = (await cluster.kubectl('get', 'pods', '-l', 'app=idle', '-o', columns)).trim().split('\n').sort();
    assert.match(placed.join(), /^node1 10\.244\.1\.\d+,node2 10\.244\.2\.\d+$/);
    for (const name of ['node1', 'node2']) {
      const node = cluster.node(name);
      const dial = (address: string, port: number): string =>
        node.run('bash', '-c', `timeout 10 bash -c '< /dev/tcp/${address}/${port}' 2>&1 && echo connected || true`);
      await cluster.eventually('the API server answers at its Service', () => dial('10.96.0.1', 443).includes('connected'));
      // Nothing listens there: that it says so shows that it was asked.
      for (const pod of placed) assert.match(dial(pod.split(' ')[1] ?? '', 1), /Connection refused/);
      assert.equal(node.run('hostname').trim(), name);
    }
  });

  await t.test('changes nothing of the machine that it runs on', () => {
    assert.deepEqual(machine(), before);
  });

  await t.test('clusters live side by side, and leave nothing, whether they are ended or killed', async (t) => {
    const other = await startCluster(t, { nodes: 1 });
    await cluster.kubectl('create', 'configmap', 'mine');
    assert.doesNotMatch(await other.kubectl('get', 'configmaps'), /mine/);
    const again = await runProgram(process.execPath, [join(import.meta.dirname, 'main.ts'), 'up', '--name', cluster.name]);
    assert.equal(again.code, 2);
    assert.match(again.stderr, /already running \(pid \d+\)/);

    await other.apply(PODS.replaceAll('test/own:1', PAUSE_IMAGE));
    await other.podsReady('default');
    assert.notDeepEqual(remains(other), []);
    other.process.kill('SIGKILL');
    await other.eventually('a killed cluster leaves something', () => remains(other).length === 0);
    assert.match(await cluster.kubectl('get', 'configmaps'), /mine/);
    await cluster.cluster('down');
    assert.deepEqual(remains(cluster), []);
  });
});

async function ownImage(t: TestContext): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const { pause } = await build(() => undefined);
  const archive = join(folder, 'own.tar');
  writeFileSync(archive, imageArchive({ name: 'test/own:1', entrypoint: ['/own'], user: '1:1' }, readFileSync(pause)));
  return archive;
}
