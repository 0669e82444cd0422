/**
 * A playground's name on this machine: at most one process holds it, by an abstract socket that the kernel frees when that process dies in
 * whatever way. Beside it, a folder under /run/warren for the kubeconfig and the process id; what a killed one left there is taken over.
 * The clusters of our tests (test/cluster) have names of their own, kept the same way.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';

export const INSTANCES = '/run/warren';
const FOLDERS = { playground: INSTANCES, cluster: '/run/warren-cluster' } as const;
export type Kind = keyof typeof FOLDERS;
const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;

/** What the user asked for cannot be done; the message is for them. */
export class UsageError extends Error {}

export interface Instance {
  readonly kind: Kind;
  readonly name: string;
  readonly folder: string;
  /** Mount point of the playground's state; empty outside its mount namespace. */
  readonly state: string;
  readonly kubeconfig: string;
  /** File that lists its nodes. */
  readonly nodes: string;
  /** Gives the name back and removes the folder. */
  release(): void;
}

/** @throws {UsageError} for a bad name, or one that is taken: it names the process that has it */
export async function claim(name: string, kind: Kind = 'playground'): Promise<Instance> {
  if (!NAME.test(name))
    throw new UsageError(`${JSON.stringify(name)} is no ${kind} name: lower-case letters, digits and dashes, at most 32`);
  const folder = join(FOLDERS[kind], name);
  const lock = net.createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve, reject) => lock.once('error', reject).listen(socketOf(name, kind), resolve));
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')) throw error;
    throw new UsageError(
      `a ${kind} named ${JSON.stringify(name)} is already running (pid ${pidOf(name, kind) ?? 'unknown'}); stop it (down --name ${name}) or take another --name`,
    );
  }
  lock.unref();
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'state'), { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, 'pid'), `${process.pid}\n`);
  return {
    kind,
    name,
    folder,
    state: join(folder, 'state'),
    kubeconfig: join(folder, 'kubeconfig'),
    nodes: join(folder, 'nodes.json'),
    release() {
      forget(name, kind);
      lock.close();
    },
  };
}

/** Whether some process holds the name. */
export function isRunning(name: string, kind: Kind = 'playground'): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(socketOf(name, kind));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function listInstances(kind: Kind = 'playground'): Promise<{ name: string; pid: number; kubeconfig: string }[]> {
  const names = existsSync(FOLDERS[kind]) ? readdirSync(FOLDERS[kind]) : [];
  const found: { name: string; pid: number; kubeconfig: string }[] = [];
  for (const name of names.sort()) {
    const pid = pidOf(name, kind);
    if (pid !== undefined && (await isRunning(name, kind))) found.push({ name, pid, kubeconfig: join(FOLDERS[kind], name, 'kubeconfig') });
  }
  return found;
}

export function pidOf(name: string, kind: Kind = 'playground'): number | undefined {
  try {
    const pid = Number(readFileSync(join(FOLDERS[kind], name, 'pid'), 'utf8'));
    return Number.isInteger(pid) && pid > 0 ? pid : undefined;
  } catch {
    // No such instance.
    return undefined;
  }
}

/**
 * The process that holds a node's namespaces, as this machine counts.
 * @throws {UsageError} naming the nodes that there are
 */
export function nodeProcess(name: string, node: string, kind: Kind = 'playground'): number {
  const nodes = nodesOf(name, kind);
  const wanted = nodes.find((candidate) => candidate.name === node);
  if (!wanted)
    throw new UsageError(`${kind} ${name} has no node ${JSON.stringify(node)}; it has ${nodes.map((each) => each.name).join(', ')}`);
  for (const pid of readdirSync('/proc')) {
    if (/^\d+$/.test(pid) && linkOf(`/proc/${pid}/ns/net`) === wanted.netns && isHolder(pid, kind)) return Number(pid);
  }
  throw new UsageError(`node ${node} of ${kind} ${name} is gone`);
}

/** @throws {UsageError} where none of that name is running */
export const nodeNames = (name: string, kind: Kind = 'playground'): string[] => nodesOf(name, kind).map((node) => node.name);

function nodesOf(name: string, kind: Kind): { name: string; netns: string }[] {
  const path = join(FOLDERS[kind], name, 'nodes.json');
  if (!existsSync(path)) throw new UsageError(`no ${kind} named ${JSON.stringify(name)} is running`);
  // Written by our own outer process.
  return JSON.parse(readFileSync(path, 'utf8')) as { name: string; netns: string }[];
}

/** Host-network pods live in the same network namespace, with mounts of their own. A cluster's node has a PID namespace: the first in it. */
function isHolder(pid: string, kind: Kind): boolean {
  try {
    const namespaces = readFileSync(`/proc/${pid}/status`, 'utf8');
    if (kind === 'cluster') return /^NSpid:\t\d+\t\d+\t1$/m.test(namespaces);
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8') === 'sleep\0infinity\0' && /^NSpid:(\t\d+){2}$/m.test(namespaces);
  } catch {
    // The process went away.
    return false;
  }
}

const socketOf = (name: string, kind: Kind): string => `\0warren-${kind}-${name}`;

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // The process went away.
    return undefined;
  }
}

/** Removes what a killed playground left. */
export function forget(name: string, kind: Kind = 'playground'): void {
  rmSync(join(FOLDERS[kind], name), { recursive: true, force: true });
  try {
    rmdirSync(FOLDERS[kind]);
  } catch {
    // Others have their folders there.
  }
}
