/** A token that is not good, with what the client is to be told about it. */
import { ProxyError } from '../../common/base/errors.ts';

export class TokenRefused extends ProxyError {
  readonly status: number;
  /** `WWW-Authenticate` (RFC 6750, section 3). */
  readonly challenge: string;

  constructor(
    { status, reason }: { readonly status: number; readonly reason: string },
    { scheme, authority, path }: { readonly scheme: string; readonly authority: string; readonly path: string },
  ) {
    super('TOKEN_INVALID', reason);
    this.name = 'TokenRefused';
    this.status = status;
    const bare = path.replace(/[?"\\].*$/s, '');
    this.challenge = `Bearer realm="${scheme}://${authority}${bare}", error="invalid_token"`;
  }
}
