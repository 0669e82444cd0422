/**
 * The real kubectl and meshctl against a playground or a cluster of Kubernetes, so that a test sees what a user sees; what is asked by the hundred,
 * without kubectl.
 */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import yaml from 'js-yaml';
import { type Companion, execInPod, startCompanion } from './kube-exec.ts';
import { apiReader } from './kube-reader.ts';
import { command } from './netns.ts';

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface KubeCommands {
  readonly kubeconfig: string;
  /** kubectl to its end, whatever its exit status. */
  tryKubectl(...args: readonly string[]): Promise<Ran>;
  /** kubectl that must succeed. @returns its standard output. @throws with what it said */
  kubectl(...args: readonly string[]): Promise<string>;
  /** meshctl of this checkout to its end, in a process of its own, whatever its exit status. */
  tryMeshctl(...args: readonly string[]): Promise<Ran>;
  /** meshctl that must succeed. @returns its standard output. @throws with what it said */
  meshctl(...args: readonly string[]): Promise<string>;
  /** `kubectl apply -f -` with YAML documents. */
  apply(text: string): Promise<string>;
  /** A command in a pod (`name`, `deploy/name`), whatever its exit status. */
  exec(namespace: string, pod: string, ...command: readonly string[]): Promise<Ran>;
  /** A program in a pod that answers line by line for as long as the test wants: asking it starts nothing. */
  companion(namespace: string, pod: string, ...command: readonly string[]): Promise<Companion>;
  /** The echo client in a pod; `client(…)` must succeed. @returns what it printed */
  client(namespace: string, pod: string, ...request: readonly string[]): Promise<string>;
  /** Waits until all pods of the namespace are ready, and none is on its way out. */
  podsReady(namespace: string, timeoutMs?: number): Promise<void>;
  /** Polls until `holds` returns true. @throws with the complaint, and what `holds` threw last */
  eventually(complaint: string, holds: () => Promise<boolean> | boolean, timeoutMs?: number): Promise<void>;
}

const POLL_MS = 50;
const LONGEST_POLL_MS = 1000;
const MOST_PATIENCE = 4;
const KUBECTL_TIMEOUT_MS = 60_000;
// An install on Kubernetes waits until everything is ready: minutes on a busy machine.
const MESHCTL_TIMEOUT_MS = 300_000;
const MESHCTL = join(import.meta.dirname, '../../meshctl/main.ts');

export function kubeCommands(kubeconfig: string): KubeCommands {
  const tryKubectl = (...args: readonly string[]): Promise<Ran> => runProgram('kubectl', ['--kubeconfig', kubeconfig, ...args]);
  const kubectl = async (...args: readonly string[]): Promise<string> => succeeded(`kubectl ${args.join(' ')}`, await tryKubectl(...args));
  const tryMeshctl = (...args: readonly string[]): Promise<Ran> =>
    runProgram(process.execPath, [MESHCTL, '--kubeconfig', kubeconfig, ...args], undefined, MESHCTL_TIMEOUT_MS);
  const api = apiReader(kubeconfig);
  const exec = (namespace: string, pod: string, ...argv: readonly string[]): Promise<Ran> =>
    execInPod(api, namespace, pod, argv, KUBECTL_TIMEOUT_MS);
  return {
    kubeconfig,
    tryKubectl,
    kubectl,
    tryMeshctl,
    meshctl: async (...args) => succeeded(`meshctl ${args.join(' ')}`, await tryMeshctl(...args)),
    apply: async (text) => {
      // As one list: kubectl takes a document that begins with a brace for JSON.
      const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: yaml.loadAll(text).filter((document) => document !== null) });
      return succeeded('kubectl apply', await runProgram('kubectl', ['--kubeconfig', kubeconfig, 'apply', '-f', '-'], list));
    },
    exec,
    companion: (namespace, pod, ...argv) => startCompanion(api, namespace, pod, argv),
    client: async (namespace, pod, ...request) =>
      succeeded(`client ${request.join(' ')} in ${pod}`, await exec(namespace, pod, 'client', ...request)),
    async podsReady(namespace, timeoutMs = KUBECTL_TIMEOUT_MS) {
      let seen = '';
      await poll(`pods of ${namespace} are not ready`, timeoutMs, async () => {
        // Asked very often, and nobody looks at how: no kubectl for each time.
        const list = (await api.read(`/api/v1/namespaces/${namespace}/pods`)) as { items: RawPod[] };
        seen = list.items.map(({ metadata, status }) => `${metadata.name} ${status.phase}`).join(', ');
        return list.items.length > 0 && list.items.every(isSettled);
      }).catch((error: unknown) => {
        throw new Error(`${String(error)}: ${seen}`);
      });
    },
    eventually: (complaint, holds, timeoutMs = 30_000) => poll(complaint, timeoutMs, holds),
  };
}

/** A program to its end. */
export function runProgram(program: string, args: readonly string[], input?: string, timeoutMs = KUBECTL_TIMEOUT_MS): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(program, [...args], { maxBuffer: 64 << 20, timeout: timeoutMs }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : 1, stdout, stderr });
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

export function succeeded(what: string, { code, stdout, stderr }: Ran): string {
  if (code !== 0) throw new Error(`${what} exited with ${code}: ${stderr.trim() || stdout.trim()}`);
  return stdout;
}

/** What takes long to ask is asked less often, or a wait would keep a processor busy with starting kubectl. */
export async function poll(complaint: string, timeoutMs: number, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (let patience = 1; ; patience = Math.min(patience + 1, MOST_PATIENCE)) {
    const askedMs = performance.now();
    if (await holds()) return;
    const now = performance.now();
    if (now > deadline) throw new Error(`${complaint} (after ${timeoutMs / 1000} s)`);
    await new Promise((resolve) => setTimeout(resolve, Math.min(POLL_MS + (now - askedMs) * patience, LONGEST_POLL_MS)));
  }
}

export function whyNoKubectl(): string | undefined {
  try {
    command('kubectl', 'version', '--client');
    return undefined;
  } catch {
    return 'needs kubectl';
  }
}

interface RawPod {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status: { readonly phase: string; readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

const isSettled = ({ metadata, status }: RawPod): boolean =>
  metadata.deletionTimestamp === undefined &&
  (status.phase === 'Succeeded' ||
    (status.conditions ?? []).some((condition) => condition.type === 'Ready' && condition.status === 'True'));
