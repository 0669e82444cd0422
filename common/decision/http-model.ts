/**
 * Routes and L7 policies in the form that requests are decided with: compiled once when a resource arrives, so that a request costs
 * comparisons and nothing else. Regular expressions are RE2's subset (no look-around, no back-references), as Envoy takes them.
 */

import { type Cidr, parseCidr } from '../base/address.ts';
import { errorMessage } from '../base/errors.ts';
import {
  Action,
  type Condition,
  type HttpAuthorization,
  type HttpMatch,
  type HttpRule,
  type ServiceRoutes,
  type TextMatch,
  type ValueMatch,
} from '../codec/gen/waypoint.ts';
import { type CompiledAuthorizer, compileAuthorizer } from './authorizer.ts';
import { type CompiledConnectionRule, compileConnectionRule } from './connection-route.ts';
import { compilePlan, type RulePlan } from './http-rule.ts';
import { compileSource, type SourceTest } from './route-source.ts';
import type { TextTest } from './text-test.ts';

export type PathTest =
  | { readonly exact: string }
  | { readonly prefix: string }
  /** By letters; with a pattern, that one is tried instead. */
  | { readonly textPrefix: string; readonly pattern: RegExp | undefined }
  | { readonly regex: RegExp };

export type TextPattern =
  | { readonly exact: string }
  | { readonly regex: RegExp }
  | { readonly prefix: string }
  | { readonly present: true };

export interface ValueTest {
  readonly name: string;
  readonly test: TextPattern;
}

/** What only few routes ask for. */
export interface MoreMatch {
  readonly withoutHeaders: readonly ValueTest[];
  readonly authority: TextPattern | undefined;
  readonly scheme: TextPattern | undefined;
  readonly method: TextPattern | undefined;
  readonly source: SourceTest | undefined;
  /** Claims of the request's token, some value of which must fit; or none may. */
  readonly claims: readonly ClaimTest[];
}

export interface ClaimTest {
  /** The outermost first. */
  readonly path: readonly string[];
  readonly test: TextPattern;
  readonly wanted: boolean;
}

export interface CompiledMatch {
  readonly path: PathTest | undefined;
  /** Empty for any. */
  readonly method: string;
  readonly headers: readonly ValueTest[];
  readonly queryParams: readonly ValueTest[];
  readonly more: MoreMatch | undefined;
}

export interface CompiledEntry {
  readonly match: CompiledMatch;
  readonly rule: HttpRule;
  readonly plan: RulePlan;
}

/** Routes of one service by port; port 0 stands for every port without an entry. */
export interface CompiledRoutes {
  readonly service: string;
  readonly ports: ReadonlyMap<number, readonly CompiledEntry[]>;
  /** For connections that carry no HTTP, likewise; ports without such rules are not in it. */
  readonly connections: ReadonlyMap<number, readonly CompiledConnectionRule[]>;
}

/** @throws {Error} that says which entry cannot be compiled and why; the resource is then rejected as a whole */
export function compileRoutes(routes: ServiceRoutes): CompiledRoutes {
  const ports = routes.ports.flatMap(({ port, table, rules, connections }) => {
    const plans = rules.map((rule) => compilePlan(rule, compileRegex));
    const entries = table.map(({ match, rule: index }, at): CompiledEntry => {
      const [rule, plan] = [rules[index], plans[index]];
      if (!rule || !plan) throw new Error(`port ${port}, entry ${at}: there is no rule ${index}`);
      return { match: compileMatch(match, `port ${port}, rule ${rule.name}`), rule, plan };
    });
    // Rules for bytes alone leave HTTP as it is.
    return table.length === 0 && connections.length > 0 ? [] : [[port, entries] as const];
  });
  const connections = routes.ports.flatMap(({ port, connections: rules }) =>
    rules.length === 0 ? [] : [[port, rules.map(compileConnectionRule)] as const],
  );
  return { service: `${routes.namespace}/${routes.hostname}`, ports: new Map(ports), connections: new Map(connections) };
}

function compileMatch(match: HttpMatch | undefined, where: string): CompiledMatch {
  const value =
    (kind: string) =>
    (entry: ValueMatch): ValueTest => ({ name: entry.name, test: compileText(entry, `${where}, ${kind} ${entry.name}`) });
  return {
    path: compilePath(match, where),
    method: match?.method ?? '',
    headers: (match?.headers ?? []).filter(isField).map(value('header')),
    queryParams: (match?.queryParams ?? []).map(value('query parameter')),
    more: match && compileMore(match, where, value('header')),
  };
}

