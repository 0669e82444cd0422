/**
 * EndpointSlice → workloads for endpoints that are no pods (Istio, pilot/pkg/serviceregistry/ambient), and the pods that a Service without a selector
 * names through it. Pods take their health from themselves, so a slice's conditions count for the others only.
 */
import { ipBytes } from '../../common/base/address.ts';
import { NetworkMode, type Workload, WorkloadStatus, WorkloadType } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig } from './config.ts';
import { type MeshService, type NamedPorts, portsOnSlice } from './mesh-service.ts';
import * as names from './names.ts';
import { at, objectKey, portOf, quote, type Report, readMeta, records, text, texts } from './objects.ts';
import { ALONE, blankWorkload, servicePorts } from './workload.ts';

export interface EndpointSlice {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  /** `namespace/name` of the Service. */
  readonly service: string;
  /** Port names are those of the Service's ports; TCP only. */
  readonly ports: NamedPorts;
  readonly endpoints: readonly SliceEndpoint[];
  readonly pods: readonly PodReference[];
}

export interface SliceEndpoint {
  readonly ip: string;
  readonly addresses: readonly Uint8Array[];
  readonly ready: boolean;
}

export interface PodReference {
  /** `namespace/name` */
  readonly key: string;
  /** Empty where the slice does not say. */
  readonly uid: string;
}

/** @returns undefined for slices of no Service and for those that list names instead of addresses */
export function readEndpointSlice(object: unknown, report: Report): EndpointSlice | undefined {
  const meta = readMeta(object);
  const service = meta?.labels[names.SERVICE_NAME];
  if (!meta || !service || at(object, 'addressType') === 'FQDN') return undefined;
  const endpoints = new Map<string, SliceEndpoint>();
  const pods: PodReference[] = [];
  for (const endpoint of records(at(object, 'endpoints'))) {
    if (at(endpoint, 'targetRef', 'kind') === 'Pod') {
      const namespace = text(at(endpoint, 'targetRef', 'namespace')) || meta.namespace;
      pods.push({ key: `${namespace}/${text(at(endpoint, 'targetRef', 'name'))}`, uid: text(at(endpoint, 'targetRef', 'uid')) });
      continue;
    }
    const read = sliceEndpoint(endpoint, report);
    // The address is part of the workload's name, so it must not come twice.
    if (read && !endpoints.has(read.ip)) endpoints.set(read.ip, read);
  }
  return {
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    service: `${meta.namespace}/${service}`,
    ports: slicePorts(object, report),
    endpoints: [...endpoints.values()],
    pods,
  };
}

const sliceEndpointUid = (config: MeshModelConfig, slice: EndpointSlice, endpoint: SliceEndpoint): string =>
  `${config.clusterId}/discovery.k8s.io/EndpointSlice/${slice.key}/${endpoint.ip}`;

export function sliceWorkload(config: MeshModelConfig, slice: EndpointSlice, endpoint: SliceEndpoint, service: MeshService): Workload {
  return {
    ...blankWorkload(config, ALONE),
    uid: sliceEndpointUid(config, slice, endpoint),
    name: slice.name,
    namespace: slice.namespace,
    addresses: [...endpoint.addresses],
    workloadType: WorkloadType.DEPLOYMENT,
    status: endpoint.ready ? WorkloadStatus.HEALTHY : WorkloadStatus.UNHEALTHY,
    services: servicePorts([service], (it) => portsOnSlice(it, slice.ports)),
    // Nobody knows what is behind the address, or how many share it; ztunnel must not take it for a pod.
    networkMode: NetworkMode.HOST_NETWORK,
  };
}

function sliceEndpoint(endpoint: Record<string, unknown>, report: Report): SliceEndpoint | undefined {
  const written = texts(endpoint.addresses);
  const addresses = written.flatMap((ip) => {
    const bytes = ipBytes(ip);
    if (!bytes) report(`endpoints: ${quote(ip)} is no address`);
    return bytes ? [bytes] : [];
  });
  if (addresses.length === 0) return undefined;
  const ready = at(endpoint, 'conditions', 'ready');
  return { ip: written[0] ?? '', addresses, ready: ready === undefined || ready === null || ready === true };
}

function slicePorts(object: unknown, report: Report): NamedPorts {
  const ports = new Map<string, number>();
  for (const port of records(at(object, 'ports'))) {
    if ((port.protocol ?? 'TCP') !== 'TCP' || port.port === undefined || port.port === null) continue;
    const number = portOf(port.port);
    if (number === undefined) report(`ports: ${quote(port.port)} is no port`);
    else ports.set(text(port.name), number);
  }
  return ports;
}
