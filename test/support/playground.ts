/**
 * A playground for one test: under a name of its own, gone when the test ends, passed or not. Commands go through the real kubectl, so a
 * test sees what a user sees.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import type { TestContext } from 'node:test';
import { CHECKOUT } from '../../playground/images.ts';
import { nodeProcess } from '../../playground/instance.ts';
import { missingRequirement } from '../../playground/outside.ts';
import { type KubeCommands, kubeCommands, poll, whyNoKubectl } from './kube-commands.ts';
import { command, withoutNamespaces } from './netns.ts';

export interface PlaygroundOptions {
  /** With istiod, ztunnel and the node agent, all ready. */
  readonly mesh?: boolean;
  readonly nodes?: number;
  readonly logLevel?: string;
}

export interface TestPlayground extends KubeCommands {
  readonly name: string;
  /** The outer process. */
  readonly process: ChildProcess;
  /** What it printed so far. */
  output(): string;
  node(name: string): TestNode;
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
  // Ended in order when this process is killed: it may hang.
  const argv = ['--pdeathsig', 'TERM', process.execPath, ...playgroundArguments(...up, ...(mesh ? ['--mesh'] : []))];
  const child = spawn('setpriv', argv, { stdio: ['ignore', 'pipe', 'pipe'] });
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

  return {
    ...kubeCommands(kubeconfig),
    name,
    process: child,
    output: () => output,
    node(node) {
      const enter = (): string[] => [`--target=${nodeProcess(name, node)}`, '--mount', '--net', '--uts'];
      return {
        run: (...argv) => command('nsenter', ...enter(), '--pid', ...argv),
        spawn: (...argv) => spawn('nsenter', [...enter(), ...argv], { stdio: ['ignore', 'pipe', 'pipe'] }),
      };
    },
    stop,
  };
}

function reasonToSkip(): string | undefined {
  const reason = withoutNamespaces ?? missingRequirement() ?? whyNoKubectl();
  if (reason !== undefined && process.env.CI) throw new Error(`CI is set, so this may not be skipped: ${reason}`);
  return reason;
}
