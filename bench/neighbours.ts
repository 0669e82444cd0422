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
import { DEFAULT_PROBE_SOURCE } from '../cni/rules/constants.ts';
import { testAuthority, writeCertificate } from '../test/support/certificates.ts';
import { startNodeAgent } from '../test/support/fake-node-agent.ts';
import { joinNetns, makeNetns, type TestNetns } from '../test/support/netns.ts';
import { applyPodRules } from '../test/support/pod-rules.ts';
import { until } from '../test/support/until.ts';
import { absoluteRow, type Bench, median, type Row, ratioRow } from './rows.ts';
import { ztunnelCommand } from './support/release.ts';

const NAMESPACE = 'bench';
const ROUNDS = 3;
const SECONDS = 4;
const MOST_TIMES_IDLE = 5;
const VICTIM_PORT = 8080;
const GREEDY_PORT = 8081;
const OUTSIDE_PORT = 8082;

interface Pod {
  readonly name: string;
  readonly netns: TestNetns;
  readonly ips: readonly string[];
}

export const bench: Bench = {
  name: 'neighbours',
  doc: "a pod's request latency while another pod of the node saturates their ztunnel, against the same pod alone",
  async run() {
    await using stack = new AsyncDisposableStack();
    // As much of a test's context as the fixtures want.
    const t = { after: (end: () => unknown) => stack.defer(async () => void (await end())) } as unknown as TestContext;
    const folder = mkdtempSync(join(tmpdir(), 'warren-bench-'));
    stack.defer(() => rmSync(folder, { recursive: true, force: true }));
    const [greedy, victim, server] = await startMesh(t, folder);
    serve(t, folder, server.netns);
    const outside = startOutside(t, folder);
    await until(() => server.netns.exec('ss', '-Hltn', `sport = :${GREEDY_PORT}`) !== '');
    const [forVictim = '', forGreedy = ''] = server.ips;
    const measured = new Measured();
    const both = async (when: string): Promise<void> => {
      measured.add(when, 'victim', await p99(victim.netns, `${forVictim}:${VICTIM_PORT}`));
      measured.add(when, 'outside', await p99(outside.client, outside.ip));
    };
    for (let round = 0; round < ROUNDS; round++) {
      await both(ALONE);
      for (const { name, args } of LOADS) {
        const load = greedy.netns.path;
        const child = spawn('nsenter', [
          `--net=${load}`,
          '--',
          'wrk',
          '-t1',
          `-d${2 * SECONDS + 3}s`,
          ...args,
          `http://${forGreedy}:${GREEDY_PORT}/`,
        ]);
        const ended = new Promise((resolve) => child.once('close', resolve));
        await new Promise((resolve) => setTimeout(resolve, 1500));
        await both(name);
        await ended;
      }
    }
    return measured.rows();
  },
};

const LOADS = [
  { name: '64 connections', args: ['-c64'] },
  { name: '512 connections', args: ['-c512'] },
  { name: 'new connections, 32 at once', args: ['-c32', '-H', 'Connection: close'] },
] as const;

const ALONE = 'alone';

/** Milliseconds, by what else was going on. */
class Measured {
  readonly #values = new Map<string, number[]>();

  add(when: string, who: 'victim' | 'outside', ms: number): void {
    const key = `${when} ${who}`;
    this.#values.set(key, [...(this.#values.get(key) ?? []), ms]);
  }

  rows(): Row[] {
    const common = { bench: 'neighbours', better: 'less', peerName: 'outside the mesh' } as const;
    const at = (when: string) => ({ ours: this.#median(when, 'victim'), peer: this.#median(when, 'outside') });
    const alone = at(ALONE);
    return [
      ratioRow({ ...common, case: ALONE, metric: 'p99 of one connection', unit: 'ms', ...alone }),
      ...LOADS.flatMap(({ name }) => {
        const beside = at(name);
        const times = { ours: beside.ours / alone.ours, peer: beside.peer / alone.peer };
        const row = { ...common, case: `beside ${name}`, metric: 'times idle', unit: 'x' };
        return [
          ratioRow({ ...common, case: `beside ${name}`, metric: 'p99 of one connection', unit: 'ms', ...beside }),
          ratioRow({ ...row, ...times }),
          absoluteRow({ ...row, ours: times.ours, target: MOST_TIMES_IDLE }),
        ];
      }),
    ];
  }

  #median(when: string, who: string): number {
    return median(this.#values.get(`${when} ${who}`) ?? []);
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

async function startMesh(t: TestContext, folder: string): Promise<[Pod, Pod, Pod]> {
  const [greedyNs, victimNs, serverNs] = [makeNetns(t), makeNetns(t), makeNetns(t)];
  const [one, two] = [joinNetns(victimNs, serverNs, 241), joinNetns(greedyNs, serverNs, 242)];
  const pods: [Pod, Pod, Pod] = [
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
  const ztunnel = spawn('nsenter', [`--net=${home.path}`, '--', ...ztunnelCommand()], {
    env: {
      PATH: process.env.PATH ?? '',
      LOCAL_XDS_PATH: join(folder, 'mesh.yaml'),
      CERT_DIR: join(folder, 'certificates'),
      INPOD_UDS: agent.path,
      ZTUNNEL_WORKER_THREADS: '2',
      RUST_LOG: 'warn',
      ISTIO_META_DNS_CAPTURE: 'false',
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
  return pods;
}

/** Two namespaces that no ztunnel knows of. */
function startOutside(t: TestContext, folder: string): { readonly client: TestNetns; readonly ip: string } {
  const [client, server] = [makeNetns(t), makeNetns(t)];
  const { b } = joinNetns(client, server, 243);
  serve(t, folder, server, [OUTSIDE_PORT]);
  return { client, ip: `${b.v4}:${OUTSIDE_PORT}` };
}

/** A web server for each of those who ask, so that they do not meet there. */
function serve(t: TestContext, folder: string, netns: TestNetns, ports = [VICTIM_PORT, GREEDY_PORT]): void {
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
  services: {}`,
  )
  .join('')}
services: []
policies: []
`;
