/** What istiod-lite answers over plain HTTP: readiness on one port, metrics, version and debug pages on the other. */
import { Readable } from 'node:stream';
import { errorMessage } from '../../common/base/errors.ts';
import { VERSION } from '../../common/base/version.ts';
import { type HttpAnswer, type HttpRequest, notFound } from '../../common/server/http-endpoint.ts';
import type { Gate } from '../access/access.ts';
import { bearerToken } from '../access/authenticate.ts';
import type { TokenReviewer } from '../access/token-review.ts';
import { AskError } from '../diagnostics/reports.ts';
import type { Metrics } from '../metrics.ts';
import { BadBody, type DebugSources, debugPages, sightOf, TOKEN_HEADER } from './debug-pages.ts';

export interface EndpointOptions {
  readonly metrics: Metrics;
  readonly debug: DebugSources;
  readonly access: Gate;
  /** Of tokens for debug pages. */
  readonly reviewer: Pick<TokenReviewer, 'review'>;
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
  // That the process still turns, and no more: without the API server a restart would mend nothing.
  '/live': () => ({ status: 200, body: 'live\n' }),
};

const monitoring: Readonly<Record<string, Route>> = {
  '/metrics': async ({ metrics, refreshMetrics }) => {
    refreshMetrics();
    return { status: 200, body: await metrics.registry.metrics(), contentType: metrics.registry.contentType };
  },
  // istioctl looks for the version under the name that its own output has for it (Istio, pkg/kube/client.go).
  '/version': () => json({ version: VERSION, name: 'warren', clientVersion: { version: VERSION, tag: VERSION } }),
  '/debug': () => ({
    status: 200,
    body: Object.entries(debugPages)
      .map(([path, { doc }]) => `${path}: ${doc}\n`)
      .join(''),
  }),
};

/** For port 8080. */
export const answerReadiness = (options: EndpointOptions) => answering({ ...readiness }, options);
/** For port 15014; readiness too, for those who look there. */
export const answerMonitoring = (options: EndpointOptions) => answering({ ...monitoring, ...readiness }, options, debugPage);

function answering(routes: Readonly<Record<string, Route>>, options: EndpointOptions, otherwise: Route = notFound) {
  return (request: HttpRequest): HttpAnswer | Promise<HttpAnswer> => {
    const { method, path } = request;
    const found = Object.hasOwn(routes, path) ? routes[path] : otherwise;
    if (!found) return notFound();
    const page = Object.hasOwn(debugPages, path) ? debugPages[path] : undefined;
    const right = page?.changes ? ['POST'] : page?.takesBody ? ['GET', 'HEAD', 'POST'] : ['GET', 'HEAD'];
    return right.includes(method) ? found(options, request) : { status: 405, body: 'Method Not Allowed\n' };
  };
}

async function debugPage(options: EndpointOptions, { path, query, headers, remoteAddress, body }: HttpRequest): Promise<HttpAnswer> {
  const page = Object.hasOwn(debugPages, path) ? debugPages[path] : undefined;
  if (!page) return notFound();
  const token = String(headers[TOKEN_HEADER] ?? '') || bearerToken(headers.authorization) || '';
  const sight = await sightOf({ remoteAddress, token }, page, options);
  if (typeof sight === 'object' && 'reason' in sight) return { status: sight.status, body: `${WORDS[sight.status]}: ${sight.reason}\n` };
  try {
    const shown = await page.show(options.debug, sight, query, decoded(body));
    if (shown instanceof Readable) return { status: 200, body: '', contentType: 'application/x-ndjson', stream: shown };
    return shown === undefined ? notFound() : json(shown);
  } catch (error) {
    if (error instanceof BadBody) return { status: 400, body: `${error.message}\n` };
    if (error instanceof AskError) return { status: ASK_STATUS[error.why], body: `${error.message}\n` };
    throw error;
  }
}

/** @throws {BadBody} */
function decoded(body: string): unknown {
  if (body === '') return undefined;
  try {
    return JSON.parse(body);
  } catch (error) {
    throw new BadBody(`the body is no JSON: ${errorMessage(error)}`);
  }
}

const WORDS = { 401: 'Unauthorized', 403: 'Forbidden', 503: 'Service Unavailable' } as const;
/** A proxy that reports to another replica is no mistake: who asks goes on to the next one. */
const ASK_STATUS = { absent: 404, failed: 502, busy: 503 } as const;

const json = (value: unknown): HttpAnswer => ({
  status: 200,
  body: Buffer.isBuffer(value) ? value.toString() : `${JSON.stringify(value, undefined, 2)}\n`,
  contentType: 'application/json',
});
