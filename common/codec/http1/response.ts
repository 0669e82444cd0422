/** A response's head, and where its body ends, which depends on the request as well (RFC 9112 §4 and §6.3). */
import { bad } from './error.ts';
import { parseConnection, parseFields } from './fields.ts';
import { Framing } from './framing.ts';
import { parseContentLength, valueClass } from './syntax.ts';

export interface Http1Response {
  readonly head: {
    readonly status: number;
    readonly fields: string[];
    /** As announced, also where there is no body because the request was HEAD or the status is 304. */
    readonly bodyBytes: number | undefined;
  };
  readonly framing: number;
  /** Whether the server takes another request on this connection, as far as the head says. */
  readonly keepAlive: boolean;
  /** What a 101 changes to. */
  readonly upgrade: string | undefined;
}

/**
 * Status line and fields, each line closed by CRLF.
 * @throws {Http1Error} whose status means nothing
 */
export function parseResponse(text: string, maxFieldCount: number, requestMethod: string): Http1Response {
  const lineEnd = text.indexOf('\r\n');
  const minor = text.charCodeAt(7) - 48;
  if (!text.startsWith('HTTP/1.') || minor < 0 || minor > 9 || text[8] !== ' ') throw bad('a status line that does not begin with HTTP/1');
  const status = statusAt(text, 9);
  // The space before the reason is required, but many leave both out.
  if (lineEnd !== 12 && text[12] !== ' ') throw bad('a status that is not three digits');
  for (let i = 12; i < lineEnd; i++) if (valueClass[text.charCodeAt(i)] !== 1) throw bad('a forbidden character in the reason phrase');
  const fields = parseFields(text, lineEnd + 2, maxFieldCount);
  const raw = separate(fields);
  const options = parseConnection(raw.connection);
  const kept = options.named ? fields.filter((_, i) => options.named?.includes(fields[i & ~1] ?? '') === false) : fields;
  const length = raw.length === undefined ? undefined : parseContentLength(raw.length);
  if (raw.length !== undefined && length === undefined) throw bad('a Content-Length that is no number');
  if (raw.coding !== undefined) {
    if (minor === 0) throw bad('Transfer-Encoding in HTTP/1.0');
    if (length !== undefined) throw bad('both Transfer-Encoding and Content-Length');
    if (raw.coding.toLowerCase() !== 'chunked') throw bad('a Transfer-Encoding other than chunked');
  }
  const bodiless = status < 200 || status === 204 || status === 304 || requestMethod === 'HEAD';
  const framing =
    status === 101 ? Framing.RAW : bodiless ? 0 : raw.coding !== undefined ? Framing.CHUNKED : (length ?? Framing.UNTIL_CLOSE);
  return {
    head: { status, fields: kept, bodyBytes: bodiless && status !== 304 && requestMethod !== 'HEAD' ? 0 : length },
    framing,
    keepAlive: framing !== Framing.UNTIL_CLOSE && framing !== Framing.RAW && !options.close && (minor > 0 || options.keepAlive),
    upgrade: raw.upgrade,
  };
}

function statusAt(text: string, at: number): number {
  let status = 0;
  for (let i = at; i < at + 3; i++) {
    const digit = text.charCodeAt(i) - 48;
    if (!(digit >= 0 && digit <= 9)) throw bad('a status that is not three digits');
    status = status * 10 + digit;
  }
  if (status < 100 || status > 599) throw bad(`the status ${status}`);
  return status;
}

interface Separated {
  length: string | undefined;
  coding: string | undefined;
  connection: string | undefined;
  upgrade: string | undefined;
}

/** Takes what is about this connection out of `fields`. */
function separate(fields: string[]): Separated {
  const out: Separated = { length: undefined, coding: undefined, connection: undefined, upgrade: undefined };
  let kept = 0;
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] ?? '';
    const value = fields[i + 1] ?? '';
    switch (name) {
      case 'content-length':
        if (out.length !== undefined) throw bad('several Content-Length fields');
        out.length = value;
        break;
      case 'transfer-encoding':
        if (out.coding !== undefined) throw bad('several Transfer-Encoding fields');
        out.coding = value;
        continue;
      case 'connection':
        out.connection = out.connection === undefined ? value : `${out.connection},${value}`;
        continue;
      case 'upgrade':
        out.upgrade = value;
        continue;
      case 'keep-alive':
      case 'proxy-connection':
      case 'te':
        continue;
    }
    fields[kept] = name;
    fields[kept + 1] = value;
    kept += 2;
  }
  // Setting the length is a call out of compiled code (bench waypoint: kept connections).
  while (fields.length > kept) fields.pop();
  return out;
}
