/**
 * What a cluster is made of, fetched and built once: Kubernetes from its Go module, CoreDNS likewise, etcd, containerd, runc and the CNI
 * plugins from Debian's packages, unpacked and not installed, so that no service starts and nothing of the machine changes. All of it lies
 * under node_modules/.cache/cluster; what is there already is used as it is.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export type Progress = (text: string) => void;

export interface Parts {
  /** The multi-call binary: kube-apiserver and the others by its first argument. */
  readonly kubernetes: string;
  readonly pause: string;
  readonly coredns: string;
  /** Root of the unpacked Debian packages. */
  readonly debian: string;
}

const root = join(import.meta.dirname, '../..');
export const CACHE = join(root, 'node_modules/.cache/cluster');
const COREDNS: GoModule = {
  name: 'coredns',
  version: versionOf('coredns', 'github.com/coredns/coredns'),
  programs: { coredns: '.' },
  ldflags: [],
};
const KUBERNETES = kubernetes(versionOf('kubernetes', 'k8s.io/kubernetes'));
/** With the module's checksum, as go.sum has it. */
const GATEWAY_API = { module: 'sigs.k8s.io/gateway-api@v1.4.0', sum: 'h1:ZwlNM6zOHq0h3WUX2gfByPs2yAEsy/EenYJB78jpQfQ=' } as const;
const PACKAGES = ['containerd', 'containernetworking-plugins', 'etcd-server', 'runc'];
const BUILD_LOCK = '\0warren-cluster-build';
const REPORT_MS = 30_000;

/** Why this machine cannot have what it takes; undefined where it can. */
export function missingToBuild(): string | undefined {
  const missing = ['go', 'apt-get', 'dpkg', 'openssl', 'kubectl'].filter((name) => !onPath(name));
  return missing.length === 0 ? undefined : `this machine has no ${missing.join(', ')}`;
}

/** @throws {Error} with what the program that failed said */
export async function build(onProgress: Progress, signal?: AbortSignal): Promise<Parts> {
  mkdirSync(CACHE, { recursive: true });
  const release = await lock(onProgress, signal);
  try {
    const debian = await debianPackages(onProgress, signal);
    const coredns = await goBuild(COREDNS, onProgress, signal);
    const kubernetes = await goBuild(KUBERNETES, onProgress, signal);
    return { kubernetes: join(kubernetes, 'kubernetes'), pause: join(kubernetes, 'pause'), coredns: join(coredns, 'coredns'), debian };
  } finally {
    release();
  }
}

/** The folder of the Gateway API's definitions, standard channel. */
export async function gatewayApiDefinitions(): Promise<string> {
  const { module, sum } = GATEWAY_API;
  // Written by `go mod download`.
  const found = JSON.parse(await run('go', ['mod', 'download', '-json', module], { cwd: CACHE })) as { Dir: string; Sum: string };
  if (found.Sum !== sum) throw new Error(`${module} has the checksum ${found.Sum}, expected ${sum}`);
  return join(found.Dir, 'config/crd/standard');
}

/** One build at a time on this machine; the kernel frees the name of a builder that was killed. */
async function lock(onProgress: Progress, signal: AbortSignal | undefined): Promise<() => void> {
  for (let told = false; ; told = true) {
    const held = net.createServer();
    const mine = await new Promise<boolean>((resolve) => held.once('error', () => resolve(false)).listen(BUILD_LOCK, () => resolve(true)));
    if (mine) return () => held.close();
    if (!told) onProgress('waiting for another build of the same');
    await sleep(500, undefined, signal ? { signal } : {});
  }
}

