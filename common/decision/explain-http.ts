/** A waypoint's decisions about one request, told step by step: the functions that the data path asks, asked with words. Pure. */
import { claimValues } from './claims.ts';
import type { PolicySeen, RouteSeen, Step } from './explain.ts';
import { customMatches, decideHttp, Facts, type HttpCaller, type HttpDestination } from './http-authorization.ts';
import type { CompiledAuthorization, CompiledEntry, CompiledRoutes } from './http-model.ts';
import { changePath, matchRoute, type RoutedRequest, redirectAnswer } from './http-route.ts';
import type { TokenFacts } from './journal.ts';
import { authenticateJwt, type CompiledJwtRule, TokenCache, type VerifiedToken, withToken } from './jwt.ts';
import { askLimits, type Buckets, limitRefusal, limitsOfRule, type ServiceLimits, unchanged } from './rate-limit.ts';
import type { RouteSource } from './route-source.ts';

export interface RequestExplanation {
  readonly steps: readonly Step[];
  readonly policies: readonly PolicySeen[];
  readonly allowed: boolean;
  readonly code?: string;
  /** HTTP status of a refusal that has one of its own. */
  readonly status?: number;
  readonly policy?: string;
  readonly reason: string;
  /** Why it cannot be said whether it is allowed; the rest is what comes after that. */
  readonly unknown?: string;
  /** What the token says that it brought, and that is good; the token itself is not repeated. */
  readonly token?: TokenFacts;
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
  /** Rules for tokens. */
  readonly tokens: readonly CompiledJwtRule[];
  /** Seconds since 1970. */
  readonly nowS: number;
  /** Those of its service, and what they are counted in; undefined where there are none. */
  readonly limits: { readonly of: ServiceLimits; readonly buckets: Buckets } | undefined;
}

export interface DecidedRequest {
  readonly steps: readonly Step[];
  readonly policies: readonly PolicySeen[];
  readonly refused?: { readonly code: string; readonly status?: number; readonly policy?: string; readonly reason: string };
  /** Why what becomes of it cannot be said, though nothing here refuses it. */
  readonly unknown?: string;
  readonly token?: TokenFacts;
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
  if (own) return { answers: [...answers, own], rest: 0 };
  const { rule } = entry;
  const total = rule.backends.reduce((sum, { weight }) => sum + weight, 0);
  const redirected = rule.backends.flatMap((backend): RouteSeen[] => {
    const found = backend.redirect && backend.weight > 0 ? redirectAnswer(entry, request, port, backend.redirect) : undefined;
    const message = `a backend of ${rule.name} redirects to ${found?.location}`;
    return found ? [{ via: 'answer', share: (share * backend.weight) / total, status: found.status, message }] : [];
  });
  return { answers: [...answers, ...redirected], rest: redirected.reduce((left, answer) => left - answer.share, share) };
}

/** Token, policy, limits, then the route, as the waypoint does it. */
export function explainRequest(arriving: ArrivingRequest): DecidedRequest {
  const steps: Step[] = [];
  const shown = tokenSeen(arriving, steps);
  if ('refused' in shown) return { steps, policies: [], refused: shown.refused, reason: shown.refused.reason, entry: undefined };
  const { caller } = shown;
  const decided = decidedOf(arriving, shown, steps);
  return caller.token ? { ...decided, token: tokenFacts(caller.token) } : decided;
}

function decidedOf(arriving: ArrivingRequest, { request, caller }: Judged, steps: Step[]): DecidedRequest {
  const { policies, routes, destination, source } = arriving;
  const seen = policiesSeen(policies, request, caller, destination);
  const verdict = decideHttp(policies, request, caller, destination);
  const asked = customMatches(policies, request, caller, destination);
  for (const { key, authorizer, dryRun } of asked)
    steps.push({
      stage: 'policy',
      text: `${key} asks ${authorizer?.name}${dryRun ? ', in dry-run' : ', and what it refuses goes no further'}`,
    });
  if (!verdict.allowed) {
    const refused = { code: 'POLICY_DENIED', ...(verdict.policy !== undefined && { policy: verdict.policy }), reason: verdict.reason };
    return { steps, policies: seen, refused, reason: verdict.reason, entry: undefined };
  }
  const reason = verdict.policy === undefined ? 'no allow policies' : `explicitly allowed by: ${verdict.policy}`;
  const [asking] = asked.filter(({ dryRun }) => !dryRun);
  const unknown = asking && `${asking.key} asks ${asking.authorizer?.name}, and what that will say cannot be predicted`;
  const doubt = unknown === undefined ? {} : { unknown };
  const found = matchRoute(routes, destination.port, request, source);
  const rule = typeof found === 'string' ? undefined : found.entry.rule.name;
  const limited = limitsSeen(arriving, { request, caller, rule }, steps);
  if (limited) return { steps, policies: seen, refused: limited, reason, entry: undefined, ...doubt };
  if (found === 'no-match') {
    const message = `no route of ${destination.service ?? 'the pod'} port ${destination.port} matches ${request.method} ${request.path}`;
    return { steps, policies: seen, refused: { code: 'ROUTE_UNMATCHED', reason: message }, reason, entry: undefined, ...doubt };
  }
  if (found === 'no-routes') {
    steps.push({ stage: 'route', text: 'no route is attached: the service is served as it is' });
    return { steps, policies: seen, reason, entry: undefined, ...doubt };
  }
  steps.push({ stage: 'route', text: `it takes the rule ${found.entry.rule.name}` });
  steps.push(...planSeen(found.entry, request));
  return { steps, policies: seen, reason, entry: found.entry, ...doubt };
}

