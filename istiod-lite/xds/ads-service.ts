/**
 * The gRPC side of delta ADS: who may open a stream, what becomes of it, and how it ends. The protocol itself is DeltaStream's.
 * @see Istio: pilot/pkg/xds/auth.go, pilot/pkg/xds/ads.go
 */
import { type ServerDuplexStream, type ServiceDefinition, status as statusCodes, type UntypedHandleCall } from '@grpc/grpc-js';
import { type Clock, seconds, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import { AggregatedDiscoveryServiceService, DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import type { Gate } from '../access/access.ts';
import type { Caller } from '../access/token-review.ts';
import { type Metrics, typeLabel } from '../metrics.ts';
import { DeltaStream, type StreamFailure, type StreamLimits, type StreamObserver } from './delta-stream.ts';
import type { Proxies } from './proxies.ts';
import { type ProxyNode, readProxyNode } from './proxy-node.ts';
import type { PushThrottle } from './push-throttle.ts';
import type { ResourceStore } from './resource-store.ts';

export interface AdsOptions {
  readonly access: Gate;
  /** What this proxy may have, by type URL in the order of sending. */
  storesFor(node: ProxyNode): ReadonlyMap<string, ResourceStore>;
  readonly proxies: Proxies;
  readonly throttle: PushThrottle;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly limits: StreamLimits & { readonly maxProxies: number; readonly maxConnectionAgeMs: number };
  /** Whether a proxy's namespace must be its token's. */
  readonly identityCheck: boolean;
  /** The whole cluster has been read. Before that a proxy would be told that everything is gone. */
  ready(): boolean;
  systemVersion(): string;
}

/** A request, or undefined where the bytes were none: that is answered, and logged, as what it is. */
type Call = ServerDuplexStream<DeltaDiscoveryRequest | undefined, Buffer>;
type RefusalCode = StreamFailure | 'UNAUTHENTICATED' | 'PERMISSION_DENIED';

const FIRST_REQUEST_MS = seconds(30);

export const adsDefinition = {
  deltaAggregatedResources: {
    ...AggregatedDiscoveryServiceService.deltaAggregatedResources,
    requestDeserialize: (bytes: Buffer): DeltaDiscoveryRequest | undefined => {
      try {
        return DeltaDiscoveryRequest.decode(bytes);
      } catch {
        // Reported by the handler, with the proxy's name.
        return undefined;
      }
    },
    responseSerialize: (frame: Buffer): Buffer => frame,
    responseDeserialize: (bytes: Buffer): DeltaDiscoveryResponse => DeltaDiscoveryResponse.decode(bytes),
  },
} satisfies ServiceDefinition;

export function createAdsHandler(options: AdsOptions): UntypedHandleCall {
  let opening = 0;
  let nonces = 0;
  const nonce = (): string => `${(++nonces).toString(36)}-${Math.floor(options.random() * 2 ** 32).toString(36)}`;
  return (call: Call) => {
    const refuse = (code: RefusalCode, message: string): void => refuseCall(options, call, {}, code, message);
    if (!options.ready()) {
      refuse('UNAVAILABLE', 'istiod has not read the cluster yet');
      return;
    }
    if (options.proxies.size + opening >= options.limits.maxProxies) {
      refuse('RESOURCE_EXHAUSTED', `${options.limits.maxProxies} proxies are connected already`);
      return;
    }
    opening++;
    options.access
      .authenticate(call)
      .then((authentication) => {
        if (call.cancelled) return;
        if ('refuse' in authentication) refuse(authentication.refuse, authentication.message);
        else new Session(call, authentication.caller, options, nonce).start();
      })
      .catch((error: unknown) => refuse('UNAVAILABLE', errorMessage(error)))
      .finally(() => opening--);
  };
}

/** One stream from its authentication to its end. */
class Session {
  readonly #call: Call;
  readonly #caller: Caller;
  readonly #options: AdsOptions;
  readonly #stream: DeltaStream;
  readonly #peer: string;
  #node: ProxyNode | undefined;
  #stores: ReadonlyMap<string, ResourceStore> = new Map();
  #leave: (() => void) | undefined;
  /** First for the first request, then for the connection's age. */
  #timer: Timer;
  #over = false;

  constructor(call: Call, caller: Caller, options: AdsOptions, nonce: () => string) {
    this.#call = call;
    this.#caller = caller;
    this.#options = options;
    this.#peer = call.getPeer().replace(/^::ffff:/, '');
    this.#timer = options.clock.after(FIRST_REQUEST_MS, () => this.#refuse('DEADLINE_EXCEEDED', 'no request came'));
    this.#stream = new DeltaStream({
      ...options,
      // Known with the first request, before the stream looks.
      stores: () => this.#stores,
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
        writeTimeout: () => options.metrics.xdsWriteTimeout.inc(),
      },
    });
  }

  start(): void {
    this.#call.on('data', (request: DeltaDiscoveryRequest | undefined) => this.#receive(request));
    this.#call.on('cancelled', () => this.#end('the proxy went away'));
    this.#call.on('end', () => {
      this.#end('the proxy closed the stream');
      this.#call.end();
    });
  }

  #receive(request: DeltaDiscoveryRequest | undefined): void {
    if (this.#over) return;
    if (!request) {
      this.#refuse('INVALID_ARGUMENT', 'a message is no DeltaDiscoveryRequest');
      return;
    }
    try {
      if (this.#node || this.#identify(request)) this.#stream.receive(request);
    } catch (error) {
      this.#failed(error);
    }
  }

  // Ours, not the proxy's; the others go on, and this one comes back.
  #failed(error: unknown): void {
    this.#options.log.error({ ...this.#fields(), err: error }, 'stream failed');
    this.#refuse('UNAVAILABLE', 'internal error');
  }

  #identify({ node }: DeltaDiscoveryRequest): boolean {
    const { proxies, limits, clock, random, identityCheck, log, access } = this.#options;
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
    this.#stores = this.#options.storesFor(verdict.proxy);
    this.#node = verdict.proxy;
    this.#leave = proxies.add({
      node: verdict.proxy,
      stream: this.#stream,
      stores: this.#stores,
      peer: this.#peer,
      failed: (error) => this.#failed(error),
    });
    this.#timer.cancel();
    const age = limits.maxConnectionAgeMs * (0.9 + 0.2 * random());
    this.#timer = clock.after(age, () => this.#stream.drain('the connection is old; connect again'));
    log.info({ ...this.#fields(), version: verdict.proxy.version, node: verdict.proxy.node }, 'proxy connected');
    return true;
  }

  #sent({ typeUrl, bytes, since, changedSince }: Parameters<StreamObserver['sent']>[0]): void {
    const { metrics, clock } = this.#options;
    const now = clock.monotonic();
    metrics.xdsPushes.inc({ type: typeLabel(typeUrl) });
    metrics.xdsConfigSize.observe({ type: typeUrl }, bytes);
    metrics.sendTime.observe((now - since) / 1000);
    if (changedSince !== undefined) metrics.convergence.observe((now - changedSince) / 1000);
  }

  #rejected(typeUrl: string, error: string): void {
    this.#options.metrics.xdsRejects.inc({ type: typeLabel(typeUrl) });
    this.#options.log.warn({ ...this.#fields(), type: typeLabel(typeUrl), error: error.slice(0, 4000) }, 'proxy rejected resources');
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

function refuseCall({ log, metrics }: AdsOptions, call: Call, fields: Record<string, unknown>, code: RefusalCode, message: string): void {
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
function reset(call: Call): void {
  const below = (call as unknown as { call?: { stream?: { close?: (code: number) => void } } }).call?.stream;
  below?.close?.(RST_CANCEL);
}

// RFC 9113, section 7.
const RST_CANCEL = 0x8;
