/** Whether Deployments and DaemonSets have come up, and if not, why: pure functions of the objects, their pods and events. */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { type Finding, failure, oneLine } from '../check/finding.ts';
import { plural } from '../terminal.ts';
import { titleOf } from './kinds.ts';

export interface Rollout {
  readonly title: string;
  readonly ready: number;
  readonly wanted: number;
  readonly done: boolean;
}

interface Counts {
  readonly observedGeneration?: number;
  readonly replicas?: number;
  readonly updatedReplicas?: number;
  readonly availableReplicas?: number;
  readonly desiredNumberScheduled?: number;
  readonly currentNumberScheduled?: number;
  readonly updatedNumberScheduled?: number;
  readonly numberAvailable?: number;
  readonly conditions?: readonly { readonly type: string; readonly status: string; readonly reason?: string; readonly message?: string }[];
}

export function rolloutOf(workload: KubeObject): Rollout {
  const status = (workload.status ?? {}) as Counts;
  const title = titleOf(workload);
  const seen = (status.observedGeneration ?? 0) >= (workload.metadata.generation ?? 1);
  if (workload.kind === 'DaemonSet') {
    const { desiredNumberScheduled: wanted = 0, updatedNumberScheduled = 0, numberAvailable = 0 } = status;
    const ready = Math.min(updatedNumberScheduled, numberAvailable);
    return { title, ready, wanted, done: seen && ready >= wanted };
  }
  const wanted = (workload.spec as { replicas?: number } | undefined)?.replicas ?? 1;
  const { replicas = 0, updatedReplicas = 0, availableReplicas = 0 } = status;
  const ready = Math.min(updatedReplicas, availableReplicas);
  return { title, ready, wanted, done: seen && ready >= wanted && replicas === updatedReplicas };
}

/** What keeps its pods from being created at all. */
export function creationTrouble(workload: KubeObject, events: readonly KubeObject[]): Finding[] {
  const conditions = ((workload.status ?? {}) as Counts).conditions ?? [];
  const failed = conditions.find(({ type, status }) => type === 'ReplicaFailure' && status === 'True');
  const message = failed?.message ?? lastEvent(events, workload, ['FailedCreate'])?.message;
  if (message === undefined) return [];
  return [failure(titleOf(workload), `its pods are not created: ${message}`, mendOfCreation(message))];
}

function mendOfCreation(message: string): string {
  if (/violates PodSecurity/.test(message))
    return 'label its namespace pod-security.kubernetes.io/enforce=privileged: ztunnel and the node agent need capabilities and host paths';
  if (/exceeded quota|insufficient quota|quota/.test(message))
    return 'raise the quota of the namespace (--set resourceQuota.enabled=true makes one)';
  if (/priority class/i.test(message)) return '--set resourceQuota.enabled=true allows the priority class in this namespace';
  if (/securitycontextconstraints|unable to validate against any security context/i.test(message))
    return '--set openshift.securityContextConstraints=true';
  return 'ask whoever runs the admission plugin that said so';
}

interface PodStatus {
  readonly phase?: string;
  readonly conditions?: readonly { readonly type: string; readonly status: string; readonly reason?: string; readonly message?: string }[];
  readonly containerStatuses?: readonly ContainerStatus[];
  readonly initContainerStatuses?: readonly ContainerStatus[];
}
interface ContainerStatus {
  readonly name: string;
  readonly image: string;
  readonly ready?: boolean;
  readonly restartCount?: number;
  readonly state?: ContainerState;
  readonly lastState?: ContainerState;
}
interface ContainerState {
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly running?: object;
  readonly terminated?: { readonly reason?: string; readonly exitCode?: number };
}

/** Why a pod is not ready, and how long to hope that it mends itself. */
export interface PodTrouble extends Finding {
  readonly hopeMs: number;
}

const FOREVER = Number.POSITIVE_INFINITY;
const IMAGE_REASONS: Readonly<Record<string, number>> = {
  InvalidImageName: 5000,
  ErrImageNeverPull: 10_000,
  ErrImagePull: FOREVER,
  ImagePullBackOff: 60_000,
};

