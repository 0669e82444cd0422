/** Service-account tokens as Kubernetes issues them: signed JWTs bound to an audience, an expiry and, if asked for, a pod. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID, sign, verify } from 'node:crypto';
import type { Clock } from '../../../common/base/clock.ts';
import { arrayOf, at, isObject, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';

export interface UserInfo {
  readonly username: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

export interface TokenRequestFields {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** The API server's own audience where it is empty. */
  readonly audiences?: readonly string[];
  readonly expirationSeconds?: number;
  readonly boundPod?: { readonly name: string; readonly uid: string; readonly nodeName?: string };
}

export type TokenVerdict = { readonly user: UserInfo; readonly audiences: readonly string[] } | { readonly error: string };

export interface TokensOptions {
  readonly clock: Clock;
  readonly issuer: string;
  readonly find: (kind: string, name: string, namespace?: string) => KubeObject | undefined;
}

const DEFAULT_SECONDS = 3600;
const MIN_SECONDS = 600;
const MAX_SECONDS = 2 ** 32;

export class Tokens {
  readonly issuer: string;
  readonly #clock: Clock;
  readonly #find: TokensOptions['find'];
  readonly #key: KeyObject;
  readonly #publicKey: KeyObject;
  readonly #keyId = randomUUID();

  constructor({ clock, issuer, find }: TokensOptions) {
    this.#clock = clock;
    this.issuer = issuer;
    this.#find = find;
    this.#key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
    this.#publicKey = createPublicKey(this.#key);
  }

  /** The keys that verify tokens, for `/openid/v1/jwks`. */
  jwks(): object {
    return { keys: [{ ...this.#publicKey.export({ format: 'jwk' }), use: 'sig', alg: 'ES256', kid: this.#keyId }] };
  }

  /** @returns undefined where there is no such service account */
  issue(request: TokenRequestFields): { token: string; expirationTimestamp: number } | undefined {
    const { namespace, serviceAccount, boundPod } = request;
    const account = this.#find('ServiceAccount', serviceAccount, namespace);
    if (!account) return undefined;
    const now = Math.floor(this.#clock.now() / 1000);
    const lifetime = Math.min(Math.max(request.expirationSeconds ?? DEFAULT_SECONDS, MIN_SECONDS), MAX_SECONDS);
    const audiences = request.audiences && request.audiences.length > 0 ? request.audiences : [this.issuer];
    const payload = {
      aud: audiences,
      exp: now + lifetime,
      iat: now,
      nbf: now,
      iss: this.issuer,
      jti: randomUUID(),
      sub: `system:serviceaccount:${namespace}:${serviceAccount}`,
      'kubernetes.io': {
        namespace,
        serviceaccount: { name: serviceAccount, uid: account.metadata.uid },
        ...(boundPod ? { pod: { name: boundPod.name, uid: boundPod.uid } } : {}),
        ...(boundPod?.nodeName ? { node: { name: boundPod.nodeName } } : {}),
      },
    };
    const head = encode({ alg: 'ES256', kid: this.#keyId, typ: 'JWT' });
    const signed = `${head}.${encode(payload)}`;
    const signature = sign('sha256', Buffer.from(signed), { key: this.#key, dsaEncoding: 'ieee-p1363' });
    return { token: `${signed}.${signature.toString('base64url')}`, expirationTimestamp: payload.exp * 1000 };
  }

  /** @param audiences those that the caller accepts; the API server's own where empty */
  review(token: string, audiences: readonly string[] = []): TokenVerdict {
    const claims = this.#verified(token);
    if (!claims) return { error: 'invalid bearer token' };
    if (claims.iss !== this.issuer) return { error: 'invalid bearer token: issued by somebody else' };
    const now = this.#clock.now() / 1000;
    if (!(Number(claims.exp) > now)) return { error: 'invalid bearer token, service account token has expired' };
    if (Number(claims.nbf) > now + 10) return { error: 'invalid bearer token, service account token is not valid yet' };
    const accepted = audiences.length > 0 ? audiences : [this.issuer];
    const granted = arrayOf(claims.aud).map(stringOf);
    const common = accepted.filter((audience) => granted.includes(audience));
    if (common.length === 0) {
      return {
        error: `invalid bearer token, token audiences ${JSON.stringify(granted)} is invalid for the target audiences ${JSON.stringify(accepted)}`,
      };
    }
    const bound = claims['kubernetes.io'];
    const namespace = stringOf(at(bound, 'namespace'));
    const name = stringOf(at(bound, 'serviceaccount', 'name'));
    const account = this.#find('ServiceAccount', name, namespace);
    if (!account || account.metadata.uid !== at(bound, 'serviceaccount', 'uid'))
      return { error: 'invalid bearer token, service account has been deleted' };
    const pod = stringOf(at(bound, 'pod', 'name'));
    const podUid = stringOf(at(bound, 'pod', 'uid'));
    if (pod !== '' && this.#find('Pod', pod, namespace)?.metadata.uid !== podUid)
      return { error: 'invalid bearer token, the pod that it is bound to has been deleted' };
    const node = stringOf(at(bound, 'node', 'name')) || stringOf(at(this.#find('Pod', pod, namespace), 'spec', 'nodeName'));
    return { user: serviceAccountUser(account, claims, pod, podUid, node), audiences: common };
  }

  #verified(token: string): Record<string, unknown> | undefined {
    const [head, body, signature, ...more] = token.split('.');
    if (!head || !body || !signature || more.length > 0) return undefined;
    const good = verify(
      'sha256',
      Buffer.from(`${head}.${body}`),
      { key: this.#publicKey, dsaEncoding: 'ieee-p1363' },
      Buffer.from(signature, 'base64url'),
    );
    if (!good) return undefined;
    const claims: unknown = JSON.parse(Buffer.from(body, 'base64url').toString());
    return isObject(claims) ? claims : undefined;
  }
}

function serviceAccountUser(account: KubeObject, claims: Record<string, unknown>, pod: string, podUid: string, node: string): UserInfo {
  const { namespace = '', name, uid } = account.metadata;
  const extra: Record<string, readonly string[]> = { 'authentication.kubernetes.io/credential-id': [`JTI=${stringOf(claims.jti)}`] };
  if (pod !== '') {
    extra['authentication.kubernetes.io/pod-name'] = [pod];
    extra['authentication.kubernetes.io/pod-uid'] = [podUid];
    if (node !== '') extra['authentication.kubernetes.io/node-name'] = [node];
  }
  return {
    username: `system:serviceaccount:${namespace}:${name}`,
    ...(uid ? { uid } : {}),
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
    extra,
  };
}

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
