/**
 * The mesh installed by Helm and by kubectl (install-ways.ts), and the CNI plugin, on real Kubernetes: kubelet and containerd call it. Who starts
 * when, what is on the wire from the first packet on, what happens when all nodes lose their power, and the mesh out of the path.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCluster, type TestCluster, withoutCluster } from '../support/cluster.ts';
import { imageBundle } from '../support/image-bundle.ts';
import { hasText, hasTunnel, onTheWire } from '../support/wire.ts';
import { installWays, withoutHelm } from './install-ways.ts';

const LONG_MS = 240_000;
const NODES = ['node1', 'node2'];
const BYPASS_MS = 10_000;

const container = (rest: string): string => `{ image: "warren/echo:0.1.0", imagePullPolicy: Never, ${rest} }`;
const pod = (name: string, node: string, namespace: string, containers: string): string => `
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name} } }
spec:
  nodeSelector: { kubernetes.io/hostname: ${node} }
  terminationGracePeriodSeconds: 0
  ${containers}
`;
const echo = (name: string, node: string, namespace = 'shop'): string =>
  pod(name, node, namespace, `containers: [${container('name: echo, args: ["--port=8080"]')}]`);
/** Its first container calls, once and at once: no time for anybody to come too late. */
const early = (name: string, namespace: string): string =>
  pod(
    name,
    'node1',
    namespace,
    `restartPolicy: Never
  initContainers: [${container(`name: first, command: [client, "http://server.shop:8080/", -H, "x-marker:${name}-says"]`)}]
  containers: [${container('name: echo, args: ["--port=8080"]')}]`,
  );
/** Calls without pause from its first moment, and after each of its restarts. */
const chatter = `fetch('http://server.shop:8080/', { headers: { 'x-marker': 'chatter-says' }, signal: AbortSignal.timeout(2000) })
  .then((answer) => answer.text()).then((text) => text.includes('Hostname=server') && console.log('answered', Date.now()))
  .catch((error) => console.log('lost', error.cause?.code ?? error.name)).finally(() => setTimeout(call, 50))`;

