/** Exchanges as tests want them: bodies collected, responses awaited, everything written down. */
import type { ProxyError } from '../../common/base/errors.ts';
import type { Pipe } from '../../common/hbone/types.ts';
import type { HttpClientConnection, HttpClientOptions, HttpServerConnection, HttpServerOptions } from '../../common/http/connections.ts';
import {
  type BodySink,
  type BodySource,
  defaultHttpLimits,
  type Fields,
  type HttpLimits,
  type RequestHead,
  type ResponseHead,
  type ServerExchange,
} from '../../common/http/types.ts';
import { FakeClock } from './fake-clock.ts';
import { MemoryPipe } from './http-pipes.ts';

/** A body to its end. */
export class Collector implements BodySink {
  readonly chunks: Buffer[] = [];
  readonly whole: Promise<{ body: Buffer; trailers: Fields | undefined }>;
  bytes = 0;
  ended = false;
  error: ProxyError | undefined;
  /** What `data` answers. */
  more = true;
  #resolve: (value: { body: Buffer; trailers: Fields | undefined }) => void;
  #reject: (error: ProxyError) => void;

  constructor() {
    const { promise, resolve, reject } = Promise.withResolvers<{ body: Buffer; trailers: Fields | undefined }>();
    promise.catch(() => {});
    this.whole = promise;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  data(chunk: Buffer): boolean {
    if (this.ended || this.error) throw new Error('data after the end');
    this.chunks.push(Buffer.from(chunk));
    this.bytes += chunk.length;
    return this.more;
  }

  end(trailers: Fields | undefined): void {
    if (this.ended || this.error) throw new Error('a second end');
    this.ended = true;
    this.#resolve({ body: Buffer.concat(this.chunks), trailers });
  }

  abort(error: ProxyError): void {
    if (this.ended || this.error) throw new Error('an abort after the end');
    this.error = error;
    this.#reject(error);
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString('latin1');
  }
}

/** A source that goes into its sink when it is told to, as fast as the sink allows. */
export class GivenBody implements BodySource {
  cancelled = false;
  sent = 0;
  #chunks: Buffer[];
  readonly #trailers: Fields | undefined;
  #sink: BodySink | undefined;

  constructor(chunks: readonly (Buffer | string)[], trailers?: Fields) {
    this.#chunks = chunks.map((chunk) => Buffer.from(chunk));
    this.#trailers = trailers;
  }

  into(sink: BodySink): void {
    this.#sink = sink;
    this.resume();
  }

