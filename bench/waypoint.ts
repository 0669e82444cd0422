/**
 * The waypoint as a plaintext reverse proxy with its whole pipeline (policy, route with weights, metrics), one data worker, beside nginx,
 * haproxy and, where ENVOY_BIN is set, Envoy: HTTP/1.1 kept and new connections, and HTTP/2 where h2load is at hand. One run, all in turn.
 */
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Bench, median, type Row, ratioRow } from './rows.ts';
import { HTTP_PORT, Lab, type Program } from './support/lab.ts';
import { type HttpResult, loadHttp, type Subject } from './support/load.ts';
import { buildRelease } from './support/release.ts';

const ROUNDS = 3;
const SECONDS = 2;
const HTTP1_CASES = [
  { name: 'keep-alive, 1 connection', connections: 1, keepAlive: true },
  { name: 'keep-alive, 64 connections', connections: 64, keepAlive: true },
  { name: 'keep-alive, 512 connections', connections: 512, keepAlive: true },
  { name: 'new connections, 16 at once', connections: 16, keepAlive: false },
] as const;
const HTTP2_CASE = 'HTTP/2, 8 connections of 32 streams';
/** CPU per request, ours to Envoy's: the next issue's target for a plaintext reverse proxy. */
const ENVOY_TARGET = 0.6;

const PORTS = { ours: 9001, nginx: 9002, haproxy: 9003, envoy: 9004 } as const;
type Name = keyof typeof PORTS;

const METRICS: readonly (readonly [metric: string, unit: string, better: 'less' | 'more', value: (result: HttpResult) => number])[] = [
  ['requests per second', '/s', 'more', ({ perSecond }) => perSecond],
  ['CPU per request', 'us', 'less', ({ cpuMicros }) => cpuMicros],
  ['p50', 'us', 'less', ({ p50Micros }) => p50Micros],
  ['p99', 'us', 'less', ({ p99Micros }) => p99Micros],
];

export const bench: Bench = {
  name: 'waypoint',
  doc: 'the waypoint as a plaintext reverse proxy, against nginx, haproxy and (ENVOY_BIN) Envoy',
  async run() {
    await using lab = new Lab();
    await lab.startServers();
    const subjects = [ours(lab), nginx(lab), haproxy(lab), envoy(lab)].filter((subject) => subject !== undefined);
    for (const { http } of subjects) await lab.waitForPort(lab.near, http.port);
    const results = new Map<string, Map<string, HttpResult[]>>();
    const keep = (name: string, subject: Subject, result: HttpResult): void => {
      const row = results.get(name) ?? new Map<string, HttpResult[]>();
      results.set(name, row.set(subject.name, [...(row.get(subject.name) ?? []), result]));
    };
    const http2 = has('h2load');
    for (let round = 1; round <= ROUNDS; round++) {
      for (const { name, connections, keepAlive } of HTTP1_CASES) {
        for (const subject of subjects) keep(name, subject, await loadHttp(subject, connections, SECONDS, keepAlive));
        console.error(`round ${round}: ${name}`);
      }
      // nginx 1.22 and haproxy 2.6 speak HTTP/2 to clients over TLS only, or by a port of its own: ours and Envoy tell both by the first bytes.
      if (http2) for (const subject of subjects.filter(({ name }) => name !== 'nginx')) keep(HTTP2_CASE, subject, await loadHttp2(subject));
    }
    return [...results].flatMap(([name, measured]) => rowsOf(name, measured));
  },
};

function rowsOf(name: string, measured: ReadonlyMap<string, readonly HttpResult[]>): Row[] {
  const mine = measured.get('ours') ?? [];
  return [...measured].flatMap(([peerName, peer]) =>
    peerName === 'ours'
      ? []
      : METRICS.filter(([metric]) => name !== HTTP2_CASE || !metric.startsWith('p')).map(([metric, unit, better, value]) =>
          ratioRow({
            bench: 'waypoint',
            case: name,
            metric,
            unit,
            better,
            ours: median(mine.map(value)),
            peer: median(peer.map(value)),
            peerName,
            ...(peerName === 'envoy' && metric === 'CPU per request' && /64|512/.test(name) ? { target: ENVOY_TARGET } : {}),
          }),
        ),
  );
}

const subject = (lab: Lab, name: Name, program: Program): Subject => {
  const http = { ip: '127.0.0.1', port: PORTS[name] };
  return { name, lab, proxies: [program], http, bulk: http };
};