async function debianPackages(onProgress: Progress, signal?: AbortSignal): Promise<string> {
  const target = join(CACHE, 'debian');
  return made(target, async (work) => {
    onProgress(`fetching ${PACKAGES.join(', ')}`);
    const download = (): Promise<string> =>
      run('apt-get', ['download', '-qq', '-o', 'APT::Sandbox::User=root', ...PACKAGES], { cwd: work, signal });
    await download().catch(async () => {
      await run('apt-get', ['update', '-qq'], { cwd: work, signal });
      await download();
    });
    const files = readdirSync(work).filter((name) => name.endsWith('.deb'));
    for (const file of files) await run('dpkg', ['-x', file, '.'], { cwd: work, signal });
    for (const file of files) rmSync(join(work, file));
    writeFileSync(join(work, 'versions'), `${files.sort().join('\n')}\n`);
  });
}

interface GoModule {
  readonly name: string;
  readonly version: string;
  /** The folder here that holds our `main` packages, by the names of what they become. */
  readonly programs: Readonly<Record<string, string>>;
  readonly ldflags: readonly string[];
}

/** Builds our own small modules; the folder is named after what they are made of. */
async function goBuild({ name, version, programs, ldflags }: GoModule, onProgress: Progress, signal?: AbortSignal): Promise<string> {
  const module = join(import.meta.dirname, name);
  const hash = createHash('sha256');
  for (const file of globSync('**/{go.mod,go.sum,*.go}', { cwd: module }).sort()) hash.update(readFileSync(join(module, file)));
  const prefix = `${name}-${version}-`;
  return made(join(CACHE, prefix + hash.digest('hex').slice(0, 12)), async (work) => {
    for (const old of readdirSync(CACHE).filter((folder) => folder.startsWith(`${name}-`))) rmSync(join(CACHE, old), { recursive: true });
    await watched(`building ${name} ${version}, which takes some minutes the first time`, onProgress, async () => {
      const flags = ['-trimpath', '-ldflags', ['-s', '-w', ...ldflags].join(' ')];
      for (const [program, folder] of Object.entries(programs))
        await run('nice', ['go', 'build', ...flags, '-o', join(work, program), folder], { cwd: module, signal, env: { CGO_ENABLED: '0' } });
    });
  });
}

/** A folder that is there whole or not at all. */
async function made(target: string, make: (work: string) => Promise<void>): Promise<string> {
  if (existsSync(target)) return target;
  const work = mkdtempSync(join(CACHE, 'work-'));
  try {
    await make(work);
    renameSync(work, target);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return target;
}

async function watched(what: string, onProgress: Progress, work: () => Promise<unknown>): Promise<void> {
  const startedMs = performance.now();
  onProgress(what);
  const timer = setInterval(() => onProgress(`${what.split(',')[0]}: ${Math.round((performance.now() - startedMs) / 1000)} s`), REPORT_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
}

interface RunOptions {
  readonly cwd: string;
  readonly signal?: AbortSignal | undefined;
  readonly env?: Record<string, string>;
}

function run(program: string, args: readonly string[], { cwd, signal, env = {} }: RunOptions): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, signal, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-10_000);
    });
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(stdout);
      else reject(new Error(`${program} ${args.slice(0, 3).join(' ')} failed: ${stderr.trim() || `exit status ${code}`}`));
    });
  });
}

function kubernetes(version: string): GoModule {
  const [, major = '', minor = ''] = version.match(/^v(\d+)\.(\d+)\./) ?? [];
  // Clients look at what the server says that it is.
  const stamps = Object.entries({ gitVersion: version, gitMajor: major, gitMinor: minor });
  return {
    name: 'kubernetes',
    version,
    programs: { kubernetes: '.', pause: './pause' },
    ldflags: stamps.map(([variable, value]) => `-X k8s.io/component-base/version.${variable}=${value}`),
  };
}

function versionOf(folder: string, module: string): string {
  const found = readFileSync(join(import.meta.dirname, folder, 'go.mod'), 'utf8').match(
    new RegExp(`^(?:\\t|require )${module} (v\\S+)$`, 'm'),
  );
  if (found?.[1] === undefined) throw new Error(`${folder}/go.mod does not require ${module}`);
  return found[1];
}

const onPath = (name: string): boolean =>
  (process.env.PATH ?? '').split(':').some((folder) => folder !== '' && existsSync(join(folder, name)));
