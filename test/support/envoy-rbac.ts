/**
 * A small evaluator of Envoy's RBAC configuration (envoy.config.rbac.v3), as far as Istio makes use of it: the golden files of Istio's policy builder
 * decide requests with it, and ours are to decide them alike. Written after Envoy's API documentation, without a part of the product's code.
 */
import { BlockList, isIPv6 } from 'node:net';

type Json = Readonly<Record<string, unknown>>;

/** A request as policies see it. */
export interface RbacRequest {
  /** Without `spiffe://`; empty for a caller without an identity. */
  readonly principal: string;
  readonly ip: string;
  readonly destinationIp: string;
  readonly destinationPort: number;
  readonly method: string;
  readonly authority: string;
  readonly path: string;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  /** Of a valid token; undefined where there is none. */
  readonly claims: Readonly<Record<string, unknown>> | undefined;
}

export interface RbacVerdict {
  readonly allowed: boolean;
  readonly audited: boolean;
  /** A dry-run DENY matches, and a dry-run ALLOW does not. */
  readonly wouldDeny: boolean;
  readonly wouldNotAllow: boolean;
  /** An external server is asked. */
  readonly asked: boolean;
}

/** @param filters of one chain, in order */
export function evaluate(filters: readonly Json[], request: RbacRequest): RbacVerdict {
  const verdict = { allowed: true, audited: false, wouldDeny: false, wouldNotAllow: false, asked: false };
  for (const filter of filters) {
    const { rules, shadowRules, shadowRulesStatPrefix } = filter.typedConfig as {
      readonly rules?: Rules;
      readonly shadowRules?: Rules;
      readonly shadowRulesStatPrefix?: string;
    };
    if (rules) {
      const holds = matches(rules, request);
      if (rules.action === 'LOG') verdict.audited ||= holds;
      else verdict.allowed &&= rules.action === 'DENY' ? !holds : holds;
    }
    if (!shadowRules) continue;
    const holds = matches(shadowRules, request);
    if (shadowRulesStatPrefix === 'istio_ext_authz_') verdict.asked ||= holds;
    else if (shadowRules.action === 'DENY') verdict.wouldDeny ||= holds;
    else verdict.wouldNotAllow ||= !holds;
  }
  return verdict;
}

interface Rules {
  readonly action?: string;
  readonly policies?: Readonly<Record<string, { readonly permissions: readonly Json[]; readonly principals: readonly Json[] }>>;
}

const matches = ({ policies = {} }: Rules, request: RbacRequest): boolean =>
  Object.values(policies).some(
    ({ permissions, principals }) =>
      permissions.some((permission) => holds(permission, request)) && principals.some((principal) => holds(principal, request)),
  );

/** A permission or a principal: one key each. */
function holds(node: Json, request: RbacRequest): boolean {
  const [[kind, value] = ['', undefined]] = Object.entries(node);
  const list = (key: string): readonly Json[] => (value as Readonly<Record<string, readonly Json[]>>)[key] ?? [];
  const all = (nodes: readonly Json[]): boolean => nodes.every((one) => holds(one, request));
  const any = (nodes: readonly Json[]): boolean => nodes.some((one) => holds(one, request));
  const fields = value as Json;
  switch (kind) {
    case 'any':
      return true;
    case 'andRules':
      return all(list('rules'));
    case 'orRules':
      return any(list('rules'));
    case 'andIds':
      return all(list('ids'));
    case 'orIds':
      return any(list('ids'));
    case 'notRule':
    case 'notId':
      return !holds(fields, request);
    case 'authenticated':
      return request.principal !== '' && stringHolds(fields.principalName as Json, `spiffe://${request.principal}`);
    // Nobody before the proxy is trusted to tell another address.
    case 'remoteIp':
    case 'directRemoteIp':
      return inRange(fields, request.ip);
    case 'destinationIp':
      return inRange(fields, request.destinationIp);
    case 'destinationPort':
      return value === request.destinationPort;
    case 'urlPath':
      return stringHolds(fields.path as Json, request.path.split('?')[0] ?? '');
    case 'uriTemplate':
      return template((fields.typedConfig as { readonly pathTemplate: string }).pathTemplate).test(request.path.split('?')[0] ?? '');
    case 'header':
      return headerHolds(fields, request);
    case 'metadata':
      return metadataHolds(fields, request);
    // A request in a tunnel has none.
    case 'requestedServerName':
      return stringHolds(fields, '');
    default:
      throw new Error(`the evaluator does not know ${kind}`);
  }
}

