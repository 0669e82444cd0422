/**
 * A ztunnel's configuration dump as its tables need it: ours, or Istio's of any age (Istio, istioctl/pkg/writer/ztunnel/configdump): older ones
 * have objects keyed by address where newer ones have lists, one per address and therefore some entries several times.
 */
export interface DumpGateway {
  /** `network/ip` or `namespace/hostname`. */
  readonly destination: string;
}

export interface DumpWorkload {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly workloadIps: readonly string[];
  readonly hostname: string;
  readonly node: string;
  readonly protocol: string;
  readonly status: string;
  readonly waypoint: DumpGateway | undefined;
}

export interface DumpService {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  /** `network/ip`. */
  readonly vips: readonly string[];
  readonly waypoint: DumpGateway | undefined;
  readonly endpoints: Readonly<Record<string, { readonly workloadUid: string }>>;
}

export interface DumpPolicy {
  readonly name: string;
  readonly namespace: string;
  readonly action: string;
  readonly scope: string;
}

export interface DumpCertificate {
  readonly identity: string;
  readonly state: string;
  readonly certChain: readonly CertificateFacts[];
  readonly rootCerts: readonly CertificateFacts[];
}

interface CertificateFacts {
  /** Decimal. */
  readonly serialNumber: string;
  /** RFC 3339. */
  readonly validFrom: string;
  readonly expirationTime: string;
}

export interface DumpConnections {
  readonly state: string;
  readonly info: { readonly name: string; readonly namespace: string };
  readonly connections: { readonly inbound: readonly DumpConnection[]; readonly outbound: readonly DumpConnection[] };
}

export interface DumpConnection {
  readonly src: string;
  readonly originalDst: string | null | undefined;
  readonly actualDst: string;
  readonly protocol: string;
}

export interface ZtunnelDump {
  readonly workloads: readonly DumpWorkload[];
  readonly services: readonly DumpService[];
  readonly policies: readonly DumpPolicy[];
  readonly certificates: readonly DumpCertificate[];
  readonly workloadState: readonly DumpConnections[];
}

type Json = Record<string, unknown>;

/** @throws {Error} naming what is not as a dump has it */
export function readDump(json: unknown): ZtunnelDump {
  if (!isObject(json)) throw new Error('a configuration dump is a JSON object');
  const unique = <T extends Json>(items: T[], key: (item: T) => string): T[] => [
    ...new Map(items.map((item) => [key(item), item])).values(),
  ];
  return {
    workloads: unique(listOf(json, 'workloads'), ({ uid }) => text(uid)).map((workload) => ({
      uid: text(workload.uid),
      name: text(workload.name),
      namespace: text(workload.namespace),
      workloadIps: texts(workload.workloadIps),
      hostname: text(workload.hostname),
      node: text(workload.node),
      protocol: text(workload.protocol),
      status: text(workload.status),
      waypoint: gateway(workload.waypoint),
    })),
    services: unique(listOf(json, 'services'), ({ namespace, hostname }) => `${text(namespace)}/${text(hostname)}`).map((service) => ({
      name: text(service.name),
      namespace: text(service.namespace),
      hostname: text(service.hostname),
      vips: texts(service.vips),
      waypoint: gateway(service.waypoint),
      endpoints: isObject(service.endpoints)
        ? Object.fromEntries(
            Object.entries(service.endpoints).map(([key, endpoint]) => [
              key,
              { workloadUid: isObject(endpoint) ? text(endpoint.workloadUid) : '' },
            ]),
          )
        : {},
    })),
    policies: listOf(json, 'policies').map(({ name, namespace, action, scope }) => ({
      name: text(name),
      namespace: text(namespace),
      action: text(action),
      scope: text(scope),
    })),
    certificates: listOf(json, 'certificates').map(({ identity, state, certChain, rootCerts }) => ({
      identity: text(identity),
      state: text(state),
      certChain: facts(certChain),
      rootCerts: facts(rootCerts),
    })),
    workloadState: listOf(json, 'workloadState').map(readConnections),
  };
}

/** One entry of `workloadState`. */
export function readConnections(entry: Json): DumpConnections {
  const info = isObject(entry.info) ? entry.info : {};
  const both = isObject(entry.connections) ? entry.connections : {};
  const connections = (value: unknown): DumpConnection[] =>
    (Array.isArray(value) ? value : []).filter(isObject).map(({ src, originalDst, actualDst, protocol }) => ({
      src: text(src),
      originalDst: text(originalDst),
      actualDst: text(actualDst),
      protocol: text(protocol),
    }));
  return {
    state: text(entry.state),
    info: { name: text(info.name), namespace: text(info.namespace) },
    connections: { inbound: connections(both.inbound), outbound: connections(both.outbound) },
  };
}

function listOf(json: Json, field: string): Json[] {
  const value = json[field] ?? [];
  const items = Array.isArray(value) ? value : isObject(value) ? Object.values(value) : undefined;
  if (!items?.every(isObject)) throw new Error(`${field} of the configuration dump: expected a list of objects`);
  return items;
}

const facts = (value: unknown): CertificateFacts[] =>
  (Array.isArray(value) ? value : []).filter(isObject).map(({ serialNumber, validFrom, expirationTime }) => ({
    serialNumber: text(serialNumber),
    validFrom: text(validFrom),
    expirationTime: text(expirationTime),
  }));

const gateway = (value: unknown): DumpGateway | undefined => (isObject(value) ? { destination: text(value.destination) } : undefined);

const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(text) : []);

const isObject = (value: unknown): value is Json => value !== null && typeof value === 'object' && !Array.isArray(value);