function compileMore(match: HttpMatch, where: string, header: (entry: ValueMatch) => ValueTest): MoreMatch | undefined {
  const { withoutHeaders, authority, scheme, methodPattern, source } = match;
  const claims = [...match.headers.map((one) => [one, true] as const), ...withoutHeaders.map((one) => [one, false] as const)].flatMap(
    ([entry, wanted]): ClaimTest[] => {
      const path = claimPath(entry.name);
      return path ? [{ path, test: header(entry).test, wanted }] : [];
    },
  );
  if (withoutHeaders.length + claims.length === 0 && !authority && !scheme && !methodPattern && !source) return undefined;
  return {
    claims,
    withoutHeaders: withoutHeaders.filter(isField).map(header),
    authority: authority && compileText(authority, `${where}, authority`),
    scheme: scheme && compileText(scheme, `${where}, scheme`),
    method: methodPattern && compileText(methodPattern, `${where}, method`),
    source: source && compileSource(source),
  };
}

/** What a header match is about that is none: a claim of the request's token (Istio, JWT claim based routing). No client can send such a field. */
export function claimPath(name: string): string[] | undefined {
  if (!name.startsWith(CLAIMS)) return undefined;
  const rest = name.slice(CLAIMS.length);
  const path = rest.startsWith('[') && rest.endsWith(']') ? rest.slice(1, -1).split('][') : rest.replace(/^\./, '').split('.');
  return path.includes('') ? undefined : path;
}

const CLAIMS = '@request.auth.claims';
const isField = ({ name }: ValueMatch): boolean => claimPath(name) === undefined;

function compileText({ type }: ValueMatch, where: string): TextPattern {
  switch (type?.$case) {
    case 'exact':
      return { exact: type.value };
    case 'prefix':
      return { prefix: type.value };
    case 'presence':
      return { present: true };
    case 'regex':
      return { regex: compileRegex(type.value, where) };
    default:
      throw new Error(`${where}: no value to match`);
  }
}

function compilePath(match: HttpMatch | undefined, where: string): PathTest | undefined {
  const type = match?.path?.type;
  if (type === undefined) return undefined;
  const ignoreCase = match?.path?.ignoreCase === true;
  if (type.$case === 'textPrefix') {
    return { textPrefix: type.value, pattern: ignoreCase ? new RegExp(`^${escapeRegex(type.value)}`, 'i') : undefined };
  }
  if (type.$case === 'exact' && ignoreCase) return { regex: new RegExp(`^${escapeRegex(type.value)}$`, 'i') };
  if (type.$case === 'exact') return { exact: type.value };
  // A prefix is a list of segments: a slash at its end says nothing (Gateway API, PathPrefix).
  if (type.$case === 'prefix') return type.value === '/' || type.value === '' ? undefined : { prefix: type.value.replace(/\/+$/, '') };
  return { regex: compileRegex(type.value, `${where}, path`) };
}

const escapeRegex = (text: string): string => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');

