/**
 * Whole cluster states, and what the real istiod published to ztunnel and wrote into statuses for each. Where we differ on purpose, a
 * rule is applied to the expectation (decision 13).
 */
import { isDeepStrictEqual } from 'node:util';
import { readParameters } from '../../../istiod-lite/gateway/parameters.ts';
import { isDeployed } from '../../../istiod-lite/gateway/render.ts';
import { type Condition, type ReporterName, readConditions, reporters, type StatusWrite } from '../../../istiod-lite/model/conditions.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { type WatchedKindName, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import { type ConfigDump, configDump, sortDump } from '../../support/config-dump.ts';
import {
  absentWaypoints,
  type ClusterObject,
  denyWithoutEmptyClauses,
  OWN_STATUS_KINDS,
  OWN_STATUS_RULE,
  portLevelAsWritten,
} from '../../support/conformance-rules.ts';
import { deployedObjects } from '../deployed-waypoints.ts';
import { attempt, type CaseResult, type Cases, type Suite } from '../suite.ts';

interface RecordedCase {
  readonly cluster: readonly ClusterObject[];
  readonly ztunnel: ConfigDump;
}

const FOLDER = 'recorded/control-plane';

const config = {
  clusterId: 'Kubernetes',
  domain: 'cluster.local',
  rootNamespace: 'istio-system',
  trustDomain: 'cluster.local',
  network: '',
};

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER)) {
      if (!file.endsWith('.json')) continue;
      const stem = file.slice(0, -5);
      const recorded: RecordedCase = JSON.parse(cases.read(`${FOLDER}/${file}`));
      yield attempt(stem, () => runCase(stem, recorded));
      if (recorded.cluster.some(hasWholeStatus)) {
        const name = `${stem}/gateways and routes`;
        yield attempt(name, () => compareStatuses(name, recorded.cluster));
      }
      if (recorded.cluster.some((object) => object.kind === 'Gateway' && classOf(object) === WAYPOINT_CLASS)) {
        const name = `${stem}/deployed objects`;
        yield attempt(name, () => compareDeployed(name, recorded.cluster));
      }
      for (const [part, reason] of notYet(recorded.cluster)) yield { case: `${stem}/${part}`, verdict: 'skip', reason };
    }
  },
};

function translate(cluster: readonly ClusterObject[]): { index: MeshIndex; statuses: readonly StatusWrite[] } {
  const index = new MeshIndex(config);
  // Istiod makes its classes itself; a recorded state does not list them.
  index.apply({
    type: 'added',
    kind: 'GatewayClass',
    object: { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } },
  });
  for (const object of cluster)
    if (isWatched(object.kind)) index.apply({ type: 'added', kind: object.kind, object: withoutOurStatus(object) });
  for (const object of cluster) {
    if (object.kind !== 'Gateway' || !isDeployed(object, 'default')) continue;
    const parameters = readParameters(object, [], (key) => cluster.find((other) => other.kind === 'ConfigMap' && keyOf(other) === key));
    if ('problem' in parameters) index.setGatewayProblem(keyOf(object), parameters.problem);
  }
  const { statuses } = index.flush();
  return { index, statuses };
}

function runCase(name: string, { cluster, ztunnel }: RecordedCase): CaseResult {
  const { index, statuses } = translate(cluster);
  const actual = configDump(index.addresses(), index.authorizations());
  const rules = new Set<string>();
  const expected = sortDump(applyRules(ztunnel, cluster, rules));
  for (const part of ['workloads', 'services', 'policies'] as const) {
    const difference = firstDifference(actual[part], expected[part]);
    if (difference) return { case: name, verdict: 'fail', reason: `${part}: ${difference}` };
  }
  const written = Object.fromEntries(
    statuses.flatMap(({ kind, namespace, name: object, conditions, status }) =>
      status || kind === 'GatewayClass' ? [] : [[`${kind} ${namespace}/${object}`, plain(conditions)]],
    ),
  );
  const shown = withOwnStatuses(expectedConditions(cluster), written, rules);
  const difference = firstDifference(written, shown);
  if (difference) return { case: name, verdict: 'fail', reason: `conditions: ${difference}` };
  return { case: name, verdict: 'pass', reason: [...rules].map((rule) => `differs: ${rule}`).join('; ') };
}

const isWatched = (kind: string): kind is WatchedKindName => Object.hasOwn(watchedKinds, kind);

const reportersOf = (kind: string): ReporterName[] =>
  (Object.keys(reporters) as ReporterName[]).filter((reporter) => reporters[reporter].kind === kind);

const conditionsOf = (object: ClusterObject): Condition[] =>
  reportersOf(object.kind).flatMap((reporter) => readConditions(reporter, object));

/**
 * As the object was before the control plane saw it, so that everything there is to say is said. A Gateway keeps its addresses: when the
 * states were recorded its pods were no longer ready, and an address is never withdrawn.
 */
function withoutOurStatus(object: ClusterObject): ClusterObject {
  if (hasWholeStatus(object)) {
    const addresses = object.status?.addresses;
    return { ...object, status: addresses === undefined ? {} : { addresses } };
  }
  const ours: readonly string[] = reportersOf(object.kind).flatMap((reporter) => reporters[reporter].types);
  const conditions = object.status?.conditions as readonly { type: string }[] | undefined;
  if (ours.length === 0 || !conditions) return object;
  return { ...object, status: { ...object.status, conditions: conditions.filter(({ type }) => !ours.includes(type)) } };
}

