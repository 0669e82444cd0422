/**
 * AuthorizationPolicies as Istio's own tests have them: its golden files decide requests through an evaluator of Envoy's RBAC, our translation and our
 * decision decide the same requests, and the verdicts are compared. The requests are made from the values that the policies name. Each case is
 * asked twice: as written, and without what is negated, since the largest policies contradict themselves and match nothing as they are.
 */
import { loadAll } from 'js-yaml';
import { parseSpiffeId } from '../../../common/base/spiffe.ts';
import { type Authorizer, HttpAuthorization } from '../../../common/codec/gen/waypoint.ts';
import { customMatches, decideHttp } from '../../../common/decision/http-authorization.ts';
import { type CompiledAuthorization, compileAuthorization } from '../../../common/decision/http-model.ts';
import { principalOf } from '../../../common/decision/jwt.ts';
import { transportPart } from '../../../common/decision/transport-policy.ts';
import { readHttpPolicy } from '../../../istiod-lite/model/http-policy.ts';
import { evaluate, type RbacRequest, type RbacVerdict } from '../../support/envoy-rbac.ts';
import { requestsFor } from '../../support/policy-requests.ts';
import { attempt, type CaseResult, type Cases, type Suite } from '../suite.ts';

type Json = Readonly<Record<string, unknown>>;

interface BuilderCase {
  readonly name: string;
  readonly input: string;
  readonly want: readonly string[];
}

const FOLDER = 'istio/pilot/pkg/security/authz/builder/testdata';

/** What is not compared, with the reason. */
const NOT_COMPARED: Readonly<Record<string, string>> = {
  'http/custom-bad-multiple-providers':
    'Istio denies where two policies name two providers; our waypoint asks each of them (a test of our own)',
  'http/trust-domain-aliases-in-source-principal':
    'the mesh configuration’s trustDomainAliases are not read: a policy names each trust domain',
  'http/trust-domain-wildcard-in-principal': 'the mesh configuration’s trustDomainAliases are not read: a policy names each trust domain',
  'tcp/custom-both-http-tcp': 'Istio asks the server about bytes; our waypoint refuses what it cannot ask about',
  'tcp/custom-only-http': 'Istio lets bytes pass which a CUSTOM policy about HTTP concerns; our waypoint refuses them',
};

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const protocol of ['http', 'tcp'] as const) {
      const file = `istio/derived/authz-builder-${protocol}.json`;
      const { cases: list } = JSON.parse(cases.read(file)) as { readonly cases: readonly BuilderCase[] };
      for (const one of list) {
        const name = `${protocol}/${one.name}`;
        const reason = NOT_COMPARED[name];
        if (reason) yield { case: name, verdict: 'skip', reason };
        else if (!cases.has(`${FOLDER}/${protocol}/${one.input}`))
          yield { case: name, verdict: 'skip', reason: `${one.input} is not there` };
        else yield attempt(name, () => compared(name, protocol, cases, one));
      }
    }
  },
};

function compared(name: string, protocol: 'http' | 'tcp', cases: Cases, { input, want }: BuilderCase): CaseResult {
  const read = (file: string): Json[] =>
    (loadAll(cases.read(`${FOLDER}/${protocol}/${file}`)) as (Json | null)[])
      .filter((one) => one !== null)
      .map((one) => withIdentities(one));
  const [objects, filters] = [read(input), want.flatMap(read)];
  for (const positive of [false, true]) {
    const policies = objects.map((object) => ours(positive ? plainPolicy(object) : object, protocol));
    const golden = positive ? (filters.map(plain) as Json[]) : filters;
    for (const request of requestsFor(objects, name)) {
      const [expected, got] = [evaluate(golden, request), decided(policies, request)];
      const wrong = Object.keys(expected).find((key) => expected[key as keyof RbacVerdict] !== got[key as keyof RbacVerdict]);
      if (wrong !== undefined) {
        const how = positive ? ' without negations' : '';
        const reason = `${wrong}${how}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)} for ${JSON.stringify(request)}`;
        return { case: name, verdict: 'fail', reason };
      }
    }
  }
  return { case: name, verdict: 'pass', reason: '' };
}

const ASKED: Authorizer = {
  name: 'default',
  to: { namespace: 'foo', hostname: 'authorizer', port: 9000, subset: '' },
  timeoutMs: 0,
  failOpen: false,
  statusOnError: 0,
  grpc: true,
  pathPrefix: '',
  includeHeaders: [],
  additionalHeaders: [],
  toUpstreamOnAllow: [],
  toDownstreamOnDeny: [],
  toDownstreamOnAllow: [],
};

