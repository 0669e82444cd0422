/**
 * RateLimitPolicies: a request that is allowed at all is counted by every limit that holds for its service or for the route that it takes, and
 * refused where one of them has no more to give. Refused requests are not counted.
 */
import { ProxyError } from '../../common/base/errors.ts';
import { Facts } from '../../common/decision/http-authorization.ts';
import { matchRoute } from '../../common/decision/http-route.ts';
import {
  askLimits,
  type Buckets,
  type LimitOutcome,
  limitFields,
  limitRefusal,
  limitsOfRule,
  type ServiceLimits,
} from '../../common/decision/rate-limit.ts';
import type { Configuration } from '../worker/configuration.ts';
import type { RequestContext, Stage } from './context.ts';
import { routedRequest, routeSource } from './route.ts';

export interface LimitParts {
  readonly configuration: Pick<Configuration, 'limitsOf' | 'routesOf' | 'labelOf' | 'labelAt'>;
  readonly buckets: Buckets;
  /** What a limit said of a request. */
  limited?(policy: string, limit: string, outcome: 'allowed' | 'limited' | 'would_limit'): void;
}

export function limitRate(parts: LimitParts): Stage {
  return (next) => (request) => {
    const limits = parts.configuration.limitsOf(request.connection.target.serviceKey);
    if (limits === undefined) return next(request);
    const refused = ask(parts, request, limits);
    return refused === undefined ? next(request) : Promise.reject(refused);
  };
}

function ask(parts: LimitParts, request: RequestContext, limits: ServiceLimits): ProxyError | undefined {
  const applying = limits.routes.length === 0 ? limits.always : limitsOfRule(limits, ruleOf(parts, request));
  if (applying.length === 0) return undefined;
  const { caller, target } = request.connection;
  const facts = new Facts(
    request.head,
    { identity: caller.identity, ip: caller.address.ip, token: request.token },
    { service: target.serviceKey, ip: target.ip, port: target.port },
  );
  const outcomes = askLimits(applying, facts, parts.buckets);
  const refusing = outcomes.filter(({ allowed, limit }) => !allowed && !limit.dryRun);
  for (const { limit, allowed } of outcomes) {
    // What another limit refuses has not been counted.
    if (!allowed) parts.limited?.(limit.policy, limit.name, limit.dryRun ? 'would_limit' : 'limited');
    else if (refusing.length === 0) parts.limited?.(limit.policy, limit.name, 'allowed');
  }
  request.wouldLimit = outcomes.flatMap(({ allowed, limit }) => (!allowed && limit.dryRun ? [`${limit.policy} ${limit.name}`] : []));
  const fields = limitFields(outcomes);
  if (fields.length > 0) request.limitFields = fields;
  return refusing.length === 0 ? undefined : refusal(request, refusing);
}

/** Tells the client when the last of those that refuse will let it through. */
function refusal(request: RequestContext, refusing: readonly LimitOutcome[]): ProxyError {
  const slowest = refusing.reduce((a, b) => (b.retryS > a.retryS ? b : a));
  request.limitFields = [...(request.limitFields ?? []), 'retry-after', String(slowest.retryS)];
  return new ProxyError('RATE_LIMITED', limitRefusal(slowest.limit), { policy: slowest.limit.policy });
}

/** The rule of the route that the request is about to take. */
function ruleOf({ configuration }: LimitParts, request: RequestContext): string | undefined {
  const { target, caller } = request.connection;
  const routes = target.serviceKey === undefined ? undefined : configuration.routesOf(target.serviceKey);
  const found = matchRoute(routes, target.port, routedRequest(request), routeSource(configuration, caller));
  return typeof found === 'string' ? undefined : found.entry.rule.name;
}
