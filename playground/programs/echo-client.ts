/** The echo client: sends requests as told and prints, for each, what was sent and what came back, in the form that conformance suites parse. */
import type { OutgoingHttpHeaders, RequestOptions } from 'node:http';
import type { ClientHttp2Session } from 'node:http2';
import net from 'node:net';
import type { Writable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { afterSteps, systemClock, type Timer } from '../../common/base/clock.ts';
import { http } from '../../common/base/node-http.ts';
import { type ClientOptions, parseClientOptions } from './echo-options.ts';

const MOST_AT_ONCE = 20;
interface Wait {
  readonly what: string;
  readonly limitMs: number;
}
/** The resolver of glibc asks again after five seconds. */
const NAME: Wait = { what: 'its name', limitMs: 8000 };
const CONNECTION: Wait = { what: 'the connection', limitMs: 2000 };

interface Answer {
  /** Lines about the exchange, without the index. */
  readonly lines: readonly string[];
  readonly body: string;
}

type Ask = (options: ClientOptions, signal: AbortSignal) => Promise<Answer>;

/** @returns the exit status: 0 unless a request failed */
export async function runClient(argv: readonly string[], stdout: Writable, stderr: Writable): Promise<number> {
  const options = parseClientOptions(argv);
  const { ask, close } = await asker(options);
  const signal = AbortSignal.timeout(options.timeoutMs);
  const answers: (Answer | undefined)[] = [];
  const errors: string[] = [];
  let next = 0;
  const startMs = performance.now();
  const turn = async (i: number): Promise<void> => {
    const waitMs = options.perSecond === undefined ? 0 : startMs + (i * 1000) / options.perSecond - performance.now();
    if (waitMs > 0) await pause(waitMs, undefined, { signal });
  };
  const worker = async (): Promise<void> => {
    for (let i = next++; i < options.count; i = next++) {
      try {
        await turn(i);
        answers[i] = await ask(options, signal);
      } catch (error) {
        errors.push(signal.aborted ? `no answer within ${options.timeoutMs} ms` : message(error));
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(MOST_AT_ONCE, options.count) }, worker));
  close();
  const blocks = answers.flatMap((answer, i) => (answer ? [block(answer, i)] : []));
  if (blocks.length > 0) await new Promise((resolve) => stdout.write(`${blocks.join('\n\n')}\n`, resolve));
  if (errors.length === 0) return 0;
  await new Promise((resolve) =>
    stderr.write(`Error ${errors.length}/${options.count} requests had errors; first error: ${errors[0]}\n`, resolve),
  );
  return 1;
}

function block({ lines, body }: Answer, i: number): string {
  const bodyLines = body.split('\n').filter((line) => line !== '');
  return [...lines.map((line) => `[${i}] ${line}`), ...bodyLines.map((line) => `[${i} body] ${line}`)].join('\n');
}

async function asker(options: ClientOptions): Promise<{ ask: Ask; close(): void }> {
  const nothing = (): void => undefined;
  if (options.scheme === 'tcp') return { ask: askTcp, close: nothing };
  if (options.scheme === 'http' && !options.http2) return { ask: askHttp, close: nothing };
  if (options.scheme === 'https') {
    const { default: https } = await import('node:https');
    return { ask: (o, signal) => askHttp(o, signal, https.request), close: nothing };
  }
  const { connect } = await import('node:http2');
  let session: ClientHttp2Session | undefined;
  const shared = (): ClientHttp2Session => {
    // One connection for all: how gRPC clients are.
    if (!session || session.closed || session.destroyed) {
      session = connect(`http://${options.url.host}`, { createConnection: () => dial(options, 80) });
      session.on('error', nothing);
    }
    return session;
  };
  const ask: Ask = options.scheme === 'grpc' ? (o, signal) => askGrpc(o, signal, shared()) : (o, signal) => askHttp2(o, signal, shared());
  return { ask, close: () => session?.destroy() };
}

function askHttp(options: ClientOptions, signal: AbortSignal, request: typeof http.request = http.request): Promise<Answer> {
  const started = performance.now();
  const host = options.headers.find(([name]) => name.toLowerCase() === 'host')?.[1] ?? hostHeader(options.url);
  const headers: OutgoingHttpHeaders = { Host: host, 'User-Agent': 'warren-echo' };
  for (const [name, value] of options.headers) {
    if (name.toLowerCase() === 'host') continue;
    const before = headers[name];
    headers[name] = before === undefined ? value : [...(Array.isArray(before) ? before : [String(before)]), value];
  }
  return new Promise((resolve, reject) => {
    const outgoing = request(
      {
        host: bare(options.url.hostname),
        port: options.url.port || (options.scheme === 'https' ? 443 : 80),
        path: options.path,
        method: options.method,
        headers,
        signal,
        // A connection of its own for each request.
        agent: false,
        // One address, in the resolver's order: what fails should be told, not papered over.
        autoSelectFamily: false,
        ...(options.scheme === 'https' ? { rejectUnauthorized: false } : {}),
      } as RequestOptions,
      (response) => {
        const sourceIp = response.socket.localAddress;
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response.on('error', reject);
        response.on('end', () => {
          const raw = response.rawHeaders;
          const received = raw.flatMap((name, i) => (i % 2 === 0 ? [`ResponseHeader=${name}:${raw[i + 1] ?? ''}`] : []));
          resolve({
            lines: [
              `Url=${urlText(options)}`,
              ...sentLines(options),
              `SourceIP=${(sourceIp ?? '').replace(/^::ffff:/, '')}`,
              ...timing(started),
              `StatusCode=${response.statusCode}`,
              ...received,
            ],
            body,
          });
        });
      },
    );
    outgoing.on('socket', (socket) => limitConnect(socket, bare(options.url.hostname)));
    outgoing.on('error', reject);
    outgoing.end();
  });
}

function askHttp2(options: ClientOptions, signal: AbortSignal, session: ClientHttp2Session): Promise<Answer> {
  const started = performance.now();
  const headers = Object.fromEntries(options.headers.filter(([name]) => name.toLowerCase() !== 'host'));
  const authority = options.headers.find(([name]) => name.toLowerCase() === 'host')?.[1] ?? hostHeader(options.url);
  return exchange(
    session,
    { ':method': options.method, ':path': options.path, ':authority': authority, ...headers },
    undefined,
    signal,
  ).then(({ status, received, body, sourceIp }) => ({
    lines: [
      `Url=${urlText(options)}`,
      ...sentLines(options),
      `SourceIP=${sourceIp}`,
      ...timing(started),
      `StatusCode=${status}`,
      ...received,
    ],
    body: body.toString('utf8'),
  }));
}

async function askGrpc(options: ClientOptions, signal: AbortSignal, session: ClientHttp2Session): Promise<Answer> {
  const { decodeString, encodeString } = await import('./echo-grpc.ts');
  const started = performance.now();
  const request = encodeString(options.message);
  const frame = Buffer.alloc(5);
  frame.writeUInt32BE(request.length, 1);
  const headers: OutgoingHttpHeaders = {
    ':method': 'POST',
    ':path': '/proto.EchoTestService/Echo',
    ':authority': hostHeader(options.url),
    'content-type': 'application/grpc',
    te: 'trailers',
  };
  for (const [name, value] of options.headers) headers[name.toLowerCase() === 'host' ? ':authority' : name.toLowerCase()] = value;
  const { body, grpcStatus, grpcMessage } = await exchange(session, headers, Buffer.concat([frame, request]), signal);
  if (grpcStatus !== '0') throw new Error(`rpc error: code = ${grpcStatus || 'unknown'} desc = ${decodeURIComponent(grpcMessage)}`);
  return { lines: [...sentLines(options), ...timing(started)], body: decodeString(body.subarray(5)) };
}

interface Exchanged {
  readonly status: number;
  readonly received: readonly string[];
  readonly body: Buffer;
  readonly sourceIp: string;
  readonly grpcStatus: string;
  readonly grpcMessage: string;
}

function exchange(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body: Buffer | undefined,
  signal: AbortSignal,
): Promise<Exchanged> {
  return new Promise((resolve, reject) => {
    const stream = session.request(headers, { signal });
    const chunks: Buffer[] = [];
    const received: string[] = [];
    let status = 0;
    let grpcStatus = '';
    let grpcMessage = '';
    const note = (incoming: Record<string, unknown>): void => {
      if (incoming['grpc-status'] !== undefined) grpcStatus = String(incoming['grpc-status']);
      if (incoming['grpc-message'] !== undefined) grpcMessage = String(incoming['grpc-message']);
    };
    stream.on('response', (incoming) => {
      status = Number(incoming[':status']);
      note(incoming);
      for (const [name, value] of Object.entries(incoming))
        if (!name.startsWith(':')) received.push(`ResponseHeader=${name}:${String(value)}`);
    });
    stream.on('trailers', note);
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', reject);
    stream.on('close', () => {
      const sourceIp = (session.destroyed ? '' : (session.socket.localAddress ?? '')).replace(/^::ffff:/, '');
      if (status === 0) reject(new Error('the connection was closed without an answer'));
      else resolve({ status, received, body: Buffer.concat(chunks), sourceIp, grpcStatus, grpcMessage });
    });
    stream.end(body);
  });
}

function askTcp(options: ClientOptions, signal: AbortSignal): Promise<Answer> {
  const started = performance.now();
  return new Promise((resolve, reject) => {
    const socket = dial(options, 9090);
    const abort = (): void => void socket.destroy(new Error('timeout'));
    signal.addEventListener('abort', abort, { once: true });
    let sourceIp = '';
    let body = '';
    let sent = false;
    const send = (): void => {
      if (sent) return;
      sent = true;
      // The end of what we say; the answer still comes.
      socket.end(`${options.message}\n`);
    };
    socket.on('connect', () => {
      sourceIp = (socket.localAddress ?? '').replace(/^::ffff:/, '');
      if (!options.serverFirst) send();
    });
    socket.setEncoding('utf8').on('data', (text: string) => {
      body += text;
      send();
    });
    socket.on('error', reject);
    socket.on('close', () => {
      signal.removeEventListener('abort', abort);
      if (!body.includes('Hostname=')) return reject(new Error('the connection was closed without an answer'));
      resolve({ lines: [`Url=${urlText(options)}`, `SourceIP=${sourceIp}`, ...timing(started)], body });
    });
  });
}

function dial({ url }: ClientOptions, defaultPort: number): net.Socket {
  const socket = net.connect({
    host: bare(url.hostname),
    port: Number(url.port || defaultPort),
    autoSelectFamily: false,
    allowHalfOpen: true,
    noDelay: true,
  });
  limitConnect(socket, bare(url.hostname));
  return socket;
}

function limitConnect(socket: net.Socket, host: string): void {
  if (!socket.connecting) return;
  // While this machine stood still nobody could have answered.
  const limited = ({ what, limitMs }: Wait): Timer =>
    afterSteps(systemClock, limitMs, () =>
      socket.destroy(new Error(`connect timeout: ${host}, after ${limitMs} ms of waiting for ${what}`)),
    );
  let timer = limited(net.isIP(host) === 0 ? NAME : CONNECTION);
  socket.once('lookup', () => {
    timer.cancel();
    timer = limited(CONNECTION);
  });
  const stop = (): void => timer.cancel();
  socket.once('connect', stop);
  socket.once('close', stop);
}

const sentLines = ({ headers }: ClientOptions): string[] => headers.map(([name, value]) => `Header=${name}:${value}`);

const timing = (started: number): string[] => [`Latency=${(performance.now() - started).toFixed(3)}ms`, 'ActiveRequests=0'];

const bare = (hostname: string): string => hostname.replace(/^\[|\]$/g, '');

/** Without the scheme's own port. */
const hostHeader = (url: URL): string => url.host;

const urlText = ({ scheme, url, path }: ClientOptions): string => `${scheme}://${url.host}${path}`;

function message(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(message).join('; ');
  return error instanceof Error ? error.message || String(('code' in error && error.code) || error.name) : String(error);
}
