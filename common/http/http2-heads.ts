/**
 * Heads of HTTP/2 to neutral ones and back (RFC 9113 §8.2 and §8.3). What HTTP/1.1 would understand in another way is malformed here: a
 * request that is sound in one version must not become two in the other.
 */
import { cleanTrailers, isFramingField, isHopByHop } from '../codec/http1/fields.ts';
import { isAuthority, isFieldValue, isLowerToken, isPath, isToken, parseContentLength } from '../codec/http1/syntax.ts';
import type { HeaderField } from '../codec/http2/header-tables.ts';
import type { Fields, RequestHead, ResponseHead } from './types.ts';

/** A request's head, and what only the connection has to know. */
export interface Http2Request {
  readonly head: RequestHead;
  readonly expectsContinue: boolean;
}

/** Well-formed, and answered by the connection itself. */
export interface Http2Refusal {
  readonly status: number;
}

/** @returns what is wrong as text where the request is malformed: a stream error of type PROTOCOL_ERROR */
export function readRequest(received: readonly HeaderField[], endStream: boolean): Http2Request | Http2Refusal | string {
  const pseudo = new PseudoFields();
  const rest = new PlainFields();
  for (const [name, value] of received) {
    const problem = name.charCodeAt(0) === COLON ? pseudo.add(name, value, rest.fields.length > 0) : rest.add(name, value);
    if (problem !== undefined) return problem;
  }
  const { method, scheme, path, protocol } = pseudo;
  if (method === undefined || !isToken(method)) return 'no :method, or one that is no token';
  if (method === 'CONNECT' && protocol === undefined) return { status: 501 };
  if (protocol !== undefined && method !== 'CONNECT') return ':protocol without CONNECT';
  if (scheme !== 'http' && scheme !== 'https') return 'a :scheme that is neither http nor https';
  if (path === undefined || !(isPath(path) || (path === '*' && method === 'OPTIONS'))) return 'no :path, or one that is no path';
  if (pseudo.authority !== undefined && rest.host !== undefined && pseudo.authority.toLowerCase() !== rest.host.toLowerCase())
    return ':authority and Host that differ';
  const authority = pseudo.authority ?? rest.host;
  if (authority === undefined || !isAuthority(authority)) return 'no :authority, or one that is no host and port';
  if (endStream && (rest.length ?? 0) > 0) return 'a content-length, and no body';
  if (rest.expect !== undefined && rest.expect.toLowerCase() !== '100-continue') return { status: 417 };
  if (rest.cookie !== undefined) rest.fields.push('cookie', rest.cookie);
  return {
    head: {
      version: '2',
      // As HTTP/1.1 asks for another protocol (RFC 8441 §5).
      method: protocol === undefined ? method : 'GET',
      scheme,
      authority,
      path,
      fields: rest.fields,
      bodyBytes: endStream || protocol !== undefined ? 0 : rest.length,
      upgrade: protocol,
    },
    expectsContinue: rest.expect !== undefined && !endStream,
  };
}

/** @returns what is wrong as text where the response is malformed */
export function readResponse(received: readonly HeaderField[], endStream: boolean, requestMethod: string): ResponseHead | string {
  const [first, ...others] = received;
  if (first?.[0] !== ':status' || !/^[1-5]\d\d$/.test(first[1])) return 'no :status, or one that is no status';
  const status = Number(first[1]);
  if (status === 101) return '101 in HTTP/2';
  if (status < 200 && endStream) return 'an informational response that ends the stream';
  const rest = new PlainFields();
  for (const [name, value] of others) {
    const problem = name.charCodeAt(0) === COLON ? `${name} in a response` : rest.add(name, value);
    if (problem !== undefined) return problem;
  }
  // Back to where it came from, the crumbs of a cookie are a request's affair.
  if (rest.cookie !== undefined) rest.fields.push('cookie', rest.cookie);
  const bodiless = requestMethod === 'HEAD' || status === 304;
  if (endStream && !bodiless && (rest.length ?? 0) > 0) return 'a content-length, and no body';
  return { status, fields: rest.fields, bodyBytes: endStream && !bodiless ? 0 : rest.length };
}

/** @returns the trailers, undefined where none is left; as text what is wrong */
export function readTrailers(received: readonly HeaderField[]): { readonly trailers: Fields | undefined } | string {
  const fields: Fields = [];
  for (const [name, value] of received) {
    if (!isLowerToken(name) || !isFieldValue(value)) return `a bad trailer ${JSON.stringify(name)}`;
    fields.push(name, value);
  }
  return { trailers: cleanTrailers(fields) };
}

