/** Why an attempt came to nothing, for whoever decides on another one. */
import { ProxyError } from '../../common/base/errors.ts';

export class AttemptFailed extends Error {
  readonly error: ProxyError;
  /** The endpoint has certainly not handled the request: it may be sent elsewhere, whatever its method. */
  readonly unsent: boolean;
  /** It went out on a connection that had been used before, and may just have been closed by the endpoint for being idle. */
  readonly reused: boolean;

  constructor(error: ProxyError, about: { unsent: boolean; reused: boolean }) {
    super(error.message, { cause: error });
    this.name = 'AttemptFailed';
    this.error = error;
    this.unsent = about.unsent;
    this.reused = about.reused;
  }

  static errorOf(reason: unknown): ProxyError {
    if (reason instanceof AttemptFailed) return reason.error;
    return ProxyError.from(reason, 'CONNECTION_LOST', 'request failed');
  }
}
