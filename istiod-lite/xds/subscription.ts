/**
 * What one proxy wants of one type, what it has been sent and what it said to it: the bookkeeping of the delta protocol, without I/O.
 * @see Istio: pilot/pkg/xds/delta.go; Envoy: xDS protocol, "incremental xDS"
 */

import type { ResourceChange, ResourceStore, StoredResource } from './resource-store.ts';
import { encodeRemoved, encodeResponse } from './response.ts';

/** What a proxy said about the last thing it was sent. */
export type Verdict = 'ack' | 'nack' | 'stale' | 'none';

interface Outstanding {
  readonly nonce: string;
  /** Monotonic milliseconds. */
  readonly sentAt: number;
}

/** What an on-demand subscriber gets beside the names that it asks for (Istio: a service's workloads, and what runs on its own node). */
export interface Related {
  /** Names that go with a name. */
  with(name: string): Iterable<string>;
  /** Names of which this one goes with. */
  of(name: string): Iterable<string>;
  /** What it gets without asking. */
  always(): Iterable<string>;
  isAlways(name: string): boolean;
}

const UNRELATED: Related = { with: () => [], of: () => [], always: () => [], isAlways: () => false };

export interface SubscriptionRequest {
  readonly resourceNamesSubscribe: readonly string[];
  readonly resourceNamesUnsubscribe: readonly string[];
  readonly initialResourceVersions: Readonly<Record<string, string>>;
  readonly responseNonce: string;
  readonly error?: string;
}

/** Names that a proxy may ask for one by one; beyond that it is better off with everything. */
const MAX_NAMES = 100_000;
const WILDCARD = '*';

export class TooManyNames extends Error {}

export class Subscription {
  readonly #store: ResourceStore;
  readonly #related: Related;
  readonly #names = new Set<string>();
  readonly #outstanding: Outstanding[] = [];
  #wildcard = false;
  #started = false;
  /** An answer is due even if it is empty; the map is what the client says it has. */
  #answer: { readonly versions: ReadonlyMap<string, string>; readonly everything: boolean } | undefined;
  /** One change waiting: it can go as it is. */
  #change: ResourceChange | undefined;
  /** Several changes merged. */
  readonly #changed = new Set<string>();
  /** Monotonic milliseconds of the oldest change waiting. */
  #since: number | undefined;
  sentNonce = '';
  ackedNonce = '';
  /** Wall-clock milliseconds. */
  sentAt = 0;
  lastError = '';

  constructor(store: ResourceStore, related: Related = UNRELATED) {
    this.#store = store;
    this.#related = related;
  }

  get typeUrl(): string {
    return this.#store.typeUrl;
  }

  get wildcard(): boolean {
    return this.#wildcard;
  }

  /** Whether there is something to send. */
  get due(): boolean {
    return this.#answer !== undefined || this.#change !== undefined || this.#changed.size > 0;
  }

