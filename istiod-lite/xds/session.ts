/** One ADS stream from its authentication to its end, whichever form of the protocol it speaks: who it is, what it may see, how it ends. */
import { type ServerDuplexStream, status as statusCodes } from '@grpc/grpc-js';
import { type Clock, seconds, type Timer } from '../../common/base/clock.ts';
import type { Log } from '../../common/base/log.ts';
import type { Node } from '../../common/codec/gen/discovery.ts';
import type { Gate } from '../access/access.ts';
import type { Caller } from '../access/token-review.ts';
import { type Metrics, typeLabel } from '../metrics.ts';
import type { DebugType } from './debug-types.ts';
import type { DeltaStreamOptions, StreamFailure, StreamLimits, StreamObserver } from './delta-stream.ts';
import type { Proxies, ProxyStream } from './proxies.ts';
import { type ProxyNode, readProxyNode } from './proxy-node.ts';
import type { PushThrottle } from './push-throttle.ts';
import type { ResourceStore } from './resource-store.ts';
import type { Related } from './subscription.ts';

/** What a proxy is served, by type URL in the order of sending. */
export interface Served {
  readonly stores: ReadonlyMap<string, ResourceStore>;
  /** By type URL: what goes with names that are asked for one by one. */
  readonly related: ReadonlyMap<string, Related>;
}

export interface AdsOptions {
  readonly access: Gate;
  servedTo(node: ProxyNode): Served;
  /** What tools may ask for, by type URL. */
  readonly debugTypes: ReadonlyMap<string, DebugType>;
  readonly proxies: Proxies;
  readonly throttle: PushThrottle;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  /** Types that newer proxies asked for and that have been logged. */
  readonly unknownTypes: Set<string>;
  readonly limits: StreamLimits & { readonly maxProxies: number; readonly maxConnectionAgeMs: number };
  /** Whether a proxy's namespace must be its token's. */
  readonly identityCheck: boolean;
  /** The whole cluster has been read. Before that a proxy would be told that everything is gone. */
  ready(): boolean;
  systemVersion(): string;
}

/** What both forms of the protocol have in their requests. */
export interface AnyRequest {
  readonly node?: Node | undefined;
  readonly typeUrl: string;
}

export interface RequestStream<Request> extends ProxyStream {
  receive(request: Request): void;
  /** The transport is gone. */
  closed(): void;
}

/** One form of the protocol. */
export interface Protocol<Request> {
  /** Of its requests' type, for messages. */
  readonly request: string;
  open(options: DeltaStreamOptions & { made(): ReadonlyMap<string, DebugType> }): RequestStream<Request>;
}

/** A request, or undefined where the bytes were none: that is answered, and logged, as what it is. */
export type AdsCall<Request> = ServerDuplexStream<Request | undefined, Buffer>;
export type RefusalCode = StreamFailure | 'UNAUTHENTICATED' | 'PERMISSION_DENIED';

const FIRST_REQUEST_MS = seconds(30);
const MAX_LOGGED_TYPES = 100;
const NOTHING: Served = { stores: new Map(), related: new Map() };

export class Session<Request extends AnyRequest> {
  readonly #call: AdsCall<Request>;
  readonly #caller: Caller;
  readonly #options: AdsOptions;
  readonly #protocol: Protocol<Request>;
  readonly #stream: RequestStream<Request>;
  readonly #peer: string;
  #node: ProxyNode | undefined;
  #isTool = false;
  #served = NOTHING;
  #leave: (() => void) | undefined;
  /** First for the first request, then for the connection's age. */
  #timer: Timer;
  #over = false;

