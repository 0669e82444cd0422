/**
 * L7 authorization at a waypoint, with Istio's semantics (security/v1 AuthorizationPolicy): any enforced DENY that matches refuses; where no
 * ALLOW applies, all may pass; else one ALLOW must match. Dry-run policies are told, never enforced.
 */
import { type Cidr, cidrContains, type IpAddress, ipBytes } from '../base/address.ts';
import type { SpiffeId } from '../base/spiffe.ts';
import { claimValues } from './claims.ts';
import type { ActionName, Attribute, CompiledAuthorization, CompiledCondition, CompiledOperation, CompiledSource } from './http-model.ts';
import { fieldValue, type RoutedRequest } from './http-route.ts';
import type { VerifiedToken } from './jwt.ts';
import type { TextTest } from './text-test.ts';

export interface HttpCaller {
  /** From the tunnel's certificate; undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
  readonly ip: IpAddress;
  /** What the request brought and a RequestAuthentication found good. */
  readonly token?: VerifiedToken | undefined;
  /** Of a TLS connection that is passed on as it is: the name that its client asks for, empty for none. Absent for HTTP and what is no TLS. */
  readonly serverName?: ServerName | undefined;
}

/** 'unknown' where a client has not said in time what it speaks. */
export type ServerName = { readonly is: string } | 'unknown';

export interface HttpDestination {
  /** namespace/hostname of the service that was asked for; undefined for a pod's own address. */
  readonly service: string | undefined;
  readonly ip: IpAddress | undefined;
  readonly port: number;
}

export interface HttpVerdict {
  readonly allowed: boolean;
  /** namespace/name of the policy that decided; absent where no ALLOW matched. */
  readonly policy: string | undefined;
  readonly reason: string;
  /** Dry-run policies that would have refused. */
  readonly wouldDeny: readonly string[];
  /** AUDIT policies that the request matches. */
  readonly audited: readonly string[];
}

/** CUSTOM policies that a request matches: whose servers are to be asked before anything else is decided. */
export function customMatches(
  policies: readonly CompiledAuthorization[],
  request: RoutedRequest,
  caller: HttpCaller,
  destination: HttpDestination,
): CompiledAuthorization[] {
  const facts = new Facts(request, caller, destination);
  return policies.filter((policy) => policy.action === 'CUSTOM' && matches(policy, facts));
}

const NONE: readonly string[] = [];

export function decideHttp(
  policies: readonly CompiledAuthorization[],
  request: RoutedRequest,
  caller: HttpCaller,
  destination: HttpDestination,
): HttpVerdict {
  // Loops, and lists only where there is something to list: this is asked for every request (bench waypoint: kept connections).
  const facts = new Facts(request, caller, destination);
  let wouldDeny = NONE;
  let audited = NONE;
  for (const policy of policies)
    if (policy.action === 'AUDIT' && isFor(policy, destination) && matches(policy, facts)) audited = [...audited, policy.key];
  for (const policy of policies) {
    if (policy.action !== 'DENY' || !isFor(policy, destination) || !matches(policy, facts)) continue;
    if (policy.dryRun) wouldDeny = [...wouldDeny, policy.key];
    else return { allowed: false, policy: policy.key, reason: `explicitly denied by: ${policy.key}`, wouldDeny, audited };
  }
  let allows = 0;
  let only: string | undefined;
  let allowing: string | undefined;
  for (const policy of policies) {
    if (policy.action !== 'ALLOW' || !isFor(policy, destination)) continue;
    if (policy.dryRun) {
      if (!matches(policy, facts)) wouldDeny = [...wouldDeny, policy.key];
      continue;
    }
    allows++;
    only = policy.key;
    if (allowing === undefined && matches(policy, facts)) allowing = policy.key;
  }
  if (allows === 0 || allowing !== undefined) return { allowed: true, policy: allowing, reason: '', wouldDeny, audited };
  const reason = 'allow policies exist, but none allowed';
  return { allowed: false, policy: allows === 1 ? only : undefined, reason, wouldDeny, audited };
}

/** Whether a policy is about requests to this destination. */
const isFor = ({ services }: CompiledAuthorization, { service }: HttpDestination): boolean =>
  services === undefined || (service !== undefined && services.has(service));

/** What rules ask of a request, made when first asked for. */
export class Facts {
  readonly request: RoutedRequest;
  readonly caller: HttpCaller;
  readonly destination: HttpDestination;
  readonly principal: string;
  readonly path: string;
  #host: string | undefined;

  constructor(request: RoutedRequest, caller: HttpCaller, destination: HttpDestination) {
    this.request = request;
    this.caller = caller;
    this.destination = destination;
    const { identity } = caller;
    this.principal = identity ? `${identity.trustDomain}/ns/${identity.namespace}/sa/${identity.serviceAccount}` : '';
    const query = request.path.indexOf('?');
    this.path = query < 0 ? request.path : request.path.slice(0, query);
  }

  get namespace(): string {
    return this.caller.identity?.namespace ?? '';
  }

  get serviceAccount(): string {
    const { identity } = this.caller;
    return identity ? `${identity.namespace}/${identity.serviceAccount}` : '';
  }

  get host(): string {
    this.#host ??= this.request.authority.toLowerCase();
    return this.#host;
  }

  /** The first value of a parameter. */
  query(name: string): string {
    const { path } = this.request;
    return path.length === this.path.length ? '' : (new URLSearchParams(path.slice(this.path.length + 1)).get(name) ?? '');
  }
}

