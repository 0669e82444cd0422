/**
 * Real Kubernetes for one test, by scripts/cluster: under a name of its own, gone when the test ends, passed or not. It has the methods of a
 * playground (playground.ts), so that a test can move from one to the other.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { nodeProcess } from '../../playground/instance.ts';
import { missingRequirement } from '../../playground/outside.ts';
import { missingToBuild } from '../cluster/build.ts';
import { whyNoGroups } from '../cluster/cgroups.ts';
import { type KubeCommands, kubeCommands, poll, runProgram, succeeded, whyNoKubectl } from './kube-commands.ts';
import { command, withoutNamespaces } from './netns.ts';
import type { TestNode } from './playground.ts';

export interface ClusterOptions {
  readonly nodes?: number;
  /** Image archives for every node (scripts/images). */
  readonly images?: readonly string[];
  /** With the Gateway API's definitions. */
  readonly gatewayApi?: boolean;
}

export interface TestCluster extends KubeCommands {
  readonly name: string;
  /** `scripts/cluster up`. */
  readonly process: ChildProcess;
  /** What it printed so far. */
  output(): string;
  node(name: string): TestNode;
  /** A command of scripts/cluster on this cluster that must succeed. @returns what it printed */
  cluster(command: string, ...args: readonly string[]): Promise<string>;
  /** Ends it now, in order; the test's end does it as well. */
  stop(): Promise<void>;
}

/** undefined where a cluster can run; the reason to skip otherwise. Under CI the absence is a failure. */
export const withoutCluster: string | undefined = reasonToSkip();

// What is built the first time takes minutes (scripts/test builds it before the tests).
const START_TIMEOUT_MS = 1_200_000;
const LOAD_TIMEOUT_MS = 300_000;
const MAIN = join(import.meta.dirname, '../cluster/main.ts');
let counter = 0;

export async function startCluster(
  t: TestContext,
  { nodes = 2, images = [], gatewayApi = false }: ClusterOptions = {},
): Promise<TestCluster> {
  const name = `test-${process.pid}-${counter++}`;
  const folder = mkdtempSync(join(tmpdir(), 'warren-test-'));
  const kubeconfig = join(folder, 'kubeconfig');
  const ready = join(folder, 'ready');
  const up = ['up', '--name', name, '--nodes', String(nodes), '--kubeconfig', kubeconfig, '--ready-file', ready];
  // Ended in order when this process is killed: it may hang.
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', process.execPath, MAIN, ...up], { stdio: ['ignore', 'pipe', 'pipe'] });
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
  await poll('the cluster did not come up', START_TIMEOUT_MS, () => {
    if (child.exitCode !== null) throw new Error(`the cluster ended with ${child.exitCode}`);
    try {
      return readFileSync(ready, 'utf8') !== '';
    } catch {
      // Not yet.
      return false;
    }
  }).catch((error: unknown) => {
    throw new Error(`${error instanceof Error ? error.message : String(error)}\n${output}`);
  });
  const cluster = async (what: string, ...args: readonly string[]): Promise<string> =>
    succeeded(
      `scripts/cluster ${what} ${args.join(' ')}`,
      await runProgram(process.execPath, [MAIN, what, '--name', name, ...args], undefined, LOAD_TIMEOUT_MS),
    );
  if (images.length > 0) await cluster('load', ...images);
  if (gatewayApi) await cluster('gateway-api');
  return {
    ...kubeCommands(kubeconfig),
    name,
    process: child,
    output: () => output,
    node(node) {
      const target = nodeProcess(name, node, 'cluster');
      // For what goes on, not its PID namespace: nsenter would fork to enter it, and what we end or wait for would be nsenter alone. What is
      // run to its end has it, so that process numbers mean the node's: a `kill` outside would hit the machine's.
      const enter = [`--target=${target}`, ...['--mount', '--net', '--uts', '--ipc', '--cgroup']];
      return {
        run: (...argv) => command('nsenter', ...enter, '--pid', '--', ...argv),
        spawn: (...argv) => spawn('nsenter', [...enter, '--', ...argv], { stdio: ['ignore', 'pipe', 'pipe'] }),
      };
    },
    cluster,
    stop,
  };
}

function reasonToSkip(): string | undefined {
  const reason = withoutNamespaces ?? missingRequirement() ?? whyNoGroups() ?? missingToBuild() ?? whyNoKubectl();
  if (reason !== undefined && process.env.CI) throw new Error(`CI is set, so this may not be skipped: ${reason}`);
  return reason;
}
