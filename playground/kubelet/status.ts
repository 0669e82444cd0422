/** A pod's status as the kubelet writes it, from what its containers are doing. Pure. */
import type { Addresses } from '../network/plan.ts';
import type { Condition, Container, ContainerState, ContainerStatus, Pod, PodStatus } from '../objects.ts';

/** What is known about one container. */
export interface ContainerRecord {
  readonly spec: Container;
  readonly kind: 'init' | 'sidecar' | 'main';
  state: ContainerState;
  lastState: ContainerState;
  restartCount: number;
  ready: boolean;
  /** Running, and past its startup probe. */
  started: boolean;
  containerId: string | undefined;
  /** It has ended and stays so. */
  finished: boolean;
}

export interface PodFacts {
  readonly records: readonly ContainerRecord[];
  readonly addresses: Addresses | undefined;
  readonly hostAddresses: Addresses;
  readonly initialized: boolean;
  readonly startTime: string;
  /** Set when the pod failed as a whole, before or besides its containers. */
  readonly failure?: { readonly reason: string; readonly message: string } | undefined;
  readonly nowText: string;
}

export function newRecord(spec: Container, init: boolean): ContainerRecord {
  const kind = init ? (spec.restartPolicy === 'Always' ? 'sidecar' : 'init') : 'main';
  return {
    spec,
    kind,
    state: { waiting: { reason: init ? 'PodInitializing' : 'ContainerCreating' } },
    lastState: {},
    restartCount: 0,
    ready: false,
    started: false,
    containerId: undefined,
    finished: false,
  };
}

export function podStatus(pod: Pod, facts: PodFacts): PodStatus {
  const phase = podPhase(pod, facts);
  const ips = facts.addresses ? [facts.addresses.v4, ...(facts.addresses.v6 ? [facts.addresses.v6] : [])] : [];
  const hostIps = [facts.hostAddresses.v4, ...(facts.hostAddresses.v6 ? [facts.hostAddresses.v6] : [])];
  const statuses = (init: boolean): ContainerStatus[] =>
    facts.records.filter(({ kind }) => (kind !== 'main') === init).map((record) => containerStatus(record));
  const inits = statuses(true);
  const status: PodStatus = {
    ...pod.status,
    phase,
    conditions: conditions(pod, phase, facts),
    hostIP: facts.hostAddresses.v4,
    hostIPs: hostIps.map((ip) => ({ ip })),
    startTime: facts.startTime,
    containerStatuses: statuses(false),
  };
  if (inits.length > 0) status.initContainerStatuses = inits;
  if (ips[0] !== undefined) {
    status.podIP = ips[0];
    status.podIPs = ips.map((ip) => ({ ip }));
  }
  if (facts.failure) Object.assign(status, facts.failure);
  return status;
}

export function podPhase(pod: Pod, { records, initialized, failure }: PodFacts): NonNullable<PodStatus['phase']> {
  if (failure) return 'Failed';
  const main = records.filter(({ kind }) => kind === 'main');
  if (main.length > 0 && main.every(({ finished }) => finished)) {
    return main.every(({ state }) => state.terminated?.exitCode === 0) ? 'Succeeded' : 'Failed';
  }
  if (records.some(({ kind, finished, state }) => kind === 'init' && finished && state.terminated?.exitCode !== 0)) return 'Failed';
  const begun = main.every(({ state, lastState, finished }) => finished || state.running || state.terminated || lastState.terminated);
  return initialized && begun && pod.spec.containers.length > 0 ? 'Running' : 'Pending';
}

function conditions(pod: Pod, phase: string, { records, initialized, addresses, nowText }: PodFacts): Condition[] {
  const old = pod.status?.conditions ?? [];
  const main = records.filter(({ kind }) => kind !== 'init');
  const notReady = main.filter(({ ready }) => !ready).map(({ spec }) => spec.name);
  const over = phase === 'Succeeded' || phase === 'Failed';
  const unready =
    phase === 'Succeeded'
      ? { reason: 'PodCompleted' }
      : phase === 'Failed'
        ? { reason: 'PodFailed' }
        : { reason: 'ContainersNotReady', message: `containers with unready status: [${notReady.join(' ')}]` };
  const containersReady = !over && notReady.length === 0 && initialized;
  const gates = (pod.spec.readinessGates ?? []).filter(
    ({ conditionType }) => !old.some(({ type, status }) => type === conditionType && status === 'True'),
  );
  const ready = containersReady && gates.length === 0;
  const initDone = initialized || phase === 'Succeeded';
  const own: Condition[] = [
    condition('PodReadyToStartContainers', addresses !== undefined && !over),
    condition(
      'Initialized',
      initDone,
      initDone ? {} : { reason: 'ContainersNotInitialized', message: 'init containers have not completed' },
    ),
    condition(
      'Ready',
      ready,
      ready ? {} : containersReady ? { reason: 'ReadinessGatesNotReady', message: 'a readiness gate is not true' } : unready,
    ),
    condition('ContainersReady', containersReady, containersReady ? {} : unready),
    condition('PodScheduled', true),
  ];
  const merged = own.map((next) => {
    const before = old.find(({ type }) => type === next.type);
    const lastTransitionTime = before?.status === next.status && before.lastTransitionTime ? before.lastTransitionTime : nowText;
    return { lastProbeTime: null, ...next, lastTransitionTime };
  });
  return [...merged, ...old.filter(({ type }) => !own.some((next) => next.type === type))];
}

const condition = (type: string, holds: boolean, why: { reason?: string; message?: string } = {}): Condition => ({
  type,
  status: holds ? 'True' : 'False',
  ...why,
});

function containerStatus(record: ContainerRecord): ContainerStatus {
  const { spec, state, lastState, ready, started, restartCount, containerId } = record;
  const image = spec.image ?? '';
  return {
    name: spec.name,
    state,
    lastState,
    ready: record.kind === 'init' ? record.finished && state.terminated?.exitCode === 0 : ready,
    started,
    restartCount,
    image,
    imageID: image === '' ? '' : `playground/${image}`,
    ...(containerId === undefined ? {} : { containerID: containerId }),
  };
}
