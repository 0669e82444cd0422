/**
 * Routes and L7 policies from a file (LOCAL_ROUTES_PATH): `routes` and `policies`, each a list of the messages of proto/waypoint.proto in
 * protobuf's JSON names, as YAML or JSON. Somebody wrote it by hand, so an unknown key is an error that names its place.
 */
import { load } from 'js-yaml';
import {
  Action,
  type Backend,
  type BackendRef,
  type Condition,
  type Header,
  type HeaderChange,
  HttpAuthorization,
  type HttpMatch,
  type HttpRule,
  type Operation,
  type PathChange,
  type PortRoutes,
  ServiceRoutes,
  type Source,
  type Target,
  type TextMatch,
  type ValueMatch,
} from '../../common/codec/gen/waypoint.ts';
import type { StatePush } from '../../common/state/writer.ts';
import { YamlNode } from '../../common/state/yaml-node.ts';
import { HTTP_AUTHORIZATION_TYPE, ROUTES_TYPE } from './resources.ts';

/** @throws {ConfigError} naming the place in the file */
export function staticRoutes(yaml: string): StatePush[] {
  const root = new YamlNode(load(yaml) ?? {}, '', new WeakMap(), 1);
  root.allowKeys(['routes', 'policies']);
  const routes = list(root, 'routes', routesFrom);
  const policies = list(root, 'policies', policyFrom);
  return [
    {
      typeUrl: ROUTES_TYPE,
      resources: routes.map((one) => ({
        name: `${one.namespace}/${one.hostname}`,
        version: '',
        bytes: ServiceRoutes.encode(one).finish(),
      })),
      removed: [],
    },
    {
      typeUrl: HTTP_AUTHORIZATION_TYPE,
      resources: policies.map((one) => ({
        name: `${one.namespace}/${one.name}`,
        version: '',
        bytes: HttpAuthorization.encode(one).finish(),
      })),
      removed: [],
    },
  ];
}

const UINT32 = 2 ** 32 - 1;
const list = <T>(node: YamlNode, key: string, read: (entry: YamlNode) => T): T[] => node.optional(key)?.list(read) ?? [];
const text = (node: YamlNode, key: string): string => node.optional(key)?.text() ?? '';
const number = (node: YamlNode, key: string, max = UINT32): number => node.optional(key)?.integer(max) ?? 0;
const texts = (node: YamlNode, key: string): string[] => list(node, key, (entry) => entry.text());

/** The one of these keys that is there. */
function one<K extends string>(node: YamlNode, keys: readonly K[]): { readonly key: K; readonly value: YamlNode } | undefined {
  node.allowKeys(keys);
  const found = keys.flatMap((key) => {
    const value = node.optional(key);
    return value ? [{ key, value }] : [];
  });
  if (found.length > 1) throw node.error(`expected one of ${keys.join(', ')}`);
  return found[0];
}

function routesFrom(node: YamlNode): ServiceRoutes {
  node.allowKeys(['namespace', 'hostname', 'ports']);
  return { namespace: node.required('namespace').text(), hostname: node.required('hostname').text(), ports: list(node, 'ports', portFrom) };
}

function portFrom(node: YamlNode): PortRoutes {
  node.allowKeys(['port', 'table', 'rules']);
  return {
    port: number(node, 'port', 65535),
    table: list(node, 'table', (entry) => {
      entry.allowKeys(['match', 'rule']);
      return { match: entry.optional('match')?.map(matchFrom), rule: number(entry, 'rule') };
    }),
    rules: list(node, 'rules', ruleFrom),
  };
}

function matchFrom(node: YamlNode): HttpMatch {
  node.allowKeys(['path', 'method', 'headers', 'queryParams']);
  const path = node.optional('path');
  const found = path && one(path, ['exact', 'prefix', 'regex']);
  return {
    path: found && { type: { $case: found.key, value: found.value.text() } },
    method: text(node, 'method'),
    headers: list(node, 'headers', valueMatchFrom),
    queryParams: list(node, 'queryParams', valueMatchFrom),
  };
}

function valueMatchFrom(node: YamlNode): ValueMatch {
  node.allowKeys(['name', 'exact', 'regex']);
  const exact = node.optional('exact')?.text();
  const regex = node.optional('regex')?.text();
  if ((exact === undefined) === (regex === undefined)) throw node.error('expected one of exact, regex');
  return {
    name: node.required('name').text(),
    type: exact === undefined ? { $case: 'regex', value: regex ?? '' } : { $case: 'exact', value: exact },
  };
}

