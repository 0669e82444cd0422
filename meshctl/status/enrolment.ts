/** Which pods the mesh should carry and which it says it carries: labels are the wish, the annotation is the fact (Istio's names). */
import type { KubeObject } from '../../common/client/kube-api.ts';

export const DATAPLANE_MODE = 'istio.io/dataplane-mode';
export const REDIRECTION = 'ambient.istio.io/redirection';
/** The node agent's own: what is not as it should be with a pod's place in the mesh, and how many of its connections are older than that. */
export const ENROLMENT_PROBLEM = 'warren.dev/enrolment-problem';
export const CONNECTIONS_OUTSIDE = 'warren.dev/connections-outside';
const SIDECAR_STATUS = 'sidecar.istio.io/status';

export interface PodSpec {
  readonly nodeName?: string;
  readonly hostNetwork?: boolean;
}

export const podSpec = (pod: KubeObject): PodSpec => (pod.spec ?? {}) as PodSpec;
export const podPhase = (pod: KubeObject): string => (pod.status as { phase?: string } | undefined)?.phase ?? 'Unknown';

/** Whether a pod can be in the mesh at all: not of the host network, no sidecar, still running. */
export function isCandidate(pod: KubeObject): boolean {
  if (podSpec(pod).hostNetwork || pod.metadata.annotations?.[SIDECAR_STATUS] !== undefined) return false;
  return !['Succeeded', 'Failed'].includes(podPhase(pod)) && pod.metadata.deletionTimestamp === undefined;
}

/** Whether the labels ask for it: the pod's own wins over the namespace's, both ways. */
export function isWanted(pod: KubeObject, namespace: KubeObject | undefined): boolean {
  const own = pod.metadata.labels?.[DATAPLANE_MODE];
  if (own === 'ambient' || own === 'none') return own === 'ambient';
  return namespace?.metadata.labels?.[DATAPLANE_MODE] === 'ambient';
}

export const enrolledPods = (pods: readonly KubeObject[]): KubeObject[] =>
  pods.filter((pod) => pod.metadata.annotations?.[REDIRECTION] === 'enabled');
