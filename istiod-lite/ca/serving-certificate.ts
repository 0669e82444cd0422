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

/** What a server shows, and against what it verifies clients. */
export interface ServerCertificate {
  /** What grpc-js asks. */
  readonly provider: Provider;
  /** At once: something has changed. */
  renew(): void;
  close(): void;
}

interface Current {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
  readonly roots: Buffer;
}

/** Those in grpc-js that want to know the certificate and the roots. */
export class CertificateListeners {
  readonly #identity = new Set<Listener>();
  readonly #ca = new Set<RootsListener>();
  #current: Current;
  readonly provider: Provider = {
    addIdentityCertificateListener: (listener) => {
      this.#identity.add(listener);
      // Not at once: grpc-js passes the answer on to servers that it registers after this call.
      queueMicrotask(() => this.#identity.has(listener) && listener(this.#current));
    },
    removeIdentityCertificateListener: (listener) => void this.#identity.delete(listener),
    addCaCertificateListener: (listener) => {
      this.#ca.add(listener);
      queueMicrotask(() => this.#ca.has(listener) && listener({ caCertificate: this.#current.roots }));
    },
    removeCaCertificateListener: (listener) => void this.#ca.delete(listener),
  };

  constructor(current: Current) {
    this.#current = current;
  }

  update(current: Current): void {
    const before = this.#current;
    this.#current = current;
    if (!before.roots.equals(current.roots)) for (const listener of this.#ca) listener({ caCertificate: current.roots });
    if (!before.certificate.equals(current.certificate)) for (const listener of this.#identity) listener(current);
  }
}

export interface ServingCertificateOptions {
  authority(): Authority;
  readonly dnsNames: readonly string[];
  readonly lifetimeMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

// Short enough to notice a clock that jumped, or a machine that slept.
const CHECK_EVERY_MS = minutes(1);

export class ServingCertificate implements ServerCertificate {
  readonly #options: ServingCertificateOptions;
  readonly #listeners: CertificateListeners;
  #renewAt = 0;
  #timer: Timer | undefined;

  /** @throws Error where the CA cannot sign */
  constructor(options: ServingCertificateOptions) {
    this.#options = options;
    this.#listeners = new CertificateListeners(this.#issue());
    this.#arm();
  }

  get provider(): Provider {
    return this.#listeners.provider;
  }

  /** At once: the root has changed. */
  renew(): void {
    this.#listeners.update(this.#issue());
  }

  close(): void {
    this.#timer?.cancel();
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

  #issue(): Current {
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
      roots: Buffer.from(authority().material.rootBundlePem),
    };
  }
}