const hasWholeStatus = ({ kind }: ClusterObject): boolean => kind === 'Gateway' || kind.endsWith('Route');

/** Addresses, conditions, listeners and parents of Gateways and routes, each in its own words. */
function compareStatuses(name: string, cluster: readonly ClusterObject[]): CaseResult {
  const { statuses } = translate(cluster);
  const written = new Map(statuses.map(({ kind, namespace, name: object, status }) => [`${kind} ${namespace}/${object}`, status]));
  for (const object of cluster.filter(hasWholeStatus)) {
    const key = `${object.kind} ${object.metadata.namespace}/${object.metadata.name}`;
    const expected = wholeStatus(withoutForeignParts(object, cluster));
    const difference = firstDifference(wholeStatus(written.get(key)), expected, key);
    if (difference) return { case: name, verdict: 'fail', reason: difference };
  }
  return { case: name, verdict: 'pass', reason: '' };
}

/** Service accounts, Deployments, Services, budgets and autoscalers that the Gateways become. */
function compareDeployed(name: string, cluster: readonly ClusterObject[]): CaseResult {
  const rules = new Set<string>();
  const { ours, recorded } = deployedObjects(cluster, rules);
  const difference = firstDifference(ours, recorded);
  if (difference) return { case: name, verdict: 'fail', reason: difference };
  return { case: name, verdict: 'pass', reason: [...rules].map((rule) => `differs: ${rule}`).join('; ') };
}

const keyOf = ({ metadata }: ClusterObject): string => `${metadata.namespace}/${metadata.name}`;

type Json = Record<string, unknown>;

function wholeStatus(status: object | undefined): Json | undefined {
  if (!status) return undefined;
  const { addresses, conditions, listeners, parents } = status as Record<string, readonly Json[] | undefined>;
  const told = (item: Json): string[] => plain((item.conditions ?? []) as Condition[]);
  return {
    addresses: addresses?.map(({ type, value }) => `${type} ${value}`).sort(),
    conditions: conditions && told({ conditions }),
    listeners: listeners && Object.fromEntries(listeners.map((listener) => [listener.name, { ...listener, conditions: told(listener) }])),
    parents: parents?.map((parent) => ({ ...parent, conditions: told(parent) })),
  };
}

/** What is recorded of things that istiod-lite does not look after, as `notYet` says. */
function withoutForeignParts(object: ClusterObject, cluster: readonly ClusterObject[]): Json | undefined {
  if (object.kind === 'Gateway') return classOf(object) === WAYPOINT_CLASS ? object.status : undefined;
  const parents = object.status?.parents as readonly { parentRef: { kind?: string; name: string } }[] | undefined;
  if (parents?.some(({ parentRef: { kind, name } }) => kind === 'Gateway' && ingresses(cluster).includes(name))) return undefined;
  return object.status;
}

const WAYPOINT_CLASS = 'istio-waypoint';

const classOf = ({ spec }: ClusterObject): unknown => spec?.gatewayClassName;

const ingresses = (cluster: readonly ClusterObject[]): string[] =>
  cluster.filter((object) => object.kind === 'Gateway' && classOf(object) === 'istio').map(({ metadata }) => metadata.name);

/** Parts of a state that are not compared, with the reason. */
function notYet(cluster: readonly ClusterObject[]): [part: string, reason: string][] {
  const parts: [string, string][] = [];
  if (ingresses(cluster).length > 0)
    parts.push(['ingress', 'istiod-lite does not look after Gateways of class istio and their routes yet']);
  return parts;
}

/** Type, status and reason; the words are each control plane's own. */
const plain = (conditions: readonly Condition[]) => conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`).sort();

/** Where Istio says nothing of an object, what we say is the difference that is meant. */
function withOwnStatuses(
  shown: Record<string, string[]>,
  written: Readonly<Record<string, string[]>>,
  rules: Set<string>,
): Record<string, string[]> {
  const ours = Object.entries(written).filter(([key]) => shown[key] === undefined && OWN_STATUS_KINDS.includes(key.split(' ', 1)[0] ?? ''));
  if (ours.length > 0) rules.add(OWN_STATUS_RULE);
  return { ...shown, ...Object.fromEntries(ours) };
}

function expectedConditions(cluster: readonly ClusterObject[]): Record<string, string[]> {
  return Object.fromEntries(
    cluster.flatMap((object) => {
      const conditions = plain(conditionsOf(object));
      return conditions.length > 0 ? [[`${object.kind} ${object.metadata.namespace}/${object.metadata.name}`, conditions]] : [];
    }),
  );
}

function applyRules(recorded: ConfigDump, cluster: readonly ClusterObject[], rules: Set<string>): ConfigDump {
  const denied = { ...recorded, policies: recorded.policies.map((policy) => denyWithoutEmptyClauses(policy, rules)) };
  return absentWaypoints(portLevelAsWritten(denied, cluster, rules), cluster, rules);
}

/** Path and values of the first place where two values are not the same; undefined where they are. */
function firstDifference(actual: unknown, expected: unknown, path = ''): string | undefined {
  if (isDeepStrictEqual(actual, expected)) return undefined;
  if (isObject(actual) && isObject(expected)) {
    for (const key of new Set([...Object.keys(expected), ...Object.keys(actual)])) {
      const difference = firstDifference(actual[key], expected[key], `${path}.${key}`);
      if (difference) return difference;
    }
  }
  return `${path}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(actual)}`;
}

const isObject = (value: unknown): value is Record<string, unknown> => value !== null && typeof value === 'object';
