/** A waypoint's decisions about one request, told step by step: the functions that the data path asks, asked with words. Pure. */
import type { PolicySeen, RouteSeen, Step } from './explain.ts';
import { customMatches, decideHttp, type HttpCaller, type HttpDestination } from './http-authorization.ts';
import type { CompiledAuthorization, CompiledEntry, CompiledRoutes } from './http-model.ts';
import { changePath, matchRoute, type RoutedRequest, redirectAnswer } from './http-route.ts';
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

type HttpRulePart = CompiledAuthorization['rules'][number];

/** Which parts of a rule do not hold by themselves. */
function unmetOf(rule: HttpRulePart, holds: (part: HttpRulePart) => boolean): string {
  const nothing: HttpRulePart = { from: [], to: [], when: [] };
  const parts = [
    ...(holds({ ...nothing, from: rule.from }) ? [] : ['the caller is none of its sources (from)']),
    ...(holds({ ...nothing, to: rule.to }) ? [] : ['the request is none of its operations (to)']),
    ...rule.when.flatMap((condition) => (holds({ ...nothing, when: [condition] }) ? [] : [`${condition.key} is not as it asks (when)`])),
  ];
  return parts.join(', and ');
}

/**
 * What a rule answers itself, each with its share of all requests, and the share that goes on to a backend.
 * @param port that the request came to
 */
export function answersOf(
  entry: CompiledEntry,
  request: RoutedRequest,
  port: number,
): { readonly answers: readonly RouteSeen[]; readonly rest: number } {
  const { fault } = entry.plan;
  const aborted = (fault?.abortPerMillion ?? 0) / 1_000_000;
  const answers: RouteSeen[] =
    fault && aborted > 0
      ? [
          {
            via: 'answer',
            share: aborted,
            code: 'FAULT_INJECTED',
            status: fault.abortGrpcStatus === undefined ? fault.abortStatus : 200,
            message: `${entry.rule.name} answers with an error on purpose${fault.abortGrpcStatus === undefined ? '' : `: grpc-status ${fault.abortGrpcStatus}`}`,
          },
        ]
      : [];
  const share = 1 - Math.min(aborted, 1);
  const redirect = redirectAnswer(entry, request, port);
  const own: RouteSeen | undefined = redirect
    ? { via: 'answer', share, status: redirect.status, message: `${entry.rule.name} redirects to ${redirect.location}` }
    : entry.rule.directAnswer && {
        via: 'answer',
        share,
        status: entry.rule.directAnswer.status,
        message: `${entry.rule.name} answers itself`,
      };
  if (share === 0) return { answers, rest: 0 };
  return own ? { answers: [...answers, own], rest: 0 } : { answers, rest: share };
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
    /** Whether a rule, or a part of one, holds: as the only one of a DENY it refuses then. */
    const holds = (rule: HttpRulePart): boolean =>
      !decideHttp([{ ...policy, action: 'DENY', dryRun: false, rules: [rule] }], request, caller, destination).allowed;
    const at = policy.rules.findIndex(holds);
    const unmet = matched ? [] : policy.rules.map((rule, i) => `rule ${i + 1}: ${unmetOf(rule, holds)}`);
    return [{ policy: policy.key, action, dryRun: policy.dryRun, matched, ...(matched && at >= 0 && { rule: at + 1 }), unmet }];
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
  const { plan, rule } = found.entry;
  if (plan.fault && plan.fault.delayPerMillion > 0)
    steps.push({
      stage: 'route',
      text: `${plan.fault.delayPerMillion / 10_000}% of requests are delayed by ${plan.fault.delayMs} ms, on purpose`,
    });
  if (rule.requestTimeoutMs > 0) steps.push({ stage: 'route', text: `the whole of it may take ${rule.requestTimeoutMs} ms` });
  if (plan.retry && plan.retry.attempts > 0) steps.push({ stage: 'route', text: `what fails is tried ${plan.retry.attempts} times more` });
  if (rule.rewrite)
    steps.push({ stage: 'route', text: `what is sent has the path ${changePath(request.path, rule.rewrite.path, found.entry)}` });
  return { steps, policies: seen, reason, entry: found.entry };
}
