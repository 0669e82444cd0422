/**
 * Istio's own node agent in a playground, in the place of ours: the DaemonSet's container runs the install-cni that ISTIO_CNI_BIN names, with
 * the account, mounts and sockets that ours has. Its CNI plugin (istio-cni) may lie beside it; without it the kubelet asks the agent's socket.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import type { TestContext } from 'node:test';
import { type TestPlayground, withoutPlayground } from './playground.ts';

const program = process.env.ISTIO_CNI_BIN;

/** undefined where Istio's node agent can run; the reason to skip otherwise. */
export const withoutRealAgent: string | undefined =
  program === undefined || program === ''
    ? "ISTIO_CNI_BIN does not name a build of Istio's install-cni"
    : !existsSync(program)
      ? `ISTIO_CNI_BIN: there is no ${program}`
      : withoutPlayground;

const MOUNT = '/mnt';
const AGENT = 'istio-cni-node';
// What Istio's chart says where it differs from what ours says.
const ENV = [
  { name: 'AMBIENT_ENABLED', value: 'true' },
  { name: 'NATIVE_NFTABLES', value: 'true' },
  { name: 'CHAINED_CNI_PLUGIN', value: 'true' },
  { name: 'REPAIR_ENABLED', value: 'false' },
  { name: 'LOG_LEVEL', value: 'info' },
  {
    name: 'AMBIENT_ENABLEMENT_SELECTOR',
    value: `- podSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}
- podSelector: {matchExpressions: [{key: istio.io/dataplane-mode, operator: NotIn, values: [none]}]}
  namespaceSelector: {matchLabels: {istio.io/dataplane-mode: ambient}}`,
  },
];

/** Replaces the agents of all nodes, and waits for theirs. */
export async function replaceAgents(t: TestContext, cluster: TestPlayground): Promise<void> {
  const path = visibleInNodes(t, resolve(program ?? ''));
  const container = {
    name: 'install-cni',
    image: 'host',
    command: [join(MOUNT, basename(path))],
    args: ['--log_output_level=default:info,cni-agent:debug'],
    env: ENV,
    volumeMounts: [{ name: 'real-agent', mountPath: MOUNT, readOnly: true }],
  };
  const volumes = [{ name: 'real-agent', hostPath: { path: dirname(path), type: 'Directory' } }];
  const spec = { updateStrategy: { type: 'OnDelete', rollingUpdate: null }, template: { spec: { containers: [container], volumes } } };
  await cluster.kubectl('patch', 'daemonset', AGENT, '-n', 'istio-system', '--type=strategic', '-p', JSON.stringify({ spec }));
  const before = await agents(cluster);
  await cluster.kubectl('delete', 'pods', '-n', 'istio-system', '-l', `app=${AGENT}`);
  await cluster.eventually(
    "Istio's node agents",
    async () => {
      const now = await agents(cluster);
      return now.length === before.length && now.every((name) => !before.includes(name));
    },
    60_000,
  );
  await cluster.podsReady('istio-system');
}

async function agents(cluster: TestPlayground): Promise<string[]> {
  const names = await cluster.kubectl(
    'get',
    'pods',
    '-n',
    'istio-system',
    '-l',
    `app=${AGENT}`,
    '-o',
    'jsonpath={.items[*].metadata.name}',
  );
  return names.trim().split(' ').filter(Boolean);
}

/** Nodes have a /tmp of their own, so programs there are copied to where they see them, until the test ends. */
function visibleInNodes(t: TestContext, path: string): string {
  if (!path.startsWith('/tmp/')) return path;
  mkdirSync('/opt', { recursive: true });
  const folder = mkdtempSync('/opt/warren-test-');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const name of [basename(path), 'istio-cni']) {
    if (existsSync(join(dirname(path), name))) copyFileSync(join(dirname(path), name), join(folder, name));
  }
  return join(folder, basename(path));
}
