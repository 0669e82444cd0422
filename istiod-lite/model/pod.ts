/** Pod → Workload (Istio, pilot/pkg/serviceregistry/ambient). Only what the translation reads of a pod is kept. */

import { type IpAddress, ipBytes, parseIp } from '../../common/base/address.ts';
import { type Locality, NetworkMode, TunnelProtocol, type Workload, WorkloadStatus } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig } from './config.ts';
import { checkEnrolment } from './enrolment.ts';
import { portsOnPod } from './mesh-service.ts';
import * as names from './names.ts';
import { at, type Labels, objectKey, portOf, quote, type Report, readMeta, records, text } from './objects.ts';
import { readWaypointWords, type WaypointWords } from './required-waypoint.ts';
import { blankWorkload, endsTunnels, type Surroundings, servicePorts } from './workload.ts';
import { canonicalName, canonicalRevision, controllerName } from './workload-name.ts';

export interface Pod {
  /** `namespace/name` */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly labels: Labels;
  /** Text, as it is a fifth of what a buffer takes, for each of 100,000 pods. */
  readonly addresses: readonly IpAddress[];
  readonly node: string;
  readonly serviceAccount: string;
  readonly healthy: boolean;
  readonly hostNetwork: boolean;
  /** The node agent has put the pod into the mesh. */
  readonly redirected: boolean;
  readonly workloadName: string;
  readonly namedPorts: ReadonlyMap<string, number>;
  /** Absent where it says nothing of waypoints. */
  readonly waypointWords?: WaypointWords;
}

/** @returns undefined for what is no workload: a finished pod, or one without an address */
export function readPod(object: unknown, report: Report): Pod | undefined {
  const meta = readMeta(object);
  const phase = at(object, 'status', 'phase');
  if (!meta || phase === 'Succeeded' || phase === 'Failed') return undefined;
  const addresses = podAddresses(object, report);
  if (addresses.length === 0) return undefined;
  checkEnrolment(meta.labels, report);
  const words = readWaypointWords(meta.annotations, report);
  const deleted = at(object, 'metadata', 'deletionTimestamp') !== undefined && at(object, 'metadata', 'deletionTimestamp') !== null;
  return {
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    uid: meta.uid,
    labels: meta.labels,
    addresses,
    node: text(at(object, 'spec', 'nodeName')),
    serviceAccount: text(at(object, 'spec', 'serviceAccountName')),
    healthy: !deleted && isReady(object),
    hostNetwork: at(object, 'spec', 'hostNetwork') === true,
    redirected: meta.annotations[names.REDIRECTION] === 'enabled',
    workloadName: controllerName(object, meta),
    namedPorts: containerPorts(object),
    ...(words.required !== undefined || words.exceptPorts.length > 0 ? { waypointWords: words } : {}),
  };
}

export const podUid = (config: MeshModelConfig, pod: { namespace: string; name: string }): string =>
  `${config.clusterId}//Pod/${pod.namespace}/${pod.name}`;

export function podWorkload(config: MeshModelConfig, pod: Pod, locality: Locality | undefined, around: Surroundings): Workload {
  const native = endsTunnels(pod.labels);
  return {
    ...blankWorkload(config, around),
    uid: podUid(config, pod),
    name: pod.name,
    namespace: pod.namespace,
    addresses: pod.addresses.flatMap((ip) => ipBytes(ip) ?? []),
    tunnelProtocol: native || pod.redirected ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    nativeTunnel: native,
    serviceAccount: pod.serviceAccount,
    node: pod.node,
    canonicalName: canonicalName(pod.labels, pod.workloadName),
    canonicalRevision: canonicalRevision(pod.labels),
    workloadName: pod.workloadName,
    status: pod.healthy ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
    services: servicePorts(around.services, (service) => portsOnPod(service, pod.namedPorts)),
    locality,
    networkMode: pod.hostNetwork ? NetworkMode.HOST_NETWORK : NetworkMode.STANDARD,
  };
}

function podAddresses(object: unknown, report: Report): IpAddress[] {
  const listed = records(at(object, 'status', 'podIPs')).map(({ ip }) => text(ip));
  const written = listed.length > 0 ? listed : [text(at(object, 'status', 'podIP'))];
  return written.flatMap((ip) => {
    if (ip === '') return [];
    const address = parseIp(ip);
    if (!address) report(`status.podIPs: ${quote(ip)} is no address`);
    return address ? [address] : [];
  });
}

const isReady = (object: unknown): boolean =>
  records(at(object, 'status', 'conditions')).some(({ type, status }) => type === 'Ready' && status === 'True');

const NO_PORTS: ReadonlyMap<string, number> = new Map();

/** Sidecar containers, which are init containers that restart, serve for as long as the pod does. */
function containerPorts(object: unknown): ReadonlyMap<string, number> {
  const sidecars = records(at(object, 'spec', 'initContainers')).filter(({ restartPolicy }) => restartPolicy === 'Always');
  const ports = new Map<string, number>();
  for (const container of [...records(at(object, 'spec', 'containers')), ...sidecars]) {
    for (const port of records(container.ports)) {
      const number = portOf(port.containerPort);
      const name = text(port.name);
      if (name !== '' && number !== undefined && (port.protocol ?? 'TCP') === 'TCP' && !ports.has(name)) ports.set(name, number);
    }
  }
  return ports.size === 0 ? NO_PORTS : ports;
}
