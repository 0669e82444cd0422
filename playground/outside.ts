/**
 * The playground as its user sees it: a process in the machine's own namespaces that starts the real one inside namespaces of its own, hands
 * it a listening socket of the machine's loopback, and waits. Everything inside dies with the inner process, by the kernel's doing; the
 * inner process dies with this one.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { closeFd, listenTcp } from '../common/linux/sockets.ts';
import type { Instance } from './instance.ts';
import { tool } from './node/command.ts';

export interface UpOptions {
  /** Program and arguments of the inner process. */
  readonly inner: readonly string[];
  /** A copy of the kubeconfig for the user, besides the instance's own. */
  readonly kubeconfig?: string | undefined;
  readonly onProgress: (text: string) => void;
  readonly onReady: (kubeconfig: string) => void;
}

export interface Outcome {
  readonly status: number;
}

export interface Outer {
  /** Ends it; safe to call twice. */
  stop(): void;
  readonly ended: Promise<Outcome>;
}

/** A node as the machine outside can find it: by the identity of its network namespace. */
export interface NodeIdentity {
  readonly name: string;
  /** As the links of /proc/PID/ns/net read: `net:[4026532008]`. */
  readonly netns: string;
}

/** Messages from inside, one JSON line each. */
export type InnerMessage =
  | { readonly type: 'progress'; readonly text: string }
  | { readonly type: 'cluster'; readonly kubeconfig: string; readonly nodes: readonly NodeIdentity[] }
  | { readonly type: 'ready' }
  | { readonly type: 'failed'; readonly message: string };

export const INNER = { listener: 3, messages: 4 } as const;
const MAIN = fileURLToPath(new URL('./main.ts', import.meta.url));
const FIRST_PORT = 0;
const STOP_PATIENCE_MS = 5000;

/** The inner process of a playground. */
export function playgroundInside(name: string, { nodes, mesh, logLevel }: { nodes: number; mesh: boolean; logLevel: string }): string[] {
  const options = ['--name', name, '--nodes', String(nodes), '--log-level', logLevel];
  return [process.execPath, MAIN, 'inside', ...options, ...(mesh ? ['--mesh'] : [])];
}

export function startInside(instance: Instance, options: UpOptions): Outer {
  // Made out here: the inner process has no way to the machine's own network.
  const listener = listenTcp({ address: '127.0.0.1', port: FIRST_PORT });
  const child = spawn(
    'setpriv',
    [
      // Whatever kills this process, the one inside goes as well.
      ...['--pdeathsig', 'KILL', 'unshare', '--mount', '--net', '--ipc', '--uts', '--pid', '--fork', '--kill-child', '--mount-proc'],
      // Process 1 collects the orphans of a namespace, which Node does not; a shell that waits does.
      ...['sh', '-c', '"$@"; exit $?', instance.kind, ...options.inner],
    ],
    // A session of its own: Ctrl-C comes to this process, and it ends the inner one in order.
    { stdio: ['pipe', 'inherit', 'inherit', listener, 'pipe'], detached: true },
  );
  closeFd(listener);
  child.stdin?.on('error', () => undefined);
  let failure: string | undefined;
  readMessages(child, (message) => {
    if (message.type === 'progress') options.onProgress(message.text);
    else if (message.type === 'failed') failure = message.message;
    else if (message.type === 'cluster') {
      writeFileSync(instance.nodes, `${JSON.stringify(message.nodes)}\n`);
      // Before the mesh is ready: somebody may want to see why it is not.
      writePrivately(instance.kubeconfig, message.kubeconfig);
      if (options.kubeconfig !== undefined) writePrivately(options.kubeconfig, message.kubeconfig);
    } else options.onReady(instance.kubeconfig);
  });
  let stopping = false;
  const ended = new Promise<Outcome>((resolve) => {
    child.once('error', (error) => {
      options.onProgress(`could not start: ${error.message}`);
      resolve({ status: 1 });
    });
    child.once('close', () => {
      if (failure !== undefined) options.onProgress(`failed: ${failure}`);
      else if (!stopping) options.onProgress(`the ${instance.kind} ended unexpectedly`);
      resolve({ status: failure === undefined && stopping ? 0 : 1 });
    });
  });
  return {
    ended,
    stop() {
      if (stopping) return;
      stopping = true;
      // The end of its standard input tells it to go.
      child.stdin?.end();
      setTimeout(() => killInner(child), STOP_PATIENCE_MS).unref();
    },
  };
}

function readMessages(child: ChildProcess, onMessage: (message: InnerMessage) => void): void {
  const pipe = child.stdio[INNER.messages];
  if (!pipe || !('setEncoding' in pipe)) return;
  let rest = '';
  pipe.setEncoding('utf8');
  pipe.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    // Written by our own inner process.
    for (const line of lines) onMessage(JSON.parse(line) as InnerMessage);
  });
}

function writePrivately(path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o600 });
  chmodSync(path, 0o600);
}

/** Killing `unshare` kills the process 1 of the namespace, which takes everything along. */
function killInner(child: ChildProcess): void {
  child.kill('SIGKILL');
}

/** Why this machine cannot run a playground; undefined where it can. */
export function missingRequirement(): string | undefined {
  if (process.platform !== 'linux') return 'the playground needs Linux';
  if (process.getuid?.() !== 0) return 'the playground needs root (network and mount namespaces)';
  const missing = ['unshare', 'nsenter', 'setpriv', 'mount', 'ip', 'nft'].filter((name) => !hasTool(name));
  if (missing.length > 0) return `this machine has no ${missing.join(', ')} (Debian: apt-get install util-linux iproute2 nftables)`;
  // Mounting would load the module as well, where it is a module; asking first makes for a better complaint.
  if (!hasOverlay()) spawnSync('modprobe', ['overlay'], { stdio: 'ignore' });
  return hasOverlay() ? undefined : 'the kernel has no overlay filesystem';
}

const hasOverlay = (): boolean => /\boverlay\b/.test(readFileSync('/proc/filesystems', 'utf8'));

function hasTool(name: string): boolean {
  try {
    return tool(name) !== '';
  } catch {
    // The caller names all that are missing at once.
    return false;
  }
}