/** @throws {TypeError} for a head that HTTP/2 cannot carry */
export function requestFields({ method, scheme, authority, path, fields, bodyBytes, upgrade }: RequestHead): HeaderField[] {
  if (!isToken(method)) throw new TypeError(`the method ${JSON.stringify(method)}`);
  if (!isPath(path) && path !== '*') throw new TypeError(`the path ${JSON.stringify(path)}`);
  if (authority !== '' && !isAuthority(authority)) throw new TypeError(`the authority ${JSON.stringify(authority)}`);
  const out: HeaderField[] = [
    [':method', upgrade === undefined ? method : 'CONNECT'],
    [':scheme', scheme],
    [':authority', authority],
    [':path', path],
  ];
  if (upgrade !== undefined) out.push([':protocol', upgrade.toLowerCase()]);
  // We take trailers, and gRPC insists on being told.
  out.push(TAKES_TRAILERS);
  addFields(out, fields, upgrade === undefined ? undefined : 'sec-websocket-key');
  if (upgrade === undefined && bodyBytes !== undefined && (bodyBytes > 0 || HAS_BODY.has(method)))
    out.push(['content-length', String(bodyBytes)]);
  return out;
}

/** @throws {TypeError} for a head that HTTP/2 cannot carry */
export function responseFields({ status, fields, bodyBytes }: ResponseHead): HeaderField[] {
  const out: HeaderField[] = [[':status', String(status)]];
  addFields(out, fields, undefined);
  if (bodyBytes !== undefined && status >= 200 && status !== 204) out.push(['content-length', String(bodyBytes)]);
  return out;
}

/** @throws {TypeError} for trailers that HTTP/2 cannot carry */
export function trailerFields(fields: Fields): HeaderField[] {
  const out: HeaderField[] = [];
  addFields(out, fields, undefined);
  return out;
}

const COLON = 58;
const TAKES_TRAILERS: HeaderField = ['te', 'trailers'];
const HAS_BODY: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH']);

function addFields(out: HeaderField[], fields: readonly string[], without: string | undefined): void {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    const value = fields[i + 1] ?? '';
    if (isHopByHop(name) || isFramingField(name) || name === without) continue;
    if (!isLowerToken(name) || !isFieldValue(value)) throw new TypeError(`the field ${JSON.stringify(name)}`);
    out.push([name, value]);
  }
}

class PseudoFields {
  method: string | undefined;
  scheme: string | undefined;
  authority: string | undefined;
  path: string | undefined;
  protocol: string | undefined;

  add(name: string, value: string, late: boolean): string | undefined {
    if (late) return `${name} after other fields`;
    const before = this.#value(name);
    if (before === null) return `unknown pseudo-header field ${JSON.stringify(name)}`;
    if (before !== undefined) return `${name} twice`;
    if (name === ':method') this.method = value;
    else if (name === ':scheme') this.scheme = value;
    else if (name === ':authority') this.authority = value;
    else if (name === ':path') this.path = value;
    else this.protocol = value;
    if (name === ':protocol' && !isToken(value)) return 'a :protocol that is no token';
    return undefined;
  }

  #value(name: string): string | undefined | null {
    switch (name) {
      case ':method':
        return this.method;
      case ':scheme':
        return this.scheme;
      case ':authority':
        return this.authority;
      case ':path':
        return this.path;
      case ':protocol':
        return this.protocol;
      default:
        return null;
    }
  }
}

class PlainFields {
  readonly fields: Fields = [];
  host: string | undefined;
  length: number | undefined;
  expect: string | undefined;
  /** Joined: HTTP/2 may send one cookie in many fields (RFC 9113 §8.2.3). */
  cookie: string | undefined;

  add(name: string, value: string): string | undefined {
    if (!isLowerToken(name)) return `a bad field name ${JSON.stringify(name)}`;
    if (!isFieldValue(value)) return `a forbidden character in ${name}`;
    switch (name) {
      case 'connection':
      case 'proxy-connection':
      case 'keep-alive':
      case 'transfer-encoding':
      case 'upgrade':
        return `the field ${name}, which HTTP/2 does not have`;
      case 'te':
        return value === 'trailers' ? undefined : 'a te other than trailers';
      case 'host':
        if (this.host !== undefined) return 'several Host fields';
        this.host = value;
        return undefined;
      case 'content-length':
        if (this.length !== undefined) return 'several content-length fields';
        this.length = parseContentLength(value);
        if (this.length === undefined) return 'a content-length that is no number';
        break;
      case 'expect':
        this.expect = value;
        return undefined;
      case 'cookie':
        this.cookie = this.cookie === undefined ? value : `${this.cookie}; ${value}`;
        return undefined;
    }
    this.fields.push(name, value);
    return undefined;
  }
}
