/**
 * Istio's own istioctl against our mesh on real Kubernetes: the tables of `ztunnel-config` are those that meshctl prints, `proxy-status` and
 * `version` know our proxies, and a waypoint that it deploys is served. Runs where ISTIOCTL_BIN names a build of it.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { VERSION } from '../../common/base/version.ts';
import { startCluster, withoutCluster } from '../support/cluster.ts';
import { ambientNamespace, echoPod } from '../support/echo-pods.ts';
import { everyCommandWorks } from '../support/every-command.ts';
import { imageBundle } from '../support/image-bundle.ts';
import { type Ran, runProgram, succeeded } from '../support/kube-commands.ts';

const ISTIOCTL = process.env.ISTIOCTL_BIN ?? '';
const PATIENCE_MS = 240_000;

const SHOP = `
${ambientNamespace('shop')}
${echoPod({ name: 'frontend', namespace: 'shop', node: 'node1' })}
${echoPod({ name: 'orders', namespace: 'shop', node: 'node2' })}
${echoPod({ name: 'stock', namespace: 'shop', node: 'node2' })}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: only-frontend, namespace: shop }
spec:
  selector: { matchLabels: { app: stock } }
  rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/frontend] } }] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ group: "", kind: Service, name: orders, port: 80 }]
  rules: [{ backendRefs: [{ name: orders, port: 80 }] }]
`;

test('istioctl and meshctl see the same mesh on Kubernetes', {
  skip: existsSync(ISTIOCTL) ? (withoutCluster ?? false) : 'ISTIOCTL_BIN names no build of istioctl',
  timeout: 900_000,
}, async (t) => {
  const cluster = await startCluster(t, { nodes: 2, images: [await imageBundle(t)], gatewayApi: true });
  const istioctl = (...args: string[]): Promise<Ran> =>
    runProgram(ISTIOCTL, ['--kubeconfig', cluster.kubeconfig, ...args], undefined, PATIENCE_MS);
  await cluster.meshctl('install');
  await cluster.apply(SHOP);
  await cluster.podsReady('shop', PATIENCE_MS);

  await t.test('a waypoint that istioctl deploys is ready, and both list it alike', async () => {
    const applied = await istioctl('waypoint', 'apply', '-n', 'shop', '--wait');
    assert.match(applied.stdout, /✅ waypoint shop\/waypoint is ready!/, applied.stderr);
    await cluster.kubectl('label', 'service', '-n', 'shop', 'orders', 'istio.io/use-waypoint=waypoint');
    await cluster.eventually('requests to orders do not pass the waypoint', async () =>
      /x-request-id/i.test((await cluster.exec('shop', 'frontend', 'client', 'http://orders/')).stdout),
    );
    for (const args of [
      ['waypoint', 'status', '-n', 'shop'],
      ['waypoint', 'generate', '-n', 'shop', '--name', 'edge', '--for', 'all', '-r', 'canary'],
    ])
      assert.deepEqual(lines((await cluster.tryMeshctl(...args)).stdout), lines((await istioctl(...args)).stdout), args.join(' '));
    // Theirs shows none where the label is missing; ours what is served.
    const listed = (text: string): string[] => lines(text.replace(/ (?:none|service) /, ' ? '));
    assert.deepEqual(
      listed((await cluster.tryMeshctl('waypoint', 'list', '-A')).stdout),
      listed((await istioctl('waypoint', 'list', '-A')).stdout),
    );
  });

  await t.test('istioctl ztunnel-config prints the tables that meshctl prints', async () => {
    const name = await cluster.kubectl(
      'get',
      'pods',
      '-n',
      'istio-system',
      '-l',
      'app=ztunnel',
      '-o',
      'jsonpath={.items[0].metadata.name}',
    );
    const pod = `${name}.istio-system`;
    for (const table of ['workload', 'service', 'policy', 'certificate']) {
      const theirs = succeeded(`istioctl zc ${table}`, await istioctl('ztunnel-config', table, pod));
      const ours = await cluster.meshctl('ztunnel-config', table, pod, '-o', 'wide');
      assert.deepEqual(lines(ours).sort(), lines(theirs).sort(), table);
    }
    const all = succeeded('istioctl zc all', await istioctl('ztunnel-config', 'all', pod));
    for (const head of ['NAMESPACE +POD NAME', 'NAMESPACE +SERVICE NAME', 'NAMESPACE +POLICY NAME', 'CERTIFICATE NAME'])
      assert.match(all, new RegExp(`^${head}`, 'm'));
    assert.match(
      succeeded('istioctl zc log', await istioctl('ztunnel-config', 'log', pod, '--level', 'info')),
      /current log level is info/,
    );
    succeeded('istioctl zc connections', await istioctl('ztunnel-config', 'connections', pod));
  });

  await t.test('istioctl proxy-status and version know our proxies', async () => {
    const status = succeeded('istioctl proxy-status', await istioctl('proxy-status'));
    assert.match(status, /^ztunnel-\w+\.istio-system +Kubernetes +istiod-\S+ .*2 \(WADS,WDS\)$/m, status);
    assert.match(status, /^waypoint-\S+\.shop /m, status);
    const version = succeeded('istioctl version', await istioctl('version'));
    assert.match(version, new RegExp(`^control plane version: ${VERSION.replaceAll('.', '\\.')}$`, 'm'), version);
    assert.match(version, /^data plane version: .*\(\d+ proxies\)$/m, version);
  });

  await t.test('every command of meshctl that asks works on Kubernetes', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'warren-istioctl-'));
    const calling = cluster.exec('shop', 'frontend', 'client', 'http://orders/', '--count=300', '--qps=10', '--timeout=60s');
    try {
      const results = await everyCommandWorks(cluster.kubeconfig, {
        ...{ caller: 'frontend', served: 'orders', guarded: 'stock', policy: 'only-frontend' },
        folder,
      });
      for (const { stdout } of results) t.diagnostic(stdout);
      assert.equal((await calling).code, 0);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

/** Columns whatever their width. */
const lines = (text: string): string[] =>
  text
    .trim()
    .split('\n')
    .map((line) => line.replaceAll(/\s+/g, ' ').trim());
