/**
 * Judges a recorded decision anew, under other policies and routes, with the functions that the data path decides with. What the record lacks
 * is assumed to be in favour, and then against: where both come to the same, it is known, and `unknown` where they do not. Pure.
 */
import { formatSocketAddress } from '../base/address.ts';
import type { OutcomeCode } from '../base/errors.ts';
import { parseSpiffeId } from '../base/spiffe.ts';
import { claimKey } from './asked.ts';
import { decideHttp, type HttpVerdict, policiesNeedServerName } from './http-authorization.ts';
import type { Attribute, CompiledAuthorization, CompiledEntry, CompiledRoutes } from './http-model.ts';
import { matchRoute, type RoutedRequest } from './http-route.ts';
import type { DecidedRequestFacts, Decision } from './journal.ts';
import type { VerifiedToken } from './jwt.ts';
import type { Workload } from './mesh-view.ts';
import { decidePolicy, type PolicyView } from './policy.ts';
import { transportPart } from './transport-policy.ts';

export interface Judgement {
  readonly outcome: 'allowed' | 'refused' | 'unknown';
  /** Of the table of errors; where it is refused. */
  readonly code: string;
  /** namespace/name of the policy that decides; empty where none does. */
  readonly policy: string;
  /** Name of the route's rule; empty where there is none, or where no route is asked. */
  readonly route: string;
  /** Why it is refused, or what is not known. */
  readonly reason: string;
}

export const unknown = (reason: string): Judgement => ({ outcome: 'unknown', code: '', policy: '', route: '', reason });

/** A connection at its pod. */
export function judgeConnection(view: PolicyView, local: Workload, decision: Decision): Judgement {
  const { sourceIp, identity, ip, port } = decision;
  const verdict = decidePolicy(view, local, {
    source: { ip: sourceIp, port: 0 },
    identity: parseSpiffeId(identity),
    destination: { ip, port },
  });
  return judged(verdict.allowed, verdict.policy, verdict.reason, verdict.code);
}

const judged = (allowed: boolean, policy: string | undefined, reason: string, code: OutcomeCode | undefined, route = ''): Judgement => ({
  outcome: allowed ? 'allowed' : 'refused',
  code: allowed ? '' : (code ?? 'POLICY_DENIED'),
  policy: policy ?? '',
  route,
  reason: allowed ? '' : reason,
});

const NO_REQUEST: RoutedRequest = { method: '', scheme: '', authority: '', path: '', fields: [] };

/** A connection that carries no HTTP, at a waypoint. @param policies of its service */
export function judgeBytes(policies: readonly CompiledAuthorization[], decision: Decision): Judgement {
  const rules = policies.map(transportPart);
  const caller = { ...callerOf(decision), serverName: 'unknown' } as const;
  const { allowed, policy, reason } = decideHttp(rules, NO_REQUEST, caller, destinationOf(decision));
  if (!allowed && policiesNeedServerName(rules)) return unknown('rules ask for the server name of TLS, which was not recorded');
  if (allowed && !decideHttp(asDeny(rules), NO_REQUEST, caller, destinationOf(decision)).allowed) return unknown(ASKS_SOMEBODY);
  return judged(allowed, policy, reason, undefined);
}

const ASKS_SOMEBODY = 'a CUSTOM policy asks a server, and what that would say is not recorded';

export interface JudgedRequest {
  /** Of its service, or of the waypoint. */
  readonly policies: readonly CompiledAuthorization[];
  readonly routes: CompiledRoutes | undefined;
  readonly decision: Decision;
  readonly request: DecidedRequestFacts;
  /** Of the caller's workload. */
  label(name: string): string | undefined;
}

