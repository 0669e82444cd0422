/**
 * Istio's own istiod in a playground, in the place of ours: the Deployment's container runs the pilot-discovery that ISTIOD_BIN names, under the
 * account, Service and ports that ours has, with a CA of its own.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { type TestPlayground, withoutPlayground } from './playground.ts';

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

/** Istio's istiod takes over: one replica, ready. */
export async function useRealIstiod(t: TestContext, cluster: TestPlayground): Promise<void> {
  // Ours: it would be asked to judge kinds that it does not know.
  await cluster.kubectl('delete', 'validatingwebhookconfigurations', '--all');
  const folder = visibleInNodes(t, resolve(program ?? ''));
  const container = {
    name: 'discovery',
    image: 'host',
    command: [join(MOUNT, 'pilot-discovery')],
    args: ['discovery', '--monitoringAddr=:15014', '--domain=cluster.local', '--log_output_level=default:info'],
    env: Object.entries(ENV).map(([name, value]) => ({ name, value })),
    workingDir: '/',
    volumeMounts: [{ name: 'real-istiod', mountPath: MOUNT, readOnly: true }],
  };
  const volumes = [{ name: 'real-istiod', hostPath: { path: folder, type: 'Directory' } }];
  const spec = { replicas: 1, template: { spec: { containers: [container], volumes } } };
  await cluster.kubectl('patch', 'deployment', 'istiod', '-n', 'istio-system', '--type=strategic', '-p', JSON.stringify({ spec }));
  await cluster.eventually(
    "Istio's istiod, alone and ready",
    async () => {
      const pods = await cluster.kubectl('get', 'pods', '-n', 'istio-system', '-l', 'app=istiod', '-o', 'json');
      const { items }: { items: { spec: { containers: { image: string }[] }; status: { containerStatuses?: { ready: boolean }[] } }[] } =
        JSON.parse(pods);
      const [only] = items;
      return items.length === 1 && only?.spec.containers[0]?.image === 'host' && only.status.containerStatuses?.[0]?.ready === true;
    },
    90_000,
  );
}

/** Nodes have a /tmp of their own, so the program is copied to where they see it, until the test ends. */
function visibleInNodes(t: TestContext, path: string): string {
  mkdirSync('/opt', { recursive: true });
  const folder = mkdtempSync('/opt/warren-test-');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  copyFileSync(path, join(folder, 'pilot-discovery'));
  return folder;
}
