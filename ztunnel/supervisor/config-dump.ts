/**
 * `config_dump`: everything that this ztunnel knows, in the shape that `istioctl ztunnel-config` reads (istio-data-plane.md §10.3). Fields
 * with their default value are left out, as Istio's ztunnel leaves them out. Keys never appear.
 */
import { X509Certificate } from 'node:crypto';
import { formatCidr } from '../../common/base/address.ts';
import { splitCertificates } from '../../common/codec/x509/pem.ts';
import {
  type Endpoint,
  type GatewayAddress,
  type NetworkAddress,
  type Policy,
  type PolicyMatch,
  type Service,
  type StringMatch,
  serviceKey,
  type Workload,
} from '../../common/decision/mesh-view.ts';
import type { CertificateState } from '../certificates/keeper.ts';
import type { ConnectionDump } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';
import { VERSION } from '../version.ts';
import type { PodState } from './pods.ts';

export interface DumpSources {
  workloads(): Iterable<Workload>;
  services(): Iterable<Service>;
  policies(): Iterable<Policy>;
  endpoints(service: Service): readonly Endpoint[];
  certificates(): readonly CertificateState[];
  pods(): readonly PodState[];
  connections(): Promise<readonly ConnectionDump[]>;
  readonly settings: ZtunnelSettings;
}

export async function configDump(sources: DumpSources): Promise<object> {
  const connections = await sources.connections();
  return {
    workloads: [...sources.workloads()].map(workloadDump),
    services: [...sources.services()].map((service) => serviceDump(service, sources.endpoints(service))),
    policies: [...sources.policies()].map(policyDump),
    stagedServices: {},
    staticConfig: { workloads: [], policies: [], services: [] },
    version: {
      version: VERSION,
      gitRevision: 'unknown',
      rustVersion: `none: warren on Node ${process.versions.node}`,
      buildProfile: 'release',
      buildStatus: 'Clean',
      istioVersion: String(sources.settings.metadata.ISTIO_VERSION ?? 'unknown'),
      cryptoProvider: `openssl ${process.versions.openssl}`,
    },
    config: settingsDump(sources.settings),
    certificates: sources.certificates().map(certificateDump),
    workloadState: Object.fromEntries(sources.pods().map((pod) => [pod.uid, podDump(pod, connections)])),
  };
}

const networkAddress = ({ network, ip }: NetworkAddress): string => `${network}/${ip}`;

function gateway({ destination, hbonePort }: GatewayAddress): object {
  const name = 'address' in destination ? networkAddress(destination.address) : `${destination.namespace}/${destination.hostname}`;
  return { destination: name, hboneMtlsPort: hbonePort };
}

const ports = (map: ReadonlyMap<number, number>): object => Object.fromEntries([...map].map(([from, to]) => [String(from), to]));

/** Leaves out what is undefined, empty or false. */
function present(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => {
      if (value === undefined || value === '' || value === false) return false;
      return !(Array.isArray(value) && value.length === 0);
    }),
  );
}

function workloadDump(workload: Workload): object {
  const { applicationTunnel: tunnel, locality } = workload;
  return {
    workloadIps: workload.addresses,
    ...present({
      waypoint: workload.waypoint && gateway(workload.waypoint),
      networkGateway: workload.networkGateway && gateway(workload.networkGateway),
    }),
    protocol: workload.protocol,
    networkMode: workload.hostNetwork ? 'HostNetwork' : 'Standard',
    uid: workload.uid,
    name: workload.name,
    namespace: workload.namespace,
    trustDomain: workload.trustDomain,
    serviceAccount: workload.serviceAccount,
    network: workload.network,
    workloadName: workload.workloadName,
    workloadType: workload.workloadType,
    canonicalName: workload.canonicalName,
    canonicalRevision: workload.canonicalRevision,
    ...present({
      hostname: workload.hostname,
      nativeTunnel: workload.nativeTunnel,
      applicationTunnel: tunnel && present({ protocol: tunnel.protocol, port: tunnel.port === 0 ? undefined : tunnel.port }),
      authorizationPolicies: workload.authorizationPolicies,
      locality: locality.region === '' && locality.zone === '' && locality.subzone === '' ? undefined : locality,
    }),
    node: workload.node,
    status: workload.healthy ? 'Healthy' : 'Unhealthy',
    clusterId: workload.clusterId,
    services: [...workload.services.keys()],
    capacity: workload.capacity,
  };
}

const SCOPES = { REGION: 'Region', ZONE: 'Zone', SUBZONE: 'Subzone', NODE: 'Node', CLUSTER: 'Cluster', NETWORK: 'Network' } as const;
const MODES = { STANDARD: 'Standard', STRICT: 'Strict', FAILOVER: 'Failover', PASSTHROUGH: 'Passthrough' } as const;