  constructor(call: AdsCall<Request>, caller: Caller, protocol: Protocol<Request>, options: AdsOptions, nonce: () => string) {
    this.#call = call;
    this.#protocol = protocol;
    this.#caller = caller;
    this.#options = options;
    this.#peer = call.getPeer().replace(/^::ffff:/, '');
    this.#timer = options.clock.after(FIRST_REQUEST_MS, () => this.#refuse('DEADLINE_EXCEEDED', 'no request came'));
    this.#stream = protocol.open({
      ...options,
      // Known with the first request, before the stream looks.
      stores: () => this.#served.stores,
      related: () => this.#served.related,
      made: () => (this.#isTool ? options.debugTypes : new Map()),
      nonce,
      transport: {
        write: (frame, done) => void call.write(frame, () => done()),
        fail: (code, message, how) => {
          this.#refuse(code, message);
          if (how === 'reset') reset(call);
        },
      },
      observer: {
        sent: (push) => this.#sent(push),
        rejected: ({ typeUrl, error }) => this.#rejected(typeUrl, error),
        staleNonce: (typeUrl) => options.metrics.xdsExpiredNonce.inc({ type: typeLabel(typeUrl) }),
        unknownType: (typeUrl) => this.#unknownType(typeUrl),
        writeTimeout: () => options.metrics.xdsWriteTimeout.inc(),
      },
    });
  }

  start(): void {
    this.#call.on('data', (request: Request | undefined) => this.#receive(request));
    this.#call.on('cancelled', () => this.#end('the proxy went away'));
    this.#call.on('end', () => {
      this.#end('the proxy closed the stream');
      this.#call.end();
    });
  }

  #receive(request: Request | undefined): void {
    if (this.#over) return;
    if (!request) {
      this.#refuse('INVALID_ARGUMENT', `a message is no ${this.#protocol.request}`);
      return;
    }
    try {
      if (this.#node || this.#isTool || this.#identify(request)) this.#stream.receive(request);
    } catch (error) {
      this.#failed(error);
    }
  }

  // Ours, not the proxy's; the others go on, and this one comes back.
  #failed(error: unknown): void {
    this.#options.metrics.internalErrors.inc();
    this.#options.log.error({ ...this.#fields(), err: error }, 'stream failed');
    this.#refuse('UNAVAILABLE', 'internal error');
  }

  #identify({ node, typeUrl }: Request): boolean {
    const { proxies, limits, clock, random, identityCheck, log, access, debugTypes } = this.#options;
    if (debugTypes.has(typeUrl)) return this.#admitTool();
    const verdict = readProxyNode(node, identityCheck ? this.#caller : undefined);
    if ('refuse' in verdict) {
      this.#refuse(verdict.refuse, verdict.message);
      return false;
    }
    const { type, namespace, gateway } = verdict.proxy;
    const reason = access.mayNot(`xds/${type}`, this.#caller, { namespace, gateway: `${namespace}/${gateway}` });
    if (reason !== undefined) {
      this.#refuse('PERMISSION_DENIED', reason);
      return false;
    }
    this.#served = this.#options.servedTo(verdict.proxy);
    this.#node = verdict.proxy;
    this.#leave = proxies.add({
      node: verdict.proxy,
      stream: this.#stream,
      stores: this.#served.stores,
      peer: this.#peer,
      failed: (error) => this.#failed(error),
    });
    this.#timer.cancel();
    const age = limits.maxConnectionAgeMs * (0.9 + 0.2 * random());
    this.#timer = clock.after(age, () => this.#stream.drain('the connection is old; connect again'));
    log.info({ ...this.#fields(), version: verdict.proxy.version, node: verdict.proxy.node }, 'proxy connected');
    return true;
  }

  /** Who asks what proxies have is no proxy, and gets nothing else. */
  #admitTool(): boolean {
    const reason = this.#options.access.mayNot('xds/debug', this.#caller);
    if (reason !== undefined) this.#refuse('PERMISSION_DENIED', reason);
    this.#timer.cancel();
    this.#isTool = reason === undefined;
    return this.#isTool;
  }

  #sent({ typeUrl, bytes, since, changedSince }: Parameters<StreamObserver['sent']>[0]): void {
    const { metrics, clock } = this.#options;
    const now = clock.monotonic();
    metrics.xdsPushes.inc({ type: typeLabel(typeUrl) });
    metrics.xdsConfigSize.observe({ type: typeUrl }, bytes);
    metrics.sendTime.observe((now - since) / 1000);
    if (changedSince === undefined) return;
    metrics.convergence.observe((now - changedSince) / 1000);
    metrics.queueTime.observe((since - changedSince) / 1000);
  }

  #rejected(typeUrl: string, error: string): void {
    this.#options.metrics.xdsRejects.inc({ type: typeLabel(typeUrl) });
    this.#options.log.warn({ ...this.#fields(), type: typeLabel(typeUrl), error: error.slice(0, 4000) }, 'proxy rejected resources');
  }

  /** Once for each type: all replicas of a newer waypoint ask for it. */
  #unknownType(type: string): void {
    const { log, unknownTypes } = this.#options;
    if (unknownTypes.has(type) || unknownTypes.size >= MAX_LOGGED_TYPES) return;
    unknownTypes.add(type);
    log.warn({ ...this.#fields(), type }, 'a proxy is newer than this istiod: a type that it asks for is answered as empty');
  }

  #refuse(code: RefusalCode, message: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#release();
    refuseCall(this.#options, this.#call, this.#fields(), code, message);
  }

  #end(reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#release();
    this.#options.log.info({ ...this.#fields(), reason }, 'proxy disconnected');
  }

  #release(): void {
    this.#timer.cancel();
    this.#leave?.();
    this.#stream.closed();
  }

  #fields(): Record<string, unknown> {
    const { namespace, serviceAccount } = this.#caller;
    return { proxy: this.#node?.name, caller: `${namespace}/${serviceAccount}`, peer: this.#peer };
  }
}

export function refuseCall<Request>(
  { log, metrics }: AdsOptions,
  call: AdsCall<Request>,
  fields: Record<string, unknown>,
  code: RefusalCode,
  message: string,
): void {
  metrics.xdsRefused.inc({ code });
  // Being busy, starting or draining is no fault of anybody's.
  const expected = code === 'UNAVAILABLE';
  log[expected ? 'info' : 'warn']({ peer: call.getPeer(), ...fields, code, error: message }, 'stream ended');
  call.emit('error', Object.assign(new Error(message), { code: statusCodes[code], details: message }));
}

/**
 * Gives up a stream whose peer takes nothing: its status would wait behind what is stuck. grpc-js has no call for that, so the HTTP/2 stream
 * below is reset; where a future version hides it elsewhere, the stream ends when the connection does.
 */
function reset<Request>(call: AdsCall<Request>): void {
  const below = (call as unknown as { call?: { stream?: { close?: (code: number) => void } } }).call?.stream;
  below?.close?.(RST_CANCEL);
}

// RFC 9113, section 7.
const RST_CANCEL = 0x8;
