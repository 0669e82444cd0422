/**
 * Istio's own ztunnel in a playground, in the place of ours: the DaemonSet's container runs the program that ZTUNNEL_BIN names, with the
 * arguments, token, certificates and node agent's socket that ours has. Pods are replaced one by one, so a node can keep ours.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import type { KubeCommands } from './kube-commands.ts';
import { withoutPlayground } from './playground.ts';

const program = process.env.ZTUNNEL_BIN;

/** undefined where Istio's ztunnel can run; the reason to skip otherwise. */
export const withoutRealZtunnel: string | undefined =
  program === undefined || program === ''
    ? "ZTUNNEL_BIN does not name a build of Istio's ztunnel"
    : !existsSync(program)
      ? `ZTUNNEL_BIN: there is no ${program}`
      : withoutPlayground;

// A folder that every machine has, so that it can be mounted over although the container's root is read-only.
const MOUNT = '/mnt';

/**
 * From now on a ztunnel pod that is deleted comes back as Istio's.
 * @param image that its container is made from; ours where it is undefined, which has the libraries that it needs
 */
export async function offerRealZtunnel(
  t: TestContext,
  cluster: KubeCommands,
  { image, path = ztunnelForNodes(t) }: { image?: string; path?: string } = { image: 'host' },
): Promise<void> {
  const container = {
    name: 'istio-proxy',
    ...(image !== undefined && { image }),
    command: [join(MOUNT, basename(path))],
    volumeMounts: [{ name: 'real-ztunnel', mountPath: MOUNT, readOnly: true }],
  };
  const volumes = [{ name: 'real-ztunnel', hostPath: { path: dirname(path), type: 'Directory' } }];
  const spec = { updateStrategy: { type: 'OnDelete', rollingUpdate: null }, template: { spec: { containers: [container], volumes } } };
  await cluster.kubectl('patch', 'daemonset', 'ztunnel', '-n', 'istio-system', '--type=strategic', '-p', JSON.stringify({ spec }));
}

/**
 * Nodes have a /tmp of their own, so a program there is copied to where they see it, until the test ends. For nodes of a cluster before they start:
 * their root lies over the machine's as it was then.
 */
export function ztunnelForNodes(t: TestContext): string {
  const path = resolve(program ?? '');
  if (!path.startsWith('/tmp/')) return path;
  mkdirSync('/opt', { recursive: true });
  const folder = mkdtempSync('/opt/warren-test-');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const copy = join(folder, basename(path));
  copyFileSync(path, copy);
  return copy;
}
