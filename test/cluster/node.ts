/**
 * A node of a cluster: namespaces of every kind, control groups that look to it like a machine's, and as its root an overlay over the
 * machine's, so that whatever is written to "the host" (/opt/cni/bin, /etc/cni/net.d, /var/run …) is the node's own and vanishes with it.
 */
import { spawn } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { type NodePlan, POD_CIDRS } from '../../playground/network/plan.ts';
import { runCommand } from '../../playground/node/command.ts';
import type { Parts } from './build.ts';
import { hierarchies, makeGroup } from './cgroups.ts';
import type { Credentials } from './credentials.ts';
import type { Daemons } from './daemons.ts';
import { containerdConfig, kubeletConfig, kubeProxyConfig, podNetwork } from './node-config.ts';

export interface ClusterNode {
  readonly plan: NodePlan;
  /** The first process of its PID namespace, as the cluster's counts. */
  readonly pid: number;
  /** As the links of /proc/PID/ns/net read. */
  readonly netns: string;
  /** What to put before a command so that it runs on the node, in its control groups. */
  readonly enter: readonly string[];
}

/** Paths that the cluster's processes and its nodes see alike. */
export interface Folders {
  /** A tmpfs. */
  readonly state: string;
  /** The machine's root, lower layer of every node's. */
  readonly host: string;
  readonly parts: Parts;
}

/**
 * Kernel settings that a kubelet insists on and that have no namespace: it finds them as it wants them, in files of the node's own, and so
 * never writes the machine's.
 */
const KERNEL_SETTINGS = {
  'vm/overcommit_memory': '1',
  'vm/panic_on_oom': '0',
  'kernel/panic': '10',
  'kernel/panic_on_oops': '1',
  'kernel/keys/root_maxkeys': '1000000',
  'kernel/keys/root_maxbytes': '25000000',
};

// Descriptor 3 says "ready"; whatever goes wrong before says itself on standard error. What is started with `exec` keeps its number, 1: a
// shell that waits, because the first process of a PID namespace has to collect the orphans.
const JOIN = `set -e
while read -r mount; do echo 0 > "$mount/$2/cgroup.procs"; done < "$1/groups"
exec unshare --cgroup sh -c "$3" node "$1" "$4" "$5"
`;
const HOLD = `set -e
mount --all --fstab "$1/fstab"
cp "$1"/settings/* "$1/root/run/"
cd "$1/root"
pivot_root . .
umount -l .
mount --make-rshared /
hostname "$2"
printf '127.0.0.1 localhost\\n::1 localhost\\n%s %s\\n' "$3" "$2" > /etc/hosts
for file in /run/*.sysctl; do
  name=$(basename "$file" .sysctl | tr : /)
  [ ! -e "/proc/sys/$name" ] || mount --bind "$file" "/proc/sys/$name"
done
echo 1 > /proc/sys/net/ipv4/ip_forward
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mkdir -p /sys/fs/cgroup/system
  echo 0 > /sys/fs/cgroup/system/cgroup.procs
fi
ip link set lo up
echo ready >&3
exec 3>&-
while :; do sleep 3600 & wait $!; done
`;
const RUN = `if [ -d /sys/fs/cgroup/system ]; then echo 0 > /sys/fs/cgroup/system/cgroup.procs
else for group in /sys/fs/cgroup/*/cgroup.procs; do echo 0 > "$group"; done; fi
exec "$@"`;

/** Resolves when the namespaces stand; links and daemons come next. @throws {Error} with what the shell said */
export async function startNode(plan: NodePlan, folders: Folders, group: string): Promise<ClusterNode> {
  const folder = join(folders.state, plan.name);
  const upper = join(folder, 'upper');
  for (const part of ['root', 'work', 'settings', 'upper/etc/cni/net.d', 'upper/opt/cni/bin', 'upper/run', 'upper/tmp'])
    mkdirSync(join(folder, part), { recursive: true });
  writeFileSync(join(upper, 'etc/hostname'), `${plan.name}\n`);
  // Like most machines' resolver, it does not know the cluster's names.
  writeFileSync(join(upper, 'etc/resolv.conf'), 'nameserver 127.0.0.1\n');
  writeFileSync(join(upper, 'etc/cni/net.d/10-pods.conflist'), podNetwork(plan));
  for (const [name, value] of Object.entries(KERNEL_SETTINGS))
    writeFileSync(join(folder, 'settings', `${name.replaceAll('/', ':')}.sysctl`), `${value}\n`);
  const plugins = join(folders.parts.debian, 'usr/lib/cni');
  for (const name of ['ptp', 'host-local', 'loopback', 'portmap']) copyFileSync(join(plugins, name), join(upper, 'opt/cni/bin', name));
  writeFileSync(join(folder, 'fstab'), fstab(folder, folders));
  const path = makeGroup(group, plan.name);
  writeFileSync(
    join(folder, 'groups'),
    hierarchies()
      .map(({ mount }) => `${mount}\n`)
      .join(''),
  );

  const own = ['--net', '--uts', '--ipc', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'];
  const child = spawn('unshare', [...own, 'sh', '-c', JOIN, 'join', folder, path, HOLD, plan.name, plan.addresses.v4], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    detached: true,
  });
  await ready(child.stdio[3], child.stderr, plan.name);
  child.unref();
  const pid = Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim());
  const enter = ['nsenter', `--target=${pid}`, '--mount', '--net', '--uts', '--ipc', '--pid', '--cgroup', '--', 'sh', '-c', RUN, 'run'];
  return { plan, pid, netns: readlinkSync(`/proc/${pid}/ns/net`), enter };
}

