/**
 * Our ztunnel under Istio's own node agent: ZDS from its side, with its rules. Runs where ISTIO_CNI_BIN names a build of install-cni
 * (`ISTIO_CNI_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startPlayground } from '../support/playground.ts';
import { replaceAgents, withoutRealAgent } from '../support/real-agent.ts';
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

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: mesh }
spec: { mtls: { mode: STRICT } }
`;

test("our ztunnel under Istio's node agent", { skip: withoutRealAgent, timeout: 280_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await replaceAgents(t, cluster);
  await cluster.apply(NAMESPACE + workload('alice', 'node1') + workload('bob', 'node2'));
  await cluster.podsReady('mesh');
  const call = async (): Promise<string> => (await cluster.exec('mesh', 'alice', 'client', 'http://bob/')).stdout;

  await t.test('pods that it enrols are served, on both ends of a tunnel', async () => {
    await cluster.eventually('HTTP', async () => (await call()).includes('StatusCode=200'), 30_000);
    await ztunnelLine(cluster, 'node1', 'direction="outbound"', 'dst.identity="spiffe://cluster.local/ns/mesh/sa/bob"', ':15008');
    await ztunnelLine(cluster, 'node2', 'direction="inbound"', 'src.identity="spiffe://cluster.local/ns/mesh/sa/alice"');
  });

  await t.test("the kubelet's probes pass under STRICT", async () => {
    await cluster.apply(STRICT);
    await new Promise((resolve) => setTimeout(resolve, 5_000));
    const ready = await cluster.kubectl(
      'get',
      'pods',
      '-n',
      'mesh',
      '-o',
      'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}',
    );
    assert.equal(ready.trim(), 'True True');
    assert.match(await call(), /StatusCode=200/);
  });

  await t.test('after its restart our ztunnel gets the same pods again, and serves on', async () => {
    await replaceAgents(t, cluster);
    await cluster.eventually('HTTP', async () => (await call()).includes('StatusCode=200'), 30_000);
  });
});
