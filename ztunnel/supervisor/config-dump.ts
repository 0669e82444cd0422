/**
 * `config_dump`: everything that this ztunnel knows, serves and carries, in the shape that `istioctl ztunnel-config` reads
 * (Istio's ztunnel, src/admin.rs). Private keys never appear.
 */
import { X509Certificate } from 'node:crypto';
import { VERSION } from '../../common/base/version.ts';
import type { CertificateState } from '../../common/certificates/keeper.ts';
import { splitCertificates } from '../../common/codec/x509/pem.ts';
import type { StateDump } from '../../common/state/config-dump.ts';
import type { ConnectionDump } from '../protocol.ts';
import type { ZtunnelSettings } from '../settings.ts';
import type { PodState } from './pods.ts';

export interface DumpSources {
  state(): StateDump;
  certificates(): readonly CertificateState[];
  pods(): readonly PodState[];
  connections(): Promise<readonly ConnectionDump[]>;
  readonly settings: ZtunnelSettings;
}

export async function configDump(sources: DumpSources): Promise<object> {
  const connections = await sources.connections();
  return {
    ...sources.state(),
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
