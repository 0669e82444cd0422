/**
 * What this ztunnel would do, told step by step to `meshctl explain`: the data path's own decisions on the data path's own state. Asks and
 * changes nothing else.
 */
import { formatSocketAddress, parseIp, parseSocketAddress, type SocketAddress } from '../../common/base/address.ts';
import { parseSpiffeId } from '../../common/base/spiffe.ts';
import type { InboundQuestion, OutboundQuestion } from '../../common/codec/gen/diagnostics.ts';
import { chooseServiceByAddress } from '../../common/decision/choose-service.ts';
import {
  explainInbound,
  explainOutbound,
  type InboundExplanation,
  type OutboundExplanation,
  podOf,
  type RouteSeen,
  type Step,
} from '../../common/decision/explain.ts';
import { type MeshView, serviceKey, type Workload } from '../../common/decision/mesh-view.ts';
import { lookupName } from '../dns/lookup.ts';
import type { ZtunnelSettings } from '../settings.ts';
import type { PodState } from './pods.ts';

export interface ExplainParts {
  readonly view: MeshView;
  readonly pods: readonly PodState[];
  readonly settings: Pick<ZtunnelSettings, 'network' | 'clusterDomain' | 'clusterId' | 'ipv6'>;
}

/** @throws {Error} for a pod or a name that this ztunnel does not know */
export function explainOutboundCall(
  parts: ExplainParts,
  { namespace, pod, host, port }: OutboundQuestion,
): OutboundExplanation & { readonly captured: boolean } {
  const { view, settings } = parts;
  const { network } = settings;
  const source = workloadOf(parts, namespace, pod);
  const captured = isCaptured(parts, namespace, pod);
  const steps: Step[] = [
    {
      stage: 'capture',
      text: captured
        ? `connections of ${namespace}/${pod} are redirected to this ztunnel`
        : `${namespace}/${pod} is not in the mesh: its connections leave it as they are, without an identity`,
    },
  ];
  const destination = resolve(parts, source, host.toLowerCase().replace(/\.$/, ''), port, steps);
  if (!captured) return { source: podOf(source), steps, captured, routes: plainRoutes(view, network, source, destination) };
  const explained = explainOutbound(view, { source, destination, network });
  return { ...explained, steps: [...steps, ...explained.steps], captured };
}

/** @throws {Error} for a pod that this ztunnel does not know, or a question that is none */
export function explainInboundCall(parts: ExplainParts, question: InboundQuestion): InboundExplanation & { readonly captured: boolean } {
  const { view, settings } = parts;
  const { network } = settings;
  const { namespace, pod, authority, identity } = question;
  const local = workloadOf(parts, namespace, pod);
  const destination = socketAddress(question.destination, 'destination');
  const source = socketAddress(question.source, 'source');
  const proved = identity === '' ? undefined : parseSpiffeId(identity);
  if (identity !== '' && !proved) throw new Error(`identity ${identity.slice(0, 300)} is no SPIFFE URI of the mesh`);
  if (!isCaptured(parts, namespace, pod)) {
    const text = `${namespace}/${pod} is not in the mesh: what is dialled reaches it, and no policy of the mesh is asked`;
    return {
      steps: [{ stage: 'destination', text }],
      to: question.destination,
      policies: [],
      allowed: true,
      reason: 'not in the mesh',
      captured: false,
    };
  }
  return { ...explainInbound(view, { local, network, source, identity: proved, authority, destination }), captured: true };
}

const isCaptured = ({ pods }: ExplainParts, namespace: string, name: string): boolean =>
  pods.some(({ info, state }) => info.namespace === namespace && info.name === name && state === 'Up');

function workloadOf({ view, pods, settings }: ExplainParts, namespace: string, name: string): Workload {
  const served = pods.find(({ info }) => info.namespace === namespace && info.name === name);
  const found = served ? view.workloadByPod(served.info) : view.workloadByUid(`${settings.clusterId}//Pod/${namespace}/${name}`);
  if (!found) throw new Error(`the control plane has not told this ztunnel about ${namespace}/${name}`);
  return found;
}

function resolve(parts: ExplainParts, client: Workload, host: string, port: number, steps: Step[]): SocketAddress {
  const ip = parseIp(host);
  if (ip !== undefined) {
    steps.push({ stage: 'name', text: `${host} is an address` });
    return { ip, port };
  }
  const { view, settings } = parts;
  const { clusterDomain, ipv6 } = settings;
  for (const type of ['A', 'AAAA'] as const) {
    const found = lookupName(view, { name: host, type, client, clusterDomain, preferredNamespace: undefined, ipv6 });
    const [first] = found?.addresses ?? [];
    if (!found || first === undefined) continue;
    steps.push({ stage: 'name', text: `${host} is ${found.service.hostname}, at ${found.addresses.join(', ')}` });
    return { ip: first, port };
  }
  throw new Error(
    `${host.slice(0, 300)} is no name of the mesh as ${client.namespace}/${client.name} would write it: give the address that its DNS answers`,
  );
}

/** Without a ztunnel in between, the node's own service handling picks any ready endpoint. */
function plainRoutes(view: MeshView, network: string, source: Workload, destination: SocketAddress): RouteSeen[] {
  const service = chooseServiceByAddress(view, network, destination.ip, source.namespace);
  if (!service) {
    const workload = view.workloadByAddress(network, destination.ip);
    return [{ via: 'passthrough', share: 1, to: formatSocketAddress(destination), ...(workload && { pod: podOf(workload) }) }];
  }
  const endpoints = view.endpoints(service).slice(0, 16);
  if (endpoints.length === 0)
    return [
      {
        via: 'refuse',
        share: 1,
        code: 'NO_HEALTHY_UPSTREAM',
        message: `no endpoint of ${service.hostname} is ready, so the node refuses it`,
        service: serviceKey(service),
      },
    ];
  return endpoints.flatMap(({ workload, ports }) => {
    const target = ports.get(destination.port) ?? service.ports.get(destination.port);
    const [ip] = workload.addresses;
    if (ip === undefined || target === undefined) return [];
    const to = formatSocketAddress({ ip, port: target });
    return [{ via: 'tcp' as const, share: 1 / endpoints.length, to, service: serviceKey(service), pod: podOf(workload) }];
  });
}

function socketAddress(text: string, name: string): SocketAddress {
  const address = parseSocketAddress(text);
  if (!address) throw new Error(`${name} ${text.slice(0, 100)}: expected ip:port`);
  return address;
}
