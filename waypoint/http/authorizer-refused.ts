/** What an authorization server has refused, with the answer that the client gets. */
import { ProxyError } from '../../common/base/errors.ts';

export class AuthorizerRefused extends ProxyError {
  readonly status: number;
  /** Flat. */
  readonly fields: readonly string[];
  /** Empty for our own words. */
  readonly body: string;

  constructor(
    code: 'AUTHORIZER_DENIED' | 'AUTHORIZER_FAILED',
    message: string,
    answer: { readonly policy: string; readonly status: number; readonly fields?: readonly string[]; readonly body?: string },
  ) {
    super(code, message, { policy: answer.policy });
    this.name = 'AuthorizerRefused';
    this.status = answer.status;
    this.fields = answer.fields ?? [];
    this.body = answer.body ?? '';
  }
}
