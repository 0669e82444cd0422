/**
 * Istio's own node agent in a playground, in the place of ours: the DaemonSet's container runs the install-cni that ISTIO_CNI_BIN names, with
 * the account and sockets that ours has. Its CNI plugin (istio-cni) may lie beside it and is installed then; else ours stays, which speaks the
 * same. It writes iptables: with nftables it wants to see a process called kubelet, which a playground's node does not have.
 */
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
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
  { name: 'NATIVE_NFTABLES', value: 'false' },
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

/** Puts Istio's agent on every node. @returns puts ours back */
export async function useRealAgent(t: TestContext, cluster: TestPlayground): Promise<() => Promise<void>> {
  const folder = visibleInNodes(t, resolve(program ?? ''));
  const container = {
    name: 'install-cni',
    image: 'host',
    command: [join(MOUNT, 'install-cni')],
    args: ['--log_output_level=default:info,cni-agent:debug'],
    env: ENV,
    volumeMounts: [
      { name: 'real-agent', mountPath: MOUNT, readOnly: true },
      { name: 'real-plugin', mountPath: '/opt/cni/bin', readOnly: true },
      { name: 'cni-netns-dir', mountPath: '/host/var/run/netns', mountPropagation: 'HostToContainer' },
    ],
  };
  const volumes = [
    { name: 'real-agent', hostPath: { path: folder, type: 'Directory' } },
    { name: 'real-plugin', hostPath: { path: join(folder, 'bin'), type: 'Directory' } },
  ];
  const ours: unknown = JSON.parse(
    await cluster.kubectl('get', 'daemonset', AGENT, '-n', 'istio-system', '-o', 'jsonpath={.spec.template}'),
  );
  const spec = { updateStrategy: { type: 'OnDelete', rollingUpdate: null }, template: { spec: { containers: [container], volumes } } };
  await patch(cluster, 'strategic', { spec });
  await replaceAgents(cluster);
  return async () => {
    await patch(cluster, 'json', [{ op: 'replace', path: '/spec/template', value: ours }]);
    await replaceAgents(cluster);
  };
}

const patch = (cluster: TestPlayground, type: string, change: unknown): Promise<unknown> =>
  cluster.kubectl('patch', 'daemonset', AGENT, '-n', 'istio-system', `--type=${type}`, '-p', JSON.stringify(change));

/** Each agent ends, and another one follows. */
export async function replaceAgents(cluster: TestPlayground): Promise<void> {
  const before = await agents(cluster);
  await cluster.kubectl('delete', 'pods', '-n', 'istio-system', '-l', `app=${AGENT}`);
  await cluster.eventually(
    'new node agents',
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

/** Nodes have a /tmp of their own, so the programs are copied to where they see them, until the test ends. */
function visibleInNodes(t: TestContext, path: string): string {
  mkdirSync('/opt', { recursive: true });
  const folder = mkdtempSync('/opt/warren-test-');
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, 'bin'));
  copyFileSync(path, join(folder, 'install-cni'));
  const plugin = join(dirname(path), 'istio-cni');
  if (existsSync(plugin)) copyFileSync(plugin, join(folder, 'bin/istio-cni'));
  return folder;
}
