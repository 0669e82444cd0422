/**
 * What ties requests together: a hash of a header, cookie, address or parameter, by which the same ones go to the same endpoint; or a session,
 * whose cookie or header names the endpoint itself.
 */
import type { HashCookie, Persistence } from '../../common/codec/gen/waypoint.ts';
import { hash32 } from '../../common/decision/hash-tables.ts';
import { fieldValue } from '../../common/decision/http-route.ts';
import type { HashKey } from '../../common/decision/traffic-model.ts';
import type { RequestContext } from './context.ts';

export interface HashParts {
  /** Fresh random hexadecimal digits. */
  randomHex(digits: number): string;
}

/** undefined where the request has nothing to go by: it goes to any endpoint. */
export function requestHash(parts: HashParts, key: HashKey, request: RequestContext): number | undefined {
  const text = hashedText(parts, key, request);
  return text === undefined ? undefined : hash32(text);
}

function hashedText(parts: HashParts, key: HashKey, request: RequestContext): string | undefined {
  switch (key.$case) {
    case 'header':
      return fieldValue(request.head.fields, key.value);
    case 'sourceIp':
      return request.connection.caller.address.ip;
    case 'queryParameter':
      return queryParameter(request.head.path, key.value);
    case 'cookie':
      return cookieValue(request.head.fields, key.value.name) ?? freshCookie(parts, key.value, request);
  }
}

/** A client without the cookie gets one, where the settings say for how long. */
function freshCookie({ randomHex }: HashParts, cookie: HashCookie, request: RequestContext): string | undefined {
  if (cookie.ttlS === undefined) return undefined;
  // Once for each request: a further attempt is of the same session.
  const before = request.answerFields?.[1]?.split(';', 1)[0];
  if (before?.startsWith(`${cookie.name}=`)) return before.slice(cookie.name.length + 1);
  const value = randomHex(32);
  request.answerFields = ['set-cookie', cookieText(cookie, value)];
  return value;
}

type Carrier = NonNullable<Persistence['carrier']>;

/** `address:port` of the endpoint that the request's session has; undefined where it has none that can be read. */
export function sessionAddress(carrier: Carrier, { head }: RequestContext): string | undefined {
  const said = carrier.$case === 'header' ? fieldValue(head.fields, carrier.value) : cookieValue(head.fields, carrier.value.name);
  return said === undefined || said.length > MAX_SESSION ? undefined : Buffer.from(said, 'base64').toString();
}

/** Tells the client which endpoint its session has now. */
export function tellSession(carrier: Carrier, address: string, request: RequestContext): void {
  const value = Buffer.from(address).toString('base64');
  request.answerFields =
    carrier.$case === 'header'
      ? [carrier.value, value]
      : ['set-cookie', cookieText({ ...carrier.value, ttlS: carrier.value.ttlS ?? 0 }, value)];
}

const MAX_SESSION = 256;

const cookieText = ({ name, path, ttlS }: HashCookie, value: string): string =>
  `${name}=${value}${ttlS ? `; Max-Age=${ttlS}` : ''}; Path=${path === '' ? '/' : path}; HttpOnly`;

function cookieValue(fields: readonly string[], name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) {
    if (fields[i] !== 'cookie') continue;
    for (const pair of (fields[i + 1] ?? '').split(';')) {
      const equals = pair.indexOf('=');
      if (equals > 0 && pair.slice(0, equals).trim() === name)
        return pair
          .slice(equals + 1)
          .trim()
          .replace(/^"(.*)"$/, '$1');
    }
  }
  return undefined;
}

function queryParameter(path: string, name: string): string | undefined {
  const query = path.indexOf('?');
  return query < 0 ? undefined : (new URLSearchParams(path.slice(query + 1)).get(name) ?? undefined);
}
