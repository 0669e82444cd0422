/**
 * A request's head: what it asks for, and where its body ends. Whatever two readers could understand in two ways is refused, because that
 * is how a request is smuggled past a policy (RFC 9112 §11.2); where the RFC lets a server repair or reject, this one rejects.
 */
import { bad, Http1Error } from './error.ts';
import { type ConnectionOptions, parseConnection, parseFields } from './fields.ts';
import { Framing } from './framing.ts';
import { isAuthority, isPath, isTarget, isToken, parseContentLength } from './syntax.ts';

/** The neutral head (common/http/types.ts), and what only this connection has to know. */
export interface Http1Request {
  readonly head: {
    readonly version: '1.0' | '1.1';
    readonly method: string;
    readonly scheme: string;
    /** Empty only in HTTP/1.0, where Host may be missing. */
    readonly authority: string;
    readonly path: string;
    readonly fields: string[];
    readonly bodyBytes: number | undefined;
    readonly upgrade: string | undefined;
  };
  /** Bytes of the body, or one of Framing. */
  readonly framing: number;
  /** Whether the client takes another response on this connection. */
  readonly keepAlive: boolean;
  /** Whether the client waits for 100 before it sends the body. */
  readonly expectsContinue: boolean;
}

/** Request line and fields, each line closed by CRLF. */
export function parseRequest(text: string, maxFieldCount: number): Http1Request {
  const lineEnd = text.indexOf('\r\n');
  const methodEnd = text.indexOf(' ');
  const targetEnd = text.indexOf(' ', methodEnd + 1);
  if (methodEnd < 1 || targetEnd < 0 || targetEnd > lineEnd) throw bad('a request line that is not method, target and version');
  const method = text.slice(0, methodEnd);
  if (!isToken(method)) throw bad('a method that is no token');
  const target = text.slice(methodEnd + 1, targetEnd);
  const version = httpVersion(text, targetEnd + 1, lineEnd);
  const raw = new RequestFields(parseFields(text, lineEnd + 2, maxFieldCount));
  const options = parseConnection(raw.connection);
  const fields = without(raw.kept, options);
  if (raw.host === undefined && version === '1.1') throw bad('no Host');
  if (raw.host !== undefined && !isAuthority(raw.host)) throw bad('a Host that is no host and port');
  const { scheme, authority, path } = readTarget(method, target, raw.host ?? '');
  const framing = raw.framing(version);
  const upgrade = options.upgrade && version === '1.1' && method === 'GET' && framing === 0 ? protocolOf(raw.upgrade) : undefined;
  return {
    head: { version, method, scheme, authority, path, fields, bodyBytes: framing < 0 ? undefined : framing, upgrade },
    framing,
    keepAlive: !options.close && (version === '1.1' || options.keepAlive),
    expectsContinue: raw.expectsContinue && version === '1.1' && framing !== 0,
  };
}

/** `HTTP/1.0`, or `HTTP/1.` with another digit, which is treated as 1.1 (RFC 9110 §2.5). */
function httpVersion(text: string, at: number, lineEnd: number): '1.0' | '1.1' {
  if (lineEnd - at === 8 && text.startsWith('HTTP/', at) && text[at + 6] === '.') {
    const minor = text.charCodeAt(at + 7) - 48;
    const major = text.charCodeAt(at + 5) - 48;
    if (minor >= 0 && minor <= 9 && major >= 0 && major <= 9) {
      if (major !== 1) throw new Http1Error(505, `HTTP/${major}.${minor}`);
      return minor === 0 ? '1.0' : '1.1';
    }
  }
  throw bad('a request line that does not end with a version');
}

