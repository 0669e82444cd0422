/**
 * The waypoint in its full job (HBONE and mutual TLS on both sides, policy, weighted route, metrics, access log) and as a plaintext reverse
 * proxy, one data worker: beside nginx and haproxy, and where ENVOY_BIN is set beside Envoy in both. One run, all in turn.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { absoluteRow, type Bench, median, type Row, ratioRow } from './rows.ts';
import { HTTP_PORT, Lab, type Program } from './support/lab.ts';
import { type HttpResult, loadAtRate, loadHttp, loadHttp2, loadIdle, type Subject } from './support/load.ts';
import { buildRelease, nodeOf } from './support/release.ts';
import { isInstalled, startEnvoy, startHaproxy, startNginx } from './support/reverse-proxies.ts';
import { undisturbed } from './support/stolen.ts';
import { unwindable } from './support/unwinding.ts';
import { meshSubject, waypointConfiguration } from './support/waypoint-mesh.ts';

/** Many short ones: the speed of a shared machine changes within seconds, and the median of five forgets two bad ones. */
const ROUNDS = 5;
const SECONDS = 1;
const WARM_SECONDS = 3;
/** Whose throughput says what rate is asked in the open loop. */
const OPEN_LOOP_CASE = 'keep-alive, 64 connections';

interface Case {
  readonly name: string;
  readonly path: string;
  readonly connections: number;
  readonly kind: 'kept' | 'new' | 'http2';
  /** Ours to Envoy's, CPU per request, as a plaintext proxy and in the full job. */
  readonly targets?: { readonly plaintext: number; readonly mesh: number };
}

const CASES: readonly Case[] = [
  { name: 'keep-alive, 1 connection', path: '/1k', connections: 1, kind: 'kept' },
  { name: 'keep-alive, 64 connections', path: '/1k', connections: 64, kind: 'kept', targets: { plaintext: 0.6, mesh: 0.7 } },
  { name: 'keep-alive, 512 connections', path: '/1k', connections: 512, kind: 'kept', targets: { plaintext: 0.6, mesh: 0.7 } },
  { name: '1 MB bodies, 8 connections', path: '/1m', connections: 8, kind: 'kept', targets: { plaintext: 1, mesh: 1 } },
  { name: 'new connections, 16 at once', path: '/1k', connections: 16, kind: 'new', targets: { plaintext: 1, mesh: 1 } },
  { name: 'HTTP/2, 8 connections of 32 streams', path: '/1k', connections: 8, kind: 'http2' },
];

const METRICS: readonly (readonly [metric: string, unit: string, better: 'less' | 'more', value: (result: HttpResult) => number])[] = [
  ['requests per second', '/s', 'more', ({ perSecond }) => perSecond],
  ['CPU per request', 'us', 'less', ({ cpuMicros }) => cpuMicros],
  ['p50', 'us', 'less', ({ p50Micros }) => p50Micros],
  ['p99', 'us', 'less', ({ p99Micros }) => p99Micros],
];

const PORTS = { ours: 9001, nginx: 9002, haproxy: 9003, envoy: 9004, few: 9005, many: 9006 } as const;
const IDLE_CONNECTIONS = 10_000;
const IDLE_MEGABYTES = 200;
const CROWDED = ['plaintext: 1,000 routes and policies of others', `plaintext: ${IDLE_CONNECTIONS} idle connections`] as const;

export const bench: Bench = {
  name: 'waypoint',
  doc: 'the waypoint in its full job and as a plaintext reverse proxy, against nginx, haproxy and (ENVOY_BIN) Envoy',
  selective: true,
  async run({ only = '' }) {
    const wanted = (name: string): boolean => name.includes(only);
    const envoy = process.env.ENVOY_BIN !== undefined && process.env.ENVOY_BIN !== '';
    const rows: Row[] = [];
    if (casesOf('plaintext', wanted).length > 0 || CROWDED.some(wanted)) {
      await using labs = unwindable();
      const lab = labs.use(new Lab());
      await lab.startServers();
      if (casesOf('plaintext', wanted).length > 0) rows.push(...(await compare('plaintext', await plaintextSubjects(lab), wanted)));
      if (CROWDED.some(wanted)) rows.push(...(await crowded(lab)));
    }
    if (casesOf('mesh', wanted).length > 0) {
      await using labs = unwindable();
      const subjects: Subject[] = [];
      for (const kind of envoy ? (['ours', 'envoy'] as const) : (['ours', 'none'] as const)) {
        const lab = labs.use(new Lab());
        await lab.startServers();
        subjects.push(await meshSubject(kind === 'none' ? 'no waypoint' : kind, kind, lab));
      }
      rows.push(...(await compare('mesh', subjects, wanted)));
    }
    return rows;
  },
};

