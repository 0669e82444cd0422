/**
 * A mesh from a file instead of a control plane (LOCAL_XDS_PATH, LOCAL_XDS; Istio's ztunnel, src/state): YAML with ztunnel's keys, turned
 * into the same resources that xDS would have sent. Somebody wrote it by hand, so every complaint names the place, and nothing is guessed:
 * an unknown key is an error.
 */
import { DEFAULT_SCHEMA, loadAll, Type, YAMLException } from 'js-yaml';
import { type Cidr, parseCidr, parseIp } from '../base/address.ts';
import {
  type GatewayAddress,
  type LoadBalancing,
  type NetworkAddress,
  type Policy,
  type PolicyMatch,
  policyKey,
  type Service,
  type StringMatch,
  serviceKey,
  type Workload,
} from '../decision/mesh-view.ts';
import { MATCH_FIELDS } from '../decision/policy.ts';
import { encodePolicy, encodeService, encodeWorkload } from './encode.ts';
import { ADDRESS_TYPE, AUTHORIZATION_TYPE, type ListedPush } from './writer.ts';
import { ConfigError, YamlNode } from './yaml-node.ts';

/** What the file says, before it becomes resources. */
export interface StaticMesh {
  readonly workloads: readonly Workload[];
  readonly services: readonly Service[];
  readonly policies: readonly Policy[];
}

/**
 * The pushes that bring a state to what the file says.
 * @throws {ConfigError} naming the place in the file, with its line
 */
export function staticResources(yaml: string): ListedPush[] {
  const { workloads, services, policies } = parseStaticConfig(yaml);
  return [
    {
      typeUrl: ADDRESS_TYPE,
      resources: [
        ...services.map((service) => ({ name: serviceKey(service), version: '', bytes: encodeService(service) })),
        ...workloads.map((workload) => ({ name: workload.uid, version: '', bytes: encodeWorkload(workload) })),
      ],
      removed: [],
    },
    {
      typeUrl: AUTHORIZATION_TYPE,
      resources: policies.map((policy) => ({ name: policyKey(policy), version: '', bytes: encodePolicy(policy) })),
      removed: [],
    },
  ];
}

/** @throws {ConfigError} */
export function parseStaticConfig(yaml: string): StaticMesh {
  const lines = new WeakMap<object, number>();
  const root = new YamlNode(parseYaml(yaml, lines), '', lines, 1);
  // An empty file is an empty mesh.
  if (root.value === undefined || root.value === null) return { workloads: [], services: [], policies: [] };
  root.allowKeys(['workloads', 'services', 'policies']);
  return {
    workloads: root.optional('workloads')?.list(workloadFrom) ?? [],
    services: root.optional('services')?.list(serviceFrom) ?? [],
    policies: root.optional('policies')?.list(policyFrom) ?? [],
  };
}

/** The document, and the line on which each of its mappings and lists starts. */
// ztunnel's own reader wants a string match as a tagged value (`!Exact name`); the form of config_dump (`{Exact: name}`) is taken as well.
const SCHEMA = DEFAULT_SCHEMA.extend([
  ...['Exact', 'Prefix', 'Suffix'].map(
    (name) => new Type(`!${name}`, { kind: 'scalar', construct: (value: unknown) => ({ [name]: value }) }),
  ),
  ...(['scalar', 'sequence'] as const).map((kind) => new Type('!Presence', { kind, construct: () => ({ Presence: [] }) })),
]);

function parseYaml(yaml: string, lines: WeakMap<object, number>): unknown {
  const open: number[] = [];
  try {
    const documents = loadAll(yaml, undefined, {
      schema: SCHEMA,
      listener(event, state) {
        if (event === 'open') open.push(state.line + 1);
        else {
          const line = open.pop();
          const result: unknown = state.result;
          if (line !== undefined && typeof result === 'object' && result !== null && !lines.has(result)) lines.set(result, line);
        }
      },
    });
    if (documents.length > 1) throw new ConfigError('expected one YAML document', undefined);
    return documents[0];
  } catch (error) {
    if (error instanceof YAMLException) throw new ConfigError(error.reason, error.mark ? error.mark.line + 1 : undefined);
    throw error;
  }
}

