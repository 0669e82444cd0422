/**
 * DestinationRule (networking.istio.io/v1) → how a service's endpoints are chosen and spoken to: complete policies by port and subset, since
 * what a subset inherits from its service, and a port from nobody, is Istio's rule and not a waypoint's.
 */
import { parseIp } from '../../common/base/address.ts';
import {
  Balancing,
  type ConnectionPool,
  type ConsistentHash,
  type LoadBalancer,
  type Locality,
  type OutlierDetection,
  type PortTraffic,
  type RetryBudget,
  type Subset,
  type TrafficPolicy,
  UpstreamHttp,
  type UpstreamTls,
  type Warmup,
} from '../../common/codec/gen/waypoint.ts';
import type { MeshModelConfig } from './config.ts';
import { exportsOf, fullHost, optionalDurationMs, type Problems } from './istio-values.ts';
import * as names from './names.ts';
import { at, isRecord, objectKey, portOf, quote, type Report, readMeta, records, text, textMap, texts, whole } from './objects.ts';

export interface DestinationRule {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly createdAt: string;
  readonly generation: number;
  readonly host: string;
  readonly exportTo: readonly string[];
  readonly policy: TrafficPolicy | undefined;
  readonly ports: readonly PortTraffic[];
  readonly subsets: readonly Subset[];
  /** What is not carried out, for its status; where doing without would be less than what was written, the policy says `refuse` too. */
  readonly problems: readonly string[];
}

export function readDestinationRule(config: MeshModelConfig, object: unknown, report: Report): DestinationRule | undefined {
  const meta = readMeta(object);
  const spec = at(object, 'spec');
  const host = text(at(spec, 'host'));
  if (!meta) return undefined;
  if (host === '') report('spec.host is missing');
  const key = objectKey(meta);
  const problems: Problems = [];
  const own = meta.annotations[names.LOAD_BALANCER];
  if (own !== undefined && !Object.hasOwn(OWN, own)) problems.push(`annotation ${names.LOAD_BALANCER}: ${quote(own)}`);
  const reader = new PolicyReader(`DestinationRule ${key}`, problems, own === undefined ? undefined : OWN[own]);
  const written = at(spec, 'trafficPolicy') ?? (own === undefined ? undefined : {});
  if (isRecord(at(spec, 'workloadSelector')))
    problems.push('spec.workloadSelector: waypoints are selected by the service that they stand before');
  const subsets = new Map<string, Subset>();
  for (const subset of records(at(spec, 'subsets'))) {
    const name = text(subset.name);
    if (subsets.has(name)) problems.push(`subset ${quote(name)} is there twice; the first one counts`);
    else subsets.set(name, reader.subset(name, subset, written));
  }
  return {
    key,
    namespace: meta.namespace,
    name: meta.name,
    createdAt: meta.createdAt,
    generation: meta.generation,
    host: fullHost(host, meta.namespace, config.domain),
    exportTo: exportsOf(object),
    policy: isRecord(written) ? reader.policy([written]) : undefined,
    ports: reader.ports(written),
    subsets: [...subsets.values()],
    problems: [...new Set(problems)],
  };
}

/** The sections of a policy that are taken as a whole, from the most specific one that has them. */
type Section = 'loadBalancer' | 'connectionPool' | 'outlierDetection' | 'tls' | 'proxyProtocol' | 'retryBudget' | 'tunnel';

class PolicyReader {
  readonly #origin: string;
  readonly #problems: Problems;
  /** Where a policy leaves the choice open, or asks for the least busy endpoint. */
  readonly #own: Balancing | undefined;

  constructor(origin: string, problems: Problems, own: Balancing | undefined) {
    this.#origin = origin;
    this.#problems = problems;
    this.#own = own;
  }

