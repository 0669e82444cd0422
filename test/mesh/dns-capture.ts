/** DNS of enrolled pods through ztunnel, on a whole mesh: the mesh's names from its state, everything else from the cluster's DNS; run by capture.test.ts. */
import assert from 'node:assert/strict';
import { nodeInPods, type TestPlayground } from '../support/playground.ts';

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: names, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: names, labels: { app: client } }
spec: { nodeName: node1, containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: orders, namespace: names, labels: { app: orders } }
spec: { nodeName: node1, containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
---
apiVersion: v1
kind: Service
metadata: { name: orders, namespace: names }
spec: { selector: { app: orders }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: headless, namespace: names }
spec: { clusterIP: None, selector: { app: orders }, ports: [{ port: 8080 }] }
`;

const RESOLVE = `require('node:dns').promises.resolve4(process.argv[1]).then((found) => console.log(found.join()), (error) => console.log(error.code))`;

/** On a playground with the mesh, in a namespace of its own; ztunnel and the node agent are other ones afterwards. */
export async function dnsCapture(playground: TestPlayground): Promise<void> {
  const { kubectl } = playground;
  const system = ['-n', 'istio-system'];
  await kubectl(...system, 'patch', 'configmap', 'istio-cni-config', '--type=merge', '-p', '{"data":{"AMBIENT_DNS_CAPTURE":"true"}}');
  await kubectl(...system, 'set', 'env', 'daemonset/ztunnel', 'ISTIO_META_DNS_CAPTURE=true');
  await kubectl(...system, 'rollout', 'restart', 'daemonset/istio-cni-node');
  for (const name of ['ztunnel', 'istio-cni-node']) await kubectl(...system, 'rollout', 'status', `daemonset/${name}`, '--timeout=60s');
  await playground.apply(MANIFEST);
  await playground.podsReady('names');
  const resolve = async (name: string): Promise<string> =>
    (await playground.exec('names', 'client', nodeInPods, '-e', RESOLVE, name)).stdout.trim();
  const clusterIp = await kubectl('-n', 'names', 'get', 'service', 'orders', '-o', 'jsonpath={.spec.clusterIP}');
  const podIp = await kubectl('-n', 'names', 'get', 'pod', 'orders', '-o', 'jsonpath={.status.podIP}');
  await playground.eventually('orders resolves', async () => (await resolve('orders.names.svc.cluster.local')) === clusterIp);
  assert.equal(await resolve('orders'), clusterIp);
  assert.equal(await resolve('headless.names.svc.cluster.local'), podIp);
  assert.equal(await resolve('nothing.example'), 'ENOTFOUND');
  assert.match(await playground.client('names', 'client', 'http://orders/'), /StatusCode=200/);
  // The cluster's DNS knows most of these names as well: ztunnel's own counters say who answered.
  const ztunnel = await kubectl(
    ...system,
    'get',
    'pods',
    '-l',
    'app=ztunnel',
    '--field-selector=spec.nodeName=node1',
    '-o',
    'jsonpath={.items[0].metadata.name}',
  );
  const metrics = await kubectl('get', '--raw', `/api/v1/namespaces/istio-system/pods/${ztunnel}:15020/proxy/metrics`);
  const count = (name: string): number =>
    metrics
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  assert.ok(count('istio_dns_requests_total') >= 5, metrics);
  assert.ok(
    count('istio_dns_upstream_requests_total') >= 1 && count('istio_dns_upstream_requests_total') < count('istio_dns_requests_total'),
    metrics,
  );
  assert.equal(count('istio_dns_upstream_failures_total'), 0);
}
