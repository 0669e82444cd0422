/**
 * Routes, traffic settings and L7 policies from a file (LOCAL_ROUTES_PATH): `routes`, `traffic`, `labels`, `policies`, `limits`,
 * `authentications` and `telemetry`, each a list of the
 * messages of proto/waypoint.proto in protobuf's JSON names, as YAML or JSON.
 */
import { load } from 'js-yaml';
import {
  type Backend,
  type BackendRef,
  type ConnectionRule,
  type Cors,
  type Fault,
  type Header,
  type HeaderChange,
  HttpAuthorization,
  type HttpMatch,
  type HttpRule,
  JwtAuthentication,
  type PathChange,
  type PathMatch,
  type PortRoutes,
  RateLimits,
  type Redirect,
  RedirectPort,
  type Retry,
  type Rewrite,
  ServiceRoutes,
  ServiceTelemetry,
  ServiceTraffic,
  type SourceMatch,
  type ValueMatch,
  WorkloadLabels,
} from '../../common/codec/gen/waypoint.ts';
import type { ListedPush } from '../../common/state/writer.ts';
import { YamlNode } from '../../common/state/yaml-node.ts';
import {
  HTTP_AUTHORIZATION_TYPE,
  JWT_TYPE,
  LABELS_TYPE,
  RATE_LIMITS_TYPE,
  ROUTES_TYPE,
  TELEMETRY_TYPE,
  TRAFFIC_TYPE,
} from './resources.ts';
import { jwtFrom, limitsFrom, policyFrom } from './static-policies.ts';
import { telemetryFrom } from './static-telemetry.ts';
import { labelsFrom, persistenceFrom, trafficFrom } from './static-traffic.ts';
import { enumWords, flag, list, maybe, number, one, text, textMap, texts, UINT32 } from './static-yaml.ts';

/** @throws {ConfigError} naming the place in the file */
export function staticRoutes(yaml: string): ListedPush[] {
  const root = new YamlNode(load(yaml) ?? {}, '', new WeakMap(), 1);
  root.allowKeys(['routes', 'traffic', 'labels', 'policies', 'limits', 'authentications', 'telemetry']);
  const push = <T>(typeUrl: string, items: readonly T[], name: (item: T) => string, encode: (item: T) => Uint8Array): ListedPush => ({
    typeUrl,
    resources: items.map((item) => ({ name: name(item), version: '', bytes: encode(item) })),
    removed: [],
  });
  const host = ({ namespace, hostname }: { namespace: string; hostname: string }): string => `${namespace}/${hostname}`;
  return [
    push(
      JWT_TYPE,
      list(root, 'authentications', jwtFrom),
      ({ namespace, name }) => `${namespace}/${name}`,
      (one) => JwtAuthentication.encode(one).finish(),
    ),
    push(
      LABELS_TYPE,
      list(root, 'labels', labelsFrom),
      ({ uid }) => uid,
      (one) => WorkloadLabels.encode(one).finish(),
    ),
    push(
      TELEMETRY_TYPE,
      list(root, 'telemetry', telemetryFrom),
      ({ target }) => target,
      (one) => ServiceTelemetry.encode(one).finish(),
    ),
    push(TRAFFIC_TYPE, list(root, 'traffic', trafficFrom), host, (one) => ServiceTraffic.encode(one).finish()),
    push(ROUTES_TYPE, list(root, 'routes', routesFrom), host, (one) => ServiceRoutes.encode(one).finish()),
    push(
      HTTP_AUTHORIZATION_TYPE,
      list(root, 'policies', policyFrom),
      ({ namespace, name }) => `${namespace}/${name}`,
      (one) => HttpAuthorization.encode(one).finish(),
    ),
    push(
      RATE_LIMITS_TYPE,
      list(root, 'limits', limitsFrom),
      ({ namespace, name }) => `${namespace}/${name}`,
      (one) => RateLimits.encode(one).finish(),
    ),
  ];
}

