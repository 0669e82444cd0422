/** The API server's own root and serving certificate, new with every start. The name checks of clients want IP addresses in it, so it is built here. */
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { ipBytes } from '../../../common/base/address.ts';
import { keyIdentifier, signatureAlgorithm, signWith } from '../../../common/codec/x509/algorithms.ts';
import { readIssuer, selfSignedRoot } from '../../../common/codec/x509/certificate.ts';
import {
  type Asn1,
  bitString,
  boolean,
  decodeDer,
  encodeDer,
  integer,
  octets,
  oid,
  sequence,
  setOf,
  tagged,
  taggedBytes,
  time,
  utf8,
} from '../../../common/codec/x509/der.ts';
import { encodePem } from '../../../common/codec/x509/pem.ts';

export interface ServingCertificate {
  readonly caPem: string;
  readonly keyPem: string;
  readonly certificatePem: string;
}

const YEAR_MS = 365 * 24 * 3_600_000;
// Clocks of containers may be a little behind.
const BACKDATE_MS = 300_000;
const DNS_NAME = 2;
const IP_ADDRESS = 7;

/** @param names DNS names and addresses. @param now milliseconds since 1970 */
export function createServingCertificate(names: readonly string[], now: number): ServingCertificate {
  const notBefore = now - BACKDATE_MS;
  const root = selfSignedRoot({ trustDomain: 'playground', notBefore, notAfter: now + 10 * YEAR_MS });
  const issuer = readIssuer(root);
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = key.publicKey.export({ type: 'spki', format: 'der' });
  const algorithm = signatureAlgorithm(issuer.key);
  const body = sequence(
    tagged(0, integer(Buffer.of(2))),
    integer(Buffer.concat([Buffer.of(0x40), randomBytes(15)])),
    algorithm,
    issuer.name,
    sequence(time(notBefore), time(now + 9 * YEAR_MS)),
    sequence(setOf(sequence(oid('2.5.4.3'), utf8('kube-apiserver')))),
    decodeDer(spki),
    tagged(
      3,
      sequence(
        extension('2.5.29.15', true, bitString(Buffer.of(0x80), 7)),
        extension('2.5.29.19', true, sequence()),
        extension('2.5.29.37', false, sequence(oid('1.3.6.1.5.5.7.3.1'))),
        extension('2.5.29.14', false, octets(keyIdentifier(spki))),
        extension('2.5.29.35', false, sequence(taggedBytes(0, issuer.keyIdentifier))),
        extension('2.5.29.17', false, sequence(...names.map(alternativeName))),
      ),
    ),
  );
  const der = encodeDer(sequence(body, algorithm, bitString(signWith(issuer.key, encodeDer(body)))));
  return {
    caPem: root.certificatePem,
    keyPem: key.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certificatePem: encodePem('CERTIFICATE', der),
  };
}

function alternativeName(name: string): Asn1 {
  const ip = ipBytes(name);
  return ip ? taggedBytes(IP_ADDRESS, ip) : taggedBytes(DNS_NAME, Buffer.from(name));
}

const extension = (id: string, critical: boolean, value: Asn1): Asn1 =>
  sequence(oid(id), ...(critical ? [boolean(true)] : []), octets(encodeDer(value)));
