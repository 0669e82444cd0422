/** A waypoint's decisions about one request, told step by step: the functions that the data path asks, asked with words. Pure. */
import type { PolicySeen, RouteSeen, Step } from './explain.ts';
import { customMatches, decideHttp, type HttpCaller, type HttpDestination } from './http-authorization.ts';
import type { CompiledAuthorization, CompiledEntry, CompiledRoutes } from './http-model.ts';
import { matchRoute, type RoutedRequest } from './http-route.ts';
import type { RouteSource } from './route-source.ts';

export interface RequestExplanation {
  readonly steps: readonly Step[];
  readonly policies: readonly PolicySeen[];
  readonly allowed: boolean;
  readonly code?: string;
  readonly policy?: string;
  readonly reason: string;
  /** The name of the rule that the request takes. */
  readonly rule?: string;
  /** Where it goes from the waypoint; empty where it is answered there. */
  readonly routes: readonly RouteSeen[];
}

export interface ArrivingRequest {
  readonly policies: readonly CompiledAuthorization[];
  readonly routes: CompiledRoutes | undefined;
  readonly request: RoutedRequest;
  readonly caller: HttpCaller;
  readonly destination: HttpDestination;
  readonly source: RouteSource;
}

export interface DecidedRequest {
  readonly steps: readonly Step[];
  readonly policies: readonly PolicySeen[];
  readonly refused?: { readonly code: string; readonly policy?: string; readonly reason: string };
  /** Why it may pass. */
  readonly reason: string;
  /** undefined where no route is attached: the service is served as it is. */
  readonly entry: CompiledEntry | undefined;
}

/** Policy first, then the route, as the waypoint does it. */
export function explainRequest({ policies, routes, request, caller, destination, source }: ArrivingRequest): DecidedRequest {
  const seen = policies.flatMap((policy): PolicySeen[] => {
    const { action } = policy;
    // What only tells, or asks somebody else, decides nothing here.
    if (action !== 'ALLOW' && action !== 'DENY') return [];
    // Alone and enforced, a DENY that matches refuses, and an ALLOW that does not.
    const { allowed } = decideHttp([{ ...policy, dryRun: false }], request, caller, destination);
    const matched = action === 'DENY' ? !allowed : allowed;
    return [{ policy: policy.key, action, dryRun: policy.dryRun, matched, unmet: [] }];
  });
  const verdict = decideHttp(policies, request, caller, destination);
  const asked = customMatches(policies, request, caller, destination);
  const steps: Step[] = asked.map(({ key, authorizer, dryRun }) => ({
    stage: 'policy',
    text: `${key} asks ${authorizer?.name}${dryRun ? ', in dry-run' : ', and what it refuses goes no further'}`,
  }));
  if (!verdict.allowed) {
    const refused = { code: 'POLICY_DENIED', ...(verdict.policy !== undefined && { policy: verdict.policy }), reason: verdict.reason };
    return { steps, policies: seen, refused, reason: verdict.reason, entry: undefined };
  }
  const reason = verdict.policy === undefined ? 'no allow policies' : `explicitly allowed by: ${verdict.policy}`;
  const found = matchRoute(routes, destination.port, request, source);
  if (found === 'no-match') {
    const message = `no route of ${destination.service ?? 'the pod'} port ${destination.port} matches ${request.method} ${request.path}`;
    return { steps, policies: seen, refused: { code: 'ROUTE_UNMATCHED', reason: message }, reason, entry: undefined };
  }
  if (found === 'no-routes') {
    steps.push({ stage: 'route', text: 'no route is attached: the service is served as it is' });
    return { steps, policies: seen, reason, entry: undefined };
  }
  steps.push({ stage: 'route', text: `it takes the rule ${found.entry.rule.name}` });
  return { steps, policies: seen, reason, entry: found.entry };
}
