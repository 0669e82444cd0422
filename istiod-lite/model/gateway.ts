/**
 * Gateways as the mesh sees them: any Gateway with an address can be a waypoint, whatever its class (Istio, pilot/pkg/serviceregistry/ambient/waypoints.go), and one of
 * class `istio-remote` stands for another network's gateway (§7).
 */
import { ipBytes } from '../../common/base/address.ts';
import { type ApplicationTunnel, type GatewayAddress, ApplicationTunnel_Protocol as Tunnel } from '../../common/codec/gen/workload.ts';
import type { MeshModelConfig } from './config.ts';
import * as names from './names.ts';
import { at, isRecord, type Labels, objectKey, pick, portOf, quote, type Report, readMeta, records, text, whole } from './objects.ts';
import { labelSelectorPicks } from './selectors.ts';

export interface Gateway {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly className: string;
  /** WAYPOINT_FOR and NETWORK, where the Gateway has them. */
  readonly labels: Labels;
  /** INBOUND_BINDING, where the Gateway has it. */
  readonly annotations: Labels;
  readonly listeners: readonly Listener[];
  readonly generation: number;
  /** Its name in other words: that of the Service that leads to it. */
  readonly serviceName: string;
  /** Label istio.io/rev: which control plane is to look after it; undefined leaves it to the only one. */
  readonly revision: string | undefined;
  /** undefined as long as the status has no address: not ready to be a waypoint. */
  readonly address: GatewayAddress['destination'];
}

export interface Listener {
  readonly name: string;
  readonly protocol: string;
  readonly port: number;
  readonly from: string;
  readonly selector: unknown;
}

export interface GatewayClass {
  readonly name: string;
  readonly controller: string;
  readonly generation: number;
  readonly labels: Labels;
  readonly annotations: Labels;
  /** Why it is not carried out as it is written; empty where it is. */
  readonly problem: string;
}

export function readGateway(config: MeshModelConfig, object: unknown, report: Report): Gateway | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  checkWaypointWords(meta, report);
  return {
    key: objectKey(meta),
    namespace: meta.namespace,
    name: meta.name,
    className: text(at(object, 'spec', 'gatewayClassName')),
    labels: pick(meta.labels, [names.WAYPOINT_FOR, names.NETWORK]),
    annotations: pick(meta.annotations, [names.INBOUND_BINDING]),
    listeners: records(at(object, 'spec', 'listeners')).map((listener) => ({
      name: text(listener.name),
      protocol: text(listener.protocol),
      port: whole(listener.port) ?? 0,
      from: text(at(listener, 'allowedRoutes', 'namespaces', 'from')),
      selector: at(listener, 'allowedRoutes', 'namespaces', 'selector'),
    })),
    generation: meta.generation,
    serviceName: meta.annotations[names.NAME_OVERRIDE] ?? meta.name,
    revision: meta.labels[names.REVISION],
    address: gatewayAddress(config, object, meta.namespace, report),
  };
}

/** @param report of classes of our own controller; others' are theirs to judge */
export function readGatewayClass(object: unknown, report: Report): GatewayClass | undefined {
  const meta = readMeta(object);
  if (!meta) return undefined;
  const controller = text(at(object, 'spec', 'controllerName'));
  const isOurs = controller === names.WAYPOINT_CONTROLLER;
  if (isOurs) checkWaypointWords(meta, report);
  return {
    name: meta.name,
    controller,
    generation: meta.generation,
    labels: pick(meta.labels, [names.WAYPOINT_FOR]),
    annotations: pick(meta.annotations, [names.INBOUND_BINDING]),
    problem: isOurs && at(object, 'spec', 'parametersRef') !== undefined ? PARAMETERS_UNREAD : '',
  };
}

const PARAMETERS_UNREAD = `spec.parametersRef is not read, and its Gateways are deployed without: the defaults of a class are those of the ConfigMap with the label ${names.DEFAULTS_FOR_CLASS}`;

/** What Gateways and their classes say of waypoints beside their specs. */
function checkWaypointWords({ labels, annotations }: { readonly labels: Labels; readonly annotations: Labels }, report: Report): void {
  const type = labels[names.WAYPOINT_FOR];
  if (type !== undefined && !['service', 'workload', 'all', 'none'].includes(type)) {
    report(`label ${names.WAYPOINT_FOR}: ${quote(type)} is none of service, workload, all, none, so the waypoint takes no traffic`);
  }
  const binding = annotations[names.INBOUND_BINDING];
  if (binding !== undefined && !readBinding(binding)) {
    report(
      `annotation ${names.INBOUND_BINDING}: ${quote(binding)} is none of PROXY, NONE, PROXY/PORT, NONE/PORT, so connections come by HBONE`,
    );
  }
}

