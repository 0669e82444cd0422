/** istiod's own certificate: issued by its own CA, renewed at half of its life and when the root changes, without a restart. */
import { generateKeyPairSync } from 'node:crypto';
import type { experimental } from '@grpc/grpc-js';
import { type Clock, minutes, type Timer } from '../../common/base/clock.ts';
import { errorMessage } from '../../common/base/errors.ts';
import type { Log } from '../../common/base/log.ts';
import type { Authority } from './authority.ts';

type Provider = Parameters<typeof experimental.createCertificateProviderServerCredentials>[0];
type Listener = Parameters<Provider['addIdentityCertificateListener']>[0];
type RootsListener = Parameters<Provider['addCaCertificateListener']>[0];

export interface ServingCertificateOptions {
  authority(): Authority;
  readonly dnsNames: readonly string[];
  readonly lifetimeMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

// Short enough to notice a clock that jumped, or a machine that slept.
const CHECK_EVERY_MS = minutes(1);

export class ServingCertificate {
  readonly #options: ServingCertificateOptions;
  readonly #listeners = new Set<Listener>();
  readonly #rootsListeners = new Set<RootsListener>();
  #current: { certificate: Buffer; privateKey: Buffer };
  #renewAt = 0;
  #timer: Timer | undefined;
  /** What grpc-js asks for the certificate, and for the roots against which it verifies those of clients. */
  readonly provider: Provider = {
    addIdentityCertificateListener: (listener) => {
      this.#listeners.add(listener);
      // Not at once: grpc-js passes the answer on to servers that it registers after this call.
      queueMicrotask(() => this.#listeners.has(listener) && listener(this.#current));
    },
    removeIdentityCertificateListener: (listener) => void this.#listeners.delete(listener),
    addCaCertificateListener: (listener) => {
      this.#rootsListeners.add(listener);
      queueMicrotask(() => this.#rootsListeners.has(listener) && listener(this.#roots()));
    },
    removeCaCertificateListener: (listener) => void this.#rootsListeners.delete(listener),
  };

  /** @throws Error where the CA cannot sign */
  constructor(options: ServingCertificateOptions) {
    this.#options = options;
    this.#current = this.#issue();
    this.#arm();
  }

  /** At once: the root has changed. */
  renew(): void {
    this.#current = this.#issue();
    for (const listener of this.#rootsListeners) listener(this.#roots());
    for (const listener of this.#listeners) listener(this.#current);
  }

  close(): void {
    this.#timer?.cancel();
  }

  #roots(): { caCertificate: Buffer } {
    return { caCertificate: Buffer.from(this.#options.authority().material.rootBundlePem) };
  }

  #arm(): void {
    this.#timer = this.#options.clock.after(CHECK_EVERY_MS, () => {
      try {
        if (this.#options.clock.now() >= this.#renewAt) this.renew();
      } catch (error) {
        this.#options.log.error({ error: errorMessage(error) }, 'the serving certificate could not be renewed, trying again');
      }
      this.#arm();
    });
  }

  #issue(): { certificate: Buffer; privateKey: Buffer } {
    const { authority, dnsNames, lifetimeMs, clock, log } = this.#options;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const publicKeySpkiDer = publicKey.export({ type: 'spki', format: 'der' });
    const { chain, notAfter } = authority().sign({ publicKeySpkiDer, dnsNames, lifetimeMs });
    const now = clock.now();
    this.#renewAt = now + (notAfter - now) / 2;
    log.info({ dnsNames, expires: new Date(notAfter).toISOString() }, 'serving certificate issued');
    // Without the roots: whoever does not have them already must not trust them because we say so.
    return {
      certificate: Buffer.from(chain.slice(0, -1).join('')),
      privateKey: Buffer.from(privateKey.export({ type: 'pkcs8', format: 'pem' })),
    };
  }
}
