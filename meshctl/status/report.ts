/**
 * What `meshctl status` says, as a pure function of what the cluster and its proxies answered. Problems are sentences with their mend; an
 * error makes the mesh degraded, a warning does not.
 */
import type { KubeObject } from '../../common/client/kube-api.ts';
import { plural } from '../terminal.ts';
import { bypassProblems, isBypassed } from './bypass.ts';
import {
  CONNECTIONS_OUTSIDE,
  DATAPLANE_MODE,
  ENROLMENT_PROBLEM,
  enrolledPods,
  isCandidate,
  isWanted,
  podPhase,
  podSpec,
  REDIRECTION,
} from './enrolment.ts';

/** What was read. Whatever could not be read is in `failures`, and is a problem. */
export interface Observations {
  readonly systemNamespace: string;
  readonly namespaces: readonly KubeObject[];
  readonly pods: readonly KubeObject[];
  readonly services: readonly KubeObject[];
  readonly nodes: readonly KubeObject[];
  readonly deployments: readonly KubeObject[];
  readonly daemonSets: readonly KubeObject[];
  readonly gateways: readonly KubeObject[];
  readonly policies: readonly KubeObject[];
  /** /debug/syncz of every istiod replica. */
  readonly syncz: readonly ProxySync[];
  /** /debug/problems of one istiod replica: what it could not translate. */
  readonly untranslated: readonly { readonly object: string; readonly message: string }[];
  /** /debug/proxies of every istiod replica: what proxies say about themselves. */
  readonly proxies: readonly ProxyReport[];
  readonly failures: readonly string[];
  readonly nowMs: number;
}

export interface ProxyReport {
  readonly name: string;
  readonly namespace: string;
  readonly kind: string;
  readonly certificates: number;
  /** Seconds since 1970; 0 where there is none. */
  readonly soonestExpiry: number;
  readonly problems: readonly string[];
  readonly refusals: readonly RefusalSeen[];
}

export interface RefusalSeen {
  readonly timeMs: number;
  readonly code: string;
  readonly policy: string;
  readonly source: string;
  readonly destination: string;
  readonly message: string;
  readonly count: number;
  /** It was not refused: somebody passed a waypoint by. Absent where istiod is older. */
  readonly letThrough?: boolean;
}

export interface ProxySync {
  /** `POD.NAMESPACE`. */
  readonly proxy: string;
  readonly istio_version?: string;
  readonly resources?: Readonly<Record<string, { readonly sent?: string; readonly acked?: string; readonly lastError?: string }>>;
}

export interface Problem {
  readonly severity: 'error' | 'warning';
  readonly object: string;
  readonly message: string;
}

export interface NodeStatus {
  readonly node: string;
  readonly ztunnel: string;
  readonly version: string;
  readonly synced: boolean;
  readonly agent: string;
  readonly podsEnrolled: number;
}

export interface StatusReport {
  readonly healthy: boolean;
  readonly controlPlane: { readonly ready: number; readonly wanted: number };
  readonly nodes: readonly NodeStatus[];
  readonly namespaces: readonly { readonly namespace: string; readonly podsEnrolled: number; readonly pods: number }[];
  readonly waypoints: readonly { readonly waypoint: string; readonly programmed: boolean; readonly address: string }[];
  readonly certificates: { readonly count: number; readonly soonestExpiry: string | undefined };
  /** Of the last minutes, newest first. */
  readonly refusals: readonly RefusalSeen[];
  readonly problems: readonly Problem[];
}

const EXPIRY_WARNING_MS = 3_600_000;
const AGENT = 'istio-cni-node';
const REFUSALS_SHOWN_MS = 300_000;
const MAX_REFUSALS_SHOWN = 10;

