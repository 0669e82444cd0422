/** Who calls: the bearer token of a stream or a call, reviewed. Used by xDS and the CA alike. */
import type { Metadata } from '@grpc/grpc-js';
import { errorMessage } from '../../common/base/errors.ts';
import { type Caller, type TokenReviewer, TooManyReviews } from './token-review.ts';

export type Authentication =
  | { readonly caller: Caller }
  | { readonly refuse: 'UNAUTHENTICATED' | 'UNAVAILABLE' | 'RESOURCE_EXHAUSTED'; readonly message: string };

const MAX_TOKEN_CHARACTERS = 16 * 1024;

export async function authenticate(metadata: Metadata, reviewer: Pick<TokenReviewer, 'review'>): Promise<Authentication> {
  const token = bearerToken(metadata);
  if (!token) return { refuse: 'UNAUTHENTICATED', message: 'no bearer token in the authorization header' };
  if (token.length > MAX_TOKEN_CHARACTERS) return { refuse: 'UNAUTHENTICATED', message: 'the token is too long to be one' };
  try {
    const verdict = await reviewer.review(token);
    return 'caller' in verdict ? verdict : { refuse: 'UNAUTHENTICATED', message: verdict.refuse };
  } catch (error) {
    if (error instanceof TooManyReviews) return { refuse: 'RESOURCE_EXHAUSTED', message: error.message };
    return { refuse: 'UNAVAILABLE', message: `the token could not be reviewed: ${errorMessage(error)}` };
  }
}

function bearerToken(metadata: Metadata): string | undefined {
  const [header] = metadata.get('authorization');
  const match = typeof header === 'string' ? /^Bearer +(\S+) *$/i.exec(header) : null;
  return match?.[1];
}
