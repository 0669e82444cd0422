/**
 * Routes and L7 policies in the form that requests are decided with: compiled once when a resource arrives, so that a request costs
 * comparisons and nothing else. Regular expressions are RE2's subset (no look-around, no back-references), as Envoy takes them.
 */

import { type Cidr, parseCidr } from '../base/address.ts';
import { errorMessage } from '../base/errors.ts';
import {
  Action,
  type HttpAuthorization,
  type HttpMatch,
  type HttpRule,
  type ServiceRoutes,
  type TextMatch,
} from '../codec/gen/waypoint.ts';

export type PathTest = { readonly exact: string } | { readonly prefix: string } | { readonly regex: RegExp };

export interface ValueTest {
  readonly name: string;
  readonly test: { readonly exact: string } | { readonly regex: RegExp };
}

export interface CompiledMatch {
  readonly path: PathTest | undefined;
  /** Empty for any. */
  readonly method: string;
  readonly headers: readonly ValueTest[];
  readonly queryParams: readonly ValueTest[];
}

export interface CompiledEntry {
  readonly match: CompiledMatch;
  readonly rule: HttpRule;
}

/** Routes of one service by port; port 0 stands for every port without an entry. */
export interface CompiledRoutes {
  readonly service: string;
  readonly ports: ReadonlyMap<number, readonly CompiledEntry[]>;
}

/** @throws {Error} that says which entry cannot be compiled and why; the resource is then rejected as a whole */
export function compileRoutes(routes: ServiceRoutes): CompiledRoutes {
  const ports = routes.ports.map(({ port, table, rules }) => {
    const entries = table.map(({ match, rule: index }, at): CompiledEntry => {
      const rule = rules[index];
      if (!rule) throw new Error(`port ${port}, entry ${at}: there is no rule ${index}`);
      return { match: compileMatch(match, `port ${port}, rule ${rule.name}`), rule };
    });
    return [port, entries] as const;
  });
  return { service: `${routes.namespace}/${routes.hostname}`, ports: new Map(ports) };
}

function compileMatch(match: HttpMatch | undefined, where: string): CompiledMatch {
  const value =
    (kind: string) =>
    (entry: HttpMatch['headers'][number]): ValueTest => {
      const { name, type } = entry;
      if (type?.$case === 'exact') return { name, test: { exact: type.value } };
      if (type?.$case === 'regex') return { name, test: { regex: compileRegex(type.value, `${where}, ${kind} ${name}`) } };
      throw new Error(`${where}, ${kind} ${name}: no value to match`);
    };
  return {
    path: compilePath(match, where),
    method: match?.method ?? '',
    headers: (match?.headers ?? []).map(value('header')),
    queryParams: (match?.queryParams ?? []).map(value('query parameter')),
  };
}

function compilePath(match: HttpMatch | undefined, where: string): PathTest | undefined {
  const type = match?.path?.type;
  if (type === undefined) return undefined;
  if (type.$case === 'exact') return { exact: type.value };
  // A prefix is a list of segments: a slash at its end says nothing (Gateway API, PathPrefix).
  if (type.$case === 'prefix') return type.value === '/' || type.value === '' ? undefined : { prefix: type.value.replace(/\/+$/, '') };
  return { regex: compileRegex(type.value, `${where}, path`) };
}

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

export type TextTest = { readonly exact: string } | { readonly prefix: string } | { readonly suffix: string } | { readonly presence: true };

export interface CompiledSource {
  readonly principals: readonly TextTest[];
  readonly notPrincipals: readonly TextTest[];
  readonly namespaces: readonly TextTest[];
  readonly notNamespaces: readonly TextTest[];
  readonly serviceAccounts: readonly TextTest[];
  readonly notServiceAccounts: readonly TextTest[];
  readonly ipBlocks: readonly Cidr[];
  readonly notIpBlocks: readonly Cidr[];
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

export interface CompiledCondition {
  readonly key: string;
  readonly values: readonly TextTest[];
  readonly notValues: readonly TextTest[];
  /** For keys of addresses; then `values` are not used. */
  readonly ranges: readonly Cidr[] | undefined;
  readonly notRanges: readonly Cidr[] | undefined;
}

export interface CompiledAuthorization {
  /** namespace/name. */
  readonly key: string;
  readonly action: 'ALLOW' | 'DENY';
  readonly dryRun: boolean;
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
  if (policy.action !== Action.ALLOW && policy.action !== Action.DENY) throw new Error(`unknown action ${policy.action}`);
  const everything = policy.targets.some(({ type }) => type?.$case === 'everything');
  const services = policy.targets.flatMap(({ type }) => (type?.$case === 'service' ? [type.value] : []));
  return {
    key: `${policy.namespace}/${policy.name}`,
    action: policy.action === Action.ALLOW ? 'ALLOW' : 'DENY',
    dryRun: policy.dryRun,
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
      when: when.map(({ key, values, notValues }) => {
        const isAddress = key === 'source.ip' || key === 'destination.ip' || key === 'remote.ip';
        return {
          key,
          values: tests(values),
          notValues: tests(notValues),
          ranges: isAddress ? ranges(values.map(exactText), key) : undefined,
          notRanges: isAddress ? ranges(notValues.map(exactText), key) : undefined,
        };
      }),
    })),
  };
}

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
      default:
        throw new Error('a match without a value');
    }
  });

/** Hosts compare without case, and without the port that a Host header may carry. */
const hostTests = (matches: readonly TextMatch[]): TextTest[] =>
  tests(matches).map((test) => {
    if ('exact' in test) return { exact: test.exact.toLowerCase() };
    if ('prefix' in test) return { prefix: test.prefix.toLowerCase() };
    return 'suffix' in test ? { suffix: test.suffix.toLowerCase() } : test;
  });

const ranges = (texts: readonly string[], field: string): Cidr[] =>
  texts.map((text) => {
    const cidr = parseCidr(text);
    if (!cidr) throw new Error(`${field}: ${JSON.stringify(text)} is no address range`);
    return cidr;
  });
