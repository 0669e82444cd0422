/**
 * Workloads, services and policies as the recorded cases write them: the messages of proto/ with fields by their proto names, enums by
 * number, by name, or as the Rust path that a test named them by. They go through bytes and our own decoding, as if xDS had sent them.
 */
import { ipBytes, parseCidr } from '../../common/base/address.ts';
import * as authorization from '../../common/codec/gen/authorization.ts';
import * as wire from '../../common/codec/gen/workload.ts';
import type { Policy } from '../../common/decision/mesh-view.ts';
import { type DecodedAddress, decodeAddress, decodePolicy } from '../../common/state/decode.ts';

type Json = unknown;
type Fields = Readonly<Record<string, Json>>;

/** @param kind `Workload` or `Service` */
export const addressFromJson = (kind: string, json: Fields): DecodedAddress => decodeAddress(addressBytes(kind, json));

export function addressBytes(kind: string, json: Fields): Uint8Array {
  const type =
    kind === 'Service'
      ? { $case: 'service' as const, value: serviceFrom(json) }
      : { $case: 'workload' as const, value: workloadFrom(json) };
  return wire.Address.encode({ type }).finish();
}

/** A policy as rbac.json writes it: `rules`, each a list of clauses, each a list of matches. */
export function policyFromJson(json: Fields): Policy {
  const message: authorization.Authorization = {
    name: text(json.name),
    namespace: text(json.namespace),
    scope: choice(authorization.Scope, json.scope),
    action: choice(authorization.Action, json.action),
    groups: list(json.rules ?? json.groups).map((rule) => ({
      rules: list(rule).map((clause) => ({ matches: list(clause).map((match) => matchFrom(fields(match))) })),
    })),
    dryRun: json.dryRun === true,
    extensions: [],
  };
  return decodePolicy(authorization.Authorization.encode(message).finish());
}

const workloadFrom = (json: Fields): wire.Workload => ({
  uid: text(json.uid),
  name: text(json.name),
  namespace: text(json.namespace),
  addresses: list(json.addresses).map(bytes),
  hostname: text(json.hostname),
  network: text(json.network),
  tunnelProtocol: choice(wire.TunnelProtocol, json.tunnel_protocol),
  trustDomain: text(json.trust_domain),
  serviceAccount: text(json.service_account),
  waypoint: gateway(json.waypoint),
  networkGateway: gateway(json.network_gateway),
  node: text(json.node),
  canonicalName: text(json.canonical_name),
  canonicalRevision: text(json.canonical_revision),
  workloadType: choice(wire.WorkloadType, json.workload_type),
  workloadName: text(json.workload_name),
  nativeTunnel: json.native_tunnel === true,
  authorizationPolicies: list(json.authorization_policies).map(text),
  status: choice(wire.WorkloadStatus, json.status),
  clusterId: text(json.cluster_id),
  services: Object.fromEntries(Object.entries(fields(json.services)).map(([key, value]) => [key, { ports: ports(fields(value).ports) }])),
  applicationTunnel: json.application_tunnel
    ? {
        protocol: choice(wire.ApplicationTunnel_Protocol, fields(json.application_tunnel).protocol),
        port: number(fields(json.application_tunnel).port),
      }
    : undefined,
  locality: json.locality
    ? { region: text(fields(json.locality).region), zone: text(fields(json.locality).zone), subzone: text(fields(json.locality).subzone) }
    : undefined,
  networkMode: choice(wire.NetworkMode, json.network_mode),
  capacity: json.capacity === undefined || json.capacity === null ? undefined : number(fields(json.capacity).value ?? json.capacity),
  extensions: [],
});

const serviceFrom = (json: Fields): wire.Service => ({
  name: text(json.name),
  namespace: text(json.namespace),
  hostname: text(json.hostname),
  addresses: list(json.addresses).map(networkAddress),
  ports: ports(json.ports),
  subjectAltNames: list(json.subject_alt_names).map(text),
  waypoint: gateway(json.waypoint),
  weightedWaypoints: list(json.weighted_waypoints).map((entry) => ({
    destination: gateway(fields(entry).destination),
    weight: number(fields(entry).weight),
  })),
  loadBalancing: json.load_balancing
    ? {
        routingPreference: list(fields(json.load_balancing).routing_preference).map((scope) => choice(wire.LoadBalancing_Scope, scope)),
        mode: choice(wire.LoadBalancing_Mode, fields(json.load_balancing).mode),
        healthPolicy: choice(wire.LoadBalancing_HealthPolicy, fields(json.load_balancing).health_policy),
      }
    : undefined,
  ipFamilies: choice(wire.IPFamilies, json.ip_families),
  canonical: json.canonical === true,
  ingressUseWaypoint: json.ingress_use_waypoint === true,
  visibility: choice(wire.Service_Visibility, json.visibility),
  extensions: [],
});

