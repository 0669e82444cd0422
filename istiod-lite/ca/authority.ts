/** Signs: what the CA's key and certificate are used for, and the chain that goes with each certificate. */
import type { Clock } from '../../common/base/clock.ts';
import { minutes } from '../../common/base/clock.ts';
import { type Issuer, issueCertificate, readIssuer } from '../../common/codec/x509/certificate.ts';
import { splitCertificates } from '../../common/codec/x509/pem.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';

/** PEM of a CA. */
export interface CaMaterial {
  readonly certificatePem: string;
  readonly keyPem: string;
  /** Certificates between the signing one and the root, the signing one included where it is not a root; empty for a self-signed CA. */
  readonly chainPem: string;
  /** One or more roots: what everybody trusts. */
  readonly rootBundlePem: string;
}

export interface SigningRequest {
  readonly publicKeySpkiDer: Uint8Array;
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly lifetimeMs: number;
}

// Clocks of nodes differ a little.
const BACKDATED_MS = minutes(2);

export interface Signed {
  /** PEM. */
  readonly leaf: string;
  /** Leaf, intermediates, and last the bundle of roots. */
  readonly chain: readonly string[];
  /** Milliseconds since 1970. */
  readonly notAfter: number;
}

export class Authority {
  readonly material: CaMaterial;
  /** Milliseconds since 1970. */
  readonly signerNotAfter: number;
  readonly rootNotAfter: number;
  readonly #issuer: Issuer;
  readonly #chain: readonly string[];
  readonly #clock: Clock;

  /** @throws Error where key, certificate or roots do not go together */
  constructor(material: CaMaterial, clock: Clock) {
    this.material = material;
    this.#clock = clock;
    this.#issuer = readIssuer(material);
    this.#chain = splitCertificates(material.chainPem);
    this.signerNotAfter = this.#issuer.notAfter;
    const roots = splitCertificates(material.rootBundlePem);
    if (roots.length === 0) throw new Error('there is no root certificate');
    this.rootNotAfter = Math.min(...roots.map((root) => readCertificate(root).notAfter));
  }

  /** @throws Error where the CA itself has expired */
  sign({ publicKeySpkiDer, uris = [], dnsNames = [], lifetimeMs }: SigningRequest): Signed {
    const now = this.#clock.now();
    if (now >= this.signerNotAfter) throw new Error(`the CA's certificate expired at ${new Date(this.signerNotAfter).toISOString()}`);
    const notAfter = Math.min(now + lifetimeMs, this.signerNotAfter);
    const leaf = issueCertificate({ issuer: this.#issuer, publicKeySpkiDer, uris, dnsNames, notBefore: now - BACKDATED_MS, notAfter });
    return { leaf, chain: [leaf, ...this.#chain, this.material.rootBundlePem], notAfter };
  }
}
