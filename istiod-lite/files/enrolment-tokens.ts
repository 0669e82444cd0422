/**
 * Tokens by which hosts outside Kubernetes prove who they are: JWTs in the form of service-account tokens, signed with a key that lies beside
 * the CA's. One token is one host and one service account.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, sign, verify } from 'node:crypto';

export interface HostToken {
  readonly host: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}

const AUDIENCE = 'istio-ca';
const ISSUER = 'warren.dev/enrolment';
const NAME = /^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/;

/** PEM, PKCS#8. */
export const newEnrolmentKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();

export class EnrolmentTokens {
  readonly #key: KeyObject;

  /** @throws Error where the PEM is no private key */
  constructor(keyPem: string) {
    this.#key = createPrivateKey(keyPem);
  }

  /** @param expiresAt milliseconds since 1970 @throws Error for a name that nothing can have */
  issue({ host, namespace, serviceAccount }: HostToken, now: number, expiresAt: number): string {
    for (const [what, name] of Object.entries({ host, namespace, serviceAccount }))
      if (!NAME.test(name)) throw new Error(`${what} ${JSON.stringify(name)}: expected lower-case letters, digits, '-' and '.'`);
    const claims = {
      iss: ISSUER,
      aud: [AUDIENCE],
      sub: `system:serviceaccount:${namespace}:${serviceAccount}`,
      iat: Math.floor(now / 1000),
      exp: Math.floor(expiresAt / 1000),
      'kubernetes.io': { namespace, serviceaccount: { name: serviceAccount }, pod: { name: host, uid: host } },
    };
    const signed = `${part({ alg: 'ES256', typ: 'JWT' })}.${part(claims)}`;
    return `${signed}.${sign('sha256', Buffer.from(signed), { key: this.#key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
  }

  /** The status of a TokenReview. */
  review(token: string, audiences: readonly string[], now: number): object {
    const refuse = (error: string) => ({ authenticated: false, error });
    const [head = '', body = '', signature = '', ...more] = token.split('.');
    if (more.length > 0 || signature === '') return refuse('the token is no JWT');
    const key = { key: createPublicKey(this.#key), dsaEncoding: 'ieee-p1363' as const };
    if (algorithmOf(head) !== 'ES256' || !verify('sha256', Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url')))
      return refuse('the token was not signed by this mesh');
    const claims = decoded(body) as {
      iss?: unknown;
      aud?: unknown;
      sub?: unknown;
      exp?: unknown;
      'kubernetes.io'?: { pod?: { name?: unknown } };
    };
    const { iss, aud, sub, exp } = claims;
    if (iss !== ISSUER || typeof sub !== 'string' || typeof exp !== 'number') return refuse('the token is not for a host');
    if (now >= exp * 1000) return refuse(`the token expired at ${new Date(exp * 1000).toISOString()}`);
    const shared = Array.isArray(aud) ? aud.filter((audience) => audiences.includes(audience)) : [];
    const host = String(claims['kubernetes.io']?.pod?.name ?? '');
    return {
      authenticated: true,
      audiences: shared,
      user: {
        username: sub,
        groups: ['system:serviceaccounts'],
        extra: { 'authentication.kubernetes.io/pod-name': [host], 'authentication.kubernetes.io/pod-uid': [host] },
      },
    };
  }
}

const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

function decoded(text: string): object {
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'));
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    // Not JSON: as good as empty.
    return {};
  }
}

const algorithmOf = (head: string): unknown => (decoded(head) as { alg?: unknown }).alg;