  /** About how many bytes the next response will have. */
  get dueBytes(): number {
    if (this.#answer?.everything) return this.#store.encodedBytes;
    if (this.#change) return this.#change.body.length;
    const average = this.#store.size === 0 ? 0 : this.#store.encodedBytes / this.#store.size;
    return average * (this.#changed.size + (this.#answer ? this.#names.size : 0));
  }

  /** Responses that have not been answered. */
  get unanswered(): number {
    return this.#outstanding.length;
  }

  /** When the oldest response was sent that has not been answered; monotonic milliseconds. */
  get unansweredSince(): number | undefined {
    return this.#outstanding[0]?.sentAt;
  }

  /** @throws {TooManyNames} */
  request(request: SubscriptionRequest): Verdict {
    const first = !this.#started;
    const verdict = first || request.responseNonce === '' ? 'none' : this.#answered(request);
    this.#started = true;
    this.#subscribe(request, first);
    return verdict;
  }

  /** Something happened to resources of this type. */
  changed(change: ResourceChange): void {
    if (!this.#started || change.store !== this.#store) return;
    const relevant = this.#wildcard ? change : this.#subscribed(change);
    if (!relevant) return;
    this.#since ??= change.since;
    if (!this.#change && this.#changed.size === 0 && this.#wildcard) {
      this.#change = change;
      return;
    }
    this.#mergeWaiting();
    for (const name of relevant.names) this.#changed.add(name);
  }

  /** The next response, for what is due now; `changedSince` is absent where it only answers a request. */
  take(head: { systemVersion: string; nonce: string; now: number; monotonic: number }): {
    frame: Buffer;
    changedSince: number | undefined;
  } {
    const body = this.#takeBody();
    const changedSince = this.#since;
    this.#since = undefined;
    this.sentNonce = head.nonce;
    this.sentAt = head.now;
    this.#outstanding.push({ nonce: head.nonce, sentAt: head.monotonic });
    return { frame: encodeResponse({ typeUrl: this.typeUrl, ...head }, body), changedSince };
  }

  #answered({ responseNonce, error }: SubscriptionRequest): Verdict {
    const index = this.#outstanding.findIndex(({ nonce }) => nonce === responseNonce);
    // An answer to an earlier response shows that the proxy is alive, so it counts against silence; it says nothing about the last one.
    if (index >= 0) this.#outstanding.splice(0, index + 1);
    if (responseNonce !== this.sentNonce) return 'stale';
    if (error !== undefined) {
      this.lastError = error;
      return 'nack';
    }
    this.ackedNonce = responseNonce;
    this.lastError = '';
    return 'ack';
  }

  #subscribe(request: SubscriptionRequest, first: boolean): void {
    const { resourceNamesSubscribe: add, resourceNamesUnsubscribe: drop } = request;
    for (const name of drop) {
      if (name === WILDCARD) this.#wildcard = false;
      else this.#names.delete(name);
    }
    // Both at once is how a proxy subscribes to nothing yet (Istio: pilot/pkg/xds/delta.go takes what is added before what is dropped).
    const wildcard = !drop.includes(WILDCARD) && (add.includes(WILDCARD) || (first && add.length === 0));
    const names = add.filter((name) => name !== WILDCARD);
    if (this.#names.size + names.length > MAX_NAMES) throw new TooManyNames(`more than ${MAX_NAMES} names subscribed`);
    for (const name of names) this.#names.add(name);
    if (wildcard) this.#wildcard = true;
    if (first || wildcard) {
      this.#answer = { versions: new Map(Object.entries(request.initialResourceVersions)), everything: this.#wildcard };
    }
    if (names.length === 0) return;
    this.#mergeWaiting();
    for (const name of names) this.#changed.add(name);
  }

  #mergeWaiting(): void {
    if (!this.#change) return;
    for (const name of this.#change.names) this.#changed.add(name);
    this.#change = undefined;
  }

  #subscribed(change: ResourceChange): { names: string[] } | undefined {
    const names = [...change.names].filter((name) => this.#wants(name));
    return names.length > 0 ? { names } : undefined;
  }

  #wants(name: string): boolean {
    if (this.#names.has(name) || this.#related.isAlways(name)) return true;
    if (this.#store.get(name)?.aliases.some((alias) => this.#names.has(alias))) return true;
    for (const group of this.#related.of(name)) if (this.#names.has(group)) return true;
    return false;
  }

  #takeBody(): Buffer {
    const answer = this.#answer;
    this.#answer = undefined;
    if (answer) return this.#answerBody(answer);
    const change = this.#change;
    this.#change = undefined;
    if (change) return change.body;
    const names = [...this.#changed];
    this.#changed.clear();
    return Buffer.concat(names.flatMap((name) => this.#piecesOf(name)));
  }

  #answerBody({ versions, everything }: { versions: ReadonlyMap<string, string>; everything: boolean }): Buffer {
    this.#mergeWaiting();
    const asked = [...this.#changed];
    this.#changed.clear();
    // What it has or asks for and is not there; a removal that waited is said here too.
    const gone = [...new Set([...versions.keys(), ...asked])].filter((name) => !this.#resolves(name)).map(encodeRemoved);
    if (everything && versions.size === 0 && gone.length === 0) return this.#store.everything();
    const resources = everything ? this.#store.values() : this.#resourcesNamed([...asked, ...this.#names, ...this.#related.always()]);
    const fresh = [...resources].filter(({ name, version }) => versions.get(name) !== version).map(({ encoded }) => encoded);
    return Buffer.concat([...gone, ...fresh]);
  }

  #piecesOf(name: string): Buffer[] {
    const found = this.#resourcesNamed([name]);
    return found.length > 0 ? found.map(({ encoded }) => encoded) : [encodeRemoved(name)];
  }

  /** By name or alias. What an alias led to is subscribed by its name too, so that its removal is told. */
  #resourcesNamed(names: Iterable<string>): StoredResource[] {
    const found = new Map<string, StoredResource>();
    for (const name of names) {
      for (const key of this.#store.get(name) ? [name] : this.#store.withAlias(name)) {
        this.#find(key, found);
        if (!this.#wildcard) for (const member of this.#related.with(key)) this.#find(member, found);
      }
    }
    return [...found.values()];
  }

  #find(name: string, found: Map<string, StoredResource>): void {
    const resource = this.#store.get(name);
    if (resource) found.set(name, resource);
    if (!this.#wildcard) this.#names.add(name);
  }

  #resolves(name: string): boolean {
    return this.#store.get(name) !== undefined || [...this.#store.withAlias(name)].length > 0;
  }
}
