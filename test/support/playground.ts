/**
 * A playground for one test: under a name of its own, gone when the test ends, passed or not. Commands go through the real kubectl, so a
 * test sees what a user sees.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import type { TestContext } from 'node:test';
import yaml from 'js-yaml';
import { CHECKOUT } from '../../playground/images.ts';
import { nodeProcess } from '../../playground/instance.ts';
import { missingRequirement } from '../../playground/outside.ts';
import { command, withoutNamespaces } from './netns.ts';

export interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface PlaygroundOptions {
  /** With istiod, ztunnel and the node agent, all ready. */
  readonly mesh?: boolean;
  readonly nodes?: number;
  readonly logLevel?: string;
}

export interface TestPlayground {
  readonly name: string;
  readonly kubeconfig: string;
  /** The outer process. */
  readonly process: ChildProcess;
  /** What it printed so far. */
  output(): string;
  /** kubectl to its end, whatever its exit status. */
  tryKubectl(...args: readonly string[]): Promise<Ran>;
  /** kubectl that must succeed. @returns its standard output. @throws with what it said */
  kubectl(...args: readonly string[]): Promise<string>;
  /** `kubectl apply -f -` with YAML documents. */
  apply(text: string): Promise<string>;
  /** A command in a pod (`name`, `deploy/name`), whatever its exit status. */
  exec(namespace: string, pod: string, ...command: readonly string[]): Promise<Ran>;
  /** The echo client in a pod; `client(…)` must succeed. @returns what it printed */
  client(namespace: string, pod: string, ...request: readonly string[]): Promise<string>;
  /** Waits until all pods of the namespace are ready, and none is on its way out. */
  podsReady(namespace: string): Promise<void>;
  node(name: string): TestNode;
  /** Polls until `holds` returns true. @throws with the complaint, and what `holds` threw last */
  eventually(complaint: string, holds: () => Promise<boolean> | boolean, timeoutMs?: number): Promise<void>;
  /** Ends it now, in order; the test's end does it as well. */
  stop(): Promise<void>;
}

export interface TestNode {
  /** Runs a command in the node's network and mounts. @throws where it fails */
  run(...command: readonly string[]): string;
  /** Starts one that goes on, such as tcpdump; it ends with the playground at the latest. */
  spawn(...command: readonly string[]): ChildProcess;
}

/** undefined where a playground can run; the reason to skip otherwise. Under CI the absence is a failure. */
export const withoutPlayground: string | undefined = reasonToSkip();

export const root: string = join(import.meta.dirname, '../..');
/** Node as pods see it: the checkout's own path may lie where they see something else, such as /tmp. */
export const nodeInPods: string = join(CHECKOUT, relative(root, process.execPath));
const START_TIMEOUT_MS = 90_000;
const POLL_MS = 50;
const KUBECTL_TIMEOUT_MS = 60_000;
let counter = 0;

export const playgroundArguments = (...args: readonly string[]): string[] => [join(root, 'playground/main.ts'), ...args];

export async function startPlayground(
  t: TestContext,
  { mesh = false, nodes = 2, logLevel = 'error' }: PlaygroundOptions = {},
): Promise<TestPlayground> {
  const name = `test-${process.pid}-${counter++}`;
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  const kubeconfig = join(folder, 'kubeconfig');
  const ready = join(folder, 'ready');
  const up = ['up', '--name', name, '--nodes', String(nodes), '--kubeconfig', kubeconfig, '--ready-file', ready, '--log-level', logLevel];
  const child = spawn(process.execPath, playgroundArguments(...up, ...(mesh ? ['--mesh'] : [])), { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-100_000);
    });
  }
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
    await exited;
  };
  t.after(async () => {
    await stop();
    rmSync(folder, { recursive: true, force: true });
  });
  await poll(`the playground did not come up`, START_TIMEOUT_MS, () => {
    if (child.exitCode !== null) throw new Error(`the playground ended with ${child.exitCode}:\n${output}`);
    try {
      return readFileSync(ready, 'utf8') !== '';
    } catch {
      // Not yet.
      return false;
    }
  }).catch((error: unknown) => {
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${output}`);
  });

  const tryKubectl = (...args: readonly string[]): Promise<Ran> => runProgram('kubectl', ['--kubeconfig', kubeconfig, ...args]);
  const kubectl = async (...args: readonly string[]): Promise<string> => succeeded(`kubectl ${args.join(' ')}`, await tryKubectl(...args));
  const exec = (namespace: string, pod: string, ...argv: readonly string[]): Promise<Ran> =>
    tryKubectl('exec', '-n', namespace, pod, '--', ...argv);
  return {
    name,
    kubeconfig,
    process: child,
    output: () => output,
    tryKubectl,
    kubectl,
    apply: async (text) => {
      // As one list: kubectl takes a document that begins with a brace for JSON.
      const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: yaml.loadAll(text).filter((document) => document !== null) });
      return succeeded('kubectl apply', await runProgram('kubectl', ['--kubeconfig', kubeconfig, 'apply', '-f', '-'], list));
    },
    exec,
    client: async (namespace, pod, ...request) =>
      succeeded(`client ${request.join(' ')} in ${pod}`, await exec(namespace, pod, 'client', ...request)),
    async podsReady(namespace) {
      let seen = '';
      await poll(`pods of ${namespace} are not ready`, KUBECTL_TIMEOUT_MS, async () => {
        const list = JSON.parse(await kubectl('get', 'pods', '-n', namespace, '-o', 'json')) as { items: RawPod[] };
        seen = list.items.map(({ metadata, status }) => `${metadata.name} ${status.phase}`).join(', ');
        return list.items.length > 0 && list.items.every(isSettled);
      }).catch((error: unknown) => {
        throw new Error(`${String(error)}: ${seen}`);
      });
    },
    node(node) {
      const enter = (): string[] => [`--target=${nodeProcess(name, node)}`, '--mount', '--net', '--uts'];
      return {
        run: (...argv) => command('nsenter', ...enter(), ...argv),
        spawn: (...argv) => spawn('nsenter', [...enter(), ...argv], { stdio: ['ignore', 'pipe', 'pipe'] }),
      };
    },
    eventually: (complaint, holds, timeoutMs = 30_000) => poll(complaint, timeoutMs, holds),
    stop,
  };
}

/** A program to its end. */
export function runProgram(program: string, args: readonly string[], input?: string): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(program, [...args], { maxBuffer: 64 << 20, timeout: KUBECTL_TIMEOUT_MS }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : 1, stdout, stderr });
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(input);
  });
}

function succeeded(what: string, { code, stdout, stderr }: Ran): string {
  if (code !== 0) throw new Error(`${what} exited with ${code}: ${stderr.trim() || stdout.trim()}`);
  return stdout;
}

async function poll(complaint: string, timeoutMs: number, holds: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    if (await holds()) return;
    if (performance.now() > deadline) throw new Error(`${complaint} (after ${timeoutMs / 1000} s)`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
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

function reasonToSkip(): string | undefined {
  const reason = withoutNamespaces ?? missingRequirement() ?? whyNoKubectl();
  if (reason !== undefined && process.env.CI) throw new Error(`CI is set, so this may not be skipped: ${reason}`);
  return reason;
}

function whyNoKubectl(): string | undefined {
  try {
    command('kubectl', 'version', '--client');
    return undefined;
  } catch {
    return 'needs kubectl';
  }
}
