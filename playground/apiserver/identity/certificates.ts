/** The API server's own certificate authority: a root, a serving certificate, and client certificates where somebody wants one. New with every start. */
import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import forge from 'node-forge';
import { ipBytes } from '../../../common/base/address.ts';

const { asn1, pem } = forge;
const { Class, Type } = asn1;
type Asn1 = forge.asn1.Asn1;

export interface KeyAndCertificate {
  readonly keyPem: string;
  readonly certificatePem: string;
}

export interface Authority {
  readonly caPem: string;
  serving(names: readonly string[]): KeyAndCertificate;
  /** A certificate whose CN is the user and whose Os are the groups. */
  client(user: string, groups: readonly string[]): KeyAndCertificate;
}

const YEAR_MS = 365 * 24 * 3_600_000;
// Clocks of containers may be a little behind.
const BACKDATE_MS = 300_000;

/** @param now milliseconds since 1970 */
export function createAuthority(now: number): Authority {
  const key = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const subject = name([['2.5.4.3', 'playground-ca']]);
  const keyId = keyIdentifier(key.publicKey);
  const root = certificate({
    subject,
    issuer: subject,
    publicKey: key.publicKey,
    signer: key.privateKey,
    now,
    extensions: [
      extension('2.5.29.19', true, sequence([boolean(true)])),
      extension('2.5.29.15', true, bits('\x01\x06')),
      extension('2.5.29.14', false, octets(keyId)),
    ],
  });
  const issue = (who: Asn1, usage: string, more: readonly Asn1[]): KeyAndCertificate => {
    const leaf = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const certificatePem = certificate({
      subject: who,
      issuer: subject,
      publicKey: leaf.publicKey,
      signer: key.privateKey,
      now,
      extensions: [
        extension('2.5.29.19', true, sequence([])),
        extension('2.5.29.15', true, bits('\x07\x80')),
        extension('2.5.29.37', false, sequence([oid(usage)])),
        extension('2.5.29.35', false, sequence([asn1.create(Class.CONTEXT_SPECIFIC, 0, false, keyId)])),
        ...more,
      ],
    });
    return { keyPem: leaf.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(), certificatePem };
  };
  return {
    caPem: root,
    serving: (names) =>
      issue(name([['2.5.4.3', 'kube-apiserver']]), '1.3.6.1.5.5.7.3.1', [
        extension('2.5.29.17', false, sequence(names.map(alternativeName))),
      ]),
    client: (user, groups) =>
      issue(name([...groups.map((group): [string, string] => ['2.5.4.10', group]), ['2.5.4.3', user]]), '1.3.6.1.5.5.7.3.2', []),
  };
}

interface CertificateFields {
  readonly subject: Asn1;
  readonly issuer: Asn1;
  readonly publicKey: KeyObject;
  readonly signer: KeyObject;
  readonly now: number;
  readonly extensions: readonly Asn1[];
}

function certificate({ subject, issuer, publicKey, signer, now, extensions }: CertificateFields): string {
  const algorithm = sequence([oid('1.2.840.10045.4.3.2')]);
  const serial = randomBytes(16);
  // Positive and of full length.
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const body = sequence([
    asn1.create(Class.CONTEXT_SPECIFIC, 0, true, [integer('\x02')]),
    integer(serial.toString('binary')),
    algorithm,
    issuer,
    sequence([time(now - BACKDATE_MS), time(now + 10 * YEAR_MS)]),
    subject,
    asn1.fromDer(publicKey.export({ type: 'spki', format: 'der' }).toString('binary')),
    asn1.create(Class.CONTEXT_SPECIFIC, 3, true, [sequence([...extensions])]),
  ]);
  const signature = sign(
    'sha256',
    Buffer.from(asn1.toDer(body).getBytes(), 'binary'),
    createPrivateKey(signer.export({ type: 'pkcs8', format: 'pem' })),
  );
  const whole = sequence([body, algorithm, bits(`\0${signature.toString('binary')}`)]);
  return pem.encode({ type: 'CERTIFICATE', body: asn1.toDer(whole).getBytes() }).replaceAll('\r', '');
}

function alternativeName(text: string): Asn1 {
  const ip = ipBytes(text);
  if (ip) return asn1.create(Class.CONTEXT_SPECIFIC, 7, false, Buffer.from(ip).toString('binary'));
  return asn1.create(Class.CONTEXT_SPECIFIC, 2, false, text);
}

const keyIdentifier = (key: KeyObject): string =>
  createHash('sha1')
    .update(key.export({ type: 'spki', format: 'der' }).subarray(-65))
    .digest()
    .toString('binary');

const name = (parts: readonly (readonly [string, string])[]): Asn1 =>
  sequence(
    parts.map(([type, text]) =>
      asn1.create(Class.UNIVERSAL, Type.SET, true, [sequence([oid(type), asn1.create(Class.UNIVERSAL, Type.UTF8, false, text)])]),
    ),
  );
const sequence = (parts: Asn1[]): Asn1 => asn1.create(Class.UNIVERSAL, Type.SEQUENCE, true, parts);
const oid = (text: string): Asn1 => asn1.create(Class.UNIVERSAL, Type.OID, false, asn1.oidToDer(text).getBytes());
const integer = (bytes: string): Asn1 => asn1.create(Class.UNIVERSAL, Type.INTEGER, false, bytes);
const octets = (bytes: string): Asn1 => asn1.create(Class.UNIVERSAL, Type.OCTETSTRING, false, bytes);
const bits = (bytes: string): Asn1 => asn1.create(Class.UNIVERSAL, Type.BITSTRING, false, bytes);
const boolean = (value: boolean): Asn1 => asn1.create(Class.UNIVERSAL, Type.BOOLEAN, false, value ? '\xff' : '\0');
const time = (ms: number): Asn1 => asn1.create(Class.UNIVERSAL, Type.UTCTIME, false, asn1.dateToUtcTime(new Date(ms)) as unknown as string);
const extension = (id: string, critical: boolean, value: Asn1): Asn1 =>
  sequence([oid(id), ...(critical ? [boolean(true)] : []), octets(asn1.toDer(value).getBytes())]);
