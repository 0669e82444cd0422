/**
 * The other ways to install, on real Kubernetes: by Helm, and by kubectl from the plain manifest. The API server's own RBAC, server-side apply
 * and schemas have the last word here, which the playground has not. Part of plugin.test.ts, in whose cluster it all happens.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import yaml from 'js-yaml';
import { CHART, findHelm } from '../../scripts/manifest.ts';
import type { TestCluster } from '../support/cluster.ts';
import { type Ran, runProgram, succeeded } from '../support/kube-commands.ts';
import { root } from '../support/manifests.ts';

const COMMAND_TIMEOUT_MS = 300_000;
const MANIFEST = join(root, 'manifests/install.yaml');
const DEFINITIONS = join(root, CHART, 'crds');

const UNREADABLE = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: bad, namespace: shop }
spec: { action: DENY, rules: [{ from: [{ source: { ipBlocks: ["10.0.0.0/64"] } }] }] }
`;
const HTTP_ONLY = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: { name: http, namespace: shop }
spec: { selector: { matchLabels: { app: nobody } }, rules: [{ to: [{ operation: { methods: [GET] } }] }] }
`;

const VIEWER = `
apiVersion: v1
kind: ServiceAccount
metadata: { name: viewer, namespace: default }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: viewer }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view }
subjects: [{ kind: ServiceAccount, name: viewer, namespace: default }]
`;

const helm = findHelm(root, process.env) ?? '';
export const withoutHelm = helm === '' && !process.env.CI ? 'no helm here (scripts/helm version installs one)' : undefined;

export interface Ways {
  /** Who may only look is told what is missing, and nothing is changed. */
  byViewer(): Promise<void>;
  /** Leaves nothing installed. */
  byHelm(): Promise<void>;
  /** Leaves the mesh as meshctl would have installed it. */
  byKubectl(): Promise<void>;
  /** The mesh taken away again. */
  uninstalled(): Promise<void>;
}

