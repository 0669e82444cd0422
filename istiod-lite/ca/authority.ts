/** Signs: what the CA's key and certificate are used for, and the chain that goes with each certificate. */
import { X509Certificate } from 'node:crypto';
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
  /** Each as PEM by itself. */
  readonly roots: readonly string[];
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
    this.roots = splitCertificates(material.rootBundlePem);
    if (this.roots.length === 0) throw new Error('there is no root certificate');
    checkPath(material.certificatePem, this.#chain, this.roots);
    this.rootNotAfter = Math.min(...this.roots.map((root) => readCertificate(root).notAfter));
  }

  /** For people. */
  describe(): { signer: CertificateSummary; roots: readonly CertificateSummary[] } {
    return { signer: summary(this.material.certificatePem), roots: this.roots.map(summary) };
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

export interface CertificateSummary {
  readonly subject: string;
  readonly serial: string;
  readonly expires: string;
}

function summary(pem: string): CertificateSummary {
  const { subject, serial, notAfter } = readCertificate(pem);
  return { subject, serial, expires: new Date(notAfter).toISOString() };
}

/** What nobody could verify must not be handed out. @throws Error where no root is reached from the signing certificate */
function checkPath(signerPem: string, chain: readonly string[], roots: readonly string[]): void {
  const trusted = roots.map((pem) => new X509Certificate(pem));
  const between = chain.map((pem) => new X509Certificate(pem));
  let at = new X509Certificate(signerPem);
  for (let step = 0; step <= between.length; step++) {
    if (trusted.some((root) => at.fingerprint256 === root.fingerprint256 || isIssuedBy(at, root))) return;
    const issuer = between.find((candidate) => candidate.fingerprint256 !== at.fingerprint256 && isIssuedBy(at, candidate));
    if (!issuer) break;
    at = issuer;
  }
  throw new Error('the signing certificate does not lead to any of the roots');
}

// A root that was signed again with the same key vouches as well as the one before.
const isIssuedBy = (certificate: X509Certificate, issuer: X509Certificate): boolean =>
  certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
