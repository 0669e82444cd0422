/**
 * Istio's own cases of reading the Gateway API: of each, the part that is the mesh's. Statuses of routes whose parents are services and of
 * waypoints' Gateways, and the order in which a service's routes are matched, which Istio writes as VirtualServices of the gateway `mesh`.
 */
import { loadAll } from 'js-yaml';
import { type HttpMatch, ServiceRoutes } from '../../../common/codec/gen/waypoint.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { type WatchedKindName, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import * as make from '../../support/kube-objects.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

const FOLDER = 'istio/pilot/pkg/config/kube/gateway/testdata';
const DOMAIN = 'domain.suffix';

type Json = Record<string, unknown>;

interface YamlObject {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly spec?: Json;
  readonly status?: Json;
}

interface Reference {
  readonly group?: string;
  readonly kind?: string;
  readonly name: string;
  readonly namespace?: string;
  readonly port?: number;
}

interface ToldCondition {
  readonly type: string;
  readonly status: string;
  readonly reason: string;
  readonly message: string;
}

interface ToldParent {
  readonly parentRef: Reference;
  readonly conditions: readonly ToldCondition[];
}

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER).filter((name) => name.endsWith('.yaml'))) {
      const stem = file.slice(0, -'.yaml'.length);
      const read = (name: string): YamlObject[] =>
        cases.has(`${FOLDER}/${name}`)
          ? (loadAll(cases.read(`${FOLDER}/${name}`)) as (YamlObject | null)[]).filter((item) => item !== null)
          : [];
      yield attempt(stem, () =>
        runCase(stem, { input: read(file), status: read(`${stem}.status.yaml.golden`), output: read(`${file}.golden`) }),
      );
    }
  },
};

interface ConversionCase {
  readonly input: readonly YamlObject[];
  readonly status: readonly YamlObject[];
  readonly output: readonly YamlObject[];
}

function runCase(name: string, { input, status, output }: ConversionCase): CaseResult {
  const expected = { statuses: expectedStatuses(input, status), tables: expectedTables(output) };
  if (Object.keys(expected.statuses).length + Object.keys(expected.tables).length === 0) {
    return { case: name, verdict: 'skip', reason: 'about Gateways of other classes, which istiod-lite does not look after yet' };
  }
  const index = new MeshIndex({ clusterId: 'c', domain: DOMAIN, rootNamespace: 'istio-system', trustDomain: 't', network: '' });
  const apply = (kind: WatchedKindName, object: unknown) => index.apply({ type: 'added', kind, object });
  apply('GatewayClass', { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } });
  const namespaces = new Set(input.map(({ metadata }) => metadata.namespace));
  for (const namespace of namespaces) apply('Namespace', make.namespace(namespace, { 'istio.io/use-waypoint': 'wp' }));
  for (const service of implicitServices(input, status)) apply('Service', service);
  for (const object of input) {
    if (Object.hasOwn(watchedKinds, object.kind)) apply(object.kind as WatchedKindName, object);
  }
  const statuses = new Map(index.flush().statuses.map((write) => [`${write.kind} ${write.namespace}/${write.name}`, write.status]));
  const actual = {
    statuses: Object.fromEntries(Object.keys(expected.statuses).map((key) => [key, told(statuses.get(key) as Json | undefined)])),
    tables: actualTables(index, Object.keys(expected.tables)),
  };
  const different = compare(name, actual.statuses, expected.statuses, 'statuses');
  return different.verdict === 'fail' ? different : compare(name, actual.tables, expected.tables, 'tables');
}

/** Istio's runner has services that no file lists: whatever is referred to, unless the expectation says that it is missing. */
function implicitServices(input: readonly YamlObject[], status: readonly YamlObject[]): Json[] {
  const said = JSON.stringify(status);
  const ports = new Map<string, Set<number>>();
  for (const { kind, metadata, spec } of input) {
    if (kind !== 'HTTPRoute' && kind !== 'GRPCRoute') continue;
    for (const reference of serviceReferences(spec)) {
      const key = `${reference.namespace ?? metadata.namespace}/${reference.name}`;
      ports.set(key, (ports.get(key) ?? new Set([80])).add(reference.port ?? 80));
    }
  }
  return [...ports].flatMap(([key, numbers]) => {
    const [namespace = '', name = ''] = key.split('/');
    if (said.includes(`backend(${name}.${namespace}.svc.${DOMAIN}) not found`) || said.includes(`parent service: \\"${name}\\" not found`))
      return [];
    return [make.service({ name, namespace, ports: [...numbers].map((port) => ({ name: `http-${port}`, port })) })];
  });
}

/** Every object within that refers to a Service, wherever it stands. */
function serviceReferences(value: unknown): Reference[] {
  if (Array.isArray(value)) return value.flatMap(serviceReferences);
  if (value === null || typeof value !== 'object') return [];
  const { parentRefs, backendRef, backendRefs, ...rest } = value as {
    parentRefs?: Reference[];
    backendRef?: Reference;
    backendRefs?: Reference[];
  };
  const parents = (parentRefs ?? []).filter(({ kind }) => kind === 'Service');
  const backends = [...(backendRefs ?? []), ...(backendRef ? [backendRef] : [])].filter(({ kind = 'Service' }) => kind === 'Service');
  return [...parents, ...backends, ...Object.values(rest).flatMap(serviceReferences)];
}

