/** Labels of workloads for the waypoints that ask for some: of one source, by waypoint, each with those labels that it asks for. */
import type { WorkloadLabels } from '../../common/codec/gen/waypoint.ts';
import type { MeshModelConfig } from './config.ts';
import type { Inputs } from './inputs.ts';
import { type Labels, pick } from './objects.ts';
import { podUid } from './pod.ts';
import { entryEndpoints, entryEndpointUid } from './service-entry.ts';
import { workloadEntryUid } from './workload-entry.ts';

interface Labelled {
  readonly uid: string;
  readonly labels: Labels;
  readonly addresses: readonly string[];
}

/** @param source `Kind/namespace/name` of a Pod, WorkloadEntry, ServiceEntry or EndpointSlice */
export function workloadLabels(config: MeshModelConfig, inputs: Inputs, source: string): Map<string, WorkloadLabels[]> {
  const made = new Map<string, WorkloadLabels[]>();
  const [, namespace = ''] = source.split('/');
  const wanted = inputs.labelsWanted(namespace);
  if (wanted.size === 0) return made;
  for (const { uid, labels, addresses } of labelled(config, inputs, source)) {
    for (const [waypoint, names] of wanted) {
      const own = pick(labels, [...names].sort());
      if (Object.keys(own).length === 0) continue;
      made.set(waypoint, [...(made.get(waypoint) ?? []), { uid, labels: { ...own }, addresses: [...addresses] }]);
    }
  }
  return made;
}

function labelled(config: MeshModelConfig, inputs: Inputs, source: string): Labelled[] {
  const slash = source.indexOf('/');
  const key = source.slice(slash + 1);
  switch (source.slice(0, slash)) {
    case 'Pod': {
      const pod = inputs.pods.get(key);
      // The host network's address is shared by many, and so nobody's.
      return pod ? [{ uid: podUid(config, pod), labels: pod.labels, addresses: pod.hostNetwork ? [] : pod.addresses }] : [];
    }
    case 'WorkloadEntry': {
      const entry = inputs.workloadEntries.get(key);
      return entry ? [{ uid: workloadEntryUid(config, entry), labels: entry.labels, addresses: [entry.endpoint.address] }] : [];
    }
    case 'ServiceEntry': {
      const entry = inputs.serviceEntries.get(key);
      if (!entry) return [];
      return entryEndpoints(entry).map(({ endpoint }) => ({
        uid: entryEndpointUid(config, entry, endpoint),
        labels: endpoint.labels,
        addresses: [],
      }));
    }
    default:
      return [];
  }
}
