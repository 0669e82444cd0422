/** HTTP mode of the conformance suite's backend: an answer in JSON, status codes and retries on demand, WebSocket echo. */
import { readFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import http2, { type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { Server } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { http } from '../../common/base/node-http.ts';
import { durationMs } from './echo-options.ts';

/** Who the backend says it is; the names are those of its JSON. */
export interface BasicIdentity {
  readonly namespace: string;
  readonly ingress: string;
  readonly service: string;
  readonly pod: string;
}

type Request = IncomingMessage | Http2ServerRequest;
type Response = ServerResponse | Http2ServerResponse;

const MOST_RETRY_IDS = 10_000;

export function basicHttpServers(identity: BasicIdentity): {
  http1: Server;
  http2: Server;
  both(cert: string, key: string, clientCa: string | undefined): Server;
} {
  const attempts = new Map<string, number>();
  const handle = (request: Request, response: Response): void => void answer(request, response, identity, attempts);
  const upgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => void websocket(request, socket, head);
  return {
    http1: http.createServer(handle).on('upgrade', upgrade),
    http2: http2.createServer(handle),
    both: (cert, key, clientCa) =>
      http2.createSecureServer(
        {
          cert: readFileSync(cert),
          key: readFileSync(key),
          allowHTTP1: true,
          ...(clientCa ? { ca: readFileSync(clientCa), requestCert: true, rejectUnauthorized: true } : {}),
        },
        handle,
      ),
  };
}

async function answer(request: Request, response: Response, identity: BasicIdentity, attempts: Map<string, number>): Promise<void> {
  const url = request.url ?? '/';
  const { pathname, searchParams } = new URL(url.replace(/^\/+/, '/'), 'http://echo');
  const plain = (status: number, text = ''): void => {
    send(response, status, { 'Content-Type': 'text/plain' }, text);
  };
  request.resume();
  try {
    if (pathname === '/health') return plain(200, 'OK');
    if (pathname.startsWith('/status/')) {
      const status = Number(pathname.slice('/status/'.length));
      return Number.isInteger(status) && status >= 200 && status <= 599 ? plain(status) : plain(400);
    }
    if (pathname.startsWith('/retry/')) {
      const verdict = await retry(searchParams, attempts);
      if (verdict === 'abort') return void reset(request.socket);
      if (verdict !== 'echo') return plain(verdict);
    }
    const delay = searchParams.get('delay');
    if (delay) await pause(durationMs(delay));
    process.stdout.write(`Echoing back request made to ${url} to client (${request.socket.remoteAddress}:${request.socket.remotePort})\n`);
    const body = JSON.stringify(describe(request, identity), undefined, 1);
    send(response, 200, { 'Content-Type': 'application/json', 'X-Content-Type-Options': 'nosniff', ...wantedHeaders(request) }, body);
  } catch (error) {
    plain(400, error instanceof Error ? error.message : String(error));
  }
}

function describe(request: Request, identity: BasicIdentity): Record<string, unknown> {
  const headers: Record<string, string[]> = {};
  const { rawHeaders, socket } = request;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = canonical(rawHeaders[i] ?? '');
    if (name.startsWith(':') || name === 'Host') continue;
    headers[name] = [...(headers[name] ?? []), rawHeaders[i + 1] ?? ''];
  }
  return {
    path: request.url,
    host: request.headers[':authority'] ?? request.headers.host ?? '',
    method: request.method,
    proto: request.httpVersionMajor === 2 ? 'HTTP/2.0' : `HTTP/${request.httpVersion}`,
    headers,
    httpPort: String(socket.localPort ?? ''),
    ...identity,
    ...('getProtocol' in socket ? { tls: describeTls(socket as TLSSocket) } : {}),
  };
}

function describeTls(socket: TLSSocket): Record<string, unknown> {
  const peer = socket.getPeerX509Certificate();
  return {
    version: socket.getProtocol(),
    serverName: 'servername' in socket && typeof socket.servername === 'string' ? socket.servername : '',
    negotiatedProtocol: socket.alpnProtocol || '',
    cipherSuite: socket.getCipher().standardName,
    ...(peer ? { peerCertificates: [peer.toString()] } : {}),
  };
}

/** Fails so many times for an id, then succeeds. */
async function retry(query: URLSearchParams, attempts: Map<string, number>): Promise<'echo' | 'abort' | number> {
  const id = query.get('uuid');
  const wanted = Number(query.get('succeedAfter') ?? Number.NaN);
  if (!id || !Number.isInteger(wanted)) return 400;
  const sofar = attempts.get(id) ?? 0;
  if (sofar >= wanted) return 'echo';
  if (attempts.size >= MOST_RETRY_IDS) attempts.clear();
  attempts.set(id, sofar + 1);
  const delay = query.get('delayRetry');
  if (delay) await pause(durationMs(delay));
  const code = query.get('responseCode');
  return code === null ? 'abort' : Number(code);
}

/** `X-Echo-Set-Header: Name:value,Name2:value2`; repeated names are joined. */
function wantedHeaders(request: Request): Record<string, string> {
  const wanted: Record<string, string> = {};
  for (const pair of String(request.headers['x-echo-set-header'] ?? '').split(',')) {
    const colon = pair.indexOf(':');
    if (colon < 1) continue;
    const name = pair.slice(0, colon).trim();
    const value = pair.slice(colon + 1).trim();
    wanted[name] = name in wanted ? `${wanted[name]},${value}` : value;
  }
  return wanted;
}

function send(response: Response, status: number, headers: Record<string, string>, body: string): void {
  const any: { setHeader(name: string, value: string): unknown; end(text: string): unknown; statusCode: number } = response;
  any.statusCode = status;
  for (const [name, value] of Object.entries(headers)) any.setHeader(name, value);
  any.end(body);
}

function reset(socket: Request['socket']): void {
  if ('resetAndDestroy' in socket && typeof socket.resetAndDestroy === 'function') socket.resetAndDestroy();
  else socket.destroy();
}

async function websocket(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  const { WebSocketServer } = await import('ws');
  new WebSocketServer({ noServer: true }).handleUpgrade(request, socket, head, (connection) => {
    connection.on('message', (message, isBinary) => connection.send(message, { binary: isBinary }));
    connection.on('error', () => connection.terminate());
  });
}

const canonical = (name: string): string => name.toLowerCase().replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase());

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
