/**
 * Control groups of a cluster's nodes. They are the one thing that lies in the machine's own tree and that the kernel does not take away with
 * a namespace: so each cluster has one group with its name in each hierarchy, its nodes live below it, and the keeper (keeper.ts) removes it.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Hierarchy {
  readonly mount: string;
  readonly version: 1 | 2;
  /** For `mount -t cgroup -o`: controllers, or `none,name=systemd`. */
  readonly options: string;
}

/** What a cluster weighs beside other processes of the machine. */
const PROCESSES = 16;

/** Those that this machine has mounted. With controllers in version 1, a version 2 tree beside them has none, and is left out. */
export function hierarchies(): Hierarchy[] {
  const found: Hierarchy[] = [];
  for (const line of readFileSync('/proc/self/mountinfo', 'utf8').trim().split('\n')) {
    const [before = '', after = ''] = line.split(' - ');
    const mount = before.split(' ')[4] ?? '';
    const [type, , superOptions = ''] = after.split(' ');
    if (!mount.startsWith('/sys/fs/cgroup') || found.some((each) => each.mount === mount)) continue;
    if (type === 'cgroup2') found.push({ mount, version: 2, options: '' });
    if (type !== 'cgroup') continue;
    const options = superOptions.split(',').filter((option) => option !== 'rw' && option !== 'ro');
    const named = options.find((option) => option.startsWith('name='));
    found.push({ mount, version: 1, options: named === undefined ? options.join(',') : `none,${named}` });
  }
  const first = found.filter(({ version }) => version === 1);
  return first.length > 0 ? first : found;
}

/** Why nodes cannot have control groups here; undefined where they can. */
export function whyNoGroups(): string | undefined {
  return hierarchies().length > 0 ? undefined : 'no control groups are mounted below /sys/fs/cgroup';
}

/** The cluster's group, the same in each hierarchy; the process's id keeps a killed cluster's remains apart from its successor's. */
export const groupName = (cluster: string, pid: number): string => `warren-cluster-${cluster}-${pid}`;

/** Makes a node's group in each hierarchy. @returns its path below each mount */
export function makeGroup(group: string, node: string): string {
  for (const { mount, version } of hierarchies()) {
    const top = join(mount, group);
    mkdirSync(top, { recursive: true });
    // By default a group weighs as much as one process outside of it, and on a busy machine a whole cluster would get a process's share.
    if (existsSync(join(top, 'cpu.shares'))) writeFileSync(join(top, 'cpu.shares'), String(PROCESSES * 1024));
    if (version === 2) {
      delegate(mount, top);
      if (existsSync(join(top, 'cpu.weight'))) writeFileSync(join(top, 'cpu.weight'), String(PROCESSES * 100));
    } else copyCpuset(mount, top);
    mkdirSync(join(top, node), { recursive: true });
    if (version === 2) delegate(top, join(top, node));
    else copyCpuset(top, join(top, node));
  }
  return join(group, node);
}

/** Moves this process, and with it what it starts, into a group that makeGroup returned. */
export function joinGroup(path: string): void {
  for (const { mount } of hierarchies()) writeFileSync(join(mount, path, 'cgroup.procs'), '0');
}

/** A group of version 1 takes no process until it has processors and memory nodes; below these, groups copy them by themselves. */
function copyCpuset(parent: string, child: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (existsSync(join(child, file))) writeFileSync(join(child, file), readFileSync(join(parent, file), 'utf8').trim());
  }
  if (existsSync(join(child, 'cpuset.cpus'))) writeFileSync(join(child, 'cgroup.clone_children'), '1');
}

function delegate(parent: string, child: string): void {
  if (!existsSync(child)) mkdirSync(child);
  const controllers = readFileSync(join(parent, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean);
  writeFileSync(join(parent, 'cgroup.subtree_control'), controllers.map((name) => `+${name}`).join(' '));
}