const WORKLOAD_KEYS = [
  'workloadIps',
  'namespace',
  'services',
  'uid',
  'name',
  'trustDomain',
  'serviceAccount',
  'network',
  'workloadName',
  'workloadType',
  'canonicalName',
  'canonicalRevision',
  'hostname',
  'node',
  'nativeTunnel',
  'applicationTunnel',
  'authorizationPolicies',
  'status',
  'clusterId',
  'locality',
  'capacity',
  'protocol',
  'networkMode',
  'waypoint',
  'networkGateway',
  'outboundTrafficPolicy',
  'requireWaypoint',
] as const;

function workloadFrom(node: YamlNode): Workload {
  node.allowKeys(WORKLOAD_KEYS);
  const text = (key: string, fallback = ''): string => node.optional(key)?.text() ?? fallback;
  const addresses = node.required('workloadIps').list((entry) => entry.parsed(parseIp, 'an IP address'));
  const namespace = node.required('namespace').text();
  const name = text('name');
  const hostname = text('hostname');
  const tunnel = node.optional('applicationTunnel');
  tunnel?.allowKeys(['protocol', 'port']);
  const outboundTrafficPolicy: Workload['outboundTrafficPolicy'] = node
    .optional('outboundTrafficPolicy')
    ?.choice({ ALLOW_ANY: 'ALLOW_ANY', REGISTRY_ONLY: 'REGISTRY_ONLY' });
  const required = node.optional('requireWaypoint');
  required?.allowKeys(['exceptPorts']);
  const locality = node.optional('locality');
  locality?.allowKeys(['region', 'zone', 'subzone']);
  return {
    // Where the file names no uid, the workload still needs one of its own.
    uid: text('uid') || `static/${namespace}/${name || addresses[0] || hostname}`,
    name,
    namespace,
    addresses,
    hostname,
    network: text('network'),
    protocol: node.optional('protocol')?.choice({ HBONE: 'HBONE', TCP: 'TCP' }) ?? 'TCP',
    nativeTunnel: node.optional('nativeTunnel')?.flag() ?? false,
    hostNetwork: node.optional('networkMode')?.choice({ Standard: false, HostNetwork: true }) ?? false,
    trustDomain: text('trustDomain', 'cluster.local'),
    serviceAccount: text('serviceAccount', 'default'),
    waypoint: node.optional('waypoint')?.map(gatewayFrom),
    networkGateway: node.optional('networkGateway')?.map(gatewayFrom),
    applicationTunnel: tunnel && {
      protocol: tunnel.optional('protocol')?.choice({ NONE: 'NONE', PROXY: 'PROXY' }) ?? 'NONE',
      port: tunnel.optional('port')?.integer(65535) ?? 0,
    },
    node: text('node'),
    clusterId: text('clusterId', 'Kubernetes'),
    locality: {
      region: locality?.optional('region')?.text() ?? '',
      zone: locality?.optional('zone')?.text() ?? '',
      subzone: locality?.optional('subzone')?.text() ?? '',
    },
    canonicalName: text('canonicalName'),
    canonicalRevision: text('canonicalRevision'),
    workloadName: text('workloadName'),
    workloadType: node.optional('workloadType')?.choice(WORKLOAD_TYPES) ?? 'deployment',
    authorizationPolicies: node.optional('authorizationPolicies')?.list((entry) => entry.text()) ?? [],
    healthy: node.optional('status')?.choice({ Healthy: true, Unhealthy: false }) ?? true,
    ...(outboundTrafficPolicy === undefined ? {} : { outboundTrafficPolicy }),
    ...(required && {
      requireWaypoint: { always: true, exceptPorts: required.optional('exceptPorts')?.list((port) => port.integer(65535)) ?? [] },
    }),
    capacity: node.optional('capacity')?.integer(2 ** 32 - 1) ?? 1,
    services: new Map(
      node.required('services').entries((key, ports) => {
        if (!key.includes('/')) throw ports.error('expected namespace/hostname as the key of a service');
        return [key, portsFrom(ports)] as const;
      }),
    ),
  };
}

