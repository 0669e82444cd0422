/**
 * A pod whose service has a waypoint can be dialled at its own address, past that waypoint and all that it enforces. Who does so is told, and
 * refused where the pod asks for it (`warren.dev/require-waypoint`). Pure, and asked for each connection that reaches a pod.
 */
import type { SocketAddress } from '../base/address.ts';
import { formatSpiffeId, type SpiffeId } from '../base/spiffe.ts';
import { describeGateway, isGateway } from './gateway.ts';
import type { GatewayAddress, MeshView, Service, Workload } from './mesh-view.ts';

/** A connection as it reached the pod. */
export interface Arrival {
  /** Address of the TCP peer. */
  readonly source: SocketAddress;
  /** From the peer's certificate; undefined for plaintext. */
  readonly identity: SpiffeId | undefined;
  readonly destination: SocketAddress;
}

/** Of a mesh, what is looked up in to tell. */
export type BypassView = Pick<MeshView, 'serviceByKey' | 'workloadByAddress' | 'workloadByHostname' | 'servicesByAddress'>;

/** What a connection passes by: all the services that the port serves and that have a waypoint, none where it is no service's. */
export interface WaypointBypass {
  readonly services: readonly Service[];
  /** What messages call the waypoint; undefined where the pod asks for one and none is named. */
  readonly waypoint: string | undefined;
}

/**
 * @returns what the connection passes by: a waypoint of the services that serve the port, or, of a port that is no service's, of any of the
 *   pod's; undefined for a connection that comes from such a waypoint, or that passes none by
 */
export function waypointBypass(view: BypassView, local: Workload, { source, identity, destination }: Arrival): WaypointBypass | undefined {
  if (local.services.size === 0 && !local.waypoint && !local.requireWaypoint) return undefined;
  const { own, serving } = servicesOf(view, local, destination.port);
  const counting = serving.length > 0 ? serving : own;
  const gateways = [...(local.waypoint ? [local.waypoint] : []), ...counting.flatMap(waypointsOf)];
  const [first] = gateways;
  if (!first) {
    // A service without a waypoint is meant to be dialled; a pod that asks for one itself and has none has nobody to be dialled by.
    return serving.length === 0 && local.requireWaypoint?.always ? { services: [], waypoint: undefined } : undefined;
  }
  const caller = identity && view.workloadByAddress(local.network, source.ip);
  // Identity and address both: a pod that merely shares the waypoint's service account is not the waypoint.
  const proved = caller !== undefined && identity !== undefined && formatSpiffeId(caller) === formatSpiffeId(identity);
  if (proved && gateways.some((gateway) => isGateway(view, gateway, caller))) return undefined;
  return { services: serving.filter((service) => waypointsOf(service).length > 0), waypoint: describeGateway(first) };
}

/** Whether the pod refuses what passes its waypoint by on this port. */
export const refusesBypass = ({ requireWaypoint }: Workload, port: number): boolean =>
  requireWaypoint !== undefined && !requireWaypoint.exceptPorts.includes(port);

function servicesOf(view: BypassView, local: Workload, port: number): { own: Service[]; serving: Service[] } {
  const own: Service[] = [];
  const serving: Service[] = [];
  for (const [key, ports] of local.services) {
    const slash = key.indexOf('/');
    const service = view.serviceByKey(key.slice(0, slash), key.slice(slash + 1));
    if (!service) continue;
    own.push(service);
    for (const target of ports.values()) {
      if (target !== port) continue;
      serving.push(service);
      break;
    }
  }
  return { own, serving };
}

const waypointsOf = ({ waypoint, weightedWaypoints }: Service): GatewayAddress[] => [
  ...(waypoint ? [waypoint] : []),
  ...weightedWaypoints.map(({ gateway }) => gateway),
];
