/** Part of capture.test.ts: the mesh taken out of the path, by meshctl and by hand, and what a pod's start depends on while the node agent is away. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { TestPlayground } from '../support/playground.ts';

const echo = (name: string, node: string, namespace = 'shop'): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: ${namespace}, labels: { app: ${name} } }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 0
  containers: [{ name: echo, image: warren/echo:0.1.0, args: ["--port=8080"] }]
---
`;
const service = (name: string): string => `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: shop }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: 8080 }] }
---
`;

/** @param cluster with the plugin, or its kubelets would ask the agent by themselves, and there would be nothing to bypass by hand */
export async function outOfThePath(t: TestContext, cluster: TestPlayground): Promise<void> {
  await cluster.apply(`
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Namespace
metadata: { name: legacy }
---
${echo('client', 'node1')}${echo('server', 'node2')}${service('server')}`);
  await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod', '--all', '--timeout=60s');
  await t.test('a namespace, a node and the cluster are taken out of the mesh and brought back, and no pod restarts', () =>
    byMeshctl(cluster),
  );
  await t.test('while the node agent is away pods of the mesh wait and others start; by hand the node lets all of them start', () =>
    byHand(cluster),
  );
}

async function byMeshctl(cluster: TestPlayground): Promise<void> {
  const started = await cluster.kubectl('get', 'pods', '-n', 'shop', '-o', 'jsonpath={.items[*].status.containerStatuses[*].containerID}');
  const calls = async (): Promise<boolean> =>
    (await cluster.exec('shop', 'client', 'client', 'http://server.shop:8080/')).stdout.includes('Hostname=server');
  // Not the redirection of outbound traffic: until ztunnel's last connection has ended, a rule stays that no packet meets.
  const captured = async (pod: string): Promise<boolean> => (await rulesOf(cluster, pod)).includes('redirect to :15006');
  assert.equal(await captured('client'), true);

  for (const [scope, outside] of [
    [
      ['namespace', 'shop'],
      ['client', 'server'],
    ],
    [['node', 'node1'], ['client']],
    [['cluster'], ['client', 'server']],
  ] as const) {
    const what = scope.join(' ');
    assert.match(await cluster.meshctl('bypass', ...scope), new RegExp(`the way back: meshctl bypass ${what} --undo`));
    for (const pod of ['client', 'server'] as const) {
      const isOut = outside.some((name) => name === pod);
      assert.equal(await captured(pod), !isOut, `${what}: ${pod}`);
    }
    await cluster.eventually(`${what}: traffic flows past the mesh`, calls);
    const status = await cluster.tryMeshctl('status');
    assert.equal(status.code, 1, status.stderr);
    assert.match(status.stdout, new RegExp(`error +${scope[0] === 'cluster' ? 'the cluster' : what}: is bypassed: plaintext`));
    assert.doesNotMatch(status.stdout, /should be in the mesh and is not/);

    await cluster.meshctl('bypass', ...scope, '--undo');
    for (const pod of ['client', 'server']) assert.equal(await captured(pod), true, `${what} is over: ${pod}`);
    await cluster.eventually(`${what}: traffic flows through the mesh again`, calls);
  }
  assert.equal((await cluster.tryMeshctl('bypass', 'namespace', 'absent')).code, 2);
  assert.equal(
    await cluster.kubectl('get', 'pods', '-n', 'shop', '-o', 'jsonpath={.items[*].status.containerStatuses[*].containerID}'),
    started,
  );
}

async function byHand(cluster: TestPlayground): Promise<void> {
  const agents = 'daemonset/istio-cni-node';
  const selector = (value: unknown): string => JSON.stringify({ spec: { template: { spec: { nodeSelector: value } } } });
  const agentPods = () => cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'k8s-app=istio-cni-node', '-o', 'name');
  await cluster.kubectl('patch', agents, '-n', 'istio-system', '-p', selector({ nowhere: 'true' }));
  await cluster.eventually('the agents are gone', async () => (await agentPods()) === '');

  await cluster.apply(`${echo('late', 'node1')}${echo('stranger', 'node1', 'legacy')}`);
  await cluster.kubectl('wait', '-n', 'legacy', '--for=condition=Ready', 'pod/stranger', '--timeout=60s');
  await cluster.eventually('the event says what a pod waits for and what to do', async () =>
    /FailedCreatePodSandBox.*waits for the node agent.*namespace shop belongs to the mesh.*istio-cni bypass/.test(
      await cluster.kubectl('describe', 'pod', '-n', 'shop', 'late'),
    ),
  );
  assert.match(await cluster.kubectl('get', 'pod', '-n', 'shop', 'late'), /0\/1 +ContainerCreating/);
  assert.match(await rulesOf(cluster, 'client'), /redirect to :15006/, 'pods that are in the mesh stay in it');

  const said = cluster.node('node1').run('/opt/cni/bin/istio-cni', 'bypass');
  assert.match(said, /rules are out of/);
  await cluster.kubectl('wait', '-n', 'shop', '--for=condition=Ready', 'pod/late', '--timeout=60s');
  assert.doesNotMatch(await rulesOf(cluster, 'client'), /redirect to :15006/);

  // The agent comes back and keeps its hands off until somebody says otherwise.
  await cluster.kubectl('patch', agents, '-n', 'istio-system', '-p', selector(null));
  await cluster.eventually('the pods say what they are bypassed with', async () =>
    (await cluster.kubectl('get', 'pod', '-n', 'shop', 'late', '-o', 'jsonpath={.metadata.annotations}')).includes('by hand'),
  );
  cluster.node('node1').run('/opt/cni/bin/istio-cni', 'bypass', '--undo');
  await cluster.eventually('all pods are in the mesh', async () => /redirect to :15006/.test(await rulesOf(cluster, 'late')));
}

async function rulesOf(cluster: TestPlayground, pod: string): Promise<string> {
  const [uid = '', node = ''] = (
    await cluster.kubectl('get', 'pod', '-n', 'shop', pod, '-o', 'jsonpath={.metadata.uid} {.spec.nodeName}')
  ).split(' ');
  return cluster.node(node).run('nsenter', `--net=/var/run/netns/${uid}`, 'nft', 'list', 'ruleset');
}
