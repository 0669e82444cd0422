/**
 * Heads to text. Framing and connection fields are the writer's business: whoever changes fields on the way cannot change where a message
 * ends. What a policy or a route puts into a head is checked on the way into bytes, where a line too many would be another message.
 */
import { writeLatin1 } from '../../base/latin1.ts';
import { statusText } from '../../base/status-text.ts';
import { isAuthority, isPath, isToken } from './syntax.ts';

/** A head as text, and how many lines it must have: one char that is two bytes elsewhere must not become a line break. */
export interface HeadText {
  readonly text: string;
  readonly lines: number;
}

export interface RequestLine {
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  readonly fields: readonly string[];
}

/**
 * @param framing lines about body and connection, each closed by CRLF
 * @throws {TypeError} for a method, path or authority that is none
 */
export function requestText({ method, authority, path, fields }: RequestLine, framing: readonly string[]): HeadText {
  if (!isToken(method)) throw new TypeError(`the method ${JSON.stringify(method)}`);
  if (!isPath(path) && path !== '*') throw new TypeError(`the path ${JSON.stringify(path)}`);
  // HTTP/1.0 may have none, and a client that has none says so (RFC 9112 §3.2).
  if (authority !== '' && !isAuthority(authority)) throw new TypeError(`the authority ${JSON.stringify(authority)}`);
  return withFields(`${method} ${path} HTTP/1.1\r\nhost: ${authority}\r\n`, 2, fields, framing);
}

/** @param framing lines about body and connection, each closed by CRLF */
export function responseText(status: number, fields: readonly string[], framing: readonly string[]): HeadText {
  return withFields(statusLine(status), 1, fields, framing);
}

/** `name: value` lines and the empty line, for the end of a chunked body. */
export const trailerText = (fields: readonly string[]): HeadText => withFields('0\r\n', 1, fields, []);

function withFields(start: string, startLines: number, fields: readonly string[], framing: readonly string[]): HeadText {
  let text = start;
  let lines = startLines + framing.length + 1;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    if (isFramingName(name)) continue;
    text += `${name}: ${fields[i + 1] ?? ''}\r\n`;
    lines++;
  }
  for (const line of framing) text += line;
  return { text: `${text}\r\n`, lines };
}

function isFramingName(name: string): boolean {
  // Those of fields.ts. The lengths first: looking every name up costs more than writing it.
  switch (name.length) {
    case 4:
      return name === 'host';
    case 2:
      return name === 'te';
    case 7:
      return name === 'upgrade';
    case 10:
      return name === 'connection' || name === 'keep-alive';
    case 14:
      return name === 'content-length' || name === 'http2-settings';
    case 16:
      return name === 'proxy-connection';
    case 17:
      return name === 'transfer-encoding';
    default:
      return false;
  }
}

const statusLines: string[] = [];

function statusLine(status: number): string {
  statusLines[status] ??= `HTTP/1.1 ${status} ${statusText(status)}\r\n`;
  return statusLines[status] ?? '';
}

/**
 * Writes a head.
 * @returns the offset behind it
 * @throws {TypeError} where a name or value has a control character in it, before anything counts as written
 */
export function writeHead(out: Buffer, at: number, { text, lines }: HeadText): number {
  const end = at + writeLatin1(out, text, at);
  let breaks = 0;
  for (let i = at; i < end; i++) {
    const byte = out[i] ?? 0;
    // CR and LF are written in pairs, one pair for each line; anything more was smuggled in.
    if (byte < 32 && byte !== 9) breaks++;
  }
  if (breaks !== lines * 2 || end - at !== text.length) throw new TypeError('a control character in a name or a value of a field');
  return end;
}
