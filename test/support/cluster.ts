/**
 * Real Kubernetes for one test, by scripts/cluster: under a name of its own, gone when the test ends, passed or not. It has the methods of a
 * playground (playground.ts), so that a test can move from one to the other.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { nodeProcess } from '../../playground/instance.ts';
import { missingRequirement } from '../../playground/outside.ts';
import { missingToBuild } from '../cluster/build.ts';
import { whyNoGroups } from '../cluster/cgroups.ts';
import { type KubeCommands, kubeCommands, runProgram, succeeded, whyNoKubectl } from './kube-commands.ts';
import { command, withoutNamespaces } from './netns.ts';
import type { TestNode } from './playground.ts';
import { startUp, type UpProcess } from './up-process.ts';

export interface ClusterOptions {
  readonly nodes?: number;
  /** Image archives for every node (scripts/images). */
  readonly images?: readonly string[];
  /** With the Gateway API's definitions. */
  readonly gatewayApi?: boolean;
}

export interface TestCluster extends KubeCommands, UpProcess {
  node(name: string): TestNode;
  /** A command of scripts/cluster on this cluster that must succeed. @returns what it printed */
  cluster(command: string, ...args: readonly string[]): Promise<string>;
}

/** undefined where a cluster can run; the reason to skip otherwise. Under CI the absence is a failure. */
export const withoutCluster: string | undefined = reasonToSkip();

// What is built the first time takes minutes (scripts/test builds it before the tests).
const START_TIMEOUT_MS = 1_200_000;
const LOAD_TIMEOUT_MS = 300_000;
const MAIN = join(import.meta.dirname, '../cluster/main.ts');

export async function startCluster(
  t: TestContext,
  { nodes = 2, images = [], gatewayApi = false }: ClusterOptions = {},
): Promise<TestCluster> {
  const up = await startUp(t, { what: 'cluster', main: MAIN, args: ['--nodes', String(nodes)], timeoutMs: START_TIMEOUT_MS });
  const { name } = up;
  const cluster = async (what: string, ...args: readonly string[]): Promise<string> =>
    succeeded(
      `scripts/cluster ${what} ${args.join(' ')}`,
      await runProgram(process.execPath, [MAIN, what, '--name', name, ...args], undefined, LOAD_TIMEOUT_MS),
    );
  if (images.length > 0) await cluster('load', ...images);
  if (gatewayApi) await cluster('gateway-api');
  return {
    ...up,
    ...kubeCommands(up.kubeconfig),
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
  };
}

function reasonToSkip(): string | undefined {
  const reason = withoutNamespaces ?? missingRequirement() ?? whyNoGroups() ?? missingToBuild() ?? whyNoKubectl();
  if (reason !== undefined && process.env.CI) throw new Error(`CI is set, so this may not be skipped: ${reason}`);
  return reason;
}
