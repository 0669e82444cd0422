/** What is served: `/api`, `/apis` and the lists below them, plain and aggregated, made anew after each change of the registry. */
import type { Registry, ResourceType } from '../registry.ts';
import { apiVersionOf } from '../registry.ts';

const VERBS = ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

interface Subresource {
  readonly name: string;
  readonly kind: string;
  readonly verbs: readonly string[];
  readonly group?: string;
  readonly version?: string;
}

const OF_PODS: readonly Subresource[] = [
  { name: 'log', kind: 'Pod', verbs: ['get'] },
  { name: 'exec', kind: 'PodExecOptions', verbs: ['create', 'get'] },
  { name: 'portforward', kind: 'PodPortForwardOptions', verbs: ['create', 'get'] },
  { name: 'proxy', kind: 'PodProxyOptions', verbs: ['create', 'delete', 'get', 'patch', 'update'] },
  { name: 'binding', kind: 'Binding', verbs: ['create'] },
  { name: 'eviction', kind: 'Eviction', verbs: ['create'], group: 'policy', version: 'v1' },
];
const OF_SERVICES: readonly Subresource[] = [
  { name: 'proxy', kind: 'ServiceProxyOptions', verbs: ['create', 'delete', 'get', 'patch', 'update'] },
];
const OF_SERVICE_ACCOUNTS: readonly Subresource[] = [
  { name: 'token', kind: 'TokenRequest', verbs: ['create'], group: 'authentication.k8s.io', version: 'v1' },
];
const OF_NAMESPACES: readonly Subresource[] = [{ name: 'finalize', kind: 'Namespace', verbs: ['update'] }];

/** @returns the document at a discovery path, or undefined where it is none */
export function discoveryDocument(registry: Registry, pathname: string, accept: string): object | undefined {
  const path = pathname.replace(/\/$/, '');
  const aggregated = /as=APIGroupDiscoveryList/.test(accept) ? (/v=(v2(?:beta1)?)/.exec(accept)?.[1] ?? 'v2') : undefined;
  if (path === '/api')
    return aggregated
      ? aggregatedList(registry, aggregated, true)
      : { kind: 'APIVersions', versions: ['v1'], serverAddressByClientCIDRs: [] };
  if (path === '/apis')
    return aggregated
      ? aggregatedList(registry, aggregated, false)
      : { kind: 'APIGroupList', apiVersion: 'v1', groups: groups(registry).map((group) => apiGroup(registry, group)) };
  const [, root, first, second, ...more] = path.split('/');
  if (more.length > 0 || first === undefined) return undefined;
  if (root === 'api' && second === undefined) return resourceList(registry, '', first);
  if (root !== 'apis') return undefined;
  if (second !== undefined) return resourceList(registry, first, second);
  return groups(registry).includes(first) ? { kind: 'APIGroup', apiVersion: 'v1', ...apiGroup(registry, first) } : undefined;
}

/** The content type that goes with a discovery document. */
export function discoveryContentType(document: object): string {
  const { kind, apiVersion } = document as { kind: string; apiVersion?: string };
  if (kind !== 'APIGroupDiscoveryList') return 'application/json';
  return `application/json;g=apidiscovery.k8s.io;v=${apiVersion?.split('/')[1] ?? 'v2'};as=APIGroupDiscoveryList`;
}

function resourceList(registry: Registry, group: string, version: string): object | undefined {
  const types = typesOf(registry, group, version);
  if (types.length === 0) return undefined;
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: apiVersionOf(group, version),
    resources: types.flatMap((type) => [
      {
        name: type.plural,
        singularName: type.singular,
        namespaced: type.namespaced,
        kind: type.kind,
        verbs: verbsOf(type),
        ...(type.shortNames.length > 0 ? { shortNames: type.shortNames } : {}),
        ...(type.categories.length > 0 ? { categories: type.categories } : {}),
      },
      ...subresources(type).map((sub) => ({
        name: `${type.plural}/${sub.name}`,
        singularName: '',
        namespaced: type.namespaced,
        kind: sub.kind,
        verbs: sub.verbs,
        ...(sub.version ? { group: sub.group, version: sub.version } : {}),
      })),
    ]),
  };
}

function aggregatedList(registry: Registry, version: string, core: boolean): object {
  const wanted = core ? [''] : groups(registry);
  return {
    kind: 'APIGroupDiscoveryList',
    apiVersion: `apidiscovery.k8s.io/${version}`,
    metadata: {},
    items: wanted.map((group) => ({
      metadata: group ? { name: group, creationTimestamp: null } : { creationTimestamp: null },
      versions: versionsOf(registry, group).map((name) => ({
        version: name,
        freshness: 'Current',
        resources: typesOf(registry, group, name).map((type) => ({
          resource: type.plural,
          responseKind: { group, version: name, kind: type.kind },
          scope: type.namespaced ? 'Namespaced' : 'Cluster',
          singularResource: type.singular,
          verbs: verbsOf(type),
          ...(type.shortNames.length > 0 ? { shortNames: type.shortNames } : {}),
          ...(type.categories.length > 0 ? { categories: type.categories } : {}),
          subresources: subresources(type).map((sub) => ({
            subresource: sub.name,
            responseKind: { group: sub.group ?? group, version: sub.version ?? name, kind: sub.kind },
            verbs: sub.verbs,
          })),
        })),
      })),
    })),
  };
}

function apiGroup(registry: Registry, name: string): { name: string; versions: object[]; preferredVersion: object | undefined } {
  const versions = versionsOf(registry, name).map((version) => ({ groupVersion: apiVersionOf(name, version), version }));
  return { name, versions, preferredVersion: versions[0] };
}

const groups = (registry: Registry): string[] =>
  [...new Set([...registry.types].map(({ group }) => group))].filter((group) => group !== '').sort();

const versionsOf = (registry: Registry, group: string): string[] =>
  [...new Set([...registry.types].filter((type) => type.group === group).flatMap(({ versions }) => versions.map(({ name }) => name)))].sort(
    byPriority,
  );

const typesOf = (registry: Registry, group: string, version: string): ResourceType[] =>
  [...registry.types].filter((type) => type.group === group && type.versions.some(({ name }) => name === version));

const verbsOf = (type: ResourceType): readonly string[] => (type.virtual ? ['create'] : VERBS);

function subresources(type: ResourceType): Subresource[] {
  const own: Subresource[] = [];
  const change = ['get', 'patch', 'update'];
  if (type.status) own.push({ name: 'status', kind: type.kind, verbs: change });
  if (type.scale) own.push({ name: 'scale', kind: 'Scale', verbs: change, group: 'autoscaling', version: 'v1' });
  if (type.group !== '') return own;
  if (type.kind === 'Pod') own.push(...OF_PODS);
  if (type.kind === 'Service') own.push(...OF_SERVICES);
  if (type.kind === 'ServiceAccount') own.push(...OF_SERVICE_ACCOUNTS);
  if (type.kind === 'Namespace') own.push(...OF_NAMESPACES);
  return own;
}

/** v2 before v1 before v1beta1 before v1alpha1, as Kubernetes prefers versions. */
function byPriority(a: string, b: string): number {
  const rank = (version: string): number => {
    const [, major = '0', stage, minor = '0'] = /^v(\d+)(?:(alpha|beta)(\d+))?$/.exec(version) ?? [];
    return (stage === undefined ? 2e6 : stage === 'beta' ? 1e6 : 0) + Number(major) * 1000 + Number(minor);
  };
  return rank(b) - rank(a) || (a < b ? -1 : 1);
}
