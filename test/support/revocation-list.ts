/** Revocation lists for tests: PEM of a list of the certificates' issuer that names them. */
import { X509Certificate } from 'node:crypto';
import { bitString, decodeDer, encodeDer, fields, integer, oid, sequence, time } from '../../common/codec/x509/der.ts';
import { encodePem } from '../../common/codec/x509/pem.ts';

/** @param issued by one issuer, PEM, at least one */
export function revocationList(...issued: readonly string[]): string {
  const now = Date.now();
  const certificates = issued.map((pem) => fields(fields(decodeDer(new X509Certificate(pem).raw), 'certificate')[0], 'content'));
  const [first] = certificates;
  const [issuer] = first?.slice(3) ?? [];
  if (!issuer) throw new Error('no certificate to revoke');
  const ecdsa = sequence(oid('1.2.840.10045.4.3.2'));
  const entries = certificates.flatMap(([, serial]) => (serial ? [sequence(serial, time(now))] : []));
  const tbs = sequence(integer(Uint8Array.of(1)), ecdsa, issuer, time(now), time(now + 3_600_000), sequence(...entries));
  return encodePem('X509 CRL', encodeDer(sequence(tbs, ecdsa, bitString(new Uint8Array(8)))));
}
