/** L7 policies from a file, as proto/waypoint.proto has them. */
import {
  Action,
  type Authorizer,
  type Condition,
  type HttpAuthorization,
  type JwtAuthentication,
  type JwtRule,
  type Operation,
  type RateLimits,
  type Source,
  type Target,
  type TextMatch,
} from '../../common/codec/gen/waypoint.ts';
import type { YamlNode } from '../../common/state/yaml-node.ts';
import { enumWords, flag, list, maybe, number, one, text, texts } from './static-yaml.ts';

export function policyFrom(node: YamlNode): HttpAuthorization {
  node.allowKeys(['namespace', 'name', 'action', 'dryRun', 'targets', 'rules', 'authorizer']);
  return {
    namespace: node.required('namespace').text(),
    name: node.required('name').text(),
    action: node.optional('action')?.choice(enumWords(Action)) ?? Action.ALLOW,
    dryRun: node.optional('dryRun')?.flag() ?? false,
    authorizer: maybe(node, 'authorizer', authorizerFrom),
    targets: list(node, 'targets', targetFrom),
    rules: list(node, 'rules', (rule) => {
      rule.allowKeys(['from', 'to', 'when']);
      return { from: list(rule, 'from', sourceFrom), to: list(rule, 'to', operationFrom), when: list(rule, 'when', conditionFrom) };
    }),
  };
}

function authorizerFrom(node: YamlNode): Authorizer {
  node.allowKeys([
    'name',
    'to',
    'timeoutMs',
    'failOpen',
    'statusOnError',
    'grpc',
    'pathPrefix',
    'includeHeaders',
    'additionalHeaders',
    'body',
    'toUpstreamOnAllow',
    'toDownstreamOnDeny',
    'toDownstreamOnAllow',
  ]);
  return {
    name: node.required('name').text(),
    to: node.required('to').map((to) => {
      to.allowKeys(['namespace', 'hostname', 'port']);
      return { namespace: text(to, 'namespace'), hostname: text(to, 'hostname'), port: number(to, 'port', 65535), subset: '' };
    }),
    timeoutMs: number(node, 'timeoutMs'),
    failOpen: flag(node, 'failOpen'),
    statusOnError: number(node, 'statusOnError', 599),
    grpc: flag(node, 'grpc'),
    pathPrefix: text(node, 'pathPrefix'),
    includeHeaders: list(node, 'includeHeaders', textMatchFrom),
    additionalHeaders: list(node, 'additionalHeaders', (header) => {
      header.allowKeys(['name', 'value']);
      return { name: header.required('name').text(), value: text(header, 'value') };
    }),
    body: maybe(node, 'body', (body) => {
      body.allowKeys(['maxBytes', 'allowPartial', 'packAsBytes']);
      return { maxBytes: number(body, 'maxBytes'), allowPartial: flag(body, 'allowPartial'), packAsBytes: flag(body, 'packAsBytes') };
    }),
    toUpstreamOnAllow: list(node, 'toUpstreamOnAllow', textMatchFrom),
    toDownstreamOnDeny: list(node, 'toDownstreamOnDeny', textMatchFrom),
    toDownstreamOnAllow: list(node, 'toDownstreamOnAllow', textMatchFrom),
  };
}

function targetFrom(node: YamlNode): Target {
  const found = one(node, ['service', 'everything', 'route']);
  if (!found) throw node.error('expected service, everything or route');
  if (found.key === 'route') {
    const { value } = found;
    value.allowKeys(['service', 'route', 'section']);
    return {
      type: { $case: 'route', value: { service: text(value, 'service'), route: text(value, 'route'), section: text(value, 'section') } },
    };
  }
  return { type: found.key === 'service' ? { $case: 'service', value: found.value.text() } : { $case: 'everything', value: {} } };
}

function textMatchFrom(node: YamlNode): TextMatch {
  const found = one(node, ['exact', 'prefix', 'suffix', 'presence', 'template']);
  if (!found) throw node.error('expected exact, prefix, suffix, presence or template');
  if (found.key === 'presence') return { type: { $case: 'presence', value: {} } };
  return { type: { $case: found.key, value: found.value.text() } };
}

