/** How services' endpoints are chosen and spoken to, and labels of workloads, from a file, as proto/waypoint.proto has them. */
import {
  Balancing,
  type ConnectionPool,
  type ConsistentHash,
  type HashCookie,
  type LoadBalancer,
  type OutlierDetection,
  type Persistence,
  type PortTraffic,
  type ServiceTraffic,
  type TrafficPolicy,
  UpstreamHttp,
  type WorkloadLabels,
} from '../../common/codec/gen/waypoint.ts';
import type { YamlNode } from '../../common/state/yaml-node.ts';
import { enumWords, flag, list, maybe, number, one, text, textMap, texts } from './static-yaml.ts';

export function labelsFrom(node: YamlNode): WorkloadLabels {
  node.allowKeys(['uid', 'labels', 'addresses']);
  return { uid: node.required('uid').text(), labels: textMap(node, 'labels'), addresses: texts(node, 'addresses') };
}

export function trafficFrom(node: YamlNode): ServiceTraffic {
  node.allowKeys(['namespace', 'hostname', 'policy', 'ports', 'subsets']);
  return {
    namespace: node.required('namespace').text(),
    hostname: node.required('hostname').text(),
    policy: maybe(node, 'policy', policyFrom),
    ports: list(node, 'ports', portFrom),
    subsets: list(node, 'subsets', (subset) => {
      subset.allowKeys(['name', 'labels', 'policy', 'ports']);
      return {
        name: subset.required('name').text(),
        labels: textMap(subset, 'labels'),
        policy: maybe(subset, 'policy', policyFrom),
        ports: list(subset, 'ports', portFrom),
      };
    }),
  };
}

function portFrom(node: YamlNode): PortTraffic {
  node.allowKeys(['port', 'policy']);
  return { port: node.required('port').integer(65535), policy: maybe(node, 'policy', policyFrom) };
}

const POLICY_KEYS = [
  'origin',
  'loadBalancer',
  'connectionPool',
  'outlierDetection',
  'tls',
  'proxyProtocol',
  'retryBudget',
  'refuse',
  'persistence',
] as const;

function policyFrom(node: YamlNode): TrafficPolicy {
  node.allowKeys(POLICY_KEYS);
  return {
    origin: text(node, 'origin'),
    loadBalancer: maybe(node, 'loadBalancer', balancerFrom),
    connectionPool: maybe(node, 'connectionPool', poolFrom),
    outlierDetection: maybe(node, 'outlierDetection', outliersFrom),
    tls: maybe(node, 'tls', (tls) => {
      tls.allowKeys(['serverName', 'subjectAltNames', 'roots', 'unverified', 'clientCertificate']);
      return {
        serverName: text(tls, 'serverName'),
        subjectAltNames: texts(tls, 'subjectAltNames'),
        roots: text(tls, 'roots'),
        unverified: flag(tls, 'unverified'),
        clientCertificate: maybe(tls, 'clientCertificate', (own) => {
          own.allowKeys(['certificate', 'privateKey']);
          return { certificate: own.required('certificate').text(), privateKey: own.required('privateKey').text() };
        }),
        credential: '',
      };
    }),
    proxyProtocol: number(node, 'proxyProtocol', 2),
    retryBudget: maybe(node, 'retryBudget', (budget) => {
      budget.allowKeys(['percent', 'minConcurrency']);
      return { percent: number(budget, 'percent', 100), minConcurrency: number(budget, 'minConcurrency') };
    }),
    refuse: text(node, 'refuse'),
    persistence: maybe(node, 'persistence', persistenceFrom),
  };
}

