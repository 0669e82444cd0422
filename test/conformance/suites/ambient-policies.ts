/** AuthorizationPolicies and PeerAuthentications, and the L4 policies that Istio makes of them: pairs of `NAME-in.yaml` and `NAME.yaml`. */
import { isDeepStrictEqual } from 'node:util';
import { loadAll } from 'js-yaml';
import { ipFromBytes } from '../../../common/base/address.ts';
import { MeshIndex } from '../../../istiod-lite/model/index.ts';
import { STATIC_STRICT } from '../../../istiod-lite/model/peer-authentication.ts';
import { type WatchedKindName, watchedKinds } from '../../../istiod-lite/model/watched-kinds.ts';
import { configDump, sortDump } from '../../support/config-dump.ts';
import { type ClusterObject, denyWithoutEmptyClauses, portLevelAsWritten } from '../../support/conformance-rules.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite } from '../suite.ts';

type Json = Record<string, unknown>;

const FOLDER = 'istio/pilot/pkg/serviceregistry/ambient/testdata';
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
    for (const file of cases.list(FOLDER).filter((name) => name.endsWith('-in.yaml'))) {
      const stem = file.slice(0, -'-in.yaml'.length);
      yield attempt(stem, () => runCase(stem, cases.read(`${FOLDER}/${file}`), cases.read(`${FOLDER}/${stem}.yaml`)));
    }
  },
};

function runCase(name: string, input: string, golden: string): CaseResult {
  const index = new MeshIndex(config);
  for (const object of loadAll(input) as { kind?: WatchedKindName }[]) {
    if (object?.kind && Object.hasOwn(watchedKinds, object.kind)) index.apply({ type: 'added', kind: object.kind, object });
  }
  index.flush();
  // What every STRICT workload refers to is in no golden file.
  const made = configDump([], index.authorizations()).policies.filter((policy) => policy.name !== STATIC_STRICT);
  const rules = new Set<string>();
  const expected = (loadAll(golden) as Json[])
    .filter((policy) => policy?.name !== undefined)
    .map(goldenPolicy)
    .map((policy) => denyWithoutEmptyClauses(policy, rules));
  const asWritten = portLevelAsWritten({ workloads: [], services: [], policies: expected }, loadAll(input) as ClusterObject[], rules);
  const sorted = sortDump(asWritten).policies;
  const result = compare(name, made, sorted, 'policies');
  return result.verdict === 'pass' ? { ...result, reason: [...rules].map((rule) => `differs: ${rule}`).join('; ') } : result;
}

/** From the proto's JSON names to those of config_dump. */
function goldenPolicy(policy: Json): Json {
  const scopes: Readonly<Record<string, string>> = { GLOBAL: 'Global', NAMESPACE: 'Namespace', WORKLOAD_SELECTOR: 'WorkloadSelector' };
  return {
    name: policy.name,
    namespace: policy.namespace ?? '',
    scope: scopes[String(policy.scope ?? 'GLOBAL')],
    action: policy.action === 'DENY' ? 'Deny' : 'Allow',
    dryRun: policy.dryRun === true,
    rules: objects(policy.groups).map((group) => objects(group.rules).map((rule) => objects(rule.matches).map(goldenMatch))),
  };
}

const objects = (value: unknown): Json[] => (Array.isArray(value) ? value : []);

function goldenMatch(match: Json): Json {
  return Object.fromEntries(
    Object.entries(match).map(([field, values]) => [field, Array.isArray(values) ? values.map(goldenValue) : values]),
  );
}

function goldenValue(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value;
  const fields = value as Json;
  if (typeof fields.address === 'string') return `${ipFromBytes(Buffer.from(fields.address, 'base64'))}/${fields.length}`;
  if (isDeepStrictEqual(fields.presence, {})) return { Presence: [] };
  for (const kind of ['exact', 'prefix', 'suffix'] as const) {
    if (kind in fields) return { [`${kind.charAt(0).toUpperCase()}${kind.slice(1)}`]: fields[kind] };
  }
  return value;
}
