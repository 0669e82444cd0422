/**
 * istiod-lite as a release before a generated cluster, with simulated ztunnels: how long a changed pod takes to the last of them, what a
 * connect storm costs, memory, and start to ready; beside it, where ISTIOD_BIN names one, Istio's own in the same place. The API server is the
 * playground's, and with --cluster a real one with etcd as well. Both programs have the same cluster, one after the other. Then, for ours
 * alone, a cluster ten times as large. Sizes can be changed by ISTIOD_BENCH=SERVICES,PODS,NODES,ZTUNNELS,SECONDS,TIMES-LARGER; 0 times leaves
 * the last part out. Where the other program fails its rows are missing, and ours are there.
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KubeApi } from '../common/client/kube-api.ts';
import { absoluteRow, type Bench, type Row, ratioRow } from './rows.ts';
import { usageOf } from './support/process-usage.ts';
import { buildRelease } from './support/release.ts';

const BENCH = 'istiod';
const [SERVICES = 1000, PODS = 10_000, NODES = 100, ZTUNNELS = 100, SECONDS = 15, LARGER = 10] = (process.env.ISTIOD_BENCH ?? '')
  .split(',')
  .flatMap((text) => (text === '' ? [] : [Number(text)]));
const RATES = [10, 100];
/** For each step, on a busy machine: filling a real API server is the longest. */
const FILL_PATIENCE_MS = 300_000;
const PATIENCE_MS = 90_000;

const SERVERS = {
  playground: 'cluster-server.ts',
  Kubernetes: 'kubernetes-server.ts',
  plain: 'plain-server.ts',
} as const;

type ServerName = keyof typeof SERVERS;

interface Sizes {
  readonly services: number;
  readonly pods: number;
  readonly nodes: number;
}

/** A program and what it has to do. */
interface Case {
  readonly name: string;
  readonly argv: readonly string[];
  readonly ztunnels: number;
  readonly rates: readonly number[];
}

/** An API server with everything in it. */
interface Cluster extends Sizes {
  readonly process: ChildProcess;
  readonly folder: string;
  /** Of the ztunnels. */
  readonly token: string;
}

interface Measured {
  readonly startToReadyMs: number;
  /** Processor time until ready, and of the storm: what a loaded machine does not change. */
  readonly startCpuSeconds: number;
  readonly storm: { readonly ms: number; readonly refused: number; readonly cpuSeconds: number };
  readonly rssReadyMb: number;
  readonly rssConnectedMb: number;
  readonly rates: readonly { readonly perSecond: number; readonly p50: number; readonly p99: number; readonly cores: number }[];
  readonly rssAfterMb: number;
}

export const bench: Bench = {
  name: BENCH,
  doc: 'istiod-lite before a generated cluster with simulated ztunnels: changes, connect storm, memory, start; beside ISTIOD_BIN; --cluster',
  onCluster: true,
  async run({ cluster }) {
    const { ISTIOD_BIN } = process.env;
    const ours = [process.execPath, join(buildRelease(), 'istiod-lite/main.js'), 'discovery'];
    const all = { ztunnels: ZTUNNELS, rates: RATES };
    const sizes = { services: SERVICES, pods: PODS, nodes: NODES };
    const rows: Row[] = [];
    for (const server of cluster ? (['playground', 'Kubernetes'] as const) : (['playground'] as const)) {
      await withCluster(server, sizes, async (filled) => {
        const measured = await measure({ ...all, name: 'ours', argv: ours }, filled);
        const peer = ISTIOD_BIN ? await unlessFails({ ...all, name: 'ISTIOD_BIN', argv: [ISTIOD_BIN, 'discovery'] }, filled) : undefined;
        rows.push(...rowsOf(cluster ? `${server}: ` : '', measured, peer));
      });
    }
    if (LARGER === 0) return rows;
    // One ztunnel: what a change costs istiod itself, and not what a hundred copies of it do.
    const few = { name: 'ours', argv: ours, ztunnels: 1, rates: [RATES[0] ?? 10] } as const;
    const times = (n: number): Sizes => ({ services: SERVICES * n, pods: PODS * n, nodes: NODES * n });
    const small = await withCluster('plain', times(1), (filled) => measure(few, filled));
    const large = await withCluster('plain', times(LARGER), (filled) => measure(few, filled));
    return [...rows, ...largeRows(small, large)];
  },
};

