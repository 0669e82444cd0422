/**
 * Our ztunnel under Istio's own node agent: ZDS from its side, with its rules; then our agent where it was. Runs where ISTIO_CNI_BIN names a build of install-cni
 * (`ISTIO_CNI_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPlayground } from '../support/playground.ts';
import { replaceAgents, useRealAgent, withoutRealAgent } from '../support/real-agent.ts';
import { ztunnelLine } from '../support/real-ztunnel.ts';

const workload = (name: string, node: string): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: mesh }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: mesh, labels: { app: ${name} } }
spec:
  nodeName: ${node}
  serviceAccountName: ${name}
  terminationGracePeriodSeconds: 1
  containers:
    - { name: echo, image: warren/echo, args: ["--port=8080"], readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 } }
---
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: mesh }
spec: { selector: { app: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
`;

const NAMESPACE = `
apiVersion: v1
kind: Namespace
metadata: { name: mesh, labels: { istio.io/dataplane-mode: ambient } }
`;

test("our ztunnel under Istio's node agent, and our agent after it", { skip: withoutRealAgent, timeout: 290_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  const putOursBack = await useRealAgent(t, cluster);
  await cluster.apply(NAMESPACE + workload('alice', 'node1') + workload('bob', 'node2'));
  await cluster.podsReady('mesh');
  const call = async (): Promise<string> => (await cluster.exec('mesh', 'alice', 'client', 'http://bob/')).stdout;
  const served = (): Promise<void> => cluster.eventually('HTTP', async () => (await call()).includes('StatusCode=200'), 60_000);
  const redirection = (): Promise<string> =>
    cluster.kubectl('get', 'pods', '-n', 'mesh', '-o', 'jsonpath={.items[*].metadata.annotations.ambient\\.istio\\.io/redirection}');

  await t.test('pods that it enrols are served, on both ends of a tunnel', async () => {
    await served();
    assert.equal((await redirection()).trim(), 'enabled enabled');
    await ztunnelLine(cluster, 'node1', 'direction="outbound"', 'dst.identity="spiffe://cluster.local/ns/mesh/sa/bob"', ':15008');
    await ztunnelLine(cluster, 'node2', 'direction="inbound"', 'src.identity="spiffe://cluster.local/ns/mesh/sa/alice"');
  });

  await t.test('another one of it gives our ztunnel the same pods in its snapshot, and they are served on', async () => {
    await replaceAgents(cluster);
    await served();
  });

  await t.test('our agent takes its pods over: with the back-end that it used, and with its own rules', async () => {
    await putOursBack();
    await served();
    assert.equal((await redirection()).trim(), 'enabled enabled');
    const names = await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=istio-cni-node', '-o', 'name');
    for (const name of names.trim().split('\n')) {
      assert.match(await cluster.kubectl('logs', '-n', 'istio-system', name), /backend="iptables"/);
    }
  });
});
