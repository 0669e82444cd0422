/**
 * A node: a process that holds a network, a mount and a UTS namespace. Its root is an overlay over the machine's, so what pods and agents
 * write to "the host" (/opt/cni/bin, /etc/cni/net.d, /run …) is the node's own and vanishes with it; all its mounts are shared, so that
 * pods with HostToContainer propagation see what is mounted later.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { Netns } from '../../common/linux/netns.ts';
import { type NodePlan, POD_GATEWAY } from '../network/plan.ts';
import { NODE_CONFLIST } from './cni-config.ts';
import { resolveInRoot } from './resolve-path.ts';

/** Folders that the whole playground shares, inside its mount namespace and every node's, under the same path. */
export interface StateFolders {
  /** A tmpfs. */
  readonly state: string;
  /** The machine's own root, the lower layer of everybody's overlay. */
  readonly host: string;
}

export interface ClusterNode {
  readonly plan: NodePlan;
  /** Of the process that holds the namespaces, as the playground's PID namespace counts. */
  readonly pid: number;
  readonly netns: Netns;
  readonly netnsPath: string;
  readonly mountsPath: string;
  /** A path of the node as this process reaches it. */
  path(inNode: string): string;
  /** What to put before a command so that it runs on the node. */
  readonly enter: readonly string[];
}

// Descriptor 3 says "ready"; whatever goes wrong before says itself on standard error.
const HOLD = `set -e
mount --all --fstab "$1/fstab"
cd "$1/root"
pivot_root . .
umount -l .
mount --make-rshared /
hostname "$2"
printf '127.0.0.1 localhost\\n::1 localhost\\n%s %s\\n' "$3" "$2" > /etc/hosts
echo 1 > /proc/sys/net/ipv4/ip_forward
for name in all default; do
  echo 0 > /proc/sys/net/ipv4/conf/$name/rp_filter
  if [ -d /proc/sys/net/ipv6 ]; then
    echo 1 > /proc/sys/net/ipv6/conf/$name/forwarding
    echo 0 > /proc/sys/net/ipv6/conf/$name/disable_ipv6
    echo 0 > /proc/sys/net/ipv6/conf/$name/accept_dad
  fi
done
ip link set lo up
ip netns add warren-probe && ip netns del warren-probe
echo ready >&3
exec 3>&- sleep infinity
`;

/** Resolves when the namespaces stand; the network's links come next (fabric.ts). @throws {Error} with what the shell said */
export async function startNode(plan: NodePlan, folders: StateFolders): Promise<ClusterNode> {
  const folder = join(folders.state, 'nodes', plan.name);
  for (const part of ['root', 'work', 'upper/etc/cni/net.d', 'upper/opt/cni/bin', 'upper/run', 'upper/tmp'])
    mkdirSync(join(folder, part), { recursive: true });
  writeFileSync(join(folder, 'upper/etc/cni/net.d', NODE_CONFLIST.name), NODE_CONFLIST.text);
  writeFileSync(join(folder, 'upper/etc/hostname'), `${plan.name}\n`);
  const root = join(folder, 'root');
  writeFileSync(
    join(folder, 'fstab'),
    [
      `overlay ${root} overlay lowerdir=${folders.host},upperdir=${join(folder, 'upper')},workdir=${join(folder, 'work')}`,
      `proc ${root}/proc proc defaults`,
      `sysfs ${root}/sys sysfs defaults`,
      `/dev ${root}/dev none rbind`,
      `tmpfs ${root}/run tmpfs mode=755`,
      `tmpfs ${root}/tmp tmpfs mode=1777`,
      `${folders.state} ${root}${folders.state} none rbind,X-mount.mkdir`,
      '',
    ].join('\n'),
  );
  const child = spawn('unshare', ['--net', '--uts', '--mount', 'sh', '-c', HOLD, 'node', folder, plan.name, plan.addresses.v4], {
    stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
    detached: true,
  });
  await ready(child.stdio[3], child.stderr, plan.name);
  child.unref();
  const { pid } = child;
  if (pid === undefined) throw new Error(`${plan.name}: no process`);
  const netnsPath = `/proc/${pid}/ns/net`;
  const mountsPath = `/proc/${pid}/ns/mnt`;
  return {
    plan,
    pid,
    netns: Netns.open(netnsPath),
    netnsPath,
    mountsPath,
    path: (inNode) => join(`/proc/${pid}/root`, resolveInRoot(`/proc/${pid}/root`, inNode)),
    enter: ['nsenter', `--mount=${mountsPath}`, `--net=${netnsPath}`, `--uts=/proc/${pid}/ns/uts`],
  };
}

export const hasIpv6 = (): boolean => existsSync('/proc/sys/net/ipv6');

/** Lines for `ip -batch` inside the node, once its end of the cable to the bridge is there under the name eth0. */
export function nodeLinkCommands(plan: NodePlan, others: readonly NodePlan[], fabric: { v4: string; v6: string }): string[] {
  const lines = [`addr add ${plan.addresses.v4}/24 dev eth0`, 'link set eth0 up'];
  if (plan.addresses.v6) lines.push(`addr add ${plan.addresses.v6}/64 dev eth0 nodad`);
  lines.push(`route add default via ${fabric.v4}`);
  if (plan.addresses.v6) lines.push(`route add default via ${fabric.v6} dev eth0`);
  for (const other of others) {
    if (other.name === plan.name) continue;
    lines.push(`route add ${other.podCidrs.v4} via ${other.addresses.v4}`);
    if (other.podCidrs.v6 && other.addresses.v6) lines.push(`route add ${other.podCidrs.v6} via ${other.addresses.v6} dev eth0`);
  }
  return lines;
}

/** The pods' router answers on each of their links. */
export const gatewayAddresses = (device: string, ipv6: boolean): string[] => [
  `addr add ${POD_GATEWAY.v4}/32 dev ${device} scope link`,
  ...(ipv6 ? [`addr add ${POD_GATEWAY.v6}/64 dev ${device} nodad`] : []),
];

function ready(pipe: unknown, stderr: Readable | null, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let complaint = '';
    stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint += text;
    });
    if (!isReadable(pipe)) return reject(new Error(`${name}: no pipe`));
    let said = false;
    pipe.on('data', () => {
      said = true;
    });
    pipe.on('close', () => (said ? resolve() : setImmediate(() => reject(new Error(`${name} could not be set up: ${complaint.trim()}`)))));
  });
}

const isReadable = (value: unknown): value is Readable => typeof value === 'object' && value !== null && 'on' in value;
