/** The two ends of a waypoint's pipeline in a test's hand: exchanges that a client has opened, and endpoints that answer as they are told. */
import { ProxyError } from '../../common/base/errors.ts';
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import type { Service } from '../../common/decision/mesh-view.ts';
import type { HttpClientConnection } from '../../common/http/connections.ts';
import type {
  BodySink,
  BodySource,
  ClientExchange,
  ClientListener,
  Fields,
  RequestHead,
  ResponseHead,
  ServerExchange,
} from '../../common/http/types.ts';
import { EndpointPicker } from '../../waypoint/cluster/picker.ts';
import type { Upstreams } from '../../waypoint/cluster/upstreams.ts';
import { createBuckets, SharedBuckets } from '../../waypoint/http/buckets.ts';
import type { Connection, RequestContext } from '../../waypoint/http/context.ts';
import type { Delivered } from '../../waypoint/http/deliver.ts';
import { Mirrors } from '../../waypoint/http/mirror.ts';
import { pipeline, serveRequest } from '../../waypoint/http/pipeline.ts';
import { targetOf } from '../../waypoint/inbound/hbone.ts';
import { kindOf } from '../../waypoint/supervisor/resources.ts';
import { staticRoutes } from '../../waypoint/supervisor/static-routes.ts';
import { Configuration } from '../../waypoint/worker/configuration.ts';
import { memberOf, service, workload } from './builders.ts';
import { FakeClock } from './fake-clock.ts';
import { PlainMesh } from './plain-mesh.ts';
import { recordingLog } from './recording-log.ts';

export const head = (fields: Partial<RequestHead> = {}): RequestHead => ({
  version: '1.1',
  method: 'GET',
  scheme: 'http',
  authority: 'orders',
  path: '/',
  fields: [],
  bodyBytes: 0,
  upgrade: undefined,
  ...fields,
});

/** What a client has asked, and what it got. */
export class FakeExchange implements ServerExchange, BodySink {
  readonly head: RequestHead;
  bodyStarted = false;
  response: ResponseHead | undefined;
  readonly informed: number[] = [];
  received = '';
  trailers: Fields | undefined;
  ended = false;
  aborted: ProxyError | undefined;
  /** Times that the request's body was asked to go on. */
  resumed = 0;
  source: BodySource | undefined;
  #sink: BodySink | undefined;
  #gone: ((error: ProxyError) => void) | undefined;
  #pending: (() => void)[] = [];

  constructor(fields: Partial<RequestHead> = {}) {
    this.head = head(fields);
  }

