/**
 * One run of a container: a process in the pod's network namespace with mounts, PIDs and host name of its own. Its root is an overlay
 * over the machine's, written to memory. It is process 1 of its PID namespace, so whatever it started ends with it, by the kernel's doing.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { chownSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { CHECKOUT, COMPILE_CACHE, COMPILED, type Image } from '../images.ts';
import { TOOL_PATH, tool } from '../node/command.ts';
import type { ClusterNode, StateFolders } from '../node/node.ts';
import { resolveInRoot } from '../node/resolve-path.ts';
import type { SecurityContext } from '../objects.ts';
import type { LogBuffer } from './log-buffer.ts';

export interface Mount {
  /** On the node. */
  readonly source: string;
  readonly target: string;
  readonly isFile: boolean;
  readonly readOnly: boolean;
  readonly propagation: 'rprivate' | 'rslave';
}

export interface ContainerSpec {
  /** Fresh folder for this run, under the state. */
  readonly folder: string;
  readonly folders: StateFolders;
  /** The checkout's real path on this machine. */
  readonly checkout: string;
  readonly node: ClusterNode;
  readonly netnsPath: string;
  readonly hostname: string;
  readonly hostPid: boolean;
  readonly image: Image;
  readonly env: Readonly<Record<string, string>>;
  readonly workingDir: string;
  readonly mounts: readonly Mount[];
  /** Files that the container finds in its root: /etc/hosts and the like. */
  readonly files: Readonly<Record<string, string>>;
  readonly security: SecurityContext;
  readonly log: LogBuffer;
}

export interface Exit {
  readonly code: number;
  readonly signal: number;
}

/** The container's root could not be made; the message is the shell's. */
export class StartError extends Error {}

// Runs in the node's mounts (as slaves), the pod's network and fresh PID and UTS namespaces. $1 folder, $2 host name, $3 working folder.
// $4 paths to make read-only. Descriptor 3 hears what goes wrong before the program starts, or "started".
// The environment is the container's from the start (arguments would show its secrets to every user); only PATH is the machine's meanwhile.
const ENTER = `exec 4>&2 2>&3
path=$PATH
PATH=${TOOL_PATH}
mount --all --fstab "$1/fstab" && hostname "$2" && cd "$1/root" && pivot_root . . && umount -l . && cd "$3" || exit 125
for sealed in $4; do mount -o remount,bind,ro "$sealed" || exit 125; done
shift 4
PATH=$path
echo started >&3
exec 2>&4 3>&- 4>&-
exec "$@"
`;

export class ContainerProcess {
  readonly exited: Promise<Exit>;
  readonly #spec: ContainerSpec;
  readonly #child: ChildProcess;
  #gone = false;

  private constructor(spec: ContainerSpec, child: ChildProcess) {
    this.#spec = spec;
    this.#child = child;
    this.exited = new Promise((resolve) => {
      child.once('close', (code, signal) => {
        this.#gone = true;
        spec.log.end();
        resolve(signal ? { code: 128 + signalNumber(signal), signal: signalNumber(signal) } : { code: code ?? 255, signal: 0 });
      });
    });
  }

