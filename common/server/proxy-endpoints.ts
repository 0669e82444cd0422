/** The plaintext HTTP servers that every proxy has: admin on loopback, metrics, readiness (Istio's ztunnel, src/telemetry.rs). */
import { readdir, readFile } from 'node:fs/promises';
import type { Log } from '../base/log.ts';
import { type HttpAnswer, type HttpEndpoint, type HttpRequest, notFound, serveHttp } from './http-endpoint.ts';
import type { LogLevels } from './log-levels.ts';
import type { MetricFamily } from './metric-family.ts';
import { metricsContentType, metricsText } from './metrics-text.ts';
import type { Readiness } from './readiness.ts';
import type { SeriesReader, SeriesWriter } from './shared-series.ts';

export interface EndpointsOptions {
  /** On its index page. */
  readonly name: 'ztunnel' | 'waypoint';
  readonly settings: { readonly ipv6: boolean; readonly adminPort: number; readonly statsPort: number; readonly readinessPort: number };
  readonly log: Log;
  readonly reader: SeriesReader;
  readonly series: SeriesWriter;
  readonly families: readonly MetricFamily[];
  readonly process: ProcessMetrics;
  readonly readiness: Readiness;
  readonly levels: LogLevels;
  configDump(): object | Promise<object>;
  /** Begins the shutdown. */
  quit(): void;
  /** Brings gauges up to date that are only looked at when somebody asks. */
  beforeScrape(): void;
}

/** The gauges that say how the process is. */
export interface ProcessMetrics {
  readonly openFds: MetricFamily;
  readonly maxFds: MetricFamily;
  readonly residentMemory: MetricFamily;
  readonly cpuSeconds: MetricFamily;
  readonly startTime: MetricFamily;
}

export interface Endpoints {
  readonly adminPort: number;
  readonly statsPort: number;
  readonly readinessPort: number;
  close(): Promise<void>;
}

/** @throws {Error} naming the endpoint whose port is taken */
export async function serveEndpoints(options: EndpointsOptions): Promise<Endpoints> {
  const { settings, log } = options;
  const anywhere = settings.ipv6 ? ['::'] : ['0.0.0.0'];
  const loopback = settings.ipv6 ? ['127.0.0.1', '::1'] : ['127.0.0.1'];
  const open: HttpEndpoint[] = [];
  const close = async (): Promise<void> => void (await Promise.all(open.map((endpoint) => endpoint.close())));
  const serve = async (name: string, addresses: readonly string[], port: number, answer: Handler): Promise<number> => {
    const endpoint = await serveHttp({ name, addresses, port, log, answer: (request) => answer(options, request) });
    open.push(endpoint);
    return endpoint.port;
  };
  try {
    return {
      adminPort: await serve('admin', loopback, settings.adminPort, admin),
      statsPort: await serve('metrics', anywhere, settings.statsPort, scrape),
      readinessPort: await serve('readiness', anywhere, settings.readinessPort, ready),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

type Handler = (options: EndpointsOptions, request: HttpRequest) => HttpAnswer | Promise<HttpAnswer>;

function ready({ readiness }: EndpointsOptions, { path }: HttpRequest): HttpAnswer {
  if (path !== '/healthz/ready') return notFound();
  const pending = readiness.pending();
  return pending.length === 0 ? { status: 200, body: 'ready\n' } : { status: 500, body: `not ready, pending: ${pending.join(', ')}\n` };
}

async function scrape(options: EndpointsOptions, { path, headers }: HttpRequest): Promise<HttpAnswer> {
  if (path !== '/metrics' && path !== '/stats/prometheus') return notFound();
  options.beforeScrape();
  await measureProcess(options.series, options.process);
  const body = metricsText(options.families, options.reader.collect());
  return { status: 200, body, contentType: metricsContentType(headers.accept as string | undefined) };
}

async function measureProcess(series: SeriesWriter, metrics: ProcessMetrics): Promise<void> {
  const [fds, limits] = await Promise.all([readdir('/proc/self/fd'), readFile('/proc/self/limits', 'utf8')]);
  const limit = /Max open files\s+(\d+)/.exec(limits)?.[1];
  const { user, system } = process.cpuUsage();
  series.set(series.slot(metrics.openFds, []), fds.length);
  if (limit !== undefined) series.set(series.slot(metrics.maxFds, []), Number(limit));
  series.set(series.slot(metrics.residentMemory, []), process.memoryUsage.rss());
  series.set(series.slot(metrics.cpuSeconds, []), (user + system) / 1e6);
  series.set(series.slot(metrics.startTime, []), performance.timeOrigin / 1000);
}

const index = (name: string): string => `<!doctype html>
<title>${name} (Warren)</title>
<h1>${name} (Warren)</h1>
<ul>
<li><a href="/config_dump">/config_dump</a>: what it knows, serves and carries
<li>POST /logging?level=LEVEL or ?level=SCOPE=LEVEL: log levels; ?reset=true: those of the start
<li>POST /quitquitquit: drain and end
</ul>
`;

async function admin(options: EndpointsOptions, request: HttpRequest): Promise<HttpAnswer> {
  switch (request.path) {
    case '/':
      return { status: 200, body: index(options.name), contentType: 'text/html; charset=utf-8' };
    case '/config_dump':
      return { status: 200, body: `${JSON.stringify(await options.configDump(), undefined, 2)}\n`, contentType: 'application/json' };
    case '/logging':
      return request.method === 'POST' ? logging(options, request.query) : methodNotAllowed();
    case '/quitquitquit':
      if (request.method !== 'POST') return methodNotAllowed();
      options.quit();
      return { status: 200, body: 'shutdown now\n' };
    default:
      return notFound();
  }
}

const methodNotAllowed = (): HttpAnswer => ({ status: 405, body: 'Invalid HTTP method\n' });

function logging({ levels }: EndpointsOptions, query: URLSearchParams): HttpAnswer {
  const level = query.get('level') ?? '';
  try {
    levels.change({ level, reset: query.get('reset') === 'true' });
  } catch (error) {
    return {
      status: 400,
      body: `Invalid level provided: ${JSON.stringify(level.slice(0, 200))}: ${error instanceof Error ? error.message : error}\n`,
    };
  }
  return { status: 200, body: `current log level is ${levels}\n` };
}