export function makeReport(seen: Observations): StatusReport {
  const problems: Problem[] = seen.failures.map((message) => ({ severity: 'error', object: 'meshctl', message }));
  const controlPlane = controlPlaneStatus(seen, problems);
  const nodes = seen.nodes.map((node) => nodeStatus(seen, node.metadata.name ?? '', problems));
  problems.push(...bypassProblems(seen));
  enrolmentProblems(seen, problems);
  problems.push(...agentVersionProblems(seen));
  const namespaces = namespaceStatus(seen);
  serviceProblems(seen, problems);
  problems.push(...passedWaypoints(seen));
  problems.push(...policyProblems(seen));
  for (const { object, message } of seen.untranslated) problems.push({ severity: 'warning', object, message });
  for (const { kind, namespace, name, problems: own } of seen.proxies) {
    for (const message of own) problems.push({ severity: 'error', object: `${kind} ${namespace}/${name}`, message });
  }
  const certificates = certificateStatus(seen, problems);
  return {
    healthy: !problems.some(({ severity }) => severity === 'error'),
    controlPlane,
    nodes,
    namespaces,
    waypoints: seen.gateways.filter(isWaypoint).map((gateway) => waypointStatus(gateway, problems)),
    certificates,
    refusals: recentRefusals(seen),
    problems,
  };
}

function controlPlaneStatus(seen: Observations, problems: Problem[]): { ready: number; wanted: number } {
  const istiod = seen.deployments.find((deployment) => deployment.metadata.name === 'istiod');
  if (!istiod) {
    problems.push({
      severity: 'error',
      object: `Deployment ${seen.systemNamespace}/istiod`,
      message: 'is not there: the mesh is not installed in this namespace',
    });
    return { ready: 0, wanted: 0 };
  }
  const ready = numberIn(istiod.status, 'readyReplicas');
  const wanted = numberIn(istiod.spec, 'replicas', 1);
  if (ready < wanted) {
    const severity = ready === 0 ? 'error' : 'warning';
    problems.push({
      severity,
      object: `Deployment ${seen.systemNamespace}/istiod`,
      message: `${ready} of ${plural(wanted, 'replica')} ready; proxies keep what they know`,
    });
  }
  return { ready, wanted };
}

function nodeStatus(seen: Observations, node: string, problems: Problem[]): NodeStatus {
  const ztunnel = daemonPod(seen, node, 'ztunnel', problems);
  const agent = daemonPod(seen, node, AGENT, problems);
  const name = ztunnel?.metadata.name ?? '';
  const sync = seen.syncz.find(({ proxy }) => proxy === `${name}.${seen.systemNamespace}`);
  const synced = sync !== undefined && isSynced(sync);
  if (ztunnel && !sync && seen.syncz.length > 0) {
    problems.push({
      severity: 'error',
      object: `ztunnel ${name}`,
      message: `(node ${node}) is not connected to istiod; it keeps what it knew`,
    });
  }
  for (const [type, { lastError }] of Object.entries(sync?.resources ?? {})) {
    if (lastError)
      problems.push({ severity: 'error', object: `ztunnel ${name}`, message: `rejected ${type.split('.').at(-1)}: ${lastError}` });
  }
  return {
    node,
    ztunnel: name === '' ? 'absent' : name,
    version: sync?.istio_version ?? '',
    synced,
    agent: agent?.metadata.name ?? 'absent',
    podsEnrolled: enrolledPods(seen.pods).filter((pod) => podSpec(pod).nodeName === node).length,
  };
}

function daemonPod(seen: Observations, node: string, app: string, problems: Problem[]): KubeObject | undefined {
  const set = `DaemonSet ${seen.systemNamespace}/${app}`;
  const pods = seen.pods.filter(
    (pod) => pod.metadata.namespace === seen.systemNamespace && pod.metadata.labels?.app === app && podSpec(pod).nodeName === node,
  );
  const pod = pods.find(isReady) ?? pods[0];
  if (!seen.daemonSets.some(({ metadata }) => metadata.name === app)) {
    if (!problems.some(({ object }) => object === set)) problems.push({ severity: 'error', object: set, message: 'is not there' });
  } else if (!pod) problems.push({ severity: 'error', object: set, message: `has no pod on node ${node}` });
  else if (!isReady(pod))
    problems.push({
      severity: 'error',
      object: `pod ${seen.systemNamespace}/${pod.metadata.name}`,
      message: `(node ${node}) is not ready: ${whyNotReady(pod)}`,
    });
  return pod;
}