  resume(): void {
    for (;;) {
      const sink = this.#sink;
      if (!sink || this.cancelled) return;
      const chunk = this.#chunks.shift();
      if (!chunk) {
        this.#sink = undefined;
        sink.end(this.#trailers);
        return;
      }
      this.sent += chunk.length;
      const copy = Buffer.from(chunk);
      const more = sink.data(copy);
      copy.fill(0xee);
      if (!more) return;
    }
  }

  cancel(): void {
    this.cancelled = true;
  }
}

export interface ServedPipe {
  readonly pipe: MemoryPipe;
  readonly clock: FakeClock;
  readonly exchanges: ServerExchange[];
  readonly connection: HttpServerConnection;
  /** Set when the connection has said its last word. */
  readonly ended: { error: ProxyError | undefined }[];
}

type Serve = (pipe: Pipe, options: HttpServerOptions) => HttpServerConnection;
type Connect = (pipe: Pipe, options: HttpClientOptions) => HttpClientConnection;

/** A server connection on a pipe in memory. */
export function served(
  serve: Serve,
  onExchange: (exchange: ServerExchange) => void = () => {},
  limits: Partial<HttpLimits> = {},
  pipe: MemoryPipe = new MemoryPipe(),
): ServedPipe {
  return { pipe, ...servedOn(pipe, serve, onExchange, limits) };
}

/** A server connection on any pipe. */
export function servedOn(
  pipe: Pipe,
  serve: Serve,
  onExchange: (exchange: ServerExchange) => void,
  limits: Partial<HttpLimits> = {},
): Omit<ServedPipe, 'pipe'> {
  const clock = new FakeClock();
  const exchanges: ServerExchange[] = [];
  const ended: { error: ProxyError | undefined }[] = [];
  const connection = serve(pipe, {
    limits: { ...defaultHttpLimits, ...limits },
    clock,
    onExchange(exchange) {
      exchanges.push(exchange);
      onExchange(exchange);
    },
    onClose: (error) => void ended.push({ error }),
  });
  return { clock, exchanges, connection, ended };
}

export interface ConnectedPipe {
  readonly pipe: MemoryPipe;
  readonly clock: FakeClock;
  readonly connection: HttpClientConnection;
  readonly ended: { error: ProxyError | undefined }[];
}

/** A client connection on a pipe in memory. */
export function connected(connect: Connect, limits: Partial<HttpLimits> = {}, pipe: MemoryPipe = new MemoryPipe()): ConnectedPipe {
  const clock = new FakeClock();
  const ended: { error: ProxyError | undefined }[] = [];
  const connection = connect(pipe, { limits: { ...defaultHttpLimits, ...limits }, clock, onClose: (error) => void ended.push({ error }) });
  return { pipe, clock, connection, ended };
}

export const requestHead = (more: Partial<RequestHead> = {}): RequestHead => ({
  version: '1.1',
  method: 'GET',
  scheme: 'http',
  authority: 'orders.shop:8080',
  path: '/',
  fields: [],
  bodyBytes: 0,
  upgrade: undefined,
  ...more,
});

export interface SentRequest {
  readonly informational: ResponseHead[];
  readonly body: Collector;
  response: ResponseHead | undefined;
  failure: { error: ProxyError; unsent: boolean } | undefined;
  readonly source: GivenBody;
  abort(error: ProxyError): void;
  cancelResponse(): void;
  resumeResponse(): void;
}

/** Sends a request and collects what comes back. */
export function send(connection: HttpClientConnection, head: Partial<RequestHead> = {}, source = new GivenBody([])): SentRequest {
  let body: BodySource | undefined;
  const sent: SentRequest = {
    informational: [],
    body: new Collector(),
    response: undefined,
    failure: undefined,
    source,
    abort: (error) => exchange.abort(error),
    cancelResponse: () => body?.cancel(),
    resumeResponse: () => body?.resume(),
  };
  const exchange = connection.request(requestHead(head), source, {
    informational: (informational) => void sent.informational.push(informational),
    response(response, from) {
      if (sent.response || sent.failure) throw new Error('a second response');
      sent.response = response;
      body = from;
      from.into(sent.body);
    },
    failed(error, unsent) {
      if (sent.response || sent.failure) throw new Error('a failure after the response');
      sent.failure = { error, unsent };
    },
  });
  source.into(exchange.body);
  return sent;
}

/** Answers with what it was sent, trailers included. */
export function echo(exchange: ServerExchange): void {
  const { method, path, upgrade } = exchange.head;
  const head: ResponseHead = { status: upgrade ? 101 : 200, fields: ['x-request', `${method} ${path}`], bodyBytes: undefined };
  exchange.body.into(exchange.respond(head, exchange.body));
}

/** Answers with a text. */
export function answer(exchange: ServerExchange, status: number, text: string, fields: Fields = []): void {
  const source = new GivenBody([text]);
  source.into(exchange.respond({ status, fields, bodyBytes: text.length }, source));
}

/** Sends every exchange on by a client connection: a proxy in five lines. */
export const proxyTo =
  (connection: () => HttpClientConnection) =>
  (exchange: ServerExchange): void => {
    const sent = connection().request(exchange.head, exchange.body, {
      informational: (head) => exchange.inform(head),
      response: (head, body) => body.into(exchange.respond(head, body)),
      failed: (error) => exchange.abort(error),
    });
    exchange.onClientGone((error) => sent.abort(error));
    exchange.body.into(sent.body);
  };