function gateway(json: Json): wire.GatewayAddress | undefined {
  if (json === undefined || json === null) return undefined;
  const { destination, hbone_mtls_port: port } = fields(json);
  const { hostname, address } = fields(destination);
  const hboneMtlsPort = number(port);
  if (hostname) {
    const value = { namespace: text(fields(hostname).namespace), hostname: text(fields(hostname).hostname) };
    return { destination: { $case: 'hostname', value }, hboneMtlsPort };
  }
  return { destination: address ? { $case: 'address', value: networkAddress(address) } : undefined, hboneMtlsPort };
}

function networkAddress(json: Json): wire.NetworkAddress {
  const { network, address, length } = fields(json);
  return { network: text(network), address: bytes(address), length: length === undefined || length === null ? undefined : number(length) };
}

const ports = (json: Json): wire.Port[] =>
  list(json).map((port) => ({
    servicePort: number(fields(port).service_port),
    targetPort: number(fields(port).target_port),
    appProtocol: wire.AppProtocol.UNKNOWN,
  }));

function matchFrom(json: Fields): authorization.Match {
  const strings = (value: Json): authorization.StringMatch[] => list(value).map((entry) => stringMatch(fields(entry)));
  const ranges = (value: Json): authorization.Address[] => list(value).map((entry) => range(text(entry)));
  const accounts = (value: Json): authorization.ServiceAccountMatch[] =>
    list(value).map((entry) => ({ namespace: text(fields(entry).namespace), serviceAccount: text(fields(entry).serviceAccount) }));
  return {
    namespaces: strings(json.namespaces),
    notNamespaces: strings(json.notNamespaces),
    principals: strings(json.principals),
    notPrincipals: strings(json.notPrincipals),
    sourceIps: ranges(json.sourceIps),
    notSourceIps: ranges(json.notSourceIps),
    destinationIps: ranges(json.destinationIps),
    notDestinationIps: ranges(json.notDestinationIps),
    destinationPorts: list(json.destinationPorts).map(number),
    notDestinationPorts: list(json.notDestinationPorts).map(number),
    serviceAccounts: accounts(json.serviceAccounts),
    notServiceAccounts: accounts(json.notServiceAccounts),
    extensions: [],
  };
}

function stringMatch(json: Fields): authorization.StringMatch {
  if (typeof json.exact === 'string') return { matchType: { $case: 'exact', value: json.exact } };
  if (typeof json.prefix === 'string') return { matchType: { $case: 'prefix', value: json.prefix } };
  if (typeof json.suffix === 'string') return { matchType: { $case: 'suffix', value: json.suffix } };
  return { matchType: { $case: 'presence', value: {} } };
}

function range(value: string): authorization.Address {
  const cidr = parseCidr(value);
  if (!cidr) throw new Error(`no CIDR: ${value}`);
  return { address: cidr.bytes, length: cidr.length };
}

function bytes(value: Json): Uint8Array {
  const parsed = ipBytes(text(value));
  if (!parsed) throw new Error(`no address: ${JSON.stringify(value)}`);
  return parsed;
}

/** `1`, `IPV6_ONLY`, `IpFamilies::Ipv6Only`: compared without case and underscores; absent is 0. */
function choice<T extends number>(names: Readonly<Record<string, T>>, value: Json): T {
  const plain = (name: string): string => name.replaceAll('_', '').toLowerCase();
  const wanted = typeof value === 'string' ? plain(value.split('::').at(-1) ?? '') : Number(value ?? 0);
  const found = Object.entries(names).find(([name, number]) => number === wanted || plain(name) === wanted);
  if (!found) throw new Error(`unknown value ${JSON.stringify(value)}; known: ${Object.keys(names).join(', ')}`);
  return found[1];
}

const fields = (json: Json): Fields => (json !== null && typeof json === 'object' ? (json as Fields) : {});
const list = (json: Json): readonly Json[] => (Array.isArray(json) ? json : []);
// Rust's `Default::default()` was recorded as an object where a text belongs.
const text = (json: Json): string => (typeof json === 'string' ? json : '');
const number = (json: Json): number => (typeof json === 'number' ? json : 0);
