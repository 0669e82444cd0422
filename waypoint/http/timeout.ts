/** The rule's time for a whole request, attempts and back-off included, until the last byte of its response. */
import type { Clock } from '../../common/base/clock.ts';
import { ProxyError } from '../../common/base/errors.ts';
import type { Stage } from './context.ts';

export function requestTimeout({ clock }: { readonly clock: Clock }): Stage {
  return (next) => (request) => {
    const limitMs = request.entry?.rule.requestTimeoutMs ?? 0;
    if (limitMs === 0) return next(request);
    const timer = clock.after(limitMs, () => request.cancel(new ProxyError('REQUEST_TIMEOUT', `no whole response within ${limitMs} ms`)));
    request.whenOver(() => timer.cancel());
    return next(request);
  };
}
