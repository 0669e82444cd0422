/**
 * Three pods of one node behind one ztunnel: one of them sends as much as it can, and another one's requests are timed, idle and beside it. A pod must
 * not starve its neighbours. A pair outside of the mesh is timed beside the same load: what it waits for is the machine.
 *
 * Twice: where the ztunnel saturates and nothing else, which is what its limits answer for; and where the load's own two ends use up the machine as well,
 * which then has everybody wait, in the mesh and outside.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DEFAULT_PROBE_SOURCE } from '../cni/rules/constants.ts';
import { testAuthority, writeCertificate } from '../test/support/certificates.ts';
import { startNodeAgent } from '../test/support/fake-node-agent.ts';
import { joinNetns, makeNetns, type TestNetns } from '../test/support/netns.ts';
import { applyPodRules } from '../test/support/pod-rules.ts';
import { until } from '../test/support/until.ts';
import { absoluteRow, type Bench, median, type Row, ratioRow } from './rows.ts';
import { usageOf } from './support/process-usage.ts';
import { ztunnelCommand } from './support/release.ts';
import { undisturbed } from './support/stolen.ts';
import { testContext, unwindable } from './support/unwinding.ts';

const NAMESPACE = 'bench';
const NODE = 'node';
const SECONDS = 3;
/** A load is ended when it has been measured beside. */
const LONGEST_SECONDS = 120;
/** One request in a hundred decides, so the host may have taken no more than half of that. */
const MOST_STOLEN = 0.005;
const WARM_UP_MS = 1500;
/** Of each load, before anything is measured: V8 compiles a new ztunnel's code meanwhile, and one on a node runs for weeks. */
const FIRST_WARM_UP_MS = 10_000;
const MOST_TIMES_IDLE = 5;
const VICTIM_PORT = 8080;
const GREEDY_PORT = 8081;

interface Pod {
  readonly name: string;
  readonly netns: TestNetns;
  readonly ips: readonly string[];
}

type Role = 'ztunnel' | 'victim' | 'load';

interface Layout {
  readonly name: string;
  readonly workers: number;
  readonly rounds: number;
  /** Times idle. */
  readonly target?: number;
  /** What a program is started with. */
  place(role: Role): readonly string[];
}

/** @throws Error on a machine with one processor */
function ownProcessor(role: Role): readonly string[] {
  const last = availableParallelism() - 1;
  if (last === 0) throw new Error('one processor is too few: the ztunnel has one of its own here');
  const others = ['taskset', '-c', `0-${last - 1}`];
  if (role === 'ztunnel') return ['taskset', '-c', String(last)];
  // The load has what is left (SCHED_IDLE), so that the victim's ends do not wait for it: as if there were one more processor.
  return role === 'load' ? [...others, 'chrt', '--idle', '0'] : others;
}

const LAYOUTS: readonly Layout[] = [
  { name: 'own processor', workers: 1, rounds: 5, target: MOST_TIMES_IDLE, place: ownProcessor },
  { name: 'shared processors', workers: 2, rounds: 3, place: () => [] },
];

export const bench: Bench = {
  name: 'neighbours',
  doc: "a pod's request latency while another pod of the node saturates their ztunnel, against the same pod alone, a pair outside, and ZTUNNEL_BIN",
  selective: true,
  async run({ only = '' }) {
    const rows: Row[] = [];
    for (const layout of LAYOUTS) if (layout.name.includes(only)) rows.push(...(await measureIn(layout)));
    return rows;
  },
};

async function measureIn(layout: Layout): Promise<Row[]> {
  await using stack = unwindable();
  const t = testContext(stack);
  const folderFor = (name: string): string => {
    const folder = mkdtempSync(join(tmpdir(), `warren-bench-${name}-`));
    stack.defer(() => rmSync(folder, { recursive: true, force: true }));
    return folder;
  };
  const ours = await startMesh(t, folderFor('ours'), layout, ztunnelCommand(), {});
  const { ZTUNNEL_BIN } = process.env;
  const theirs = ZTUNNEL_BIN && (await startMesh(t, folderFor('peer'), layout, [ZTUNNEL_BIN, 'proxy'], ISTIO_SETTINGS));
  const outside = await startOutside(t, folderFor('outside'), layout);
  const measured = new Measured(layout);
  for (const mesh of theirs ? [ours, theirs] : [ours])
    for (const { args } of LOADS) await besideLoad(t, layout, mesh, args, () => sleep(FIRST_WARM_UP_MS));
  const quiet = undisturbed({ most: MOST_STOLEN });
  for (let round = 0; round < layout.rounds; round++) {
    for (const [who, asker] of Object.entries({ ours, [PEER]: theirs, [OUTSIDE]: outside }))
      if (asker) measured.add(ALONE, who, await quiet(() => p99(layout, asker)));
    for (const { name, args } of LOADS) {
      const beside = (mesh: Mesh, askers: Record<string, Asker>): Promise<void> =>
        besideLoad(t, layout, mesh, args, async () => {
          for (const [who, asker] of Object.entries(askers)) {
            const { ms, used } = await quiet(async () => {
              const use = processorUse(mesh.ztunnel);
              return { ms: await p99(layout, asker), used: use() };
            });
            measured.add(name, who, ms);
            measured.add(`${name}: use`, who, used);
          }
        });
      await beside(ours, { ours, [OUTSIDE]: outside });
      if (theirs) await beside(theirs, { [PEER]: theirs });
    }
  }
  return measured.rows();
}

