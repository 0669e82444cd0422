/**
 * One request on its way through the waypoint: what came in, what goes out, and what the stages have found out so far. It lives from the
 * request's head to the last byte of its response, and it is the one thing that cancels what is under way for it.
 */
import type { SocketAddress } from '../../common/base/address.ts';
import type { ProxyError } from '../../common/base/errors.ts';
import type { SpiffeId } from '../../common/base/spiffe.ts';
import type { FieldChange } from '../../common/decision/authorizer.ts';
import type { Baggage } from '../../common/decision/headers.ts';
import type { CompiledEntry } from '../../common/decision/http-model.ts';
import type { VerifiedToken } from '../../common/decision/jwt.ts';
import type { AppProtocol, Service, Workload } from '../../common/decision/mesh-view.ts';
import type { BodySource, RequestHead, ResponseHead, ServerExchange } from '../../common/http/types.ts';
import type { PickedEndpoint } from '../cluster/endpoint.ts';
import type { RequestSlots } from '../telemetry/request-slots.ts';
import type { RequestSpan } from '../telemetry/start-span.ts';
import { RequestBody } from './request-body.ts';

/** Who is at the other end, as the tunnel proved it. */
export interface Caller {
  readonly address: SocketAddress;
  /** From the certificate; undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
  /** `spiffe://…`; empty for plaintext. */
  readonly principal: string;
  readonly workload: Workload | undefined;
  /** What the caller's proxy says of it: labels only. */
  readonly baggage: Baggage | undefined;
}

/** What a connection was opened to: a service, or a pod by its own address. */
export interface Target {
  /** `namespace/hostname`; undefined for a pod. */
  readonly serviceKey: string | undefined;
  readonly service: Service | undefined;
  readonly workload: Workload | undefined;
  /** Of the service, or of the pod. */
  readonly port: number;
  /** The address that was asked for; undefined where it was asked for by name. */
  readonly ip: string | undefined;
  /** Whose rule names a caller may be told. */
  readonly namespace: string;
  readonly protocol: AppProtocol | undefined;
}

/** One connection from a caller to a target. */
export interface Connection {
  readonly caller: Caller;
  readonly target: Target;
  /** Our end of it. */
  readonly local: SocketAddress;
  /** Trace id of its tunnel, by which the caller's ztunnel names it too; undefined for plaintext. */
  readonly id?: string;
  /** Told when a request is over; `one` has been. */
  latest?: LatestRequest | 'one';
}

/**
 * What was worked out for a connection's latest request, by whoever counts them: most are like the one before. Not made for connections that
 * carry one request only (bench waypoint: kept connections).
 */
export interface LatestRequest {
  journaled: LikeJournaled | undefined;
  counted: LikeCounted | undefined;
}

/** All that an entry of the decision journal hangs on, beside the connection, and its key. */
export interface LikeJournaled {
  readonly asked: object;
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  readonly code: string;
  readonly policy: string;
  readonly route: string;
  readonly key: string;
}

/** The same for a request's series; requests that went wrong and gRPC's are not remembered. */
export interface LikeCounted {
  readonly endpoint: PickedEndpoint | undefined;
  readonly status: number;
  readonly period: number;
  /** Of the table that they are in: another one where labels may have changed. */
  readonly table: object;
  readonly slots: RequestSlots;
}

/** Remembers that there was a request. @returns where to remember it, from the second one on */
export function latestOf(connection: Connection): LatestRequest | undefined {
  const { latest } = connection;
  if (typeof latest === 'object') return latest;
  if (latest === undefined) {
    connection.latest = 'one';
    return undefined;
  }
  const remembered: LatestRequest = { journaled: undefined, counted: undefined };
  connection.latest = remembered;
  return remembered;
}

/** Where a request goes. */
export interface Backend {
  readonly service: Service | undefined;
  readonly workload: Workload | undefined;
  readonly port: number;
  /** Of the service; empty for all of it. */
  readonly subset: string;
}

export interface Answer {
  readonly head: ResponseHead;
  /** undefined for an answer without a body. */
  readonly body: BodySource | undefined;
}

export type Handler = (request: RequestContext) => PromiseLike<Answer>;
export type Stage = (next: Handler) => Handler;