/** @param call from one of the two pods of the namespace `shop`, which belongs to the mesh, to the other */
export function installWays(t: TestContext, cluster: TestCluster, call: () => Promise<Ran>): Ways {
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const meshctl = (...args: readonly string[]): Promise<Ran> => meshctlAs(cluster.kubeconfig, ...args);
  const throughTheMesh = async (): Promise<void> => {
    await cluster.eventually('the pods are not in the mesh', async () => {
      const found = await cluster.kubectl('get', 'pods', '-n', 'shop', '-o', 'jsonpath={.items[*].metadata.annotations}');
      return (found.match(/"ambient\.istio\.io\/redirection":"enabled"/g) ?? []).length === 2;
    });
    await cluster.eventually('no connection through the mesh', async () => {
      await call();
      const log = await cluster.kubectl('logs', '-n', 'istio-system', '-l', 'app=ztunnel', '--tail=50');
      return /connection complete.*src\.identity="spiffe:\/\/cluster\.local\/ns\/shop\/sa\/default"/.test(log);
    });
  };

  const byViewer = async (): Promise<void> => {
    await cluster.apply(VIEWER);
    const kubeconfig = await kubeconfigOf(cluster, folder, 'viewer');
    const { code, stdout } = await meshctlAs(kubeconfig, 'check', '--pre');
    assert.equal(code, 1, stdout);
    assert.match(stdout, /✘ permissions: you may not create .* \(use an account that is bound to cluster-admin/);
    const install = await meshctlAs(kubeconfig, 'install');
    assert.equal(install.code, 1);
    assert.match(install.stdout, /Nothing was changed\.$/m);
  };

  const byHelm = async (): Promise<void> => {
    const release = ['warren', '-n', 'istio-system', '--kubeconfig', cluster.kubeconfig, '--wait', '--timeout', '5m'];
    const install = ['install', ...release, join(root, CHART), '--create-namespace'];
    succeeded('helm install', await runProgram(helm, install, undefined, COMMAND_TIMEOUT_MS));
    const checked = await meshctl('check');
    assert.equal(checked.code, 0, checked.stdout);
    await throughTheMesh();
    const upgrade = await meshctl('upgrade', '--dry-run');
    assert.equal(upgrade.code, 1);
    assert.match(upgrade.stdout, /belongs to Helm's release istio-system\/warren/);
    succeeded('helm uninstall', await runProgram(helm, ['uninstall', ...release], undefined, COMMAND_TIMEOUT_MS));
    await cluster.eventually('the pods have no network after helm uninstall', async () => (await call()).code === 0);
    const rest = await meshctl('uninstall', '--skip-confirmation');
    assert.equal(rest.code, 0, rest.stdout);
    const left = await cluster.kubectl('get', 'pods,configmaps,secrets', '-A', '-o', 'yaml');
    assert.doesNotMatch(left, /istio-ca|ambient\.istio\.io\/redirection: enabled/);
    // Helm's --create-namespace made it, so it is not ours to delete.
    await cluster.kubectl('delete', 'namespace', 'istio-system', '--wait');
  };

  const byKubectl = async (): Promise<void> => {
    await cluster.tryKubectl('create', '-f', DEFINITIONS);
    await cluster.kubectl('apply', '--server-side', '-f', MANIFEST);
    for (const workload of ['deployment/istiod', 'daemonset/istio-cni-node', 'daemonset/ztunnel'])
      succeeded(
        `rollout of ${workload}`,
        await runProgram(
          'kubectl',
          ['--kubeconfig', cluster.kubeconfig, 'rollout', 'status', '-n', 'istio-system', workload, '--timeout=240s'],
          undefined,
          COMMAND_TIMEOUT_MS,
        ),
      );
    await throughTheMesh();
    const again = await meshctl('install', '--dry-run');
    assert.equal(again.code, 0, again.stdout);
    assert.doesNotMatch(again.stdout, /would be (created|changed)/);
    const apply = (text: string): Promise<Ran> =>
      runProgram('kubectl', ['--kubeconfig', cluster.kubeconfig, 'apply', '-f', '-'], text, COMMAND_TIMEOUT_MS);
    await cluster.eventually('the API server does not ask istiod', async () => {
      const { code, stderr } = await apply(UNREADABLE);
      return (
        code !== 0 &&
        /admission webhook "validation\.istio\.io" denied the request: \[IST0106\] AuthorizationPolicy shop\/bad: /.test(stderr)
      );
    });
    const warned = await apply(HTTP_ONLY);
    assert.equal(warned.code, 0, warned.stderr);
    assert.match(warned.stderr, /Warning: \[WRN0202\] AuthorizationPolicy shop\/http: ztunnel sees no HTTP/);
    await cluster.kubectl('delete', 'authorizationpolicy', '-n', 'shop', 'http');
    await cluster.kubectl('scale', '-n', 'istio-system', 'deployment/istiod', '--replicas=3');
    const refused = await meshctl('upgrade');
    assert.equal(refused.code, 1);
    assert.match(refused.stdout, /✘ Deployment istio-system\/istiod: \.spec\.replicas was set by kubectl/);
    const forced = await meshctl('upgrade', '--force-conflicts');
    assert.equal(forced.code, 0, forced.stdout);
  };

  const uninstalled = async (): Promise<void> => {
    const removed = await meshctl('uninstall', '--skip-confirmation', '--purge-crds');
    assert.equal(removed.code, 0, removed.stdout);
    assert.equal((await call()).code, 0);
    assert.doesNotMatch(await cluster.kubectl('get', 'crds,clusterroles,clusterrolebindings', '-o', 'name'), /istio/);
  };
  return { byViewer, byHelm, byKubectl, uninstalled };
}

const meshctlAs = (kubeconfig: string, ...args: readonly string[]): Promise<Ran> =>
  runProgram(process.execPath, [join(root, 'meshctl/main.ts'), '--kubeconfig', kubeconfig, ...args], undefined, COMMAND_TIMEOUT_MS);

/** The cluster's own kubeconfig with another user in it. */
async function kubeconfigOf(cluster: TestCluster, folder: string, account: string): Promise<string> {
  const token = (await cluster.kubectl('create', 'token', account)).trim();
  const config = yaml.load(readFileSync(cluster.kubeconfig, 'utf8')) as { users: { user: object }[] };
  for (const each of config.users) each.user = { token };
  const path = join(folder, account);
  writeFileSync(path, yaml.dump(config), { mode: 0o600 });
  return path;
}
