/**
 * One proxy's stream: requests in, responses out, one write at a time. While a write is under way changes gather in the subscriptions, so a
 * slow proxy costs names, not messages, and gets the newest state when it is ready. A proxy that takes nothing, or answers nothing, for too
 * long is let go. No I/O here: the transport is given.
 */
import { afterSteps, type Clock, type Timer } from '../../common/base/clock.ts';
import type { DeltaDiscoveryRequest } from '../../common/codec/gen/discovery.ts';
import { waypointTypes } from '../model/resources.ts';
import type { PushThrottle, Slot } from './push-throttle.ts';
import { type ResourceChange, ResourceStore } from './resource-store.ts';
import { type Related, Subscription, TooManyNames } from './subscription.ts';

export type StreamFailure = 'INVALID_ARGUMENT' | 'RESOURCE_EXHAUSTED' | 'DEADLINE_EXCEEDED' | 'UNAVAILABLE';

export interface StreamTransport {
  /** Calls `done` when the bytes have left; never more than one at a time. */
  write(frame: Buffer, done: () => void): void;
  /** Ends the stream with a status. `reset`: at once, without waiting for what is still to be written. */
  fail(code: StreamFailure, message: string, how: 'after-writes' | 'reset'): void;
}

export interface StreamObserver {
  /** `since` and `changedSince` in monotonic milliseconds: when it was begun, and of the oldest change in it. */
  sent(push: { typeUrl: string; bytes: number; since: number; changedSince: number | undefined }): void;
  rejected(nack: { typeUrl: string; error: string }): void;
  staleNonce(typeUrl: string): void;
  /** A newer proxy asks for a type of ours that this istiod does not have yet. */
  unknownType?(typeUrl: string): void;
  writeTimeout(): void;
}

export interface StreamLimits {
  /** Longest time for one response to leave. */
  readonly writeTimeoutMs: number;
  /** Longest time for a response to be acknowledged. */
  readonly ackTimeoutMs: number;
  /** Responses that may wait for their acknowledgement. */
  readonly maxUnanswered: number;
}

export interface DeltaStreamOptions {
  /** By type URL; sent in this order. */
  stores(): ReadonlyMap<string, ResourceStore>;
  /** By type URL; for those who ask for names. */
  related?(): ReadonlyMap<string, Related>;
  readonly transport: StreamTransport;
  readonly observer: StreamObserver;
  readonly limits: StreamLimits;
  /** Shared by all streams. */
  readonly throttle: PushThrottle;
  readonly clock: Clock;
  /** For `system_version_info`. */
  systemVersion(): string;
  /** Unlike any other of this process. */
  nonce(): string;
}

export interface SubscriptionStatus {
  readonly sent: string;
  readonly acked: string;
  /** RFC 3339; empty before the first response. */
  readonly sentTime: string;
  readonly lastError: string;
}

/** Of types of our own a newer proxy may know more than we do; of Istio's and Envoy's all are known. */
const OWN_TYPES = /^type\.googleapis\.com\/warren\.[\w.]{1,200}$/;
/** That this proxy may not have. */
const KNOWN_TYPES: ReadonlySet<string> = new Set(Object.values(waypointTypes));
/** A proxy that is so much newer is none. */
const MAX_UNKNOWN_TYPES = 32;

/** Responses from this size on need a slot. */
const LARGE_BYTES = 256 * 1024;

export class DeltaStream {
  readonly #options: DeltaStreamOptions;
  readonly #subscriptions = new Map<string, Subscription>();
  /** Of types that nobody here fills: a proxy is ready when each type that it asked for has been answered. */
  readonly #unknown = new Map<string, ResourceStore>();
  #state: 'open' | 'draining' | 'closed' = 'open';
  #drainReason = '';
  /** For a large response: waited for, or held. */
  #slot: Slot | undefined;
  #writing = false;
  #watchdog: Timer | undefined;

  constructor(options: DeltaStreamOptions) {
    this.#options = options;
  }

