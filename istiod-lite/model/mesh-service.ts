/**
 * A service of the mesh, whether a Kubernetes Service or one host of a ServiceEntry made it, and what becomes of its ports on each
 * kind of endpoint.
 */
import type { AppProtocol, IPFamilies, LoadBalancing, NetworkAddress, Port, Service_Visibility } from '../../common/codec/gen/workload.ts';
import type { Labels } from './objects.ts';

export interface MeshPort {
  readonly port: number;
  readonly name: string;
  /** 0 where each endpoint has its own, by `targetName` or by `name`. */
  readonly target: number;
  readonly targetName: string;
  readonly appProtocol: AppProtocol;
}

export interface MeshService {
  readonly source: 'Service' | 'ServiceEntry';
  /** `namespace/name` of the object that made it. */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly hostname: string;
  readonly createdAt: string;
  /** Picks pods and workload entries of the namespace; undefined where endpoints are listed somewhere else. */
  readonly selector: Labels | undefined;
  readonly ports: readonly MeshPort[];
  readonly addresses: readonly NetworkAddress[];
  /** Where the object leaves no choice; otherwise its distribution counts, or the namespace's. */
  readonly loadBalancing: LoadBalancing | undefined;
  /** The object's own word for distribution; undefined leaves it to the namespace. */
  readonly distribution: string | undefined;
  readonly allowUnhealthy: boolean;
  readonly ipFamilies: IPFamilies;
  readonly subjectAltNames: readonly string[];
  readonly visibility: Service_Visibility;
}

export const serviceKeyOf = (service: MeshService): string => `${service.namespace}/${service.hostname}`;

/** TCP ports that a pod's containers name. */
export type NamedPorts = ReadonlyMap<string, number>;

/** @returns the service's ports on a pod; those whose name no container has are left out, so that ztunnel finds no endpoint there */
export function portsOnPod(service: MeshService, named: NamedPorts): Port[] {
  if (service.source === 'ServiceEntry')
    return service.ports.map((port) => entry(port, named.get(port.name) ?? (port.target || port.port)));
  return resolve(service, (port) => (port.targetName === '' ? port.target : named.get(port.targetName)));
}

/** The ports of a WorkloadEntry or of a ServiceEntry's endpoint, which overrides them by name. */
export function portsOnEntry(service: MeshService, overrides: NamedPorts): Port[] {
  if (service.source === 'ServiceEntry') {
    return service.ports.map((port) => entry(port, overrides.get(port.name) ?? (port.target || port.port)));
  }
  return resolve(service, (port) => (port.targetName === '' ? (overrides.get(port.name) ?? port.target) : overrides.get(port.targetName)));
}

/** The ports of an EndpointSlice, which carry the names of the Service's ports. */
export function portsOnSlice(service: MeshService, slicePorts: NamedPorts): Port[] {
  return resolve(service, (port) => slicePorts.get(port.name));
}

function resolve(service: MeshService, target: (port: MeshPort) => number | undefined): Port[] {
  return service.ports.flatMap((port) => {
    const number = target(port);
    return number === undefined ? [] : [entry(port, number)];
  });
}

// Endpoints carry numbers only; the application protocol is the service's.
const entry = (port: MeshPort, targetPort: number): Port => ({ servicePort: port.port, targetPort, appProtocol: 0 });
