/**
 * Where a connection goes that a pod opened (Istio's ztunnel, src/proxy/outbound.rs): out as it is, to a workload in the clear, through a tunnel to a
 * workload or to a waypoint, through two tunnels into another network, or nowhere. Pure: sockets come later, and `meshctl explain` asks
 * the same function.
 */
import { formatSocketAddress, type IpAddress, isIpv6, type SocketAddress } from '../base/address.ts';
import type { OutcomeCode } from '../base/errors.ts';
import { formatSpiffeId } from '../base/spiffe.ts';
import { chooseServiceByAddress } from './choose-service.ts';
import { describeGateway, isGateway, resolveGateway } from './gateway.ts';
import { type Load, loadBalance, pickWeighted, type Upstream } from './load-balance.ts';
import type { GatewayAddress, MeshView, OutboundTrafficPolicy, Service, Workload } from './mesh-view.ts';
import { HBONE_PORT, isLoopback, OWN_PORTS, SOCKS5_PORT } from './ports.ts';

/** A connection that a pod opened. */
export interface OutboundRequest {
  /** The pod that opened the connection. */
  readonly source: Workload;
  /** The original destination. */
  readonly destination: SocketAddress;
  /** The network that this proxy is in (NETWORK). */
  readonly network: string;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Connections under way through each pod of a gateway (a waypoint, another network's entrance): the least busy one is taken. */
  readonly load?: Load | undefined;
  /** The peer's address, where it is not simply one of the source workload's. */
  readonly sourceIp?: IpAddress;
  /** For sources whose namespace has none of its own; ALLOW_ANY where it is not given. */
  readonly outboundTrafficPolicy?: OutboundTrafficPolicy;
  /** What DNS said about hostnames that an earlier call asked to be resolved. */
  readonly resolved?: ReadonlyMap<string, readonly IpAddress[]>;
}

/** The service and the workload that a route is about, for logs and metrics; absent where it is about none. */
interface Labels {
  /** The service that the client addressed. */
  readonly service?: Service;
  /** Where the connection goes: an endpoint, a waypoint's pod, a gateway's pod. */
  readonly workload?: Workload;
}

/** Exactly one of these; `via` tells which, or `refuse`. */
export type OutboundRoute = Passthrough | Direct | Tunnel | DoubleTunnel | NeedsResolving | Refusal;

/** Not in the mesh's state: dialled as the client meant it. */
export interface Passthrough {
  readonly via: 'passthrough';
  readonly to: SocketAddress;
}

/** Known to the mesh and not in it: plain TCP. */
export interface Direct extends Labels {
  readonly via: 'tcp';
  readonly to: SocketAddress;
  readonly workload: Workload;
}

/** One tunnel, to the workload itself or to a waypoint. */
export interface Tunnel extends Labels {
  readonly via: 'hbone';
  /** Where the tunnel's TLS connection goes. */
  readonly to: SocketAddress;
  /** Of the CONNECT request. */
  readonly authority: string;
  /** SPIFFE URIs, any of which the other end may prove. */
  readonly peers: readonly string[];
  readonly workload: Workload;
  readonly waypoint: boolean;
}

/** A tunnel to another network's gateway, and within it another one to whoever serves there (Istio's ztunnel, src/proxy/outbound.rs). */
export interface DoubleTunnel extends Labels {
  readonly via: 'double-hbone';
  readonly to: SocketAddress;
  /** `hostname:port` of the service, for both CONNECT requests. */
  readonly authority: string;
  /** SPIFFE URIs of the gateway. */
  readonly peers: readonly string[];
  /** SPIFFE URIs of the inner tunnel's end: the service's and no others. */
  readonly innerPeers: readonly string[];
  readonly service: Service;
  /** The gateway's pod. */
  readonly gateway: Workload;
  /** Stands for the remote network's endpoints. */
  readonly workload: Workload;
}

/** The workload is known by hostname only. Ask again with the hostname's addresses in `resolved` (none where it has none). */
export interface NeedsResolving {
  readonly via: 'resolve';
  readonly hostname: string;
}

/** Nothing is dialled; the client's connection is closed. */
export interface Refusal extends Labels {
  readonly refuse: OutcomeCode;
  /** What the access log's `error` field shows. */
  readonly message: string;
}

/** Decides where a connection goes (Istio's ztunnel, src/proxy/outbound.rs). Takes `random` only where something is chosen by weight. */
export function routeOutbound(view: MeshView, request: OutboundRequest): OutboundRoute {
  const { source, destination, network } = request;
  // What goes to loopback is not redirected, so only a SOCKS client can have asked for it.
  if (isLoopback(destination.ip) && (OWN_PORTS.has(destination.port) || destination.port === SOCKS5_PORT)) {
    return { refuse: 'SELF_CALL', message: 'attempted recursive call to ourselves' };
  }
  // A workload's own address wins over a service's, as far as the service's waypoint is concerned; the endpoint is then chosen the other
  // way round. That is what ztunnel does, and an address that is both is a mistake in either reading.
  const owner = view.workloadByAddress(network, destination.ip);
  const addressed = owner ? undefined : chooseServiceByAddress(view, network, destination.ip, source.namespace);
  const waypoint = addressed && serviceWaypoint(addressed, request.random);
  if (addressed && waypoint) return throughWaypoint(view, request, waypoint, { service: addressed });

  const upstream = addressed && network === source.network ? upstreamOf(view, request, addressed) : findUpstream(view, request);
  if (upstream === 'none') {
    if (!addressed && registryOnly(request)) return { refuse: 'NOT_IN_REGISTRY', message: notInRegistry(request) };
    if (!addressed || addressed.loadBalancing.mode === 'PASSTHROUGH') return { via: 'passthrough', to: destination };
    return { refuse: 'NO_HEALTHY_UPSTREAM', message: noHealthyUpstream(destination), service: addressed };
  }
  if ('refuse' in upstream) return upstream;
  if (upstream.workload.network !== source.network) return throughGateway(view, request, upstream.service, upstream.workload);
  if (!upstream.service) {
    const own = workloadWaypoint(view, request, upstream.workload);
    if (own) return throughWaypoint(view, request, own, { workload: upstream.workload });
  }
  return directly(request, upstream);
}

const registryOnly = ({ source, outboundTrafficPolicy }: OutboundRequest): boolean =>
  (source.outboundTrafficPolicy ?? outboundTrafficPolicy) === 'REGISTRY_ONLY';

const notInRegistry = ({ source, destination }: OutboundRequest): string =>
  `${formatSocketAddress(destination)} is no known service, and outboundTrafficPolicy of namespace ${source.namespace} is REGISTRY_ONLY`;

/** All of a workload's SPIFFE identity as certificates carry it. */
export const workloadIdentity = (workload: Workload): string => formatSpiffeId(workload);

/** By weight where the service has weighted waypoints and any of them weighs something; else its one waypoint. */
export function serviceWaypoint(service: Service, random: () => number): GatewayAddress | undefined {
  if (service.weightedWaypoints.length === 0) return service.waypoint;
  return pickWeighted(service.weightedWaypoints, ({ weight }) => weight, random)?.gateway ?? service.waypoint;
}

/** A virtual address first, then a workload's own one. */
function findUpstream(view: MeshView, request: OutboundRequest): Upstream | Refusal | 'none' {
  const { source, destination } = request;
  const service = chooseServiceByAddress(view, source.network, destination.ip, source.namespace);
  if (service) return upstreamOf(view, request, service);
  const workload = view.workloadByAddress(source.network, destination.ip);
  return workload ? { workload, port: destination.port, service: undefined } : 'none';
}

function upstreamOf(view: MeshView, { source, destination, random }: OutboundRequest, service: Service): Upstream | Refusal | 'none' {
  if (service.loadBalancing.mode === 'PASSTHROUGH') return 'none';
  const upstream = loadBalance(view, service, { source, port: destination.port, purpose: 'standard', random });
  return upstream ?? { refuse: 'NO_HEALTHY_UPSTREAM', message: noHealthyUpstream(destination), service };
}

/** The waypoint in front of a workload that is addressed by its own address, unless the caller is that waypoint. */
function workloadWaypoint(view: MeshView, request: OutboundRequest, workload: Workload): GatewayAddress | undefined {
  const { waypoint } = workload;
  return waypoint && !isFromWaypoint(view, request, waypoint) ? waypoint : undefined;
}

// Identity and address both: a pod that merely shares the waypoint's service account must not get around it.
function isFromWaypoint(view: MeshView, { source, sourceIp }: OutboundRequest, waypoint: GatewayAddress): boolean {
  return isGateway(view, waypoint, source) && (sourceIp === undefined || source.addresses.includes(sourceIp));
}

function throughWaypoint(
  view: MeshView,
  request: OutboundRequest,
  waypoint: GatewayAddress,
  labels: Labels,
): Tunnel | DoubleTunnel | NeedsResolving | Refusal {
  const { source, destination, random, load } = request;
  const found = resolveGateway(view, waypoint, destination, { source, purpose: 'waypoint', random, load });
  if (!found) {
    const message = `waypoint ${describeGateway(waypoint)} is not there or has no healthy endpoint`;
    return { refuse: 'WAYPOINT_ABSENT', message, ...labels };
  }
  const { upstream } = found;
  const { service } = labels;
  if (service && upstream.workload.network !== source.network) return throughGateway(view, request, service, upstream.workload);
  const ip = addressOf(upstream, found.address, request.resolved);
  if (typeof ip !== 'string') return ip ?? { refuse: 'WAYPOINT_ABSENT', message: noAddress(upstream.workload), ...labels };
  return {
    via: 'hbone',
    to: { ip, port: upstream.port },
    authority: formatSocketAddress(destination),
    peers: peersOf(upstream),
    ...labels,
    workload: upstream.workload,
    waypoint: true,
  };
}

function throughGateway(
  view: MeshView,
  request: OutboundRequest,
  service: Service | undefined,
  remote: Workload,
): DoubleTunnel | NeedsResolving | Refusal {
  const { source, destination, random, load } = request;
  const labels = { ...(service && { service }), workload: remote };
  if (!service) {
    return {
      refuse: 'NO_ROUTE',
      message: `${remote.uid} is in network "${remote.network}" and can only be reached by a service`,
      ...labels,
    };
  }
  if (!remote.networkGateway) {
    return { refuse: 'NO_ROUTE', message: `no valid routing destination: network "${remote.network}" has no gateway`, ...labels };
  }
  const found = resolveGateway(view, remote.networkGateway, destination, { source, purpose: 'standard', random, load });
  if (!found) {
    const message = `no valid routing destination: gateway ${describeGateway(remote.networkGateway)} is unknown or has no healthy endpoint`;
    return { refuse: 'NO_ROUTE', message, ...labels };
  }
  const ip = addressOf(found.upstream, found.address, request.resolved);
  if (typeof ip !== 'string') return ip ?? { refuse: 'NO_ROUTE', message: noAddress(found.upstream.workload), ...labels };
  return {
    via: 'double-hbone',
    to: { ip, port: found.upstream.port },
    authority: `${service.hostname}:${destination.port}`,
    peers: peersOf(found.upstream),
    innerPeers: service.subjectAltNames,
    service,
    gateway: found.upstream.workload,
    workload: remote,
  };
}

function directly({ destination, resolved }: OutboundRequest, upstream: Upstream): Direct | Tunnel | NeedsResolving | Refusal {
  const { workload, port, service } = upstream;
  const labels = service ? { service, workload } : { workload };
  const ip = addressOf(upstream, destination.ip, resolved);
  if (typeof ip !== 'string') return ip ?? { refuse: 'NO_HEALTHY_UPSTREAM', message: noAddress(workload), ...labels };
  if (workload.protocol === 'TCP') return { via: 'tcp', to: { ip, port }, ...labels };
  return {
    via: 'hbone',
    to: { ip, port: HBONE_PORT },
    authority: formatSocketAddress({ ip, port }),
    peers: peersOf(upstream),
    ...labels,
    waypoint: false,
  };
}

/** The address that was asked for, if it is one of the workload's; else of those that the service allows one of the same family, or the first. */
function addressOf(
  { workload, service }: Upstream,
  original: IpAddress,
  resolved: OutboundRequest['resolved'],
): IpAddress | NeedsResolving | undefined {
  if (workload.addresses.includes(original)) return original;
  if (workload.addresses.length > 0) {
    const allowed = workload.addresses.filter((ip) => service?.ipFamily === undefined || isIpv6(ip) === (service.ipFamily === 'IPV6'));
    return sameFamily(allowed, original);
  }
  if (workload.hostname === '') return undefined;
  const answers = resolved?.get(workload.hostname);
  return answers ? sameFamily(answers, original) : { via: 'resolve', hostname: workload.hostname };
}

const sameFamily = (addresses: readonly IpAddress[], original: IpAddress): IpAddress | undefined =>
  addresses.find((ip) => isIpv6(ip) === isIpv6(original)) ?? addresses[0];

function peersOf({ workload, service }: Upstream): string[] {
  const own = workloadIdentity(workload);
  return service ? [...service.subjectAltNames.filter((name) => name !== own), own] : [own];
}

const noHealthyUpstream = (destination: SocketAddress): string => `no healthy upstream: ${formatSocketAddress(destination)}`;

const noAddress = (workload: Workload): string => `no address for ${workload.uid}`;
