/** common/http alone, as a plaintext reverse proxy for HTTP/1.1, against nginx as the same in the same run. */
import { fileURLToPath } from 'node:url';
import { type Bench, median, type Row, ratioRow } from './rows.ts';
import { HTTP_PORT, Lab } from './support/lab.ts';
import { type HttpResult, loadHttp, type Subject } from './support/load.ts';
import { startNginx } from './support/reverse-proxies.ts';
import { unwindable } from './support/unwinding.ts';

const OURS_PORT = 9001;
const NGINX_PORT = 9002;
const ROUNDS = 3;
const SECONDS = 2;
const CASES = [
  { name: 'keep-alive, 1 connection', connections: 1, keepAlive: true },
  { name: 'keep-alive, 64 connections', connections: 64, keepAlive: true },
  { name: 'new connections, 16 at once', connections: 16, keepAlive: false },
] as const;
/** What a prototype of the codec alone reached: 13.5 us where nginx needs 9.6. */
const CPU_TARGET = 1.4;

const METRICS: readonly (readonly [metric: string, unit: string, better: 'less' | 'more', value: (result: HttpResult) => number])[] = [
  ['requests per second', '/s', 'more', ({ perSecond }) => perSecond],
  ['CPU per request', 'us', 'less', ({ cpuMicros }) => cpuMicros],
  ['p50', 'us', 'less', ({ p50Micros }) => p50Micros],
  ['p99', 'us', 'less', ({ p99Micros }) => p99Micros],
];

export const bench: Bench = {
  name: 'http',
  doc: 'HTTP/1.1 connections alone (common/http) as a reverse proxy, against nginx',
  async run() {
    await using labs = unwindable();
    const lab = labs.use(new Lab());
    await lab.startServers();
    const program = fileURLToPath(new URL('programs/http-proxy.ts', import.meta.url));
    const ours = lab.start(lab.near, 'http-proxy', [process.execPath, program, String(OURS_PORT), lab.far.ip, String(HTTP_PORT)]);
    const nginx = startNginx(lab, NGINX_PORT);
    for (const port of [OURS_PORT, NGINX_PORT]) await lab.waitForPort(lab.near, port);
    const subject = (name: string, proxy: typeof ours, port: number): Subject => {
      const http = { ip: '127.0.0.1', port };
      return { name, lab, proxies: [proxy], http, bulk: http };
    };
    return await measure(subject('ours', ours, OURS_PORT), subject('nginx', nginx, NGINX_PORT));
  },
};

async function measure(ours: Subject, nginx: Subject): Promise<Row[]> {
  const rows: Row[] = [];
  const results = new Map<string, { ours: HttpResult[]; nginx: HttpResult[] }>(CASES.map(({ name }) => [name, { ours: [], nginx: [] }]));
  for (let round = 1; round <= ROUNDS; round++) {
    for (const { name, connections, keepAlive } of CASES) {
      results.get(name)?.ours.push(await loadHttp(ours, connections, SECONDS, keepAlive));
      results.get(name)?.nginx.push(await loadHttp(nginx, connections, SECONDS, keepAlive));
      console.error(`round ${round}: ${name}`);
    }
  }
  for (const [name, measured] of results) {
    for (const [metric, unit, better, value] of METRICS) {
      rows.push(
        ratioRow({
          bench: 'http',
          case: name,
          metric,
          unit,
          better,
          ours: median(measured.ours.map(value)),
          peer: median(measured.nginx.map(value)),
          peerName: 'nginx',
          ...(metric === 'CPU per request' && name.includes('64') ? { target: CPU_TARGET } : {}),
        }),
      );
    }
  }
  return rows;
}
