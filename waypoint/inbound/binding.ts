/**
 * What a CONNECT to a waypoint asks for, and whether that is bound to this waypoint. Anything else is refused: a waypoint that forwarded
 * what it is not in front of would be a way around other people's policies. Pure.
 */
import { type IpAddress, parsePort, parseSocketAddress } from '../../common/base/address.ts';
import type { OutcomeCode } from '../../common/base/errors.ts';
import { isGateway } from '../../common/decision/gateway.ts';
import type { GatewayAddress, MeshView, Service, Workload } from '../../common/decision/mesh-view.ts';

/** This waypoint, as others name it. */
export interface WaypointName {
  readonly namespace: string;
  /** Of its Service, without the cluster's domain: `waypoint.shop.svc`. */
  readonly host: string;
  /** The pod that we run in; undefined where the mesh does not know it (yet). */
  readonly self: Workload | undefined;
}

export type Binding =
  | { readonly service: Service; readonly port: number; readonly ip: IpAddress | undefined }
  | { readonly workload: Workload; readonly port: number; readonly ip: IpAddress }
  | { readonly refuse: OutcomeCode; readonly message: string };

export interface BindingRequest {
  readonly waypoint: WaypointName;
  /** The network that we are in. */
  readonly network: string;
  /** `VIP:port`, `hostname:port` or `podIP:port`. */
  readonly authority: string;
  /** Of the caller: where services of several namespaces claim one address, its own one is meant. */
  readonly callerNamespace: string | undefined;
}

export function resolveBinding(view: MeshView, request: BindingRequest): Binding {
  const { authority, network } = request;
  const address = parseSocketAddress(authority);
  if (address) {
    const services = view.servicesByAddress(network, address.ip);
    if (services.length > 0) return serviceOf(view, request, services, address.port, address.ip);
    const workload = view.workloadByAddress(network, address.ip);
    if (!workload) return unknown(authority);
    if (isBound(view, request.waypoint, workload.waypoint)) return { workload, port: address.port, ip: address.ip };
    return notBound(request.waypoint, workload.uid);
  }
  const colon = authority.lastIndexOf(':');
  const port = colon < 1 ? undefined : parsePort(authority.slice(colon + 1));
  if (port === undefined) return { refuse: 'BAD_REQUEST', message: `expected host:port, got ${JSON.stringify(authority.slice(0, 300))}` };
  const services = view.servicesByHostname(authority.slice(0, colon).toLowerCase());
  return services.length > 0 ? serviceOf(view, request, services, port, undefined) : unknown(authority);
}

/** Whether the gateway that something is bound to is this waypoint. */
export function isBound(view: MeshView, { namespace, host, self }: WaypointName, gateway: GatewayAddress | undefined): boolean {
  if (!gateway) return false;
  const { destination } = gateway;
  if ('hostname' in destination && destination.namespace === namespace) {
    if (destination.hostname === host || destination.hostname.startsWith(`${host}.`)) return true;
  }
  return self !== undefined && isGateway(view, gateway, self);
}

function serviceOf(
  view: MeshView,
  { waypoint, callerNamespace }: BindingRequest,
  services: readonly Service[],
  port: number,
  ip: IpAddress | undefined,
): Binding {
  const bound = services.filter(
    (service) =>
      isBound(view, waypoint, service.waypoint) || service.weightedWaypoints.some(({ gateway }) => isBound(view, waypoint, gateway)),
  );
  const service =
    bound.find(({ namespace }) => namespace === callerNamespace) ??
    bound.find(({ canonical }) => canonical) ??
    bound.find(({ namespace }) => namespace === waypoint.namespace) ??
    bound[0];
  if (!service) return notBound(waypoint, services.map(({ namespace, hostname }) => `${namespace}/${hostname}`).join(', '));
  if (service.ports.has(port)) return { service, port, ip };
  return { refuse: 'SERVICE_UNKNOWN', message: `${service.namespace}/${service.hostname} has no port ${port}` };
}

const unknown = (authority: string): Binding => ({
  refuse: 'WAYPOINT_NOT_BOUND',
  message: `${authority.slice(0, 300)} is no service and no pod that this waypoint knows`,
});

const notBound = ({ namespace, host }: WaypointName, what: string): Binding => ({
  refuse: 'WAYPOINT_NOT_BOUND',
  message: `${what} is not bound to waypoint ${namespace}/${host}`,
});