/** A request at a waypoint. */
export function judgeRequest({ policies, routes, decision, request, label }: JudgedRequest): Judgement {
  const routed = requestOf(request);
  const missing = new Set<string>();
  const known = knownOf(request, missing);
  const caller = { ...callerOf(decision), token: tokenOf(request) };
  const destination = destinationOf(decision);
  const decide = (favour: boolean): HttpVerdict =>
    decideHttp(
      policies.map((policy) => assume(policy, known, (policy.action === 'DENY') !== favour)),
      routed,
      caller,
      destination,
    );
  const [lenient, strict] = [decide(true), decide(false)];
  if (lenient.allowed !== strict.allowed) return unknown(`rules ask for ${[...missing].sort().join(', ')}, which was not recorded`);
  if (!lenient.allowed) return judged(false, lenient.policy === strict.policy ? lenient.policy : undefined, lenient.reason, undefined);
  const customs = asDeny(policies).map((policy) => assume(policy, known, true));
  if (customs.length > 0 && !decideHttp(customs, routed, caller, destination).allowed) return unknown(ASKS_SOMEBODY);
  const policy = lenient.policy === strict.policy ? lenient.policy : undefined;
  missing.clear();
  const source = { namespace: parseSpiffeId(decision.identity)?.namespace ?? '', label };
  const [wide, narrow] = [true, false].map((favour) => matchRoute(assumeRoutes(routes, known, favour), decision.port, routed, source));
  const [ruleWide, ruleNarrow] = [ruleOf(wide), ruleOf(narrow)];
  if (ruleWide !== ruleNarrow) return unknown(`routes ask for ${[...missing].sort().join(', ')}, which was not recorded`);
  if (ruleWide === undefined) {
    const place = formatSocketAddress({ ip: decision.service || decision.ip, port: decision.port });
    return { ...judged(false, policy, `no route of ${place} matches`, 'ROUTE_UNMATCHED'), policy: '' };
  }
  return judged(true, policy, '', undefined, ruleWide);
}

/** @returns undefined where there are routes and none of them matches */
function ruleOf(found: ReturnType<typeof matchRoute> | undefined): string | undefined {
  if (found === undefined || found === 'no-routes') return '';
  return found === 'no-match' ? undefined : found.entry.rule.name;
}

const asDeny = (policies: readonly CompiledAuthorization[]): CompiledAuthorization[] =>
  policies.flatMap((policy) => (policy.action === 'CUSTOM' && !policy.dryRun ? [{ ...policy, action: 'DENY' as const }] : []));

const callerOf = ({ identity, sourceIp }: Decision) => ({ identity: parseSpiffeId(identity), ip: sourceIp });

const destinationOf = ({ service, ip, port }: Decision) => ({
  service: service === '' ? undefined : service,
  ip: ip === '' ? undefined : ip,
  port,
});

function requestOf({ method, host, path, headers, query }: DecidedRequestFacts): RoutedRequest {
  const fields = Object.entries(headers).flatMap(([name, value]) => (value === null ? [] : [name, value]));
  const parameters = new URLSearchParams(Object.entries(query).flatMap(([name, value]) => (value === null ? [] : [[name, value]])));
  return { method, scheme: 'http', authority: host, path: `${path ?? '/'}${parameters.size > 0 ? `?${parameters}` : ''}`, fields };
}

function tokenOf({ token }: DecidedRequestFacts): VerifiedToken | undefined {
  if (!token) return undefined;
  const claims: Record<string, unknown> = {};
  for (const [key, values] of Object.entries(token.claims)) setClaim(claims, JSON.parse(key) as string[], values);
  return {
    principal: token.principal ?? '',
    audiences: token.audiences ?? [],
    presenter: token.presenter ?? '',
    claims,
    payload: '',
    expiresAt: undefined,
  };
}

function setClaim(into: Record<string, unknown>, names: readonly string[], values: readonly string[]): void {
  const [first = '', ...rest] = names;
  if (rest.length === 0) {
    into[first] = values;
    return;
  }
  const inner = (typeof into[first] === 'object' && !Array.isArray(into[first]) ? into[first] : {}) as Record<string, unknown>;
  into[first] = inner;
  setClaim(inner, rest, values);
}

