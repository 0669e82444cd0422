/**
 * Whole cluster states, and what the real istiod published to ztunnel and wrote into statuses for each. Where we differ on purpose, a
 * rule is applied to the expectation (design decision 13).
 */
import { isDeepStrictEqual } from 'node:util';
import { type Condition, type ReporterName, readConditions, reporters } from '../../../istiod-lite/model/conditions.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { type WatchedKindName, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import { type ConfigDump, configDump, sortDump } from '../../support/config-dump.ts';
import { absentWaypoints, type ClusterObject, denyWithoutEmptyClauses, portLevelAsWritten } from '../../support/conformance-rules.ts';
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
      yield attempt(stem, () => runCase(stem, JSON.parse(cases.read(`${FOLDER}/${file}`))));
      const unbuilt = writtenByOthers(JSON.parse(cases.read(`${FOLDER}/${file}`)));
      if (unbuilt.length > 0) {
        const reason = `istiod-lite writes no status yet for ${unbuilt.join(', ')}, and deploys no waypoints`;
        yield { case: `${stem}/gateways and routes`, verdict: 'skip', reason };
      }
    }
  },
};

function runCase(name: string, { cluster, ztunnel }: RecordedCase): CaseResult {
  const index = new MeshIndex(config);
  // Istiod makes its classes itself; a recorded state does not list them.
  index.apply({
    type: 'added',
    kind: 'GatewayClass',
    object: { metadata: { name: 'istio-waypoint' }, spec: { controllerName: 'istio.io/mesh-controller' } },
  });
  for (const object of cluster)
    if (isWatched(object.kind)) index.apply({ type: 'added', kind: object.kind, object: withoutOurConditions(object) });
  const { statuses } = index.flush();
  const actual = configDump(index.addresses(), index.authorizations());
  const rules = new Set<string>();
  const expected = sortDump(applyRules(ztunnel, cluster, rules));
  for (const part of ['workloads', 'services', 'policies'] as const) {
    const difference = firstDifference(actual[part], expected[part]);
    if (difference) return { case: name, verdict: 'fail', reason: `${part}: ${difference}` };
  }
  const written = Object.fromEntries(
    statuses.map(({ kind, namespace, name: object, conditions }) => [`${kind} ${namespace}/${object}`, plain(conditions)]),
  );
  const shown = expectedConditions(cluster);
  const difference = firstDifference(written, shown);
  if (difference) return { case: name, verdict: 'fail', reason: `conditions: ${difference}` };
  return { case: name, verdict: 'pass', reason: [...rules].map((rule) => `differs: ${rule}`).join('; ') };
}

const isWatched = (kind: string): kind is WatchedKindName => Object.hasOwn(watchedKinds, kind);

const reportersOf = (kind: string): ReporterName[] =>
  (Object.keys(reporters) as ReporterName[]).filter((reporter) => reporters[reporter].kind === kind);

const conditionsOf = (object: ClusterObject): Condition[] =>
  reportersOf(object.kind).flatMap((reporter) => readConditions(reporter, object));

/** As the object was before the control plane saw it, so that everything there is to say is said. */
function withoutOurConditions(object: ClusterObject): ClusterObject {
  const ours: readonly string[] = reportersOf(object.kind).flatMap((reporter) => reporters[reporter].types);
  const conditions = object.status?.conditions as readonly { type: string }[] | undefined;
  if (ours.length === 0 || !conditions) return object;
  return { ...object, status: { ...object.status, conditions: conditions.filter(({ type }) => !ours.includes(type)) } };
}

/** Type, status and reason; the words are each control plane's own. */
const plain = (conditions: readonly Condition[]) => conditions.map(({ type, status, reason }) => `${type}=${status} ${reason}`).sort();

function expectedConditions(cluster: readonly ClusterObject[]): Record<string, string[]> {
  return Object.fromEntries(
    cluster.flatMap((object) => {
      const conditions = plain(conditionsOf(object));
      return conditions.length > 0 ? [[`${object.kind} ${object.metadata.namespace}/${object.metadata.name}`, conditions]] : [];
    }),
  );
}

/** Kinds with conditions that the real istiod wrote and we do not write. */
function writtenByOthers({ cluster }: RecordedCase): string[] {
  const kinds = cluster.map(({ kind }) => kind).filter((kind) => kind === 'Gateway' || kind.endsWith('Route'));
  return [...new Set(kinds)].sort();
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
