/** The API server on loopback with a kubelet of our own making, and the real kubectl against it. */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import type { TestContext } from 'node:test';
import { systemClock } from '../../common/base/clock.ts';
import { silentLog } from '../../common/base/log.ts';
import { ApiServer } from '../../playground/apiserver/apiserver.ts';
import type { ExecSession, KubeletStreams } from '../../playground/apiserver/kubelet.ts';

const kubectlPath = ((): string | undefined => {
  try {
    return process.env.KUBECTL ?? execFileSync('sh', ['-c', 'command -v kubectl'], { encoding: 'utf8' }).trim();
  } catch {
    // Not installed.
    return undefined;
  }
})();

/** Why tests with kubectl cannot run here; undefined where they can, and where they must. */
export const withoutKubectl = kubectlPath === undefined && !process.env.CI ? 'kubectl is not installed' : undefined;

export interface Output {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface KubectlFixture {
  readonly api: ApiServer;
  readonly kubeconfigFile: string;
  readonly url: string;
  /** Runs kubectl to its end; never throws for its exit code. */
  run(args: string, options?: { input?: string; env?: Record<string, string> }): Promise<Output>;
  /** Runs kubectl and returns what it printed. @throws {Error} with its error output where it fails */
  ok(args: string, input?: string): Promise<string>;
  /** Starts kubectl and leaves it running; killed with the test. */
  start(args: string, env?: Record<string, string>): { readonly lines: AsyncIterator<string>; kill(): void };
}

const TIMEOUT_MS = 30_000;

/** Pods of the node `n1` run commands of this machine; their ports are ports of loopback. */
const hostKubelet: KubeletStreams = {
  async *logs(pod, container, { follow, tailLines = 3 }) {
    for (let i = 3 - Math.min(tailLines, 3); i < 3; i++) {
      if (follow && i > 0) await new Promise((resolve) => setTimeout(resolve, 20));
      yield Buffer.from(`line ${i} of ${pod.name}/${container}\n`);
    }
  },
  async exec(_pod, _container, [command = '', ...args], { stdin }) {
    const child = spawn(command, args, { stdio: [stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'] });
    const exit = new Promise<{ code: number }>((resolve, reject) =>
      child.once('error', reject).once('close', (code) => resolve({ code: code ?? 137 })),
    );
    const session: ExecSession = {
      stdout: child.stdout ?? new PassThrough(),
      stderr: child.stderr ?? new PassThrough(),
      exit,
      resize() {},
      kill: () => void child.kill(),
    };
    return child.stdin ? { ...session, stdin: child.stdin } : session;
  },
  portForward: (_pod, port) =>
    new Promise((resolve, reject) => {
      const socket = connect(port, '127.0.0.1', () => resolve(socket));
      socket.once('error', reject);
    }),
};

export async function startKubectl(t: TestContext): Promise<KubectlFixture> {
  const folder = mkdtempSync(join(tmpdir(), 'warren-kubectl-'));
  const api = new ApiServer({ clock: systemClock, log: silentLog, kubelets: (node) => (node === 'n1' ? hostKubelet : undefined) });
  const { port } = await api.listen({ host: '127.0.0.1', port: 0 });
  const kubeconfigFile = join(folder, 'kubeconfig');
  const url = `https://127.0.0.1:${port}`;
  writeFileSync(kubeconfigFile, api.kubeconfig(url));
  const environment = { PATH: process.env.PATH ?? '', HOME: folder, KUBECONFIG: kubeconfigFile, KUBE_EDITOR: 'false' };
  const started = new Set<() => void>();
  t.after(async () => {
    for (const kill of started) kill();
    await api.close();
    rmSync(folder, { recursive: true, force: true });
  });

  const run: KubectlFixture['run'] = (args, { input, env = {} } = {}) =>
    new Promise((resolve) => {
      const child = execFile(
        kubectlPath ?? 'kubectl',
        words(args),
        { env: { ...environment, ...env }, timeout: TIMEOUT_MS, maxBuffer: 64 << 20 },
        (error, out, err) => resolve({ code: error ? (typeof error.code === 'number' ? error.code : 1) : 0, out, err }),
      );
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(input ?? '');
    });

  return {
    api,
    kubeconfigFile,
    url,
    run,
    async ok(args, input) {
      const { code, out, err } = await run(args, input === undefined ? {} : { input });
      if (code !== 0) throw new Error(`kubectl ${args} ended with ${code}: ${err}`);
      return out;
    },
    start(args, env = {}) {
      const child = spawn(kubectlPath ?? 'kubectl', words(args), { env: { ...environment, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
      const kill = (): void => void child.kill();
      started.add(kill);
      return { lines: linesOf(child.stdout), kill };
    },
  };
}

async function* linesOf(stream: NodeJS.ReadableStream): AsyncGenerator<string> {
  let rest = '';
  for await (const chunk of stream) {
    const parts = (rest + String(chunk)).split('\n');
    rest = parts.pop() ?? '';
    yield* parts;
  }
}

/** Splits at spaces, but not inside single quotes. */
const words = (text: string): string[] => (text.match(/(?:'[^']*'|[^\s'])+/g) ?? []).map((word) => word.replaceAll("'", ''));
