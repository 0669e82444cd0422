/**
 * Three pods of one node behind one ztunnel: one of them sends as much as it can, and another one's requests are timed, idle and beside it. A pod must
 * not starve its neighbours. A pair outside of the mesh is timed beside the same load: what it waits for is the machine, which the load's own two ends
 * use up as well.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
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
import { ztunnelCommand } from './support/release.ts';
import { testContext, unwindable } from './support/unwinding.ts';

const NAMESPACE = 'bench';
const NODE = 'node';
const ROUNDS = 3;
const SECONDS = 3;
/** A load is ended when it has been measured beside. */
const LONGEST_SECONDS = 60;
const WARM_UP_MS = 1500;
const MOST_TIMES_IDLE = 5;
const VICTIM_PORT = 8080;
const GREEDY_PORT = 8081;

interface Pod {
  readonly name: string;
  readonly netns: TestNetns;
  readonly ips: readonly string[];
}

export const bench: Bench = {
  name: 'neighbours',
  doc: "a pod's request latency while another pod of the node saturates their ztunnel, against the same pod alone, a pair outside, and ZTUNNEL_BIN",
  async run() {
    await using stack = unwindable();
    const t = testContext(stack);
    const folderFor = (name: string): string => {
      const folder = mkdtempSync(join(tmpdir(), `warren-bench-${name}-`));
      stack.defer(() => rmSync(folder, { recursive: true, force: true }));
      return folder;
    };
    const ours = await startMesh(t, folderFor('ours'), ztunnelCommand(), {});
    const { ZTUNNEL_BIN } = process.env;
    const theirs = ZTUNNEL_BIN && (await startMesh(t, folderFor('peer'), [ZTUNNEL_BIN, 'proxy'], ISTIO_SETTINGS));
    const outside = await startOutside(t, folderFor('outside'));
    const measured = new Measured();
    for (let round = 0; round < ROUNDS; round++) {
      for (const [who, asker] of Object.entries({ ours, [PEER]: theirs, [OUTSIDE]: outside }))
        if (asker) measured.add(ALONE, who, await p99(asker.client, asker.at));
      for (const { name, args } of LOADS) {
        const beside = (mesh: Mesh, askers: Record<string, Asker>): Promise<void> =>
          besideLoad(t, mesh, args, async () => {
            for (const [who, asker] of Object.entries(askers)) measured.add(name, who, await p99(asker.client, asker.at));
          });
        await beside(ours, { ours, [OUTSIDE]: outside });
        if (theirs) await beside(theirs, { [PEER]: theirs });
      }
    }
    return measured.rows();
  },
};

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
  readonly greedy: TestNetns;
  readonly greedyAt: string;
}

/** The greedy pod sends as much as it can until the measurement is over. */
async function besideLoad(
  t: TestContext,
  { greedy, greedyAt }: Mesh,
  args: readonly string[],
  measure: () => Promise<void>,
): Promise<void> {
  const load = ['wrk', '-t1', `-d${LONGEST_SECONDS}s`, ...args, `http://${greedyAt}/`];
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

/** Milliseconds, by what else was going on. */
class Measured {
  readonly #values = new Map<string, number[]>();

  add(when: string, who: string, ms: number): void {
    const key = `${when} ${who}`;
    this.#values.set(key, [...(this.#values.get(key) ?? []), ms]);
  }

  rows(): Row[] {
    const at = (when: string, who: string): number => median(this.#values.get(`${when} ${who}`) ?? []);
    const common = { bench: 'neighbours', better: 'less' } as const;
    const peers = [OUTSIDE, PEER].filter((who) => this.#values.has(`${ALONE} ${who}`));
    const against = (name: string, about: { metric: string; unit: string }, of: (who: string) => number): Row[] =>
      peers.map((peerName) => ratioRow({ ...common, ...about, case: name, ours: of('ours'), peerName, peer: of(peerName) }));
    const p99s = { metric: 'p99 of one connection', unit: 'ms' };
    const times = { metric: 'times idle', unit: 'x' };
    return [
      ...against(ALONE, p99s, (who) => at(ALONE, who)),
      ...LOADS.flatMap(({ name }) => {
        const timesIdle = (who: string): number => at(name, who) / at(ALONE, who);
        return [
          ...against(`beside ${name}`, p99s, (who) => at(name, who)),
          ...against(`beside ${name}`, times, timesIdle),
          absoluteRow({ ...common, ...times, case: `beside ${name}`, ours: timesIdle('ours'), target: MOST_TIMES_IDLE }),
        ];
      }),
    ];
  }
}

/** Milliseconds. */
async function p99(netns: TestNetns, at: string): Promise<number> {
  const child = spawn('nsenter', [`--net=${netns.path}`, '--', 'wrk', '-t1', '-c1', `-d${SECONDS}s`, '--latency', `http://${at}/`]);
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
  const ztunnel = spawn('nsenter', [`--net=${home.path}`, '--', ...argv], {
    env: {
      PATH: process.env.PATH ?? '',
      LOCAL_XDS_PATH: join(folder, 'mesh.yaml'),
      CERT_DIR: join(folder, 'certificates'),
      INPOD_UDS: agent.path,
      ZTUNNEL_WORKER_THREADS: '2',
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
  await serve(t, folder, serverNs, [VICTIM_PORT, GREEDY_PORT]);
  return { client: victimNs, at: `${one.b.v4}:${VICTIM_PORT}`, greedy: greedyNs, greedyAt: `${two.b.v4}:${GREEDY_PORT}` };
}

/** Two namespaces that no ztunnel knows of. */
async function startOutside(t: TestContext, folder: string): Promise<Asker> {
  const [client, server] = [makeNetns(t), makeNetns(t)];
  const { b } = joinNetns(client, server, 243);
  await serve(t, folder, server, [VICTIM_PORT]);
  return { client, at: `${b.v4}:${VICTIM_PORT}` };
}

/** A web server for each of those who ask, so that they do not meet there. */
async function serve(t: TestContext, folder: string, netns: TestNetns, ports: readonly number[]): Promise<void> {
  for (const port of ports) {
    const own = join(folder, `nginx-${port}`);
    mkdirSync(own);
    writeFileSync(
      join(own, 'nginx.conf'),
      `user root; worker_processes 1; daemon off; pid ${own}/pid; error_log ${own}/log; events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path ${own}; proxy_temp_path ${own}; fastcgi_temp_path ${own};
uwsgi_temp_path ${own}; scgi_temp_path ${own}; server { listen ${port} backlog=4096; location / { return 200 "ok"; } } }\n`,
    );
    const child = spawn('nsenter', [`--net=${netns.path}`, '--', 'nginx', '-c', join(own, 'nginx.conf')], { stdio: 'ignore' });
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
