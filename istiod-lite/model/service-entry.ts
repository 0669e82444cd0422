/** ServiceEntry → mesh services and the workloads of its endpoints (Istio, pilot/pkg/serviceregistry/ambient). */
import { ipBytes, parseCidr } from '../../common/base/address.ts';
import { IPFamilies, type NetworkAddress, Service_Visibility, type Workload } from '../../common/codec/gen/workload.ts';
import { declaredProtocol } from './app-protocol.ts';
import type { MeshModelConfig, Visibility } from './config.ts';
import { type Endpoint, endpointWorkload, readEndpoint } from './endpoint.ts';
import { addressText, isForbiddenAddress, isForEverybody, mayClaimHost } from './entry-claims.ts';
import { passthrough } from './load-balancing.ts';
import type { MeshPort, MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import {
  at,
  type Labels,
  type ObjectMeta,
  objectKey,
  portOf,
  quote,
  type Report,
  readMeta,
  records,
  selectorLabels,
  text,
  texts,
} from './objects.ts';
import type { Surroundings } from './workload.ts';
import { canonicalName, canonicalRevision } from './workload-name.ts';

export interface ServiceEntry {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: Labels;
  readonly createdAt: string;
  readonly resolution: string;
  readonly hosts: readonly HostAddresses[];
  readonly ports: readonly MeshPort[];
  readonly selector: Labels | undefined;
  readonly endpoints: readonly Endpoint[];
  readonly distribution: string | undefined;
  readonly subjectAltNames: readonly string[];
  /** Hosts and addresses that it may not claim, and which count for nothing. */
  readonly refused: readonly string[];
}

interface HostAddresses {
  readonly host: string;
  readonly addresses: readonly NetworkAddress[];
}

/** An endpoint together with the hosts that it serves: all of them, unless it stands for one host's DNS name. */
export interface EntryEndpoint {
  readonly endpoint: Endpoint;
  readonly host: string | undefined;
}

const RESOLVED_BY_NAME = ['DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'];

export function readServiceEntry(config: MeshModelConfig, object: unknown, report: Report): ServiceEntry | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const spec = at(object, 'spec');
  const selector = selectorLabels(at(spec, 'workloadSelector', 'labels'), 'spec.workloadSelector.labels', report);
  const resolution = text(at(spec, 'resolution')) || 'NONE';
  const written = entryHosts(config, object, meta, resolution, report);
  const foreign = written.filter(({ host }) => !mayClaimHost(config, meta.namespace, host)).map(({ host }) => host);
  const forbidden = config.guardClaims
    ? [
        ...new Set(
          written
            .flatMap(({ addresses }) => addresses)
            .filter(isForbiddenAddress)
            .map(addressText),
        ),
      ]
    : [];
  const hosts = written.filter(({ host }) => !foreign.includes(host));
  const wider = texts(at(spec, 'exportTo')).filter((to) => to !== '.' && to !== meta.namespace);
  const exported = hosts.every(({ host }) => isForEverybody(config, meta.namespace, host)) ? [] : wider;
  return {
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    labels: meta.labels,
    createdAt: meta.createdAt,
    resolution,
    hosts: hosts.map(({ host, addresses }) => ({
      host,
      addresses: addresses.filter((address) => !forbidden.includes(addressText(address))),
    })),
    ports: records(at(spec, 'ports')).flatMap((port) => entryPort(port, report)),
    // An empty selector would pick every pod of the namespace; Istio takes it as none.
    selector: selector !== 'unreadable' && selector && Object.keys(selector).length > 0 ? selector : undefined,
    endpoints: distinct(
      records(at(spec, 'endpoints')).flatMap((item) => readEndpoint(item, report) ?? []),
      report,
    ),
    distribution: meta.annotations[names.TRAFFIC_DISTRIBUTION],
    subjectAltNames: texts(at(spec, 'subjectAltNames')),
    refused: [...foreign, ...forbidden, ...exported.map((to) => `exportTo ${to}`)],
  };
}

export function entryServices(entry: ServiceEntry, visibility: Visibility): MeshService[] {
  if (visibility === 'NONE') return [];
  const fixed = entry.resolution === 'NONE';
  return entry.hosts.map(({ host, addresses }) => ({
    source: 'ServiceEntry',
    key: entry.key,
    namespace: entry.namespace,
    name: entry.name,
    hostname: host,
    createdAt: entry.createdAt,
    selector: entry.selector,
    ports: entry.ports,
    addresses,
    loadBalancing: fixed ? passthrough() : undefined,
    distribution: entry.distribution,
    allowUnhealthy: false,
    ipFamilies: IPFamilies.AUTOMATIC,
    subjectAltNames: entry.subjectAltNames,
    visibility: visibility === 'NAMESPACE' ? Service_Visibility.NAMESPACE : Service_Visibility.PUBLIC,
  }));
}