const MAX_REGEX = 1024;
const NOT_RE2 = /\(\?(?:[=!]|<[=!])|\\[1-9]|\\k</;

/** Against the whole text. @throws {Error} for what RE2 does not have, or what is too long */
export function compileRegex(source: string, where: string): RegExp {
  if (source.length > MAX_REGEX) throw new Error(`${where}: the expression is longer than ${MAX_REGEX} characters`);
  if (NOT_RE2.test(source)) throw new Error(`${where}: look-around and back-references are not supported: ${source}`);
  try {
    // Without `u`: only then can V8's linear engine take over an expression that explodes (boundBacktracking).
    return new RegExp(`^(?:${source})$`);
  } catch (error) {
    throw new Error(`${where}: ${errorMessage(error)}`);
  }
}

export interface CompiledSource {
  readonly principals: readonly TextTest[];
  readonly notPrincipals: readonly TextTest[];
  readonly namespaces: readonly TextTest[];
  readonly notNamespaces: readonly TextTest[];
  readonly serviceAccounts: readonly TextTest[];
  readonly notServiceAccounts: readonly TextTest[];
  readonly ipBlocks: readonly Cidr[];
  readonly notIpBlocks: readonly Cidr[];
  readonly requestPrincipals: readonly TextTest[];
  readonly notRequestPrincipals: readonly TextTest[];
  readonly trustDomains: readonly TextTest[];
  readonly notTrustDomains: readonly TextTest[];
  readonly remoteIpBlocks: readonly Cidr[];
  readonly notRemoteIpBlocks: readonly Cidr[];
}

export interface CompiledOperation {
  readonly hosts: readonly TextTest[];
  readonly notHosts: readonly TextTest[];
  readonly ports: readonly number[];
  readonly notPorts: readonly number[];
  readonly methods: readonly TextTest[];
  readonly notMethods: readonly TextTest[];
  readonly paths: readonly TextTest[];
  readonly notPaths: readonly TextTest[];
}

/** Where a condition's value comes from; undefined for a key that is not known. */
export type Attribute =
  | { readonly header: string }
  /** Names of claims, the outermost first. */
  | { readonly claim: readonly string[] }
  | { readonly of: AttributeName }
  | { readonly query: string };

export type AttributeName =
  | 'serverName'
  | 'namespace'
  | 'principal'
  | 'serviceAccount'
  | 'port'
  | 'requestPrincipal'
  | 'audiences'
  | 'presenter'
  | 'ip'
  | 'path'
  | 'method'
  | 'host';

export interface CompiledCondition {
  readonly key: string;
  readonly attribute: Attribute | undefined;
  readonly values: readonly TextTest[];
  readonly notValues: readonly TextTest[];
  /** For keys of addresses; then `values` are not used. */
  readonly ranges: readonly Cidr[] | undefined;
  readonly notRanges: readonly Cidr[] | undefined;
}

export type ActionName = 'ALLOW' | 'DENY' | 'AUDIT' | 'CUSTOM';

const ACTIONS: Readonly<Partial<Record<Action, ActionName>>> = {
  [Action.ALLOW]: 'ALLOW',
  [Action.DENY]: 'DENY',
  [Action.AUDIT]: 'AUDIT',
  [Action.CUSTOM]: 'CUSTOM',
};

export interface CompiledAuthorization {
  /** namespace/name. */
  readonly key: string;
  readonly action: ActionName;
  readonly dryRun: boolean;
  /** Of CUSTOM. */
  readonly authorizer: CompiledAuthorizer | undefined;
  /** Services (namespace/hostname) that it holds for; undefined for everything that the waypoint serves. */
  readonly services: ReadonlySet<string> | undefined;
  readonly rules: readonly {
    readonly from: readonly CompiledSource[];
    readonly to: readonly CompiledOperation[];
    readonly when: readonly CompiledCondition[];
  }[];
}

/** @throws {Error} that names the field; the resource is then rejected as a whole, since half a policy is another policy */
export function compileAuthorization(policy: HttpAuthorization): CompiledAuthorization {
  const action = ACTIONS[policy.action];
  if (!action) throw new Error(`unknown action ${policy.action}`);
  const everything = policy.targets.some(({ type }) => type?.$case === 'everything');
  const services = policy.targets.flatMap(({ type }) => (type?.$case === 'service' ? [type.value] : []));
  return {
    key: `${policy.namespace}/${policy.name}`,
    action,
    dryRun: policy.dryRun,
    authorizer: authorizerOf(policy),
    services: everything ? undefined : new Set(services),
    rules: policy.rules.map(({ from, to, when }) => ({
      from: from.map((source) => ({
        principals: tests(source.principals),
        notPrincipals: tests(source.notPrincipals),
        namespaces: tests(source.namespaces),
        notNamespaces: tests(source.notNamespaces),
        serviceAccounts: tests(source.serviceAccounts),
        notServiceAccounts: tests(source.notServiceAccounts),
        ipBlocks: ranges(source.ipBlocks, 'ipBlocks'),
        notIpBlocks: ranges(source.notIpBlocks, 'notIpBlocks'),
        requestPrincipals: tests(source.requestPrincipals),
        notRequestPrincipals: tests(source.notRequestPrincipals),
        trustDomains: tests(source.trustDomains),
        notTrustDomains: tests(source.notTrustDomains),
        remoteIpBlocks: ranges(source.remoteIpBlocks, 'remoteIpBlocks'),
        notRemoteIpBlocks: ranges(source.notRemoteIpBlocks, 'notRemoteIpBlocks'),
      })),
      to: to.map((operation) => ({
        hosts: hostTests(operation.hosts),
        notHosts: hostTests(operation.notHosts),
        ports: operation.ports,
        notPorts: operation.notPorts,
        methods: tests(operation.methods),
        notMethods: tests(operation.notMethods),
        paths: tests(operation.paths),
        notPaths: tests(operation.notPaths),
      })),
      when: when.map((condition) => compileCondition(condition, attributeOf)),
    })),
  };
}

function authorizerOf({ action, authorizer }: HttpAuthorization): CompiledAuthorizer | undefined {
  if (action !== Action.CUSTOM) return undefined;
  if (!authorizer?.to) throw new Error('CUSTOM without a server to ask');
  return compileAuthorizer(authorizer, tests);
}

/** @throws {Error} for a range that is none */
export function compileCondition(
  { key, values, notValues }: Condition,
  attribute: (key: string) => Attribute | undefined,
): CompiledCondition {
  const isAddress = ADDRESS_KEYS.includes(key);
  return {
    key,
    attribute: attribute(key),
    values: key === SERVER_NAME ? hostTests(values) : tests(values),
    notValues: key === SERVER_NAME ? hostTests(notValues) : tests(notValues),
    ranges: isAddress ? ranges(values.map(exactText), key) : undefined,
    notRanges: isAddress ? ranges(notValues.map(exactText), key) : undefined,
  };
}

/** Of TLS that a waypoint passes on. */
const SERVER_NAME = 'connection.sni';

const ATTRIBUTES: Readonly<Record<string, Attribute>> = {
  [SERVER_NAME]: { of: 'serverName' },
  'source.namespace': { of: 'namespace' },
  'source.principal': { of: 'principal' },
  'source.serviceAccount': { of: 'serviceAccount' },
  'destination.port': { of: 'port' },
  'request.auth.principal': { of: 'requestPrincipal' },
  'request.auth.audiences': { of: 'audiences' },
  'request.auth.presenter': { of: 'presenter' },
};

/** The keys of Istio's `when` that a waypoint knows; addresses are known beside these. */
export function attributeOf(key: string): Attribute | undefined {
  if (Object.hasOwn(ATTRIBUTES, key)) return ATTRIBUTES[key];
  const header = /^request\.headers\[([^\]]+)\]$/.exec(key)?.[1];
  if (header !== undefined) return { header: header.toLowerCase() };
  const claim = /^request\.auth\.claims((?:\[[^\]]+\])+)$/.exec(key)?.[1];
  return claim === undefined ? undefined : { claim: claim.slice(1, -1).split('][') };
}

