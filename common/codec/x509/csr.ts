/** Certificate signing requests (PKCS#10, RFC 2986): what a ztunnel sends and a CA reads. */
import { createPublicKey, type KeyObject, verify } from 'node:crypto';
import { keyProblem, SIGNATURE_DIGESTS, signatureAlgorithm, signWith } from './algorithms.ts';
import {
  type Asn1,
  bitString,
  bitStringBytes,
  boolean,
  children,
  contents,
  decodeDer,
  encodeDer,
  fields,
  integer,
  isTagged,
  octets,
  oid,
  oidText,
  sequence,
  setOf,
  tagged,
  taggedBytes,
} from './der.ts';
import { decodePem, encodePem } from './pem.ts';

const EXTENSION_REQUEST = '1.2.840.113549.1.9.14';
export const SUBJECT_ALT_NAME = '2.5.29.17';
/** GeneralName's uniformResourceIdentifier. */
export const URI_NAME = 6;
// A CSR with an RSA-4096 key has 1.7 kB; whoever sends more than this wants something else.
const MAX_CSR_BYTES = 16 * 1024;

/** The request cannot be read, or its sender does not hold the key. The message says which, for the sender. */
export class CsrError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CsrError';
  }
}

export interface CsrFacts {
  /** SubjectPublicKeyInfo, DER. */
  readonly publicKeySpkiDer: Buffer;
  /** What the sender would like to be called; to be checked, never to be believed. */
  readonly uris: readonly string[];
}

/** PEM of a request for one SPIFFE URI: empty subject, so the name is critical. `key` is the private key (EC or RSA). */
export function createCsr({ uri, key }: { uri: string; key: KeyObject }): string {
  const spki = createPublicKey(key).export({ type: 'spki', format: 'der' });
  const names = encodeDer(sequence(taggedBytes(URI_NAME, Buffer.from(uri))));
  const extensions = sequence(sequence(oid(SUBJECT_ALT_NAME), boolean(true), octets(names)));
  const attributes = tagged(0, sequence(oid(EXTENSION_REQUEST), setOf(extensions)));
  const info = sequence(integer(Buffer.of(0)), sequence(), decodeDer(spki), attributes);
  return encodePem('CERTIFICATE REQUEST', encodeDer(sequence(info, signatureAlgorithm(key), bitString(signWith(key, encodeDer(info))))));
}

/** Reads a request and checks that its sender signed it with the key in it. @throws {CsrError} */
export function parseCsr(pem: string): CsrFacts {
  if (pem.length > MAX_CSR_BYTES) throw new CsrError(`the CSR is larger than ${MAX_CSR_BYTES} bytes`);
  const blocks = decodePem(pem);
  const [block] = blocks;
  if (!block || blocks.length > 1 || !block.label.endsWith('CERTIFICATE REQUEST'))
    throw new CsrError('expected one PEM block CERTIFICATE REQUEST');
  try {
    return readCsr(block.der);
  } catch (error) {
    if (error instanceof CsrError) throw error;
    throw new CsrError(`the CSR cannot be read: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function readCsr(der: Buffer): CsrFacts {
  const [info, algorithm, signature] = fields(decodeDer(der), 'CSR');
  const [, , spki, attributes] = fields(info, 'CSR information');
  if (!info || !spki) throw new CsrError('the CSR has no public key');
  const publicKeySpkiDer = encodeDer(spki);
  const key = createPublicKey({ key: publicKeySpkiDer, format: 'der', type: 'spki' });
  const problem = keyProblem(spki, key);
  if (problem) throw new CsrError(problem);
  const digest = SIGNATURE_DIGESTS.get(oidText(fields(algorithm, 'signature algorithm')[0], 'signature algorithm'));
  if (!digest) throw new CsrError('the signature is neither RSA nor ECDSA with SHA-2');
  if (!verify(digest, encodeDer(info), key, bitStringBytes(signature, 'signature')))
    throw new CsrError('the signature was not made with the key in the CSR');
  return { publicKeySpkiDer, uris: requestedUris(attributes) };
}

function requestedUris(attributes: Asn1 | undefined): string[] {
  if (!isTagged(attributes, 0)) return [];
  for (const attribute of children(attributes, 'attributes')) {
    const [type, values] = fields(attribute, 'attribute');
    if (oidText(type, 'attribute type') !== EXTENSION_REQUEST) continue;
    return extensionUris(fields(children(values, 'attribute values')[0], 'extensions'));
  }
  return [];
}

/** URIs of the subject alternative name among `extensions`. @throws {DerError} */
export function extensionUris(extensions: readonly Asn1[]): string[] {
  for (const extension of extensions) {
    const parts = fields(extension, 'extension');
    if (oidText(parts[0], 'extension id') !== SUBJECT_ALT_NAME) continue;
    const names = decodeDer(contents(parts.at(-1), 'subject alternative name'));
    return fields(names, 'subject alternative name').flatMap((name) =>
      isTagged(name, URI_NAME) ? [contents(name, 'URI').toString('utf8')] : [],
    );
  }
  return [];
}