function enrolmentProblems(seen: Observations, problems: Problem[]): void {
  const namespaces = new Map(seen.namespaces.map((namespace) => [namespace.metadata.name, namespace]));
  for (const object of [...seen.namespaces, ...seen.pods]) {
    const mode = object.metadata.labels?.[DATAPLANE_MODE];
    if (mode !== undefined && mode !== 'ambient' && mode !== 'none') {
      problems.push({
        severity: 'warning',
        object: nameOf(object),
        message: `label ${DATAPLANE_MODE}=${mode} means nothing; it takes ambient or none`,
      });
    }
  }
  for (const pod of seen.pods.filter((one) => isCandidate(one) && !isBypassed(one))) {
    const state = pod.metadata.annotations?.[REDIRECTION];
    const wanted = isWanted(pod, namespaces.get(pod.metadata.namespace)) && pod.metadata.namespace !== 'kube-system';
    const said = pod.metadata.annotations?.[ENROLMENT_PROBLEM];
    const why = said === undefined ? '' : `: ${said}`;
    if (wanted && state === 'pending') {
      problems.push({
        severity: 'error',
        object: nameOf(pod),
        message: `is redirected but no ztunnel has taken it: it has no network until ztunnel on ${podSpec(pod).nodeName} is ready${why}`,
      });
    } else if (wanted && state !== 'enabled' && podPhase(pod) === 'Running') {
      problems.push({
        severity: 'error',
        object: nameOf(pod),
        message: `should be in the mesh and is not; the node agent on ${podSpec(pod).nodeName} has not enrolled it${why || ' (its events say why)'}`,
      });
    } else if (!wanted && state === 'enabled') {
      problems.push({ severity: 'warning', object: nameOf(pod), message: 'is in the mesh although no label asks for it any more' });
    } else if (said !== undefined) {
      problems.push({ severity: 'warning', object: nameOf(pod), message: `is in the mesh, and something is not right${why}` });
    }
    const outside = Number(pod.metadata.annotations?.[CONNECTIONS_OUTSIDE] ?? 0);
    if (outside > 0) {
      problems.push({
        severity: 'warning',
        object: nameOf(pod),
        message: `has ${plural(outside, 'connection')} from before it joined the mesh, in plaintext and past every policy until they end (annotation warren.dev/open-connections: drain=30s ends them)`,
      });
    }
  }
}

/** While an upgrade is under way that is as it should be; when it has stopped half-way, nothing else would show it. */
function agentVersionProblems(seen: Observations): Problem[] {
  const nodesOf = new Map<string, string[]>();
  for (const pod of seen.pods) {
    if (pod.metadata.namespace !== seen.systemNamespace || pod.metadata.labels?.app !== AGENT) continue;
    const image = (pod.spec as { containers?: { image?: string }[] } | undefined)?.containers?.[0]?.image ?? 'unknown';
    nodesOf.set(image, [...(nodesOf.get(image) ?? []), podSpec(pod).nodeName ?? '']);
  }
  if (nodesOf.size < 2) return [];
  const parts = [...nodesOf].map(([image, nodes]) => `${image} on ${nodes.length > 3 ? plural(nodes.length, 'node') : nodes.join(', ')}`);
  const message = `runs in several versions: ${parts.join('; ')}`;
  return [{ severity: 'warning', object: `DaemonSet ${seen.systemNamespace}/${AGENT}`, message }];
}

