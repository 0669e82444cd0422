/** The echo server: HTTP/1.1 and HTTP/2 on one port, gRPC, TCP; each answer says what the server saw. */
import type { Server as HttpServer, IncomingMessage } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import net, { type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { http } from '../../common/base/node-http.ts';
import { byName } from './echo-headers.ts';
import { type Identity, plainIp } from './echo-identity.ts';
import { durationMs, type ServerOptions } from './echo-options.ts';

export interface RunningServer {
  /** Takes no more connections, gives those that are open a moment to finish. */
  stop(): Promise<void>;
}

type HttpRequest = IncomingMessage | Http2ServerRequest;
/** What the answers of both versions have in common. */
interface HttpResponse {
  setHeader(name: string, value: string): unknown;
  writeHead(status: number): unknown;
  end(text: string): unknown;
}
type ConnectionHandler = (socket: Socket) => void;

const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0');
const GREETING = 'server-first-protocol\n';
const DRAIN_MS = 2000;

/** Resolves when all ports listen. @throws the socket's error for a port that is taken */
export async function startServer(options: ServerOptions, hostname: string): Promise<RunningServer> {
  const open = new Set<Duplex>();
  const servers: Server[] = [];
  const listen = async (port: number, handler: ConnectionHandler): Promise<void> => {
    const server = options.tls.includes(port)
      ? await tlsServer(options, handler)
      : net.createServer({ allowHalfOpen: true, noDelay: true }, handler);
    server.on('connection', (socket: Socket) => {
      open.add(socket);
      socket.once('close', () => open.delete(socket));
      socket.on('error', () => socket.destroy());
    });
    const host = options.bindLocalhost.includes(port) ? '127.0.0.1' : '::';
    await listening(server, port, host);
    servers.push(server);
    process.stdout.write(`listening on ${port}\n`);
  };
  const identity = (port: number): Identity => ({ version: options.version, cluster: options.cluster, hostname, port });
  await Promise.all([
    ...options.http.map((port) => listen(port, httpPort(identity(port)))),
    ...options.tcp.map((port) => {
      const first = options.serverFirst === 'all' || options.serverFirst.includes(port);
      return listen(port, (socket) => serveTcp(socket, identity(port), first));
    }),
    ...options.grpc.map((port) => listen(port, grpcPort(identity(port)))),
  ]);
  return {
    async stop() {
      for (const server of servers) server.close();
      const deadline = performance.now() + DRAIN_MS;
      while (open.size > 0 && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
      for (const socket of open) socket.destroy();
    },
  };
}

/** Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes. */
function httpPort(identity: Identity): ConnectionHandler {
  const http1 = http.createServer((request, response) => void answer(request, response, identity));
  http1.on('upgrade', (request, socket, head) => void upgrade(request, socket, head, http1));
  http1.keepAliveTimeout = 60_000;
  let http2: Promise<{ emit(event: 'connection', socket: Socket): boolean }> | undefined;
  return (socket) => {
    socket.once('readable', () => {
      const first: Buffer | null = socket.read();
      if (!first) {
        // A probe: connected, and closed without a word.
        socket.end();
        return;
      }
      socket.unshift(first);
      if (!first.subarray(0, HTTP2_PREFACE.length).equals(HTTP2_PREFACE.subarray(0, first.length))) {
        http1.emit('connection', socket);
        return;
      }
      http2 ??= import('node:http2').then((module) => {
        const server = module.createServer();
        server.on('request', (request: Http2ServerRequest, response: Http2ServerResponse) => void answer(request, response, identity));
        server.on('sessionError', () => undefined);
        return server;
      });
      void http2.then((server) => server.emit('connection', socket));
    });
  };
}

function grpcPort(identity: Identity): ConnectionHandler {
  let loaded: Promise<ConnectionHandler> | undefined;
  return (socket) => {
    loaded ??= import('./echo-grpc.ts').then(({ grpcHandler }) => grpcHandler(identity));
    void loaded.then((handler) => handler(socket));
  };
}

async function answer(request: HttpRequest, response: HttpResponse, identity: Identity): Promise<void> {
  const { pathname, searchParams } = new URL((request.url ?? '/').replace(/^\/\/+/, '/'), 'http://echo');
  request.resume();
  const source: NodeJS.EventEmitter = request;
  await new Promise<void>((resolve) => {
    for (const event of ['end', 'close', 'error']) source.once(event, () => resolve());
  });
  let status = pathname.startsWith('/status/') ? Number(pathname.slice('/status/'.length)) : 200;
  try {
    const delay = searchParams.get('delay');
    if (delay) await new Promise((resolve) => setTimeout(resolve, durationMs(delay)));
    for (const pair of (searchParams.get('headers') ?? '').split(',').filter((text) => text.includes(':'))) {
      const colon = pair.indexOf(':');
      response.setHeader(pair.slice(0, colon), pair.slice(colon + 1));
    }
    const codes = searchParams.get('codes');
    if (codes) status = weightedCode(codes, Math.random());
    if (!Number.isInteger(status) || status < 200 || status > 599) throw new Error(`${status} is no status to answer with`);
  } catch (error) {
    response.writeHead(400);
    response.end(`${error instanceof Error ? error.message : String(error)}\n`);
    return;
  }
  const body = describe(request, identity);
  response.setHeader('Content-Type', 'application/text');
  response.setHeader('Content-Length', String(Buffer.byteLength(body)));
  response.writeHead(status);
  response.end(request.method === 'HEAD' ? '' : body);
}

/** The lines that conformance suites and people read. */
function describe(request: HttpRequest, identity: Identity): string {
  const second = request.httpVersionMajor === 2;
  const authority = second ? request.headers[':authority'] : undefined;
  const lines = [
    `ServiceVersion=${identity.version}`,
    `ServicePort=${identity.port}`,
    `Host=${authority ?? request.headers.host ?? ''}`,
    `URL=${request.url ?? '/'}`,
    ...(identity.cluster === '' ? [] : [`Cluster=${identity.cluster}`]),
    `Method=${request.method}`,
    `Proto=${second ? 'HTTP/2.0' : `HTTP/${request.httpVersion}`}`,
    `IP=${plainIp(request.socket.remoteAddress)}`,
    ...tlsLines(request.socket),
    ...headerLines(request.rawHeaders),
    `Hostname=${identity.hostname}`,
  ];
  return `${lines.join('\n')}\n`;
}

/** In Go's spelling and order, without Host and pseudo-headers. */
export function headerLines(raw: readonly string[]): string[] {
  const lines: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? '';
    if (name.startsWith(':') || name.toLowerCase() === 'host') continue;
    lines.push(`RequestHeader=${canonicalName(name)}:${raw[i + 1] ?? ''}`);
  }
  return byName(lines);
}

export const canonicalName = (name: string): string => name.toLowerCase().replace(/(^|-)[a-z]/g, (letters) => letters.toUpperCase());

function tlsLines(socket: net.Socket): string[] {
  if (!('alpnProtocol' in socket)) return [];
  const lines: string[] = [];
  if (typeof socket.alpnProtocol === 'string') lines.push(`Alpn=${socket.alpnProtocol}`);
  if ('servername' in socket && typeof socket.servername === 'string' && socket.servername !== '') lines.push(`Sni=${socket.servername}`);
  return lines;
}

/** `500:90,200:10`: codes with weights. @param random in [0, 1) */
export function weightedCode(text: string, random: number): number {
  const choices = text.split(',').map((choice) => {
    const [code, weight = '1'] = choice.split(':');
    return { code: Number(code), weight: Number(weight) };
  });
  let at = random * choices.reduce((sum, { weight }) => sum + weight, 0);
  for (const { code, weight } of choices) {
    at -= weight;
    if (at < 0) return code;
  }
  return choices.at(-1)?.code ?? 200;
}

function serveTcp(socket: Socket, identity: Identity, serverFirst: boolean): void {
  let described = false;
  if (serverFirst) socket.write(GREETING);
  socket.on('data', (chunk: Buffer) => {
    if (!described) {
      described = true;
      const lines = [
        'StatusCode=200',
        `ServiceVersion=${identity.version}`,
        `ServicePort=${identity.port}`,
        ...(identity.cluster === '' ? [] : [`Cluster=${identity.cluster}`]),
        `IP=${plainIp(socket.remoteAddress)}`,
        'Proto=TCP',
        `Hostname=${identity.hostname}`,
      ];
      socket.write(`${lines.join('\n')}\n`);
    }
    if (!socket.write(chunk)) {
      socket.pause();
      socket.once('drain', () => socket.resume());
    }
  });
  socket.on('end', () => socket.end());
}

async function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, server: HttpServer): Promise<void> {
  if ((request.headers.upgrade ?? '').toLowerCase() !== 'websocket') {
    // Anything else (h2c) may be ignored: the request is then answered as if it had not asked.
    delete request.headers.upgrade;
    socket.end('HTTP/1.1 501 Not Implemented\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
    return;
  }
  const { WebSocketServer } = await import('ws');
  const websockets = new WebSocketServer({ noServer: true });
  websockets.handleUpgrade(request, socket, head, (websocket) => {
    websocket.on('message', (message, isBinary) => websocket.send(message, { binary: isBinary }));
    websocket.on('error', () => websocket.terminate());
    server.once('close', () => websocket.close());
  });
}

async function tlsServer({ crt, key }: ServerOptions, handler: ConnectionHandler): Promise<Server> {
  const { createEchoTls } = await import('./echo-tls.ts');
  return createEchoTls(crt, key, handler);
}

function listening(server: Server, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EAFNOSUPPORT' || host !== '::') return reject(error);
      // A kernel without IPv6.
      server.listen(port, '0.0.0.0', resolve);
    });
    server.listen(port, host, resolve);
  });
}