const WORKLOAD_TYPES = { deployment: 'deployment', cronjob: 'cronjob', pod: 'pod', job: 'job' } as const;

const SERVICE_KEYS = [
  'name',
  'namespace',
  'hostname',
  'vips',
  'ports',
  'appProtocols',
  'cidrVips',
  'subjectAltNames',
  'waypoint',
  'weightedWaypoints',
  'loadBalancer',
  'ipFamilies',
  'canonical',
  'visibility',
] as const;

function serviceFrom(node: YamlNode): Service {
  node.allowKeys(SERVICE_KEYS);
  return {
    name: node.required('name').text(),
    namespace: node.required('namespace').text(),
    hostname: node.required('hostname').text(),
    addresses: node.required('vips').list((entry) => entry.parsed(parseNetworkAddress, 'network/address, such as /10.0.0.1')),
    ranges: node.optional('cidrVips')?.list(rangeFrom) ?? [],
    ports: portsFrom(node.required('ports')),
    appProtocols: new Map(
      node.optional('appProtocols')?.entries((key, value) => [portFrom(key, value), value.choice(APP_PROTOCOLS)] as const) ?? [],
    ),
    subjectAltNames: node.optional('subjectAltNames')?.list((entry) => entry.text()) ?? [],
    waypoint: node.optional('waypoint')?.map(gatewayFrom),
    weightedWaypoints:
      node.optional('weightedWaypoints')?.list((entry) => {
        entry.allowKeys(['destination', 'weight']);
        const destination = entry.required('destination');
        const gateway = typeof destination.value === 'string' ? gatewayAt(destination, 15008) : gatewayFrom(destination);
        return { gateway, weight: entry.required('weight').integer(2 ** 32 - 1) };
      }) ?? [],
    loadBalancing: node.optional('loadBalancer')?.map(balancingFrom) ?? { preferences: [], mode: 'STANDARD', allowUnhealthy: false },
    ipFamily: node.optional('ipFamilies')?.choice({ Dual: undefined, IPv4: 'IPV4', IPv6: 'IPV6' }),
    canonical: node.optional('canonical')?.flag() ?? false,
    namespaceOnly: node.optional('visibility')?.choice({ Public: false, Namespace: true }) ?? false,
  };
}

function balancingFrom(node: YamlNode): LoadBalancing {
  node.allowKeys(['routingPreferences', 'mode', 'healthPolicy']);
  return {
    preferences: node.optional('routingPreferences')?.list((entry) => entry.choice(SCOPES)) ?? [],
    mode: node.optional('mode')?.choice(BALANCING_MODES) ?? 'STANDARD',
    allowUnhealthy: node.optional('healthPolicy')?.choice({ OnlyHealthy: false, AllowAll: true }) ?? false,
  };
}

const APP_PROTOCOLS = { HTTP11: 'HTTP11', HTTP2: 'HTTP2', GRPC: 'GRPC', TCP: 'TCP', TLS: 'TLS' } as const;
const SCOPES = { Region: 'REGION', Zone: 'ZONE', Subzone: 'SUBZONE', Node: 'NODE', Cluster: 'CLUSTER', Network: 'NETWORK' } as const;
const BALANCING_MODES = { Standard: 'STANDARD', Strict: 'STRICT', Failover: 'FAILOVER', Passthrough: 'PASSTHROUGH' } as const;

function rangeFrom(node: YamlNode): { network: string; cidr: Cidr } {
  node.allowKeys(['network', 'cidr']);
  return { network: node.optional('network')?.text() ?? '', cidr: node.required('cidr').parsed(parseCidr, 'a CIDR, such as 10.0.0.0/8') };
}

function gatewayFrom(node: YamlNode): GatewayAddress {
  node.allowKeys(['destination', 'hboneMtlsPort']);
  return gatewayAt(node.required('destination'), node.optional('hboneMtlsPort')?.integer(65535) ?? 15008);
}

