/**
 * From the bytes of an xDS resource to the objects that decisions are made from. Each resource stands on its own: what is wrong with it is
 * one `ResourceRejected`, which becomes one "name: reason" of a NACK (Istio's ztunnel, src/xds/client.rs).
 */
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { type Cidr, ipFromBytes, maskBytes } from '../base/address.ts';
import { errorMessage } from '../base/errors.ts';
import * as authorization from '../codec/gen/authorization.ts';
import * as wire from '../codec/gen/workload.ts';
import type {
  ApplicationTunnel,
  AppProtocol,
  GatewayAddress,
  LoadBalancing,
  NetworkAddress,
  Policy,
  PolicyMatch,
  Scope,
  Service,
  StringMatch,
  Workload,
} from '../decision/mesh-view.ts';

import { outboundPolicyOf } from './outbound-policy.ts';
import { requiredWaypointOf } from './required-waypoint.ts';

/**
 * Reads texts as pieces of one text instead of decoding each, as long as they are ASCII, which names are: a workload has twenty, and
 * decoding dominates what a connection to a workload that was not seen before costs.
 */
class ResourceReader extends BinaryReader {
  readonly #bytes: Uint8Array;
  readonly #text: string;

  constructor(bytes: Uint8Array) {
    super(bytes);
    this.#bytes = bytes;
    this.#text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  }

  override string(): string {
    const start = this.pos;
    const length = this.uint32();
    const from = this.pos;
    const end = from + length;
    for (let i = from; i < end; i++) {
      const byte = this.#bytes[i];
      if (byte !== undefined && byte < 0x80) continue;
      // Something else, or the end of the bytes: the general way knows both.
      this.pos = start;
      return super.string();
    }
    this.pos = end;
    return this.#text.slice(from, end);
  }
}

/** Why a resource is not taken; the message is the reason that the control plane is told. */
export class ResourceRejected extends Error {
  constructor(reason: string) {
    super(reason);
    this.name = 'ResourceRejected';
  }
}

/** What an istio.workload.Address holds. */
export type DecodedAddress = { readonly workload: Workload } | { readonly service: Service };

/** @throws {ResourceRejected} */
export function decodeAddress(bytes: Uint8Array): DecodedAddress {
  const { type } = parse(wire.Address, bytes);
  if (!type) throw new ResourceRejected('neither a workload nor a service');
  return type.$case === 'workload' ? { workload: workloadOf(type.value) } : { service: serviceOf(type.value) };
}

/** Of a service that was taken before; AUTOMATIC for anything else. */
export function decodeIpFamilies(bytes: Uint8Array): wire.IPFamilies {
  const { type } = parse(wire.Address, bytes);
  return type?.$case === 'service' ? type.value.ipFamilies : wire.IPFamilies.AUTOMATIC;
}

/** @throws {ResourceRejected} */
export function decodePolicy(bytes: Uint8Array): Policy {
  const message = parse(authorization.Authorization, bytes);
  return {
    name: message.name,
    namespace: message.namespace,
    scope: word(POLICY_SCOPES, message.scope, 'scope'),
    action: word(ACTIONS, message.action, 'action'),
    groups: message.groups.map((group) => group.rules.map((rule) => rule.matches.map(matchOf))),
    dryRun: message.dryRun,
  };
}

function parse<T>(type: wire.MessageFns<T>, bytes: Uint8Array): T {
  try {
    return type.decode(new ResourceReader(bytes));
  } catch (error) {
    throw new ResourceRejected(`no such message: ${errorMessage(error)}`);
  }
}

function workloadOf(message: wire.Workload): Workload {
  if (message.uid === '') throw new ResourceRejected('workload without uid');
  const { locality } = message;
  return {
    uid: message.uid,
    name: message.name,
    namespace: message.namespace,
    addresses: message.addresses.map(addressOf),
    hostname: message.hostname,
    network: message.network,
    protocol: word(TUNNEL_PROTOCOLS, message.tunnelProtocol, 'tunnel protocol'),
    nativeTunnel: message.nativeTunnel,
    hostNetwork: word(NETWORK_MODES, message.networkMode, 'network mode') === 'HOST_NETWORK',
    trustDomain: message.trustDomain || 'cluster.local',
    serviceAccount: message.serviceAccount || 'default',
    waypoint: message.waypoint && gatewayOf(message.waypoint, 'waypoint'),
    networkGateway: message.networkGateway && gatewayOf(message.networkGateway, 'network gateway'),
    applicationTunnel: message.applicationTunnel && tunnelOf(message.applicationTunnel),
    node: message.node,
    clusterId: message.clusterId || 'Kubernetes',
    locality: locality ? { region: locality.region, zone: locality.zone, subzone: locality.subzone } : NOWHERE,
    canonicalName: message.canonicalName,
    canonicalRevision: message.canonicalRevision,
    workloadName: message.workloadName,
    workloadType: word(WORKLOAD_TYPES, message.workloadType, 'workload type'),
    authorizationPolicies: message.authorizationPolicies,
    healthy: word(STATUSES, message.status, 'status') === 'HEALTHY',
    capacity: message.capacity ?? 1,
    services: membershipOf(message.services),
    ...(message.extensions.length > 0 ? extensionsOf(message.extensions) : {}),
  };
}

function extensionsOf(extensions: readonly wire.Extension[]): Pick<Workload, 'outboundTrafficPolicy' | 'requireWaypoint'> {
  try {
    const outboundTrafficPolicy = outboundPolicyOf(extensions);
    const requireWaypoint = requiredWaypointOf(extensions);
    return { ...(outboundTrafficPolicy && { outboundTrafficPolicy }), ...(requireWaypoint && { requireWaypoint }) };
  } catch (error) {
    throw new ResourceRejected(errorMessage(error));
  }
}

function serviceOf(message: wire.Service): Service {
  const addresses: NetworkAddress[] = [];
  const ranges: { network: string; cidr: Cidr }[] = [];
  for (const { network, address, length } of message.addresses) {
    const ip = addressOf(address);
    if (length === undefined || length === address.length * 8) addresses.push({ network, ip });
    else ranges.push({ network, cidr: rangeOf(address, length) });
  }
  return {
    name: message.name,
    namespace: message.namespace,
    hostname: message.hostname,
    addresses,
    ranges,
    ports: portsOf(message.ports),
    appProtocols: appProtocolsOf(message.ports),
    subjectAltNames: message.subjectAltNames,
    waypoint: message.waypoint && gatewayOf(message.waypoint, 'waypoint'),
    weightedWaypoints: message.weightedWaypoints.map(({ destination, weight }) => {
      if (!destination) throw new ResourceRejected('weighted waypoint without destination');
      return { gateway: gatewayOf(destination, 'weighted waypoint'), weight };
    }),
    loadBalancing: message.loadBalancing ? balancingOf(message.loadBalancing) : PLAIN_BALANCING,
    ipFamily: word(IP_FAMILIES, message.ipFamilies, 'IP families').family,
    canonical: message.canonical,
    // The one enum of which an unknown value is taken: a newer control plane's visibility must not take a service away (§3).
    namespaceOnly: message.visibility === wire.Service_Visibility.NAMESPACE,
  };
}

function gatewayOf({ destination, hboneMtlsPort }: wire.GatewayAddress, what: string): GatewayAddress {
  if (!destination) throw new ResourceRejected(`${what} without destination`);
  const hbonePort = portOf(hboneMtlsPort);
  if (destination.$case === 'hostname') {
    const { namespace, hostname } = destination.value;
    return { destination: { namespace, hostname }, hbonePort };
  }
  const { network, address } = destination.value;
  return { destination: { address: { network, ip: addressOf(address) } }, hbonePort };
}

const tunnelOf = ({ protocol, port }: wire.ApplicationTunnel): ApplicationTunnel => ({
  protocol: word(APPLICATION_PROTOCOLS, protocol, 'application tunnel protocol'),
  port: portOf(port),
});

function balancingOf({ routingPreference, mode, healthPolicy }: wire.LoadBalancing): LoadBalancing {
  return {
    preferences: routingPreference.map((scope) => word(BALANCING_SCOPES, scope, 'routing preference')),
    mode: word(BALANCING_MODES, mode, 'load balancing mode'),
    allowUnhealthy: word(HEALTH_POLICIES, healthPolicy, 'health policy') === 'ALLOW_ALL',
  };
}

function membershipOf(services: Readonly<Record<string, wire.PortList>>): Workload['services'] {
  const entries = Object.entries(services).map(([key, { ports }]) => {
    if (!key.includes('/')) throw new ResourceRejected(`service key ${JSON.stringify(key)} is no namespace/hostname`);
    return [key, portsOf(ports)] as const;
  });
  return new Map(entries);
}

const portsOf = (ports: readonly wire.Port[]): ReadonlyMap<number, number> =>
  new Map(ports.map(({ servicePort, targetPort }) => [portOf(servicePort), portOf(targetPort)]));

// An unknown one is taken as undeclared: a newer control plane's protocol must not take a service away.
const appProtocolsOf = (ports: readonly wire.Port[]): ReadonlyMap<number, AppProtocol> =>
  new Map(
    ports.flatMap(({ servicePort, appProtocol }) => {
      const declared = APP_PROTOCOLS[appProtocol];
      return declared ? [[servicePort, declared] as const] : [];
    }),
  );

function portOf(port: number): number {
  if (port > 65535) throw new ResourceRejected(`port ${port} is out of range`);
  return port;
}

function addressOf(bytes: Uint8Array): string {
  const ip = ipFromBytes(bytes);
  if (ip === undefined) throw new ResourceRejected(`address of ${bytes.length} bytes, neither 4 nor 16`);
  return ip;
}

function rangeOf(bytes: Uint8Array, length: number): Cidr {
  addressOf(bytes);
  const width = bytes.length * 8;
  if (length > width) throw new ResourceRejected(`prefix length ${length} is beyond ${width}`);
  return { bytes: maskBytes(bytes, length), length };
}

function matchOf(match: authorization.Match): PolicyMatch {
  return {
    namespaces: match.namespaces.map(stringMatchOf),
    notNamespaces: match.notNamespaces.map(stringMatchOf),
    principals: match.principals.map(stringMatchOf),
    notPrincipals: match.notPrincipals.map(stringMatchOf),
    sourceIps: match.sourceIps.map(({ address, length }) => rangeOf(address, length)),
    notSourceIps: match.notSourceIps.map(({ address, length }) => rangeOf(address, length)),
    destinationIps: match.destinationIps.map(({ address, length }) => rangeOf(address, length)),
    notDestinationIps: match.notDestinationIps.map(({ address, length }) => rangeOf(address, length)),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
  };
}

function stringMatchOf({ matchType }: authorization.StringMatch): StringMatch {
  switch (matchType?.$case) {
    case 'exact':
      return { exact: matchType.value };
    case 'prefix':
      return { prefix: matchType.value };
    case 'suffix':
      return { suffix: matchType.value };
    case 'presence':
      return { presence: true };
    default:
      throw new ResourceRejected('string match without a kind');
  }
}

// Values of the enums by number; a hole or an end is an unknown value.
const TUNNEL_PROTOCOLS = ['TCP', 'HBONE'] as const;
const NETWORK_MODES = ['STANDARD', 'HOST_NETWORK'] as const;
const WORKLOAD_TYPES = ['deployment', 'cronjob', 'pod', 'job'] as const;
const STATUSES = ['HEALTHY', 'UNHEALTHY'] as const;
const APP_PROTOCOLS: readonly (AppProtocol | undefined)[] = [undefined, 'HTTP11', 'HTTP2', 'GRPC', 'TCP', 'TLS'];
const APPLICATION_PROTOCOLS = ['NONE', 'PROXY'] as const;
const POLICY_SCOPES = ['GLOBAL', 'NAMESPACE', 'WORKLOAD_SELECTOR'] as const;
const ACTIONS = ['ALLOW', 'DENY'] as const;
const BALANCING_SCOPES = [undefined, 'REGION', 'ZONE', 'SUBZONE', 'NODE', 'CLUSTER', 'NETWORK'] as const satisfies readonly (
  | Scope
  | undefined
)[];
const BALANCING_MODES = ['STANDARD', 'STRICT', 'FAILOVER', 'PASSTHROUGH'] as const;
const HEALTH_POLICIES = ['ONLY_HEALTHY', 'ALLOW_ALL'] as const;
const IP_FAMILIES = [{ family: undefined }, { family: 'IPV4' }, { family: 'IPV6' }, { family: undefined }] as const;

const NOWHERE = { region: '', zone: '', subzone: '' } as const;
const PLAIN_BALANCING: LoadBalancing = { preferences: [], mode: 'STANDARD', allowUnhealthy: false };

function word<T>(words: readonly T[], value: number, what: string): NonNullable<T> {
  const found = words[value];
  if (found === undefined || found === null) throw new ResourceRejected(`unknown ${what} ${value}`);
  return found;
}
