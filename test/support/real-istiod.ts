/**
 * Istio's own istiod in a playground or a cluster, in the place of ours: the Deployment's container runs the pilot-discovery that ISTIOD_BIN
 * names, under the account, Service and ports that ours has.
 */
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import type { KubeCommands } from './kube-commands.ts';
import { withoutPlayground } from './playground.ts';

const program = process.env.ISTIOD_BIN;

/** undefined where Istio's istiod can run; the reason to skip otherwise. */
export const withoutRealIstiod: string | undefined =
  program === undefined || program === ''
    ? "ISTIOD_BIN does not name a build of Istio's pilot-discovery"
    : !existsSync(program)
      ? `ISTIOD_BIN: there is no ${program}`
      : withoutPlayground;

const MOUNT = '/mnt';
// What Istio's ambient profile says.
const ENV = {
  PILOT_CERT_PROVIDER: 'istiod',
  PILOT_ENABLE_AMBIENT: 'true',
  CA_TRUSTED_NODE_ACCOUNTS: 'istio-system/ztunnel',
  CLUSTER_ID: 'Kubernetes',
  // Else it looks for a kubeconfig where it may not.
  HOME: '/tmp',
};

/** It reads more kinds than ours, ConfigMaps and Secrets everywhere among them; what its own chart grants is not what is tested here. */
const RIGHTS = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: real-istiod }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
subjects: [{ kind: ServiceAccount, name: istiod, namespace: istio-system }]
`;

/**
 * Istio's istiod takes over: one replica, ready.
 * @param image that its container is made from; ours where it is undefined
 */
export async function useRealIstiod(
  t: TestContext,
  cluster: KubeCommands,
  { image, path = istiodForNodes(t) }: { image?: string; path?: string } = { image: 'host' },
): Promise<void> {
  await cluster.apply(RIGHTS);
  // Ours: it would be asked to judge kinds that it does not know.
  await cluster.kubectl('delete', 'validatingwebhookconfigurations', '--all');
  const container = {
    name: 'discovery',
    ...(image !== undefined && { image }),
    command: [join(MOUNT, basename(path))],
    args: ['discovery', '--monitoringAddr=:15014', '--domain=cluster.local', '--log_output_level=default:info'],
    env: Object.entries(ENV).map(([name, value]) => ({ name, value })),
    workingDir: '/',
    volumeMounts: [{ name: 'real-istiod', mountPath: MOUNT, readOnly: true }],
  };
  const volumes = [{ name: 'real-istiod', hostPath: { path: dirname(path), type: 'Directory' } }];
  const spec = { replicas: 1, template: { spec: { containers: [container], volumes } } };
  await cluster.kubectl('patch', 'deployment', 'istiod', '-n', 'istio-system', '--type=strategic', '-p', JSON.stringify({ spec }));
  await cluster.eventually(
    "Istio's istiod, alone and ready",
    async () => {
      const pods = await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=istiod', '-o', 'json');
      const {
        items,
      }: { items: { spec: { containers: { command?: string[] }[] }; status: { containerStatuses?: { ready: boolean }[] } }[] } =
        JSON.parse(pods);
      const [only] = items;
      const isReal = only?.spec.containers[0]?.command?.[0]?.startsWith(MOUNT) ?? false;
      return items.length === 1 && isReal && only?.status.containerStatuses?.[0]?.ready === true;
    },
    90_000,
  );
}

/**
 * Nodes have a /tmp of their own, so the program is copied to where they see it, until the test ends. For nodes of a cluster before they start:
 * their root lies over the machine's as it was then.
 */
export function istiodForNodes(t: TestContext): string {
  mkdirSync('/opt', { recursive: true });
  const folder = mkdtempSync('/opt/warren-test-');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const copy = join(folder, 'pilot-discovery');
  copyFileSync(resolve(program ?? ''), copy);
  // Whatever user the container has.
  chmodSync(folder, 0o755);
  chmodSync(copy, 0o755);
  return copy;
}