async function plaintextSubjects(lab: Lab): Promise<Subject[]> {
  const started: readonly (readonly [keyof typeof PORTS, Program | undefined])[] = [
    ['ours', startOurs(lab, PORTS.ours)],
    ['nginx', startNginx(lab, PORTS.nginx)],
    ['haproxy', startHaproxy(lab, PORTS.haproxy)],
    ['envoy', startEnvoy(lab, PORTS.envoy)],
  ];
  const subjects = started.flatMap(([name, program]): Subject[] => {
    const http = { ip: '127.0.0.1', port: PORTS[name] };
    return program ? [{ name, lab, proxies: [program], http, bulk: http }] : [];
  });
  for (const { http } of subjects) await lab.waitForPort(lab.near, http.port);
  return subjects;
}

/** @param others routes of other services, and policies for them, that it has to know besides */
function startOurs(lab: Lab, port: number, others = 0): Program {
  const mesh = join(lab.folder, `mesh-${port}.yaml`);
  writeFileSync(
    mesh,
    `workloads:
  - { name: app, namespace: shop, uid: app, workloadIps: [${lab.far.ip}], protocol: TCP, services: { shop/app.example: { 80: ${HTTP_PORT} } } }
services:
  - { name: app, namespace: shop, hostname: app.example, vips: [/10.96.0.1], ports: { 80: ${HTTP_PORT} }, appProtocols: { 80: HTTP11 } }
`,
  );
  const routes = join(lab.folder, `routes-${port}.yaml`);
  writeFileSync(routes, JSON.stringify(waypointConfiguration(others)));
  return lab.start(lab.near, 'waypoint', [...nodeOf('waypoint'), join(buildRelease(), 'waypoint/main.js'), 'proxy', 'waypoint'], {
    LOCAL_XDS_PATH: mesh,
    LOCAL_ROUTES_PATH: routes,
    PLAINTEXT_LISTEN: `${port}=shop/app.example:80`,
    WARREN_READINESS_PORT: String(port + 10_000),
    WARREN_STATS_PORT: String(port + 11_000),
    WARREN_ADMIN_PORT: String(port + 12_000),
    GATEWAY_NAME: 'waypoint',
    POD_NAME: 'waypoint-1',
    POD_NAMESPACE: 'shop',
    SERVICE_ACCOUNT: 'waypoint',
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    WARREN_HBONE_PORT: '0',
    WARREN_WORKER_THREADS: '1',
    RUST_LOG: 'info,access=warn',
  });
}

/** What a waypoint that knows much costs beside one that knows little, and what connections cost that ask nothing. */
async function crowded(lab: Lab): Promise<Row[]> {
  const subject = (name: string, port: number, program: Program): Subject => {
    const http = { ip: '127.0.0.1', port };
    return { name, lab, proxies: [program], http, bulk: http };
  };
  const [few, many] = [
    subject('10 of each', PORTS.few, startOurs(lab, PORTS.few, 10)),
    subject('1,000 of each', PORTS.many, startOurs(lab, PORTS.many, 1000)),
  ];
  const results = new Map<Subject, number[]>();
  for (const one of [few, many]) {
    await lab.waitForPort(lab.near, one.http.port);
    await loadHttp(one, 64, WARM_SECONDS, true, '/1k');
  }
  for (let round = 0; round < ROUNDS; round++)
    for (const one of [few, many])
      results.set(one, [...(results.get(one) ?? []), (await loadHttp(one, 64, SECONDS, true, '/1k')).cpuMicros]);
  const bench = 'waypoint';
  return [
    ratioRow({
      bench,
      case: CROWDED[0],
      metric: 'CPU per request',
      unit: 'us',
      better: 'less',
      ours: median(results.get(many) ?? []),
      peer: median(results.get(few) ?? []),
      peerName: few.name,
      target: 1.1,
    }),
    absoluteRow({
      bench,
      case: CROWDED[1],
      metric: 'RSS',
      unit: 'MB',
      better: 'less',
      ours: await loadIdle(few, IDLE_CONNECTIONS, '/1k'),
      target: IDLE_MEGABYTES,
    }),
  ];
}