function ours(lab: Lab): Subject {
  const mesh = join(lab.folder, 'mesh.yaml');
  writeFileSync(
    mesh,
    `workloads:
  - { name: app, namespace: shop, uid: app, workloadIps: [${lab.far.ip}], protocol: TCP, services: { shop/app.example: { 80: ${HTTP_PORT} } } }
services:
  - { name: app, namespace: shop, hostname: app.example, vips: [/10.96.0.1], ports: { 80: ${HTTP_PORT} }, appProtocols: { 80: HTTP11 } }
`,
  );
  const routes = join(lab.folder, 'routes.yaml');
  writeFileSync(
    routes,
    JSON.stringify({
      routes: [
        {
          namespace: 'shop',
          hostname: 'app.example',
          ports: [
            {
              port: 80,
              table: [{ match: { path: { prefix: '/' } }, rule: 0 }],
              rules: [
                {
                  name: 'HTTPRoute shop/app',
                  backends: [50, 50].map((weight) => ({ to: { namespace: 'shop', hostname: 'app.example', port: 80 }, weight })),
                },
              ],
            },
          ],
        },
      ],
      policies: [
        {
          namespace: 'shop',
          name: 'get',
          action: 'ALLOW',
          targets: [{ everything: {} }],
          rules: [{ to: [{ methods: [{ exact: 'GET' }] }] }],
        },
      ],
    }),
  );
  const program = join(buildRelease(), 'waypoint/main.js');
  const env = {
    LOCAL_XDS_PATH: mesh,
    LOCAL_ROUTES_PATH: routes,
    PLAINTEXT_LISTEN: `${PORTS.ours}=shop/app.example:80`,
    GATEWAY_NAME: 'waypoint',
    POD_NAME: 'waypoint-1',
    POD_NAMESPACE: 'shop',
    SERVICE_ACCOUNT: 'waypoint',
    XDS_ADDRESS: '',
    CA_ADDRESS: '',
    WARREN_HBONE_PORT: '0',
    WARREN_WORKER_THREADS: '1',
    RUST_LOG: 'info,access=warn',
  };
  return subject(lab, 'ours', lab.start(lab.near, 'waypoint', [process.execPath, program, 'proxy', 'waypoint'], env));
}

/** A single process, so that its processor time is that of the program that was started. */
function nginx(lab: Lab): Subject {
  const file = join(lab.folder, 'proxy.conf');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${lab.folder};`).join(' ');
  writeFileSync(
    file,
    `master_process off; daemon off; pid ${lab.folder}/proxy.pid; error_log ${lab.folder}/proxy.log;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 1000000000; ${temporary}
upstream app { server ${lab.far.ip}:${HTTP_PORT}; keepalive 512; keepalive_requests 1000000000; }
server { listen ${PORTS.nginx} backlog=4096;
location / { proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; } } }\n`,
  );
  return subject(lab, 'nginx', lab.start(lab.near, 'nginx-proxy', ['nginx', '-c', file]));
}

function haproxy(lab: Lab): Subject | undefined {
  if (!has('haproxy')) {
    console.error('haproxy is not installed: left out');
    return undefined;
  }
  const file = join(lab.folder, 'haproxy.cfg');
  writeFileSync(
    file,
    `global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
listen proxy
  bind 127.0.0.1:${PORTS.haproxy}
  server app ${lab.far.ip}:${HTTP_PORT}\n`,
  );
  return subject(lab, 'haproxy', lab.start(lab.near, 'haproxy', ['haproxy', '-db', '-f', file]));
}

function envoy(lab: Lab): Subject | undefined {
  const program = process.env.ENVOY_BIN;
  if (program === undefined || program === '') return undefined;
  const address = (ip: string, port: number): object => ({ socket_address: { address: ip, port_value: port } });
  const file = join(lab.folder, 'envoy.json');
  const manager = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'bench',
    route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'app' } }] }] },
    http_filters: [{ name: 'router', typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' } }],
  };
  const cluster = {
    name: 'app',
    type: 'STATIC',
    load_assignment: {
      cluster_name: 'app',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: address(lab.far.ip, HTTP_PORT) } }] }],
    },
  };
  writeFileSync(
    file,
    JSON.stringify({
      static_resources: {
        listeners: [
          { address: address('127.0.0.1', PORTS.envoy), filter_chains: [{ filters: [{ name: 'http', typed_config: manager }] }] },
        ],
        clusters: [cluster],
      },
    }),
  );
  return subject(lab, 'envoy', lab.start(lab.near, 'envoy', [program, '-c', file, '--concurrency', '1', '-l', 'error']));
}

async function loadHttp2({ lab, proxies, http }: Subject): Promise<HttpResult> {
  const before = lab.usage(proxies);
  const output = await lab.run(lab.near, 'h2load', '-c8', '-m32', '-t1', `-D${SECONDS}`, `http://${http.ip}:${http.port}/`);
  const after = lab.usage(proxies);
  const requests = Number(/requests: (\d+) total/.exec(output)?.[1]);
  const failed = Number(/(\d+) failed/.exec(output)?.[1]);
  if (!(requests > 0) || failed > 0) throw new Error(`requests failed:\n${output}`);
  return {
    perSecond: Number(/finished in [^,]+, ([\d.]+) req/.exec(output)?.[1]),
    cpuMicros: ((after.cpuSeconds - before.cpuSeconds) * 1e6) / requests,
    // h2load gives no percentiles; these rows are left out.
    p50Micros: Number.NaN,
    p99Micros: Number.NaN,
  };
}

const has = (program: string): boolean => spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
