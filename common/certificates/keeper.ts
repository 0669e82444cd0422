/**
 * Keeps a certificate for every identity that is served here: fetched once however many ask, at most eight at a time and the urgent ones
 * first, renewed around half of its life, kept while it is valid even where renewal fails (Istio's ztunnel, src/identity).
 */
import { Backoff } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { errorMessage } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import type { IdentityCertificate } from '../tls/mesh-tls.ts';
import { WallClockSchedule } from './wall-clock-schedule.ts';

/** Milliseconds since 1970. */
export interface FetchedCertificate extends IdentityCertificate {
  readonly notBefore: number;
  readonly notAfter: number;
}

/** Where certificates come from: the CA, or files. */
export interface CertificateSource {
  fetch(identity: string): Promise<FetchedCertificate>;
  /** How often to look for a newer one, where half of its life would be too late. */
  readonly lookAgainMs?: number;
}

/** A connection waits; somebody will need it soon; the one that we have is getting old. */
export type Priority = 'realtime' | 'warmup' | 'background';

export interface CertificateListener {
  /** The first one, or a newer one. */
  arrived(certificate: FetchedCertificate): void;
  /** There is none: nothing valid is left of an earlier one, or nobody needs it any more. */
  failed(identity: string, reason: string): void;
}

export type CertificateState =
  | { readonly identity: string; readonly at: 'initializing' }
  | {
      readonly identity: string;
      readonly at: 'available';
      readonly certificate: FetchedCertificate;
      readonly renewalError: string | undefined;
    }
  | { readonly identity: string; readonly at: 'unavailable'; readonly reason: string };

export interface KeeperOptions {
  readonly source: CertificateSource;
  readonly clock: Clock;
  readonly random: () => number;
  readonly log: Log;
  readonly listener: CertificateListener;
  /** What an earlier process left of this identity, still valid; it serves until the source has sent a newer one. */
  kept?(identity: string): FetchedCertificate | undefined;
}

interface Entry {
  readonly identity: string;
  certificate: FetchedCertificate | undefined;
  error: string | undefined;
  /** Waits for its turn with this priority; undefined while it is being fetched or needs nothing. */
  queued: Priority | undefined;
  queuedAt: number;
  fetching: boolean;
  readonly backoff: Backoff;
}

export const MAX_FETCHES = 8;
/** A node's pods have that many service accounts at the very most; more is somebody's mistake. */
const MAX_IDENTITIES = 10_000;
/** Renewal falls into a tenth of a certificate's life around its half. */
const RENEWAL_JITTER = 0.1;
const FIRST_BACKOFF_MS = 1000;
const LONGEST_BACKOFF_MS = 150_000;
const RANK: Readonly<Record<Priority, number>> = { realtime: 0, warmup: 1, background: 2 };

