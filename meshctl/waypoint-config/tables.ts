/** The tables of `meshctl waypoint-config`, from a waypoint's own configuration dump. Pure. Keys are in no dump, so they are in no table. */
import { meaning, shortIdentities, shortService, waypointPolicies } from '../live/policies.ts';
import { table } from '../terminal.ts';

export const TABLES = ['routes', 'clusters', 'endpoints', 'policies', 'secrets'] as const;
export type TableName = (typeof TABLES)[number];

type Json = Readonly<Record<string, unknown>>;

/** What the table is made from: for `-o json`. */
export function part(dump: Json, name: TableName): unknown {
  const { routes, services, traffic, workloads, httpAuthorizations, authentications, rateLimits, certificates } = dump;
  switch (name) {
    case 'routes':
      return routes ?? [];
    case 'clusters':
      return { services: services ?? [], traffic: traffic ?? [] };
    case 'endpoints':
      return { services: services ?? [], workloads: workloads ?? [] };
    case 'policies':
      return { httpAuthorizations: httpAuthorizations ?? [], authentications: authentications ?? [], rateLimits: rateLimits ?? [] };
    case 'secrets':
      return certificates ?? [];
  }
}

export function waypointTable(dump: Json, name: TableName, width: number): string {
  const { head, rows, none, whole } = SHOWN[name](dump);
  return rows.length === 0 ? none : table(head, rows, { gap: '  ', width, ...(whole && { whole }) });
}

interface Shown {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly none: string;
  /** Columns that say nothing when cut. */
  readonly whole?: readonly number[];
}

const SHOWN: Readonly<Record<TableName, (dump: Json) => Shown>> = {
  routes: (dump) => ({
    head: ['SERVICE', 'PORT', 'MATCH', 'ROUTE', 'TO'],
    rows: list(dump.routes).flatMap(({ namespace, hostname, ports }) =>
      list(ports).flatMap(({ port, table: entries, rules, connections }) => [
        ...list(entries).map(({ match, rule }) => {
          const of = list(rules)[Number(rule)] ?? {};
          return [serviceName(namespace, hostname), portText(port), matchText(match), text(of.name), destinations(of)];
        }),
        ...list(connections).map((of) => [
          serviceName(namespace, hostname),
          portText(port),
          connectionText(of),
          text(of.name),
          destinations(of),
        ]),
      ]),
    ),
    none: 'no routes: what is bound to it is served as it is',
  }),
  clusters: (dump) => ({
    head: ['SERVICE', 'PORTS', 'ENDPOINTS', 'SUBSETS', 'BOUND', 'TRAFFIC POLICY'],
    rows: list(dump.services).map(({ namespace, hostname, ports, endpoints, waypoint }) => {
      const traffic = list(dump.traffic).find((each) => each.namespace === namespace && each.hostname === hostname);
      const policy = isObject(traffic?.policy) ? text(traffic.policy.origin) : '';
      const healthy = list(endpoints).filter(({ status }) => status !== 'Unhealthy').length;
      return [
        serviceName(namespace, hostname),
        Object.keys(isObject(ports) ? ports : {}).join(','),
        `${healthy}/${list(endpoints).length}`,
        list(traffic?.subsets)
          .map(({ name }) => text(name))
          .join(',') || '-',
        isObject(waypoint) ? 'yes' : 'no',
        policy || '-',
      ];
    }),
    none: 'no services',
  }),
  endpoints: (dump) => ({
    head: ['SERVICE', 'WORKLOAD', 'ADDRESS', 'PORTS', 'STATUS', 'PROTOCOL', 'NODE'],
    rows: list(dump.services).flatMap(({ namespace, hostname, endpoints }) =>
      list(endpoints).map(({ workloadUid, port, status }) => {
        const workload = list(dump.workloads).find(({ uid }) => uid === workloadUid);
        return [
          serviceName(namespace, hostname),
          workload ? `${text(workload.namespace)}/${text(workload.name)}` : text(workloadUid),
          (Array.isArray(workload?.workloadIps) ? workload.workloadIps : []).map(text)[0] ?? text(workload?.hostname),
          Object.entries(isObject(port) ? port : {})
            .map(([from, to]) => (String(to) === from ? from : `${from}→${to}`))
            .join(','),
          text(status) || text(workload?.status),
          text(workload?.protocol),
          text(workload?.node),
        ];
      }),
    ),
    none: 'no endpoints',
  }),
  policies: (dump) => ({
    head: ['KIND', 'POLICY', 'ACTION', 'HOLDS FOR', 'WHAT IT DOES'],
    rows: [
      ...waypointPolicies(dump, everyService(dump), '').map((policy) => [
        'AuthorizationPolicy',
        policy.policy,
        policy.dryRun ? `${policy.action} (dry run)` : policy.action,
        policy.because,
        shortIdentities(meaning(policy)),
      ]),
      ...list(dump.authentications).map(({ namespace, name, targets, rules }) => [
        'RequestAuthentication',
        `${text(namespace)}/${text(name)}`,
        'JWT',
        targetText(targets),
        list(rules)
          .map(({ issuer, keys }) => `tokens of ${text(issuer)}${text(keys) === '' ? ' (no keys yet: none is valid)' : ''}`)
          .join('; '),
      ]),
      ...list(dump.rateLimits).map(({ namespace, name, targets, limits, dryRun }) => [
        'RateLimitPolicy',
        `${text(namespace)}/${text(name)}`,
        dryRun === true ? 'LIMIT (dry run)' : 'LIMIT',
        targetText(targets),
        list(limits)
          .map(({ name: limit, requests, periodMs }) => `${text(limit)}: ${Number(requests)} in ${Number(periodMs) / 1000} s`)
          .join('; '),
      ]),
    ],
    none: 'no L7 policies',
  }),
  secrets: (dump) => ({
    head: ['IDENTITY', 'STATUS', 'SERIAL NUMBER', 'NOT AFTER', 'NOT BEFORE'],
    rows: list(dump.certificates).flatMap(({ identity, state, certChain }) => {
      const chain = list(certChain);
      if (chain.length === 0) return [[text(identity), text(state), '-', '-', '-']];
      return chain.map(({ serialNumber, validFrom, expirationTime }) => [
        text(identity),
        text(state),
        hexadecimal(text(serialNumber)),
        secondsOf(text(expirationTime)),
        secondsOf(text(validFrom)),
      ]);
    }),
    none: 'no certificates',
    whole: [1, 3, 4],
  }),
};