function balancerFrom(node: YamlNode): LoadBalancer {
  node.allowKeys(['balancing', 'consistentHash', 'locality', 'warmup']);
  return {
    balancing: node.optional('balancing')?.choice(enumWords(Balancing)) ?? Balancing.UNSPECIFIED,
    consistentHash: maybe(node, 'consistentHash', hashFrom),
    locality: maybe(node, 'locality', (locality) => {
      locality.allowKeys(['distribute', 'failover', 'failoverPriority']);
      return {
        distribute: list(locality, 'distribute', (entry) => {
          entry.allowKeys(['from', 'to']);
          const to = entry.required('to').entries((name, weight) => [name, weight.integer(100)] as const);
          return { from: entry.required('from').text(), to: Object.fromEntries(to) };
        }),
        failover: list(locality, 'failover', (entry) => {
          entry.allowKeys(['from', 'to']);
          return { from: entry.required('from').text(), to: entry.required('to').text() };
        }),
        failoverPriority: texts(locality, 'failoverPriority'),
      };
    }),
    warmup: maybe(node, 'warmup', (warmup) => {
      warmup.allowKeys(['durationMs', 'minimumPercent', 'aggressionMilli']);
      return {
        durationMs: number(warmup, 'durationMs'),
        minimumPercent: number(warmup, 'minimumPercent', 100),
        aggressionMilli: number(warmup, 'aggressionMilli'),
      };
    }),
  };
}

const HASH_KEYS = ['header', 'cookie', 'sourceIp', 'queryParameter'] as const;
const HASH_TABLES = ['ringSize', 'maglevSize'] as const;

function hashFrom(node: YamlNode): ConsistentHash {
  const found = one(node, HASH_KEYS, HASH_TABLES);
  const table = one(node, HASH_TABLES, HASH_KEYS);
  return { key: found && hashKey(found.key, found.value), table: table && { $case: table.key, value: table.value.integer(8_388_608) } };
}

function hashKey(key: (typeof HASH_KEYS)[number], value: YamlNode): NonNullable<ConsistentHash['key']> {
  if (key === 'sourceIp') return { $case: 'sourceIp', value: {} };
  if (key !== 'cookie') return { $case: key, value: value.text() };
  return { $case: 'cookie', value: cookieFrom(value) };
}

function cookieFrom(node: YamlNode): HashCookie {
  node.allowKeys(['name', 'path', 'ttlS']);
  return { name: node.required('name').text(), path: text(node, 'path'), ttlS: node.optional('ttlS')?.integer(2 ** 31) };
}

export function persistenceFrom(node: YamlNode): Persistence {
  const found = one(node, ['cookie', 'header']);
  if (!found) return {};
  if (found.key === 'header') return { carrier: { $case: 'header', value: found.value.text() } };
  return { carrier: { $case: 'cookie', value: cookieFrom(found.value) } };
}

const POOL_KEYS = [
  'maxConnections',
  'connectTimeoutMs',
  'maxPendingRequests',
  'maxRequests',
  'maxRequestsPerConnection',
  'maxRetries',
  'idleTimeoutMs',
  'maxConcurrentStreams',
  'maxConnectionDurationMs',
  'tcpIdleTimeoutMs',
] as const;

function poolFrom(node: YamlNode): ConnectionPool {
  node.allowKeys([...POOL_KEYS, 'http']);
  const numbers = Object.fromEntries(POOL_KEYS.map((key) => [key, number(node, key)])) as Record<(typeof POOL_KEYS)[number], number>;
  return { ...numbers, http: node.optional('http')?.choice(enumWords(UpstreamHttp)) ?? UpstreamHttp.AS_DECLARED };
}

function outliersFrom(node: YamlNode): OutlierDetection {
  const counts = ['consecutive5xx', 'consecutiveGatewayErrors', 'consecutiveLocalFailures'] as const;
  node.allowKeys([...counts, 'splitLocalErrors', 'intervalMs', 'baseEjectionMs', 'maxEjectionPercent', 'minHealthPercent']);
  const [all, gateway, local] = counts.map((key) => node.optional(key)?.integer(1_000_000));
  return {
    consecutive5xx: all,
    consecutiveGatewayErrors: gateway,
    consecutiveLocalFailures: local,
    splitLocalErrors: flag(node, 'splitLocalErrors'),
    intervalMs: number(node, 'intervalMs'),
    baseEjectionMs: number(node, 'baseEjectionMs'),
    maxEjectionPercent: number(node, 'maxEjectionPercent', 100),
    minHealthPercent: number(node, 'minHealthPercent', 100),
  };
}