function sourceFrom(node: YamlNode): Source {
  const matches = (key: string): TextMatch[] => list(node, key, textMatchFrom);
  node.allowKeys([
    'principals',
    'notPrincipals',
    'namespaces',
    'notNamespaces',
    'serviceAccounts',
    'notServiceAccounts',
    'ipBlocks',
    'notIpBlocks',
    'requestPrincipals',
    'notRequestPrincipals',
    'trustDomains',
    'notTrustDomains',
    'remoteIpBlocks',
    'notRemoteIpBlocks',
  ]);
  return {
    principals: matches('principals'),
    notPrincipals: matches('notPrincipals'),
    namespaces: matches('namespaces'),
    notNamespaces: matches('notNamespaces'),
    serviceAccounts: matches('serviceAccounts'),
    notServiceAccounts: matches('notServiceAccounts'),
    ipBlocks: texts(node, 'ipBlocks'),
    notIpBlocks: texts(node, 'notIpBlocks'),
    requestPrincipals: matches('requestPrincipals'),
    notRequestPrincipals: matches('notRequestPrincipals'),
    trustDomains: matches('trustDomains'),
    notTrustDomains: matches('notTrustDomains'),
    remoteIpBlocks: texts(node, 'remoteIpBlocks'),
    notRemoteIpBlocks: texts(node, 'notRemoteIpBlocks'),
  };
}

function operationFrom(node: YamlNode): Operation {
  const matches = (key: string): TextMatch[] => list(node, key, textMatchFrom);
  const ports = (key: string): number[] => list(node, key, (port) => port.integer(65535));
  node.allowKeys(['hosts', 'notHosts', 'ports', 'notPorts', 'methods', 'notMethods', 'paths', 'notPaths']);
  return {
    hosts: matches('hosts'),
    notHosts: matches('notHosts'),
    ports: ports('ports'),
    notPorts: ports('notPorts'),
    methods: matches('methods'),
    notMethods: matches('notMethods'),
    paths: matches('paths'),
    notPaths: matches('notPaths'),
  };
}

function conditionFrom(node: YamlNode): Condition {
  node.allowKeys(['key', 'values', 'notValues']);
  return {
    key: node.required('key').text(),
    values: list(node, 'values', textMatchFrom),
    notValues: list(node, 'notValues', textMatchFrom),
  };
}

/** A RateLimitPolicy. */
export function limitsFrom(node: YamlNode): RateLimits {
  node.allowKeys(['namespace', 'name', 'targets', 'limits', 'dryRun']);
  return {
    namespace: node.required('namespace').text(),
    name: node.required('name').text(),
    targets: list(node, 'targets', targetFrom),
    dryRun: flag(node, 'dryRun'),
    limits: list(node, 'limits', (limit) => {
      limit.allowKeys(['name', 'requests', 'periodMs', 'burst', 'by', 'when', 'fairBetween']);
      const requests = number(limit, 'requests');
      return {
        name: text(limit, 'name'),
        requests,
        periodMs: number(limit, 'periodMs'),
        burst: number(limit, 'burst') || requests,
        by: texts(limit, 'by'),
        when: list(limit, 'when', conditionFrom),
        fairBetween: texts(limit, 'fairBetween'),
      };
    }),
  };
}

/** A RequestAuthentication with its keys. */
export function jwtFrom(node: YamlNode): JwtAuthentication {
  node.allowKeys(['namespace', 'name', 'targets', 'rules']);
  return {
    namespace: node.required('namespace').text(),
    name: node.required('name').text(),
    targets: list(node, 'targets', targetFrom),
    rules: list(node, 'rules', jwtRuleFrom),
  };
}

const JWT_RULE_KEYS = [
  'issuer',
  'audiences',
  'keys',
  'fromHeaders',
  'fromParams',
  'fromCookies',
  'payloadHeader',
  'forwardToken',
  'claimHeaders',
] as const;

function jwtRuleFrom(node: YamlNode): JwtRule {
  node.allowKeys(JWT_RULE_KEYS);
  return {
    issuer: text(node, 'issuer'),
    audiences: texts(node, 'audiences'),
    keys: text(node, 'keys'),
    fromHeaders: list(node, 'fromHeaders', (header) => {
      header.allowKeys(['name', 'prefix']);
      return { name: header.required('name').text(), prefix: text(header, 'prefix') };
    }),
    fromParams: texts(node, 'fromParams'),
    fromCookies: texts(node, 'fromCookies'),
    payloadHeader: text(node, 'payloadHeader'),
    forwardToken: flag(node, 'forwardToken'),
    claimHeaders: list(node, 'claimHeaders', (claim) => {
      claim.allowKeys(['header', 'claim']);
      return { header: claim.required('header').text(), claim: claim.required('claim').text() };
    }),
  };
}