  subset(name: string, subset: Record<string, unknown>, whole: unknown): Subset {
    const own = subset.trafficPolicy;
    // A subset without a policy of its own has the service's, its ports included.
    const inherited = new Map(records(at(whole, 'portLevelSettings')).map((port) => [portNumber(port), port]));
    const ports = new Map(inherited);
    for (const port of records(at(own, 'portLevelSettings'))) ports.set(portNumber(port), port);
    return {
      name,
      labels: { ...textMap(subset.labels) },
      policy: isRecord(own) || isRecord(whole) ? this.policy([own, whole]) : undefined,
      ports: [...ports].flatMap(([number, port]) => (number === undefined ? [] : [{ port: number, policy: this.policy([port]) }])),
    };
  }

  /** What a port says is all that holds there: nothing is inherited. */
  ports(policy: unknown): PortTraffic[] {
    return records(at(policy, 'portLevelSettings')).flatMap((port) => {
      const number = portNumber(port);
      if (number === undefined) this.#problems.push(`portLevelSettings.port ${quote(port.port)}`);
      return number === undefined ? [] : [{ port: number, policy: this.policy([port]) }];
    });
  }

  /** @param layers the most specific one first */
  policy(layers: readonly unknown[]): TrafficPolicy {
    const section = (name: Section): unknown => layers.map((layer) => at(layer, name)).find(isRecord);
    const tls = this.#tls(section('tls'));
    const refuse = [tls.refuse];
    if (section('tunnel')) refuse.push('a tunnel by HTTP CONNECT through a proxy is not supported');
    for (const reason of refuse) if (reason !== '') this.#problems.push(reason);
    return {
      origin: this.#origin,
      loadBalancer: this.#balancer(section('loadBalancer'), section('outlierDetection') !== undefined),
      connectionPool: this.#pool(section('connectionPool')),
      outlierDetection: this.#outliers(section('outlierDetection')),
      tls: tls.tls,
      proxyProtocol: proxyVersion(section('proxyProtocol')),
      retryBudget: this.#budget(section('retryBudget')),
      refuse: refuse.filter((reason) => reason !== '').join('; '),
    };
  }

  #balancer(given: unknown, hasOutliers: boolean): LoadBalancer | undefined {
    if (!isRecord(given) && this.#own === undefined) return undefined;
    const written = isRecord(given) ? given : {};
    const simple = text(written.simple);
    const balancing = Object.hasOwn(SIMPLE, simple) ? SIMPLE[simple] : undefined;
    if (simple !== '' && balancing === undefined) this.#problems.push(`loadBalancer.simple ${quote(simple)}`);
    const isOpen = balancing === undefined || balancing === Balancing.UNSPECIFIED || balancing === Balancing.LEAST_REQUEST;
    return {
      balancing: (isOpen ? this.#own : undefined) ?? balancing ?? Balancing.UNSPECIFIED,
      consistentHash: isRecord(written.consistentHash) ? this.#hash(written.consistentHash) : undefined,
      locality: this.#locality(written.localityLbSetting, hasOutliers),
      warmup: this.#warmup(written),
    };
  }

  #hash(hash: Record<string, unknown>): ConsistentHash {
    const { ringHash, maglev, httpHeaderName, httpCookie, httpQueryParameterName, useSourceIp } = hash;
    const table: ConsistentHash['table'] = isRecord(maglev)
      ? { $case: 'maglevSize', value: count(maglev.tableSize) }
      : { $case: 'ringSize', value: count(isRecord(ringHash) ? ringHash.minimumRingSize : hash.minimumRingSize) };
    if (typeof httpHeaderName === 'string') return { key: { $case: 'header', value: httpHeaderName.toLowerCase() }, table };
    if (isRecord(httpCookie)) {
      const ttl =
        httpCookie.ttl === undefined ? undefined : optionalDurationMs(httpCookie.ttl, 'consistentHash.httpCookie.ttl', this.#problems);
      if (records(httpCookie.attributes).length > 0) this.#problems.push('consistentHash.httpCookie.attributes');
      const cookie = {
        name: text(httpCookie.name),
        path: text(httpCookie.path),
        ttlS: ttl === undefined ? undefined : Math.floor(ttl / 1000),
      };
      return { key: { $case: 'cookie', value: cookie }, table };
    }
    if (typeof httpQueryParameterName === 'string') return { key: { $case: 'queryParameter', value: httpQueryParameterName }, table };
    if (useSourceIp !== true) this.#problems.push('consistentHash without anything to hash by: the address of the caller is used');
    return { key: { $case: 'sourceIp', value: {} }, table };
  }

  #locality(written: unknown, hasOutliers: boolean): Locality | undefined {
    if (!isRecord(written) || written.enabled === false) return undefined;
    const distribute = records(written.distribute).map(({ from, to }) => ({
      from: text(from),
      to: Object.fromEntries(Object.entries(isRecord(to) ? to : {}).map(([place, weight]) => [place, count(weight)])),
    }));
    const failover = records(written.failover).map(({ from, to }) => ({ from: text(from), to: text(to) }));
    const failoverPriority = [...texts(written.failoverPriority)];
    // Without detection nothing is ever unwell, so Istio leaves locality out of it.
    if (distribute.length === 0 && !hasOutliers) {
      if (failover.length > 0 || failoverPriority.length > 0)
        this.#problems.push('localityLbSetting has an effect with outlierDetection only');
      return undefined;
    }
    return { distribute, failover, failoverPriority };
  }

