/**
 * DER values for X.509, on node-forge's asn1: builders that read like the ASN.1 they make, and readers that refuse what has another shape.
 * Values are forge's trees; bytes are Buffers at the edge (forge itself keeps one character for each byte).
 */
import forge from 'node-forge';

const { asn1 } = forge;

export type Asn1 = forge.asn1.Asn1;

/** The bytes are no DER, or not of the shape that was asked for. */
export class DerError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'DerError';
  }
}

const universal = asn1.Class.UNIVERSAL;
const context = asn1.Class.CONTEXT_SPECIFIC;

export const sequence = (...values: Asn1[]): Asn1 => asn1.create(universal, asn1.Type.SEQUENCE, true, values);
export const setOf = (...values: Asn1[]): Asn1 => asn1.create(universal, asn1.Type.SET, true, values);
export const oid = (dotted: string): Asn1 => asn1.create(universal, asn1.Type.OID, false, asn1.oidToDer(dotted).getBytes());
export const boolean = (value: boolean): Asn1 => asn1.create(universal, asn1.Type.BOOLEAN, false, value ? '\xff' : '\0');
export const nothing = (): Asn1 => asn1.create(universal, asn1.Type.NULL, false, '');
export const utf8 = (text: string): Asn1 => asn1.create(universal, asn1.Type.UTF8, false, binary(Buffer.from(text)));
export const octets = (bytes: Uint8Array): Asn1 => asn1.create(universal, asn1.Type.OCTETSTRING, false, binary(bytes));
/** Two's complement, big-endian; the caller sees to the sign bit. */
export const integer = (bytes: Uint8Array): Asn1 => asn1.create(universal, asn1.Type.INTEGER, false, binary(bytes));
export const bitString = (bytes: Uint8Array, unusedBits = 0): Asn1 =>
  asn1.create(universal, asn1.Type.BITSTRING, false, String.fromCharCode(unusedBits) + binary(bytes));
/** `[tag] EXPLICIT` or a constructed `[tag] IMPLICIT`. */
export const tagged = (tag: number, ...values: Asn1[]): Asn1 => asn1.create(context, tag, true, values);
/** A primitive `[tag] IMPLICIT`. */
export const taggedBytes = (tag: number, bytes: Uint8Array): Asn1 => asn1.create(context, tag, false, binary(bytes));

/** UTCTime until 2049, GeneralizedTime after (RFC 5280, section 4.1.2.5); whole seconds. */
export function time(ms: number): Asn1 {
  const date = new Date(ms);
  return date.getUTCFullYear() < 2050
    ? asn1.create(universal, asn1.Type.UTCTIME, false, asn1.dateToUtcTime(date))
    : asn1.create(universal, asn1.Type.GENERALIZEDTIME, false, asn1.dateToGeneralizedTime(date));
}

export const encodeDer = (value: Asn1): Buffer => Buffer.from(asn1.toDer(value).getBytes(), 'binary');

/** One value and nothing after it. @throws {DerError} also where the bytes are BER, but not the one DER form of the value */
export function decodeDer(bytes: Uint8Array): Asn1 {
  let value: Asn1;
  try {
    // The options' form is missing in the types. A bit string stays bytes: what is inside a signature is not ours to guess.
    const options = { strict: true, parseAllBytes: true, decodeBitStrings: false } as unknown as boolean;
    value = asn1.fromDer(binary(bytes), options);
  } catch (error) {
    throw new DerError('not DER', { cause: error });
  }
  // Signatures cover bytes, and parts are encoded again for checking them; so only bytes that come out the same are taken.
  if (!encodeDer(value).equals(bytes)) throw new DerError('not DER: another encoding of the same value');
  return value;
}

/** The values inside a SEQUENCE. @throws {DerError} */
export function fields(value: Asn1 | undefined, what: string): readonly Asn1[] {
  if (value?.tagClass !== universal || value.type !== asn1.Type.SEQUENCE) throw new DerError(`${what} is no sequence`);
  return children(value, what);
}

/** The values inside a SET or a constructed tag. @throws {DerError} */
export function children(value: Asn1 | undefined, what: string): readonly Asn1[] {
  if (!value || typeof value.value === 'string') throw new DerError(`${what} is no structure`);
  return value.value;
}

/** The content of a primitive value. @throws {DerError} */
export function contents(value: Asn1 | undefined, what: string): Buffer {
  if (!value || typeof value.value !== 'string') throw new DerError(`${what} is no primitive value`);
  return Buffer.from(value.value, 'binary');
}

/** @throws {DerError} where the value is another, or a bit string whose last byte is not full */
export function bitStringBytes(value: Asn1 | undefined, what: string): Buffer {
  const bytes = contents(value, what);
  if (value?.tagClass !== universal || value.type !== asn1.Type.BITSTRING || bytes[0] !== 0) throw new DerError(`${what} is no bit string`);
  return bytes.subarray(1);
}

/** @throws {DerError} */
export function oidText(value: Asn1 | undefined, what: string): string {
  const bytes = contents(value, what);
  if (value?.tagClass !== universal || value.type !== asn1.Type.OID || bytes.length === 0)
    throw new DerError(`${what} is no object identifier`);
  return asn1.derToOid(binary(bytes));
}

export const isTagged = (value: Asn1 | undefined, tag: number): value is Asn1 =>
  value !== undefined && value.tagClass === context && (value.type as number) === tag;

const binary = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('binary');
