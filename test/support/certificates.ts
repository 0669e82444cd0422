/** Certificates for tests: a root of the test's own, and identities that it signs. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hours } from '../../common/base/clock.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../../common/codec/x509/certificate.ts';
import type { IdentityCertificate } from '../../common/tls/mesh-tls.ts';

export interface TestAuthority {
  readonly root: string;
  /** A certificate for URI names; the first one is the identity. */
  issue(uris: string | readonly string[], life?: { notBefore?: number; notAfter?: number }): IdentityCertificate;
  /** One for servers, by DNS names. */
  issueServer(
    dnsName: string,
    more?: { readonly dnsNames?: readonly string[]; readonly uris?: readonly string[] },
  ): { key: string; chain: string };
  /** Signs somebody else's public key. */
  sign(publicKeySpkiDer: Uint8Array, uris: readonly string[], life?: { notBefore?: number; notAfter?: number }): string;
}

export function testAuthority(trustDomain = 'cluster.local'): TestAuthority {
  const now = Date.now();
  const made = selfSignedRoot({ trustDomain, notBefore: now - hours(1), notAfter: now + hours(48) });
  const issuer = readIssuer(made);
  const sign = (
    publicKeySpkiDer: Uint8Array,
    names: { uris?: readonly string[]; dnsNames?: readonly string[] },
    life: { notBefore?: number; notAfter?: number } = {},
  ): string =>
    issueCertificate({
      issuer,
      publicKeySpkiDer,
      ...names,
      notBefore: life.notBefore ?? now - hours(1),
      notAfter: life.notAfter ?? now + hours(24),
    });
  const keyPair = (): { key: string; spki: Buffer } => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    return {
      key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      spki: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
    };
  };
  return {
    root: made.certificatePem,
    issue(named, life) {
      const uris = typeof named === 'string' ? [named] : named;
      const { key, spki } = keyPair();
      return { identity: uris[0] ?? '', key, chain: sign(spki, { uris }, life), roots: made.certificatePem };
    },
    issueServer(dnsName, { dnsNames = [], uris = [] } = {}) {
      const { key, spki } = keyPair();
      return { key, chain: sign(spki, { dnsNames: [dnsName, ...dnsNames], uris }) };
    },
    sign: (spki, uris, life) => sign(spki, { uris }, life),
  };
}

/** Writes what CERT_DIR expects. */
export function writeCertificate(folder: string, { key, chain, roots }: IdentityCertificate): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'key.pem'), key, { mode: 0o600 });
  writeFileSync(join(folder, 'cert-chain.pem'), chain);
  writeFileSync(join(folder, 'root-cert.pem'), roots);
}
