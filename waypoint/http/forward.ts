/** One attempt: a connection to the endpoint, the request on it, and the response's head; the bodies then flow from connection to connection. */
import { formatSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import { UpstreamHttp } from '../../common/codec/gen/waypoint.ts';
import type { AppProtocol } from '../../common/decision/mesh-view.ts';
import { type EndpointResult, resultOfStatus } from '../../common/decision/outliers.ts';
import type { CompiledPolicy } from '../../common/decision/traffic-model.ts';
import type { HttpClientConnection } from '../../common/http/connections.ts';
import type { BodySource, ClientExchange, ClientListener, ResponseHead } from '../../common/http/types.ts';
import type { ClusterState } from '../cluster/cluster-state.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { HttpVersion, Upstreams } from '../cluster/upstreams.ts';
import { AttemptFailed } from './attempt.ts';
import type { Answer, Handler, RequestContext } from './context.ts';
import { isGrpc } from './grpc.ts';
import { Later } from './later.ts';

export interface ForwardParts {
  readonly upstreams: Pick<Upstreams, 'ready' | 'open'>;
  readonly clock: Clock;
}

export function forward(parts: ForwardParts): Handler {
  return (request) => {
    const { endpoint } = request;
    if (!endpoint) return Promise.reject(new ProxyError('NO_HEALTHY_UPSTREAM', 'no endpoint was chosen'));
    if (request.cancelled) return Promise.reject(request.cancelled);
    return new Attempt(parts, request, endpoint).run();
  };
}

/**
 * What the endpoint is spoken to with: what its port was declared to speak; else what the client speaks, so that a waypoint in between
 * changes nothing. gRPC needs HTTP/2 in any case.
 */
export function upstreamVersion({ received }: RequestContext, declared: AppProtocol | undefined, policy?: CompiledPolicy): HttpVersion {
  switch (policy?.pool?.http) {
    case UpstreamHttp.HTTP1:
      return 'http1';
    case UpstreamHttp.HTTP2:
      // An upgrade of HTTP/1.1 stays one.
      return received.upgrade === undefined || received.version === '2' ? 'http2' : 'http1';
    case UpstreamHttp.AS_CLIENT:
      return received.version === '2' ? 'http2' : 'http1';
    default:
  }
  if (declared === 'HTTP2' || declared === 'GRPC') return 'http2';
  if (received.version !== '2') return 'http1';
  return declared === 'HTTP11' && !isGrpc(received.fields) ? 'http1' : 'http2';
}

class Attempt implements ClientListener {
  readonly #parts: ForwardParts;
  readonly #request: RequestContext;
  readonly #endpoint: PickedEndpoint;
  readonly #answer = new Later();
  #exchange: ClientExchange | undefined;
  #timer: Timer | undefined;
  /** Where its time counts: of the monotonic clock. */
  #sentAt = 0;
  #reused = false;
  #over = false;

  constructor(parts: ForwardParts, request: RequestContext, endpoint: PickedEndpoint) {
    this.#parts = parts;
    this.#request = request;
    this.#endpoint = (endpoint.cluster.policy?.proxyProtocol ?? 0) === 0 ? endpoint : ofCaller(endpoint, request.connection.caller.address);
  }

  run(): PromiseLike<Answer> {
    const { upstreams, clock } = this.#parts;
    const request = this.#request;
    const { cluster } = this.#endpoint;
    const { policy } = cluster;
    if (policy !== undefined) {
      const refusal = refusalOf(policy) ?? overload(cluster);
      if (refusal) return Promise.reject(refusal);
    }
    this.#endpoint.load.active++;
    cluster.requests++;
    const limitMs = request.entry?.rule.backendTimeoutMs ?? 0;
    if (limitMs > 0) {
      this.#timer = clock.after(limitMs, () =>
        this.#giveUp(new ProxyError('REQUEST_TIMEOUT', `no response of ${this.#endpoint.workload.uid} within ${limitMs} ms`)),
      );
    }
    request.onCancel((error) => this.#giveUp(error));
    const { backend } = request;
    const version = upstreamVersion(request, backend?.service?.appProtocols.get(backend.port), policy);
    const ready = request.freshConnection ? undefined : upstreams.ready(this.#endpoint, version);
    if (ready) {
      this.#reused = true;
      this.#send(ready);
    } else {
      upstreams
        .open(this.#endpoint, version, () => request.signal)
        .then(
          (connection) => this.#send(connection),
          (error: unknown) => this.#fail(ProxyError.from(error, 'UPSTREAM_CONNECT', 'no connection'), true),
        );
    }
    return this.#answer;
  }

  // ClientListener

  informational(head: ResponseHead): void {
    this.#request.exchange.inform(head);
  }

  response(head: ResponseHead, body: BodySource): void {
    this.#end();
    if (this.#endpoint.cluster.policy !== undefined) this.#report(resultOfStatus(head.status));
    this.#request.whenOver(() => this.#left());
    this.#answer.resolve({ head, body });
  }

  failed(error: ProxyError, unsent: boolean): void {
    this.#fail(error, unsent);
  }

  #send(connection: HttpClientConnection): void {
    // Given up while the connection was being made: it stays for the next one.
    if (this.#over) return;
    const { body, head } = this.#request;
    if (this.#endpoint.cluster.policy !== undefined) this.#sentAt = this.#parts.clock.monotonic();
    try {
      this.#exchange = connection.request(head, body.isEmpty ? undefined : body, this);
    } catch (error) {
      // A head that cannot be written: a route's header change made it so.
      this.#fail(new ProxyError('BACKEND_INVALID', `the request cannot be sent as the route has it: ${errorMessage(error)}`), false);
      return;
    }
    if (!body.isEmpty) body.into(this.#exchange.body);
  }

  /** Nobody waits for it any more. */
  #giveUp(error: ProxyError): void {
    if (this.#over) return;
    this.#exchange?.abort(error);
    this.#fail(error, false);
  }

  #fail(error: ProxyError, unsent: boolean): void {
    if (this.#over) return;
    this.#end();
    this.#left();
    if (this.#endpoint.cluster.policy !== undefined && LOCAL_FAILURES.has(error.code)) this.#report('local-failure');
    this.#request.body.cancel();
    this.#answer.reject(new AttemptFailed(error, { unsent, reused: this.#reused }));
  }

  #left(): void {
    this.#endpoint.load.active--;
    this.#endpoint.cluster.requests--;
  }

  /** For those clusters alone whose policy makes something of it. */
  #report(result: EndpointResult): void {
    const { cluster, load, key } = this.#endpoint;
    const now = this.#parts.clock.monotonic();
    if (cluster.policy?.balancing === 'peak_ewma') load.measured(now - this.#sentAt, now);
    cluster.report(key, load, result, now);
  }

  #end(): void {
    this.#over = true;
    this.#timer?.cancel();
    this.#request.onCancel(undefined);
  }
}

/** A PROXY header names one caller, so connections that begin with one are not shared between callers. */
const ofCaller = (endpoint: PickedEndpoint, caller: SocketAddress): PickedEndpoint => ({
  ...endpoint,
  key: `${endpoint.key} for ${formatSocketAddress(caller)}`,
  caller,
});

/** What says something of the endpoint: not that a client left, nor that a limit of ours was reached. */
const LOCAL_FAILURES: ReadonlySet<string> = new Set([
  'UPSTREAM_CONNECT',
  'UPSTREAM_TIMEOUT',
  'UPSTREAM_STATUS',
  'UPSTREAM_PROTOCOL',
  'TLS_FAILURE',
  'HTTP2_FAILURE',
  'CONNECTION_LOST',
  'REQUEST_TIMEOUT',
]);

const refusalOf = ({ refuse, origin }: CompiledPolicy): ProxyError | undefined =>
  refuse === '' ? undefined : new ProxyError('BACKEND_INVALID', `${origin}: ${refuse}`);

function overload(cluster: ClusterState): ProxyError | undefined {
  if (cluster.requests < cluster.limit('maxRequests')) return undefined;
  return new ProxyError('OVERLOADED', `${cluster.name} has ${cluster.requests} requests under way, which is its limit`);
}
