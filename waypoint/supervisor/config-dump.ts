/** `config_dump` of a waypoint: everything that it knows of the mesh, its routes and policies, and its certificate. Keys never appear. */
import { X509Certificate } from 'node:crypto';
import { VERSION } from '../../common/base/version.ts';
import type { CertificateState } from '../../common/certificates/keeper.ts';
import { splitCertificates } from '../../common/codec/x509/pem.ts';
import type { StateDump } from '../../common/state/config-dump.ts';
import type { WaypointSettings } from '../settings.ts';
import type { WaypointResources } from './resources.ts';

export interface DumpSources {
  state(): StateDump;
  certificates(): readonly CertificateState[];
  readonly resources: Pick<WaypointResources, 'dump'>;
  readonly settings: WaypointSettings;
}

export function configDump({ state, certificates, resources, settings }: DumpSources): object {
  return {
    ...state(),
    ...resources.dump(),
    version: { version: VERSION, nodeVersion: process.versions.node },
    config: settingsDump(settings),
    certificates: certificates().map(certificateDump),
  };
}

function certificateDump(state: CertificateState): object {
  if (state.at === 'initializing') return { identity: state.identity, state: 'Initializing', certChain: [] };
  if (state.at === 'unavailable') return { identity: state.identity, state: `Unavailable: ${state.reason}`, certChain: [] };
  return {
    identity: state.identity,
    state: 'Available',
    certChain: splitCertificates(state.certificate.chain).map((pem) => {
      const read = new X509Certificate(pem);
      return {
        serialNumber: BigInt(`0x${read.serialNumber}`).toString(),
        validFrom: read.validFromDate.toISOString(),
        expirationTime: read.validToDate.toISOString(),
      };
    }),
  };
}

/** Settings that could hold a secret, or that are much and say little. */
const HIDDEN: ReadonlySet<string> = new Set(['authToken', 'xds', 'ca', 'xdsRoot', 'caRoot']);

function settingsDump(settings: WaypointSettings): object {
  const plain = Object.entries(settings).filter(([key, value]) => !HIDDEN.has(key) && value !== undefined);
  return { ...Object.fromEntries(plain), xdsAddress: settings.xds?.target ?? null, caAddress: settings.ca?.target ?? null };
}
