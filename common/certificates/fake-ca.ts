/**
 * An authority whose key everybody can make: FAKE_CA, for tests and benches without a control plane. All proxies that use it trust each other,
 * and anybody else can join them, so it proves nothing.
 */
import { createECDH, createHash, createPrivateKey, createPublicKey, generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';
import { type Clock, hours } from '../base/clock.ts';
import { issueCertificate, readIssuer, selfSignedRoot } from '../codec/x509/certificate.ts';
import type { CertificateSource } from './keeper.ts';
import { assemble } from './sources.ts';

const newKeyPair = promisify(generateKeyPair);
const ROOT_HOURS = 24 * 365;

/** @param lifeMs of its certificates, in milliseconds */
export function fakeCaSource(clock: Clock, lifeMs: number): CertificateSource {
  const now = clock.now();
  // The root is another certificate in each process, with one name and one key: whoever trusts one of them trusts what any of them signed.
  const root = selfSignedRoot({
    trustDomain: 'fake-ca.warren.dev',
    notBefore: now - hours(1),
    notAfter: now + hours(ROOT_HOURS),
    key: createPrivateKey({ format: 'jwk', key: knownKey() }),
  });
  const issuer = readIssuer(root);
  return {
    async fetch(identity) {
      const { privateKey } = await newKeyPair('ec', { namedCurve: 'P-256' });
      const issuedAt = clock.now();
      const leaf = issueCertificate({
        issuer,
        publicKeySpkiDer: createPublicKey(privateKey).export({ type: 'spki', format: 'der' }),
        uris: [identity],
        notBefore: issuedAt - hours(1),
        notAfter: issuedAt + lifeMs,
      });
      const key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
      return assemble(key, [leaf, root.certificatePem], identity);
    },
  };
}

function knownKey() {
  const curve = createECDH('prime256v1');
  curve.setPrivateKey(createHash('sha256').update('the key of the authority that proves nothing').digest());
  const [point, scalar] = [curve.getPublicKey(), curve.getPrivateKey()];
  const text = (bytes: Buffer): string => bytes.toString('base64url');
  return { kty: 'EC', crv: 'P-256', d: text(scalar), x: text(point.subarray(1, 33)), y: text(point.subarray(33)) };
}
