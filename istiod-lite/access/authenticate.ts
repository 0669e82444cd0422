/**
 * Who calls: the client certificate of the connection, or else the bearer token, reviewed. Used by xDS, the CA and diagnostics alike.
 * @see Istio: security/pkg/server/ca/authenticate
 */
import type { Metadata } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import { encodePem } from '../../common/codec/x509/pem.ts';
import { readCertificate } from '../../common/codec/x509/read-certificate.ts';
import { type Caller, type TokenReviewer, TooManyReviews } from './token-review.ts';

export type Authentication =
  | { readonly caller: Caller }
  | { readonly refuse: 'UNAUTHENTICATED' | 'UNAVAILABLE' | 'RESOURCE_EXHAUSTED'; readonly message: string };

export interface AuthenticateOptions {
  readonly reviewer: Pick<TokenReviewer, 'review'>;
  /** Certificates of another one prove nothing here, whoever signed them. */
  readonly trustDomain: string;
}

/** What a gRPC call shows of its caller; the certificate is there only where TLS has verified it against the roots. */
export interface CallCredentials {
  readonly metadata: Metadata;
  getAuthContext(): { readonly sslPeerCertificate?: { readonly raw: Buffer } | undefined };
}

const MAX_TOKEN_CHARACTERS = 16 * 1024;

/** A token decides where there is one: a node's proxy may show its certificate and still has to say which pod it is. */
export async function authenticate(call: CallCredentials, { reviewer, trustDomain }: AuthenticateOptions): Promise<Authentication> {
  const [header] = call.metadata.get('authorization');
  if (header === undefined) {
    const { sslPeerCertificate: certificate } = call.getAuthContext();
    if (certificate) return fromCertificate(certificate.raw, trustDomain);
    return refused('no bearer token in the authorization header, and no client certificate');
  }
  const token = bearerToken(header);
  return token === undefined ? refused('no bearer token in the authorization header') : fromToken(token, reviewer);
}

export async function fromToken(token: string, reviewer: Pick<TokenReviewer, 'review'>): Promise<Authentication> {
  if (token.length > MAX_TOKEN_CHARACTERS) return refused('the token is too long to be one');
  try {
    const verdict = await reviewer.review(token);
    return 'caller' in verdict ? verdict : refused(verdict.refuse);
  } catch (error) {
    if (error instanceof TooManyReviews) return { refuse: 'RESOURCE_EXHAUSTED', message: error.message };
    return { refuse: 'UNAVAILABLE', message: `the token could not be reviewed: ${errorMessage(error)}` };
  }
}

function fromCertificate(der: Buffer, trustDomain: string): Authentication {
  const { uris, isCa } = readCertificate(encodePem('CERTIFICATE', der));
  const [uri, ...more] = uris;
  if (uri === undefined || more.length > 0 || isCa) return refused('the client certificate is not that of one workload');
  const identity = parseSpiffeId(uri);
  if (!identity?.namespace || !identity.serviceAccount)
    return refused(`the client certificate's name ${uri.slice(0, 300)} is no workload's`);
  if (identity.trustDomain !== trustDomain)
    return refused(`the client certificate is of trust domain ${identity.trustDomain.slice(0, 300)}`);
  const { namespace, serviceAccount } = identity;
  // A certificate does not say which pod holds it.
  return { caller: { namespace, serviceAccount, podName: '', podUid: '' } };
}

const refused = (message: string): Authentication => ({ refuse: 'UNAUTHENTICATED', message });

export function bearerToken(header: unknown): string | undefined {
  return typeof header === 'string' ? /^Bearer +(\S+) *$/i.exec(header)?.[1] : undefined;
}
