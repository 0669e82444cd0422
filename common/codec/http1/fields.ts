/** Field lines to flat lists, and the fields that speak about one connection only (RFC 9110 §7.6.1). */
import { bad, Http1Error } from './error.ts';
import { isSpace, tokenClass, UPPER_CASE, valueClass } from './syntax.ts';

const CR = 13;
const LF = 10;
const COLON = 58;

/**
 * Reads the lines of `text` from `at` to its end, each closed by CRLF.
 * @returns name, value, name, value, …; names in lower case, values without spaces around them
 * @throws {Http1Error} 400 for whatever is no field line (obsolete folding, spaces before the colon, bare CR or LF, NUL, …), 431 for too many
 */
export function parseFields(text: string, at: number, maxCount: number): string[] {
  const fields: string[] = [];
  const end = text.length;
  while (at < end) {
    let colon = at;
    let classes = 0;
    for (; colon < end; colon++) {
      const kind = tokenClass[text.charCodeAt(colon)] ?? 0;
      if (kind === 0) break;
      classes |= kind;
    }
    if (colon === at || text.charCodeAt(colon) !== COLON) throw nameError(text, at, colon);
    let from = colon + 1;
    while (isSpace(text.charCodeAt(from))) from++;
    let line = from;
    while (valueClass[text.charCodeAt(line)] === 1) line++;
    if (text.charCodeAt(line) !== CR || text.charCodeAt(line + 1) !== LF) throw bad('a forbidden character in a field value');
    let to = line;
    while (to > from && isSpace(text.charCodeAt(to - 1))) to--;
    const name = text.slice(at, colon);
    fields.push((classes & UPPER_CASE) !== 0 ? name.toLowerCase() : name, text.slice(from, to));
    if (fields.length > maxCount * 2) throw new Http1Error(431, `more than ${maxCount} fields`);
    at = line + 2;
  }
  return fields;
}

function nameError(text: string, at: number, colon: number): Http1Error {
  if (isSpace(text.charCodeAt(at))) return bad('a field that is folded over lines');
  if (colon === at) return bad('a field without a name');
  return bad(isSpace(text.charCodeAt(colon)) ? 'a space in or after a field name' : 'a forbidden character in a field name');
}

/** Fields that are about one connection, whether or not Connection names them: never passed on. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
  'te',
  'http2-settings',
]);

/** Fields that the framing or the routing of a message depends on: no trailer, and nothing that Connection may name. */
const FRAMING: ReadonlySet<string> = new Set(['host', 'content-length', 'transfer-encoding']);

export const isHopByHop = (name: string): boolean => HOP_BY_HOP.has(name);

export const isFramingField = (name: string): boolean => FRAMING.has(name);

/** Trailers without the fields that may be none (RFC 9110 §6.5.1); undefined where nothing is left. */
export function cleanTrailers(fields: string[]): string[] | undefined {
  const kept: string[] = [];
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    if (!HOP_BY_HOP.has(name) && !FRAMING.has(name) && name !== 'trailer') kept.push(name, fields[i + 1] ?? '');
  }
  return kept.length > 0 ? kept : undefined;
}

/** What the Connection fields of a message say. */
export interface ConnectionOptions {
  readonly close: boolean;
  readonly keepAlive: boolean;
  readonly upgrade: boolean;
  /** Other fields that are for this connection only. */
  readonly named: readonly string[] | undefined;
}

const NO_OPTIONS: ConnectionOptions = { close: false, keepAlive: false, upgrade: false, named: undefined };
const KEEP_ALIVE: ConnectionOptions = { ...NO_OPTIONS, keepAlive: true };
const CLOSE: ConnectionOptions = { ...NO_OPTIONS, close: true };

/** @throws {Http1Error} 400 where it names a field that framing or routing depends on, or no token */
export function parseConnection(value: string | undefined): ConnectionOptions {
  if (value === undefined) return NO_OPTIONS;
  if (value === 'keep-alive' || value === 'Keep-Alive') return KEEP_ALIVE;
  if (value === 'close') return CLOSE;
  let [close, keepAlive, upgrade] = [false, false, false];
  const named: string[] = [];
  for (const piece of value.split(',')) {
    const option = piece.trim().toLowerCase();
    if (option === 'close') close = true;
    else if (option === 'keep-alive') keepAlive = true;
    else if (option === 'upgrade') upgrade = true;
    else if (FRAMING.has(option)) throw bad(`Connection names ${option}`);
    else if (option !== '' && !HOP_BY_HOP.has(option)) named.push(option);
  }
  return { close, keepAlive, upgrade, named: named.length > 0 ? named : undefined };
}