  #warmup(balancer: Record<string, unknown>): Warmup | undefined {
    const { warmup, warmupDurationSecs } = balancer;
    const durationMs = optionalDurationMs(isRecord(warmup) ? warmup.duration : warmupDurationSecs, 'loadBalancer.warmup', this.#problems);
    if (durationMs === 0) return undefined;
    const aggression = at(warmup, 'aggression');
    return {
      durationMs,
      minimumPercent: count(at(warmup, 'minimumPercent')) || 10,
      aggressionMilli: typeof aggression === 'number' && aggression >= 1 ? Math.round(aggression * 1000) : 1000,
    };
  }

  #pool(written: unknown): ConnectionPool | undefined {
    if (!isRecord(written)) return undefined;
    const { tcp, http } = written;
    const upgrade = text(at(http, 'h2UpgradePolicy'));
    if (isRecord(at(tcp, 'tcpKeepalive'))) this.#problems.push('connectionPool.tcp.tcpKeepalive');
    return {
      maxConnections: count(at(tcp, 'maxConnections')),
      connectTimeoutMs: optionalDurationMs(at(tcp, 'connectTimeout'), 'connectionPool.tcp.connectTimeout', this.#problems),
      maxConnectionDurationMs: optionalDurationMs(
        at(tcp, 'maxConnectionDuration'),
        'connectionPool.tcp.maxConnectionDuration',
        this.#problems,
      ),
      maxPendingRequests: count(at(http, 'http1MaxPendingRequests')),
      maxRequests: count(at(http, 'http2MaxRequests')),
      maxRequestsPerConnection: count(at(http, 'maxRequestsPerConnection')),
      maxRetries: count(at(http, 'maxRetries')),
      idleTimeoutMs: optionalDurationMs(
        at(http, 'idleTimeout') ?? at(tcp, 'idleTimeout'),
        'connectionPool.http.idleTimeout',
        this.#problems,
      ),
      tcpIdleTimeoutMs: optionalDurationMs(at(tcp, 'idleTimeout'), 'connectionPool.tcp.idleTimeout', this.#problems),
      maxConcurrentStreams: count(at(http, 'maxConcurrentStreams')),
      http:
        at(http, 'useClientProtocol') === true
          ? UpstreamHttp.AS_CLIENT
          : upgrade === 'UPGRADE'
            ? UpstreamHttp.HTTP2
            : UpstreamHttp.AS_DECLARED,
    };
  }

  #outliers(written: unknown): OutlierDetection | undefined {
    if (!isRecord(written)) return undefined;
    const optional = (value: unknown): number | undefined => (value === undefined || value === null ? undefined : count(value));
    return {
      consecutive5xx: optional(written.consecutive5xxErrors ?? written.consecutiveErrors),
      consecutiveGatewayErrors: optional(written.consecutiveGatewayErrors),
      consecutiveLocalFailures: optional(written.consecutiveLocalOriginFailures),
      splitLocalErrors: written.splitExternalLocalOriginErrors === true,
      intervalMs: optionalDurationMs(written.interval, 'outlierDetection.interval', this.#problems),
      baseEjectionMs: optionalDurationMs(written.baseEjectionTime, 'outlierDetection.baseEjectionTime', this.#problems),
      maxEjectionPercent: Math.min(count(written.maxEjectionPercent), 100),
      minHealthPercent: Math.min(count(written.minHealthPercent), 100),
    };
  }

  /** Certificates of our own, and roots, are in a Secret of the waypoint's namespace: which one, the waypoint decides. */
  #tls(written: unknown): { tls: UpstreamTls | undefined; refuse: string } {
    const mode = text(at(written, 'mode'));
    const none = (refuse = ''): { tls: undefined; refuse: string } => ({ tls: undefined, refuse });
    // Inside the mesh endpoints are reached through tunnels in any case.
    if (!isRecord(written) || mode === '' || mode === 'DISABLE' || mode === 'ISTIO_MUTUAL') return none();
    if (mode !== 'SIMPLE' && mode !== 'MUTUAL') return none(`tls.mode ${mode} is not supported`);
    const credential = text(written.credentialName);
    if (mode === 'MUTUAL' && credential === '')
      return none('tls.mode MUTUAL needs tls.credentialName: waypoints have no files of certificates');
    if (text(written.caCertificates) !== '' && text(written.caCertificates) !== 'system')
      return none('tls.caCertificates names a file, and waypoints have none: use tls.credentialName or a BackendTLSPolicy');
    const sni = text(written.sni);
    return {
      tls: {
        serverName: sni,
        subjectAltNames: [...texts(written.subjectAltNames)],
        roots: '',
        unverified: written.insecureSkipVerify === true,
        credential: credential === '' ? '' : `${mode} ${credential}`,
      },
      refuse: parseIp(sni) === undefined ? '' : `tls.sni ${quote(sni)} is an address`,
    };
  }

  #budget(written: unknown): RetryBudget | undefined {
    if (!isRecord(written)) return undefined;
    const percent = typeof written.percent === 'number' ? written.percent : Number(at(written.percent, 'value') ?? 20);
    return {
      percent: Math.round(Math.min(Math.max(Number.isFinite(percent) ? percent : 20, 0), 100)),
      minConcurrency: written.minRetryConcurrency === undefined ? 3 : count(written.minRetryConcurrency),
    };
  }
}

const OWN: Readonly<Record<string, Balancing>> = { PEAK_EWMA: Balancing.PEAK_EWMA };

const SIMPLE: Readonly<Record<string, Balancing>> = {
  UNSPECIFIED: Balancing.UNSPECIFIED,
  LEAST_CONN: Balancing.LEAST_REQUEST,
  LEAST_REQUEST: Balancing.LEAST_REQUEST,
  RANDOM: Balancing.RANDOM,
  ROUND_ROBIN: Balancing.ROUND_ROBIN,
  PASSTHROUGH: Balancing.PASSTHROUGH,
};

const portNumber = (port: Record<string, unknown>): number | undefined => portOf(at(port.port, 'number'));

function proxyVersion(written: unknown): number {
  if (!isRecord(written)) return 0;
  return written.version === 'V2' ? 2 : 1;
}

/** Numbers come as text too, where the type is a 64-bit one. */
function count(value: unknown): number {
  const number = typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : (whole(value) ?? 0);
  return Math.min(Math.max(number, 0), 0x7fff_ffff);
}
