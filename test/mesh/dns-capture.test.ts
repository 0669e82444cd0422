/** DNS of enrolled pods through ztunnel, on a whole mesh: the mesh's names from its state, everything else from the cluster's DNS. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { nodeInPods, startPlayground, withoutPlayground } from '../support/playground.ts';

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop, labels: { app: client } }
spec: { containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
---
apiVersion: v1
kind: Pod
metadata: { name: orders, namespace: shop, labels: { app: orders } }
spec: { containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }] }
---
apiVersion: v1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { selector: { app: orders }, ports: [{ port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: headless, namespace: shop }
spec: { clusterIP: None, selector: { app: orders }, ports: [{ port: 8080 }] }
`;

const RESOLVE = `require('node:dns').promises.resolve4(process.argv[1]).then((found) => console.log(found.join()), (error) => console.log(error.code))`;

test('with DNS capture a pod resolves services by ztunnel, and the rest by the cluster', {
  skip: withoutPlayground ?? false,
  timeout: 180_000,
}, async (t) => {
  const playground = await startPlayground(t, { mesh: true, nodes: 1 });
  const { kubectl } = playground;
  const system = ['-n', 'istio-system'];
  await kubectl(...system, 'patch', 'configmap', 'istio-cni-config', '--type=merge', '-p', '{"data":{"AMBIENT_DNS_CAPTURE":"true"}}');
  await kubectl(...system, 'set', 'env', 'daemonset/ztunnel', 'ISTIO_META_DNS_CAPTURE=true');
  await kubectl(...system, 'rollout', 'restart', 'daemonset/istio-cni-node');
  for (const name of ['ztunnel', 'istio-cni-node']) await kubectl(...system, 'rollout', 'status', `daemonset/${name}`, '--timeout=60s');
  await playground.apply(MANIFEST);
  await playground.podsReady('shop');
  const resolve = async (name: string): Promise<string> =>
    (await playground.exec('shop', 'client', nodeInPods, '-e', RESOLVE, name)).stdout.trim();
  const clusterIp = await kubectl('-n', 'shop', 'get', 'service', 'orders', '-o', 'jsonpath={.spec.clusterIP}');
  const podIp = await kubectl('-n', 'shop', 'get', 'pod', 'orders', '-o', 'jsonpath={.status.podIP}');
  await playground.eventually('orders resolves', async () => (await resolve('orders.shop.svc.cluster.local')) === clusterIp);
  assert.equal(await resolve('orders'), clusterIp);
  assert.equal(await resolve('headless.shop.svc.cluster.local'), podIp);
  assert.equal(await resolve('nothing.example'), 'ENOTFOUND');
  assert.match(await playground.client('shop', 'client', 'http://orders/'), /StatusCode=200/);
  // The cluster's DNS knows most of these names as well: ztunnel's own counters say who answered.
  const ztunnel = await kubectl(...system, 'get', 'pods', '-l', 'app=ztunnel', '-o', 'jsonpath={.items[0].metadata.name}');
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
});
