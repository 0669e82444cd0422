/**
 * What a real API server made of manifests, against what the playground's makes of them: accepted and refused alike, with the same defaults.
 * Addresses, ports and random names are each server's own.
 */
import { isDeepStrictEqual } from 'node:util';
import { arrayOf, at, cloneDeep, isObject, type JsonObject, objectOf, stringOf } from '../../../playground/apiserver/json.ts';
import type { KubeObject } from '../../../playground/apiserver/object.ts';
import { apiStore, object } from '../../support/api-store.ts';
import { attempt, type CaseResult, type Cases, type Suite } from '../suite.ts';

interface RecordedCase {
  readonly manifests: readonly KubeObject[];
  readonly cluster: readonly KubeObject[];
  readonly refusedByApiServer: readonly string[];
}

const FOLDER = 'recorded/control-plane';

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    for (const file of cases.list(FOLDER)) {
      if (!file.endsWith('.json')) continue;
      const recorded: RecordedCase = JSON.parse(cases.read(`${FOLDER}/${file}`));
      const name = `${file.slice(0, -5)}/stored objects`;
      yield attempt(name, () => compareStored(name, recorded));
    }
  },
};

function compareStored(name: string, { manifests, cluster, refusedByApiServer }: RecordedCase): CaseResult {
  const { store } = apiStore();
  for (const each of manifests) {
    const { namespace } = each.metadata;
    if (namespace && !store.get('Namespace', namespace)) store.create(object('v1', 'Namespace', { name: namespace }));
    const account = each.kind === 'Pod' ? stringOf(at(each, 'spec', 'serviceAccountName')) : '';
    if (account !== '' && namespace && !store.get('ServiceAccount', account, namespace))
      store.create(object('v1', 'ServiceAccount', { name: account, namespace }));
    if (each.kind === 'Namespace' && store.get('Namespace', each.metadata.name)) continue;
    const stored = store.create(cloneDeep(each), { fieldValidation: 'Strict' });
    const real = cluster.find(
      (other) => other.kind === each.kind && other.metadata.name === each.metadata.name && other.metadata.namespace === namespace,
    );
    if (!real || refusedByApiServer.some((line) => line.includes(`"${each.metadata.name}"`))) continue;
    const [ours, theirs] = [comparable(stored), comparable(real)];
    if (isDeepStrictEqual(ours, theirs)) continue;
    return { case: name, verdict: 'fail', reason: `${each.kind} ${each.metadata.name}: ${firstDifference(ours, theirs, 'spec')}` };
  }
  return { case: name, verdict: 'pass', reason: '' };
}

/** The specification without what each server gives out as it likes. */
function comparable({ kind, spec, metadata }: KubeObject): JsonObject {
  const result = cloneDeep(objectOf(spec));
  if (kind === 'Namespace') return { labels: metadata.labels };
  if (kind === 'Service') {
    const policy = result.ipFamilyPolicy;
    for (const field of ['clusterIP', 'clusterIPs', ...(policy === 'PreferDualStack' ? ['ipFamilies'] : [])])
      if (result.clusterIP !== 'None') delete result[field];
    for (const port of arrayOf(result.ports)) if (isObject(port)) delete port.nodePort;
  }
  // The scheduler and the plugins of admission.
  for (const field of ['nodeName', 'tolerations', 'priority', 'preemptionPolicy']) delete result[field];
  const text = JSON.stringify(result).replaceAll(/kube-api-access-\w+/g, 'kube-api-access');
  return sorted(JSON.parse(text)) as JsonObject;
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isObject(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}

function firstDifference(ours: unknown, theirs: unknown, path: string): string {
  if (isObject(ours) && isObject(theirs)) {
    for (const key of new Set([...Object.keys(ours), ...Object.keys(theirs)])) {
      if (!isDeepStrictEqual(ours[key], theirs[key])) return firstDifference(ours[key], theirs[key], `${path}.${key}`);
    }
  }
  return `${path}: theirs ${JSON.stringify(theirs)}, ours ${JSON.stringify(ours)}`;
}
