/** Clients in a pod of a playground that keep their connections (kept-load.mjs): what failed of theirs, and which addresses answered. */
import assert from 'node:assert/strict';
import { nodeInPods, type TestPlayground } from './playground.ts';
import { podProgram } from './pod-program.ts';

export interface KeptLoad {
  /** @throws {AssertionError} with the failures, where a request failed while it lasted */
  during(what: string, happens: () => Promise<void>): Promise<void>;
  /** Of the last seconds: how many times the mean of all the busiest one answers. */
  busiestOfMean(seconds: number, addresses: readonly string[]): Promise<number>;
}

/** Addresses of the ready replicas of a waypoint. */
export async function waypointAddresses(cluster: TestPlayground, namespace: string): Promise<string[]> {
  const fields =
    'jsonpath={range .items[*]}{.metadata.deletionTimestamp} {.status.podIP} {.status.conditions[?(@.type=="Ready")].status}{"\\n"}{end}';
  const all = await cluster.kubectl('get', 'pods', '-n', namespace, '-l', 'gateway.networking.k8s.io/gateway-name=waypoint', '-o', fields);
  return [...all.matchAll(/^ (\S+) True$/gm)].map(([, ip = '']) => ip);
}

/** Gives the Gateway `waypoint` so many replicas, by its ConfigMap, and waits until they are ready. */
export async function scaleWaypoint(cluster: TestPlayground, namespace: string, replicas: number): Promise<void> {
  const deployment = `spec: { replicas: ${replicas} }`;
  const config = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'waypoint', namespace }, data: { deployment } };
  await cluster.apply(JSON.stringify(config));
  const parametersRef = { group: '', kind: 'ConfigMap', name: 'waypoint' };
  const patch = JSON.stringify({ spec: { infrastructure: { parametersRef } } });
  await cluster.kubectl('patch', '-n', namespace, 'gateway/waypoint', '--type=merge', '-p', patch);
  await cluster.eventually(`${replicas} waypoints`, async () => (await waypointAddresses(cluster, namespace)).length === replicas, 120_000);
}

interface Line {
  readonly at: number;
  readonly by: Readonly<Record<string, number>>;
  readonly sent: number;
  readonly failed: number;
}

export interface KeptLoadOptions {
  readonly namespace: string;
  readonly url: string;
  /** Connections that are kept. */
  readonly kept: number;
  /** Between two requests on each. */
  readonly everyMs: number;
  readonly serviceAccount?: string;
}

/** Starts a pod `load` and waits until all of its clients have asked. */
export async function startKeptLoad(
  cluster: TestPlayground,
  { namespace, url, kept, everyMs, serviceAccount = 'default' }: KeptLoadOptions,
): Promise<KeptLoad> {
  const program = podProgram('kept-load.mjs');
  const env = [
    { name: 'URL', value: url },
    { name: 'KEPT', value: String(kept) },
    { name: 'EVERY_MS', value: String(everyMs) },
  ];
  const container = { name: 'load', image: 'any', command: [nodeInPods, '--input-type=module', '-e', program], env };
  await cluster.apply(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'load', namespace, labels: { app: 'load' } },
      spec: { serviceAccountName: serviceAccount, terminationGracePeriodSeconds: 0, containers: [container] },
    }),
  );
  const logged = async (): Promise<string[]> => (await cluster.kubectl('logs', '-n', namespace, 'load')).split('\n');
  const lines = (all: readonly string[]): Line[] => all.flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as Line] : []));
  const sent = async (): Promise<number> => lines(await logged()).at(-1)?.sent ?? 0;
  await cluster.eventually('the load does not run', async () => (await sent()) > 2 * kept, 120_000);
  return {
    async during(what, happens) {
      const before = (await logged()).filter((line) => line.includes(' failed ')).length;
      const from = await sent();
      await happens();
      // What was under way when it was over counts too.
      await cluster.eventually('the load stands still', async () => (await sent()) > from + 2 * kept, 120_000);
      const failed = (await logged()).filter((line) => line.includes(' failed ')).slice(before);
      assert.deepEqual(failed, [], what);
    },
    async busiestOfMean(seconds, addresses) {
      const last = lines(await logged()).slice(-seconds);
      const counts = addresses.map((address) => last.reduce((sum, { by }) => sum + (by[address] ?? 0), 0));
      return Math.max(...counts) / (counts.reduce((sum, count) => sum + count, 0) / counts.length);
    },
  };
}
