/**
 * A container of an image, without a container runtime: its layers as an overlay that cannot be written to, and its entry point as process 1
 * of its own process, mount, network and IPC namespaces, under the image's numeric user. What a pod adds (files, capabilities) is an argument.
 */
import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { ImageConfig } from '../../images/archive.ts';
import type { Layer } from '../../images/layer.ts';
import { follow, type Program } from './programs.ts';

/** Unpacks each layer once, however many images have it; gone with the test. */
export class UnpackedLayers {
  readonly #folder = mkdtempSync(join(tmpdir(), 'warren-test-layers-'));

  constructor(t: TestContext) {
    t.after(() => rmSync(this.#folder, { recursive: true, force: true }));
  }

  /** @returns the layer's folder */
  unpack({ digest, file }: Layer): string {
    const folder = join(this.#folder, digest);
    if (existsSync(folder)) return folder;
    mkdirSync(folder);
    execFileSync('tar', ['-x', '-p', '-f', file, '-C', folder]);
    return folder;
  }

  /** A folder of the test's own, to lie over an image as what a pod mounts. */
  empty(): string {
    return mkdtempSync(join(this.#folder, 'pod-'));
  }
}

export interface ContainerOptions {
  /** Of the image's configuration. */
  readonly config: Pick<ImageConfig, 'user' | 'entrypoint' | 'command' | 'env'>;
  /** Folders of the image's layers, the lowest first. */
  readonly layers: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** What remains of root's, as the manifest grants them: `net_admin`. Processes of other users have none. */
  readonly capabilities?: readonly string[];
}

export interface Container extends Program {
  /** Process 1, as the machine numbers it. */
  pid(): number;
}

/** An address that takes packets and never answers. */
export const SILENT_ADDRESS = '192.0.2.2';

// What a runtime does between making the namespaces and starting the program. /tmp and /run are volumes in our manifests.
const SET_UP = `
set -e
root=$1; layers=$2; user=$3; keep=$4; shift 4
ip link set lo up
ip link add nowhere type veth peer name peer
ip address add 192.0.2.1/24 dev nowhere
ip link set nowhere up
ip link set peer up
ip neighbour add ${SILENT_ADDRESS} lladdr 02:00:00:00:00:02 dev nowhere
mount --make-rprivate /
mount -t overlay -o "lowerdir=$layers" overlay "$root"
for volume in /tmp /run; do mount -t tmpfs -o mode=1777 tmpfs "$root$volume"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
[ "\${user%%:*}" = 0 ] || exec chroot --userspec="$user" "$root" "$@"
exec setpriv --regid "\${user##*:}" --clear-groups --inh-caps=-all --bounding-set="-all,+sys_chroot$keep" chroot "$root" "$@"
`;

export function startContainer(t: TestContext, { config, layers, env = {}, capabilities = [] }: ContainerOptions): Container {
  const root = mkdtempSync(join(tmpdir(), 'warren-test-root-'));
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const argv = [...config.entrypoint, ...config.command];
  const keep = capabilities.map((name) => `,+${name}`).join('');
  const namespaces = ['--mount', '--pid', '--net', '--ipc', '--fork', '--kill-child'];
  const setUp = ['sh', '-c', SET_UP, 'set-up', root, [...layers].reverse().join(':'), config.user, keep];
  const child = spawn('unshare', [...namespaces, ...setUp, ...argv], {
    env: { ...Object.fromEntries(config.env.map((pair) => pair.split('=', 2))), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  return {
    ...follow(t, child, argv.join(' ')),
    pid: () => Number(readFileSync(join('/proc', String(child.pid), 'task', String(child.pid), 'children'), 'utf8').trim()),
  };
}

/** What the image's own loader says of each file. @param loader path in the image, like `files` */
export function listLibraries(layers: readonly string[], loader: string, files: readonly string[]): string {
  const script = `
root=$1; layers=$2; loader=$3; shift 3
mount --make-rprivate / && mount -t overlay -o "lowerdir=$layers" overlay "$root" || exit 1
for file in "$@"; do echo "$file:"; chroot "$root" "$loader" --list "$file" 2>&1; done
exit 0`;
  const root = mkdtempSync(join(tmpdir(), 'warren-test-root-'));
  try {
    const argv = ['--mount', 'sh', '-c', script, 'list', root, [...layers].reverse().join(':'), loader, ...files];
    return execFileSync('unshare', argv, { encoding: 'utf8' });
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}