export const ADDRESS_KEYS: readonly string[] = ['source.ip', 'destination.ip', 'remote.ip'];

/** `{*}` is one segment of a path, `{**}` any number of them, none included (Istio, AuthorizationPolicy paths). */
export const templateRegex = (template: string): RegExp =>
  new RegExp(
    `^${template
      .split(/(\{\*{1,2}\})/)
      .map((piece) => (piece === '{*}' ? '[^/]+' : piece === '{**}' ? '.*' : escapeRegex(piece)))
      .join('')}$`,
  );

const exactText = ({ type }: TextMatch): string => (type?.$case === 'exact' ? type.value : '');

const tests = (matches: readonly TextMatch[]): TextTest[] =>
  matches.map(({ type }): TextTest => {
    switch (type?.$case) {
      case 'exact':
        return { exact: type.value };
      case 'prefix':
        return { prefix: type.value };
      case 'suffix':
        return { suffix: type.value };
      case 'presence':
        return { presence: true };
      case 'template':
        return { template: templateRegex(type.value) };
      default:
        throw new Error('a match without a value');
    }
  });

/** Hosts compare without case, and without the port that a Host header may carry. */
const hostTests = (matches: readonly TextMatch[]): TextTest[] =>
  tests(matches).map((test) => {
    if ('exact' in test) return { exact: test.exact.toLowerCase() };
    if ('prefix' in test) return { prefix: test.prefix.toLowerCase() };
    if ('template' in test) return test;
    return 'suffix' in test ? { suffix: test.suffix.toLowerCase() } : test;
  });

const ranges = (texts: readonly string[], field: string): Cidr[] =>
  texts.map((text) => {
    const cidr = parseCidr(text);
    if (!cidr) throw new Error(`${field}: ${JSON.stringify(text)} is no address range`);
    return cidr;
  });
