/** The mesh, from the same manifests that real Kubernetes gets: applied object by object, then waited for. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import yaml from 'js-yaml';
import { type Clock, sleep } from '../../common/base/clock.ts';
import type { KubeObject } from '../apiserver/object.ts';
import type { Store } from '../apiserver/store/store.ts';
import { isReady } from '../controllers/pods.ts';
import type { Cluster } from './collections.ts';

const MESH_NAMESPACE = 'istio-system';
const FIELD_MANAGER = 'warren-playground';
const POLL_MS = 20;
/** Istio's kinds are there from the start. */
const OWN_KINDS = 'charts/warren/crds/warren.yaml';

/** @throws {Error} naming the file and object that is refused, or the pods that do not become ready in time */
export async function applyMesh(cluster: Cluster, store: Store, folder: string, clock: Clock, patienceMs: number): Promise<void> {
  const files = readdirSync(folder).filter((name) => /\.ya?ml$/.test(name));
  if (files.length === 0) throw new Error(`no manifests in ${folder}`);
  for (const file of [...files, OWN_KINDS].sort()) {
    for (const object of yaml.loadAll(readFileSync(join(folder, file), 'utf8'), undefined, { filename: file }))
      if (isObject(object)) apply(store, object, file);
  }
  const deadline = clock.monotonic() + patienceMs;
  for (;;) {
    const missing = notReady(cluster);
    if (missing.length === 0) return;
    if (clock.monotonic() > deadline) throw new Error(`the mesh is not ready after ${patienceMs / 1000} s: ${missing.join('; ')}`);
    await sleep(clock, POLL_MS);
  }
}

function apply(store: Store, object: KubeObject, file: string): void {
  const { kind, metadata } = object;
  try {
    const { type } = store.resolve(object.apiVersion, kind);
    const name = type.group === '' ? kind : `${kind}.${type.group}`;
    const body = { ...object, metadata: { ...metadata, ...(type.namespaced ? { namespace: metadata.namespace ?? 'default' } : {}) } };
    store.patch(
      name,
      metadata.name,
      metadata.namespace ?? (type.namespaced ? 'default' : ''),
      { type: 'apply', body, force: true },
      { fieldManager: FIELD_MANAGER },
    );
  } catch (error) {
    throw new Error(`${file}: ${kind} ${metadata.name}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** What is still missing in the mesh's namespace, in plain words. */
function notReady(cluster: Cluster): string[] {
  const number = (value: unknown): number => (typeof value === 'number' ? value : 0);
  const missing: string[] = [];
  for (const { metadata, spec, status } of cluster.deployments.list(MESH_NAMESPACE)) {
    if (number(status?.availableReplicas) < (spec.replicas ?? 1)) missing.push(`Deployment ${metadata.name}`);
  }
  for (const { metadata, status } of cluster.daemonSets.list(MESH_NAMESPACE)) {
    const wanted = number(status?.desiredNumberScheduled);
    if (wanted === 0 || number(status?.numberAvailable) < wanted) missing.push(`DaemonSet ${metadata.name}`);
  }
  if (missing.length === 0) return [];
  for (const pod of cluster.pods.list(MESH_NAMESPACE)) {
    if (isReady(pod)) continue;
    const waiting = (pod.status?.containerStatuses ?? []).map(({ state, lastState, restartCount }) => {
      const why = state.waiting?.reason ?? (state.running ? 'running, not ready' : (state.terminated?.reason ?? ''));
      return `${why}${restartCount > 0 ? `, ${restartCount} restarts, last exit ${lastState.terminated?.exitCode}` : ''}`;
    });
    missing.push(`pod ${pod.metadata.name} on ${pod.spec.nodeName ?? 'no node'} (${waiting.join(', ') || pod.status?.phase})`);
  }
  return missing;
}

const isObject = (value: unknown): value is KubeObject =>
  typeof value === 'object' && value !== null && 'kind' in value && 'metadata' in value;
