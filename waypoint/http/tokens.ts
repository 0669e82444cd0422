/** End users' tokens: a good one is remembered for policies and told to the backend, a bad one is refused, and a request without one passes. */
import type { Clock } from '../../common/base/clock.ts';
import { authenticateJwt, TokenCache, withToken } from '../../common/decision/jwt.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { Stage } from './context.ts';
import { TokenRefused } from './token-refused.ts';

export interface TokenParts {
  readonly configuration: Pick<Configuration, 'tokenRulesOf'>;
  readonly clock: Pick<Clock, 'now'>;
}

export function authenticateTokens({ configuration, clock }: TokenParts): Stage {
  const cache = new TokenCache();
  return (next) => (request) => {
    const rules = configuration.tokenRulesOf(request.connection.target.serviceKey);
    if (rules.length === 0) return next(request);
    const { head } = request;
    const verdict = authenticateJwt(rules, head, clock.now() / 1000, cache);
    if (verdict.at === 'refused') return Promise.reject(new TokenRefused(verdict, head));
    if (verdict.at === 'valid') request.token = verdict.token;
    request.head = { ...head, ...withToken(head, rules, verdict) };
    return next(request);
  };
}