const WORLD = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: legacy }
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: shop }
spec: { selector: { app: server }, ports: [{ name: http, port: 8080 }] }
${echo('server', 'node2')}${echo('client', 'node1')}
`;

test('the ways to install and the CNI plugin, on Kubernetes with two nodes', {
  skip: withoutCluster ?? false,
  timeout: 1_500_000,
}, async (t) => {
  const cluster = await startCluster(t, { nodes: 2, images: [await imageBundle(t)] });
  await cluster.apply(WORLD);
  await cluster.podsReady('shop', LONG_MS);
  const ways = installWays(t, cluster, () => cluster.exec('shop', 'client', 'client', 'http://server:8080/'));
  await t.test('who may only look is told what is missing, and nothing is changed', ways.byViewer);
  await t.test(
    'helm install brings it up, and helm uninstall leaves no pod without a network',
    { skip: withoutHelm ?? false },
    ways.byHelm,
  );
  await t.test('kubectl installs the plain manifest, meshctl agrees with it, and sees what a user changes', ways.byKubectl);
  const described = (name: string, namespace = 'shop') => cluster.kubectl('describe', 'pod', '-n', namespace, name);

  await t.test('a pod is in the mesh before its first container runs', async () => {
    const outside = await onTheWire(cluster.node('node2'), async () => {
      await cluster.apply(early('outsider', 'legacy'));
      await cluster.kubectl('wait', '-n', 'legacy', '--for=condition=Ready', 'pod/outsider', '--timeout=120s');
    });
    assert.ok(hasText(outside, 'outsider-says'), 'what a pod outside of the mesh says can be read on the wire');
    const inside = await onTheWire(cluster.node('node2'), async () => {
      await cluster.apply(early('insider', 'shop'));
      await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/insider', '--timeout=120s');
    });
    assert.ok(!hasText(inside, 'insider-says'));
    assert.ok(hasTunnel(inside));
    await cluster.kubectl('delete', 'pod', '-n', 'shop', 'insider');
    await cluster.kubectl('delete', 'pod', '-n', 'legacy', 'outsider');
  });

  await t.test('each process of the mesh has the rights that the security model lists, and no more', () => {
    const processes = NODES.flatMap((node) => meshProcesses(cluster, node));
    assert.deepEqual(new Set(processes.map(({ component }) => component)), new Set(Object.keys(RIGHTS)));
    for (const { component, status, limits } of processes) {
      const field = (name: string): string => new RegExp(`^${name}:\\t(\\S+)`, 'm').exec(status)?.[1] ?? '';
      assert.equal(Number.parseInt(field('CapEff'), 16), bits(RIGHTS[component] ?? []), `${component}: ${field('CapEff')}`);
      assert.equal(field('CapEff'), field('CapPrm'), component);
      assert.equal(field('NoNewPrivs'), '1', component);
      // The runtime's profile, and its own.
      assert.equal(field('Seccomp_filters'), '2', component);
      assert.equal(field('Uid'), component === 'istiod-lite' ? '1337' : '0', component);
      assert.match(limits, /^Max core file size +0 +0 /m, component);
    }
    for (const node of NODES) {
      const sockets = cluster
        .node(node)
        .run(
          'stat',
          '-c',
          '%U %a %n',
          '/run/istio-cni/pluginevent.sock',
          '/run/ztunnel/ztunnel.sock',
          '/opt/cni/bin/istio-cni.d',
          '/opt/cni/bin/istio-cni.d/cache.json',
        );
      assert.deepEqual(
        sockets
          .trim()
          .split('\n')
          .map((line) => line.split(' ').slice(0, 2).join(' ')),
        ['root 600', 'root 600', 'root 700', 'root 600'],
      );
    }
  });

  await t.test('the plugin is put back into a configuration that the network rewrites', async () => {
    const file = '/etc/cni/net.d/10-pods.conflist';
    const node = cluster.node('node1');
    const chained = (): boolean => node.run('cat', file).includes('istio-cni');
    assert.ok(chained());
    const program =
      'const f = process.argv[1]; const c = JSON.parse(fs.readFileSync(f)); c.plugins = c.plugins.filter((p) => p.type !== "istio-cni"); fs.writeFileSync(f, JSON.stringify(c));';
    node.run(process.execPath, '-e', program, file);
    await cluster.eventually('the plugin is not put back', chained);
    node.run('rm', '/opt/cni/bin/istio-cni');
    await cluster.eventually('the executable is not put back', () => node.run('ls', '/opt/cni/bin').includes('istio-cni\n'));
  });

  await t.test('a pod that cannot be enrolled does not start, and its events say why; then it starts', async () => {
    const selector = (value: unknown): string => JSON.stringify({ spec: { template: { spec: { nodeSelector: value } } } });
    await cluster.kubectl('patch', 'ds/ztunnel', '-n', 'istio-system', '-p', selector({ nowhere: 'true' }));
    await cluster.eventually('ztunnel is still there', async () => !(await podsOf(cluster, 'ztunnel')), LONG_MS);
    await cluster.apply(`${echo('held', 'node1')}${echo('free', 'node1', 'legacy')}`);
    await cluster.kubectl('wait', '-n', 'legacy', '--for=condition=Ready', 'pod/free', '--timeout=120s');
    await cluster.eventually(
      'the event does not say why',
      async () => /FailedCreatePodSandBox.*istio-cni.*could not take pod shop\/held into the mesh.*ztunnel/.test(await described('held')),
      LONG_MS,
    );
    assert.match(await cluster.kubectl('get', 'pod', '-n', 'shop', 'held'), /0\/1 +(ContainerCreating|Pending)/);
    await cluster.kubectl('patch', 'ds/ztunnel', '-n', 'istio-system', '-p', selector({ 'kubernetes.io/os': 'linux', nowhere: null }));
    await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/held', '--timeout=240s');
    await cluster.kubectl('delete', 'pod', '-n', 'shop', 'held');
  });

  await t.test('all nodes lose their power and come back unaided, and no pod of the mesh says a word in the clear', async () => {
    await cluster.apply(
      pod(
        'chatter',
        'node1',
        'shop',
        `containers: [${container(`name: chatter, command: [node, -e, ${JSON.stringify(`const call = () => ${chatter}; call()`)}]`)}]`,
      ),
    );
    await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/chatter', '--timeout=120s');
    const answered = async (): Promise<boolean> =>
      /answered/.test((await cluster.tryKubectl('logs', '-n', 'shop', 'chatter', '--tail=3')).stdout);
    await cluster.eventually('the chatter is not answered', answered, LONG_MS);
    const restarts = async (): Promise<string> =>
      cluster.kubectl(
        'get',
        'pods',
        '-A',
        '-o',
        'jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[*].restartCount}{"\\n"}{end}',
      );
    const before = await restarts();
    const seen = await onTheWire(cluster.node('node2'), async () => {
      powerCycle(cluster);
      await cluster.eventually(
        'the chatter did not come back',
        async () => (await restarts()) !== before && !(await restarts()).includes('chatter 0'),
        LONG_MS,
      );
      await cluster.eventually('the chatter is not answered any more', answered, LONG_MS);
      await cluster.podsReady('istio-system', LONG_MS);
    });
    assert.ok(!hasText(seen, 'chatter-says'));
    assert.ok(hasTunnel(seen));
    for (const line of (await restarts()).trim().split('\n')) assert.doesNotMatch(line, / 0$/, 'every container has lost its power');
    await cluster.podsReady('shop', LONG_MS);
  });

  await t.test('meshctl bypass takes the mesh out of the path within ten seconds, and back', async () => {
    const call = (marker: string) =>
      onTheWire(cluster.node('node2'), () =>
        cluster.exec('shop', 'caller', 'client', 'http://server.shop:8080/', '-H', `x-marker:${marker}`),
      );
    await cluster.apply(echo('caller', 'node1'));
    await cluster.podsReady('shop', LONG_MS);
    const started = performance.now();
    await cluster.meshctl('bypass', 'cluster');
    const took = performance.now() - started;
    t.diagnostic(`meshctl bypass cluster took ${Math.round(took)} ms`);
    await cluster.eventually('the traffic does not flow past the mesh', async () => hasText(await call('bypassed-says'), 'bypassed-says'));
    await cluster.meshctl('bypass', 'cluster', '--undo');
    await cluster.eventually(
      'the traffic does not flow through the mesh again',
      async () => !hasText(await call('meshed-says'), 'meshed-says'),
    );
  });

  await t.test('the executable on the node does it too, without the API server, and new pods start', async () => {
    const started = performance.now();
    for (const node of NODES) assert.match(cluster.node(node).run('/opt/cni/bin/istio-cni', 'bypass'), /rules are out of [1-9]/);
    const took = performance.now() - started;
    t.diagnostic(`by hand on both nodes: ${Math.round(took)} ms`);
    assert.ok(took < BYPASS_MS);
    const seen = await onTheWire(cluster.node('node2'), () =>
      cluster.exec('shop', 'caller', 'client', 'http://server.shop:8080/', '-H', 'x-marker:by-hand'),
    );
    assert.ok(hasText(seen, 'by-hand'));
    await cluster.apply(echo('later', 'node1'));
    await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/later', '--timeout=120s');
    for (const node of NODES) cluster.node(node).run('/opt/cni/bin/istio-cni', 'bypass', '--undo');
    await cluster.eventually(
      'the pods are not back in the mesh',
      async () =>
        !/false/.test(
          await cluster.kubectl(
            'get',
            'pods',
            '-n',
            'shop',
            '-o',
            'go-template={{range .items}}{{eq (index .metadata.annotations "ambient.istio.io/redirection") "enabled"}} {{end}}',
          ),
        ),
    );
  });

  await t.test('meshctl takes away what kubectl has installed, and pods go on', ways.uninstalled);
});

/** docs/security-model.md. */
const RIGHTS: Readonly<Record<string, readonly Capability[]>> = {
  'istiod-lite': [],
  ztunnel: ['NET_ADMIN', 'SYS_ADMIN'],
  cni: ['DAC_OVERRIDE', 'NET_ADMIN', 'NET_RAW', 'SYS_PTRACE', 'SYS_ADMIN'],
};

/** Their numbers in include/uapi/linux/capability.h. */
const CAPABILITIES = { DAC_OVERRIDE: 1, NET_ADMIN: 12, NET_RAW: 13, SYS_PTRACE: 19, SYS_ADMIN: 21 } as const;
type Capability = keyof typeof CAPABILITIES;
const bits = (names: readonly Capability[]): number => names.reduce((sum, name) => sum + 2 ** CAPABILITIES[name], 0);

function meshProcesses(cluster: TestCluster, node: string): { component: string; status: string; limits: string }[] {
  const run = (...argv: string[]): string => cluster.node(node).run(...argv);
  const pids = run('sh', '-c', "grep -l '/app/.*/main.js' /proc/[0-9]*/cmdline 2>/dev/null || true").match(/\d+/g) ?? [];
  return pids.flatMap((pid) => {
    const component = /\/app\/([^/]+)\/main\.js/.exec(run('sh', '-c', `cat /proc/${pid}/cmdline 2>/dev/null || true`))?.[1];
    if (component === undefined) return [];
    return [{ component, status: run('cat', `/proc/${pid}/status`), limits: run('cat', `/proc/${pid}/limits`) }];
  });
}

const podsOf = async (cluster: TestCluster, app: string): Promise<boolean> =>
  (await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', `app=${app}`, '-o', 'name')) !== '';

/**
 * What a power cut is to pods: every container of every node ends at once, and what was in memory (/run) is gone. The kubelets stand still
 * meanwhile, so that all nodes come back together; they, containerd and the API server are the machine's to start, not the mesh's.
 */
function powerCycle(cluster: TestCluster): void {
  const kubelets = (signal: string): string =>
    `[ -e /proc/self ] || exit 1; for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q 'kubernetes kubelet'' --config'; then kill -${signal} \${p#/proc/}; fi; done`;
  for (const node of NODES) cluster.node(node).run('sh', '-c', kubelets('STOP'));
  for (const node of NODES) {
    const script = `[ -e /proc/self ] || exit 1
      for p in /proc/[0-9]*; do if grep -q kubepods $p/cgroup 2>/dev/null; then kill -KILL \${p#/proc/} 2>/dev/null; fi; done
      sleep 1
      rm -rf /run/istio-cni/* /run/ztunnel/*
      nft delete table inet istio-ambient-nat`;
    cluster.node(node).run('sh', '-c', script);
  }
  for (const node of NODES) cluster.node(node).run('sh', '-c', kubelets('CONT'));
}