function headerHolds({ name, presentMatch, stringMatch, safeRegexMatch }: Json, request: RbacRequest): boolean {
  const pseudo: Readonly<Record<string, string>> = { ':authority': request.authority, ':method': request.method, ':path': request.path };
  const value = pseudo[String(name)] ?? request.headers[String(name).toLowerCase()];
  if (value === undefined) return false;
  if (presentMatch === true) return true;
  return stringHolds((stringMatch as Json | undefined) ?? { safeRegex: safeRegexMatch }, value);
}

function metadataHolds({ filter, path, value }: Json, { claims }: RbacRequest): boolean {
  if (filter !== 'envoy.filters.http.jwt_authn') return false;
  const [, ...names] = (path as readonly { readonly key: string }[]).map(({ key }) => key);
  let here: unknown = claims;
  for (const name of names) here = typeof here === 'object' && here !== null ? (here as Json)[name] : undefined;
  return valueHolds(value as Json, here);
}

/** envoy.type.matcher.v3.ValueMatcher. */
function valueHolds(matcher: Json, value: unknown): boolean {
  const { stringMatch, listMatch, orMatch } = matcher as {
    readonly stringMatch?: Json;
    readonly listMatch?: { readonly oneOf: Json };
    readonly orMatch?: { readonly valueMatchers: readonly Json[] };
  };
  if (stringMatch) return typeof value === 'string' && stringHolds(stringMatch, value);
  if (listMatch) return Array.isArray(value) && value.some((one) => valueHolds(listMatch.oneOf, one));
  return orMatch?.valueMatchers.some((one) => valueHolds(one, value)) ?? false;
}

/** envoy.type.matcher.v3.StringMatcher. */
function stringHolds(matcher: Json, value: string): boolean {
  const { exact, prefix, suffix, safeRegex, ignoreCase } = matcher as {
    readonly exact?: string;
    readonly prefix?: string;
    readonly suffix?: string;
    readonly safeRegex?: { readonly regex: string };
    readonly ignoreCase?: boolean;
  };
  const plain = (text: string): string => (ignoreCase ? text.toLowerCase() : text);
  if (exact !== undefined) return plain(value) === plain(exact);
  if (prefix !== undefined) return plain(value).startsWith(plain(prefix));
  if (suffix !== undefined) return plain(value).endsWith(plain(suffix));
  if (safeRegex) return new RegExp(`^(?:${safeRegex.regex})$`).test(value);
  throw new Error(`the evaluator does not know ${JSON.stringify(matcher)}`);
}

function inRange({ addressPrefix, prefixLen }: Json, ip: string): boolean {
  const range = new BlockList();
  const family = isIPv6(String(addressPrefix)) ? 'ipv6' : 'ipv4';
  range.addSubnet(String(addressPrefix), Number(prefixLen), family);
  return range.check(ip, isIPv6(ip) ? 'ipv6' : 'ipv4');
}

/** Envoy's URI templates: `*` is one segment, `**` any number. */
const template = (text: string): RegExp =>
  new RegExp(
    `^${text
      .split(/(\*{1,2})/)
      .map((piece) => (piece === '**' ? '.*' : piece === '*' ? '[^/]+' : piece.replace(/[.+?^${}()|[\]\\]/g, '\\$&')))
      .join('')}$`,
  );