function routesFrom(node: YamlNode): ServiceRoutes {
  node.allowKeys(['namespace', 'hostname', 'ports']);
  return { namespace: node.required('namespace').text(), hostname: node.required('hostname').text(), ports: list(node, 'ports', portFrom) };
}

function portFrom(node: YamlNode): PortRoutes {
  node.allowKeys(['port', 'table', 'rules', 'connections']);
  return {
    port: number(node, 'port', 65535),
    table: list(node, 'table', (entry) => {
      entry.allowKeys(['match', 'rule']);
      return { match: maybe(entry, 'match', matchFrom), rule: number(entry, 'rule') };
    }),
    rules: list(node, 'rules', ruleFrom),
    connections: list(node, 'connections', connectionFrom),
  };
}

function connectionFrom(node: YamlNode): ConnectionRule {
  node.allowKeys(['name', 'serverNames', 'source', 'destinationRanges', 'backends']);
  return {
    name: text(node, 'name'),
    serverNames: texts(node, 'serverNames'),
    source: maybe(node, 'source', sourceMatchFrom),
    destinationRanges: texts(node, 'destinationRanges'),
    backends: list(node, 'backends', backendFrom),
  };
}

const MATCH_KEYS = [
  'path',
  'method',
  'headers',
  'queryParams',
  'withoutHeaders',
  'authority',
  'scheme',
  'methodPattern',
  'source',
] as const;

function matchFrom(node: YamlNode): HttpMatch {
  node.allowKeys(MATCH_KEYS);
  return {
    path: maybe(node, 'path', pathFrom),
    method: text(node, 'method'),
    headers: list(node, 'headers', valueMatchFrom),
    queryParams: list(node, 'queryParams', valueMatchFrom),
    withoutHeaders: list(node, 'withoutHeaders', valueMatchFrom),
    authority: maybe(node, 'authority', valueMatchFrom),
    scheme: maybe(node, 'scheme', valueMatchFrom),
    methodPattern: maybe(node, 'methodPattern', valueMatchFrom),
    source: maybe(node, 'source', sourceMatchFrom),
  };
}

function pathFrom(node: YamlNode): PathMatch {
  const found = one(node, ['exact', 'prefix', 'regex', 'textPrefix'], ['ignoreCase']);
  return { type: found && { $case: found.key, value: found.value.text() }, ignoreCase: flag(node, 'ignoreCase') };
}

function sourceMatchFrom(node: YamlNode): SourceMatch {
  node.allowKeys(['namespace', 'labels']);
  return { namespace: text(node, 'namespace'), labels: textMap(node, 'labels') };
}

function valueMatchFrom(node: YamlNode): ValueMatch {
  const found = one(node, ['exact', 'regex', 'prefix', 'presence'], ['name']);
  if (!found) throw node.error('expected one of exact, regex, prefix, presence');
  const type: ValueMatch['type'] =
    found.key === 'presence' ? { $case: 'presence', value: {} } : { $case: found.key, value: found.value.text() };
  return { name: text(node, 'name'), type };
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
  'directAnswer',
  'fault',
  'cors',
  'persistence',
] as const;

function ruleFrom(node: YamlNode): HttpRule {
  node.allowKeys(RULE_KEYS);
  return {
    name: text(node, 'name'),
    requestHeaders: maybe(node, 'requestHeaders', changeFrom),
    responseHeaders: maybe(node, 'responseHeaders', changeFrom),
    redirect: maybe(node, 'redirect', redirectFrom),
    rewrite: maybe(node, 'rewrite', rewriteFrom),
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
    retry: maybe(node, 'retry', retryFrom),
    backends: list(node, 'backends', backendFrom),
    directAnswer: maybe(node, 'directAnswer', (answer) => {
      answer.allowKeys(['status', 'body']);
      return { status: answer.required('status').integer(599), body: Buffer.from(text(answer, 'body')) };
    }),
    fault: maybe(node, 'fault', faultFrom),
    cors: maybe(node, 'cors', corsFrom),
    persistence: maybe(node, 'persistence', persistenceFrom),
  };
}

