/**
 * Our ztunnel under Istio's own node agent: ZDS from its side, with its rules; then our agent where it was. Runs where ISTIO_CNI_BIN names a build of install-cni
 * (`ISTIO_CNI_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ambientNamespace, echoPod } from '../support/echo-pods.ts';
import { startPlayground } from '../support/playground.ts';
import { replaceAgents, useRealAgent, withoutRealAgent } from '../support/real-agent.ts';
import { ztunnelLine } from '../support/ztunnel-pods.ts';

const PODS =
  ambientNamespace('mesh') +
  echoPod({ name: 'alice', namespace: 'mesh', node: 'node1' }) +
  echoPod({ name: 'bob', namespace: 'mesh', node: 'node2' });

test("our ztunnel under Istio's node agent, and our agent after it", { skip: withoutRealAgent, timeout: 290_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  const putOursBack = await useRealAgent(t, cluster);
  await cluster.apply(PODS);
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
