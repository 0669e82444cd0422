/** meshctl install and uninstall in the playground, as a user calls them: the mesh comes up, carries a connection, and leaves nothing behind. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Ran } from '../support/kube-commands.ts';
import { startPlayground, withoutPlayground } from '../support/playground.ts';

const SHOP = `
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Service
metadata: { name: server, namespace: shop }
spec: { selector: { app: server }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: server, namespace: shop, labels: { app: server } }
spec:
  nodeName: node2
  containers: [{ name: echo, image: warren/echo, args: [--port=8080] }]
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: shop, labels: { app: client } }
spec:
  nodeName: node1
  containers: [{ name: echo, image: warren/echo, args: [--port=8080] }]
`;

/** ztunnel listens on 15001 in pods of the mesh; 0A is LISTEN. */
const LISTENING = /:3A99 \S+ 0A /;

/** Of every kind that the mesh, or istiod for it, makes. */
const KINDS = [
  'namespaces,nodes,services,serviceaccounts,configmaps,secrets,leases,deployments,daemonsets,networkpolicies,poddisruptionbudgets',
  'clusterroles,clusterrolebindings,roles,rolebindings,gatewayclasses,crds,validatingwebhookconfigurations,mutatingwebhookconfigurations',
].join(',');

test('meshctl installs the mesh, checks it, and takes it away again without a trace; pods go on in plaintext', {
  skip: withoutPlayground,
}, async (t) => {
  const playground = await startPlayground(t);
  await playground.apply(SHOP);
  await playground.podsReady('shop');
  const present = async (): Promise<string[]> =>
    (await playground.kubectl('get', KINDS, '-A', '-o', 'name', '--ignore-not-found')).split('\n').sort();
  const rules = (): string => ['node1', 'node2'].map((node) => playground.node(node).run('nft', 'list', 'ruleset')).join('\n');
  const listeners = async (pod: string): Promise<string> =>
    (await playground.exec('shop', pod, 'cat', '/proc/net/tcp', '/proc/net/tcp6')).stdout;
  const before = await present();
  const rulesBefore = rules();
  const call = (): Promise<Ran> => playground.exec('shop', 'client', 'client', 'http://server');

  const pre = await playground.tryMeshctl('check', '--pre');
  assert.equal(pre.code, 0, pre.stdout + pre.stderr);
  const rehearsal = await playground.tryMeshctl('install', '--dry-run');
  assert.equal(rehearsal.code, 0, rehearsal.stdout + rehearsal.stderr);
  assert.match(rehearsal.stdout, /DaemonSet istio-system\/ztunnel: would be created/);
  assert.deepEqual(await present(), before);

  const installed = await playground.tryMeshctl('install', '--timeout', '180s');
  assert.equal(installed.code, 0, installed.stdout + installed.stderr);
  const enabled = await playground.tryMeshctl('ambient', 'enable', 'shop');
  assert.equal(enabled.code, 0, enabled.stdout + enabled.stderr);
  const checked = await playground.tryMeshctl('check');
  assert.equal(checked.code, 0, checked.stdout + checked.stderr);
  assert.match(checked.stdout, /✔ pods: 2 pods in the mesh/);
  assert.match(await listeners('client'), LISTENING);
  await playground.eventually('no connection through the mesh', async () => (await call()).code === 0);

  const upgraded = await playground.tryMeshctl('upgrade', '--timeout', '120s');
  assert.equal(upgraded.code, 0, upgraded.stdout + upgraded.stderr);
  assert.match(upgraded.stdout, /Warren is upgraded to /);

  const removed = await playground.tryMeshctl('uninstall', '-y', '--timeout', '120s', '--purge-labels');
  assert.equal(removed.code, 0, removed.stdout + removed.stderr);
  assert.equal((await call()).code, 0, 'the pods have no network');
  assert.doesNotMatch(await listeners('client'), LISTENING);
  await playground.eventually('something is left in the cluster', async () => {
    assert.deepEqual(await present(), before);
    return true;
  });
  assert.equal(rules(), rulesBefore);
  const redirection = await playground.kubectl('get', 'pods', '-n', 'shop', '-o', 'jsonpath={.items[*].metadata.annotations}');
  assert.doesNotMatch(redirection, /ambient\.istio\.io/);
});
