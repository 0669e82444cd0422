/**
 * Istio's own ztunnel under our istiod and our node agent on real Kubernetes, installed as a user would install it: on one node first, beside ours, then on
 * both. Runs where ZTUNNEL_BIN names a build of it (`ZTUNNEL_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startCluster, withoutCluster } from '../support/cluster.ts';
import { ambientNamespace, echoPod } from '../support/echo-pods.ts';
import { imageBundle } from '../support/image-bundle.ts';
import { offerRealZtunnel, withoutRealZtunnel, ztunnelForNodes } from '../support/real-ztunnel.ts';
import { replaceZtunnel, ztunnelLine } from '../support/ztunnel-pods.ts';

const PATIENCE_MS = 240_000;

const SHOP =
  ambientNamespace('shop') +
  echoPod({ name: 'alice', namespace: 'shop', node: 'node1' }) +
  echoPod({ name: 'bob', namespace: 'shop', node: 'node2' });

const ONLY_ALICE = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: only-alice, namespace: shop }
spec:
  selector: { matchLabels: { app: bob } }
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/WHO] } }] }]
`;

test("Istio's ztunnel under our control plane on Kubernetes", {
  skip: withoutRealZtunnel ?? withoutCluster ?? false,
  timeout: 900_000,
}, async (t) => {
  const path = ztunnelForNodes(t);
  const cluster = await startCluster(t, { nodes: 2, images: [await imageBundle(t)] });
  await cluster.meshctl('install');
  await cluster.apply(SHOP);
  await cluster.podsReady('shop', PATIENCE_MS);
  await offerRealZtunnel(t, cluster, { path });
  const call = async (from: string, to: string): Promise<string> => (await cluster.exec('shop', from, 'client', `http://${to}/`)).stdout;
  const speaks = (from: string, to: string, node: string): Promise<void> =>
    cluster.eventually(
      `${from} reaches ${to} through a tunnel that ${node} logs`,
      async () => {
        if (!(await call(from, to)).includes('StatusCode=200')) return false;
        await ztunnelLine(
          cluster,
          node,
          `src.identity="spiffe://cluster.local/ns/shop/sa/${from}"`,
          `dst.identity="spiffe://cluster.local/ns/shop/sa/${to}"`,
        );
        return true;
      },
      PATIENCE_MS,
    );

  await t.test('ours on node1 and the real one on node2 carry each other’s connections, with both identities', async () => {
    await replaceZtunnel(cluster, 'node2');
    assert.match(await ztunnelLine(cluster, 'node2', 'running with config'), /ztunnel/, 'the real one runs there');
    await speaks('alice', 'bob', 'node2');
    await speaks('bob', 'alice', 'node2');
  });

  await t.test('the real one on both nodes, with a policy that our istiod sends', async () => {
    await replaceZtunnel(cluster, 'node1');
    assert.match(await ztunnelLine(cluster, 'node1', 'running with config'), /ztunnel/);
    await speaks('alice', 'bob', 'node1');
    await cluster.apply(ONLY_ALICE.replace('WHO', 'nobody'));
    await cluster.eventually('alice is refused', async () => !(await call('alice', 'bob')).includes('StatusCode=200'), PATIENCE_MS);
    await ztunnelLine(cluster, 'node2', 'policy rejection');
    await cluster.apply(ONLY_ALICE.replace('WHO', 'alice'));
    await speaks('alice', 'bob', 'node2');
  });
});