/** Which traffic a waypoint takes; a word that is none of these takes nothing. */
export const trafficType = (gateway: Gateway, gatewayClass: GatewayClass | undefined): string =>
  gateway.labels[names.WAYPOINT_FOR] ?? gatewayClass?.labels[names.WAYPOINT_FOR] ?? 'service';

/** Where and how the waypoint wants its connections, when it does not speak HBONE itself. */
export interface InboundBinding {
  readonly protocol: string;
  /** 0 keeps the port of the CONNECT. */
  readonly port: number;
}

function inboundBinding(gateway: Gateway, gatewayClass: GatewayClass | undefined): InboundBinding | undefined {
  const written = gateway.annotations[names.INBOUND_BINDING] ?? gatewayClass?.annotations[names.INBOUND_BINDING];
  return written === undefined ? undefined : readBinding(written);
}

function readBinding(written: string): InboundBinding | undefined {
  const [protocol = '', port] = written.split('/', 2);
  if (protocol !== 'PROXY' && protocol !== 'NONE') return undefined;
  if (port === undefined) return { protocol, port: 0 };
  const number = portOf(port);
  return number === undefined ? undefined : { protocol, port: number };
}

export function applicationTunnel(gateway: Gateway, gatewayClass: GatewayClass | undefined): ApplicationTunnel | undefined {
  const binding = inboundBinding(gateway, gatewayClass);
  return binding && { protocol: binding.protocol === 'PROXY' ? Tunnel.PROXY : Tunnel.NONE, port: binding.port };
}

export type AllowedNamespaces =
  | { readonly from: 'All' }
  | { readonly from: 'Same' }
  | { readonly from: 'Selector'; readonly selector: unknown };

/** Which namespaces may attach: what the listener says on which the waypoint takes its traffic. */
export function allowedNamespaces(gateway: Gateway, gatewayClass: GatewayClass | undefined): AllowedNamespaces {
  const binding = inboundBinding(gateway, gatewayClass);
  const listener = gateway.listeners.find(({ protocol, port }) =>
    binding
      ? protocol === `istio.io/${binding.protocol}` && (binding.port === 0 || port === binding.port)
      : protocol === 'HBONE' && port === names.HBONE_PORT,
  );
  if (listener?.from === 'All') return { from: 'All' };
  if (listener?.from === 'Selector' && isRecord(listener.selector)) return { from: 'Selector', selector: listener.selector };
  return { from: 'Same' };
}

export function mayAttach(gateway: Gateway, gatewayClass: GatewayClass | undefined, namespace: string, namespaceLabels: Labels): boolean {
  const allowed = allowedNamespaces(gateway, gatewayClass);
  if (allowed.from === 'All') return true;
  if (allowed.from === 'Selector') return labelSelectorPicks(allowed.selector, namespaceLabels);
  return namespace === gateway.namespace;
}

/** The network that a Gateway of class `istio-remote` leads to, with the address of its HBONE listener. */
export function networkGateway(gateway: Gateway): { network: string; address: GatewayAddress } | undefined {
  const network = gateway.labels[names.NETWORK];
  if (gateway.className !== 'istio-remote' || !network || !gateway.address) return undefined;
  const port = gateway.listeners.find(({ protocol }) => protocol === 'HBONE')?.port || names.HBONE_PORT;
  const { address } = gateway;
  const destination = address.$case === 'address' ? { $case: address.$case, value: { ...address.value, network } } : address;
  return { network, address: { destination, hboneMtlsPort: port } };
}

/** A hostname is preferred: it survives the replacement of the Service behind it. */
function gatewayAddress(config: MeshModelConfig, object: unknown, namespace: string, report: Report): GatewayAddress['destination'] {
  const addresses = records(at(object, 'status', 'addresses'));
  const hostname = addresses.find(({ type, value }) => type === 'Hostname' && text(value) !== '');
  if (hostname) return { $case: 'hostname', value: { namespace, hostname: text(hostname.value) } };
  for (const { type, value } of addresses) {
    if (type !== undefined && type !== 'IPAddress') continue;
    const address = ipBytes(text(value));
    if (address) return { $case: 'address', value: { network: config.network, address, length: undefined } };
    report(`status.addresses: ${quote(value)} is no address`, 'mild');
  }
  return undefined;
}