function namespaceStatus(seen: Observations): { namespace: string; podsEnrolled: number; pods: number }[] {
  return seen.namespaces.flatMap(({ metadata: { name = '', labels } }) => {
    const candidates = seen.pods.filter((pod) => pod.metadata.namespace === name && isCandidate(pod));
    const podsEnrolled = enrolledPods(candidates).length;
    // A waypoint's pods, and whatever else says no by its own label, are not missing.
    const pods = candidates.filter((pod) => enrolledPods([pod]).length > 0 || isWanted(pod, { metadata: { labels: labels ?? {} } }));
    return labels?.[DATAPLANE_MODE] === 'ambient' || podsEnrolled > 0 ? [{ namespace: name, podsEnrolled, pods: pods.length }] : [];
  });
}

function serviceProblems(seen: Observations, problems: Problem[]): void {
  const meshed = new Set(
    seen.namespaces.filter(({ metadata }) => metadata.labels?.[DATAPLANE_MODE] === 'ambient').map(({ metadata }) => metadata.name),
  );
  for (const service of seen.services.filter(({ metadata }) => meshed.has(metadata.namespace))) {
    const selector = (service.spec as { selector?: Record<string, string> } | undefined)?.selector;
    if (!selector || Object.keys(selector).length === 0) continue;
    const matches = (pod: KubeObject): boolean => Object.entries(selector).every(([key, value]) => pod.metadata.labels?.[key] === value);
    if (!seen.pods.some((pod) => pod.metadata.namespace === service.metadata.namespace && matches(pod))) {
      problems.push({
        severity: 'warning',
        object: nameOf(service),
        message: `selects no pod (${Object.entries(selector)
          .map((pair) => pair.join('='))
          .join(',')}): every connection to it is refused`,
      });
    }
  }
}

/** What istiod wrote into the status of policies: refused, or enforced only in part. */
function policyProblems(seen: Observations): Problem[] {
  return seen.policies.flatMap((policy) =>
    conditionsOf(policy).flatMap((condition): Problem[] => {
      if (!/Accepted$/.test(condition.type ?? '')) return [];
      const message = `${condition.reason}: ${condition.message}`;
      if (condition.status === 'False') return [{ severity: 'error', object: nameOf(policy), message: `is not enforced, ${message}` }];
      return condition.reason === 'Accepted'
        ? []
        : [{ severity: 'warning', object: nameOf(policy), message: `is enforced in part, ${message}` }];
    }),
  );
}

function waypointStatus(gateway: KubeObject, problems: Problem[]): { waypoint: string; programmed: boolean; address: string } {
  const addresses = (gateway.status as { addresses?: { value?: string }[] } | undefined)?.addresses ?? [];
  const programmed = conditionsOf(gateway).some(({ type, status }) => type === 'Programmed' && status === 'True');
  if (!programmed)
    problems.push({ severity: 'error', object: nameOf(gateway), message: 'is not programmed: what is bound to it is refused' });
  return { waypoint: `${gateway.metadata.namespace}/${gateway.metadata.name}`, programmed, address: addresses[0]?.value ?? '' };
}

function certificateStatus(seen: Observations, problems: Problem[]): { count: number; soonestExpiry: string | undefined } {
  const expiries = seen.proxies.flatMap(({ soonestExpiry }) => (soonestExpiry === 0 ? [] : [soonestExpiry * 1000]));
  const soonest = expiries.length > 0 ? Math.min(...expiries) : undefined;
  if (soonest !== undefined && soonest - seen.nowMs < EXPIRY_WARNING_MS) {
    problems.push({
      severity: soonest < seen.nowMs ? 'error' : 'warning',
      object: 'certificates',
      message: `the first expires ${new Date(soonest).toISOString()}: renewal is not working`,
    });
  }
  return {
    count: seen.proxies.reduce((sum, proxy) => sum + proxy.certificates, 0),
    soonestExpiry: soonest === undefined ? undefined : new Date(soonest).toISOString(),
  };
}

