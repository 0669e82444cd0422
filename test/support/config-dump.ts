/**
 * What our ztunnel's `/config_dump` shows of resources that a control plane publishes: from their bytes through ztunnel's packed state, so
 * that a recorded cluster state is compared over the whole way. Lists without an order are sorted.
 */
import { ipFromBytes } from '../../common/base/address.ts';
import * as authorization from '../../common/codec/gen/authorization.ts';
import { stateDump } from '../../common/state/config-dump.ts';
import { MeshStateWriter } from '../../common/state/writer.ts';

type Json = Record<string, unknown>;

export interface ConfigDump {
  readonly workloads: Json[];
  readonly services: Json[];
  readonly policies: Json[];
}

interface Encoded {
  readonly name: string;
  readonly typeUrl: string;
  readonly version: string;
  readonly bytes: Uint8Array;
}

/** @throws where our own ztunnel would reject one of the resources */
export function configDump(addresses: Iterable<Encoded>, authorizations: Iterable<Encoded>): ConfigDump {
  const writer = new MeshStateWriter({ maxBytes: 32 << 20 });
  for (const resources of [[...authorizations], [...addresses]]) {
    const [first] = resources;
    const rejected = first ? writer.apply({ typeUrl: first.typeUrl, resources, removed: [] }).rejected[0] : undefined;
    if (rejected) throw new Error(`ztunnel rejects ${rejected.name}: ${rejected.reason}`);
  }
  // Through JSON, as a reader of the endpoint has it.
  return sortDump(JSON.parse(JSON.stringify(stateDump(writer))) as ConfigDump);
}

/** Sorts every list that has no order, so that two dumps can be compared. */
export function sortDump({ workloads, services, policies }: ConfigDump): ConfigDump {
  const by =
    (...keys: string[]) =>
    (a: Json, b: Json): number =>
      keys.map((key) => String(a[key])).join('/') < keys.map((key) => String(b[key])).join('/') ? -1 : 1;
  return {
    workloads: workloads.map((workload) => withSorted(workload, ['workloadIps', 'services', 'authorizationPolicies'])).sort(by('uid')),
    services: services.map((service) => withSorted(service, ['vips', 'cidrVips', 'subjectAltNames'])).sort(by('namespace', 'hostname')),
    policies: policies.map((policy) => ({ ...policy, rules: sortRules(policy.rules) })).sort(by('namespace', 'name')),
  };
}

const text = (value: unknown): string => JSON.stringify(value) ?? '';

function withSorted(item: Json, lists: readonly string[]): Json {
  const sorted = lists.flatMap((key) => (Array.isArray(item[key]) ? [[key, sortedList(item[key])]] : []));
  return { ...item, ...Object.fromEntries(sorted) };
}

const sortedList = (items: readonly unknown[]): unknown[] => [...items].sort((a, b) => (text(a) < text(b) ? -1 : 1));

/** Rules, clauses, matches and values are alternatives or all needed; none has an order. */
function sortRules(value: unknown): unknown {
  if (Array.isArray(value)) return sortedList(value.map(sortRules));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value)
      .map(([key, inner]) => [key, sortRules(inner)] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** Without fields that are empty, as serde's `skip_serializing_if` has it. */
const present = (fields: Json): Json =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== '' && value !== false));

const some = <T>(items: readonly T[]): readonly T[] | undefined => (items.length > 0 ? items : undefined);

export function policyJson(policy: authorization.Authorization): Json {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: ['Global', 'Namespace', 'WorkloadSelector'][policy.scope],
    action: policy.action === authorization.Action.DENY ? 'Deny' : 'Allow',
    dryRun: policy.dryRun,
    rules: policy.groups.map(({ rules }) => rules.map(({ matches }) => matches.map(matchJson))),
  };
}

function matchJson(match: authorization.Match): Json {
  const ranges = (items: readonly authorization.Address[]) => some(items.map(({ address, length }) => `${ipFromBytes(address)}/${length}`));
  const strings = (items: readonly authorization.StringMatch[]) => some(items.map(stringJson));
  return present({
    namespaces: strings(match.namespaces),
    notNamespaces: strings(match.notNamespaces),
    principals: strings(match.principals),
    notPrincipals: strings(match.notPrincipals),
    sourceIps: ranges(match.sourceIps),
    notSourceIps: ranges(match.notSourceIps),
    destinationIps: ranges(match.destinationIps),
    notDestinationIps: ranges(match.notDestinationIps),
    destinationPorts: some(match.destinationPorts),
    notDestinationPorts: some(match.notDestinationPorts),
    serviceAccounts: some(match.serviceAccounts.map((account) => ({ ...account }))),
    notServiceAccounts: some(match.notServiceAccounts.map((account) => ({ ...account }))),
  });
}

function stringJson({ matchType }: authorization.StringMatch): Json {
  switch (matchType?.$case) {
    case 'exact':
      return { Exact: matchType.value };
    case 'prefix':
      return { Prefix: matchType.value };
    case 'suffix':
      return { Suffix: matchType.value };
    default:
      return { Presence: [] };
  }
}
