/**
 * What a CONNECT request that reached a pod's tunnel port means (Istio's ztunnel, src/proxy/inbound.rs): is it for this pod at all, which
 * port of it is dialled, and does the application get the original destination told by PROXY protocol. Policy is decided afterwards, on
 * the port that comes out here.
 */
import { formatSocketAddress, type IpAddress, isIpv6, parsePort, parseSocketAddress, type SocketAddress } from '../base/address.ts';
import type { OutcomeCode } from '../base/errors.ts';
import { chooseServiceByHostname } from './choose-service.ts';
import { isGateway } from './gateway.ts';
import { targetPort } from './load-balance.ts';
import { type MeshView, type Service, serviceKey, type Workload } from './mesh-view.ts';
import { OWN_PORTS } from './ports.ts';

/** A CONNECT, and where it arrived. */
export interface InboundRequest {
  /** The pod in whose network namespace the tunnel ended. */
  readonly local: Workload;
  /** The address of it that the peer dialled. */
  readonly podIp: IpAddress;
  /** The network that this proxy is in (NETWORK). */
  readonly network: string;
  /** `:authority` of the CONNECT. */
  readonly authority: string;
}

/** What is dialled, or why nothing is; the outcome's status answers the CONNECT. */
export type InboundRoute =
  | {
      /** Always the pod's own address. */
      readonly to: SocketAddress;
      /** Present where the application expects PROXY protocol: the destination that its header names. */
      readonly tunnel?: { readonly protocol: 'PROXY'; readonly target: SocketAddress };
      /** Known where the authority named it. */
      readonly service?: Service;
    }
  | { readonly refuse: OutcomeCode; readonly message: string };

/** Decides what a CONNECT means (Istio's ztunnel, src/proxy/inbound.rs). Says nothing about whether it is allowed. */
export function resolveInbound(view: MeshView, request: InboundRequest): InboundRoute {
  const { local, podIp, network, authority } = request;
  const address = parseSocketAddress(authority);
  if (address) {
    if (!isForThisPod(view, request, address.ip)) {
      return { refuse: 'IP_MISMATCH', message: `ip mismatch: ${address.ip} != ${podIp}` };
    }
    return deliver(local, { ip: podIp, port: address.port }, address);
  }
  const named = parseHostPort(authority);
  if (!named) return { refuse: 'BAD_REQUEST', message: `no host and port in authority ${JSON.stringify(authority.slice(0, 300))}` };
  const service = chooseServiceByHostname(view, named.hostname, local.namespace);
  if (!service || !serves(view, local, service)) {
    return { refuse: 'SERVICE_UNKNOWN', message: `no service ${named.hostname} for ${local.uid}` };
  }
  const ports = local.services.get(serviceKey(service)) ?? new Map();
  const port = targetPort(service, { workload: local, ports }, named.port);
  if (port === undefined) return { refuse: 'SERVICE_UNKNOWN', message: `service ${named.hostname} has no port ${named.port}` };
  const virtual = virtualAddress(service, network);
  return deliver(local, { ip: podIp, port }, virtual === undefined ? undefined : { ip: virtual, port: named.port }, service);
}

/**
 * The service that a connection to this pod was meant for, for labels only: the one that the peer named in `forwarded`, if the pod belongs
 * to it, else the first whose target is this port.
 */
export function inboundService(view: MeshView, local: Workload, port: number, forwardedHost?: string): Service | undefined {
  let first: Service | undefined;
  // Without lists: each connection asks (bench ztunnel, new connections).
  for (const [key, ports] of local.services) {
    const slash = key.indexOf('/');
    const service = view.serviceByKey(key.slice(0, slash), key.slice(slash + 1));
    if (!service) continue;
    if (service.hostname === forwardedHost) return service;
    if (!first && leadsTo(service, ports, port)) first = service;
  }
  return first;
}

/** @param ports the service's, by which of them the workload serves otherwise than the service says */
function leadsTo(service: Service, ports: ReadonlyMap<number, number>, port: number): boolean {
  for (const [from, to] of service.ports) if ((ports.get(from) ?? to) === port) return true;
  return false;
}

/**
 * The pod's own address; or any, where the pod takes traffic for others by an application tunnel; or an address whose service or workload
 * has this pod for its waypoint.
 */
function isForThisPod(view: MeshView, { local, podIp, network }: InboundRequest, ip: IpAddress): boolean {
  if (ip === podIp || local.applicationTunnel) return true;
  const workload = view.workloadByAddress(network, ip);
  const destinations = workload ? [workload] : view.servicesByAddress(network, ip);
  return destinations.some(({ waypoint }) => waypoint !== undefined && isGateway(view, waypoint, local));
}

/** Whether a pod may be asked for a service by its hostname: it is one of its endpoints, or stands in front of it. */
function serves(view: MeshView, local: Workload, service: Service): boolean {
  if (local.services.has(serviceKey(service)) || local.applicationTunnel) return true;
  return service.waypoint !== undefined && isGateway(view, service.waypoint, local);
}

function deliver(local: Workload, upstream: SocketAddress, original: SocketAddress | undefined, service?: Service): InboundRoute {
  const { applicationTunnel: tunnel } = local;
  const to = tunnel && tunnel.port > 0 ? { ip: upstream.ip, port: tunnel.port } : upstream;
  if (OWN_PORTS.has(upstream.port) || OWN_PORTS.has(to.port)) {
    return { refuse: 'SELF_CALL', message: `attempted recursive call to ourselves: ${formatSocketAddress(to)}` };
  }
  const labels = service ? { service } : {};
  if (tunnel?.protocol !== 'PROXY') return { to, ...labels };
  if (!original) return { refuse: 'SERVICE_UNKNOWN', message: `service ${service?.hostname} has no address to name to the application` };
  return { to, tunnel: { protocol: 'PROXY', target: original }, ...labels };
}

/** A virtual address of the service: of the own network rather than another, IPv4 rather than IPv6. */
function virtualAddress(service: Service, network: string): IpAddress | undefined {
  const own = service.addresses.filter((address) => address.network === network);
  const candidates = own.length > 0 ? own : service.addresses;
  return (candidates.find(({ ip }) => !isIpv6(ip)) ?? candidates[0])?.ip;
}

// Letters, digits, hyphen and underscore in labels, as Kubernetes and ServiceEntry allow them; no address in disguise gets here.
const HOSTNAME = /^[A-Za-z0-9_*]([A-Za-z0-9._-]{0,252})$/;

function parseHostPort(authority: string): { hostname: string; port: number } | undefined {
  const colon = authority.lastIndexOf(':');
  const hostname = authority.slice(0, Math.max(colon, 0));
  const port = parsePort(authority.slice(colon + 1));
  return port === undefined || !HOSTNAME.test(hostname) ? undefined : { hostname, port };
}
