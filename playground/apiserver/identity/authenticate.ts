/** Who is calling: a bearer token (the administrator's or a service account's) or a client certificate of our authority. Nobody is anonymous. */
import { timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import { arrayOf, stringOf } from '../json.ts';
import type { Tokens, UserInfo } from './tokens.ts';

export const ADMIN: UserInfo = { username: 'kubernetes-admin', groups: ['system:masters', 'system:authenticated'] };

export const ANONYMOUS: UserInfo = { username: 'system:anonymous', groups: ['system:unauthenticated'] };

/** @returns undefined for callers without credentials, or with bad ones */
export function authenticate(request: IncomingMessage, tokens: Tokens, adminToken: string): UserInfo | undefined {
  const [, token] = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
  const bearer = token ?? protocolToken(request);
  if (bearer !== undefined) {
    if (equal(bearer, adminToken)) return ADMIN;
    const verdict = tokens.review(bearer);
    return 'user' in verdict ? verdict.user : undefined;
  }
  return certificateUser(request);
}

/** Browsers and some WebSocket clients put the token into a subprotocol. */
function protocolToken(request: IncomingMessage): string | undefined {
  const prefix = 'base64url.bearer.authorization.k8s.io.';
  const protocols = stringOf(request.headers['sec-websocket-protocol']).split(',');
  const found = protocols.map((each) => each.trim()).find((each) => each.startsWith(prefix));
  return found && Buffer.from(found.slice(prefix.length), 'base64url').toString();
}

function certificateUser({ socket }: IncomingMessage): UserInfo | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  const subject = socket.getPeerCertificate().subject as { CN?: unknown; O?: unknown } | undefined;
  const username = stringOf(subject?.CN);
  if (username === '') return undefined;
  const groups = (Array.isArray(subject?.O) ? arrayOf(subject.O) : [subject?.O]).map(stringOf).filter((group) => group !== '');
  return { username, groups: [...groups, 'system:authenticated'] };
}

function equal(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
