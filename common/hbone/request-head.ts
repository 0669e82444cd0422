/** What a CONNECT request and its answer must look like (RFC 9113, sections 8.2, 8.3 and 8.5). */
import type { Headers } from './types.ts';

export interface RequestHead {
  readonly method: string;
  /** Empty where the request has none. */
  readonly authority: string;
  /** Without pseudo-header fields. */
  readonly headers: Headers;
}

/** Fields that speak about one connection of HTTP/1.1 and do not exist in HTTP/2 (section 8.2.2). */
const CONNECTION_FIELDS: ReadonlySet<string> = new Set(['connection', 'proxy-connection', 'keep-alive', 'transfer-encoding', 'upgrade']);
type Pseudo = 'method' | 'authority' | 'scheme' | 'path' | 'protocol';
const REQUEST_PSEUDO: ReadonlyMap<string, Pseudo> = new Map([
  [':method', 'method'],
  [':authority', 'authority'],
  [':scheme', 'scheme'],
  [':path', 'path'],
  [':protocol', 'protocol'],
]);
// Upper case is forbidden (section 8.2.1), as is everything that is no token.
const FIELD_NAME = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
const FORBIDDEN_IN_VALUE = /[\0\r\n]/;
const STATUS = /^[1-9]\d\d$/;

/** @returns what is wrong, where the request is malformed: a stream error of type PROTOCOL_ERROR */
export function readRequestHead(fields: Headers): RequestHead | string {
  // Properties and no Map: each tunnel has one of these (bench ztunnel, new connections).
  const pseudo: Partial<Record<Pseudo, string>> = {};
  const headers: (readonly [string, string])[] = [];
  for (const field of fields) {
    const [name, value] = field;
    if (FORBIDDEN_IN_VALUE.test(value)) return `a forbidden character in ${JSON.stringify(name)}`;
    if (name.startsWith(':')) {
      if (headers.length > 0) return `${name} after other fields`;
      const known = REQUEST_PSEUDO.get(name);
      if (known === undefined) return `unknown pseudo-header field ${JSON.stringify(name)}`;
      if (pseudo[known] !== undefined) return `${name} twice`;
      pseudo[known] = value;
    } else {
      if (!FIELD_NAME.test(name)) return `bad field name ${JSON.stringify(name)}`;
      if (CONNECTION_FIELDS.has(name)) return `field ${name}, which HTTP/2 does not have`;
      if (name === 'te' && value !== 'trailers') return `te: ${value}`;
      headers.push(field);
    }
  }
  const { method, scheme, path } = pseudo;
  if (method === undefined) return 'no :method';
  // We do not announce extended CONNECT (RFC 8441), so nobody may use it.
  if (pseudo.protocol !== undefined) return ':protocol without SETTINGS_ENABLE_CONNECT_PROTOCOL';
  if (method === 'CONNECT') {
    if (scheme !== undefined || path !== undefined) return 'CONNECT with :scheme or :path';
    if (pseudo.authority === undefined) return 'CONNECT without :authority';
  } else if (scheme === undefined || path === undefined || path === '') return `${method} without :scheme or :path`;
  const authority = pseudo.authority ?? headers.find(([name]) => name === 'host')?.[1] ?? '';
  return { method, authority, headers };
}

/** @returns the status and the other fields; undefined where the response is malformed */
export function readResponseHead(fields: Headers): { readonly status: number; readonly headers: Headers } | undefined {
  const [name, status = ''] = fields[0] ?? [];
  if (name !== ':status' || !STATUS.test(status)) return undefined;
  const headers = fields.slice(1);
  const wellFormed = headers.every(
    ([name, value]) => FIELD_NAME.test(name) && !CONNECTION_FIELDS.has(name) && !FORBIDDEN_IN_VALUE.test(value),
  );
  return wellFormed ? { status: Number(status), headers } : undefined;
}
