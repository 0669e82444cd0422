/** Kubernetes Service → mesh service, and mesh service → what ztunnel is told (Istio, pilot/pkg/serviceregistry/ambient). */
import { ipBytes } from '../../common/base/address.ts';
import {
  type GatewayAddress,
  IPFamilies,
  type LoadBalancing,
  type NetworkAddress,
  type Service,
  Service_Visibility,
  type WeightedWaypoint,
} from '../../common/codec/gen/workload.ts';
import { appProtocolOf } from './app-protocol.ts';
import type { MeshModelConfig } from './config.ts';
import { distribution, nodeOnly, withUnhealthy } from './load-balancing.ts';
import type { MeshPort, MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import { at, objectKey, portOf, quote, type Report, readMeta, records, selectorLabels, text, texts, whole } from './objects.ts';

/** @returns undefined for ExternalName, which is a DNS alias and nothing that traffic can be sent to */
export function readService(config: MeshModelConfig, object: unknown, report: Report): MeshService | undefined {
  const meta = readMeta(object);
  const spec = at(object, 'spec');
  if (!meta || at(spec, 'type') === 'ExternalName') return undefined;
  const selector = selectorLabels(at(spec, 'selector'), 'spec.selector', report);
  return {
    source: 'Service',
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    hostname: `${meta.name}.${meta.namespace}.svc.${config.domain}`,
    createdAt: meta.createdAt,
    selector: selector !== 'unreadable' && selector && Object.keys(selector).length > 0 ? selector : undefined,
    ports: records(at(spec, 'ports')).flatMap((port) => servicePort(port, report)),
    addresses: clusterAddresses(config, spec, report),
    loadBalancing: at(spec, 'internalTrafficPolicy') === 'Local' ? nodeOnly() : undefined,
    distribution: text(at(spec, 'trafficDistribution')) || meta.annotations[names.TRAFFIC_DISTRIBUTION],
    allowUnhealthy: at(spec, 'publishNotReadyAddresses') === true,
    ipFamilies: families(texts(at(spec, 'ipFamilies'))),
    subjectAltNames: [],
    visibility: Service_Visibility.PUBLIC,
  };
}

/** What a namespace, a waypoint and the other services of the same hostname add to a service. */
export interface ServiceSurroundings {
  /** The namespace's annotation, for services that have no word of their own. */
  readonly distribution: string | undefined;
  readonly waypoint: GatewayAddress | undefined;
  readonly weightedWaypoints: readonly WeightedWaypoint[];
  readonly ingressUseWaypoint: boolean;
  /** Wins its hostname over all namespaces. */
  readonly canonical: boolean;
}

export function serviceMessage(service: MeshService, around: ServiceSurroundings): Service {
  const balancing = service.loadBalancing ?? distribution(service.distribution ?? around.distribution);
  return {
    name: service.name,
    namespace: service.namespace,
    hostname: service.hostname,
    addresses: [...service.addresses],
    ports: service.ports.map(({ port, target, appProtocol }) => ({ servicePort: port, targetPort: target, appProtocol })),
    subjectAltNames: [...service.subjectAltNames],
    waypoint: around.waypoint,
    loadBalancing: service.allowUnhealthy ? withUnhealthy(balancing) : copy(balancing),
    ipFamilies: service.ipFamilies,
    extensions: [],
    canonical: around.canonical,
    ingressUseWaypoint: around.ingressUseWaypoint,
    weightedWaypoints: [...around.weightedWaypoints],
    visibility: service.visibility,
  };
}

const copy = (balancing: LoadBalancing | undefined): LoadBalancing | undefined => balancing && { ...balancing };

function servicePort(port: Record<string, unknown>, report: Report): MeshPort[] {
  const number = portOf(port.port);
  if (number === undefined) {
    report(`spec.ports: ${quote(port.port)} is no port`);
    return [];
  }
  const name = text(port.name);
  return [
    {
      port: number,
      name,
      ...target(port.targetPort, number, report),
      appProtocol: appProtocolOf({ number, name, protocol: text(port.protocol), appProtocol: text(port.appProtocol) }),
    },
  ];
}

/** A number, a name, or nothing, which means the service's own number (the API server writes that out). */
function target(value: unknown, port: number, report: Report): { target: number; targetName: string } {
  if (value === undefined || value === null) return { target: port, targetName: '' };
  const number = portOf(value);
  if (number !== undefined) return { target: number, targetName: '' };
  if (typeof value === 'string' && value !== '') return { target: 0, targetName: value };
  // 0 is the type's zero value, and what Istio makes of it is 0 as well.
  if (whole(value) !== 0) report(`spec.ports: targetPort ${quote(value)} is neither a port nor a name`);
  return { target: 0, targetName: '' };
}

function clusterAddresses(config: MeshModelConfig, spec: unknown, report: Report): NetworkAddress[] {
  const listed = texts(at(spec, 'clusterIPs'));
  const written = listed.length > 0 ? listed : [text(at(spec, 'clusterIP'))];
  return written.flatMap((ip) => {
    if (ip === '' || ip === 'None') return [];
    const address = ipBytes(ip);
    if (!address) report(`spec.clusterIPs: ${quote(ip)} is no address`);
    return address ? [{ network: config.network, address, length: undefined }] : [];
  });
}

function families(words: readonly string[]): IPFamilies {
  const four = words.includes('IPv4');
  const six = words.includes('IPv6');
  if (four && six) return IPFamilies.DUAL;
  if (four) return IPFamilies.IPV4_ONLY;
  return six ? IPFamilies.IPV6_ONLY : IPFamilies.AUTOMATIC;
}
