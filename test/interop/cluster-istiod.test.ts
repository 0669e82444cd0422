/**
 * Our ztunnel, node agent and images under Istio's own istiod on real Kubernetes: installed as a user would install them, then the control plane is
 * replaced under them. Runs where ISTIOD_BIN names a build of it (`ISTIOD_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCluster, withoutCluster } from '../support/cluster.ts';
import { ambientNamespace, echoPod } from '../support/echo-pods.ts';
import { imageBundle } from '../support/image-bundle.ts';
import { istiodForNodes, useRealIstiod, withoutRealIstiod } from '../support/real-istiod.ts';
import { replaceZtunnel, ztunnelLine } from '../support/ztunnel-pods.ts';

const PATIENCE_MS = 240_000;

const SHOP =
  ambientNamespace('shop') +
  echoPod({ name: 'alice', namespace: 'shop', node: 'node1' }) +
  echoPod({ name: 'bob', namespace: 'shop', node: 'node2' });

const DENIAL = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: not-alice, namespace: shop }
spec:
  selector: { matchLabels: { app: bob } }
  action: DENY
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/alice] } }] }]
`;

const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: shop }
spec: { mtls: { mode: STRICT } }
`;

test("our ztunnel under Istio's istiod on Kubernetes", {
  skip: withoutRealIstiod ?? withoutCluster ?? false,
  timeout: 900_000,
}, async (t) => {
  const path = istiodForNodes(t);
  const cluster = await startCluster(t, { nodes: 2, images: [await imageBundle(t)] });
  await cluster.meshctl('install');
  await useRealIstiod(t, cluster, { path });
  // What they know now is what it said, and their certificates are its own.
  for (const node of ['node1', 'node2']) await replaceZtunnel(cluster, node);
  await cluster.apply(SHOP);
  await cluster.podsReady('shop', PATIENCE_MS);
  const reaches = async (from: string, to: string): Promise<boolean> =>
    (await cluster.exec('shop', from, 'client', `http://${to}/`)).stdout.includes('StatusCode=200');

  await t.test('pods of two nodes reach each other through tunnels, with identities that its CA has certified', async () => {
    for (const [from, to, node] of [
      ['alice', 'bob', 'node2'],
      ['bob', 'alice', 'node1'],
    ] as const) {
      await cluster.eventually(`${from} reaches ${to}`, () => reaches(from, to), PATIENCE_MS);
      const identities = [
        `src.identity="spiffe://cluster.local/ns/shop/sa/${from}"`,
        `dst.identity="spiffe://cluster.local/ns/shop/sa/${to}"`,
      ];
      await ztunnelLine(cluster, node, 'direction="inbound"', ...identities);
    }
  });

  await t.test('a policy and STRICT that it translates are enforced, and nothing that it sends is rejected', async () => {
    await cluster.apply(STRICT);
    await cluster.apply(DENIAL);
    await cluster.eventually('alice is refused', async () => !(await reaches('alice', 'bob')), PATIENCE_MS);
    await ztunnelLine(cluster, 'node2', 'POLICY_DENIED', 'warren.policy="shop/not-alice"');
    assert.ok(await reaches('bob', 'alice'), 'nobody refuses bob');
    await cluster.kubectl('delete', 'authorizationpolicy', 'not-alice', '-n', 'shop');
    await cluster.eventually('alice is served again', () => reaches('alice', 'bob'), PATIENCE_MS);
    const log = await cluster.kubectl('logs', '-n', 'istio-system', '-l', 'app=ztunnel', '--tail=-1');
    assert.doesNotMatch(log, /resources rejected/);
  });
});