const PEER = 'ZTUNNEL_BIN';
const OUTSIDE = 'outside the mesh';
const ALONE = 'alone';
const LOADS = [
  { name: '64 connections', args: ['-c64'] },
  { name: '512 connections', args: ['-c512'] },
  { name: 'new connections, 32 at once', args: ['-c32', '-H', 'Connection: close'] },
] as const;

/** What Istio's wants beside: a build with its testing feature, for FAKE_CA. */
const ISTIO_SETTINGS = { FAKE_CA: 'true', CERT_DIR: '', XDS_ADDRESS: '', CA_ADDRESS: '', CLUSTER_ID: 'Kubernetes', NODE_NAME: NODE };

/** Whose request is timed. */
interface Asker {
  readonly client: TestNetns;
  /** Where its server listens. */
  readonly at: string;
}

interface Mesh extends Asker {
  /** Its process. */
  readonly ztunnel: number;
  readonly greedy: TestNetns;
  readonly greedyAt: string;
}

/** The greedy pod sends as much as it can until the measurement is over. */
async function besideLoad(
  t: TestContext,
  layout: Layout,
  { greedy, greedyAt }: Mesh,
  args: readonly string[],
  measure: () => Promise<void>,
): Promise<void> {
  const load = [...layout.place('load'), 'wrk', '-t1', `-d${LONGEST_SECONDS}s`, ...args, `http://${greedyAt}/`];
  const child = spawn('nsenter', [`--net=${greedy.path}`, '--', ...load], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('close', resolve));
  t.after(() => child.kill('SIGKILL'));
  try {
    await sleep(WARM_UP_MS);
    await measure();
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
  // Its connections end.
  await sleep(WARM_UP_MS);
}

/** By what else was going on. */
class Measured {
  readonly #layout: Layout;
  readonly #values = new Map<string, number[]>();

  constructor(layout: Layout) {
    this.#layout = layout;
  }

  add(when: string, who: string, value: number): void {
    const key = `${when} ${who}`;
    this.#values.set(key, [...(this.#values.get(key) ?? []), value]);
  }

  rows(): Row[] {
    const { name: layout, target } = this.#layout;
    const at = (when: string, who: string): number => median(this.#values.get(`${when} ${who}`) ?? []);
    const common = { bench: 'neighbours', better: 'less' } as const;
    const peers = [OUTSIDE, PEER].filter((who) => this.#values.has(`${ALONE} ${who}`));
    const against = (name: string, about: { metric: string; unit: string }, of: (who: string) => number): Row[] =>
      peers.map((peerName) =>
        ratioRow({ ...common, ...about, case: `${layout}: ${name}`, ours: of('ours'), peerName, peer: of(peerName) }),
      );
    const p99s = { metric: 'p99 of one connection', unit: 'ms' };
    const times = { metric: 'times idle', unit: 'x' };
    return [
      ...against(ALONE, p99s, (who) => at(ALONE, who)),
      ...LOADS.flatMap(({ name }) => {
        const timesIdle = (who: string): number => at(name, who) / at(ALONE, who);
        const beside = `beside ${name}`;
        const ours = { ...common, ...times, case: `${layout}: ${beside}`, ours: timesIdle('ours') };
        // That the ztunnel is what is saturated.
        const used = { ...ours, metric: 'ztunnel uses', unit: 'processors', ours: at(`${name}: use`, 'ours') };
        return [
          ...against(beside, p99s, (who) => at(name, who)),
          ...against(beside, times, timesIdle),
          absoluteRow(target === undefined ? ours : { ...ours, target }),
          peers.includes(PEER) ? ratioRow({ ...used, peerName: PEER, peer: at(`${name}: use`, PEER) }) : absoluteRow(used),
        ];
      }),
    ];
  }
}

/** @returns tells how many processors the process has used since */
function processorUse(pid: number): () => number {
  const [before, since] = [usageOf(pid).cpuSeconds, performance.now()];
  return () => (1000 * (usageOf(pid).cpuSeconds - before)) / (performance.now() - since);
}

/** Milliseconds. */
async function p99(layout: Layout, { client, at }: Asker): Promise<number> {
  const wrk = ['wrk', '-t1', '-c1', `-d${SECONDS}s`, '--latency', `http://${at}/`];
  const child = spawn('nsenter', [`--net=${client.path}`, '--', ...layout.place('victim'), ...wrk]);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  await new Promise((resolve) => child.once('close', resolve));
  const [, number, unit] = /^\s+99%\s+([\d.]+)(us|ms|s)/m.exec(output) ?? [];
  if (number === undefined) throw new Error(`wrk said nothing of latency: ${output}`);
  return Number(number) * ({ us: 1e-3, ms: 1, s: 1e3 }[unit ?? ''] ?? Number.NaN);
}

async function startMesh(
  t: TestContext,
  folder: string,
  layout: Layout,
  argv: readonly string[],
  settings: Readonly<Record<string, string>>,
): Promise<Mesh> {
  const [greedyNs, victimNs, serverNs] = [makeNetns(t), makeNetns(t), makeNetns(t)];
  const [one, two] = [joinNetns(victimNs, serverNs, 241), joinNetns(greedyNs, serverNs, 242)];
  const pods: readonly Pod[] = [
    { name: 'greedy', netns: greedyNs, ips: [two.a.v4] },
    { name: 'victim', netns: victimNs, ips: [one.a.v4] },
    { name: 'server', netns: serverNs, ips: [one.b.v4, two.b.v4] },
  ];
  const authority = testAuthority();
  for (const { name, netns } of pods) {
    writeCertificate(join(folder, 'certificates', NAMESPACE, name), authority.issue(`spiffe://cluster.local/ns/${NAMESPACE}/sa/${name}`));
    await applyPodRules(
      { netns: netns.netns, about: name },
      {
        redirectDns: false,
        ingressMode: false,
        virtualInterfaces: [],
        ipv6: true,
        probeSource: DEFAULT_PROBE_SOURCE,
        captureOpenConnections: false,
      },
    );
  }
  writeFileSync(join(folder, 'mesh.yaml'), meshYaml(pods));
  const agent = startNodeAgent(t, join(folder, 'ztunnel.sock'));
  const home = makeNetns(t);
  const ztunnel = spawn('nsenter', [`--net=${home.path}`, '--', ...layout.place('ztunnel'), ...argv], {
    env: {
      PATH: process.env.PATH ?? '',
      LOCAL_XDS_PATH: join(folder, 'mesh.yaml'),
      CERT_DIR: join(folder, 'certificates'),
      INPOD_UDS: agent.path,
      ZTUNNEL_WORKER_THREADS: String(layout.workers),
      RUST_LOG: 'warn',
      ISTIO_META_DNS_CAPTURE: 'false',
      ...settings,
    },
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => ztunnel.once('exit', resolve));
  t.after(async () => {
    ztunnel.kill('SIGKILL');
    await ended;
  });
  const connection = await agent.connection(0);
  for (const { name, netns } of pods) {
    const problem = await connection.add(`uid-${name}`, { name, namespace: NAMESPACE, serviceAccount: name }, netns.netns.fd);
    if (problem !== '') throw new Error(`${name}: ${problem}`);
  }
  await connection.snapshotSent();
  await serve(t, folder, layout, serverNs, [VICTIM_PORT, GREEDY_PORT]);
  return {
    client: victimNs,
    at: `${one.b.v4}:${VICTIM_PORT}`,
    greedy: greedyNs,
    greedyAt: `${two.b.v4}:${GREEDY_PORT}`,
    // Each program that comes before it runs the next one in its own place.
    ztunnel: ztunnel.pid ?? 0,
  };
}

/** Two namespaces that no ztunnel knows of. */
async function startOutside(t: TestContext, folder: string, layout: Layout): Promise<Asker> {
  const [client, server] = [makeNetns(t), makeNetns(t)];
  const { b } = joinNetns(client, server, 243);
  await serve(t, folder, layout, server, [VICTIM_PORT]);
  return { client, at: `${b.v4}:${VICTIM_PORT}` };
}

/** A web server for each of those who ask, so that they do not meet there. */
async function serve(t: TestContext, folder: string, layout: Layout, netns: TestNetns, ports: readonly number[]): Promise<void> {
  for (const port of ports) {
    const own = join(folder, `nginx-${port}`);
    mkdirSync(own);
    writeFileSync(
      join(own, 'nginx.conf'),
      `user root; worker_processes 1; daemon off; pid ${own}/pid; error_log ${own}/log; events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path ${own}; proxy_temp_path ${own}; fastcgi_temp_path ${own};
uwsgi_temp_path ${own}; scgi_temp_path ${own}; server { listen ${port} backlog=4096; location / { return 200 "ok"; } } }\n`,
    );
    const nginx = [...layout.place(port === VICTIM_PORT ? 'victim' : 'load'), 'nginx', '-c', join(own, 'nginx.conf')];
    const child = spawn('nsenter', [`--net=${netns.path}`, '--', ...nginx], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    t.after(async () => {
      child.kill('SIGTERM');
      await ended;
    });
    await until(() => netns.exec('ss', '-Hltn', `sport = :${port}`) !== '');
  }
}

const meshYaml = (pods: readonly Pod[]): string => `workloads:${pods
  .map(
    ({ name, ips }) => `
- uid: bench//Pod/${NAMESPACE}/${name}
  name: ${name}
  namespace: ${NAMESPACE}
  serviceAccount: ${name}
  workloadIps: ${JSON.stringify(ips)}
  protocol: HBONE
  trustDomain: cluster.local
  node: ${NODE}
  workloadName: ${name}
  workloadType: deployment
  canonicalName: ${name}
  canonicalRevision: v1
  services: {}`,
  )
  .join('')}
services: []
policies: []
`;
