/**
 * From a gateway's address (a waypoint's, or that of another network's entrance) to something that can be dialled
 * (Istio's ztunnel, src/state.rs), and back: whether a workload is such a gateway.
 */
import type { IpAddress, SocketAddress } from '../base/address.ts';
import { formatSocketAddress } from '../base/address.ts';
import { chooseServiceByAddress } from './choose-service.ts';
import { type LoadBalanceRequest, loadBalance, type Upstream } from './load-balance.ts';
import { type GatewayAddress, type MeshView, serviceKey, type Workload } from './mesh-view.ts';

/** A gateway's pod that can be dialled. */
export interface ResolvedGateway {
  readonly upstream: Upstream;
  /** What the choice among the gateway's addresses follows: its own address, or the original destination where it is named by hostname. */
  readonly address: IpAddress;
}

/** @returns undefined where nothing of that name is known, or nothing of it is healthy */
export function resolveGateway(
  view: MeshView,
  gateway: GatewayAddress,
  original: SocketAddress,
  request: Omit<LoadBalanceRequest, 'port'>,
): ResolvedGateway | undefined {
  const { destination, hbonePort: port } = gateway;
  const balanced = { ...request, port };
  if ('address' in destination) {
    const { network, ip } = destination.address;
    const service = chooseServiceByAddress(view, network, ip, request.source.namespace);
    if (service) return withAddress(loadBalance(view, service, balanced), ip);
    return withAddress(alone(view.workloadByAddress(network, ip), port), ip);
  }
  const service = view.serviceByKey(destination.namespace, destination.hostname);
  if (service) return withAddress(loadBalance(view, service, balanced), original.ip);
  return withAddress(alone(view.workloadByHostname(destination.namespace, destination.hostname), port), original.ip);
}

/** Whether the workload serves as this gateway: owns its address, or belongs to its service, healthy or not. */
export function isGateway(
  view: Pick<MeshView, 'workloadByHostname' | 'servicesByAddress'>,
  gateway: GatewayAddress,
  workload: Workload,
): boolean {
  const { destination } = gateway;
  if ('hostname' in destination) {
    return (
      workload.services.has(serviceKey(destination)) ||
      view.workloadByHostname(destination.namespace, destination.hostname)?.uid === workload.uid
    );
  }
  const { network, ip } = destination.address;
  if (workload.network === network && workload.addresses.includes(ip)) return true;
  return view.servicesByAddress(network, ip).some((service) => workload.services.has(serviceKey(service)));
}

/** `namespace/hostname` or `10.0.0.1:15008`, as messages name a gateway. */
export function describeGateway({ destination, hbonePort }: GatewayAddress): string {
  return 'hostname' in destination
    ? `${destination.namespace}/${destination.hostname}`
    : formatSocketAddress({ ip: destination.address.ip, port: hbonePort });
}

const alone = (workload: Workload | undefined, port: number): Upstream | undefined => workload && { workload, port, service: undefined };

const withAddress = (upstream: Upstream | undefined, address: IpAddress): ResolvedGateway | undefined => upstream && { upstream, address };
