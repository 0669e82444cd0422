/**
 * One client's stream in the protocol's older form, state of the world: each response has everything that was asked for. Proxies of ours speak
 * delta; this is for tools, and for debug types, whose state is made when it is asked for. One response at a time, and changes in between cost
 * nothing but a mark. No I/O here: the transport is given.
 * @see Envoy: xDS protocol, "state of the world"; Istio: pilot/pkg/xds/ads.go
 */
import { afterSteps, type Timer } from '../../common/base/clock.ts';
import { type DiscoveryRequest, DiscoveryResponse } from '../../common/codec/gen/discovery.ts';
import type { Any } from '../../common/codec/gen/google/protobuf/any.ts';
import type { DebugType } from './debug-types.ts';
import type { DeltaStreamOptions, SubscriptionStatus } from './delta-stream.ts';
import type { ResourceChange, ResourceStore } from './resource-store.ts';
import { contents } from './response.ts';

export interface SotwStreamOptions extends Omit<DeltaStreamOptions, 'related'> {
  /** Types that are no store: what they are when somebody asks. */
  made(): ReadonlyMap<string, DebugType>;
}

interface Watched {
  /** Nothing: everything. */
  names: ReadonlySet<string>;
  due: boolean;
  sent: string;
  acked: string;
  sentAt: number;
  /** Monotonic milliseconds; undefined where nothing waits for an answer. */
  unansweredSince: number | undefined;
  lastError: string;
  /** Monotonic milliseconds of the oldest change waiting. */
  since: number | undefined;
}

const MAX_NAMES = 100_000;

export class SotwStream {
  readonly #options: SotwStreamOptions;
  readonly #watched = new Map<string, Watched>();
  #state: 'open' | 'draining' | 'closed' = 'open';
  #drainReason = '';
  #writing = false;
  #watchdog: Timer | undefined;

  constructor(options: SotwStreamOptions) {
    this.#options = options;
  }