  receive(request: DeltaDiscoveryRequest): void {
    if (this.#state === 'closed') return;
    const { typeUrl, errorDetail } = request;
    const subscription = this.#subscription(typeUrl);
    if (!subscription) {
      this.#fail('INVALID_ARGUMENT', `type ${JSON.stringify(typeUrl.slice(0, 200))} is not served`);
      return;
    }
    try {
      const error = errorDetail ? { error: `${errorDetail.message || 'no reason given'} (code ${errorDetail.code})` } : {};
      const verdict = subscription.request({ ...request, ...error });
      if (verdict === 'nack') this.#options.observer.rejected({ typeUrl, error: subscription.lastError });
      if (verdict === 'stale') this.#options.observer.staleNonce(typeUrl);
    } catch (error) {
      if (!(error instanceof TooManyNames)) throw error;
      this.#fail('RESOURCE_EXHAUSTED', error.message);
      return;
    }
    this.#flush();
  }

  changed(change: ResourceChange): void {
    if (this.#state === 'closed') return;
    this.#subscriptions.get(change.typeUrl)?.changed(change);
    this.#flush();
  }

  /** Sends what is due and then asks the proxy to come back to whoever answers then. */
  drain(reason: string): void {
    if (this.#state !== 'open') return;
    this.#state = 'draining';
    this.#drainReason = reason;
    this.#flush();
  }

  /** The transport is gone. */
  closed(): void {
    this.#state = 'closed';
    this.#watchdog?.cancel();
    this.#slot?.leave();
  }

  /** For syncz, by type URL. */
  status(): Record<string, SubscriptionStatus> {
    return Object.fromEntries(
      [...this.#subscriptions].map(([typeUrl, { sentNonce: sent, ackedNonce: acked, sentAt, lastError }]) => [
        typeUrl,
        { sent, acked, sentTime: sentAt === 0 ? '' : new Date(sentAt).toISOString(), lastError },
      ]),
    );
  }

  #subscription(typeUrl: string): Subscription | undefined {
    const known = this.#subscriptions.get(typeUrl);
    const store = this.#options.stores().get(typeUrl) ?? (known ? undefined : this.#emptyStore(typeUrl));
    if (known || !store) return known;
    const subscription = new Subscription(store, this.#options.related?.().get(typeUrl));
    this.#subscriptions.set(typeUrl, subscription);
    return subscription;
  }

  #emptyStore(typeUrl: string): ResourceStore | undefined {
    if (!OWN_TYPES.test(typeUrl) || KNOWN_TYPES.has(typeUrl) || this.#unknown.size >= MAX_UNKNOWN_TYPES) return undefined;
    const store = new ResourceStore(typeUrl);
    this.#unknown.set(typeUrl, store);
    this.#options.observer.unknownType?.(typeUrl);
    return store;
  }

  #flush(): void {
    if (this.#writing || this.#state === 'closed') return;
    // In the order of the stores, whatever the proxy subscribed to first.
    for (const typeUrl of [...this.#options.stores().keys(), ...this.#unknown.keys()]) {
      const subscription = this.#subscriptions.get(typeUrl);
      if (!subscription?.due) continue;
      if (this.#mayWrite(subscription)) this.#send(subscription);
      return;
    }
    if (this.#state === 'draining') this.#fail('UNAVAILABLE', this.#drainReason);
    else this.#watchAnswers();
  }

  #mayWrite({ dueBytes }: Subscription): boolean {
    if (dueBytes < LARGE_BYTES) return true;
    this.#slot ??= this.#options.throttle.enter(() => this.#flush());
    return this.#slot.granted;
  }

  #send(subscription: Subscription): void {
    const { clock, limits, observer, transport } = this.#options;
    if (subscription.unanswered >= limits.maxUnanswered) {
      this.#giveUp(`${subscription.unanswered} responses of ${subscription.typeUrl} were not acknowledged`);
      return;
    }
    const head = {
      systemVersion: this.#options.systemVersion(),
      nonce: this.#options.nonce(),
      now: clock.now(),
      monotonic: clock.monotonic(),
    };
    const { frame, changedSince } = subscription.take(head);
    // Closures that name the frame would keep it beside the copy that gRPC makes of it until the proxy has taken that: megabytes for each.
    const bytes = frame.length;
    this.#writing = true;
    this.#watch(limits.writeTimeoutMs, () => {
      observer.writeTimeout();
      this.#giveUp(`a response of ${bytes} bytes was not taken for ${limits.writeTimeoutMs / 1000} s`);
    });
    transport.write(frame, () => {
      if (this.#state === 'closed') return;
      this.#writing = false;
      this.#slot?.leave();
      this.#slot = undefined;
      observer.sent({ typeUrl: subscription.typeUrl, bytes, since: head.monotonic, changedSince });
      this.#watchdog?.cancel();
      this.#watchdog = undefined;
      this.#flush();
    });
  }

  #watchAnswers(): void {
    const { clock, limits } = this.#options;
    const oldest = [...this.#subscriptions.values()].reduce(
      (first, { unansweredSince = Infinity }) => Math.min(first, unansweredSince),
      Infinity,
    );
    this.#watchdog?.cancel();
    this.#watchdog = undefined;
    if (oldest === Infinity) return;
    const left = oldest + limits.ackTimeoutMs - clock.monotonic();
    this.#watch(Math.max(0, left), () => this.#giveUp(`a response was not acknowledged for ${limits.ackTimeoutMs / 1000} s`));
  }

  #watch(ms: number, run: () => void): void {
    this.#watchdog?.cancel();
    this.#watchdog = afterSteps(this.#options.clock, ms, run);
  }

  #giveUp(message: string): void {
    this.closed();
    this.#options.transport.fail('DEADLINE_EXCEEDED', message, 'reset');
  }

  #fail(code: StreamFailure, message: string): void {
    this.closed();
    this.#options.transport.fail(code, message, 'after-writes');
  }
}
