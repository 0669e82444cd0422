/** Load from a pod of a cluster (load-program.mjs), and what was lost of it while something happened. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeCommands } from './kube-commands.ts';
import { podProgram } from './pod-program.ts';

export interface Tally {
  /** Short requests, a connection each. */
  readonly sent: number;
  readonly lost: number;
  /** Requests on long connections, and how many of these ended in the middle of one, and between two. */
  readonly longSent: number;
  readonly cut: number;
  readonly renewed: number;
}

export interface PodLoad {
  /** @returns the difference that `what` made, by target; each line of it goes to `tell` */
  during(what: () => Promise<void>): Promise<Readonly<Record<string, Tally>>>;
}

export interface PodLoadOptions {
  readonly cluster: KubeCommands;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly node: string;
  readonly targets: readonly string[];
  readonly tell: (line: string) => void;
}

const NOTHING: Tally = { sent: 0, lost: 0, longSent: 0, cut: 0, renewed: 0 };
/** What it goes on for after something happened. */
const CALM_MS = 3000;
const START_TIMEOUT_MS = 120_000;
const MOST_FAILURES = 20;

/** Starts a pod `load` from the image of the echo program. */
export async function startPodLoad({ cluster, namespace, serviceAccount, node, targets, tell }: PodLoadOptions): Promise<PodLoad> {
  const program = podProgram('load-program.mjs');
  await cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: load, namespace: ${namespace}, labels: { app: load } }
spec:
  serviceAccountName: ${serviceAccount}
  nodeSelector: { kubernetes.io/hostname: ${node} }
  terminationGracePeriodSeconds: 0
  containers:
    - name: load
      image: warren/echo:0.1.0
      imagePullPolicy: Never
      command: [node, --input-type=module, -e, ${JSON.stringify(program)}]
      env: [{ name: TARGETS, value: ${JSON.stringify(targets.join(','))} }]
`);
  await cluster.podsReady(namespace, START_TIMEOUT_MS);
  const lines = async (...more: string[]): Promise<string[]> =>
    (await cluster.kubectl('logs', '-n', namespace, 'load', ...more)).split('\n');
  const tallies = async (): Promise<Record<string, Tally>> => {
    const last = (await lines('--tail=20')).findLast((line) => line.startsWith('{'));
    // The load program's.
    return JSON.parse(last ?? '{}') as Record<string, Tally>;
  };
  const failures = async (): Promise<string[]> => (await lines()).filter((line) => / (?:lost|cut) /.test(line));
  return {
    async during(what) {
      await cluster.eventually('the load does not run', async () => {
        const all = Object.values(await tallies());
        return all.length === targets.length && all.every(({ sent }) => sent > 20);
      });
      const [before, failedBefore] = [await tallies(), await failures()];
      await what();
      await sleep(CALM_MS);
      const after = await tallies();
      const change = Object.entries(after).map(([target, now]): [string, Tally] => [target, difference(now, before[target] ?? NOTHING)]);
      for (const [target, { sent, lost, longSent, cut, renewed }] of change)
        tell(`${target}: ${lost} of ${sent} requests lost; of long connections ${cut} cut, ${renewed} renewed (${longSent} requests)`);
      for (const failure of (await failures()).slice(failedBefore.length).slice(0, MOST_FAILURES)) tell(failure);
      const stoodStill = change.some(([, { sent, longSent }]) => sent < 50 || longSent < 5);
      assert.ok(!stoodStill, 'the load stood still');
      return Object.fromEntries(change);
    },
  };
}

const difference = (now: Tally, then: Tally): Tally => ({
  sent: now.sent - then.sent,
  lost: now.lost - then.lost,
  longSent: now.longSent - then.longSent,
  cut: now.cut - then.cut,
  renewed: now.renewed - then.renewed,
});