  receive({ typeUrl, resourceNames, responseNonce, errorDetail }: DiscoveryRequest): void {
    if (this.#state === 'closed') return;
    const { observer, stores, made } = this.#options;
    if (!stores().has(typeUrl) && !made().has(typeUrl)) {
      this.#fail('INVALID_ARGUMENT', `type ${JSON.stringify(typeUrl.slice(0, 200))} is not served`);
      return;
    }
    if (resourceNames.length > MAX_NAMES) {
      this.#fail('RESOURCE_EXHAUSTED', `more than ${MAX_NAMES} names subscribed`);
      return;
    }
    const known = this.#watched.get(typeUrl);
    const names = new Set(resourceNames.filter((name) => name !== '*'));
    if (!known) {
      this.#watched.set(typeUrl, {
        names,
        due: true,
        sent: '',
        acked: '',
        sentAt: 0,
        unansweredSince: undefined,
        lastError: '',
        since: undefined,
      });
    } else if (responseNonce !== '' && responseNonce !== known.sent) {
      observer.staleNonce(typeUrl);
    } else {
      known.unansweredSince = undefined;
      if (errorDetail) {
        known.lastError = `${errorDetail.message || 'no reason given'} (code ${errorDetail.code})`;
        observer.rejected({ typeUrl, error: known.lastError });
      } else if (responseNonce !== '') {
        known.acked = responseNonce;
        known.lastError = '';
      }
      // Other names than before, or none of a response's: somebody asks again.
      if (responseNonce === '' || names.symmetricDifference(known.names).size > 0) known.due = true;
      known.names = names;
    }
    this.#flush();
  }

  changed({ typeUrl, store, names, since }: ResourceChange): void {
    const watched = this.#watched.get(typeUrl);
    if (this.#state === 'closed' || !watched || this.#options.stores().get(typeUrl) !== store) return;
    if (watched.names.size > 0 && watched.names.isDisjointFrom(names)) return;
    watched.due = true;
    watched.since ??= since;
    this.#flush();
  }

  drain(reason: string): void {
    if (this.#state !== 'open') return;
    this.#state = 'draining';
    this.#drainReason = reason;
    this.#flush();
  }

  closed(): void {
    this.#state = 'closed';
    this.#watchdog?.cancel();
  }

  status(): Record<string, SubscriptionStatus> {
    return Object.fromEntries(
      [...this.#watched].map(([typeUrl, { sent, acked, sentAt, lastError }]) => [
        typeUrl,
        { sent, acked, sentTime: sentAt === 0 ? '' : new Date(sentAt).toISOString(), lastError },
      ]),
    );
  }

  #flush(): void {
    if (this.#writing || this.#state === 'closed') return;
    for (const [typeUrl, watched] of this.#watched) {
      if (!watched.due) continue;
      this.#send(typeUrl, watched);
      return;
    }
    if (this.#state === 'draining') this.#fail('UNAVAILABLE', this.#drainReason);
    else this.#watchAnswers();
  }

  #send(typeUrl: string, watched: Watched): void {
    const { clock, limits, observer, transport, systemVersion, nonce } = this.#options;
    const [since, changedSince] = [clock.monotonic(), watched.since];
    const response = {
      versionInfo: systemVersion(),
      resources: this.#resources(typeUrl, watched.names),
      typeUrl,
      nonce: nonce(),
      controlPlane: this.#options.made().get(typeUrl)?.controlPlane,
    };
    const frame = Buffer.from(DiscoveryResponse.encode(response).finish());
    const bytes = frame.length;
    Object.assign(watched, { due: false, since: undefined, sent: response.nonce, sentAt: clock.now() });
    watched.unansweredSince ??= since;
    this.#writing = true;
    this.#watch(limits.writeTimeoutMs, () => {
      observer.writeTimeout();
      this.#giveUp(`a response of ${bytes} bytes was not taken for ${limits.writeTimeoutMs / 1000} s`);
    });
    transport.write(frame, () => {
      if (this.#state === 'closed') return;
      this.#writing = false;
      observer.sent({ typeUrl, bytes, since, changedSince });
      this.#watchdog?.cancel();
      this.#flush();
    });
  }

  #resources(typeUrl: string, names: ReadonlySet<string>): Any[] {
    const store = this.#options.stores().get(typeUrl);
    if (!store) return [...(this.#options.made().get(typeUrl)?.resources() ?? [])];
    return [...named(store, names)].map((stored) => ({ typeUrl, value: contents(stored) }));
  }

  #watchAnswers(): void {
    const { clock, limits } = this.#options;
    const oldest = [...this.#watched.values()].reduce(
      (first, { unansweredSince = Infinity }) => Math.min(first, unansweredSince),
      Infinity,
    );
    this.#watchdog?.cancel();
    if (oldest === Infinity) return;
    const left = Math.max(0, oldest + limits.ackTimeoutMs - clock.monotonic());
    this.#watch(left, () => this.#giveUp(`a response was not acknowledged for ${limits.ackTimeoutMs / 1000} s`));
  }

  #watch(ms: number, run: () => void): void {
    this.#watchdog?.cancel();
    this.#watchdog = afterSteps(this.#options.clock, ms, run);
  }

  #giveUp(message: string): void {
    this.closed();
    this.#options.transport.fail('DEADLINE_EXCEEDED', message, 'reset');
  }

  #fail(code: 'INVALID_ARGUMENT' | 'RESOURCE_EXHAUSTED' | 'UNAVAILABLE', message: string): void {
    this.closed();
    this.#options.transport.fail(code, message, 'after-writes');
  }
}

function* named(store: ResourceStore, names: ReadonlySet<string>) {
  if (names.size === 0) yield* store.values();
  for (const name of names) {
    const stored = store.get(name);
    if (stored) yield stored;
    else for (const key of store.withAlias(name)) yield* [store.get(key)].flatMap((found) => found ?? []);
  }
}
