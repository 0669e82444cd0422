/**
 * Our ztunnel and our node agent under Istio's own istiod: certificates, workloads, services and policies come from it. Runs where ISTIOD_BIN
 * names a build of pilot-discovery (`ISTIOD_BIN=… scripts/test interop`).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ambientNamespace, echoPod } from '../support/echo-pods.ts';
import { startPlayground } from '../support/playground.ts';
import { useRealIstiod, withoutRealIstiod } from '../support/real-istiod.ts';
import { configDumpOf, replaceZtunnel, ztunnelLine, ztunnelOn } from '../support/ztunnel-pods.ts';

const PODS =
  ambientNamespace('mesh') +
  echoPod({ name: 'alice', namespace: 'mesh', node: 'node1' }) +
  echoPod({ name: 'bob', namespace: 'mesh', node: 'node2' });

const DENIAL = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: not-alice, namespace: mesh }
spec:
  selector: { matchLabels: { app: bob } }
  action: DENY
  rules: [{ from: [{ source: { principals: [cluster.local/ns/mesh/sa/alice] } }] }]
`;

test("our ztunnel under Istio's istiod", { skip: withoutRealIstiod, timeout: 290_000 }, async (t) => {
  const cluster = await startPlayground(t, { mesh: true });
  await useRealIstiod(t, cluster);
  for (const node of ['node1', 'node2']) await replaceZtunnel(cluster, node);
  await cluster.apply(PODS);
  await cluster.podsReady('mesh');
  const call = async (from: string, url: string): Promise<string> => (await cluster.exec('mesh', from, 'client', url)).stdout;

  await t.test('a call goes through a tunnel, with identities that its CA has certified', async () => {
    await cluster.eventually('HTTP', async () => (await call('alice', 'http://bob/')).includes('StatusCode=200'), 60_000);
    await ztunnelLine(cluster, 'node1', 'direction="outbound"', 'dst.identity="spiffe://cluster.local/ns/mesh/sa/bob"', ':15008');
    await ztunnelLine(cluster, 'node2', 'direction="inbound"', 'src.identity="spiffe://cluster.local/ns/mesh/sa/alice"');
  });

  await t.test('it knows the workloads and services that istiod knows, and has been refused nothing', async () => {
    const dump = await configDumpOf(cluster, 'node1');
    const names = (items: readonly { name?: string; namespace?: string }[]): string[] =>
      items
        .filter(({ namespace }) => namespace === 'mesh')
        .map(({ name }) => name ?? '')
        .sort();
    assert.deepEqual(names(dump.workloads), ['alice', 'bob']);
    assert.deepEqual(names(dump.services), ['alice', 'bob']);
    const log = await cluster.kubectl('logs', '-n', 'istio-system', '-l', 'app=ztunnel', '--tail=-1');
    assert.doesNotMatch(log, /resources rejected/);
  });

  await t.test('a policy that it translates is enforced, and lifted again', async () => {
    await cluster.apply(DENIAL);
    await cluster.eventually('a refusal', async () => !(await call('alice', 'http://bob/')).includes('StatusCode=200'), 30_000);
    await ztunnelLine(cluster, 'node2', 'direction="inbound"', 'POLICY_DENIED', 'warren.policy="mesh/not-alice"');
    await cluster.kubectl('delete', 'authorizationpolicy', 'not-alice', '-n', 'mesh');
    await cluster.eventually('HTTP again', async () => (await call('alice', 'http://bob/')).includes('StatusCode=200'), 30_000);
  });

  await t.test('on demand it asks for what its connections need, finds it by address, and holds nothing else', async () => {
    await cluster.kubectl('set', 'env', 'daemonset/ztunnel', '-n', 'istio-system', 'XDS_ON_DEMAND=true', 'ISTIO_META_DNS_CAPTURE=false');
    for (const node of ['node1', 'node2']) await replaceZtunnel(cluster, node);
    await cluster.eventually('HTTP', async () => (await call('alice', 'http://bob/')).includes('StatusCode=200'), 60_000);
    await ztunnelLine(cluster, 'node1', 'direction="outbound"', 'dst.service="bob.mesh.svc.cluster.local"', ':15008');
    const known = (await configDumpOf(cluster, 'node1')).workloads.map(({ name }) => name ?? '');
    assert.ok(known.includes('bob'), known.join(', '));
    assert.ok(!known.includes(await ztunnelOn(cluster, 'node2')), 'nobody here calls the other ztunnel');
  });
});