function rewriteFrom(node: YamlNode): Rewrite {
  node.allowKeys(['hostname', 'path']);
  return { hostname: text(node, 'hostname'), path: maybe(node, 'path', pathChangeFrom) };
}

function redirectFrom(node: YamlNode): Redirect {
  node.allowKeys(['scheme', 'hostname', 'port', 'status', 'path', 'portFrom']);
  return {
    scheme: text(node, 'scheme'),
    hostname: text(node, 'hostname'),
    port: number(node, 'port', 65535),
    status: number(node, 'status', 599),
    path: maybe(node, 'path', pathChangeFrom),
    portFrom: node.optional('portFrom')?.choice(enumWords(RedirectPort)) ?? RedirectPort.LISTENER,
  };
}

function retryFrom(node: YamlNode): Retry {
  node.allowKeys(['attempts', 'statusCodes', 'backoffMs', 'conditions', 'sameEndpoint']);
  return {
    attempts: number(node, 'attempts', 100),
    statusCodes: list(node, 'statusCodes', (code) => code.integer(599)),
    backoffMs: number(node, 'backoffMs'),
    conditions: texts(node, 'conditions'),
    sameEndpoint: flag(node, 'sameEndpoint'),
  };
}

function faultFrom(node: YamlNode): Fault {
  node.allowKeys(['delayMs', 'delayPerMillion', 'abortStatus', 'abortGrpcStatus', 'abortPerMillion']);
  return {
    delayMs: number(node, 'delayMs'),
    delayPerMillion: number(node, 'delayPerMillion', 1_000_000),
    abortStatus: number(node, 'abortStatus', 599),
    abortGrpcStatus: node.optional('abortGrpcStatus')?.integer(16),
    abortPerMillion: number(node, 'abortPerMillion', 1_000_000),
  };
}

const CORS_KEYS = [
  'allowOrigins',
  'allowMethods',
  'allowHeaders',
  'exposeHeaders',
  'maxAgeS',
  'allowCredentials',
  'answerAllPreflights',
] as const;

function corsFrom(node: YamlNode): Cors {
  node.allowKeys(CORS_KEYS);
  return {
    allowOrigins: list(node, 'allowOrigins', valueMatchFrom),
    allowMethods: texts(node, 'allowMethods'),
    allowHeaders: texts(node, 'allowHeaders'),
    exposeHeaders: texts(node, 'exposeHeaders'),
    maxAgeS: number(node, 'maxAgeS'),
    allowCredentials: flag(node, 'allowCredentials'),
    answerAllPreflights: flag(node, 'answerAllPreflights'),
  };
}

function backendFrom(node: YamlNode): Backend {
  node.allowKeys(['to', 'weight', 'requestHeaders', 'responseHeaders', 'redirect', 'rewrite']);
  return {
    to: maybe(node, 'to', refFrom),
    weight: node.optional('weight')?.integer(UINT32) ?? 1,
    requestHeaders: maybe(node, 'requestHeaders', changeFrom),
    responseHeaders: maybe(node, 'responseHeaders', changeFrom),
    redirect: maybe(node, 'redirect', redirectFrom),
    rewrite: maybe(node, 'rewrite', rewriteFrom),
  };
}

function refFrom(node: YamlNode): BackendRef {
  node.allowKeys(['namespace', 'hostname', 'port', 'subset']);
  return {
    namespace: node.required('namespace').text(),
    hostname: node.required('hostname').text(),
    port: node.required('port').integer(65535),
    subset: text(node, 'subset'),
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
  const found = one(node, ['full', 'prefix', 'textPrefix', 'regex']);
  if (!found) return {};
  if (found.key !== 'regex') return { type: { $case: found.key, value: found.value.text() } };
  found.value.allowKeys(['pattern', 'substitution']);
  const value = { pattern: found.value.required('pattern').text(), substitution: text(found.value, 'substitution') };
  return { type: { $case: 'regex', value } };
}
