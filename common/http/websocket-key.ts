/**
 * The handshake that WebSocket has over HTTP/1.1 and not over HTTP/2 (RFC 6455 §4.2.2, RFC 8441 §5): whoever translates makes up for the
 * side that does not know it.
 */
import { createHash, randomBytes } from 'node:crypto';

const SECRET = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';

const fieldValue = (fields: readonly string[], name: string): string | undefined => {
  for (let i = 0; i < fields.length; i += 2) if (fields[i] === name) return fields[i + 1];
  return undefined;
};

/** The line that answers a request's key, where the response has none because its server was asked over HTTP/2. */
export function acceptKey(request: readonly string[], response: readonly string[]): string[] {
  const key = fieldValue(request, 'sec-websocket-key');
  if (key === undefined || fieldValue(response, 'sec-websocket-accept') !== undefined) return [];
  return [
    `sec-websocket-accept: ${createHash('sha1')
      .update(key + SECRET)
      .digest('base64')}\r\n`,
  ];
}

/** The line that a request needs, where its client came over HTTP/2 and has none. */
export function requestKey(request: readonly string[], upgrade: string): string[] {
  if (upgrade.toLowerCase() !== 'websocket' || fieldValue(request, 'sec-websocket-key') !== undefined) return [];
  return [`sec-websocket-key: ${randomBytes(16).toString('base64')}\r\n`];
}