async function withCluster<T>(server: ServerName, sizes: Sizes, run: (cluster: Cluster) => Promise<T>): Promise<T> {
  const { services, pods, nodes } = sizes;
  const folder = mkdtempSync(join(tmpdir(), 'warren-bench-istiod-'));
  const children: ChildProcess[] = [];
  try {
    const begun = performance.now();
    const process = child(children, SERVERS[server], [folder, String(services), String(pods), String(nodes)]);
    const { token } = await message<{ token: string }>(process, 'token', FILL_PATIENCE_MS);
    const took = ((performance.now() - begun) / 1000).toFixed(1);
    console.error(`a cluster of ${services} services, ${pods} pods and ${nodes} nodes (${server}), filled in ${took} s`);
    return await run({ ...sizes, process, folder, token });
  } finally {
    await end(children);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Its failure is its own: what was measured of ours stays. */
async function unlessFails(of: Case, cluster: Cluster): Promise<Measured | undefined> {
  try {
    return await measure(of, cluster);
  } catch (error) {
    console.error(`${of.name}: ${error instanceof Error ? error.message : String(error)}`);
    return undefined;
  }
}

async function measure(of: Case, { process: cluster, folder, token, services, pods }: Cluster): Promise<Measured> {
  const { name, argv, ztunnels } = of;
  const children: ChildProcess[] = [];
  const say = (text: string): void => console.error(`${name}: ${text}`);
  try {
    await forgetRoot(folder);
    const [grpc, monitoring, http] = [await freePort(), await freePort(), await freePort()];
    const begun = performance.now();
    const istiod = startProgram(children, folder, argv, { grpc, monitoring, http });
    await until('ready', async () => (await fetch(`http://127.0.0.1:${http}/ready`)).status === 200);
    const startToReadyMs = performance.now() - begun;
    const { rssMegabytes: rssReadyMb, cpuSeconds: startCpuSeconds } = usageOf(istiod);
    say(`ready after ${Math.round(startToReadyMs)} ms, ${Math.round(rssReadyMb)} MB`);
    const roots = join(folder, 'root.pem');
    await until('the root', async () => {
      writeFileSync(roots, await rootOf(folder));
      return true;
    });
    const clients = child(children, 'xds-clients.ts', [`localhost:${grpc}`, roots, String(ztunnels), String(services + pods)], {
      XDS_TOKEN: token,
    });
    const storm = await message<{ synced: number; refused: number }>(clients, 'synced', PATIENCE_MS);
    const { rssMegabytes: rssConnectedMb, cpuSeconds } = usageOf(istiod);
    say(
      `${ztunnels} ztunnels have everything after ${Math.round(storm.synced)} ms, ${storm.refused} refused, ${Math.round(rssConnectedMb)} MB`,
    );
    const rates = [];
    for (const perSecond of of.rates) {
      const rate = await changes({
        cluster,
        clients,
        istiod,
        perSecond,
        prefix: `change-${name.toLowerCase().replace('_', '-')}-${perSecond}`,
      });
      say(`${perSecond} changes a second: p50 ${Math.round(rate.p50)} ms, p99 ${Math.round(rate.p99)} ms, ${rate.cores.toFixed(2)} cores`);
      rates.push(rate);
    }
    const rssAfterMb = usageOf(istiod).rssMegabytes;
    return {
      startToReadyMs,
      startCpuSeconds,
      storm: { ms: storm.synced, refused: storm.refused, cpuSeconds: cpuSeconds - startCpuSeconds },
      rssReadyMb,
      rssConnectedMb,
      rates,
      rssAfterMb,
    };
  } catch (error) {
    const file = join(folder, 'istiod.log');
    const log = existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-5).join('\n') : '';
    throw new Error(`${error instanceof Error ? error.message : String(error)}; its log ends with:\n${log}`, { cause: error });
  } finally {
    await end(children);
  }
}

/** Those that have children of their own end them first. */
async function end(children: readonly ChildProcess[]): Promise<void> {
  const running = children.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
  const ended = Promise.all(running.map((each) => new Promise((resolve) => each.once('exit', resolve))));
  for (const each of running) each.kill('SIGTERM');
  await Promise.race([ended, sleep(1000)]);
  for (const each of running) each.kill('SIGKILL');
  await ended;
}

/** Pods at this rate, each timed from its creation until the last ztunnel has it. */
async function changes(o: { cluster: ChildProcess; clients: ChildProcess; istiod: number; perSecond: number; prefix: string }) {
  const { cluster, clients, istiod, perSecond, prefix } = o;
  const created = new Map<string, number>();
  const took = new Map<string, number>();
  const onCreated = (said: { created?: string; at?: number }): void => {
    if (said.created?.startsWith(`${prefix}-`)) created.set(said.created, said.at ?? 0);
  };
  const reached = new Map<string, number>();
  const onReached = (said: { reached?: string; at?: number; lost?: string }): void => {
    if (said.lost !== undefined) console.error(`a ztunnel lost its stream: ${said.lost}`);
    if (said.reached?.startsWith(`${prefix}-`) && !reached.has(said.reached)) reached.set(said.reached, said.at ?? 0);
  };
  cluster.on('message', onCreated);
  clients.on('message', onReached);
  const before = { ...usageOf(istiod), at: performance.now() };
  cluster.send({ perSecond, seconds: SECONDS, prefix });
  const all = perSecond * SECONDS;
  await until(
    () => `${all} changes at every ztunnel: ${created.size} pods were created, ${reached.size} are everywhere`,
    async () => reached.size === all,
    SECONDS * 1000 + PATIENCE_MS,
  );
  const after = { ...usageOf(istiod), at: performance.now() };
  cluster.off('message', onCreated);
  clients.off('message', onReached);
  // The next one begins with the same cluster.
  const removed = message(cluster, 'removed', PATIENCE_MS);
  cluster.send({ remove: prefix });
  await removed;
  for (const [name, at] of reached) took.set(name, at - (created.get(name) ?? 0));
  const sorted = [...took.values()].sort((a, b) => a - b);
  const quantile = (q: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? 0;
  return {
    perSecond,
    p50: quantile(0.5),
    p99: quantile(0.99),
    cores: ((after.cpuSeconds - before.cpuSeconds) * 1000) / (after.at - before.at),
  };
}

/** What has a target of its own is held against that, and beside a peer against the peer as well. */
function rowsOf(prefix: string, ours: Measured, peer: Measured | undefined): Row[] {
  const row = (of: string, metric: string, unit: string, value: (measured: Measured) => number | undefined, target?: number): Row[] => {
    const base = { bench: BENCH, case: `${prefix}${of}`, metric, unit, ours: value(ours) ?? 0, better: 'less' as const };
    const other = peer && value(peer);
    const absolute = target !== undefined || other === undefined ? [absoluteRow({ ...base, ...(target !== undefined && { target }) })] : [];
    return [...absolute, ...(other === undefined ? [] : [ratioRow({ ...base, peer: other, peerName: 'ISTIOD_BIN' })])];
  };
  const rate = (measured: Measured, n: number) => measured.rates.find(({ perSecond }) => perSecond === n);
  const latency = { 10: [150, 0.25], 100: [250, 0.7] } as const;
  return [
    ...([10, 100] as const).flatMap((n) => [
      ...row(`${n} changed pods a second`, 'p50 to the last ztunnel', 'ms', (measured) => rate(measured, n)?.p50),
      ...row(`${n} changed pods a second`, 'p99 to the last ztunnel', 'ms', (measured) => rate(measured, n)?.p99, latency[n][0]),
      ...row(`${n} changed pods a second`, 'CPU', 'cores', (measured) => rate(measured, n)?.cores, latency[n][1]),
    ]),
    ...row(`${ZTUNNELS} ztunnels connect at once`, 'all synced', 'ms', ({ storm }) => storm.ms, 4000),
    ...row(`${ZTUNNELS} ztunnels connect at once`, 'refused', 'streams', ({ storm }) => storm.refused, 0),
    ...row(`${ZTUNNELS} ztunnels connect at once`, 'CPU', 's', ({ storm }) => storm.cpuSeconds),
    ...row('memory', 'RSS when ready', 'MB', ({ rssReadyMb }) => rssReadyMb),
    ...row('memory', `RSS with ${ZTUNNELS} ztunnels`, 'MB', ({ rssConnectedMb }) => rssConnectedMb, 450),
    ...row('memory', 'RSS after the changes', 'MB', ({ rssAfterMb }) => rssAfterMb),
    ...row('start', 'until ready', 'ms', ({ startToReadyMs }) => startToReadyMs, 3500),
    ...row('start', 'CPU until ready', 's', ({ startCpuSeconds }) => startCpuSeconds),
  ];
}

/** The cost of a change grows with what it touches, not with the cluster. */
function largeRows(small: Measured, large: Measured): Row[] {
  const of = `${PODS * LARGER} pods`;
  const row = (metric: string, unit: string, value: number): Row =>
    absoluteRow({ bench: BENCH, case: of, metric, unit, ours: value, better: 'less' });
  const perChange = ({ rates: [rate] }: Measured): number => (rate ? (rate.cores / rate.perSecond) * 1000 : 0);
  return [
    row('until ready', 'ms', large.startToReadyMs),
    row('CPU until ready', 's', large.startCpuSeconds),
    row('RSS when ready', 'MB', large.rssReadyMb),
    row('RSS with 1 ztunnel', 'MB', large.rssConnectedMb),
    ratioRow({
      bench: BENCH,
      case: of,
      metric: 'CPU per change',
      unit: 'ms',
      ours: perChange(large),
      peer: perChange(small),
      peerName: `${PODS} pods`,
      target: 1.5,
      better: 'less',
    }),
  ];
}

function child(children: ChildProcess[], program: string, args: readonly string[], env: Record<string, string> = {}): ChildProcess {
  const started = fork(join(import.meta.dirname, 'programs', program), [...args], { env: { ...process.env, ...env } });
  children.push(started);
  return started;
}

/** The first message that has this field. @throws Error where the program ends first */
function message<T>(from: ChildProcess, field: string, patienceMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const onMessage = (said: object): void => {
      if (!(field in said)) return;
      stop();
      resolve(said as T);
    };
    const fail = (reason: string): void => {
      stop();
      reject(new Error(reason));
    };
    const onExit = (code: number | null): void => fail(`the program for ${field} ended with ${code}`);
    const timer = setTimeout(() => fail(`no ${field} within ${patienceMs / 1000} s`), patienceMs);
    const stop = (): void => {
      clearTimeout(timer);
      from.off('message', onMessage);
      from.off('exit', onExit);
    };
    from.on('message', onMessage);
    from.on('exit', onExit);
  });
}