/** The slowest of a hundred where as much is asked as seven tenths of what the slower of both can do. */
async function atSevenTenths(
  group: string,
  subjects: readonly Subject[],
  kept: ReadonlyMap<string, readonly HttpResult[]>,
): Promise<Row[]> {
  const [ours, envoy] = ['ours', 'envoy'].map((wanted) => subjects.find(({ name }) => name === wanted));
  if (!ours || !envoy || !isInstalled('h2load')) return [];
  const most = [ours, envoy].map(({ name }) => median((kept.get(name) ?? []).map(({ perSecond }) => perSecond)));
  const rate = 0.7 * Math.min(...most);
  const alone = undisturbed();
  const p99: Record<string, number[]> = { ours: [], envoy: [] };
  for (let round = 0; round < ROUNDS; round++)
    for (const subject of [ours, envoy]) p99[subject.name]?.push(await alone(() => loadAtRate(subject, rate, SECONDS, '/1k')));
  return [
    ratioRow({
      bench: 'waypoint',
      case: `${group}: open loop, ${Math.round(rate)} requests per second`,
      metric: 'p99',
      unit: 'us',
      better: 'less',
      ours: median(p99.ours ?? []),
      peer: median(p99.envoy ?? []),
      peerName: 'envoy',
      target: 1,
    }),
  ];
}

type Group = 'plaintext' | 'mesh';

/** Of the group's cases those that are wanted; the open loop needs the one that says how much to ask. */
function casesOf(group: Group, wanted: (name: string) => boolean): Case[] {
  const open = wanted(`${group}: open loop`);
  return CASES.filter(({ name }) => wanted(`${group}: ${name}`) || (open && name === OPEN_LOOP_CASE));
}

async function compare(group: Group, subjects: readonly Subject[], wanted: (name: string) => boolean): Promise<Row[]> {
  const results = new Map<Case, Map<string, HttpResult[]>>(casesOf(group, wanted).map((measured) => [measured, new Map()]));
  // A proxy runs for weeks: what its first requests cost while it is compiled is not what is asked.
  for (const subject of subjects) {
    await loadHttp(subject, 64, WARM_SECONDS, true, '/1k');
    for (const measured of results.keys())
      if (measured.kind === 'new' || measured.path === '/1m')
        await loadHttp(subject, measured.connections, WARM_SECONDS, measured.kind === 'kept', measured.path);
  }
  const alone = undisturbed();
  for (let round = 1; round <= ROUNDS; round++) {
    for (const [measured, row] of results) {
      for (const subject of subjects) {
        if (measured.kind === 'http2' && !speaksHttp2(group, subject)) continue;
        row.set(subject.name, [...(row.get(subject.name) ?? []), await alone(() => load(subject, measured))]);
      }
      console.error(`${group}, round ${round}: ${measured.name}`);
    }
  }
  const open = [...results].find(([{ name }]) => name === OPEN_LOOP_CASE)?.[1];
  const tail = open && wanted(`${group}: open loop`) ? await atSevenTenths(group, subjects, open) : [];
  return [...[...results].flatMap(([measured, row]) => rowsOf(group, measured, row)), ...tail];
}

/** nginx 1.22 speaks HTTP/2 over TLS only; the server behind the mesh's way without a waypoint is that nginx. */
const speaksHttp2 = (group: string, { name }: Subject): boolean =>
  isInstalled('h2load') && name !== 'nginx' && !(group === 'mesh' && name === 'no waypoint');

function load(subject: Subject, { kind, path, connections }: Case): Promise<HttpResult> {
  if (kind === 'http2') return loadHttp2(subject, connections, SECONDS, path);
  return loadHttp(subject, connections, SECONDS, kind === 'kept', path);
}

function rowsOf(group: Group, { name, targets }: Case, measured: ReadonlyMap<string, readonly HttpResult[]>): Row[] {
  const mine = measured.get('ours') ?? [];
  return [...measured].flatMap(([peerName, peer]) =>
    peerName === 'ours'
      ? []
      : METRICS.filter(([metric]) => peerName !== 'no waypoint' || metric !== 'CPU per request').map(([metric, unit, better, value]) =>
          ratioRow({
            bench: 'waypoint',
            case: `${group}: ${name}`,
            metric,
            unit,
            better,
            ours: median(mine.map(value)),
            peer: median(peer.map(value)),
            peerName,
            ...(peerName === 'envoy' && metric === 'CPU per request' && targets ? { target: targets[group] } : {}),
          }),
        ),
  );
}
