/**
 * L7 authorization: every request is judged by the policies of its service and of the waypoint as they are at that moment. Where a CUSTOM policy
 * matches, its server is asked first, and what it makes of the request is what the others, and routes, see (Istio: CUSTOM, DENY, ALLOW).
 */
import { ProxyError } from '../../common/base/errors.ts';
import { type CheckVerdict, type CompiledAuthorizer, changedFields, changedQuery } from '../../common/decision/authorizer.ts';
import { customMatches, decideHttp, type HttpCaller, type HttpDestination } from '../../common/decision/http-authorization.ts';
import type { CompiledAuthorization } from '../../common/decision/http-model.ts';
import type { Configuration } from '../worker/configuration.ts';
import { AuthorizerRefused } from './authorizer-refused.ts';
import { type AuthorizerParts, askAuthorizer } from './authorizers.ts';
import type { Answer, Handler, RequestContext, Stage } from './context.ts';

export interface AuthorizeParts extends AuthorizerParts {
  readonly configuration: Pick<Configuration, 'policiesOf'>;
  /** A server was asked. */
  checked?(policy: string, provider: string, outcome: 'allowed' | 'denied' | 'failed'): void;
}

export function authorize(parts: AuthorizeParts): Stage {
  return (next) => (request) => {
    request.judged = request.head;
    const policies = parts.configuration.policiesOf(request.connection.target.serviceKey);
    if (policies.length === 0) return next(request);
    // CUSTOM policies come first in the list.
    if (policies[0]?.action === 'CUSTOM') return askFirst(parts, policies, request, next);
    return decide(policies, request, next);
  };
}

function decide(policies: readonly CompiledAuthorization[], request: RequestContext, next: Handler): ReturnType<Handler> {
  // As servers have left it.
  request.judged = request.head;
  const verdict = decideHttp(policies, request.head, callerOf(request), destinationOf(request));
  request.wouldDeny = request.wouldDeny.length > 0 ? [...request.wouldDeny, ...verdict.wouldDeny] : verdict.wouldDeny;
  request.audited = verdict.audited;
  request.policy = verdict.policy;
  if (verdict.allowed) return next(request);
  const options = verdict.policy === undefined ? {} : { policy: verdict.policy };
  return Promise.reject(new ProxyError('POLICY_DENIED', verdict.reason, options));
}

async function askFirst(
  parts: AuthorizeParts,
  policies: readonly CompiledAuthorization[],
  request: RequestContext,
  next: Handler,
): Promise<Answer> {
  const asked = new Set<CompiledAuthorizer['name']>();
  for (const policy of customMatches(policies, request.head, callerOf(request), destinationOf(request))) {
    const { authorizer } = policy;
    if (!authorizer || (asked.has(authorizer.name) && !policy.dryRun)) continue;
    const verdict = await ask(parts, authorizer, request);
    if (request.cancelled) throw request.cancelled;
    parts.checked?.(policy.key, authorizer.name, verdict.at);
    if (policy.dryRun) {
      if (verdict.at === 'denied' || (verdict.at === 'failed' && !authorizer.failOpen))
        request.wouldDeny = [...request.wouldDeny, policy.key];
      continue;
    }
    asked.add(authorizer.name);
    apply(verdict, policy, authorizer, request);
  }
  return decide(policies, request, next);
}

async function ask(parts: AuthorizeParts, authorizer: CompiledAuthorizer, request: RequestContext): Promise<CheckVerdict> {
  const body = authorizer.body && (await beginning(request, authorizer.body.maxBytes));
  if (request.cancelled) throw request.cancelled;
  // Part of it is gone, so it cannot go on either.
  if (body === 'lost') throw new ProxyError('OVERLOADED', 'bodies that authorization servers are to see need more room than there is');
  if (body && !body.whole && !authorizer.body?.allowPartial)
    return { at: 'denied', status: 413, fields: [], body: `the body is longer than ${authorizer.body?.maxBytes} bytes` };
  const { head, connection, requestId, startedAt } = request;
  // A gRPC server is told which part of a body it sees (Envoy).
  const partial = body ? [...head.fields, 'x-envoy-auth-partial-body', String(!body.whole)] : head.fields;
  const told = { head: { ...head, fields: partial }, connection, requestId, startedAt, body: body?.bytes };
  return askAuthorizer(parts, authorizer, told, request.signal);
}

const beginning = (request: RequestContext, maxBytes: number): Promise<{ bytes: Buffer; whole: boolean } | 'lost'> =>
  new Promise((resolve) => request.body.beginning(maxBytes, resolve));

/** @throws {AuthorizerRefused} where the request goes no further */
function apply(verdict: CheckVerdict, policy: CompiledAuthorization, authorizer: CompiledAuthorizer, request: RequestContext): void {
  const { name } = authorizer;
  switch (verdict.at) {
    case 'denied':
      throw new AuthorizerRefused('AUTHORIZER_DENIED', `${name} refused it with ${verdict.status}, asked by ${policy.key}`, {
        policy: policy.key,
        status: verdict.status,
        fields: verdict.fields,
        body: verdict.body,
      });
    case 'failed':
      if (authorizer.failOpen) return;
      throw new AuthorizerRefused('AUTHORIZER_FAILED', `${name}, asked by ${policy.key}: ${verdict.reason}`, {
        policy: policy.key,
        status: authorizer.statusOnError,
      });
    case 'allowed': {
      const { changes, remove, query, responseChanges } = verdict;
      const { head } = request;
      if (changes.length + remove.length > 0) request.head = { ...head, fields: changedFields(head.fields, changes, remove) };
      if (query) request.head = { ...request.head, path: changedQuery(head.path, query) };
      if (responseChanges.length > 0) request.responseChanges = [...(request.responseChanges ?? []), ...responseChanges];
    }
  }
}

const callerOf = ({ connection: { caller }, token }: RequestContext): HttpCaller => ({
  identity: caller.identity,
  ip: caller.address.ip,
  token,
});

const destinationOf = ({ connection: { target } }: RequestContext): HttpDestination => ({
  service: target.serviceKey,
  ip: target.ip,
  port: target.port,
});
