/**
 * Where we differ from Istio on purpose (decision 13): what each rule makes of an expectation, worked out from the objects of the
 * case and without the product's own code. A rule that changes an expectation names itself.
 */
import { isDeepStrictEqual } from 'node:util';
import type { KubeObject } from '../../common/client/kube-api.ts';
import { picks } from '../../istiod-lite/model/selectors.ts';
import type { ConfigDump } from './config-dump.ts';

type Json = Record<string, unknown>;
type Labels = Record<string, string>;

export interface ClusterObject extends KubeObject {
  kind: string;
  metadata: KubeObject['metadata'] & { name: string };
  spec?: Json;
  status?: Json;
}

export const L7_DENY_RULE = 'L7-only DENY at L4 is enforced as DENY of its L4 part';
export const ABSENT_WAYPOINT_RULE = 'absent waypoint refuses';
/** Istio's waypoints read these objects, and its control plane says nothing about them. */
export const OWN_STATUS_RULE = 'VirtualService, DestinationRule, RequestAuthentication and Telemetry have a status too';
export const OWN_STATUS_KINDS: readonly string[] = ['VirtualService', 'DestinationRule', 'RequestAuthentication', 'Telemetry'];
const PORT_LEVEL_RULE = 'port-level PeerAuthentication as written';

/** @param policy in config_dump's shape: a match without fields is one that ztunnel never makes */
export function denyWithoutEmptyClauses(policy: Json, applied: Set<string>): Json {
  if (policy.action !== 'Deny' || !Array.isArray(policy.rules)) return policy;
  const kept = policy.rules.map((rule: readonly unknown[]) =>
    rule.filter((clause) => !(Array.isArray(clause) && clause.some(isEmptyMatch))),
  );
  if (!isDeepStrictEqual(kept, policy.rules)) applied.add(L7_DENY_RULE);
  return { ...policy, rules: kept };
}

const isEmptyMatch = (match: unknown): boolean => match !== null && typeof match === 'object' && Object.keys(match).length === 0;

/** Services and workloads whose labels, or their namespace's, name a Gateway that has no address. */
export function absentWaypoints(dump: ConfigDump, cluster: readonly ClusterObject[], applied: Set<string>): ConfigDump {
  const gateways = new Map(cluster.filter(({ kind }) => kind === 'Gateway').map((gateway) => [keyOf(gateway), gateway]));
  const isReady = (key: string): boolean => ((gateways.get(key)?.status?.addresses as unknown[] | undefined) ?? []).length > 0;
  const find = (kinds: readonly string[], namespace: unknown, name: unknown): ClusterObject | undefined =>
    cluster.find(({ kind, metadata }) => kinds.includes(kind) && metadata.name === name && metadata.namespace === namespace);

  const refuse = (item: Json, own: Labels, traffic: 'service' | 'workload'): Json => {
    const around = cluster.find(({ kind, metadata }) => kind === 'Namespace' && metadata.name === item.namespace)?.metadata.labels ?? {};
    const labels = own['istio.io/use-waypoint'] ? own : around;
    const name = labels['istio.io/use-waypoint'];
    const namespace = labels['istio.io/use-waypoint-namespace'] ?? String(item.namespace);
    if (item.waypoint !== undefined || !name || name === 'none' || isReady(`${namespace}/${name}`)) return item;
    if (['istio.io-mesh-controller', 'istio.io-eastwest-controller'].includes(own['gateway.istio.io/managed'] ?? '')) return item;
    if (traffic === 'workload' && labels === around) {
      const type = gateways.get(`${namespace}/${name}`)?.metadata.labels?.['istio.io/waypoint-for'];
      if (type !== 'all' && type !== 'workload') return item;
    }
    const instanceOf = own['gateway.networking.k8s.io/gateway-name'];
    if (traffic === 'workload' && instanceOf && (instanceOf === name || isReady(`${item.namespace}/${instanceOf}`))) return item;
    applied.add(ABSENT_WAYPOINT_RULE);
    return { ...item, waypoint: { destination: `${namespace}/${name}.${namespace}.svc.cluster.local`, hboneMtlsPort: 15008 } };
  };

  return {
    policies: dump.policies,
    services: dump.services.map((service) => {
      const object = find(['Service', 'ServiceEntry'], service.namespace, service.name);
      return object ? refuse(service, object.metadata.labels ?? {}, 'service') : service;
    }),
    workloads: dump.workloads.map((workload) => {
      const kind = String(workload.uid).split('/')[2];
      // Endpoints of ServiceEntries and of slices have labels of their own, or none.
      const object = kind === 'Pod' || kind === 'WorkloadEntry' ? find([kind], workload.namespace, workload.name) : undefined;
      return object ? refuse(workload, object.metadata.labels ?? {}, 'workload') : workload;
    }),
  };
}