const RULE_KEYS = [
  'name',
  'requestHeaders',
  'responseHeaders',
  'redirect',
  'rewrite',
  'mirrors',
  'requestTimeoutMs',
  'backendTimeoutMs',
  'retry',
  'backends',
] as const;

function ruleFrom(node: YamlNode): HttpRule {
  node.allowKeys(RULE_KEYS);
  return {
    name: text(node, 'name'),
    requestHeaders: node.optional('requestHeaders')?.map(changeFrom),
    responseHeaders: node.optional('responseHeaders')?.map(changeFrom),
    redirect: node.optional('redirect')?.map((redirect) => {
      redirect.allowKeys(['scheme', 'hostname', 'port', 'status', 'path']);
      return {
        scheme: text(redirect, 'scheme'),
        hostname: text(redirect, 'hostname'),
        port: number(redirect, 'port', 65535),
        status: number(redirect, 'status', 599),
        path: redirect.optional('path')?.map(pathChangeFrom),
      };
    }),
    rewrite: node.optional('rewrite')?.map((rewrite) => {
      rewrite.allowKeys(['hostname', 'path']);
      return { hostname: text(rewrite, 'hostname'), path: rewrite.optional('path')?.map(pathChangeFrom) };
    }),
    mirrors: list(node, 'mirrors', (mirror) => {
      mirror.allowKeys(['to', 'numerator', 'denominator']);
      return {
        to: mirror.required('to').map(refFrom),
        numerator: mirror.optional('numerator')?.integer(UINT32) ?? 1,
        denominator: mirror.optional('denominator')?.integer(UINT32) ?? 1,
      };
    }),
    requestTimeoutMs: number(node, 'requestTimeoutMs'),
    backendTimeoutMs: number(node, 'backendTimeoutMs'),
    retry: node.optional('retry')?.map((retry) => {
      retry.allowKeys(['attempts', 'statusCodes', 'backoffMs']);
      return {
        attempts: number(retry, 'attempts', 100),
        statusCodes: list(retry, 'statusCodes', (code) => code.integer(599)),
        backoffMs: number(retry, 'backoffMs'),
      };
    }),
    backends: list(node, 'backends', backendFrom),
  };
}

function backendFrom(node: YamlNode): Backend {
  node.allowKeys(['to', 'weight', 'requestHeaders', 'responseHeaders']);
  return {
    to: node.optional('to')?.map(refFrom),
    weight: node.optional('weight')?.integer(UINT32) ?? 1,
    requestHeaders: node.optional('requestHeaders')?.map(changeFrom),
    responseHeaders: node.optional('responseHeaders')?.map(changeFrom),
  };
}

function refFrom(node: YamlNode): BackendRef {
  node.allowKeys(['namespace', 'hostname', 'port']);
  return {
    namespace: node.required('namespace').text(),
    hostname: node.required('hostname').text(),
    port: node.required('port').integer(65535),
  };
}

function changeFrom(node: YamlNode): HeaderChange {
  node.allowKeys(['set', 'add', 'remove']);
  const header = (entry: YamlNode): Header => {
    entry.allowKeys(['name', 'value']);
    return { name: entry.required('name').text(), value: text(entry, 'value') };
  };
  return { set: list(node, 'set', header), add: list(node, 'add', header), remove: texts(node, 'remove') };
}

function pathChangeFrom(node: YamlNode): PathChange {
  const found = one(node, ['full', 'prefix']);
  return { type: found && { $case: found.key, value: found.value.text() } };
}

function policyFrom(node: YamlNode): HttpAuthorization {
  node.allowKeys(['namespace', 'name', 'action', 'dryRun', 'targets', 'rules']);
  return {
    namespace: node.required('namespace').text(),
    name: node.required('name').text(),
    action: node.optional('action')?.choice({ ALLOW: Action.ALLOW, DENY: Action.DENY }) ?? Action.ALLOW,
    dryRun: node.optional('dryRun')?.flag() ?? false,
    targets: list(node, 'targets', targetFrom),
    rules: list(node, 'rules', (rule) => {
      rule.allowKeys(['from', 'to', 'when']);
      return { from: list(rule, 'from', sourceFrom), to: list(rule, 'to', operationFrom), when: list(rule, 'when', conditionFrom) };
    }),
  };
}

function targetFrom(node: YamlNode): Target {
  const found = one(node, ['service', 'everything']);
  if (!found) throw node.error('expected service or everything');
  return { type: found.key === 'service' ? { $case: 'service', value: found.value.text() } : { $case: 'everything', value: {} } };
}

function textMatchFrom(node: YamlNode): TextMatch {
  const found = one(node, ['exact', 'prefix', 'suffix', 'presence']);
  if (!found) throw node.error('expected exact, prefix, suffix or presence');
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
