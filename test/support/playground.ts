/**
 * A playground for one test: under a name of its own, gone when the test ends, passed or not. Commands go through the real kubectl, so a
 * test sees what a user sees.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { join, relative } from 'node:path';
import type { TestContext } from 'node:test';
import { CHECKOUT } from '../../playground/images.ts';
import { nodeProcess } from '../../playground/instance.ts';
import { missingRequirement } from '../../playground/outside.ts';
import { type KubeCommands, kubeCommands, whyNoKubectl } from './kube-commands.ts';
import { command, withoutNamespaces } from './netns.ts';
import { startUp, type UpProcess } from './up-process.ts';

export interface PlaygroundOptions {
  /** With istiod, ztunnel and the node agent, all ready. */
  readonly mesh?: boolean;
  readonly nodes?: number;
  readonly logLevel?: string;
}

export interface TestPlayground extends KubeCommands, UpProcess {
  node(name: string): TestNode;
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
const MAIN = join(root, 'playground/main.ts');
const START_TIMEOUT_MS = 90_000;

export const playgroundArguments = (...args: readonly string[]): string[] => [MAIN, ...args];

export async function startPlayground(
  t: TestContext,
  { mesh = false, nodes = 2, logLevel = 'error' }: PlaygroundOptions = {},
): Promise<TestPlayground> {
  const args = ['--nodes', String(nodes), '--log-level', logLevel, ...(mesh ? ['--mesh'] : [])];
  const up = await startUp(t, { what: 'playground', main: MAIN, args, timeoutMs: START_TIMEOUT_MS });
  return {
    ...up,
    ...kubeCommands(up.kubeconfig),
    node(node) {
      const enter = (): string[] => [`--target=${nodeProcess(up.name, node)}`, '--mount', '--net', '--uts'];
      return {
        run: (...argv) => command('nsenter', ...enter(), '--pid', ...argv),
        spawn: (...argv) => spawn('nsenter', [...enter(), ...argv], { stdio: ['ignore', 'pipe', 'pipe'] }),
      };
    },
  };
}

function reasonToSkip(): string | undefined {
  const reason = withoutNamespaces ?? missingRequirement() ?? whyNoKubectl();
  if (reason !== undefined && process.env.CI) throw new Error(`CI is set, so this may not be skipped: ${reason}`);
  return reason;
}
