/**
 * The small plaintext HTTP/1.1 servers of a proxy: admin, metrics, readiness. Short limits, answers made as a whole, compression where the
 * client asks for it, and an end that lets requests under way finish.
 */
import type { IncomingMessage, Server } from 'node:http';
import { isIP } from 'node:net';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { brotliCompress, deflate, gzip } from 'node:zlib';
import { errorMessage } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { http } from '../base/node-http.ts';

export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** IP address of the caller; IPv4 in its own form. */
  readonly remoteAddress: string;
  /** Of a POST, where the endpoint takes bodies; empty otherwise. */
  readonly body: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: string;
  /** `text/plain; charset=utf-8` where it is not given. */
  readonly contentType?: string;
  /** Sent instead of the body, as it comes; destroyed when the client leaves or the endpoint closes. */
  readonly stream?: Readable;
}

export interface HttpEndpoint {
  /** The port that it got: of interest where 0 was asked for. */
  readonly port: number;
  /** Stops accepting, ends idle connections, resolves when requests under way are answered. */
  close(): Promise<void>;
}

export interface HttpEndpointOptions {
  /** For the log: `admin`. */
  readonly name: string;
  /** Addresses to listen on; a missing address family is no error as long as one of them works. */
  readonly addresses: readonly string[];
  readonly port: number;
  readonly log: Log;
  /** Of a POST's body; without it bodies are read and let go. */
  readonly maxBodyBytes?: number;
  answer(request: HttpRequest): HttpAnswer | Promise<HttpAnswer>;
}

const HEADER_TIMEOUT_MS = 2000;
const MAX_HEADER_BYTES = 8192;
const MAX_CONNECTIONS = 256;
const COMPRESS_FROM_BYTES = 1024;

/** @throws {Error} naming endpoint, address and cause where a port is taken */
export async function serveHttp(options: HttpEndpointOptions): Promise<HttpEndpoint> {
  const servers: Server[] = [];
  let port = options.port;
  try {
    for (const address of options.addresses) {
      const server = await listen(options, address, port).catch((error: unknown) => {
        if (isMissingFamily(error)) return undefined;
        throw new Error(`${options.name}: cannot listen on ${address} port ${port}: ${errorMessage(error)}`, { cause: error });
      });
      if (!server) continue;
      servers.push(server);
      const bound = server.address();
      if (typeof bound === 'object' && bound) port = bound.port;
    }
    if (servers.length === 0) throw new Error(`${options.name}: none of ${options.addresses.join(', ')} exists here`);
  } catch (error) {
    await Promise.all(servers.map(close));
    throw error;
  }
  return { port, close: async () => void (await Promise.all(servers.map(close))) };
}

const NOT_FOUND: HttpAnswer = { status: 404, body: 'Not Found\n' };
/** The answer to a path that is none. */
export const notFound = (): HttpAnswer => NOT_FOUND;

async function listen(options: HttpEndpointOptions, address: string, port: number): Promise<Server> {
  const server = http.createServer({ maxHeaderSize: MAX_HEADER_BYTES, headersTimeout: HEADER_TIMEOUT_MS, requestTimeout: 30_000 });
  server.maxConnections = MAX_CONNECTIONS;
  server.on('request', (request, response) => {
    // A path with two slashes in front is no host (istioctl asks for `//version`).
    const url = URL.parse((request.url ?? '/').replace(/^\/+/, '/'), 'http://endpoint');
    const method = request.method ?? 'GET';
    const takesBody = method === 'POST' && options.maxBodyBytes !== undefined;
    if (!takesBody) request.resume();
    const answer: Promise<HttpAnswer> = url
      ? (takesBody ? bodyOf(request, options.maxBodyBytes ?? 0) : Promise.resolve('')).then((body) =>
          body === undefined
            ? { status: 413, body: `more than ${options.maxBodyBytes} bytes\n` }
            : options.answer({
                method,
                path: url.pathname,
                query: url.searchParams,
                headers: request.headers,
                remoteAddress: request.socket.remoteAddress?.replace(/^::ffff:/, '') ?? '',
                body,
              }),
        )
      : Promise.resolve({ status: 400, body: 'Bad Request\n' });
    answer
      .catch((error: unknown): HttpAnswer => {
        options.log.error({ endpoint: options.name, path: request.url, error: errorMessage(error) }, 'request failed');
        return { status: 500, body: `${errorMessage(error)}\n` };
      })
      .then(async ({ status, body, contentType = 'text/plain; charset=utf-8', stream }) => {
        if (stream) {
          response.writeHead(status, { 'content-type': contentType });
          response.flushHeaders();
          server.once('closing', () => stream.destroy());
          // A client that leaves is how such an answer usually ends.
          await pipeline(stream, response).catch(() => undefined);
          return;
        }
        const { encoding, bytes } = await compressed(body, request.headers['accept-encoding']);
        response.writeHead(status, {
          'content-type': contentType,
          'content-length': bytes.length,
          ...(encoding ? { 'content-encoding': encoding } : {}),
        });
        response.end(request.method === 'HEAD' ? undefined : bytes);
      })
      .catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: address, port, ipv6Only: isIP(address) === 6 && address !== '::' }, () => {
      server.off('error', reject);
      resolve();
    });
  });
  server.on('error', (error) => options.log.error({ endpoint: options.name, error: error.message }, 'endpoint failed'));
  return server;
}

/** @returns undefined where it is too long; the rest is read and let go, so that the answer gets through */
async function bodyOf(request: IncomingMessage, limit: number): Promise<string | undefined> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes <= limit) pieces.push(piece);
  }
  return bytes > limit ? undefined : Buffer.concat(pieces).toString();
}

const close = (server: Server): Promise<void> =>
  new Promise((resolve) => {
    server.close(() => resolve());
    server.emit('closing');
    server.closeIdleConnections();
  });

const compressions = {
  gzip: promisify(gzip) as (body: string) => Promise<Buffer>,
  br: promisify(brotliCompress) as (body: string) => Promise<Buffer>,
  deflate: promisify(deflate) as (body: string) => Promise<Buffer>,
} as const;

async function compressed(
  body: string,
  accept: string | readonly string[] | undefined,
): Promise<{ encoding: string | undefined; bytes: Buffer }> {
  const offered = String(accept ?? '')
    .split(',')
    .filter((entry) => !/;\s*q=0(\.0*)?\s*$/.test(entry))
    .map((entry) => entry.split(';')[0]?.trim());
  const encoding = (Object.keys(compressions) as (keyof typeof compressions)[]).find((name) => offered.includes(name));
  if (!encoding || body.length < COMPRESS_FROM_BYTES) return { encoding: undefined, bytes: Buffer.from(body) };
  return { encoding, bytes: await compressions[encoding](body) };
}

const isMissingFamily = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'EADDRNOTAVAIL' || error.code === 'EAFNOSUPPORT');
