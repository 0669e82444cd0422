/**
 * Istio's own ztunnel on both nodes, and our waypoint between them: the client's ztunnel is told of the waypoint by our istiod and sends what
 * is bound to it there; the server's takes what the waypoint brings. Runs where ZTUNNEL_BIN names a build of Istio's ztunnel.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { scaleWaypoint, startKeptLoad, waypointAddresses } from '../support/kept-load.ts';
import { startPlayground } from '../support/playground.ts';
import { offerRealZtunnel, withoutRealZtunnel } from '../support/real-ztunnel.ts';
import { replaceZtunnel, ztunnelLine, ztunnelOn } from '../support/ztunnel-pods.ts';

const CALLS = 60;

const version = (name: string, node: string): string => `
---
apiVersion: v1
kind: Pod
metadata: { name: orders-${name}, namespace: shop, labels: { app: orders, version: ${name} } }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080", "--version=${name}"] }]
---
apiVersion: v1
kind: Service
metadata: { name: orders-${name}, namespace: shop }
spec: { selector: { app: orders, version: ${name} }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
`;

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: client, namespace: shop }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop }
spec:
  nodeName: node1
  serviceAccountName: client
  terminationGracePeriodSeconds: 1
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }]
---
apiVersion: v1
kind: Service
metadata: { name: orders, namespace: shop }
spec: { selector: { app: orders }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
${version('v1', 'node2')}${version('v2', 'node1')}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: orders, port: 80 }]
  rules:
    - matches: [{ headers: [{ name: x-new, value: "yes" }] }]
      backendRefs: [{ name: orders-v2, port: 80 }]
    - backendRefs: [{ name: orders-v1, port: 80, weight: 80 }, { name: orders-v2, port: 80, weight: 20 }]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: read-only, namespace: shop }
spec:
  targetRefs: [{ group: "", kind: Service, name: orders }]
  action: ALLOW
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/client] } }], to: [{ operation: { methods: [GET] } }] }]
`;

test("Istio's ztunnel on both sides of our waypoint", { skip: withoutRealZtunnel, timeout: 420_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await offerRealZtunnel(t, cluster);
  for (const node of ['node1', 'node2']) await replaceZtunnel(cluster, node);
  await cluster.apply(MANIFEST);
  await cluster.podsReady('shop');
  await cluster.meshctl('waypoint', 'apply', '-n', 'shop', '--enroll-namespace', '--wait');
  const call = async (...options: string[]): Promise<string> =>
    (await cluster.exec('shop', 'client', 'client', 'http://orders/', ...options)).stdout;
  // Both ztunnels have heard of the waypoint when a request is answered by a version that only its route can choose.
  await cluster.eventually(
    'the new version by header',
    async () => (await call('-H', 'x-new: yes', '--count=10')).match(/ServiceVersion=v2/g)?.length === 10,
    60_000,
  );

  await t.test('requests are split by weight', async () => {
    const answers = await call(`--count=${CALLS}`);
    const [old, fresh] = ['v1', 'v2'].map((name) => answers.match(new RegExp(`ServiceVersion=${name}`, 'g'))?.length ?? 0);
    assert.equal((old ?? 0) + (fresh ?? 0), CALLS, answers);
    assert.ok((fresh ?? 0) > 0 && (old ?? 0) > (fresh ?? 0), `${old} and ${fresh}`);
  });

  await t.test('the client is sent through the waypoint, and the server is reached by the waypoint alone', async () => {
    const outbound = await ztunnelLine(cluster, 'node1', 'direction="outbound"', 'src.workload="client"', 'sa/waypoint');
    assert.match(outbound, /:15008/);
    // The waypoint keeps its connections, and Istio's ztunnel logs one when it has ended; it counts one when it begins.
    const path = `/api/v1/namespaces/istio-system/pods/${await ztunnelOn(cluster, 'node2')}:15020/proxy/metrics`;
    const counted = (await cluster.kubectl('get', '--raw', path))
      .split('\n')
      .filter(
        (line) =>
          /^istio_tcp_connections_opened_total.*reporter="destination"/.test(line) && line.includes('destination_workload="orders-v1"'),
      );
    assert.ok(counted.length > 0);
    for (const line of counted) assert.match(line, /source_principal="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/waypoint"/);
  });

  await t.test("the caller's identity, which the real one proved, decides", async () => {
    assert.match(await call('--method=POST'), /StatusCode=403/);
    assert.match(await call(), /StatusCode=200/);
  });

  await t.test("replicas that are added get a part of the connections that Istio's ztunnel has open, and no request fails", async (t2) => {
    await scaleWaypoint(cluster, 'shop', 1);
    await cluster.kubectl('label', 'nodes', '--all', 'topology.kubernetes.io/zone=one', '--overwrite');
    const load = await startKeptLoad(cluster, {
      namespace: 'shop',
      url: 'http://orders',
      kept: 60,
      everyMs: 1000,
      serviceAccount: 'client',
    });
    await load.during('scaling', async () => {
      await scaleWaypoint(cluster, 'shop', 5);
      await sleep(10_000);
    });
    const busiest = await load.busiestOfMean(5, await waypointAddresses(cluster, 'shop'));
    t2.diagnostic(`busiest of mean ${busiest.toFixed(2)}`);
    // It picks at random, so what leaves the first replica may come back; were nobody asked to leave, it would be 5.
    assert.ok(busiest < 4, `the busiest of five has ${busiest} times the mean`);
  });
});
