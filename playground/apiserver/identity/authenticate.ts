/** Who is calling: the administrator or a service account, by bearer token. Nobody is anonymous. */
import { timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Tokens, UserInfo } from './tokens.ts';

export const ADMIN: UserInfo = { username: 'kubernetes-admin', groups: ['system:masters', 'system:authenticated'] };

export const ANONYMOUS: UserInfo = { username: 'system:anonymous', groups: ['system:unauthenticated'] };

// Browsers and some WebSocket clients cannot set headers, and put the token into a subprotocol.
const TOKEN_PROTOCOL = 'base64url.bearer.authorization.k8s.io.';

/** @returns undefined for callers without credentials, or with bad ones */
export function authenticate(request: IncomingMessage, tokens: Tokens, adminToken: string): UserInfo | undefined {
  const [, header] = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
  const token = header ?? protocolToken(String(request.headers['sec-websocket-protocol'] ?? ''));
  if (token === undefined) return undefined;
  if (equal(token, adminToken)) return ADMIN;
  const verdict = tokens.review(token);
  return 'user' in verdict ? verdict.user : undefined;
}

function protocolToken(protocols: string): string | undefined {
  const offered = protocols.split(',').map((each) => each.trim());
  const found = offered.find((each) => each.startsWith(TOKEN_PROTOCOL));
  return found && Buffer.from(found.slice(TOKEN_PROTOCOL.length), 'base64url').toString();
}

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
