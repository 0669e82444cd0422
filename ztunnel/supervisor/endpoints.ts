/** The plaintext HTTP servers of a ztunnel: admin on loopback, metrics, readiness (Istio's ztunnel, src/telemetry.rs). */
import { readdir, readFile } from 'node:fs/promises';
import type { Log, LogLevel } from '../../common/base/log.ts';
import { type LogDirectives, logDirectives } from '../../common/base/proxy-settings.ts';
import { type HttpAnswer, type HttpEndpoint, type HttpRequest, notFound, serveHttp } from '../../common/server/http-endpoint.ts';
import { metricsContentType, metricsText } from '../../common/server/metrics-text.ts';
import type { Readiness } from '../../common/server/readiness.ts';
import type { SeriesReader, SeriesWriter } from '../../common/server/shared-series.ts';
import { metricFamilies, metrics } from '../metrics.ts';
import type { ZtunnelSettings } from '../settings.ts';

export interface EndpointsOptions {
  readonly settings: ZtunnelSettings;
  readonly log: Log;
  readonly reader: SeriesReader;
  readonly series: SeriesWriter;
  readonly readiness: Readiness;
  /** The levels in force. */
  levels(): LogDirectives;
  setLevels(levels: LogDirectives): void;
  configDump(): Promise<object>;
  /** Begins the shutdown. */
  quit(): void;
  /** Brings gauges up to date that are only looked at when somebody asks. */
  beforeScrape(): void;
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
  await measureProcess(options.series);
  const body = metricsText(metricFamilies, options.reader.collect());
  return { status: 200, body, contentType: metricsContentType(headers.accept as string | undefined) };
}

async function measureProcess(series: SeriesWriter): Promise<void> {
  const [fds, limits] = await Promise.all([readdir('/proc/self/fd'), readFile('/proc/self/limits', 'utf8')]);
  const limit = /Max open files\s+(\d+)/.exec(limits)?.[1];
  const { user, system } = process.cpuUsage();
  series.set(series.slot(metrics.openFds, []), fds.length);
  if (limit !== undefined) series.set(series.slot(metrics.maxFds, []), Number(limit));
  series.set(series.slot(metrics.residentMemory, []), process.memoryUsage.rss());
  series.set(series.slot(metrics.cpuSeconds, []), (user + system) / 1e6);
  series.set(series.slot(metrics.startTime, []), performance.timeOrigin / 1000);
}

const INDEX = `<!doctype html>
<title>ztunnel (Warren)</title>
<h1>ztunnel (Warren)</h1>
<ul>
<li><a href="/config_dump">/config_dump</a>: what it knows, serves and carries
<li>POST /logging?level=LEVEL or ?level=SCOPE=LEVEL: log levels; ?reset=true: those of the start
<li>POST /quitquitquit: drain and end
</ul>
`;

async function admin(options: EndpointsOptions, request: HttpRequest): Promise<HttpAnswer> {
  switch (request.path) {
    case '/':
      return { status: 200, body: INDEX, contentType: 'text/html; charset=utf-8' };
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

function logging(options: EndpointsOptions, query: URLSearchParams): HttpAnswer {
  const wanted = query.get('level');
  if (query.get('reset') === 'true') options.setLevels(options.settings.log);
  else if (wanted !== null && wanted !== '') {
    let levels: LogDirectives;
    try {
      levels = logDirectives.parse(wanted);
    } catch (error) {
      return {
        status: 400,
        body: `Invalid level provided: ${JSON.stringify(wanted.slice(0, 200))}: ${error instanceof Error ? error.message : error}\n`,
      };
    }
    // A directive for one scope leaves the others as they are.
    const general = wanted.split(',').some((piece) => !piece.includes('='));
    const before = options.levels();
    options.setLevels({ level: general ? levels.level : before.level, scopes: { ...before.scopes, ...levels.scopes } });
  }
  return { status: 200, body: `current log level is ${describeLevels(options.levels())}\n` };
}

const describeLevels = ({ level, scopes }: LogDirectives): string =>
  [level, ...Object.entries(scopes).map(([scope, own]: [string, LogLevel]) => `${scope}=${own}`)].join(',');
