/**
 * Revocation lists (RFC 5280, section 5), as far as a proxy needs them: which serial numbers an issuer has taken back. Certificates are named
 * by the bytes of their issuer's name and their serial number. A reader of its own, since every data worker has it and forge is large.
 */
import { decodePem } from './pem.ts';

/** Names what is wrong with a list or a certificate. */
export class CrlError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'CrlError';
  }
}

/** Serial numbers in lower-case hex by the issuer's name, the DER of it in hex. Plain data, made for postMessage. */
export type RevokedSerials = ReadonlyMap<string, ReadonlySet<string>>;

interface Value {
  readonly tag: number;
  readonly start: number;
  readonly content: number;
  readonly end: number;
}

const SEQUENCE = 0x30;
const INTEGER = 0x02;
const UTC_TIME = 0x17;
const GENERALIZED_TIME = 0x18;
const EXPLICIT_0 = 0xa0;

/**
 * Any number of lists: PEM blocks, or one list in DER. Empty bytes revoke nothing. Signatures are not looked at: whoever may write the file
 * may write the roots beside it; nor is the time of the next update, since an old list is better than none.
 * @throws {CrlError}
 */
export function parseCrls(bytes: Buffer): RevokedSerials {
  const found = new Map<string, Set<string>>();
  const text = bytes.toString('latin1');
  if (text.trim() === '') return found;
  const lists = text.includes('-----BEGIN') ? decodePem(text).flatMap(({ label, der }) => (label === 'X509 CRL' ? [der] : [])) : [bytes];
  if (lists.length === 0) throw new CrlError('there is no X509 CRL block in it');
  for (const list of lists) {
    const { issuer, serials } = parseList(list);
    const known = found.get(issuer) ?? new Set();
    for (const serial of serials) known.add(serial);
    found.set(issuer, known);
  }
  return found;
}

/** How a certificate is named in lists. @throws {CrlError} where the bytes are no certificate */
export function certificateKey(der: Buffer): { readonly issuer: string; readonly serial: string } {
  const [tbs] = inside(der, valueAt(der, 0, SEQUENCE));
  const fields = inside(der, expect(tbs, SEQUENCE, 'certificate'));
  const rest = fields[0]?.tag === EXPLICIT_0 ? fields.slice(1) : fields;
  return { issuer: hexOf(der, expect(rest[2], SEQUENCE, 'issuer')), serial: serialOf(der, expect(rest[0], INTEGER, 'serial number')) };
}

function parseList(der: Buffer): { issuer: string; serials: string[] } {
  const [tbs] = inside(der, valueAt(der, 0, SEQUENCE));
  const fields = inside(der, expect(tbs, SEQUENCE, 'revocation list'));
  const rest = fields[0]?.tag === INTEGER ? fields.slice(1) : fields;
  const issuer = hexOf(der, expect(rest[1], SEQUENCE, 'issuer'));
  const entries = rest.slice(2).find(({ tag }) => tag !== UTC_TIME && tag !== GENERALIZED_TIME);
  const revoked = entries?.tag === SEQUENCE ? inside(der, entries) : [];
  return { issuer, serials: revoked.map((entry) => serialOf(der, expect(inside(der, entry)[0], INTEGER, 'serial number'))) };
}

const hexOf = (der: Buffer, { start, end }: Value): string => der.toString('hex', start, end);

// A leading zero byte keeps a number positive; the same number may come without it.
const serialOf = (der: Buffer, { content, end }: Value): string => der.toString('hex', content, end).replace(/^(00)+(?=..)/, '');

function expect(value: Value | undefined, tag: number, what: string): Value {
  if (value?.tag !== tag) throw new CrlError(`no ${what} where one has to be`);
  return value;
}

function inside(der: Buffer, { content, end }: Value): Value[] {
  const values: Value[] = [];
  for (let at = content; at < end; ) {
    const value = valueAt(der, at);
    if (value.end > end) throw new CrlError('a value reaches beyond the one that it is in');
    values.push(value);
    at = value.end;
  }
  return values;
}

/** One value; lengths of up to four bytes (X.690, section 8.1.3). */
function valueAt(der: Buffer, start: number, tag?: number): Value {
  const first = der[start + 1];
  if (first === undefined) throw new CrlError('cut off');
  let content = start + 2;
  let length = first;
  if (first >= 0x80) {
    const bytes = first & 0x7f;
    if (bytes === 0 || bytes > 4 || content + bytes > der.length) throw new CrlError('a length that is none');
    length = der.readUIntBE(content, bytes);
    content += bytes;
  }
  const value = { tag: der[start] ?? 0, start, content, end: content + length };
  if (value.end > der.length) throw new CrlError('cut off');
  return tag === undefined ? value : expect(value, tag, 'sequence');
}