/** `network/address` or `namespace/hostname`: what follows the slash tells which. */
function gatewayAt(node: YamlNode, hbonePort: number): GatewayAddress {
  const address = parseNetworkAddress(node.text());
  if (address) return { destination: { address }, hbonePort };
  const [namespace, hostname, ...more] = node.text().split('/');
  if (namespace === undefined || hostname === undefined || hostname === '' || more.length > 0) {
    throw node.error('expected network/address or namespace/hostname');
  }
  return { destination: { namespace, hostname }, hbonePort };
}

function parseNetworkAddress(text: string): NetworkAddress | undefined {
  const slash = text.indexOf('/');
  const ip = slash < 0 ? undefined : parseIp(text.slice(slash + 1));
  return ip === undefined ? undefined : { network: text.slice(0, slash), ip };
}

const portsFrom = (node: YamlNode): Map<number, number> =>
  new Map(node.entries((key, target) => [portFrom(key, target), target.integer(65535)] as const));

function portFrom(key: string, value: YamlNode): number {
  const port = /^\d{1,5}$/.test(key) ? Number(key) : 65536;
  if (port > 65535) throw value.error('expected a port as key');
  return port;
}

function policyFrom(node: YamlNode): Policy {
  node.allowKeys(['name', 'namespace', 'scope', 'action', 'rules', 'dryRun']);
  return {
    name: node.required('name').text(),
    namespace: node.required('namespace').text(),
    scope: node.required('scope').choice({ Global: 'GLOBAL', Namespace: 'NAMESPACE', WorkloadSelector: 'WORKLOAD_SELECTOR' }),
    action: node.required('action').choice({ Allow: 'ALLOW', Deny: 'DENY' }),
    groups: node.required('rules').list((rule) => rule.list((clause) => clause.list(matchFrom))),
    dryRun: node.optional('dryRun')?.flag() ?? false,
  };
}

function matchFrom(node: YamlNode): PolicyMatch {
  node.allowKeys(MATCH_FIELDS);
  const list = <T>(key: keyof PolicyMatch, read: (entry: YamlNode) => T): T[] => node.optional(key)?.list(read) ?? [];
  const range = (entry: YamlNode): Cidr => entry.parsed(parseCidr, 'a CIDR, such as 10.0.0.0/8');
  const port = (entry: YamlNode): number => entry.integer(65535);
  return {
    namespaces: list('namespaces', stringMatchFrom),
    notNamespaces: list('notNamespaces', stringMatchFrom),
    principals: list('principals', stringMatchFrom),
    notPrincipals: list('notPrincipals', stringMatchFrom),
    sourceIps: list('sourceIps', range),
    notSourceIps: list('notSourceIps', range),
    destinationIps: list('destinationIps', range),
    notDestinationIps: list('notDestinationIps', range),
    destinationPorts: list('destinationPorts', port),
    notDestinationPorts: list('notDestinationPorts', port),
    serviceAccounts: list('serviceAccounts', accountFrom),
    notServiceAccounts: list('notServiceAccounts', accountFrom),
  };
}

function accountFrom(node: YamlNode): { namespace: string; serviceAccount: string } {
  node.allowKeys(['namespace', 'serviceAccount']);
  return { namespace: node.required('namespace').text(), serviceAccount: node.required('serviceAccount').text() };
}

function stringMatchFrom(node: YamlNode): StringMatch {
  node.allowKeys(['Exact', 'Prefix', 'Suffix', 'Presence']);
  const [[kind, value] = [], ...more] = node.entries((key, entry) => [key, entry] as const);
  if (kind === undefined || value === undefined || more.length > 0) throw node.error('expected one of Exact, Prefix, Suffix, Presence');
  if (kind === 'Presence') return { presence: true };
  if (kind === 'Exact') return { exact: value.text() };
  return kind === 'Prefix' ? { prefix: value.text() } : { suffix: value.text() };
}