interface Known {
  readonly path: boolean;
  readonly principal: boolean;
  header(name: string): boolean;
  query(name: string): boolean;
  attribute(attribute: Attribute): boolean;
}

/** @param missing gets the names of what was asked for and is not known */
function knownOf({ path, headers, query, token, complete = false }: DecidedRequestFacts, missing: Set<string>): Known {
  const noted = (known: boolean, name: string): boolean => {
    if (!known && !complete) missing.add(name);
    return known || complete;
  };
  const header = (name: string): boolean => noted(Object.hasOwn(headers, name), `header ${name}`);
  const parameter = (name: string): boolean => noted(Object.hasOwn(query, name), `query parameter ${name}`);
  return {
    get path() {
      return noted(path !== null, 'the path');
    },
    get principal() {
      return noted(token === undefined || token.principal !== null, "the token's principal");
    },
    header,
    query: parameter,
    attribute(attribute) {
      if ('header' in attribute) return header(attribute.header);
      if ('query' in attribute) return parameter(attribute.query);
      if ('claim' in attribute)
        return noted(token === undefined || Object.hasOwn(token.claims, claimKey(attribute.claim)), `claim ${attribute.claim.join('.')}`);
      switch (attribute.of) {
        case 'requestPrincipal':
          return this.principal;
        case 'audiences':
        case 'presenter':
          return noted(token === undefined || token[attribute.of] !== null, `the token's ${attribute.of}`);
        default:
          return true;
      }
    },
  };
}

/** The policy without the tests that cannot be made: they hold, or they do not. A rule is nothing but tests that must hold. */
function assume(policy: CompiledAuthorization, known: Known, holds: boolean): CompiledAuthorization {
  const rules = policy.rules.flatMap((rule) => {
    const from = rule.from.flatMap((source) => {
      if (source.requestPrincipals.length + source.notRequestPrincipals.length === 0 || known.principal) return [source];
      return holds ? [{ ...source, requestPrincipals: [], notRequestPrincipals: [] }] : [];
    });
    const to = rule.to.flatMap((operation) => {
      if (operation.paths.length + operation.notPaths.length === 0 || known.path) return [operation];
      return holds ? [{ ...operation, paths: [], notPaths: [] }] : [];
    });
    const when = rule.when.filter(({ attribute }) => attribute === undefined || known.attribute(attribute));
    const lost = (rule.from.length > 0 && from.length === 0) || (rule.to.length > 0 && to.length === 0);
    return lost || (!holds && when.length < rule.when.length) ? [] : [{ from, to, when }];
  });
  return { ...policy, rules };
}

/** The same for routes: an entry that asks for what is not known matches by the rest of what it asks for, or not at all. */
function assumeRoutes(routes: CompiledRoutes | undefined, known: Known, holds: boolean): CompiledRoutes | undefined {
  if (!routes) return undefined;
  const ports = [...routes.ports].map(([port, entries]) => [port, entries.flatMap((entry) => assumeEntry(entry, known, holds))] as const);
  return { ...routes, ports: new Map(ports) };
}

function assumeEntry(entry: CompiledEntry, known: Known, holds: boolean): CompiledEntry[] {
  const { match } = entry;
  const { more } = match;
  const headers = match.headers.filter(({ name }) => known.header(name.toLowerCase()));
  const queryParams = match.queryParams.filter(({ name }) => known.query(name));
  const withoutHeaders = more?.withoutHeaders.filter(({ name }) => known.header(name.toLowerCase())) ?? [];
  const path = match.path === undefined || known.path ? match.path : undefined;
  const whole =
    headers.length === match.headers.length &&
    queryParams.length === match.queryParams.length &&
    withoutHeaders.length === (more?.withoutHeaders.length ?? 0) &&
    path === match.path;
  if (whole) return [entry];
  if (!holds) return [];
  return [{ ...entry, match: { ...match, path, headers, queryParams, more: more && { ...more, withoutHeaders } } }];
}
