/** What can be bypassed, where the annotation for it goes, and which pods it concerns. Pure. */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { isCandidate, isWanted, podSpec } from '../status/enrolment.ts';

/** On a Node or Namespace, or with the value `cluster` on the mesh's own namespace: the node agents take the pods out of the mesh. */
export const BYPASS = 'warren.dev/bypass';
/** On a pod, by its node's agent: what it is bypassed with. */
export const BYPASSED = 'warren.dev/bypassed';

export type Scope =
  | { readonly kind: 'node'; readonly name: string }
  | { readonly kind: 'namespace'; readonly name: string }
  | { readonly kind: 'cluster'; readonly systemNamespace: string };

export interface Target {
  readonly path: string;
  readonly value: string;
  readonly label: string;
}

/** The object that carries the annotation. */
export function targetOf(scope: Scope): Target {
  if (scope.kind === 'node') return { path: `/api/v1/nodes/${scope.name}`, value: 'true', label: `node ${scope.name}` };
  if (scope.kind === 'namespace') return { path: `/api/v1/namespaces/${scope.name}`, value: 'true', label: `namespace ${scope.name}` };
  return { path: `/api/v1/namespaces/${scope.systemNamespace}`, value: 'cluster', label: 'the cluster' };
}

/** Pods that the labels put into the mesh and the scope takes out of it. */
export function podsOf(scope: Scope, pods: readonly KubeObject[], namespaces: readonly KubeObject[]): KubeObject[] {
  const byName = new Map(namespaces.map((namespace) => [namespace.metadata.name, namespace]));
  return pods.filter((pod) => {
    if (scope.kind === 'node' && podSpec(pod).nodeName !== scope.name) return false;
    if (scope.kind === 'namespace' && pod.metadata.namespace !== scope.name) return false;
    if (pod.metadata.namespace === 'kube-system') return false;
    return isCandidate(pod) && podSpec(pod).nodeName !== undefined && isWanted(pod, byName.get(pod.metadata.namespace));
  });
}

/** What else bypasses a pod, so that its undoing is not waited for in vain. */
export function bypassOf(
  pod: KubeObject,
  { namespaces, nodes, systemNamespace }: { namespaces: readonly KubeObject[]; nodes: readonly KubeObject[]; systemNamespace: string },
): 'node' | 'namespace' | 'cluster' | 'by hand' | undefined {
  const annotated = (objects: readonly KubeObject[], name: string | undefined, value: string): boolean =>
    objects.some(({ metadata }) => metadata.name === name && metadata.annotations?.[BYPASS] === value);
  if (annotated(nodes, podSpec(pod).nodeName, 'true')) return 'node';
  if (annotated(namespaces, systemNamespace, 'cluster')) return 'cluster';
  if (annotated(namespaces, pod.metadata.namespace, 'true')) return 'namespace';
  return pod.metadata.annotations?.[BYPASSED] === 'by hand' ? 'by hand' : undefined;
}

/** How to end it. */
export function wayBack(scope: 'node' | 'namespace' | 'cluster' | 'by hand', name: string): string {
  if (scope === 'by hand') return `on node ${name}: /opt/cni/bin/istio-cni bypass --undo`;
  return `meshctl bypass ${scope}${scope === 'cluster' ? '' : ` ${name}`} --undo`;
}
