/** Pods, WorkloadEntries, endpoints of ServiceEntries and of EndpointSlices → the workloads that proxies are told. */
import type { GatewayAddress, Workload } from '../../common/codec/gen/workload.ts';
import type { RequiredWaypoint } from '../../common/decision/mesh-view.ts';
import type { Bindings, Bound } from './bindings.ts';
import type { Condition } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { sliceWorkload } from './endpoint-slice.ts';
import { networkGateway } from './gateway.ts';
import type { Inputs } from './inputs.ts';
import type { MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import type { Labels } from './objects.ts';
import { peerAuthenticationReference } from './peer-authentication.ts';
import { type Pod, podWorkload } from './pod.ts';
import { readWaypointWords, requiredWaypoint } from './required-waypoint.ts';
import { type EntryEndpoint, entryEndpoints, entryWorkload } from './service-entry.ts';
import { type WaypointBinding, waypointCondition } from './waypoint-binding.ts';
import { outboundTrafficPolicyOf, type Surroundings } from './workload.ts';
import { workloadEntryWorkload } from './workload-entry.ts';

export interface TranslatedWorkloads {
  readonly workloads: Workload[];
  /** Of the binding to a waypoint, for objects that show one. */
  readonly condition: Condition | undefined;
}

const NOTHING: TranslatedWorkloads = { workloads: [], condition: undefined };

export class WorkloadTranslation {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #bindings: Bindings;

  constructor(config: MeshModelConfig, inputs: Inputs, bindings: Bindings) {
    this.#config = config;
    this.#inputs = inputs;
    this.#bindings = bindings;
  }

  /** @param source `Kind/namespace/name` of a Pod, WorkloadEntry, ServiceEntry or EndpointSlice; gone ones make nothing */
  of(source: string): TranslatedWorkloads {
    const used = new Set<string>();
    const made = this.#made(source, used);
    this.#inputs.recordGateways('workload', source, used);
    return made;
  }

  #made(source: string, used: Set<string>): TranslatedWorkloads {
    const slash = source.indexOf('/');
    const key = source.slice(slash + 1);
    switch (source.slice(0, slash)) {
      case 'Pod':
        return this.#pod(key, used);
      case 'WorkloadEntry':
        return this.#workloadEntry(key, used);
      case 'ServiceEntry':
        return this.#serviceEntry(source, key, used);
      default:
        return this.#slice(key);
    }
  }

  #pod(key: string, used: Set<string>): TranslatedWorkloads {
    const pod = this.#inputs.pods.get(key);
    if (!pod) return NOTHING;
    const { namespace, labels } = pod;
    const services = [...this.#inputs.selecting(namespace, labels), ...this.#inputs.listing(pod)];
    const { binding, ...around } = this.#surroundings({ namespace, labels, bindingLabels: labels, services, network: '' }, used);
    const required = this.#requiredWaypoint(pod, around);
    const workload = podWorkload(this.#config, pod, this.#inputs.locality(pod.node), { ...around, requireWaypoint: required });
    return { workloads: [workload], condition: waypointCondition(binding, undefined) };
  }

  /** A waypoint's own instances are dialled by everybody who uses it. */
  #requiredWaypoint({ namespace, labels, waypointWords }: Pod, { applicationTunnel }: Surroundings): RequiredWaypoint | undefined {
    if (applicationTunnel || labels[names.GATEWAY_NAME] !== undefined) return undefined;
    const inherited = readWaypointWords(this.#inputs.namespace(namespace).annotations, () => undefined);
    return requiredWaypoint(waypointWords ?? { required: undefined, exceptPorts: [] }, inherited);
  }

  #workloadEntry(key: string, used: Set<string>): TranslatedWorkloads {
    const entry = this.#inputs.workloadEntries.get(key);
    if (!entry) return NOTHING;
    const { namespace, labels, endpoint } = entry;
    const services = this.#inputs.selecting(namespace, labels);
    const member = { namespace, labels, bindingLabels: labels, services, network: endpoint.network };
    const { binding, ...around } = this.#surroundings(member, used);
    return { workloads: [workloadEntryWorkload(this.#config, entry, around)], condition: waypointCondition(binding, undefined) };
  }

  #serviceEntry(source: string, key: string, used: Set<string>): TranslatedWorkloads {
    const entry = this.#inputs.serviceEntries.get(key);
    const published = (this.#inputs.services.get(source)?.services ?? []).filter((service) => this.#inputs.claims.isPublished(service));
    if (!entry || published.length === 0) return NOTHING;
    const make = ({ endpoint, host }: EntryEndpoint): Workload[] => {
      const services = published.filter(({ hostname }) => host === undefined || hostname === host);
      if (services.length === 0) return [];
      const { namespace, labels } = entry;
      const member = { namespace, labels, bindingLabels: endpoint.labels, services, network: endpoint.network };
      const { binding, ...around } = this.#surroundings(member, used);
      return [entryWorkload(this.#config, entry, endpoint, around)];
    };
    return { workloads: entryEndpoints(entry).flatMap(make), condition: undefined };
  }

  #slice(key: string): TranslatedWorkloads {
    const slice = this.#inputs.slices.get(key);
    const service = slice && this.#inputs.service(slice.service);
    if (!slice || !service) return NOTHING;
    return { workloads: slice.endpoints.map((endpoint) => sliceWorkload(this.#config, slice, endpoint, service)), condition: undefined };
  }

  #surroundings(member: WorkloadMember, used: Set<string>): Surroundings & { readonly binding: WaypointBinding } {
    const { namespace, labels } = member;
    const peer = this.#inputs.peers.selecting(namespace, labels);
    const reference = peerAuthenticationReference(this.#config.rootNamespace, this.#inputs.peers.namespaceMode(namespace), peer);
    const policies = this.#inputs.policies(namespace, labels);
    return {
      services: member.services,
      policies: reference === undefined ? policies : [...policies, reference].sort(),
      networkGateway: this.#networkGateway(member.network, used),
      outboundTrafficPolicy: outboundTrafficPolicyOf(this.#inputs.namespace(namespace)) ?? this.#inputs.meshConfig.outboundTrafficPolicy,
      ...this.#bindings.ofWorkload(member, used),
    };
  }

  #networkGateway(network: string, used: Set<string>): GatewayAddress | undefined {
    if (network === '' || network === this.#config.network) return undefined;
    const gateway = this.#inputs.networkGateway(network);
    if (gateway) used.add(gateway.key);
    return gateway && networkGateway(gateway)?.address;
  }
}

interface WorkloadMember extends Bound {
  /** What services and policies select by. */
  readonly labels: Labels;
  readonly services: readonly MeshService[];
  readonly network: string;
}