/** Through our translation, the wire, and our compiler. */
function ours(object: Json, protocol: 'http' | 'tcp'): CompiledAuthorization {
  const { action, dryRun, rules, provider } = readHttpPolicy(object, () => undefined);
  const { name, namespace } = object.metadata as { readonly name: string; readonly namespace: string };
  const bytes = HttpAuthorization.encode({
    namespace,
    name,
    action,
    dryRun,
    targets: [{ type: { $case: 'everything', value: {} } }],
    rules: [...rules],
    authorizer: provider === undefined ? undefined : ASKED,
  }).finish();
  const compiled = compileAuthorization(HttpAuthorization.decode(bytes));
  return protocol === 'http' ? compiled : transportPart(compiled);
}

function decided(policies: readonly CompiledAuthorization[], request: RbacRequest): RbacVerdict {
  const { principal, ip, destinationIp, destinationPort, method, authority, path, headers, claims } = request;
  const asked = { method, scheme: 'http', authority, path, fields: Object.entries(headers).flat() };
  const audiences = [claims?.aud].flat().filter((one) => typeof one === 'string');
  const token = claims && {
    principal: principalOf(claims),
    audiences,
    presenter: typeof claims.azp === 'string' ? claims.azp : '',
    claims,
    payload: '',
    expiresAt: undefined,
  };
  const caller = { identity: principal === '' ? undefined : parseSpiffeId(`spiffe://${principal}`), ip, token };
  const destination = { service: undefined, ip: destinationIp, port: destinationPort };
  const verdict = decideHttp(policies, asked, caller, destination);
  const dry = policies.filter(({ dryRun }) => dryRun);
  const would = (action: string): readonly string[] => dry.filter((policy) => policy.action === action).map(({ key }) => key);
  return {
    allowed: verdict.allowed,
    audited: verdict.audited.length > 0,
    wouldDeny: would('DENY').some((key) => verdict.wouldDeny.includes(key)),
    wouldNotAllow: would('ALLOW').length > 0 && would('ALLOW').every((key) => verdict.wouldDeny.includes(key)),
    asked: customMatches(policies, asked, caller, destination).length > 0,
  };
}

/** Principals such as `deny`, which no workload of a mesh can have, get the form of an identity: in the policies and in what is expected of them. */
function withIdentities<T>(value: T, key = ''): T {
  if (Array.isArray(value)) return value.map((one) => withIdentities<unknown>(one, key)) as T;
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(
      Object.entries(value).map(([name, one]) => [name, withIdentities<unknown>(one, name === 'exact' ? key : name)]),
    ) as T;
  const bare = /^(spiffe:\/\/)?([^/*]+)$/.exec(typeof value === 'string' ? value : '');
  const isPrincipal = key === 'principals' || key === 'principalName';
  return bare && isPrincipal ? (`${bare[1] ?? ''}cluster.local/ns/ns/sa/${bare[2]}` as T) : value;
}

function plainPolicy(policy: Json): Json {
  const spec = policy.spec as Json | undefined;
  // A rule that says nothing is one that takes everything.
  return Array.isArray(spec?.rules) ? { ...policy, spec: { ...spec, rules: spec.rules.map(plain) } } : policy;
}

/** Of a policy, or of Envoy's configuration: without the parts that say what must not be, and without those about what requests in a tunnel lack. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain).filter((one) => !saysNothing(one));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => !/^not[A-Z]/.test(key))
      .map(([key, one]) => [key, plain(one)]),
  );
}

function saysNothing(part: unknown): boolean {
  if (typeof part !== 'object' || part === null) return false;
  const { requestedServerName, metadata, key, values, ...rest } = part as Json;
  if (requestedServerName !== undefined) return true;
  if (metadata !== undefined) return (metadata as Json).filter !== 'envoy.filters.http.jwt_authn';
  if (typeof key === 'string' && Object.keys(rest).length === 0 && Object.keys(part).length > 1)
    return !Array.isArray(values) || /^(?:experimental|connection)\./.test(key);
  const children = Object.values(part);
  const inner = children.length === 1 && typeof children[0] === 'object' && children[0] !== null ? children[0] : undefined;
  const lists = inner && !Array.isArray(inner) ? Object.values(inner) : [];
  return children.length === 0 || (inner !== undefined && !('key' in part) && (lists.length === 0 ? isBare(inner) : lists.every(isNone)));
}

const isNone = (value: unknown): boolean => Array.isArray(value) && value.length === 0;
const isBare = (value: object): boolean => Object.keys(value).length === 0;