/** RFC 9112 §3.2: origin-form, absolute-form with the authority that Host has, or `*`. */
function readTarget(method: string, target: string, host: string): { scheme: string; authority: string; path: string } {
  if (method === 'CONNECT') throw new Http1Error(501, 'CONNECT');
  if (target.charCodeAt(0) === 0x2f) {
    if (!isPath(target)) throw bad('a forbidden character in the request target');
    return { scheme: 'http', authority: host, path: target };
  }
  if (target === '*' && method === 'OPTIONS') return { scheme: 'http', authority: host, path: '*' };
  const absolute = /^(https?):\/\/([^/?]*)(.*)$/i.exec(target);
  if (!absolute || !isTarget(target)) throw bad('a request target that is neither path nor URL');
  const [, scheme = '', authority = '', rest = ''] = absolute;
  if (!isAuthority(authority)) throw bad('an authority in the request target that is no host and port');
  if (host !== '' && authority.toLowerCase() !== host.toLowerCase()) throw bad('Host and request target name different authorities');
  const path = rest.startsWith('/') ? rest : rest === '' && method === 'OPTIONS' ? '*' : `/${rest}`;
  return { scheme: scheme.toLowerCase(), authority, path };
}

/** Takes the fields apart that are not passed on. */
class RequestFields {
  readonly kept: string[];
  host: string | undefined;
  connection: string | undefined;
  upgrade: string | undefined;
  expectsContinue = false;
  #length: string | undefined;
  #coding: string | undefined;

  constructor(fields: string[]) {
    this.kept = fields;
    let kept = 0;
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i] ?? '';
      const value = fields[i + 1] ?? '';
      if (this.#isOurs(name, value)) continue;
      fields[kept] = name;
      fields[kept + 1] = value;
      kept += 2;
    }
    // Setting the length is a call out of compiled code (bench waypoint: kept connections).
    while (fields.length > kept) fields.pop();
  }

  /** @returns whether the field goes no further than this connection */
  #isOurs(name: string, value: string): boolean {
    switch (name) {
      case 'host':
        if (this.host !== undefined) throw bad('several Host fields');
        this.host = value;
        return true;
      case 'content-length':
        if (this.#length !== undefined) throw bad('several Content-Length fields');
        this.#length = value;
        // A recipient further on may look at it; how long the body is, the head's own member says.
        return false;
      case 'transfer-encoding':
        if (this.#coding !== undefined) throw bad('several Transfer-Encoding fields');
        this.#coding = value;
        return true;
      case 'connection':
        this.connection = this.connection === undefined ? value : `${this.connection},${value}`;
        return true;
      case 'upgrade':
        this.upgrade = this.upgrade === undefined ? value : `${this.upgrade},${value}`;
        return true;
      case 'expect':
        if (value.toLowerCase() !== '100-continue') throw new Http1Error(417, 'an expectation other than 100-continue');
        this.expectsContinue = true;
        return true;
      case 'te':
      case 'keep-alive':
      case 'proxy-connection':
      case 'http2-settings':
        return true;
      default:
        return false;
    }
  }

  /** RFC 9112 §6.3, without its repairs. */
  framing(version: '1.0' | '1.1'): number {
    if (this.#coding !== undefined) {
      if (version === '1.0') throw bad('Transfer-Encoding in HTTP/1.0');
      if (this.#length !== undefined) throw bad('both Transfer-Encoding and Content-Length');
      const coding = this.#coding.toLowerCase();
      if (coding === 'chunked') return Framing.CHUNKED;
      if (/^(?:(?:x-)?(?:gzip|compress)|deflate)[ \t]*(?:,[ \t]*(?:(?:x-)?(?:gzip|compress)|deflate)[ \t]*)*,[ \t]*chunked$/.test(coding))
        throw new Http1Error(501, 'a transfer coding beside chunked');
      throw bad('a Transfer-Encoding other than chunked');
    }
    if (this.#length === undefined) return 0;
    const length = parseContentLength(this.#length);
    if (length === undefined) throw bad('a Content-Length that is no number');
    return length;
  }
}

function without(fields: string[], { named }: ConnectionOptions): string[] {
  return named === undefined ? fields : fields.filter((_, i) => !named.includes(fields[i & ~1] ?? ''));
}

/** One protocol, with or without a version; h2c is nothing that we change to (RFC 9113 §3.1). */
function protocolOf(value: string | undefined): string | undefined {
  return value !== undefined && /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\/[0-9A-Za-z.]+)?$/.test(value) && value.toLowerCase() !== 'h2c'
    ? value
    : undefined;
}
