/**
 * The root of the mesh replaced while traffic flows, as an operator does it: `meshctl ca rotate`. Certificates live for seconds here, so that the
 * steps of a rotation, a day apart in a real mesh, are as well.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { runProgram } from '../support/kube-commands.ts';
import { nodeInPods, root, startPlayground, type TestPlayground, withoutPlayground } from '../support/playground.ts';

const pod = (name: string, node: string): string => `
---
apiVersion: v1
kind: ServiceAccount
metadata: { name: ${name}, namespace: shop }
---
apiVersion: v1
kind: Pod
metadata: { name: ${name}, namespace: shop, labels: { app: ${name} } }
spec:
  nodeName: ${node}
  terminationGracePeriodSeconds: 1
  serviceAccountName: ${name}
  containers: [{ name: echo, image: warren/echo, args: ["--port=8080"] }]
`;

const MANIFEST = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }
${pod('client', 'node1')}
${pod('server', 'node2')}
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: shop }
spec:
  selector: { app: server }
  ports: [{ name: http, port: 80, targetPort: 8080 }]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;

/** A connection of its own for each request; one line at the end. */
const ASKING = `
const http = require('node:http');
let asked = 0; const lost = [];
const ask = () => new Promise((resolve) => {
  const done = (problem) => { asked++; if (problem) lost.push(new Date().toISOString() + ' ' + problem); resolve(); };
  const request = http.get('http://server.shop:80/', { agent: false, timeout: 10000 }, (answer) => {
    answer.resume(); answer.on('end', () => done(answer.statusCode === 200 ? undefined : 'status ' + answer.statusCode));
  });
  request.on('timeout', () => request.destroy(new Error('timeout')));
  request.on('error', (error) => done(error.message));
});
(async () => {
  const end = Date.now() + Number(process.argv[1]) * 1000;
  while (Date.now() < end) { await ask(); await new Promise((resolve) => setTimeout(resolve, 100)); }
  console.log(lost.join('\\n') + '\\nasked ' + asked + ', lost ' + lost.length);
})();
`;

test('the root is replaced under traffic, and no request is lost', { skip: withoutPlayground, timeout: 400_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  // ztunnel first: a certificate for a day would keep the old root trusted for a day.
  for (const [workload, env] of [
    ['ds/ztunnel', 'SECRET_TTL=24s'],
    ['deploy/istiod', 'WARREN_CA_ROTATION_WAIT=28s'],
  ] as const) {
    await cluster.kubectl('set', 'env', '-n', 'istio-system', workload, env);
    await cluster.kubectl('rollout', 'status', '-n', 'istio-system', workload, '--timeout=50s');
  }
  await cluster.apply(MANIFEST);
  await cluster.podsReady('shop');
  const rootOf = async (): Promise<string> =>
    cluster.kubectl('get', 'secret', '-n', 'istio-system', 'istio-ca-secret', '-o', 'jsonpath={.data.ca-cert\\.pem}');
  const before = await rootOf();
  await cluster.eventually(
    'the mesh is not ready for a rotation',
    async () => (await meshctl(cluster, 'ca', 'rotate', '--rehearse')).code === 0,
    60_000,
  );

  let over = false;
  t.after(() => {
    over = true;
  });
  // In pieces that kubectl's own patience covers.
  const asking = (async () => {
    const said: string[] = [];
    while (!over) said.push((await cluster.exec('shop', 'client', nodeInPods, '-e', ASKING, '15')).stdout.trim());
    return said;
  })();
  const started = await meshctl(cluster, 'ca', 'rotate');
  assert.equal(started.code, 0, started.stderr);
  assert.match(started.stdout, /the new root signs/);
  const again = await meshctl(cluster, 'ca', 'rotate');
  assert.match(again.stderr, /a rotation is under way/);
  await cluster.eventually('the old root signs still', async () => (await rootOf()) !== before, 120_000);
  await cluster.apply(pod('late', 'node1'));
  await cluster.podsReady('shop');
  await cluster.eventually(
    'a pod with a certificate of the new root has no way to one of the old root',
    async () => (await cluster.exec('shop', 'late', 'client', 'http://server.shop:80/')).code === 0,
  );
  await cluster.eventually(
    'the old root is trusted still',
    async () => !(await meshctl(cluster, 'ca', 'status')).stdout.includes('switched'),
    120_000,
  );
  over = true;
  for (const said of await asking) assert.match(said, /asked \d+, lost 0$/, said);
  const roots = await cluster.kubectl('get', 'configmap', '-n', 'shop', 'istio-ca-root-cert', '-o', 'jsonpath={.data.root-cert\\.pem}');
  assert.equal(roots.match(/BEGIN CERTIFICATE/g)?.length, 1);
});

const meshctl = (cluster: TestPlayground, ...args: readonly string[]) =>
  runProgram(process.execPath, [join(root, 'meshctl/main.ts'), '--kubeconfig', cluster.kubeconfig, ...args]);