/** @param logs the last line of the pod's containers that ended, by container */
export function podTrouble(pod: KubeObject, events: readonly KubeObject[], logs: ReadonlyMap<string, string>): PodTrouble | undefined {
  const status = (pod.status ?? {}) as PodStatus;
  const title = titleOf({ ...pod, kind: 'Pod' });
  const trouble = (message: string, mend: string, hopeMs = FOREVER): PodTrouble => ({ ...failure(title, message, mend), hopeMs });
  const scheduled = status.conditions?.find(({ type }) => type === 'PodScheduled');
  if (scheduled?.status === 'False')
    return trouble(
      `cannot be scheduled: ${scheduled.message ?? scheduled.reason}`,
      'free resources, add nodes, or change resources, nodeSelector or tolerations',
    );
  for (const container of [...(status.initContainerStatuses ?? []), ...(status.containerStatuses ?? [])]) {
    const found = containerTrouble(pod, container, logs, trouble);
    if (found) return found;
  }
  const mount = lastEvent(events, pod, ['FailedMount', 'FailedCreatePodSandBox', 'FailedAttachVolume']);
  const starting = status.phase === 'Pending' || status.phase === undefined;
  if (starting && mount) return trouble(mount.message, mendOfMount(mount.message));
  const unready = (status.containerStatuses ?? []).filter(({ ready, state }) => !ready && state?.running);
  if (unready.length === 0) return undefined;
  const probe = lastEvent(events, pod, ['Unhealthy']);
  const names = unready.map(({ name }) => name).join(', ');
  return trouble(`${names} runs and is not ready${probe ? `: ${probe.message}` : ''}`, logsCommand(pod, unready[0]?.name ?? '', false));
}

function containerTrouble(
  pod: KubeObject,
  { name, image, state, lastState, restartCount = 0 }: ContainerStatus,
  logs: ReadonlyMap<string, string>,
  trouble: (message: string, mend: string, hopeMs?: number) => PodTrouble,
): PodTrouble | undefined {
  const { reason = '', message = '' } = state?.waiting ?? {};
  const patience = IMAGE_REASONS[reason];
  if (patience !== undefined) {
    const detail = message && message !== reason ? `: ${message}` : '';
    const mend = 'check image.hub, image.tag and image.pullSecrets, or load the image onto the nodes';
    return trouble(`image ${image} cannot be pulled (${reason}${detail})`, mend, patience);
  }
  const ended = state?.terminated ?? lastState?.terminated;
  if ((reason === 'CrashLoopBackOff' || (restartCount > 0 && !state?.running)) && ended) {
    if (ended.reason === 'OOMKilled') return trouble(`${name} ran out of memory`, 'raise resources.limits.memory', 60_000);
    const line = logs.get(name);
    const said = line ? `: ${line}` : '';
    return trouble(
      `${name} ended ${plural(restartCount, 'time')}, last with exit code ${ended.exitCode}${said}`,
      mendOfCrash(line ?? '', logsCommand(pod, name, true)),
      60_000,
    );
  }
  if (['CreateContainerConfigError', 'CreateContainerError', 'RunContainerError'].includes(reason))
    return trouble(`${name} cannot be started (${reason}: ${message})`, 'kubectl describe pod says more');
  return undefined;
}

function mendOfMount(message: string): string {
  if (/hostPath type check failed: (?!\/proc)/.test(message))
    return 'this node keeps its CNI files elsewhere: set cni.binDir and cni.confDir (manifests/charts/warren/platforms has values for k3s, GKE, OpenShift)';
  if (/istio-ca-root-cert/.test(message)) return 'istiod writes it once it is ready: look at istiod first';
  return 'kubectl describe pod says more';
}

const mendOfCrash = (line: string, otherwise: string): string =>
  /EACCES|EPERM|permission denied|operation not permitted/i.test(line)
    ? `SELinux or AppArmor may be in the way: --set seLinuxOptions.type=spc_t where SELinux enforces; ${otherwise}`
    : otherwise;

const logsCommand = ({ metadata }: KubeObject, container: string, previous: boolean): string =>
  `kubectl logs -n ${metadata.namespace} ${metadata.name} -c ${container}${previous ? ' --previous' : ''}`;

function lastEvent(
  events: readonly KubeObject[],
  { kind, metadata }: KubeObject,
  reasons: readonly string[],
): { message: string } | undefined {
  const about = events.filter((event) => {
    const { name, uid } = (event.involvedObject ?? {}) as { name?: string; uid?: string };
    if (kind !== undefined && kind !== 'Pod' && name !== metadata.name) return false;
    return (uid !== undefined && uid === metadata.uid) || (uid === undefined && name === metadata.name);
  });
  const messages = about
    .filter(({ reason, message }) => reasons.includes(String(reason)) && typeof message === 'string')
    .sort((a, b) => timeOf(a).localeCompare(timeOf(b)))
    .map(({ message }) => oneLine(String(message)));
  // A pod has several volumes: what passes by itself says less than what does not.
  const message = messages.findLast((each) => !PASSING.test(each)) ?? messages.at(-1);
  return message === undefined ? undefined : { message };
}

const PASSING = /failed to sync (configmap|secret) cache|configmap "istio-ca-root-cert" not found/;

/** The API server lists events by name. */
const timeOf = ({ lastTimestamp, eventTime, metadata }: KubeObject): string =>
  String(lastTimestamp ?? eventTime ?? metadata.creationTimestamp ?? '');
