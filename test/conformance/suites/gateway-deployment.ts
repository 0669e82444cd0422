/**
 * Istio's cases of what a Gateway is deployed as. Those of a waypoint's class are compared as recorded deployments are; the others are of classes that
 * we leave alone, which is checked, and are listed with that reason.
 */
import { loadAll } from 'js-yaml';
import type { KubeObject } from '../../../common/client/kube-api.ts';
import { isDeployed, RESOURCES } from '../../../istiod-lite/gateway/render.ts';
import { deployedObjects } from '../deployed-waypoints.ts';
import { attempt, type CaseResult, type Cases, compare, type Suite, uniqueNames } from '../suite.ts';

const FOLDER = 'istio/pilot/pkg/config/kube/gatewaycommon/testdata/deployment';
const TABLE = 'istio/derived/gateway-deployment-cases.json';
/** Of the control plane under test. */
const NETWORK = 'network-1';
/** What an older Istio deployed is named otherwise, and its selectors cannot be changed; there is no older version of ours. */
const UPGRADE = 'istio-upgrade-to-1.24';

interface Case {
  readonly name: string;
  readonly gw: {
    readonly ObjectMeta: Readonly<Record<string, unknown>>;
    readonly Spec: Readonly<Record<string, unknown>>;
  };
}

export const suite: Suite = {
  suite: FOLDER,
  *run(cases: Cases): Iterable<CaseResult> {
    if (!cases.has(FOLDER) || !cases.has(TABLE)) return;
    // The schema is that of the table of Istio's test.
    const { cases: table } = JSON.parse(cases.read(TABLE)) as { cases: readonly Case[] };
    const unique = uniqueNames();
    for (const each of table) {
      const name = unique(each.name);
      yield attempt(name, () => runCase(cases, name, each));
    }
  },
};

function runCase(cases: Cases, name: string, { name: stem, gw }: Case): CaseResult {
  const gateway = gatewayOf(gw);
  const className = String((gateway.spec as { gatewayClassName?: unknown }).gatewayClassName ?? '');
  if (className !== 'istio-waypoint') {
    if (isDeployed(gateway, 'default')) return { case: name, verdict: 'fail', reason: `a Gateway of class ${className} is deployed` };
    return {
      case: name,
      verdict: 'skip',
      reason: `a Gateway of class ${className || '(custom)'} is not ours to deploy, and is left alone`,
    };
  }
  const file = `${FOLDER}/${stem}.yaml`;
  if (!cases.has(file)) return { case: name, verdict: 'skip', reason: 'there is no golden file for it' };
  if (stem === UPGRADE) return { case: name, verdict: 'skip', reason: 'it is about waypoints that an older Istio has deployed' };
  const applied = new Set<string>();
  const golden = (loadAll(cases.read(file)) as (KubeObject | null)[]).filter((object) => object !== null && object.kind !== 'Gateway');
  const cluster = golden.flatMap((object) => (object ? [withDefaults(object)] : []));
  const { ours, recorded } = deployedObjects([gateway, ...cluster], applied, NETWORK);
  const result = compare(name, ours, recorded, 'objects');
  return result.verdict === 'pass' && applied.size > 0 ? { ...result, reason: `differs: ${[...applied].sort().join(', ')}` } : result;
}

/** What the API server would fill in; and our own resources, which come of the values of an installation, and these cases have none. */
function withDefaults(object: KubeObject): KubeObject {
  if (object.kind !== 'Deployment') return object;
  const spec = object.spec as { template: { spec: { containers: readonly object[] } } };
  const { template } = spec;
  const containers = template.spec.containers.map((container) => ({ resources: RESOURCES, ...container }));
  const pod = { terminationGracePeriodSeconds: 30, ...template.spec, containers };
  return { ...object, spec: { replicas: 1, ...spec, template: { ...template, spec: pod } } };
}

/** From Go's names of fields to Kubernetes'. */
function gatewayOf({ ObjectMeta, Spec }: Case['gw']): KubeObject {
  const { uid = '', ...metadata } = lowered(ObjectMeta) as { uid?: string };
  return {
    apiVersion: 'gateway.networking.k8s.io/v1',
    kind: 'Gateway',
    metadata: { ...metadata, uid },
    spec: lowered(Spec),
  };
}

function lowered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(lowered);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([field]) => field !== '_t');
  return Object.fromEntries(
    // Labels and annotations keep their names: they are not Go's.
    entries.map(([field, inner]) => [/^[A-Z]/.test(field) ? field[0]?.toLowerCase() + field.slice(1) : field, lowered(inner)]),
  );
}