/** The endpoints that are listed, or one for each host that ztunnel is to resolve by itself. */
export function entryEndpoints(entry: ServiceEntry): EntryEndpoint[] {
  if (entry.endpoints.length > 0) return entry.endpoints.map((endpoint) => ({ endpoint, host: undefined }));
  if (entry.selector || !RESOLVED_BY_NAME.includes(entry.resolution)) return [];
  return entry.hosts.map(({ host }) => ({ endpoint: hostEndpoint(host), host }));
}

export const entryEndpointUid = (config: MeshModelConfig, entry: ServiceEntry, endpoint: Endpoint): string =>
  `${config.clusterId}/networking.istio.io/ServiceEntry/${entry.key}/${endpoint.address}`;

export function entryWorkload(config: MeshModelConfig, entry: ServiceEntry, endpoint: Endpoint, around: Surroundings): Workload {
  return {
    ...endpointWorkload(config, endpoint, entry.labels, around),
    uid: entryEndpointUid(config, entry, endpoint),
    name: entry.name,
    namespace: entry.namespace,
    workloadName: entry.name,
    canonicalName: canonicalName(entry.labels, entry.name),
    canonicalRevision: canonicalRevision(entry.labels),
  };
}

const hostEndpoint = (host: string): Endpoint => ({
  address: host,
  bytes: undefined,
  labels: {},
  network: '',
  locality: '',
  weight: undefined,
  serviceAccount: '',
  ports: new Map(),
});

function entryHosts(config: MeshModelConfig, object: unknown, meta: ObjectMeta, resolution: string, report: Report): HostAddresses[] {
  const spec = at(object, 'spec');
  const written = texts(at(spec, 'addresses'));
  const own = written.flatMap((address) => virtualAddress(config, address, report) ?? []);
  const allocated = new Map<string, NetworkAddress[]>();
  if (written.length === 0 && resolution !== 'NONE' && meta.labels[names.ENABLE_AUTO_ALLOCATE_IP] !== 'false') {
    for (const { host, value } of records(at(object, 'status', 'addresses'))) {
      const address = virtualAddress(config, text(value), report);
      if (address) allocated.set(text(host), [...(allocated.get(text(host)) ?? []), address]);
    }
  }
  return [...new Set(texts(at(spec, 'hosts')))].map((host) => {
    if (host.startsWith('*') && resolution !== 'DYNAMIC_DNS') return { host, addresses: [] };
    return { host, addresses: written.length > 0 ? own : (allocated.get(host) ?? []) };
  });
}

/** An address, or a range whose length travels along. */
function virtualAddress(config: MeshModelConfig, written: string, report: Report): NetworkAddress | undefined {
  const cidr = parseCidr(written);
  if (!cidr) {
    report(`addresses: ${quote(written)} is neither an address nor a range`);
    return undefined;
  }
  const whole = cidr.length === cidr.bytes.length * 8;
  return {
    network: config.network,
    address: whole ? (ipBytes(written.split('/', 1)[0] ?? '') ?? cidr.bytes) : cidr.bytes,
    length: whole ? undefined : cidr.length,
  };
}

function entryPort(port: Record<string, unknown>, report: Report): MeshPort[] {
  const number = portOf(port.number);
  if (number === undefined) {
    report(`spec.ports: ${quote(port.number)} is no port`);
    return [];
  }
  const target = port.targetPort === undefined || port.targetPort === 0 ? number : portOf(port.targetPort);
  if (target === undefined) report(`spec.ports: targetPort ${quote(port.targetPort)} is no port`);
  return [
    { port: number, name: text(port.name), target: target ?? number, targetName: '', appProtocol: declaredProtocol(text(port.protocol)) },
  ];
}

/** Endpoints are told apart by their address alone; a second one of the same would take the first one's place. */
function distinct(endpoints: readonly Endpoint[], report: Report): Endpoint[] {
  const byAddress = new Map<string, Endpoint>();
  for (const endpoint of endpoints) {
    if (byAddress.has(endpoint.address))
      report(`spec.endpoints: ${endpoint.address} is listed more than once; the first one counts`, 'mild');
    else byAddress.set(endpoint.address, endpoint);
  }
  return [...byAddress.values()];
}
