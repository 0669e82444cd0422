/** One attempt: a connection to the endpoint, the request on it, and the response's head; the bodies then flow from connection to connection. */
import type { Clock, Timer } from '../../common/base/clock.ts';
import { errorMessage, ProxyError } from '../../common/base/errors.ts';
import type { AppProtocol } from '../../common/decision/mesh-view.ts';
import type { HttpClientConnection } from '../../common/http/connections.ts';
import type { BodySource, ClientExchange, ClientListener, ResponseHead } from '../../common/http/types.ts';
import type { PickedEndpoint } from '../cluster/picker.ts';
import type { HttpVersion, Upstreams } from '../cluster/upstreams.ts';
import { AttemptFailed } from './attempt.ts';
import type { Answer, Handler, RequestContext } from './context.ts';
import { isGrpc } from './local-answer.ts';

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
export function upstreamVersion({ received }: RequestContext, declared: AppProtocol | undefined): HttpVersion {
  if (declared === 'HTTP2' || declared === 'GRPC') return 'http2';
  if (received.version !== '2') return 'http1';
  return declared === 'HTTP11' && !isGrpc(received.fields) ? 'http1' : 'http2';
}

class Attempt implements ClientListener {
  readonly #parts: ForwardParts;
  readonly #request: RequestContext;
  readonly #endpoint: PickedEndpoint;
  readonly #answer = Promise.withResolvers<Answer>();
  #exchange: ClientExchange | undefined;
  #timer: Timer | undefined;
  #reused = false;
  #over = false;

  constructor(parts: ForwardParts, request: RequestContext, endpoint: PickedEndpoint) {
    this.#parts = parts;
    this.#request = request;
    this.#endpoint = endpoint;
  }

  run(): Promise<Answer> {
    const { upstreams, clock } = this.#parts;
    const request = this.#request;
    this.#endpoint.load.active++;
    const limitMs = request.entry?.rule.backendTimeoutMs ?? 0;
    if (limitMs > 0) {
      this.#timer = clock.after(limitMs, () =>
        this.#giveUp(new ProxyError('REQUEST_TIMEOUT', `no response of ${this.#endpoint.workload.uid} within ${limitMs} ms`)),
      );
    }
    request.onCancel((error) => this.#giveUp(error));
    const { backend } = request;
    const version = upstreamVersion(request, backend?.service?.appProtocols.get(backend.port));
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
    return this.#answer.promise;
  }

  // ClientListener

  informational(head: ResponseHead): void {
    this.#request.exchange.inform(head);
  }

  response(head: ResponseHead, body: BodySource): void {
    this.#end();
    this.#request.whenOver(() => this.#endpoint.load.active--);
    this.#answer.resolve({ head, body });
  }

  failed(error: ProxyError, unsent: boolean): void {
    this.#fail(error, unsent);
  }

  #send(connection: HttpClientConnection): void {
    // Given up while the connection was being made: it stays for the next one.
    if (this.#over) return;
    const { body, head } = this.#request;
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
    this.#endpoint.load.active--;
    this.#request.body.cancel();
    this.#answer.reject(new AttemptFailed(error, { unsent, reused: this.#reused }));
  }

  #end(): void {
    this.#over = true;
    this.#timer?.cancel();
    this.#request.onCancel(undefined);
  }
}
