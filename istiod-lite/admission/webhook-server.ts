/**
 * The HTTPS port on which the API server asks (Istio's 15017, path /validate), with istiod's own certificate, which changes while it runs.
 * Bodies, connections and times are bounded: anybody in the cluster can reach the port.
 */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { AdmissionView, AdmitOptions } from '../analysis/admit.ts';
import type { ServerCertificate } from '../ca/serving-certificate.ts';
import { review } from './review.ts';

export interface WebhookServerOptions extends AdmitOptions {
  readonly port: number;
  readonly address: string;
  readonly certificate: Pick<ServerCertificate, 'provider'>;
  readonly view: AdmissionView;
  readonly log: Log;
  /** Before the cluster has been read nobody can be judged. */
  ready(): boolean;
  reviewed(outcome: 'allowed' | 'warned' | 'refused' | 'failed'): void;
}

export interface WebhookServer {
  readonly port: number;
  close(): Promise<void>;
}

// An object is 1.5 MB at most, and a review has it twice.
const MAX_BODY_BYTES = 8 << 20;
const MAX_CONNECTIONS = 128;
// The API server gives up after two seconds.
const BODY_TIMEOUT_MS = 5000;
const IDLE_TIMEOUT_MS = 90_000;

/** @throws Error where the port is taken */
export async function serveWebhook(options: WebhookServerOptions): Promise<WebhookServer> {
  const { port, address, certificate, log } = options;
  const server = createServer({
    minVersion: 'TLSv1.2',
    maxHeaderSize: 16_384,
    headersTimeout: BODY_TIMEOUT_MS,
    requestTimeout: BODY_TIMEOUT_MS,
  });
  server.keepAliveTimeout = IDLE_TIMEOUT_MS;
  server.maxConnections = MAX_CONNECTIONS;
  server.on('request', (request, response) => {
    respond(options, request, response).catch((error: unknown) => {
      log.error({ error: errorMessage(error) }, 'an object could not be judged');
      response.destroy();
    });
  });
  server.on('tlsClientError', (error) => log.debug({ error: error.message }, 'webhook: handshake failed'));
  const listener = (current: { certificate: Buffer; privateKey: Buffer } | null): void => {
    if (current) server.setSecureContext({ cert: current.certificate, key: current.privateKey, minVersion: 'TLSv1.2' });
  };
  certificate.provider.addIdentityCertificateListener(listener);
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error) => reject(new Error(`webhook: cannot listen on port ${port}: ${error.message}`, { cause: error })));
    server.listen({ host: address, port }, resolve);
  });
  server.on('error', (error) => log.error({ error: error.message }, 'webhook failed'));
  const bound = server.address();
  return {
    port: typeof bound === 'object' && bound ? bound.port : port,
    async close() {
      certificate.provider.removeIdentityCertificateListener(listener);
      await closed(server);
    },
  };
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    setTimeout(() => server.closeAllConnections(), BODY_TIMEOUT_MS).unref();
  });
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

async function respond(options: WebhookServerOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { status, body } = await answer(options, request);
  const isGood = status === 200;
  request.resume();
  response.writeHead(status, {
    'content-type': isGood ? 'application/json' : 'text/plain; charset=utf-8',
    ...(isGood ? {} : { connection: 'close' }),
  });
  response.end(isGood ? body : `${body}\n`);
}

async function answer(options: WebhookServerOptions, request: IncomingMessage): Promise<Answer> {
  const [path] = (request.url ?? '').split('?');
  if (path === '/ready') return options.ready() ? { status: 200, body: '{}' } : { status: 503, body: 'not ready' };
  if (path !== '/validate') return { status: 404, body: 'Not Found' };
  if (request.method !== 'POST') return { status: 405, body: 'Method Not Allowed' };
  const given = options.ready() ? await reviewed(options, request) : { status: 503, body: 'the cluster has not been read yet' };
  if (given.status !== 200) options.reviewed('failed');
  return given;
}

async function reviewed(options: WebhookServerOptions, request: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes <= MAX_BODY_BYTES) chunks.push(chunk);
    // Who ends an answer before the request has come through is not heard; whoever sends without end is cut.
    else if (bytes > 4 * MAX_BODY_BYTES) throw new Error('a review without end');
  }
  if (bytes > MAX_BODY_BYTES) return { status: 413, body: `a review may have ${MAX_BODY_BYTES} bytes` };
  let body: unknown;
  try {
    body = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch (error) {
    return { status: 400, body: `the body is no JSON: ${errorMessage(error)}` };
  }
  const result = review(body, options.view, options);
  if (!result) return { status: 400, body: 'the body is no AdmissionReview with a request' };
  const { outcome, object, messages } = result;
  options.reviewed(outcome);
  if (outcome === 'refused') options.log.info({ object, messages }, 'object refused');
  else if (outcome === 'warned') options.log.debug({ object, messages }, 'object accepted with warnings');
  return { status: 200, body: JSON.stringify(result.answer) };
}