function fstab(folder: string, { state, host }: Folders): string {
  const root = join(folder, 'root');
  const found = hierarchies();
  return [
    `overlay ${root} overlay lowerdir=${host},upperdir=${join(folder, 'upper')},workdir=${join(folder, 'work')}`,
    `proc ${root}/proc proc defaults`,
    `sysfs ${root}/sys sysfs defaults`,
    ...(found.some(({ version }) => version === 2)
      ? [`cgroup2 ${root}/sys/fs/cgroup cgroup2 defaults`]
      : [
          `tmpfs ${root}/sys/fs/cgroup tmpfs mode=755`,
          ...found.map(({ mount, options }) => `cgroup ${root}${mount} cgroup ${options},X-mount.mkdir`),
        ]),
    `/dev ${root}/dev none rbind`,
    `tmpfs ${root}/run tmpfs mode=755`,
    `tmpfs ${root}/tmp tmpfs mode=1777`,
    // An overlay cannot be the upper layer of containers' overlays.
    `tmpfs ${root}/var/lib/containerd tmpfs mode=755,X-mount.mkdir`,
    `tmpfs ${root}/var/lib/kubelet tmpfs mode=755,X-mount.mkdir`,
    `${state} ${root}${state} none rbind,X-mount.mkdir`,
    '',
  ].join('\n');
}

/** containerd, answering when this resolves. */
export async function startContainerd(node: ClusterNode, { state, parts }: Folders, daemons: Daemons): Promise<void> {
  const config = join(state, node.plan.name, 'containerd.toml');
  writeFileSync(config, containerdConfig());
  const programs = ['usr/bin', 'usr/sbin'].map((folder) => join(parts.debian, folder)).join(':');
  daemons.start(`containerd on ${node.plan.name}`, [...node.enter, join(parts.debian, 'usr/bin/containerd'), '--config', config], {
    PATH: `${programs}:${process.env.PATH ?? ''}`,
  });
  const answers = (): Promise<boolean> => runCommand(ctr(node.enter, parts.debian, 'version')).then(() => true);
  await daemons.until(`containerd on ${node.plan.name} does not answer`, answers);
}

/** Into the node's containerd, from an archive. */
export async function importImages(node: ClusterNode, { debian }: Parts, archive: Buffer): Promise<void> {
  await runCommand(ctr(node.enter, debian, 'images', 'import', '-'), { input: archive });
}

export const ctr = (enter: readonly string[], debian: string, ...args: readonly string[]): string[] => [
  ...enter,
  join(debian, 'usr/bin/ctr'),
  ...['-n', 'k8s.io', ...args],
];

/** kubelet and kube-proxy; the API server must be there. */
export function startKubelet(node: ClusterNode, { state, parts }: Folders, { files, kubeconfigOf }: Credentials, daemons: Daemons): void {
  const { name, addresses, labels } = node.plan;
  const write = (file: string, config: object): string => {
    writeFileSync(join(state, name, file), JSON.stringify(config));
    return join(state, name, file);
  };
  const placed = Object.entries(labels).filter(([label]) => label.startsWith('topology.'));
  daemons.start(`kubelet on ${name}`, [
    ...[...node.enter, parts.kubernetes, 'kubelet', `--config=${write('kubelet.json', kubeletConfig(files.kubeletCertificate))}`],
    ...[`--kubeconfig=${kubeconfigOf(name)}`, `--hostname-override=${name}`, `--node-ip=${addresses.v4}`],
    `--node-labels=${placed.map(([label, value]) => `${label}=${value}`).join(',')}`,
  ]);
  const proxy = write('kube-proxy.json', kubeProxyConfig(kubeconfigOf('kube-proxy'), name, POD_CIDRS.v4));
  daemons.start(`kube-proxy on ${name}`, [...node.enter, parts.kubernetes, 'kube-proxy', `--config=${proxy}`]);
}

function ready(pipe: unknown, stderr: Readable | null, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let complaint = '';
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    if (typeof pipe !== 'object' || pipe === null || !('on' in pipe)) return reject(new Error(`${name}: no pipe`));
    const readable = pipe as Readable;
    readable.once('data', () => resolve());
    // A moment for what it said to arrive.
    readable.once('close', () => setTimeout(() => reject(new Error(`${name} could not be set up: ${complaint.trim()}`)), 100));
  });
}