  get body(): BodySource {
    return {
      into: (sink) => {
        this.#sink = sink;
        for (const send of this.#pending.splice(0)) send();
      },
      resume: () => {
        this.resumed++;
      },
      cancel: () => undefined,
    };
  }

  /** The client sends a piece of its body. @returns whether it may go on */
  send(text: string): boolean {
    if (this.#sink) {
      this.bodyStarted = true;
      return this.#sink.data(Buffer.from(text));
    }
    this.#pending.push(() => void this.send(text));
    return true;
  }

  finish(trailers?: Fields): void {
    if (this.#sink) this.#sink.end(trailers);
    else this.#pending.push(() => this.finish(trailers));
  }

  leave(): void {
    this.#gone?.(new ProxyError('CONNECTION_LOST', 'reset by the client'));
  }

  inform({ status }: ResponseHead): void {
    this.informed.push(status);
  }

  respond(response: ResponseHead, source: BodySource | undefined): BodySink {
    this.response = response;
    this.source = source;
    return this;
  }

  data(chunk: Buffer): boolean {
    this.received += chunk.toString();
    return true;
  }

  end(trailers: Fields | undefined): void {
    this.ended = true;
    this.trailers = trailers;
  }

  abort(error: ProxyError): void {
    this.aborted = error;
  }

  onClientGone(listener: (error: ProxyError) => void): void {
    this.#gone = listener;
  }

  field(name: string): string | undefined {
    const fields = this.response?.fields ?? [];
    const at = fields.findIndex((value, i) => i % 2 === 0 && value === name);
    return at < 0 ? undefined : fields[at + 1];
  }
}

/** A request as an endpoint has got it. */
export class ReceivedRequest {
  readonly head: RequestHead;
  readonly endpoint: string;
  readonly listener: ClientListener;
  body = '';
  bytes: Buffer = Buffer.alloc(0);
  bodyEnded = false;
  aborted: ProxyError | undefined;

  constructor(head: RequestHead, endpoint: string, listener: ClientListener) {
    this.head = head;
    this.endpoint = endpoint;
    this.listener = listener;
  }

  answer(status: number, body: string | Buffer = '', fields: Fields = [], trailers?: Fields): void {
    this.listener.response(
      { status, fields, bodyBytes: body.length },
      {
        into: (sink) => {
          if (body.length > 0) sink.data(Buffer.from(body));
          sink.end(trailers);
        },
        resume: () => undefined,
        cancel: () => undefined,
      },
    );
  }

  field(name: string): string | undefined {
    const at = this.head.fields.findIndex((value, i) => i % 2 === 0 && value === name);
    return at < 0 ? undefined : this.head.fields[at + 1];
  }
}

/** Does something with each request as it arrives, by the number of its attempt. */
export type EndpointScript = (request: ReceivedRequest, number: number) => void;

export interface PipelineWorld {
  readonly clock: FakeClock;
  readonly requests: ReceivedRequest[];
  readonly over: { readonly request: RequestContext; readonly delivered: Delivered }[];
  /** Where connections cannot be opened: endpoints' uids. */
  readonly unreachable: Set<string>;
  /** Attempts go out on connections that were used before, until this is false. */
  reuse: boolean;
  retries: number;
  readonly mirrored: string[];
  /** Policy, limit and outcome. */
  readonly limited: string[];
  /** Policy, provider and outcome. */
  readonly checked: string[];
  /** Cluster and endpoint. */
  readonly ejected: string[];
  ask(exchange: FakeExchange): Promise<FakeExchange>;
  /** For exchanges of a real connection. */
  serve(exchange: ServerExchange): void;
}

export const ORDERS: Service = service({ name: 'orders', vips: ['10.96.0.1'], ports: { 80: 8080 } });
export const ORDERS_V2: Service = service({ name: 'orders-v2', vips: ['10.96.0.2'], ports: { 80: 8080 } });

const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
};

/** A pipeline before three pods of `orders` and one of `orders-v2`. @param config routes and policies, as LOCAL_ROUTES_PATH has them */
export function pipelineWorld(
  script: EndpointScript,
  config = '{}',
  options: { pods?: number; caller?: string; upstreams?: Pick<Upstreams, 'ready' | 'open'> } = {},
): PipelineWorld {
  const clock = new FakeClock();
  const pods = Array.from({ length: options.pods ?? 3 }, (_, i) =>
    workload({
      name: `orders-${i + 1}`,
      addresses: [`10.0.0.${i + 1}`],
      protocol: 'HBONE',
      serviceAccount: 'orders',
      services: memberOf(ORDERS),
    }),
  );
  const newer = workload({ name: 'new-1', addresses: ['10.0.1.1'], protocol: 'HBONE', services: memberOf(ORDERS_V2) });
  const view = new PlainMesh({ services: [ORDERS, ORDERS_V2], workloads: [...pods, newer] });
  const log = recordingLog();
  const configuration = new Configuration(log);
  for (const { typeUrl, resources } of staticRoutes(config)) {
    configuration.apply({ kind: kindOf(typeUrl), resources, removed: [] });
  }
  const picker = new EndpointPicker({
    view,
    self: () => workload({ name: 'waypoint' }),
    balancing: 'round_robin',
    configuration,
    random: () => 0,
    clock,
    workers: 1,
    events: { ejected: (cluster, endpoint) => void world.ejected.push(`${cluster} ${endpoint}`) },
  });
  const world: PipelineWorld = {
    clock,
    requests: [],
    over: [],
    unreachable: new Set(),
    reuse: false,
    retries: 0,
    mirrored: [],
    limited: [],
    checked: [],
    ejected: [],
    serve: (exchange) => serveRequest({ handler, clock, telemetry, log }, connection, exchange),
    async ask(exchange) {
      world.serve(exchange);
      await turns();
      return exchange;
    },
  };
  const connectionTo = (name: string): HttpClientConnection => ({
    request(requestHead, source, listener): ClientExchange {
      const received = new ReceivedRequest(requestHead, name, listener);
      world.requests.push(received);
      const number = world.requests.length;
      if (source === undefined) {
        received.bodyEnded = true;
        queueMicrotask(() => script(received, number));
      } else setImmediate(() => script(received, number));
      return {
        body: {
          data: (chunk) => {
            received.body += chunk.toString();
            received.bytes = Buffer.concat([received.bytes, chunk]);
            return true;
          },
          end: () => {
            received.bodyEnded = true;
          },
          abort: (error) => {
            received.aborted = error;
          },
        },
        abort: (error) => {
          received.aborted = error;
        },
      };
    },
    drain: () => undefined,
    destroy: () => undefined,
    openExchanges: 0,
    usable: true,
  });
  const upstreams: Parameters<typeof pipeline>[0]['upstreams'] = options.upstreams ?? {
    ready: (endpoint) => (world.reuse ? connectionTo(endpoint.workload.name) : undefined),
    open: (endpoint) =>
      world.unreachable.has(endpoint.workload.name)
        ? Promise.reject(new ProxyError('UPSTREAM_CONNECT', `connection to ${endpoint.workload.name} refused`))
        : Promise.resolve(connectionTo(endpoint.workload.name)),
  };
  const random = (): number => 0;
  const mirrors = new Mirrors({ view, picker, upstreams, clock, random, log, counted: (outcome) => void world.mirrored.push(outcome) });
  const handler = pipeline({
    identity: 'spiffe://cluster.local/ns/shop/sa/waypoint',
    view,
    configuration,
    picker,
    upstreams,
    clock,
    random,
    randomHex: (digits) => 'ab'.repeat(digits / 2),
    log,
    buckets: new SharedBuckets(createBuckets(1024), () => clock.monotonic() * 1000),
    checked: (policy, provider, outcome) => void world.checked.push(`${policy} ${provider} ${outcome}`),
    limited: (policy, limit, outcome) => void world.limited.push(`${policy} ${limit} ${outcome}`),
    mirror: (request, entry) => mirrors.mirror(request, entry),
    hasOthers: ({ backend, refusedBy }) =>
      backend?.service !== undefined && picker.size(backend.service, backend.port, backend.subset) > refusedBy.size,
    retried: () => {
      world.retries++;
    },
  });
  const telemetry = {
    requestStarted: () => undefined,
    requestOver: (request: RequestContext, delivered: Delivered) => void world.over.push({ request, delivered }),
  };
  const principal = options.caller ?? 'spiffe://cluster.local/ns/shop/sa/client';
  const connection: Connection = {
    caller: {
      address: { ip: '10.0.9.9', port: 4711 },
      identity: parseSpiffeId(principal),
      principal,
      workload: undefined,
      baggage: undefined,
    },
    target: targetOf({ service: ORDERS, port: 80, ip: '10.96.0.1' }),
    local: { ip: '10.0.0.9', port: 15008 },
  };
  return world;
}
