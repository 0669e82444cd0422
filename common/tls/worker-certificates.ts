/**
 * A data worker's certificates: asks the supervisor for an identity once, however many connections wait for it, and keeps one secure
 * context for each until the supervisor sends a newer one or takes it back.
 */
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls';
import { type Clock, sleep } from '../base/clock.ts';
import { errorMessage, ProxyError } from '../base/errors.ts';
import { type IdentityCertificate, type MeshTlsOptions, meshContextOptions } from './mesh-tls.ts';

export interface WorkerCertificatesOptions {
  readonly tls: MeshTlsOptions;
  readonly clock: Clock;
  /** Asks the supervisor; the answer comes through `arrived` or `failed`. */
  want(identity: string): void;
}

export interface ReadyCertificate {
  readonly certificate: IdentityCertificate;
  readonly options: SecureContextOptions;
  readonly context: SecureContext;
}

type Changed = (ready: ReadyCertificate | undefined) => void;

type Entry =
  | { at: 'waiting'; settled: Promise<ReadyCertificate>; resolve(ready: ReadyCertificate): void; reject(error: ProxyError): void }
  | { at: 'ready'; ready: ReadyCertificate };

// The supervisor answers sooner, with its reason; this is for a supervisor that does not.
const WAIT_MS = 10_000;

export class WorkerCertificates {
  readonly #options: WorkerCertificatesOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #watchers = new Map<string, Set<Changed>>();

  constructor(options: WorkerCertificatesOptions) {
    this.#options = options;
  }

  /** @throws {ProxyError} IDENTITY_UNAVAILABLE with the CA's reason, or after ten seconds; the signal's reason */
  async get(identity: string, signal?: AbortSignal): Promise<ReadyCertificate> {
    const known = this.#entries.get(identity);
    if (known?.at === 'ready') return known.ready;
    const { settled } = known ?? this.#ask(identity);
    const waiting = new AbortController();
    const tooLong = sleep(this.#options.clock, WAIT_MS, signal ? AbortSignal.any([signal, waiting.signal]) : waiting.signal).then(() => {
      throw new ProxyError('IDENTITY_UNAVAILABLE', `no certificate for ${identity} within ${WAIT_MS / 1000} s`);
    });
    try {
      return await Promise.race([settled, tooLong]);
    } finally {
      tooLong.catch(() => undefined);
      waiting.abort();
    }
  }

  /** Calls `changed` with each later certificate of the identity, and with undefined when it is taken back. @returns ends it */
  watch(identity: string, changed: Changed): () => void {
    const watchers = this.#watchers.get(identity) ?? new Set();
    this.#watchers.set(identity, watchers);
    watchers.add(changed);
    return () => {
      watchers.delete(changed);
      if (watchers.size === 0) this.#watchers.delete(identity);
    };
  }

  arrived(certificate: IdentityCertificate): void {
    const before = this.#entries.get(certificate.identity);
    let ready: ReadyCertificate;
    try {
      const options = meshContextOptions(certificate, this.#options.tls);
      ready = { certificate, options, context: createSecureContext(options) };
    } catch (error) {
      this.failed(certificate.identity, `the certificate cannot be used: ${errorMessage(error)}`);
      return;
    }
    this.#entries.set(certificate.identity, { at: 'ready', ready });
    if (before?.at === 'waiting') before.resolve(ready);
    this.#tell(certificate.identity, ready);
  }

  /** Nothing valid is left of this identity: who waits is told, who comes later asks again. */
  failed(identity: string, reason: string): void {
    const before = this.#entries.get(identity);
    this.#entries.delete(identity);
    if (before?.at === 'waiting') before.reject(new ProxyError('IDENTITY_UNAVAILABLE', `no certificate for ${identity}: ${reason}`));
    this.#tell(identity, undefined);
  }

  #tell(identity: string, ready: ReadyCertificate | undefined): void {
    for (const changed of [...(this.#watchers.get(identity) ?? [])]) changed(ready);
  }

  #ask(identity: string): Entry & { at: 'waiting' } {
    const { promise: settled, resolve, reject } = Promise.withResolvers<ReadyCertificate>();
    // Whoever waits has a handler of its own; nobody may be left when the answer comes.
    settled.catch(() => undefined);
    const entry: Entry & { at: 'waiting' } = { at: 'waiting', settled, resolve, reject };
    this.#entries.set(identity, entry);
    this.#options.want(identity);
    return entry;
  }
}