/** Services whose pods somebody dials at their own addresses, past the waypoint, which nothing forbids. */
function passedWaypoints({ proxies, nowMs }: Observations): Problem[] {
  const recent = proxies
    .flatMap(({ refusals }) => refusals)
    .filter((seen) => seen.letThrough === true && nowMs - seen.timeMs <= REFUSALS_SHOWN_MS);
  return callersByService(recent).map(({ service, count, callers }) => ({
    severity: 'warning',
    object: `Service ${service}`,
    message: `${plural(count, 'connection')} passed its waypoint by, from ${callers}: the pods were dialled by address; warren.dev/require-waypoint refuses that`,
  }));
}

const MAX_CALLERS = 5;

/** For each service that is passed by: how often, and by whom. */
export function callersByService(
  passed: readonly Pick<RefusalSeen, 'destination' | 'source' | 'count'>[],
): { service: string; count: number; callers: string }[] {
  const services = new Map<string, { count: number; callers: Set<string> }>();
  for (const { destination, source, count } of passed) {
    const known = services.get(destination) ?? { count: 0, callers: new Set() };
    services.set(destination, { count: known.count + count, callers: known.callers.add(source) });
  }
  return [...services]
    .map(([service, { count, callers }]) => {
      const named = [...callers].sort().slice(0, MAX_CALLERS).join(', ');
      return { service, count, callers: callers.size > MAX_CALLERS ? `${named} and ${callers.size - MAX_CALLERS} more` : named };
    })
    .sort((a, b) => (a.service < b.service ? -1 : 1));
}

/** Equal ones of several proxies and reports together, the newest first. */
function recentRefusals(seen: Observations): RefusalSeen[] {
  const kinds = new Map<string, RefusalSeen>();
  for (const refusal of seen.proxies.flatMap(({ refusals }) => refusals)) {
    if (refusal.letThrough === true || seen.nowMs - refusal.timeMs > REFUSALS_SHOWN_MS) continue;
    const key = [refusal.code, refusal.policy, refusal.source, refusal.destination].join(' ');
    const known = kinds.get(key);
    const newest = known && known.timeMs > refusal.timeMs ? known : refusal;
    kinds.set(key, { ...newest, count: refusal.count + (known?.count ?? 0) });
  }
  return [...kinds.values()].sort((a, b) => b.timeMs - a.timeMs).slice(0, MAX_REFUSALS_SHOWN);
}

export interface Condition {
  readonly type?: string;
  readonly status?: string;
  readonly reason?: string;
  readonly message?: string;
}

export const conditionsOf = (object: KubeObject): readonly Condition[] =>
  (object.status as { conditions?: Condition[] } | undefined)?.conditions ?? [];
const isReady = (pod: KubeObject): boolean => conditionsOf(pod).some(({ type, status }) => type === 'Ready' && status === 'True');
const isWaypoint = (gateway: KubeObject): boolean =>
  (gateway.spec as { gatewayClassName?: string } | undefined)?.gatewayClassName === 'istio-waypoint';
const nameOf = ({ kind, metadata }: KubeObject): string =>
  `${kind ?? 'object'} ${metadata.namespace ? `${metadata.namespace}/` : ''}${metadata.name}`;

function whyNotReady(pod: KubeObject): string {
  const status = pod.status as { containerStatuses?: { state?: { waiting?: { reason?: string; message?: string } } }[] } | undefined;
  const waiting = status?.containerStatuses?.map(({ state }) => state?.waiting).find((state) => state !== undefined);
  return waiting ? [waiting.reason, waiting.message].filter(Boolean).join(': ') : `phase ${podPhase(pod)}`;
}

/** Everything that was sent has been acknowledged, and something was sent for each type. */
const isSynced = ({ resources = {} }: ProxySync): boolean => {
  const types = Object.values(resources);
  return types.length > 0 && types.every(({ sent, acked }) => sent !== undefined && sent !== '' && sent === acked);
};

function numberIn(object: unknown, field: string, fallback = 0): number {
  const value = (object as Record<string, unknown> | undefined)?.[field];
  return typeof value === 'number' ? value : fallback;
}
