/**
 * The objects that the mesh is made from, what of them depends on what, and for each change the outputs that must be made anew. What has a
 * rule of its own has a file of its own (`*-inputs.ts`, `claimed-hostnames.ts`); here is what binds them together. Reverse indexes keep the
 * cost of a change with what it touches: by label pair, node, gateway, hostname.
 */
import { isDeepStrictEqual } from 'node:util';
import type { BackendRef } from '../../common/codec/gen/waypoint.ts';
import type { Locality } from '../../common/codec/gen/workload.ts';
import type { AuthorizationPolicy } from './authorization-policy.ts';
import { CertificateInputs } from './certificate-inputs.ts';
import { ClaimedHostnames } from './claimed-hostnames.ts';
import type { MeshModelConfig } from './config.ts';
import { BackendUse, Dependents } from './dependents.ts';
import type { ProviderService } from './extension-providers.ts';
import { type Gateway, type GatewayClass, networkGateway } from './gateway.ts';
import { GatewayInputs } from './gateway-inputs.ts';
import { Groups } from './groups.ts';
import { HostInputs } from './host-inputs.ts';
import { fullHost } from './istio-values.ts';
import { LabelInterests, type LabelInterestsOf } from './label-interests.ts';
import { DEFAULT_MESH_CONFIG, type MeshConfig } from './mesh-config.ts';
import { type MeshService, serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import type { Labels } from './objects.ts';
import { PeerInputs } from './peer-inputs.ts';
import type { Pod } from './pod.ts';
import { RouteInputs } from './route-inputs.ts';
import { isSelecting, LabelIndex, type Selecting, SelectorIndex } from './selectors.ts';
import type { ServiceEntry } from './service-entry.ts';
import { SliceInputs } from './slice-inputs.ts';
import { Stale } from './stale.ts';
import { TargetedInputs } from './targeted-inputs.ts';
import { TelemetryInputs } from './telemetry-inputs.ts';
import type { BindingWords } from './waypoint-binding.ts';
import type { WorkloadEntry } from './workload-entry.ts';

/** A namespace's labels, and those of its annotations that services inherit. */
export type Namespace = BindingWords;

/** A Service or ServiceEntry with what its binding and its status need. */
export interface ServiceSource {
  readonly key: string;
  readonly namespace: string;
  readonly words: BindingWords;
  readonly services: readonly MeshService[];
}

/** Of a policy no more is kept than whom it selects. */
interface SelectingPolicy {
  readonly key: string;
  readonly namespace: string;
  readonly selector: Labels;
}

const NO_WORDS: BindingWords = { labels: {}, annotations: {} };

export class Inputs {
  readonly stale = new Stale();
  readonly pods = new Map<string, Pod>();
  readonly workloadEntries = new Map<string, WorkloadEntry>();
  readonly serviceEntries = new Map<string, ServiceEntry>();
  readonly services = new Map<string, ServiceSource>();
  readonly gateways = new Map<string, Gateway>();
  readonly gatewayClasses = new Map<string, GatewayClass>();
  readonly claims: ClaimedHostnames;
  readonly slices = new SliceInputs(this.stale, (key) => this.#stalePod(key));
  readonly peers: PeerInputs;
  readonly targeted = new TargetedInputs((target) => this.#staleTraffic(target));
  readonly certificates = new CertificateInputs((user) => this.#staleCertified(user));
  readonly routes = new RouteInputs();
  readonly telemetry = new TelemetryInputs();
  readonly hosts: HostInputs;
  readonly gatewayStatuses = new GatewayInputs();
  #meshConfig = DEFAULT_MESH_CONFIG;
  readonly #rootNamespace: string;
  readonly #namespaces = new Map<string, Namespace>();
  readonly #nodes = new Map<string, Locality>();
  readonly #policies = new Map<string, SelectingPolicy>();
  /** Sources of workloads that services and policies can select. */
  readonly #members = new LabelIndex();
  readonly #selectingServices = new SelectorIndex<Selecting<MeshService>>();
  readonly #selectingPolicies = new SelectorIndex<SelectingPolicy>();
  readonly #servicesOfNamespace = new Groups<string>();
  readonly #podsOfNode = new Groups<string>();
  readonly #sourcesOfNetwork = new Groups<string>();
  readonly #interests = new LabelInterests();
  readonly #backendUse = new BackendUse();
  readonly #gatewayUse = { service: new Dependents(), workload: new Dependents() };

  constructor(rootNamespace: string, guardClaims = false) {
    this.#rootNamespace = rootNamespace;
    this.hosts = new HostInputs(rootNamespace);
    this.claims = new ClaimedHostnames(rootNamespace, guardClaims);
    this.peers = new PeerInputs(rootNamespace, (namespace, selector) => this.#staleMembers(namespace, selector));
  }

  // What is asked while outputs are made.

  get meshConfig(): MeshConfig {
    return this.#meshConfig;
  }

  namespace(name: string): Namespace {
    return this.#namespaces.get(name) ?? NO_WORDS;
  }

  locality(node: string): Locality | undefined {
    return this.#nodes.get(node);
  }

  /** Sources of a namespace's services. */
  sourcesOf(namespace: string): Iterable<string> {
    return this.#servicesOfNamespace.of(namespace);
  }

  /** Published services that select these labels. */
  selecting(namespace: string, labels: Labels): MeshService[] {
    return this.#selectingServices.matching(namespace, labels).filter((service) => this.claims.isPublished(service));
  }

  /** Services without a selector whose slices name this pod. */
  listing(pod: Pod): MeshService[] {
    const services = this.slices.naming(pod).flatMap((slice) => this.service(slice.service) ?? []);
    return [...new Set(services.filter(({ selector }) => !selector))];
  }

  /** A Kubernetes Service by `namespace/name`. */
  service(key: string): MeshService | undefined {
    return this.services.get(`Service/${key}`)?.services[0];
  }

  /** `namespace/name` of the policies that select these labels: those of the namespace and of the root namespace, sorted. */
  policies(namespace: string, labels: Labels): string[] {
    const own = this.#selectingPolicies.matching(namespace, labels);
    const root = namespace === this.#rootNamespace ? [] : this.#selectingPolicies.matching(this.#rootNamespace, labels);
    return [...own, ...root].map(({ key }) => key).sort();
  }

  /** The first gateway to another network. */
  networkGateway(network: string): Gateway | undefined {
    const found = [...this.gateways.values()].filter((gateway) => networkGateway(gateway)?.network === network);
    return found.sort((a, b) => (a.key < b.key ? -1 : 1))[0];
  }

  /** Remembers which gateways a source's services, or its workloads, were made from; they are made anew when one of them changes. */
  recordGateways(made: 'service' | 'workload', source: string, used: ReadonlySet<string>): void {
    this.#gatewayUse[made].record(source, used);
  }

  /** Labels that each waypoint asks for of workloads of a namespace. */
  labelsWanted(namespace: string): Map<string, Set<string>> {
    return this.#interests.of(namespace);
  }

  /** Remembers which labels are asked for on account of a service; workloads that have them are told then. */
  recordInterests(owner: string, interests: LabelInterestsOf): void {
    for (const namespace of this.#interests.record(owner, interests))
      this.#members.select(namespace, {}, (source) => this.stale.labels.add(source));
  }

  /** The service that an extension provider is: by its host alone where only one service has that name. */
  providerService(config: MeshModelConfig, { namespace, host, port }: ProviderService): BackendRef | string {
    const hostname = fullHost(host, namespace === '' ? this.#rootNamespace : namespace, config.domain);
    const owners = this.claims.owners(hostname);
    const service = namespace === '' ? owners.canonical : owners.byNamespace.get(namespace);
    if (!service) return `there is no service ${namespace === '' ? hostname : `${namespace}/${hostname}`}`;
    if (!service.ports.some((one) => one.port === port)) return `service ${hostname} has no port ${port}`;
    return { namespace: service.namespace, hostname, port, subset: '' };
  }

  /** Remembers which services each waypoint sends to on account of a service's routes. */
  recordBackends(source: string, used: ReadonlyMap<string, ReadonlySet<string>>): void {
    for (const service of this.#backendUse.record(source, used)) this.stale.traffic.add(service);
  }

  /** Waypoints whose routes send to this service, `namespace/hostname`. */
  usersOf(service: string): ReadonlySet<string> {
    return this.#backendUse.waypointsOf(service);
  }

  /** Everything that is told of a service to its waypoints. */
  staleRouting(source: string): void {
    this.telemetry.sourceChanged(source);
    this.routes.staleSource(source);
    for (const service of this.services.get(source)?.services ?? []) {
      this.hosts.staleHostname(service.hostname);
      this.stale.traffic.add(serviceKeyOf(service));
    }
  }

  /** Addresses that a ServiceEntry claims and a Kubernetes Service of another namespace has; only where claims are guarded. */
  takenAddresses(source: string): string[] {
    return this.claims.taken(source, this.services.get(source)?.services ?? []);
  }

  // Changes. Each takes the object's new slice, or undefined where it is gone or counts for nothing.

  setNamespace(name: string, next: Namespace | undefined): void {
    if (isDeepStrictEqual(this.#namespaces.get(name), next)) return;
    put(this.#namespaces, name, next);
    this.#staleMembers(name, {});
    for (const source of this.#servicesOfNamespace.of(name)) this.stale.services.add(source);
  }

  setMeshConfig(next: MeshConfig): void {
    const before = this.#meshConfig;
    if (isDeepStrictEqual(before, next)) return;
    this.#meshConfig = next;
    this.telemetry.meshChanged(next);
    if (before.outboundTrafficPolicy !== next.outboundTrafficPolicy) this.#staleMembers(undefined, {});
    // Policies name providers.
    if (!isDeepStrictEqual(before.extensionProviders, next.extensionProviders)) this.targeted.staleAll();
  }

  setNode(name: string, next: Locality | undefined): void {
    if (isDeepStrictEqual(this.#nodes.get(name), next)) return;
    put(this.#nodes, name, next);
    for (const key of this.#podsOfNode.of(name)) this.stale.workloads.add(`Pod/${key}`);
  }

  setPod(key: string, next: Pod | undefined): void {
    const before = this.pods.get(key);
    if (isDeepStrictEqual(before, next)) return;
    const source = `Pod/${key}`;
    if (before) this.#podsOfNode.remove(before.node, key);
    if (next) this.#podsOfNode.add(next.node, key);
    put(this.pods, key, next);
    this.gatewayStatuses.podChanged(before, next);
    this.#setMember(source, before, next);
  }

  setWorkloadEntry(key: string, next: WorkloadEntry | undefined): void {
    const before = this.workloadEntries.get(key);
    if (isDeepStrictEqual(before, next)) return;
    const source = `WorkloadEntry/${key}`;
    if (before) this.#sourcesOfNetwork.remove(before.endpoint.network, source);
    if (next && next.endpoint.network !== '') this.#sourcesOfNetwork.add(next.endpoint.network, source);
    put(this.workloadEntries, key, next);
    this.#setMember(source, before, next);
  }

  setServiceEntry(key: string, next: ServiceEntry | undefined): void {
    const before = this.serviceEntries.get(key);
    if (isDeepStrictEqual(before, next)) return;
    const source = `ServiceEntry/${key}`;
    for (const { network } of before?.endpoints ?? []) this.#sourcesOfNetwork.remove(network, source);
    for (const { network } of next?.endpoints ?? []) if (network !== '') this.#sourcesOfNetwork.add(network, source);
    put(this.serviceEntries, key, next);
    this.#setMember(source, before, next);
  }

  setServices(kind: MeshService['source'], key: string, next: ServiceSource | undefined): void {
    const source = `${kind}/${key}`;
    const before = this.services.get(source);
    if (isDeepStrictEqual(before, next)) return;
    if (before) this.#servicesOfNamespace.remove(before.namespace, source);
    if (next) this.#servicesOfNamespace.add(next.namespace, source);
    const sameServices = before !== undefined && next !== undefined && isDeepStrictEqual(before.services, next.services);
    // Claims are known by identity: services that have not changed stay the same ones.
    put(this.services, source, sameServices ? { ...next, services: before.services } : next);
    this.stale.services.add(source);
    this.telemetry.sourceChanged(source);
    this.targeted.staleSource(source);
    this.routes.staleSource(source);
    // Also where nothing is attached any more, or nobody is there: what was told before has to go.
    this.routes.stale.parents.add(source);
    if (kind === 'Service') this.gatewayStatuses.serviceChanged(key);
    if (sameServices) return;
    for (const service of before?.services ?? []) this.#withdraw(service);
    for (const service of next?.services ?? []) this.#claim(service);
  }

  setGateway(key: string, next: Gateway | undefined): void {
    const before = this.gateways.get(key);
    if (isDeepStrictEqual(before, next)) return;
    put(this.gateways, key, next);
    this.#staleUsers(key);
    this.gatewayStatuses.gatewayChanged(key, before, next);
    this.routes.staleSource(`Gateway/${key}`);
    this.telemetry.sourceChanged(`Gateway/${key}`);
    this.targeted.staleSource(`Gateway/${key}`);
    // A class stands for all its Gateways.
    if (before?.className !== next?.className)
      for (const gateway of [before, next]) if (gateway) this.targeted.staleSource(`GatewayClass/${gateway.className}`);
    for (const gateway of [before, next]) {
      const network = gateway && networkGateway(gateway)?.network;
      if (network) for (const source of this.#sourcesOfNetwork.of(network)) this.stale.workloads.add(source);
    }
  }

  setGatewayClass(name: string, next: GatewayClass | undefined): void {
    if (isDeepStrictEqual(this.gatewayClasses.get(name), next)) return;
    put(this.gatewayClasses, name, next);
    this.targeted.staleSource(`GatewayClass/${name}`);
    this.telemetry.sourceChanged(`GatewayClass/${name}`);
    for (const gateway of this.gateways.values()) {
      if (gateway.className !== name) continue;
      this.#staleUsers(gateway.key);
      this.gatewayStatuses.stale.add(gateway.key);
      this.routes.staleSource(`Gateway/${gateway.key}`);
    }
  }

  setPolicy(key: string, next: AuthorizationPolicy | undefined): void {
    const before = this.#policies.get(key);
    const selecting = next?.selector && next.authorization ? { key, namespace: next.namespace, selector: next.selector } : undefined;
    if (before && selecting && isDeepStrictEqual(before.selector, selecting.selector)) return;
    for (const policy of [before, selecting]) {
      if (policy) this.#staleMembers(policy.namespace === this.#rootNamespace ? undefined : policy.namespace, policy.selector);
    }
    if (before) this.#selectingPolicies.remove(before.namespace, before);
    if (selecting) this.#selectingPolicies.add(selecting.namespace, selecting);
    put(this.#policies, key, selecting);
  }

  #setMember(source: string, before: Member | undefined, next: Member | undefined): void {
    this.stale.labels.add(source);
    if (next) this.#members.add(next.namespace, source, next.labels);
    else if (before) this.#members.remove(before.namespace, source);
    this.stale.workloads.add(source);
  }

  #claim(service: MeshService): void {
    for (const claimant of this.claims.add(service)) this.stale.services.add(claimant);
    if (isSelecting(service)) this.#selectingServices.add(service.namespace, service);
    this.#staleClaims(service);
  }

  #withdraw(service: MeshService): void {
    this.#staleClaims(service);
    for (const claimant of this.claims.remove(service)) this.stale.services.add(claimant);
    if (isSelecting(service)) this.#selectingServices.remove(service.namespace, service);
  }

  /** All that share the hostname: another one may own it now. */
  #staleClaims(service: MeshService): void {
    this.stale.hostname(service);
    this.stale.traffic.add(serviceKeyOf(service));
    this.hosts.staleHostname(service.hostname);
    this.telemetry.hostnameChanged(service.hostname);
    this.routes.staleSource(`Hostname/${service.hostname}`);
    this.targeted.staleAsking();
    for (const claim of this.claims.of(service.hostname)) {
      this.stale.hostname(claim);
      this.targeted.staleSource(`${claim.source}/${claim.key}`);
      this.routes.staleSource(`${claim.source}/${claim.key}`);
      // Who has lost the name has no routes any more, also those that only hosts bring.
      this.routes.stale.parents.add(`${claim.source}/${claim.key}`);
      this.stale.traffic.add(serviceKeyOf(claim));
      if (claim.selector) this.#staleMembers(claim.namespace, claim.selector);
      if (claim.source === 'ServiceEntry') this.stale.workloads.add(`ServiceEntry/${claim.key}`);
      else this.slices.staleService(claim.key);
    }
  }

  /** What is sent to it. */
  #staleTraffic(target: string): void {
    for (const service of this.services.get(target)?.services ?? []) this.stale.traffic.add(serviceKeyOf(service));
  }

  #staleCertified(user: string): void {
    const [kind = '', key = ''] = user.split(' ');
    if (kind === 'traffic') this.stale.traffic.add(key);
    else if (kind === 'rule') this.hosts.stale.destinationRules.add(key);
    else {
      this.targeted.stale.add(user);
      const policy = this.targeted.get(user);
      if (policy) this.targeted.staleBackends(policy);
    }
  }

  #stalePod(key: string): void {
    if (this.pods.has(key)) this.stale.workloads.add(`Pod/${key}`);
  }

  #staleUsers(gateway: string): void {
    for (const source of this.#gatewayUse.service.users(gateway)) this.stale.services.add(source);
    for (const source of this.#gatewayUse.workload.users(gateway)) this.stale.workloads.add(source);
  }

  #staleMembers(namespace: string | undefined, selector: Labels): void {
    this.#members.select(namespace, selector, (source) => this.stale.workloads.add(source));
  }
}

interface Member {
  readonly namespace: string;
  readonly labels: Labels;
}

function put<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}

export const inheritedAnnotations = [
  names.TRAFFIC_DISTRIBUTION,
  names.USE_WAYPOINT_CANARY_WEIGHT,
  names.OUTBOUND_TRAFFIC_POLICY,
  names.REQUIRE_WAYPOINT,
  names.REQUIRE_WAYPOINT_EXCEPT_PORTS,
] as const;
