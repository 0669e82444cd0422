/** The keys and signatures that mesh certificates use: ECDSA on P-256 and P-384, RSA from 2048 bits (what Istio's peers make and accept). */
import { createHash, type KeyObject, sign } from 'node:crypto';
import { type Asn1, bitStringBytes, decodeDer, fields, nothing, oid, oidText, sequence } from './der.ts';

const ECDSA_SHA256 = '1.2.840.10045.4.3.2';
const ECDSA_SHA384 = '1.2.840.10045.4.3.3';
const RSA_SHA256 = '1.2.840.113549.1.1.11';

/** Signature algorithm to digest; what is not here is refused. */
export const SIGNATURE_DIGESTS: ReadonlyMap<string, string> = new Map([
  [ECDSA_SHA256, 'sha256'],
  [ECDSA_SHA384, 'sha384'],
  ['1.2.840.10045.4.3.4', 'sha512'],
  [RSA_SHA256, 'sha256'],
  ['1.2.840.113549.1.1.12', 'sha384'],
  ['1.2.840.113549.1.1.13', 'sha512'],
]);

const EC_KEY = '1.2.840.10045.2.1';
const RSA_KEY = '1.2.840.113549.1.1.1';
const CURVES: ReadonlySet<string> = new Set(['1.2.840.10045.3.1.7', '1.3.132.0.34']);

/** Why a public key may not be certified; undefined where it may. `spki` is its SubjectPublicKeyInfo. */
export function keyProblem(spki: Asn1, key: KeyObject): string | undefined {
  const [algorithm, parameters] = fields(fields(spki, 'public key')[0], 'key algorithm');
  switch (oidText(algorithm, 'key algorithm')) {
    case EC_KEY:
      // By name only: parameters spelled out may describe a curve of the sender's making.
      return CURVES.has(oidText(parameters, 'curve')) ? undefined : 'the curve is neither P-256 nor P-384';
    case RSA_KEY: {
      const bits = key.asymmetricKeyDetails?.modulusLength ?? 0;
      return bits >= 2048 && bits <= 8192 ? undefined : `RSA keys have 2048 to 8192 bits, this one has ${bits}`;
    }
    default:
      return 'the key is neither EC nor RSA';
  }
}

/** AlgorithmIdentifier of what `signWith` makes with this key. @throws Error for a key that is neither EC nor RSA */
export function signatureAlgorithm(key: KeyObject): Asn1 {
  if (key.asymmetricKeyType === 'rsa') return sequence(oid(RSA_SHA256), nothing());
  if (key.asymmetricKeyType === 'ec') return sequence(oid(isP384(key) ? ECDSA_SHA384 : ECDSA_SHA256));
  throw new Error(`cannot sign with a key of type ${key.asymmetricKeyType}`);
}

export const signWith = (key: KeyObject, content: Uint8Array): Buffer => sign(isP384(key) ? 'sha384' : 'sha256', content, key);

/** SHA-1 of the key's bits: the customary subject key identifier (RFC 5280, section 4.2.1.2, method 1). Names, does not secure. */
export function keyIdentifier(spkiDer: Uint8Array): Buffer {
  const bits = bitStringBytes(fields(decodeDer(spkiDer), 'public key')[1], 'public key');
  return createHash('sha1').update(bits).digest();
}

const isP384 = (key: KeyObject): boolean => key.asymmetricKeyDetails?.namedCurve === 'secp384r1';