const everyService = (dump: Json): string[] => list(dump.services).map(({ namespace, hostname }) => `${text(namespace)}/${text(hostname)}`);

const serviceName = (namespace: unknown, hostname: unknown): string => shortService(`${text(namespace)}/${text(hostname)}`);

const portText = (port: unknown): string => (Number(port) === 0 ? 'any' : String(port));

function matchText(match: unknown): string {
  if (!isObject(match)) return 'everything';
  const { path, method, headers, queryParams, withoutHeaders, authority, source } = match;
  const type = isObject(path) && isObject(path.type) ? path.type : undefined;
  const parts = [
    text(method),
    type ? `${text(type.value)}${{ prefix: '*', textPrefix: '*', regex: ' (regex)' }[text(type.$case)] ?? ''}` : '',
    ...list(headers).map((header) => `${text(header.name)}: ${valueText(header)}`),
    ...list(withoutHeaders).map((header) => `without ${text(header.name)}: ${valueText(header)}`),
    ...list(queryParams).map((param) => `?${text(param.name)}=${valueText(param)}`),
    isObject(authority) ? `host ${valueText(authority)}` : '',
    isObject(source) && text(source.namespace) !== '' ? `from namespace ${text(source.namespace)}` : '',
  ];
  return parts.filter((each) => each !== '').join(' ') || 'everything';
}

function connectionText({ serverNames, destinationRanges }: Json): string {
  const names = [...(Array.isArray(serverNames) ? serverNames : []), ...(Array.isArray(destinationRanges) ? destinationRanges : [])].map(
    text,
  );
  return names.length === 0 ? 'connections' : names.join(' or ');
}

function valueText({ type }: Json): string {
  if (!isObject(type)) return '';
  return (
    { exact: text(type.value), regex: `${text(type.value)} (regex)`, prefix: `${text(type.value)}*`, presence: '*' }[text(type.$case)] ?? ''
  );
}

/** Where a rule sends, with shares of a hundred where there are several. */
function destinations({ backends, redirect, directAnswer }: Json): string {
  if (isObject(redirect)) return `redirect ${Number(redirect.status) || 302}`;
  if (isObject(directAnswer)) return `answers ${Number(directAnswer.status)}`;
  const all = list(backends);
  const weights = all.reduce((sum, { weight }) => sum + Number(weight), 0);
  const named = all.map(({ to, weight }) => {
    const name = isObject(to)
      ? `${serviceName(to.namespace, to.hostname)}:${Number(to.port)}${text(to.subset) && ` subset ${text(to.subset)}`}`
      : 'nothing (500)';
    return all.length === 1 || weights === 0 ? name : `${name} ${Math.round((100 * Number(weight)) / weights)}%`;
  });
  return named.join(', ') || 'the service itself';
}

const targetText = (targets: unknown): string =>
  list(targets)
    .map(({ type }) => {
      if (!isObject(type)) return '';
      if (type.$case === 'everything') return 'all of its waypoint';
      if (type.$case === 'route' && isObject(type.value)) return text(type.value.route);
      return `service ${shortService(text(type.value))}`;
    })
    .join(', ');

const secondsOf = (time: string): string => time.replace(/\.\d+Z$/, 'Z');

const hexadecimal = (decimal: string): string => (/^\d+$/.test(decimal) ? BigInt(decimal).toString(16) : decimal);

const isObject = (value: unknown): value is Json => value !== null && typeof value === 'object' && !Array.isArray(value);
const list = (value: unknown): Json[] => (Array.isArray(value) ? value : isObject(value) ? Object.values(value) : []).filter(isObject);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