/**
 * Istio loses port-level modes in two corners: a STRICT port under a PERMISSIVE workload in a STRICT mesh without a mode of the namespace,
 * and an exception from an inherited STRICT that says DISABLE and never PERMISSIVE (Istio, pilot/pkg/serviceregistry/ambient/authorization.go).
 */
export function portLevelAsWritten(
  dump: ConfigDump,
  cluster: readonly ClusterObject[],
  applied: Set<string>,
  rootNamespace = 'istio-system',
): ConfigDump {
  const peers = cluster.filter(({ kind }) => kind === 'PeerAuthentication');
  let { policies, workloads } = dump;
  for (const peer of peers) {
    const namespace = peer.metadata.namespace ?? '';
    const selector = selectorOf(peer);
    const ports = Object.entries((peer.spec?.portLevelMtls ?? {}) as Record<string, { mode?: string }>);
    if (namespace === rootNamespace || !selector || ports.length === 0) continue;
    const level = (at: string): string =>
      modeOf(oldest(peers.filter((other) => (other.metadata.namespace ?? '') === at && !selectorOf(other))));
    const own = modeOf(peer);
    const [ofNamespace, mesh] = [level(namespace), level(rootNamespace)];
    const base = [own, ofNamespace, mesh].find((mode) => mode !== 'UNSET') ?? 'PERMISSIVE';
    const modes = ports.map(([, { mode = 'UNSET' }]) => mode);
    const lostPort =
      (own === 'PERMISSIVE' || own === 'DISABLE') && ofNamespace === 'UNSET' && mesh === 'STRICT' && modes.includes('STRICT');
    const lostException = own === 'UNSET' && base === 'STRICT' && modes.includes('DISABLE') && !modes.includes('PERMISSIVE');
    if (!lostPort && !lostException) continue;
    const name = `converted_peer_authentication_${peer.metadata.name}`;
    const anonymous = { notPrincipals: [{ Presence: [] }] };
    const strict = (mode: string): boolean => mode === 'STRICT';
    const exceptions = ports
      .filter(([, { mode = 'UNSET' }]) => mode !== 'UNSET' && strict(mode) !== strict(base))
      .map(([port]) => Number(port));
    const rules = strict(base)
      ? [[[anonymous], ...exceptions.map((port) => [{ notDestinationPorts: [port] }])]]
      : exceptions.map((port) => [[{ ...anonymous, destinationPorts: [port] }]]);
    const policy = { name, namespace, scope: 'WorkloadSelector', action: 'Deny', dryRun: false, rules };
    policies = [...policies.filter((other) => other.name !== name || other.namespace !== namespace), policy];
    workloads = workloads.map((workload) => {
      const labels = cluster.find(
        ({ kind, metadata }) => kind === 'Pod' && metadata.name === workload.name && metadata.namespace === namespace,
      )?.metadata.labels;
      const first =
        labels && oldest(peers.filter((other) => other.metadata.namespace === namespace && picks(selectorOf(other) ?? { '': '' }, labels)));
      if (first !== peer) return workload;
      const others = ((workload.authorizationPolicies ?? []) as string[]).filter(
        (key) => !key.endsWith('/istio_converted_static_strict') && key !== `${namespace}/${name}`,
      );
      return { ...workload, authorizationPolicies: [...others, `${namespace}/${name}`] };
    });
    applied.add(PORT_LEVEL_RULE);
  }
  return { ...dump, policies, workloads };
}

const keyOf = ({ metadata }: ClusterObject): string => `${metadata.namespace}/${metadata.name}`;

const modeOf = (peer: ClusterObject | undefined): string => String((peer?.spec?.mtls as Json | undefined)?.mode ?? 'UNSET');

function selectorOf({ spec }: ClusterObject): Labels | undefined {
  const labels = (spec?.selector as { matchLabels?: Labels } | undefined)?.matchLabels;
  return labels && Object.keys(labels).length > 0 ? labels : undefined;
}

function oldest(peers: readonly ClusterObject[]): ClusterObject | undefined {
  const age = ({ metadata }: ClusterObject): string => `${metadata.creationTimestamp ?? ''} ${metadata.name}`;
  return [...peers].sort((a, b) => (age(a) < age(b) ? -1 : 1))[0];
}