/** Of HTTPRoutes the parents in the mesh, of Gateways those that are waypoints. */
function expectedStatuses(input: readonly YamlObject[], status: readonly YamlObject[]): Json {
  const waypoints = input.filter(({ kind, spec }) => kind === 'Gateway' && spec?.gatewayClassName === 'istio-waypoint');
  return Object.fromEntries(
    status.flatMap(({ kind, metadata, status: shown }): [string, unknown][] => {
      const key = `${kind} ${metadata.namespace}/${metadata.name}`;
      if (kind === 'Gateway') {
        const ours = waypoints.some(
          (gateway) => gateway.metadata.name === metadata.name && gateway.metadata.namespace === metadata.namespace,
        );
        return ours ? [[key, told(shown)]] : [];
      }
      const parents = told(shown)?.parents as unknown[] | undefined;
      return kind === 'HTTPRoute' && parents && parents.length > 0 ? [[key, told(shown)]] : [];
    }),
  );
}

const MESH_PARENTS = ['Service', 'ServiceEntry'];

/** ResolvedWaypoints is switched off in these cases. */
const plain = (conditions: readonly ToldCondition[]): string[] =>
  conditions.flatMap(({ type, status, reason }) => (type === 'ResolvedWaypoints' ? [] : [`${type}=${status} ${reason}`])).sort();

function told(status: Json | undefined): Json | undefined {
  if (!status) return undefined;
  const { conditions, listeners, parents } = status as {
    conditions?: ToldCondition[];
    listeners?: { name: string; supportedKinds: Json[]; conditions: ToldCondition[] }[];
    parents?: ToldParent[];
  };
  return {
    ...(conditions ? { conditions: plain(conditions) } : {}),
    ...(listeners
      ? {
          listeners: listeners.map(({ name, supportedKinds, conditions: own }) => ({
            name,
            kinds: supportedKinds.map(({ kind }) => kind),
            told: plain(own),
          })),
        }
      : {}),
    ...(parents
      ? {
          parents: parents
            .filter(({ parentRef }) => MESH_PARENTS.includes(parentRef.kind ?? 'Gateway'))
            .map(({ parentRef, conditions: own }) => `${JSON.stringify(Object.entries(parentRef).sort())} ${plain(own)}`)
            .sort(),
        }
      : {}),
  };
}

interface VirtualRoute {
  readonly name: string;
  readonly match?: readonly {
    readonly port?: number;
    readonly uri?: Json;
    readonly method?: Json;
    readonly headers?: Json;
    readonly queryParams?: Json;
  }[];
}

/** Lines in order, by `host port`. Routes of other namespaces than the service's are for clients' own proxies. */
function expectedTables(output: readonly YamlObject[]): Record<string, string[]> {
  const tables: Record<string, string[]> = {};
  for (const { kind, metadata, spec } of output) {
    const { gateways = [], hosts = [], http = [] } = (spec ?? {}) as { gateways?: string[]; hosts?: string[]; http?: VirtualRoute[] };
    if (kind !== 'VirtualService' || !gateways.includes('mesh') || http.length === 0) continue;
    for (const host of hosts.filter((name) => name.endsWith(`.${metadata.namespace}.svc.${DOMAIN}`))) {
      tables[`${host} ${http[0]?.match?.[0]?.port ?? 0}`] = http.map(({ name, match = [] }) => {
        const { uri = { prefix: '/' }, method = {}, headers = {}, queryParams = {} } = match[0] ?? {};
        return line(name, Object.entries(uri)[0], String(method.exact ?? ''), Object.keys(headers), Object.keys(queryParams));
      });
    }
  }
  return tables;
}

function actualTables(index: MeshIndex, keys: readonly string[]): Record<string, string[] | undefined> {
  const services = [...index.waypoints()].flatMap((key) => {
    const [namespace = '', name = ''] = key.split('/');
    return index.waypointResources(namespace, name).routes.map(({ bytes }) => ServiceRoutes.decode(bytes));
  });
  return Object.fromEntries(
    keys.map((key) => {
      const [host, port] = key.split(' ');
      const found = services.find(({ hostname }) => hostname === host)?.ports.find((ports) => ports.port === Number(port));
      return [key, found?.table.map(({ match, rule }) => entryLine(found.rules[rule]?.name ?? '', match))];
    }),
  );
}

function entryLine(rule: string, match: HttpMatch | undefined): string {
  // HTTPRoute NAMESPACE/NAME rule INDEX is what Istio calls NAMESPACE.NAME.INDEX.
  const name = rule.replace(/^\w+ (\S+)\/(\S+) rule (\S+)$/, '$1.$2.$3');
  const type = match?.path?.type;
  const names = (items: HttpMatch['headers'] = []): string[] => items.map((item) => item.name);
  return line(name, type && [type.$case, type.value], match?.method ?? '', names(match?.headers), names(match?.queryParams));
}

const line = (
  name: string,
  path: readonly unknown[] | undefined,
  method: string,
  headers: readonly string[],
  params: readonly string[],
): string => [name, ...(path ?? []), method, ...headers, ...params].filter((word) => word !== '').join(' ');
