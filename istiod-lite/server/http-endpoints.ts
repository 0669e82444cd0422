/** What istiod-lite answers over plain HTTP: readiness on one port, metrics, version and diagnostics on the other. */

import { VERSION } from '../../common/base/version.ts';
import { Authorization } from '../../common/codec/gen/authorization.ts';
import { Address } from '../../common/codec/gen/workload.ts';
import { type HttpAnswer, type HttpRequest, notFound } from '../../common/server/http-endpoint.ts';
import type { ProxyReports } from '../diagnostics/reports.ts';
import type { Metrics } from '../metrics.ts';
import type { MeshIndex } from '../model/index.ts';
import type { Proxies } from '../xds/proxies.ts';
import { ambientDump } from './ambient-dump.ts';

export interface EndpointOptions {
  readonly metrics: Metrics;
  readonly proxies: Proxies;
  readonly reports: ProxyReports;
  readonly index: Pick<MeshIndex, 'problems' | 'addresses' | 'authorizations'>;
  /** Whether this bearer token may see what runs where. */
  trusted(token: string): Promise<boolean>;
  /** Why istiod is not ready; empty where it is. */
  missing(): readonly string[];
  /** Brings gauges that depend on the time up to date. */
  refreshMetrics(): void;
}

type Route = (options: EndpointOptions, request: HttpRequest) => HttpAnswer | Promise<HttpAnswer>;

const readiness: Readonly<Record<string, Route>> = {
  '/ready': ({ missing }) => {
    const why = missing();
    return why.length === 0 ? { status: 200, body: 'ready\n' } : { status: 503, body: `not ready: ${why.join(', ')}\n` };
  },
};

const monitoring: Readonly<Record<string, Route>> = {
  '/metrics': async ({ metrics, refreshMetrics }) => {
    refreshMetrics();
    return { status: 200, body: await metrics.registry.metrics(), contentType: metrics.registry.contentType };
  },
  '/version': () => json({ version: VERSION, name: 'warren' }),
  '/debug': () => ({ status: 200, body: `${Object.keys(monitoring).join('\n')}\n` }),
  '/debug/syncz': ({ proxies }) => json(proxies.rows()),
  '/debug/proxies': ({ reports }) => json(reports.rows()),
  '/debug/problems': ({ index }) => json([...index.problems()]),
  // Every pod can reach this port, and not every pod's business is where everything runs.
  '/debug/ambientz': async ({ index, trusted }, request) => {
    if (!isLoopback(request.remoteAddress) && !(await trusted(bearerOf(request))))
      return { status: 401, body: "Unauthorized: ask from inside istiod's pod, or with a token of its namespace\n" };
    return json(ambientDump(decoded(index.addresses(), Address), decoded(index.authorizations(), Authorization)));
  },
};

/** For port 8080. */
export const answerReadiness = (options: EndpointOptions) => route({ ...readiness }, options);
/** For port 15014; readiness too, for those who look there. */
export const answerMonitoring = (options: EndpointOptions) => route({ ...monitoring, ...readiness }, options);

function route(routes: Readonly<Record<string, Route>>, options: EndpointOptions) {
  return (request: HttpRequest): HttpAnswer | Promise<HttpAnswer> => {
    const { method, path } = request;
    const found = Object.hasOwn(routes, path) ? routes[path] : undefined;
    if (!found) return notFound();
    return method === 'GET' || method === 'HEAD' ? found(options, request) : { status: 405, body: 'Method Not Allowed\n' };
  };
}

const isLoopback = (address: string): boolean => address.startsWith('127.') || address === '::1';
const bearerOf = ({ headers }: HttpRequest): string => /^Bearer +(\S+)$/i.exec(String(headers.authorization ?? ''))?.[1] ?? '';

function* decoded<T>(resources: Iterable<{ readonly bytes: Uint8Array }>, codec: { decode(bytes: Uint8Array): T }): Generator<T> {
  for (const { bytes } of resources) yield codec.decode(bytes);
}

const json = (value: unknown): HttpAnswer => ({
  status: 200,
  body: `${JSON.stringify(value, undefined, 2)}\n`,
  contentType: 'application/json',
});