  /** @throws {StartError} */
  static async start(spec: ContainerSpec): Promise<ContainerProcess> {
    prepareRoot(spec);
    const { node, netnsPath, folder, hostname, hostPid, image, env, workingDir, security } = spec;
    const namespaces = ['--mount', '--propagation', 'slave', '--uts', '--ipc', '--fork', '--kill-child', ...(hostPid ? [] : ['--pid'])];
    const child = spawn(
      tool('nsenter'),
      [
        `--mount=${node.mountsPath}`,
        `--net=${netnsPath}`,
        tool('unshare'),
        ...namespaces,
        ...[tool('sh'), '-c', ENTER, 'container', folder, hostname, workingDir, readOnlyPaths(spec)],
        ...privileges(security),
        ...image.argv,
      ],
      // A session of its own: Ctrl-C in the playground's terminal is not for containers.
      {
        stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
        detached: true,
        env: { ...env },
      },
    );
    const process = new ContainerProcess(spec, child);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => spec.log.push('stdout', text));
    child.stderr?.setEncoding('utf8').on('data', (text: string) => spec.log.push('stderr', text));
    const said = await readAll(child);
    if (said.includes('started')) return process;
    await process.exited;
    process.cleanUp();
    throw new StartError(said.trim() || 'the container could not be started');
  }

  /** Of the container's first process, as the playground counts; undefined once it is gone. */
  pid(): number | undefined {
    if (this.#gone || this.#child.pid === undefined) return undefined;
    return childOf(this.#child.pid);
  }

  /** A second signal to a process that is gone does nothing. */
  kill(signal: NodeJS.Signals): void {
    const pid = this.pid();
    if (pid === undefined) return;
    try {
      // Without a PID namespace of its own the whole group has to be told.
      process.kill(this.#spec.hostPid ? -(this.#child.pid ?? pid) : pid, signal);
    } catch {
      // It ended between the look and the signal.
    }
  }

  /** What to spawn so that `argv` runs inside the container, with its environment and privileges. */
  execArguments(argv: readonly string[], tty: boolean): { argv: string[]; env: Record<string, string> } | undefined {
    const pid = this.pid();
    if (pid === undefined) return undefined;
    const { security, env, workingDir } = this.#spec;
    const inside = [`--target=${pid}`, '--mount', '--net', '--uts', '--ipc', ...(this.#spec.hostPid ? [] : ['--pid'])];
    const folder = workingDir === '/' ? [] : [tool('env'), `--chdir=${workingDir}`];
    const command = [...privileges(security), ...folder, ...argv];
    return { argv: [tool('nsenter'), ...inside, ...command], env: tty ? { ...env, TERM: 'xterm' } : { ...env } };
  }

  /** Frees what this run wrote to its root. Call after `exited`. */
  cleanUp(): void {
    removeFolder(this.#spec.folder);
  }
}

/** What cannot be removed (a file that still grows) stays until the playground ends: no reason to fail a pod. */
export function removeFolder(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 2 });
  } catch {
    // As said above.
  }
}

function prepareRoot({ folder, folders, checkout, mounts, files, image, security }: ContainerSpec): void {
  rmSync(folder, { recursive: true, force: true });
  const upper = join(folder, 'upper');
  const root = join(folder, 'root');
  for (const path of [root, join(folder, 'work'), upper]) mkdirSync(path, { recursive: true });
  const place = (target: string): string => resolveInRoot(folders.host, target);
  for (const [path, content] of Object.entries({ ...files, ...image.scripts })) {
    // Not resolved: where the machine has a link (resolv.conf), the container has a file.
    const real = join(upper, place(dirname(path)), basename(path));
    mkdirSync(dirname(real), { recursive: true });
    writeFileSync(real, content, { mode: path in image.scripts ? 0o755 : 0o644 });
  }
  const lines = [
    `overlay ${root} overlay lowerdir=${folders.host},upperdir=${upper},workdir=${join(folder, 'work')}`,
    `proc ${root}/proc proc defaults`,
    `sysfs ${root}/sys sysfs ro`,
    `/dev ${root}/dev none rbind,rslave`,
    ...MEMORY_FOLDERS.map(({ path, mode }) => `tmpfs ${root}${path} tmpfs mode=${mode}`),
    `${field(checkout)} ${root}${CHECKOUT} none bind,ro,rprivate`,
    `${field(compileCache(checkout, security.runAsUser ?? 0))} ${root}${COMPILE_CACHE} none bind,rprivate`,
  ];
  for (const path of [CHECKOUT, COMPILE_CACHE]) mkdirSync(join(upper, path), { recursive: true });
  for (const mount of [...mounts].sort((a, b) => a.target.split('/').length - b.target.split('/').length)) {
    const target = place(mount.target);
    const inUpper = join(upper, target);
    // A mount point under another mount is made where that mount comes from, when mounting.
    const below =
      [...MEMORY_FOLDERS.map(({ path }) => path), '/dev'].some((folder) => isBelow(target, folder)) ||
      mounts.some((other) => other !== mount && isBelow(target, place(other.target)));
    if (!below && mount.isFile) {
      mkdirSync(dirname(inUpper), { recursive: true });
      writeFileSync(inUpper, '', { flag: 'a' });
    } else if (!below) mkdirSync(inUpper, { recursive: true });
    const options = ['rbind', mount.propagation, ...(mount.readOnly ? ['ro'] : []), ...(below ? [`X-mount.mkdir`] : [])];
    lines.push(`${field(mount.source)} ${root}${field(target)} none ${options.join(',')}`);
  }
  writeFileSync(join(folder, 'fstab'), `${lines.join('\n')}\n`);
}

/** One for each user, so that nobody finds code that somebody else compiled for them. */
function compileCache(checkout: string, uid: number): string {
  const folder = join(checkout, COMPILED, String(uid));
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  chownSync(folder, uid, uid);
  return folder;
}

/** What the machine keeps there is none of a container's business. */
const MEMORY_FOLDERS = [
  { path: '/tmp', mode: '1777' },
  { path: '/run', mode: '755' },
] as const;

/** With a read-only root all that an image would bring is read-only; volumes are what they are. */
function readOnlyPaths({ security, mounts, folders }: ContainerSpec): string {
  if (!security.readOnlyRootFilesystem) return '';
  const volumes = new Set(mounts.map(({ target }) => resolveInRoot(folders.host, target)));
  return ['/', ...MEMORY_FOLDERS.map(({ path }) => path).filter((path) => !volumes.has(path))].join(' ');
}

const isBelow = (path: string, folder: string): boolean => path.startsWith(folder.endsWith('/') ? folder : `${folder}/`);

/** fstab(5): white space and backslashes in octal. */
const field = (text: string): string => text.replace(/[\s\\]/g, (char) => `\\${char.charCodeAt(0).toString(8).padStart(3, '0')}`);

/** What a container runtime leaves to a container that asks for nothing. */
const DEFAULT_CAPABILITIES = [
  'chown',
  'dac_override',
  'fowner',
  'fsetid',
  'kill',
  'setgid',
  'setuid',
  'setpcap',
  'net_bind_service',
  'net_raw',
  'sys_chroot',
  'mknod',
  'audit_write',
  'setfcap',
];

/** The `setpriv` call that drops what the security context does not give. */
export function privileges({ privileged, runAsUser = 0, runAsGroup, capabilities }: SecurityContext): string[] {
  const ids =
    runAsUser === 0 && runAsGroup === undefined
      ? []
      : [`--reuid=${runAsUser}`, `--regid=${runAsGroup ?? (runAsUser === 0 ? 0 : runAsUser)}`, '--clear-groups'];
  if (privileged) return ids.length === 0 ? [] : [tool('setpriv'), ...ids];
  const name = (capability: string): string => capability.toLowerCase().replace(/^cap_/, '');
  const dropped = (capabilities?.drop ?? []).map(name);
  const kept = new Set(dropped.includes('all') ? [] : DEFAULT_CAPABILITIES.filter((capability) => !dropped.includes(capability)));
  for (const capability of capabilities?.add ?? []) kept.add(name(capability));
  if (kept.has('all')) return ids.length === 0 ? [] : [tool('setpriv'), ...ids];
  const possible = [...kept].filter((capability) => BOUNDING.has(capability));
  const set = ['-all', ...possible.map((capability) => `+${capability}`)].join(',');
  return [tool('setpriv'), ...ids, `--inh-caps=${runAsUser === 0 ? set : '-all'}`, `--bounding-set=${set}`];
}

/** As linux/capability.h numbers them. */
const CAPABILITY_NAMES =
  'chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore'.split(
    ' ',
  );

/** What this process may pass on: the machine's root need not have everything, and setpriv refuses to add what is not there. */
const BOUNDING: ReadonlySet<string> = new Set(boundingSet());

function boundingSet(): string[] {
  const line = /^CapBnd:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'));
  const bits = BigInt(`0x${line?.[1] ?? '0'}`);
  return CAPABILITY_NAMES.filter((_, i) => (bits >> BigInt(i)) & 1n);
}

function readAll(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    const pipe = child.stdio[3];
    let text = '';
    child.once('error', (error) => resolve(error.message));
    if (!(pipe instanceof Readable)) return resolve('no pipe to the container');
    pipe.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
      // `unshare` stays as the program's parent and keeps the pipe, so its end is no sign.
      if (text.endsWith('started\n')) {
        pipe.destroy();
        resolve(text);
      }
    });
    pipe.once('close', () => resolve(text));
  });
}

/** `unshare --fork` has exactly one child: the container's first process. */
export function childOf(pid: number): number | undefined {
  try {
    const first = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ')[0]);
    return first > 0 ? first : undefined;
  } catch {
    // Gone.
    return undefined;
  }
}

const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGILL: 4,
  SIGABRT: 6,
  SIGBUS: 7,
  SIGFPE: 8,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGPIPE: 13,
  SIGTERM: 15,
};
const signalNumber = (signal: string): number => SIGNALS[signal] ?? 0;

/** Whether a path of the node is a file (a bind mount needs a mount point of its kind). */
export function isFileOnNode(node: ClusterNode, path: string): boolean {
  const found = lstatSync(node.path(path), { throwIfNoEntry: false });
  return found !== undefined && !found.isDirectory() && !statSync(node.path(path)).isDirectory();
}