/** Each policy of those that decide by themselves, with the rule that matches or what each lacks. */
export function policiesSeen(
  policies: readonly CompiledAuthorization[],
  request: RoutedRequest,
  caller: HttpCaller,
  destination: HttpDestination,
): PolicySeen[] {
  return policies.flatMap((policy): PolicySeen[] => {
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
}

/** In the form in which recorded decisions have it, with every claim that has a value. */
function tokenFacts({ principal, audiences, presenter, claims }: VerifiedToken): TokenFacts {
  const found: Record<string, readonly string[]> = {};
  const visit = (value: unknown, names: readonly string[]): void => {
    if (typeof value === 'object' && value !== null && !Array.isArray(value) && names.length < MAX_DEPTH)
      for (const [name, inner] of Object.entries(value)) visit(inner, [...names, name]);
    else found[JSON.stringify(names)] = claimValues(claims, names);
  };
  visit(claims, []);
  return { principal, audiences, presenter, claims: found };
}

const MAX_DEPTH = 8;

type Judged = { readonly request: RoutedRequest; readonly caller: HttpCaller };

/** What its token says is part of the request from here on; the token itself is told to nobody. */
function tokenSeen(
  { tokens, nowS, request, caller }: ArrivingRequest,
  steps: Step[],
): Judged | { readonly refused: NonNullable<DecidedRequest['refused']> } {
  if (tokens.length === 0) return { request, caller };
  const verdict = authenticateJwt(tokens, request, nowS, new TokenCache());
  const issuers = [...new Set(tokens.map(({ issuer }) => issuer))].join(', ');
  if (verdict.at === 'refused') {
    steps.push({ stage: 'token', text: `it brings a token that is not good: ${verdict.reason}` });
    return { refused: { code: 'TOKEN_INVALID', status: verdict.status, reason: verdict.reason } };
  }
  const changed = { ...request, ...withToken(request, tokens, verdict) };
  if (verdict.at === 'absent') {
    steps.push({ stage: 'token', text: `it brings no token (of ${issuers}), and has no request principal` });
    return { request: changed, caller };
  }
  steps.push({ stage: 'token', text: `its token is good: it is of ${verdict.token.principal}` });
  return { request: { ...changed, claims: verdict.token.claims }, caller: { ...caller, token: verdict.token } };
}

/** What limits would say of it now, without counting it. @returns the refusal of the one that has no more to give */
function limitsSeen(
  { limits, destination }: ArrivingRequest,
  { request, caller, rule }: Judged & { readonly rule: string | undefined },
  steps: Step[],
): DecidedRequest['refused'] {
  if (!limits) return undefined;
  const outcomes = askLimits(limitsOfRule(limits.of, rule), new Facts(request, caller, destination), unchanged(limits.buckets));
  for (const { limit, allowed, remaining } of outcomes) {
    const left = allowed
      ? `of which there are ${remaining} now`
      : limit.dryRun
        ? 'of which none is left: it would be refused'
        : 'of which none is left';
    steps.push({ stage: 'limit', text: `${limitRefusal(limit)}, ${left}` });
  }
  const refusing = outcomes.find(({ limit, allowed }) => !allowed && !limit.dryRun);
  return refusing && { code: 'RATE_LIMITED', status: 429, policy: refusing.limit.policy, reason: limitRefusal(refusing.limit) };
}

function planSeen(entry: CompiledEntry, { path }: RoutedRequest): Step[] {
  const { plan, rule } = entry;
  const text: string[] = [];
  if (plan.fault && plan.fault.delayPerMillion > 0)
    text.push(`${plan.fault.delayPerMillion / 10_000}% of requests are delayed by ${plan.fault.delayMs} ms, on purpose`);
  if (rule.requestTimeoutMs > 0) text.push(`the whole of it may take ${rule.requestTimeoutMs} ms`);
  if (plan.retry && plan.retry.attempts > 0) text.push(`what fails is tried ${plan.retry.attempts} times more`);
  if (rule.rewrite) text.push(`what is sent has the path ${changePath(path, rule.rewrite.path, entry)}`);
  for (const { to, rewrite } of rule.backends)
    if (rewrite && to) text.push(`what is sent to ${to.namespace}/${to.hostname} has the path ${changePath(path, rewrite.path, entry)}`);
  return text.map((each) => ({ stage: 'route', text: each }));
}