function startProgram(
  children: ChildProcess[],
  folder: string,
  argv: readonly string[],
  ports: { readonly grpc: number; readonly monitoring: number; readonly http: number },
): number {
  const [program = '', ...args] = argv;
  const log = openSync(join(folder, 'istiod.log'), 'w');
  writeFileSync(join(folder, 'mesh.yaml'), 'trustDomain: cluster.local\nrootNamespace: istio-system\n');
  const addresses = [`--monitoringAddr=:${ports.monitoring}`, `--secureGRPCAddr=:${ports.grpc}`, `--httpAddr=:${ports.http}`];
  const istio = ['--grpcAddr=', '--httpsAddr=', `--meshConfig=${join(folder, 'mesh.yaml')}`, `--kubeconfig=${join(folder, 'kubeconfig')}`];
  const isNode = program === process.execPath;
  const started = spawn(program, [...args, ...addresses, ...(isNode ? [] : istio)], {
    cwd: folder,
    stdio: ['ignore', log, log],
    // Not all of ours: a component refuses variables that change Node.
    env: {
      PATH: process.env.PATH ?? '',
      KUBECONFIG: join(folder, 'kubeconfig'),
      ROOT_CA_DIR: join(folder, 'cacerts'),
      POD_NAME: 'istiod-bench',
      POD_NAMESPACE: 'istio-system',
      CLUSTER_ID: 'Kubernetes',
      CA_TRUSTED_NODE_ACCOUNTS: 'istio-system/ztunnel',
      PILOT_ENABLE_AMBIENT: 'true',
      // One line for each proxy that comes and goes.
      LOG_LEVEL: 'info',
    },
  });
  children.push(started);
  return started.pid ?? 0;
}

