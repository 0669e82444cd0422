/** One word for a pod, as `kubectl get pods` finds it: from its phase, its containers' states, and whether it is being deleted. */
import { arrayOf, at, objectOf, stringOf } from '../json.ts';
import type { KubeObject } from '../object.ts';

export interface PodSummary {
  readonly ready: number;
  readonly total: number;
  readonly restarts: number;
  /** When a container last ended, milliseconds since 1970. */
  readonly lastRestart: number | undefined;
  readonly reason: string;
}

export function podStatus(pod: KubeObject): PodSummary {
  const containers = arrayOf(at(pod, 'status', 'containerStatuses')).map(objectOf);
  const inits = arrayOf(at(pod, 'status', 'initContainerStatuses')).map(objectOf);
  const total = arrayOf(at(pod, 'spec', 'containers')).length;
  const ends = containers
    .map((container) => Date.parse(stringOf(at(container, 'lastState', 'terminated', 'finishedAt'))))
    .filter((time) => !Number.isNaN(time));
  return {
    ready: containers.filter((container) => container.ready === true).length,
    total,
    restarts: containers.reduce((sum, container) => sum + Number(container.restartCount ?? 0), 0),
    lastRestart: ends.length > 0 ? Math.max(...ends) : undefined,
    reason: reasonOf(pod, containers, inits),
  };
}

function reasonOf(pod: KubeObject, containers: readonly Record<string, unknown>[], inits: readonly Record<string, unknown>[]): string {
  const status = objectOf(pod.status);
  if (pod.metadata.deletionTimestamp) return status.reason === 'NodeLost' ? 'Unknown' : 'Terminating';
  const initReason = initReasonOf(inits, arrayOf(at(pod, 'spec', 'initContainers')).length);
  if (initReason) return initReason;
  let reason = stringOf(status.reason) || stringOf(status.phase) || 'Unknown';
  let running = false;
  for (const container of [...containers].reverse()) {
    const waiting = stringOf(at(container, 'state', 'waiting', 'reason'));
    const terminated = at(container, 'state', 'terminated');
    if (waiting !== '') reason = waiting;
    else if (terminated !== undefined) reason = terminatedReason(terminated);
    else if (container.ready === true && at(container, 'state', 'running') !== undefined) running = true;
  }
  // A container that ended while another one runs: the pod is not over.
  if (reason === 'Completed' && running) return 'Running';
  return reason;
}

function initReasonOf(inits: readonly Record<string, unknown>[], total: number): string | undefined {
  for (const [i, container] of inits.entries()) {
    const terminated = at(container, 'state', 'terminated');
    if (terminated !== undefined && Number(at(terminated, 'exitCode')) === 0) continue;
    if (container.started === true) continue;
    if (terminated !== undefined) return `Init:${terminatedReason(terminated)}`;
    const waiting = stringOf(at(container, 'state', 'waiting', 'reason'));
    return waiting !== '' && waiting !== 'PodInitializing' ? `Init:${waiting}` : `Init:${i}/${total}`;
  }
  return undefined;
}

function terminatedReason(terminated: unknown): string {
  const reason = stringOf(at(terminated, 'reason'));
  if (reason !== '') return reason;
  const signal = Number(at(terminated, 'signal') ?? 0);
  return signal !== 0 ? `Signal:${signal}` : `ExitCode:${String(at(terminated, 'exitCode') ?? 0)}`;
}