function serviceDump(service: Service, endpoints: readonly Endpoint[]): object {
  const { loadBalancing } = service;
  const plain = loadBalancing.mode === 'STANDARD' && loadBalancing.preferences.length === 0 && !loadBalancing.allowUnhealthy;
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    vips: service.addresses.map(networkAddress),
    ports: ports(service.ports),
    endpoints: Object.fromEntries(
      endpoints.map(({ workload, ports: own }) => [
        workload.uid,
        { workloadUid: workload.uid, service: serviceKey(service), port: ports(own), status: workload.healthy ? 'Healthy' : 'Unhealthy' },
      ]),
    ),
    ...present({
      cidrVips: service.ranges.map(({ network, cidr }) => ({ network, cidr: formatCidr(cidr) })),
      subjectAltNames: service.subjectAltNames,
      waypoint: service.waypoint && gateway(service.waypoint),
      weightedWaypoints: service.weightedWaypoints.map(({ gateway: to, weight }) => ({ destination: gateway(to), weight })),
      loadBalancer: plain
        ? undefined
        : {
            routingPreferences: loadBalancing.preferences.map((scope) => SCOPES[scope]),
            mode: MODES[loadBalancing.mode],
            healthPolicy: loadBalancing.allowUnhealthy ? 'AllowAll' : 'OnlyHealthy',
          },
      ipFamilies: service.ipFamily === undefined ? undefined : service.ipFamily === 'IPV4' ? 'IPv4' : 'IPv6',
      canonical: service.canonical,
    }),
    visibility: service.namespaceOnly ? 'Namespace' : 'Public',
  };
}

const POLICY_SCOPES = { GLOBAL: 'Global', NAMESPACE: 'Namespace', WORKLOAD_SELECTOR: 'WorkloadSelector' } as const;

function policyDump(policy: Policy): object {
  return {
    name: policy.name,
    namespace: policy.namespace,
    scope: POLICY_SCOPES[policy.scope],
    action: policy.action === 'ALLOW' ? 'Allow' : 'Deny',
    rules: policy.groups.map((rules) => rules.map((matches) => matches.map(matchDump))),
    dryRun: policy.dryRun,
  };
}

function stringMatch(match: StringMatch): object {
  if ('exact' in match) return { Exact: match.exact };
  if ('prefix' in match) return { Prefix: match.prefix };
  if ('suffix' in match) return { Suffix: match.suffix };
  return { Presence: [] };
}

function matchDump(match: PolicyMatch): object {
  return present({
    namespaces: match.namespaces.map(stringMatch),
    notNamespaces: match.notNamespaces.map(stringMatch),
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
    principals: match.principals.map(stringMatch),
    notPrincipals: match.notPrincipals.map(stringMatch),
    sourceIps: match.sourceIps.map(formatCidr),
    notSourceIps: match.notSourceIps.map(formatCidr),
    destinationIps: match.destinationIps.map(formatCidr),
    notDestinationIps: match.notDestinationIps.map(formatCidr),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
  });
}

function certificateDump(state: CertificateState): object {
  if (state.at === 'initializing') return { identity: state.identity, state: 'Initializing', certChain: [], rootCerts: [] };
  if (state.at === 'unavailable') return { identity: state.identity, state: `Unavailable: ${state.reason}`, certChain: [], rootCerts: [] };
  const { chain, roots } = state.certificate;
  return {
    identity: state.identity,
    state: 'Available',
    certChain: splitCertificates(chain).map(oneCertificate),
    rootCerts: splitCertificates(roots).map(oneCertificate),
  };
}

function oneCertificate(pem: string): object {
  const read = new X509Certificate(pem);
  return {
    pem: Buffer.from(pem).toString('base64'),
    serialNumber: BigInt(`0x${read.serialNumber}`).toString(),
    validFrom: read.validFromDate.toISOString().replace('.000', ''),
    expirationTime: read.validToDate.toISOString().replace('.000', ''),
  };
}

function podDump({ uid, info, state }: PodState, connections: readonly ConnectionDump[]): object {
  const own = connections.filter((connection) => connection.uid === uid);
  const of = (direction: ConnectionDump['direction']): object[] =>
    own
      .filter((connection) => connection.direction === direction)
      .map(({ src, originalDst, actualDst, protocol }) => ({ src, originalDst, actualDst, protocol }));
  return { state, connections: { inbound: of('inbound'), outbound: of('outbound') }, info };
}

/** Settings that could hold a secret, or that are much and say little. */
const HIDDEN: ReadonlySet<string> = new Set(['authToken', 'localXds', 'xds', 'ca', 'xdsRoot', 'caRoot']);

function settingsDump(settings: ZtunnelSettings): object {
  const plain = Object.entries(settings).filter(([key, value]) => !HIDDEN.has(key) && value !== undefined);
  return { ...Object.fromEntries(plain), xdsAddress: settings.xds?.target ?? null, caAddress: settings.ca?.target ?? null };
}
