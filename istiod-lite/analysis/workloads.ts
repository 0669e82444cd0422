/** Who can be selected: pods, and what will make pods, since a repository has Deployments and no pods. */
import * as names from '../model/names.ts';
import { at, type Labels, text, textMap } from '../model/objects.ts';
import type { AnalyzedObject, ObjectSet } from './object-set.ts';

export interface Workload {
  /** `Deployment shop/web`. */
  readonly id: string;
  readonly namespace: string;
  readonly labels: Labels;
  readonly annotations: Labels;
  readonly serviceAccount: string;
  /** Whether the mesh carries its traffic, as far as labels say. */
  readonly inMesh: boolean;
  /** Addresses of a running pod. */
  readonly addresses: readonly string[];
}

const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  Deployment: ['spec', 'template'],
  StatefulSet: ['spec', 'template'],
  DaemonSet: ['spec', 'template'],
  ReplicaSet: ['spec', 'template'],
  Job: ['spec', 'template'],
  CronJob: ['spec', 'jobTemplate', 'spec', 'template'],
};

export function workloadsOf(set: ObjectSet): Workload[] {
  const modes = new Map(set.of('Namespace').map(({ key, object }) => [key, labelsOf(object)[names.DATAPLANE_MODE]]));
  return [...set.values()].flatMap((one): Workload[] => {
    if (one.kind === 'WorkloadEntry') return [entryWorkload(one)];
    const template =
      one.kind === 'Pod' ? one.object : Object.hasOwn(TEMPLATES, one.kind) ? at(one.object, ...(TEMPLATES[one.kind] ?? [])) : undefined;
    if (template === undefined || isOver(template)) return [];
    const { namespace } = one.origin;
    const labels = labelsOf(template);
    const mode = labels[names.DATAPLANE_MODE] ?? modes.get(namespace);
    const redirected = annotationsOf(template)[names.REDIRECTION] === 'enabled';
    const onHost = at(template, 'spec', 'hostNetwork') === true;
    return [
      {
        id: `${one.kind} ${one.key}`,
        namespace,
        labels,
        annotations: annotationsOf(template),
        serviceAccount: text(at(template, 'spec', 'serviceAccountName')) || 'default',
        inMesh: redirected || (mode === 'ambient' && !onHost),
        addresses: podAddresses(template),
      },
    ];
  });
}

export const annotationsOf = (object: unknown): Labels => textMap(at(object, 'metadata', 'annotations'));

const labelsOf = (object: unknown): Labels => textMap(at(object, 'metadata', 'labels'));

/** A pod that has ended calls nobody, and nobody calls it. */
const isOver = (pod: unknown): boolean => ['Succeeded', 'Failed'].includes(text(at(pod, 'status', 'phase')));

function podAddresses(pod: unknown): string[] {
  const list = at(pod, 'status', 'podIPs');
  return Array.isArray(list) ? list.map((one) => text(at(one, 'ip'))).filter((ip) => ip !== '') : [];
}

function entryWorkload({ key, origin, object }: AnalyzedObject): Workload {
  return {
    id: `WorkloadEntry ${key}`,
    namespace: origin.namespace,
    labels: { ...textMap(at(object, 'spec', 'labels')), ...labelsOf(object) },
    annotations: annotationsOf(object),
    serviceAccount: text(at(object, 'spec', 'serviceAccount')) || 'default',
    inMesh: true,
    addresses: [],
  };
}

export const selects = (selector: Labels, labels: Labels): boolean =>
  Object.entries(selector).every(([name, value]) => labels[name] === value);