/** One handler of all stages, the first one outermost; built once, not for each request. */
export const compose = (stages: readonly Stage[], last: Handler): Handler => stages.reduceRight((next, stage) => stage(next), last);

const NOBODY: ReadonlySet<string> = new Set();

export class RequestContext {
  readonly exchange: ServerExchange;
  readonly connection: Connection;
  /** As it was received. */
  readonly received: RequestHead;
  /** As it goes to the backend. */
  head: RequestHead;
  readonly body: RequestBody;
  /** Milliseconds since 1970, and of the monotonic clock. */
  readonly startedAt: number;
  readonly startedMonotonic: number;
  requestId = '';
  /** What `x-warren-refusal` and the log name this request by. */
  traceId = '';
  /** Where it may be traced. */
  span: RequestSpan | undefined;
  /** Of the monotonic clock: when the answer's head was there; 0 before. */
  answeredMonotonic = 0;
  /** The rule that it takes; undefined where nothing is attached to the service. */
  entry: CompiledEntry | undefined;
  backend: Backend | undefined;
  /** Of the latest attempt. */
  endpoint: PickedEndpoint | undefined;
  attempts = 0;
  /** Fields that the answer is given besides, whoever gives it: a session's cookie. */
  answerFields: string[] | undefined;
  /** What limits say of it: fields of the answer, whoever gives it. */
  limitFields: string[] | undefined;
  /** What an authorization server wants changed in the response of the backend. */
  responseChanges: readonly FieldChange[] | undefined;
  /** The next attempt takes no connection that was used before. */
  freshConnection = false;
  /** Why we answered ourselves, or why the response is not whole. */
  error: ProxyError | undefined;
  /** What it brought, and was found good. */
  token: VerifiedToken | undefined;
  /** Dry-run policies that would have refused. */
  wouldDeny: readonly string[] = [];
  /** Limits in dry-run that would have refused: `namespace/name limit`. */
  wouldLimit: readonly string[] = [];
  /** As policies and routes saw it; undefined where it did not get so far. */
  judged: RequestHead | undefined;
  /** namespace/name of the policy that allowed it. */
  policy: string | undefined;
  /** AUDIT policies that it matches. */
  audited: readonly string[] = [];
  cancelled: ProxyError | undefined;
  #refusedBy: Set<string> | undefined;
  #abort: AbortController | undefined;
  #over = false;
  readonly #cleanups: (() => void)[] = [];
  /** What is under way just now and wants to know. */
  #running: ((error: ProxyError) => void) | undefined;

  constructor(exchange: ServerExchange, connection: Connection, now: { wall: number; monotonic: number }) {
    this.exchange = exchange;
    this.connection = connection;
    this.received = exchange.head;
    this.head = exchange.head;
    this.body = new RequestBody(exchange);
    this.startedAt = now.wall;
    this.startedMonotonic = now.monotonic;
  }

  /** Keys of endpoints that refused this request. */
  get refusedBy(): ReadonlySet<string> {
    return this.#refusedBy ?? NOBODY;
  }

  /** The endpoint is to be asked no more, while there are others. */
  avoid(key: string): void {
    this.#refusedBy ??= new Set();
    this.#refusedBy.add(key);
  }

  /** For waits that take one; made when somebody asks. */
  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController();
      if (this.cancelled) this.#abort.abort(this.cancelled);
    }
    return this.#abort.signal;
  }

  /** Ends what is under way; later stages see `cancelled`. */
  cancel(error: ProxyError): void {
    if (this.cancelled) return;
    this.cancelled = error;
    this.#abort?.abort(error);
    this.#running?.(error);
  }

  /** Called once, when the last byte of the response is on its way or none will be. */
  whenOver(run: () => void): void {
    if (this.#over) run();
    else this.#cleanups.push(run);
  }

  /** The request has ended, whole or not. */
  over(): void {
    if (this.#over) return;
    this.#over = true;
    this.#running = undefined;
    this.body.release();
    for (const run of this.#cleanups) run();
  }

  /** One listener at a time: the attempt under way, then the response's body. */
  onCancel(listener: ((error: ProxyError) => void) | undefined): void {
    this.#running = listener;
    if (listener && this.cancelled) listener(this.cancelled);
  }
}
