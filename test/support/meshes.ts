/** Every implementation of MeshView that a test of decisions should hold for. */
import type { MeshView, Policy, Service, Workload } from '../../common/decision/mesh-view.ts';
import { policyKey, serviceKey } from '../../common/decision/mesh-view.ts';
import { encodePolicy, encodeService, encodeWorkload } from '../../common/state/encode.ts';
import { MeshStateReader } from '../../common/state/reader.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type ListedPush, MeshStateWriter } from '../../common/state/writer.ts';
import { type MeshContents, PlainMesh } from './plain-mesh.ts';

export const meshes: Readonly<Record<string, (contents: MeshContents) => MeshView>> = {
  plain: (contents) => new PlainMesh(contents),
  packed: (contents) => packedMesh(contents).reader,
};

/** A writer with these contents, and a reader of it. */
export function packedMesh({ workloads = [], services = [], policies = [] }: MeshContents = {}): {
  writer: MeshStateWriter;
  reader: MeshStateReader;
} {
  const writer = new MeshStateWriter({ seed: 1, maxBytes: 64 << 20 });
  writer.apply(addressPush({ workloads, services }));
  writer.apply(policyPush(policies));
  return { writer, reader: new MeshStateReader(writer.shared) };
}

export const addressPush = (contents: {
  workloads?: readonly Workload[];
  services?: readonly Service[];
  removed?: readonly string[];
}): ListedPush => ({
  typeUrl: ADDRESS_TYPE,
  resources: [
    ...(contents.workloads ?? []).map((workload) => ({ name: workload.uid, version: 'v1', bytes: encodeWorkload(workload) })),
    ...(contents.services ?? []).map((service) => ({ name: serviceKey(service), version: 'v1', bytes: encodeService(service) })),
  ],
  removed: contents.removed ?? [],
});

export const policyPush = (policies: readonly Policy[], removed: readonly string[] = []): ListedPush => ({
  typeUrl: AUTHORIZATION_TYPE,
  resources: policies.map((policy) => ({ name: policyKey(policy), version: '', bytes: encodePolicy(policy) })),
  removed,
});
