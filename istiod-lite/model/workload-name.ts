/** Names under which telemetry groups workloads (Istio, pilot/pkg/serviceregistry/ambient): the controller behind a pod, and the canonical service. */
import * as names from './names.ts';
import { at, type Labels, type ObjectMeta, records, text } from './objects.ts';

/** The name of what deployed a pod: the Deployment, not its ReplicaSet; the CronJob, not its Job. */
export function controllerName(object: unknown, meta: ObjectMeta): string {
  const label = meta.labels[names.WORKLOAD_NAME];
  if (label) return label;
  // A pod without generateName was made by hand, whoever owns it now.
  if (text(at(object, 'metadata', 'generateName')) === '') return meta.name;
  const owner = records(at(object, 'metadata', 'ownerReferences')).find((reference) => reference.controller === true);
  const name = text(owner?.name);
  if (name === '') return meta.name;
  switch (owner?.kind) {
    case 'ReplicaSet':
      return stripHash(name, meta.labels['pod-template-hash'] ?? meta.labels['rollouts-pod-template-hash']);
    case 'ReplicationController':
      return meta.labels.deploymentconfig ?? name;
    case 'Job':
      // A CronJob names its Jobs after the minute of their schedule.
      return name.replace(/-\d{8,10}$/, '');
    default:
      return name;
  }
}

function stripHash(name: string, hash: string | undefined): string {
  return hash && name.endsWith(`-${hash}`) ? name.slice(0, -hash.length - 1) : name;
}

export const canonicalName = (labels: Labels, workloadName: string): string =>
  labels[names.CANONICAL_NAME] || labels['app.kubernetes.io/name'] || labels.app || workloadName;

export const canonicalRevision = (labels: Labels): string =>
  labels[names.CANONICAL_REVISION] || labels['app.kubernetes.io/version'] || labels.version || 'latest';
