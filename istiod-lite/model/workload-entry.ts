/** WorkloadEntry → Workload (Istio, pilot/pkg/serviceregistry/ambient): a machine outside the cluster that services may select like a pod. */
import { type Workload, WorkloadStatus } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig } from './config.ts';
import { type Endpoint, endpointWorkload, readEndpoint } from './endpoint.ts';
import * as names from './names.ts';
import { at, type Labels, objectKey, type Report, readMeta, records } from './objects.ts';
import type { Surroundings } from './workload.ts';
import { canonicalName, canonicalRevision } from './workload-name.ts';

export interface WorkloadEntry {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  /** Those of the object and those of its spec. */
  readonly labels: Labels;
  readonly workloadName: string;
  readonly endpoint: Endpoint;
  /** Somebody tried it, and it did not answer. */
  readonly unhealthy: boolean;
}

export function readWorkloadEntry(object: unknown, report: Report): WorkloadEntry | undefined {
  const meta = readMeta(object);
  const endpoint = readEndpoint(at(object, 'spec'), report);
  if (!meta || !endpoint) return undefined;
  return {
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    labels: { ...endpoint.labels, ...meta.labels },
    workloadName: meta.annotations[names.AUTO_REGISTRATION_GROUP] || meta.labels[names.WORKLOAD_NAME] || meta.name,
    endpoint,
    unhealthy: records(at(object, 'status', 'conditions')).some(({ type, status }) => type === 'Healthy' && status === 'False'),
  };
}

export const workloadEntryUid = (config: MeshModelConfig, entry: { key: string }): string =>
  `${config.clusterId}/networking.istio.io/WorkloadEntry/${entry.key}`;

export function workloadEntryWorkload(config: MeshModelConfig, entry: WorkloadEntry, around: Surroundings): Workload {
  return {
    ...endpointWorkload(config, entry.endpoint, entry.labels, around),
    uid: workloadEntryUid(config, entry),
    name: entry.name,
    namespace: entry.namespace,
    workloadName: entry.workloadName,
    canonicalName: canonicalName(entry.labels, entry.workloadName),
    canonicalRevision: canonicalRevision(entry.labels),
    ...(entry.unhealthy && { status: WorkloadStatus.UNHEALTHY }),
  };
}
