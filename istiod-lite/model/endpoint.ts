/** What WorkloadEntries and the endpoints of ServiceEntries share: an address somewhere, with ports, weight and locality of its own. */
import { ipBytes } from '../../common/base/address.ts';
import { TunnelProtocol, type Workload } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig } from './config.ts';
import { type NamedPorts, portsOnEntry } from './mesh-service.ts';
import { at, isRecord, type Labels, portOf, quote, type Report, text, textMap, whole } from './objects.ts';
import { blankWorkload, endsTunnels, localityOf, type Surroundings, servicePorts } from './workload.ts';

export interface Endpoint {
  /** As it was written: an address, a hostname, or empty where only the network is known. */
  readonly address: string;
  /** undefined for hostnames. */
  readonly bytes: Uint8Array | undefined;
  readonly labels: Labels;
  readonly network: string;
  /** `region/zone/subzone` */
  readonly locality: string;
  /** Share of the load; undefined counts 1. */
  readonly weight: number | undefined;
  readonly serviceAccount: string;
  readonly ports: NamedPorts;
}

/** @returns undefined for what cannot be reached over the network (unix sockets) or is not an endpoint at all */
export function readEndpoint(value: unknown, report: Report): Endpoint | undefined {
  if (!isRecord(value)) return undefined;
  const address = text(value.address);
  if (address.startsWith('unix://') || (address === '' && text(value.network) === '')) {
    report(address === '' ? 'an endpoint has neither address nor network' : `${address}: a unix socket is on no network`);
    return undefined;
  }
  const bytes = ipBytes(address);
  if (!bytes && address !== '' && !/^(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$/.test(address)) {
    report(`${quote(address)} is neither an address nor a hostname`);
    return undefined;
  }
  return {
    address,
    bytes,
    labels: textMap(value.labels),
    network: text(value.network),
    locality: text(value.locality),
    // 0 means "not given" in Istio's API, where weights start at 1.
    weight: whole(value.weight) || undefined,
    serviceAccount: text(value.serviceAccount),
    ports: namedPorts(value.ports, report),
  };
}

export function endpointWorkload(config: MeshModelConfig, endpoint: Endpoint, labels: Labels, around: Surroundings): Workload {
  const [region = '', zone = '', subzone = ''] = endpoint.locality.split('/');
  const native = endsTunnels(labels);
  return {
    ...blankWorkload(config, around),
    addresses: endpoint.bytes ? [endpoint.bytes] : [],
    hostname: endpoint.bytes ? '' : endpoint.address,
    network: endpoint.network || config.network,
    tunnelProtocol: native ? TunnelProtocol.HBONE : TunnelProtocol.NONE,
    nativeTunnel: native,
    serviceAccount: endpoint.serviceAccount,
    services: servicePorts(around.services, (service) => portsOnEntry(service, endpoint.ports)),
    locality: localityOf(region, zone, subzone),
    capacity: endpoint.weight,
  };
}

function namedPorts(value: unknown, report: Report): NamedPorts {
  const ports = new Map<string, number>();
  if (!isRecord(value)) return ports;
  for (const name of Object.keys(value)) {
    const number = portOf(at(value, name));
    if (number === undefined) report(`port ${name}: ${quote(value[name])} is no port`);
    else ports.set(name, number);
  }
  return ports;
}