function matches({ rules, action }: CompiledAuthorization, facts: Facts): boolean {
  for (const { from, to, when } of rules) {
    if (from.length > 0 && !from.some((source) => sourceHolds(source, facts))) continue;
    if (to.length > 0 && !to.some((operation) => operationHolds(operation, facts))) continue;
    if (when.length === 0 || when.every((condition) => conditionHolds(condition, facts, action))) return true;
  }
  return false;
}

const sourceHolds = (source: CompiledSource, facts: Facts): boolean =>
  anyText(source.principals, source.notPrincipals, facts.principal) &&
  anyText(source.namespaces, source.notNamespaces, facts.namespace) &&
  anyText(source.serviceAccounts, source.notServiceAccounts, facts.serviceAccount) &&
  anyText(source.requestPrincipals, source.notRequestPrincipals, facts.caller.token?.principal ?? '') &&
  anyText(source.trustDomains, source.notTrustDomains, facts.caller.identity?.trustDomain ?? '') &&
  anyRange(source.ipBlocks, source.notIpBlocks, facts.caller.ip) &&
  anyRange(source.remoteIpBlocks, source.notRemoteIpBlocks, facts.caller.ip);

const operationHolds = (operation: CompiledOperation, facts: Facts): boolean =>
  (operation.hosts.length + operation.notHosts.length === 0 || anyHost(operation.hosts, operation.notHosts, facts.host)) &&
  (operation.ports.length === 0 || operation.ports.includes(facts.destination.port)) &&
  !operation.notPorts.includes(facts.destination.port) &&
  anyText(operation.methods, operation.notMethods, facts.request.method) &&
  anyText(operation.paths, operation.notPaths, facts.path);

// "shop.example" also stands for "shop.example:8080": the port that a Host header carries is no part of the name.
const anyHost = (wanted: readonly TextTest[], unwanted: readonly TextTest[], host: string): boolean => {
  const bare = host.replace(/:\d+$/, '');
  const holds = (test: TextTest): boolean => textHolds(test, host) || textHolds(test, bare);
  return (wanted.length === 0 || wanted.some(holds)) && !unwanted.some(holds);
};

/** Whether a request is one of those that a condition is about. */
export function conditionHolds(condition: CompiledCondition, facts: Facts, action: ActionName): boolean {
  const { key, attribute, values, notValues, ranges, notRanges } = condition;
  if (ranges !== undefined && notRanges !== undefined) {
    const ip = key === 'destination.ip' ? facts.destination.ip : facts.caller.ip;
    return ip !== undefined && anyRange(ranges, notRanges, ip);
  }
  // What an unknown attribute would say is read in the stricter way: it allows nothing, and it does not keep a DENY from refusing.
  if (attribute === undefined || (isServerName(attribute) && facts.caller.serverName === 'unknown'))
    return action === 'DENY' || action === 'CUSTOM';
  const said = attributeValues(attribute, facts);
  const holds = (test: TextTest): boolean => said.some((value) => textHolds(test, value));
  return (values.length === 0 || values.some(holds)) && !notValues.some(holds);
}

const isServerName = (attribute: Attribute): boolean => 'of' in attribute && attribute.of === 'serverName';

/** Whether one of them asks what name a TLS client is looking for, which takes waiting for its first bytes. */
export const policiesNeedServerName = (policies: readonly CompiledAuthorization[]): boolean =>
  policies.some(({ rules }) => rules.some(({ when }) => when.some(({ attribute }) => attribute !== undefined && isServerName(attribute))));

/** What a request has of an attribute; nothing, or empty text, where it has none. */
export function attributeValues(attribute: Attribute, facts: Facts): readonly string[] {
  if ('header' in attribute) return [fieldValue(facts.request.fields, attribute.header) ?? ''];
  if ('query' in attribute) return [facts.query(attribute.query)];
  const { token } = facts.caller;
  if ('claim' in attribute) return token ? claimValues(token.claims, attribute.claim) : NONE;
  switch (attribute.of) {
    case 'serverName': {
      const { serverName } = facts.caller;
      return typeof serverName === 'object' ? [serverName.is] : NONE;
    }
    case 'namespace':
      return [facts.namespace];
    case 'principal':
      return [facts.principal];
    case 'serviceAccount':
      return [facts.serviceAccount];
    case 'port':
      return [String(facts.destination.port)];
    case 'requestPrincipal':
      return [token?.principal ?? ''];
    case 'audiences':
      return token?.audiences ?? NONE;
    case 'presenter':
      return [token?.presenter ?? ''];
    case 'ip':
      return [facts.caller.ip];
    case 'path':
      return [facts.path];
    case 'method':
      return [facts.request.method];
    case 'host':
      return [facts.host.replace(/:\d+$/, '')];
  }
}

const anyText = (wanted: readonly TextTest[], unwanted: readonly TextTest[], value: string): boolean =>
  (wanted.length === 0 || wanted.some((test) => textHolds(test, value))) && !unwanted.some((test) => textHolds(test, value));

function textHolds(test: TextTest, value: string): boolean {
  if (value === '') return false;
  if ('exact' in test) return value === test.exact;
  if ('prefix' in test) return value.startsWith(test.prefix);
  if ('template' in test) return test.template.test(value);
  return 'suffix' in test ? value.endsWith(test.suffix) : true;
}

function anyRange(wanted: readonly Cidr[], unwanted: readonly Cidr[], ip: IpAddress): boolean {
  if (wanted.length === 0 && unwanted.length === 0) return true;
  const bytes = ipBytes(ip);
  if (bytes === undefined) return false;
  const inside = (cidr: Cidr): boolean => cidrContains(cidr, bytes);
  return (wanted.length === 0 || wanted.some(inside)) && !unwanted.some(inside);
}