export class CertificateKeeper {
  readonly #options: KeeperOptions;
  readonly #schedule: WallClockSchedule;
  readonly #entries = new Map<string, Entry>();
  #fetches = 0;
  #stopped = false;

  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#schedule = new WallClockSchedule(options.clock);
  }

  /**
   * Somebody needs this identity. The listener hears of it: at once where there is a certificate or where the last attempt failed (the next
   * one follows on its own), later where it is being fetched.
   */
  want(identity: string, priority: Priority): void {
    const { listener } = this.#options;
    const known = this.#entries.get(identity);
    if (!known && this.#entries.size >= MAX_IDENTITIES) {
      listener.failed(identity, `this ztunnel keeps ${MAX_IDENTITIES} identities and no more`);
      return;
    }
    const entry = known ?? this.#create(identity);
    // One that was kept may have been issued under roots that are gone: a new one is fetched as if there were none.
    if (!known && entry.certificate) this.#enqueue(entry, 'warmup');
    const valid = this.#valid(entry);
    if (valid) {
      if (priority === 'realtime') listener.arrived(valid);
      return;
    }
    if (entry.error !== undefined && !entry.fetching && entry.queued === undefined) {
      if (priority === 'realtime') listener.failed(identity, entry.error);
      return;
    }
    this.#enqueue(entry, priority);
  }

  /** Nobody needs it any more: it is not renewed, and who waits for it is told. */
  forget(identity: string): void {
    const entry = this.#entries.get(identity);
    if (!entry) return;
    this.#entries.delete(identity);
    this.#schedule.cancel(identity);
    this.#options.listener.failed(identity, 'identity is no longer needed');
  }

  states(): CertificateState[] {
    return [...this.#entries.values()]
      .map((entry): CertificateState => {
        const { identity, error } = entry;
        const certificate = this.#valid(entry);
        if (certificate) return { identity, at: 'available', certificate, renewalError: error };
        return error === undefined ? { identity, at: 'initializing' } : { identity, at: 'unavailable', reason: error };
      })
      .sort((a, b) => (a.identity < b.identity ? -1 : 1));
  }

  stop(): void {
    this.#stopped = true;
    this.#schedule.stop();
  }

  #create(identity: string): Entry {
    const { random, kept } = this.#options;
    const entry: Entry = {
      identity,
      certificate: kept?.(identity),
      error: undefined,
      queued: undefined,
      queuedAt: 0,
      fetching: false,
      backoff: new Backoff({ firstMs: FIRST_BACKOFF_MS, maxMs: LONGEST_BACKOFF_MS, jitter: 0.2, random }),
    };
    this.#entries.set(identity, entry);
    return entry;
  }

  #valid({ certificate }: Entry): FetchedCertificate | undefined {
    return certificate && certificate.notAfter > this.#options.clock.now() ? certificate : undefined;
  }

  #enqueue(entry: Entry, priority: Priority): void {
    if (entry.fetching) return;
    if (entry.queued === undefined) entry.queuedAt = this.#options.clock.monotonic();
    if (entry.queued === undefined || RANK[priority] < RANK[entry.queued]) entry.queued = priority;
    this.#fetchNext();
  }

  #fetchNext(): void {
    while (!this.#stopped && this.#fetches < MAX_FETCHES) {
      const next = this.#nextQueued();
      if (!next) return;
      next.queued = undefined;
      next.fetching = true;
      this.#schedule.cancel(next.identity);
      this.#fetches++;
      void this.#fetch(next);
    }
  }

  #nextQueued(): Entry | undefined {
    let best: Entry | undefined;
    for (const entry of this.#entries.values()) {
      if (entry.queued === undefined) continue;
      const ahead = best?.queued === undefined ? -1 : RANK[entry.queued] - RANK[best.queued] || entry.queuedAt - best.queuedAt;
      if (ahead < 0) best = entry;
    }
    return best;
  }

  async #fetch(entry: Entry): Promise<void> {
    const { source, log } = this.#options;
    try {
      const certificate = await source.fetch(entry.identity);
      if (certificate.notAfter <= this.#options.clock.now()) throw new Error('the certificate has expired already');
      entry.fetching = false;
      this.#succeeded(entry, certificate);
    } catch (error) {
      entry.fetching = false;
      log.warn({ identity: entry.identity, error: errorMessage(error) }, 'no certificate');
      this.#failed(entry, errorMessage(error));
    } finally {
      this.#fetches--;
      this.#fetchNext();
    }
  }

  #succeeded(entry: Entry, certificate: FetchedCertificate): void {
    if (this.#stopped || this.#entries.get(entry.identity) !== entry) return;
    const unchanged = entry.certificate?.chain === certificate.chain && entry.certificate.roots === certificate.roots;
    entry.certificate = certificate;
    entry.error = undefined;
    entry.backoff.reset();
    const { clock, listener, source, random } = this.#options;
    // Not all at once: a mesh that was installed in one moment would ask its CA in one moment for ever.
    const { notBefore, notAfter } = certificate;
    const now = clock.now();
    const share = 0.5 + (random() - 0.5) * RENEWAL_JITTER;
    const half = notBefore + (notAfter - notBefore) * share;
    // CAs date back, by minutes: one that lives for less than that is past its half when it arrives, and half of what is left counts.
    const renewAt = Math.min(half > now ? half : now + (notAfter - now) * share, now + (source.lookAgainMs ?? Infinity));
    // Whatever clocks say, we do not ask without pause.
    this.#renew(entry, Math.max(renewAt, now + FIRST_BACKOFF_MS));
    if (!unchanged) listener.arrived(certificate);
  }

  #failed(entry: Entry, reason: string): void {
    if (this.#stopped || this.#entries.get(entry.identity) !== entry) return;
    entry.error = reason;
    const { clock, listener } = this.#options;
    const retryAt = clock.now() + entry.backoff.next();
    const valid = this.#valid(entry);
    this.#renew(entry, valid ? Math.min(retryAt, valid.notAfter) : retryAt);
    if (!valid) listener.failed(entry.identity, reason);
  }

  #renew(entry: Entry, at: number): void {
    this.#schedule.at(entry.identity, at, () => this.#enqueue(entry, 'background'));
  }
}
