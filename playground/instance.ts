/**
 * A playground's name on this machine: at most one process holds it, by an abstract socket that the kernel frees when that process dies in
 * whatever way. Beside it, a folder under /run/warren for the kubeconfig and the process id; what a killed one left there is taken over.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';

export const INSTANCES = '/run/warren';
const NAME = /^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$/;

/** What the user asked for cannot be done; the message is for them. */
export class UsageError extends Error {}

export interface Instance {
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
export async function claim(name: string): Promise<Instance> {
  if (!NAME.test(name))
    throw new UsageError(`${JSON.stringify(name)} is no playground name: lower-case letters, digits and dashes, at most 32`);
  const folder = join(INSTANCES, name);
  const lock = net.createServer((socket) => socket.destroy());
  try {
    await new Promise<void>((resolve, reject) => lock.once('error', reject).listen(`\0warren-playground-${name}`, resolve));
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')) throw error;
    throw new UsageError(
      `a playground named ${JSON.stringify(name)} is already running (pid ${pidOf(name) ?? 'unknown'}); stop it (down --name ${name}) or take another --name`,
    );
  }
  lock.unref();
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(join(folder, 'state'), { recursive: true, mode: 0o700 });
  writeFileSync(join(folder, 'pid'), `${process.pid}\n`);
  return {
    name,
    folder,
    state: join(folder, 'state'),
    kubeconfig: join(folder, 'kubeconfig'),
    nodes: join(folder, 'nodes.json'),
    release() {
      forget(name);
      lock.close();
    },
  };
}

/** Whether some process holds the name. */
export function isRunning(name: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(`\0warren-playground-${name}`);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export async function listInstances(): Promise<{ name: string; pid: number; kubeconfig: string }[]> {
  const names = existsSync(INSTANCES) ? readdirSync(INSTANCES) : [];
  const found: { name: string; pid: number; kubeconfig: string }[] = [];
  for (const name of names.sort()) {
    const pid = pidOf(name);
    if (pid !== undefined && (await isRunning(name))) found.push({ name, pid, kubeconfig: join(INSTANCES, name, 'kubeconfig') });
  }
  return found;
}

export function pidOf(name: string): number | undefined {
  try {
    const pid = Number(readFileSync(join(INSTANCES, name, 'pid'), 'utf8'));
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
export function nodeProcess(name: string, node: string): number {
  const path = join(INSTANCES, name, 'nodes.json');
  if (!existsSync(path)) throw new UsageError(`no playground named ${JSON.stringify(name)} is running`);
  // Written by our own outer process.
  const nodes = JSON.parse(readFileSync(path, 'utf8')) as { name: string; netns: string }[];
  const wanted = nodes.find((candidate) => candidate.name === node);
  if (!wanted)
    throw new UsageError(`playground ${name} has no node ${JSON.stringify(node)}; it has ${nodes.map((each) => each.name).join(', ')}`);
  for (const pid of readdirSync('/proc')) {
    if (/^\d+$/.test(pid) && linkOf(`/proc/${pid}/ns/net`) === wanted.netns && isHolder(pid)) return Number(pid);
  }
  throw new UsageError(`node ${node} of playground ${name} is gone`);
}

/** Host-network pods live in the same namespace, with mounts of their own. */
const isHolder = (pid: string): boolean =>
  readFileSync(`/proc/${pid}/cmdline`, 'utf8') === 'sleep\0infinity\0' &&
  readFileSync(`/proc/${pid}/status`, 'utf8').match(/^NSpid:(\t\d+){2}$/m) !== null;

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    // The process went away.
    return undefined;
  }
}

/** Removes what a killed playground left. */
export function forget(name: string): void {
  rmSync(join(INSTANCES, name), { recursive: true, force: true });
  try {
    rmdirSync(INSTANCES);
  } catch {
    // Other playgrounds have their folders there.
  }
}