async function rootOf(folder: string): Promise<string> {
  const api = KubeApi.load({ kubeconfig: join(folder, 'kubeconfig'), env: {} });
  try {
    const secret = await api.get<{ data: Record<string, string> }>('/api/v1/namespaces/istio-system/secrets/istio-ca-secret');
    return Buffer.from(secret.data['ca-cert.pem'] ?? '', 'base64').toString('utf8');
  } finally {
    api.close();
  }
}

/** Each program makes a root of its own. */
async function forgetRoot(folder: string): Promise<void> {
  const api = KubeApi.load({ kubeconfig: join(folder, 'kubeconfig'), env: {} });
  try {
    await api.delete('/api/v1/namespaces/istio-system/secrets/istio-ca-secret');
  } catch (error) {
    if ((error as { status?: number }).status !== 404) throw error;
  } finally {
    api.close();
  }
}

/** Polls; what throws is not there yet. */
async function until(what: string | (() => string), holds: () => Promise<boolean>, patienceMs = PATIENCE_MS): Promise<void> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    try {
      if (await holds()) return;
    } catch {
      // Not yet.
    }
    if (performance.now() > deadline) throw new Error(`no ${typeof what === 'string' ? what : what()} within ${patienceMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, () => {
      const address = server.address();
      server.close(() => (typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no port'))));
    });
  });
}
