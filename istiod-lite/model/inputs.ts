/**
 * More than 500 lines, as it is one table: the objects that the mesh is made from, what of them depends on what, and for each change the
 * outputs that must be made anew. Reverse indexes keep the cost of a change with what it touches: by label pair, node, gateway, hostname.
 * Outputs are named by their source, `Kind/namespace/name`.
 */
import { isDeepStrictEqual } from 'node:util';
import type { BackendRef } from '../../common/codec/gen/waypoint.ts';
import type { Locality } from '../../common/codec/gen/workload.ts';
import type { AuthorizationPolicy } from './authorization-policy.ts';
import type { CertificateSource, FoundCertificates } from './certificate-sources.ts';
import { ClaimedAddresses } from './claimed-addresses.ts';
import type { MeshModelConfig } from './config.ts';
import type { EndpointSlice, PodReference } from './endpoint-slice.ts';
import { addressText } from './entry-claims.ts';
import type { ProviderService } from './extension-providers.ts';
import type { Gateway, GatewayClass } from './gateway.ts';
import { networkGateway } from './gateway.ts';
import { GatewayInputs } from './gateway-inputs.ts';
import { Groups } from './groups.ts';
import { HostInputs } from './host-inputs.ts';
import { type HostnameOwners, hostnameOwners } from './hostnames.ts';
import { fullHost, hostCovers } from './istio-values.ts';
import { LabelInterests, type LabelInterestsOf } from './label-interests.ts';
import { DEFAULT_MESH_CONFIG, type MeshConfig } from './mesh-config.ts';
import { type MeshService, serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import type { Labels } from './objects.ts';
import { effectiveMode, type MtlsMode, oldest, type PeerAuthentication } from './peer-authentication.ts';
import type { Pod } from './pod.ts';
import { type TargetedPolicy, targetSource } from './policy-targets.ts';
import { type FetchedKeys, keySources } from './request-authentication.ts';
import { RouteInputs } from './route-inputs.ts';
import { LabelIndex, SelectorIndex } from './selectors.ts';
import type { ServiceEntry } from './service-entry.ts';
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

type Selecting<T> = T & { readonly selector: Labels };

/** What must be made anew. */
export class Stale {
  readonly workloads = new Set<string>();
  /** Sources of services, for their binding and status. */
  readonly services = new Set<string>();
  /** Hostnames, each with the namespaces in which somebody claimed it or no longer does. */
  readonly hostnames = new Map<string, Set<string>>();
  readonly peerAuthentications = new Set<string>();
  /** Policies whose targets may be bound otherwise now. */
  readonly targetedPolicies = new Set<string>();
  /** Services, `namespace/hostname`, whose traffic settings may be others now, or others' at whose waypoints. */
  readonly traffic = new Set<string>();
  /** Sources of workloads whose labels some waypoint may have to be told. */
  readonly labels = new Set<string>();

  hostname({ hostname, namespace }: MeshService): void {
    const namespaces = this.hostnames.get(hostname);
    if (namespaces) namespaces.add(namespace);
    else this.hostnames.set(hostname, new Set([namespace]));
  }
}

const NO_WORDS: BindingWords = { labels: {}, annotations: {} };

export class Inputs {
  readonly stale = new Stale();
  readonly pods = new Map<string, Pod>();
  readonly workloadEntries = new Map<string, WorkloadEntry>();
  readonly serviceEntries = new Map<string, ServiceEntry>();
  readonly slices = new Map<string, EndpointSlice>();
  readonly services = new Map<string, ServiceSource>();
  readonly gateways = new Map<string, Gateway>();
  readonly gatewayClasses = new Map<string, GatewayClass>();
  readonly peerAuthentications = new Map<string, PeerAuthentication>();
  readonly targetedPolicies = new Map<string, TargetedPolicy>();
  readonly routes = new RouteInputs();
  readonly telemetry = new TelemetryInputs();
  readonly hosts: HostInputs;
  readonly gatewayStatuses = new GatewayInputs();
  #meshConfig = DEFAULT_MESH_CONFIG;
  readonly #rootNamespace: string;
  readonly #namespaces = new Map<string, Namespace>();
  readonly #nodes = new Map<string, Locality>();
  readonly #policies = new Map<string, SelectingPolicy>();
  readonly #keys = new Map<string, FetchedKeys>();
  /** Worked out when it is asked for. */
  #keySources: ReadonlySet<string> | undefined;
  /** Sources of workloads that services and policies can select. */
  readonly #members = new LabelIndex();
  readonly #selectingServices = new SelectorIndex<Selecting<MeshService>>();
  readonly #selectingPolicies = new SelectorIndex<SelectingPolicy>();
  readonly #selectingPeers = new SelectorIndex<Selecting<PeerAuthentication>>();
  /** PeerAuthentications without selector, by namespace. */
  readonly #namespacePeers = new Groups<PeerAuthentication>();
  readonly #servicesOfNamespace = new Groups<string>();
  readonly #podsOfNode = new Groups<string>();
  readonly #slicesOfService = new Groups<string>();
  readonly #slicesOfPod = new Groups<string>();
  readonly #claims = new Groups<MeshService>();
  readonly #sourcesOfNetwork = new Groups<string>();
  /** Policies that ask somebody, who may come and go. */
  readonly #asking = new Set<string>();
  readonly #certificates = new Map<string, FoundCertificates>();
  readonly #certificateUsers = new Groups<string>();
  readonly #certificatesUsed = new Map<string, ReadonlySet<CertificateSource>>();
  readonly #policiesOfTarget = new Groups<string>();
  readonly #guardClaims: boolean;
  readonly #claimedAddresses = new ClaimedAddresses();
  readonly #interests = new LabelInterests();
  readonly #backendUse = new BackendUse();
  readonly #gatewayUse = { service: new GatewayUse(), workload: new GatewayUse() };

  constructor(rootNamespace: string, guardClaims = false) {
    this.#rootNamespace = rootNamespace;
    this.#guardClaims = guardClaims;
    this.hosts = new HostInputs(rootNamespace);
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

  owners(hostname: string): HostnameOwners {
    return hostnameOwners([...this.#claims.of(hostname)]);
  }

  /** All that claim a host, which may begin with `*`: those that are published. */
  servicesOfHost(host: string): MeshService[] {
    const claims = host.startsWith('*')
      ? [...this.#claims.keys()].filter((hostname) => hostCovers(host, hostname)).flatMap((hostname) => [...this.#claims.of(hostname)])
      : [...this.#claims.of(host)];
    return claims.filter((service) => this.isPublished(service));
  }

  /** Sources of a namespace's services. */
  sourcesOf(namespace: string): Iterable<string> {
    return this.#servicesOfNamespace.of(namespace);
  }

  isPublished(service: MeshService): boolean {
    const claims = this.#claims.of(service.hostname);
    return claims.size < 2 || this.owners(service.hostname).byNamespace.get(service.namespace) === service;
  }

  /** Published services that select these labels. */
  selecting(namespace: string, labels: Labels): MeshService[] {
    return this.#selectingServices.matching(namespace, labels).filter((service) => this.isPublished(service));
  }

  /** Services without a selector whose slices name this pod. */
  listing(pod: Pod): MeshService[] {
    const found = new Set<MeshService>();
    for (const key of this.#slicesOfPod.of(pod.key)) {
      const slice = this.slices.get(key);
      const service = slice && this.service(slice.service);
      if (slice && service && !service.selector && slice.pods.some((reference) => refersTo(reference, pod))) found.add(service);
    }
    return [...found];
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

  /** The PeerAuthentication with a selector that counts for these labels. */
  peerAuthentication(namespace: string, labels: Labels): PeerAuthentication | undefined {
    return namespace === this.#rootNamespace ? undefined : oldest(this.#selectingPeers.matching(namespace, labels));
  }

  /** mTLS mode of a namespace for workloads that nothing more specific selects. */
  namespaceMode(namespace: string): MtlsMode {
    const mesh = oldest(this.#namespacePeers.of(this.#rootNamespace))?.mode;
    return namespace === this.#rootNamespace ? effectiveMode(mesh) : effectiveMode(oldest(this.#namespacePeers.of(namespace))?.mode, mesh);
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
    const owners = this.owners(hostname);
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
    if (!this.#guardClaims) return [];
    const [, namespace = ''] = source.split('/');
    const claims = (this.services.get(source)?.services ?? []).flatMap(({ addresses }) => addresses);
    if (claims.length === 0 || namespace === this.#rootNamespace || !source.startsWith('ServiceEntry/')) return [];
    return [...new Set(claims.filter((claim) => this.#claimedAddresses.isTaken(claim, namespace)).map(addressText))];
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
    if (!isDeepStrictEqual(before.extensionProviders, next.extensionProviders))
      for (const key of this.targetedPolicies.keys()) this.stale.targetedPolicies.add(key);
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
    this.staleTargets(source);
    this.routes.staleSource(source);
    // Also where nothing is attached any more, or nobody is there: what was told before has to go.
    this.routes.stale.parents.add(source);
    if (kind === 'Service') this.gatewayStatuses.serviceChanged(key);
    if (sameServices) return;
    for (const service of before?.services ?? []) this.#withdraw(service);
    for (const service of next?.services ?? []) this.#claim(service);
  }

  setSlice(key: string, next: EndpointSlice | undefined): void {
    const before = this.slices.get(key);
    if (isDeepStrictEqual(before, next)) return;
    put(this.slices, key, next);
    if (before) this.#unlinkSlice(before);
    if (next) this.#linkSlice(next);
    this.stale.workloads.add(`EndpointSlice/${key}`);
  }

  setGateway(key: string, next: Gateway | undefined): void {
    const before = this.gateways.get(key);
    if (isDeepStrictEqual(before, next)) return;
    put(this.gateways, key, next);
    this.#staleUsers(key);
    this.gatewayStatuses.gatewayChanged(key, before, next);
    this.routes.staleSource(`Gateway/${key}`);
    this.telemetry.sourceChanged(`Gateway/${key}`);
    this.staleTargets(`Gateway/${key}`);
    // A class stands for all its Gateways.
    if (before?.className !== next?.className)
      for (const gateway of [before, next]) if (gateway) this.staleTargets(`GatewayClass/${gateway.className}`);
    for (const gateway of [before, next]) {
      const network = gateway && networkGateway(gateway)?.network;
      if (network) for (const source of this.#sourcesOfNetwork.of(network)) this.stale.workloads.add(source);
    }
  }

  setGatewayClass(name: string, next: GatewayClass | undefined): void {
    if (isDeepStrictEqual(this.gatewayClasses.get(name), next)) return;
    put(this.gatewayClasses, name, next);
    this.staleTargets(`GatewayClass/${name}`);
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

  keysAt(address: string): FetchedKeys | undefined {
    return this.#keys.get(address);
  }

  /** Where keys for tokens come from, as the objects say now. */
  keySources(): ReadonlySet<string> {
    this.#keySources ??= new Set([...this.targetedPolicies.values()].flatMap(({ tokens }) => (tokens ? keySources(tokens) : [])));
    return this.#keySources;
  }

  setKeys(address: string, found: FetchedKeys | undefined): void {
    if (isDeepStrictEqual(this.#keys.get(address), found)) return;
    put(this.#keys, address, found);
    for (const { id, tokens } of this.targetedPolicies.values()) {
      if (tokens && keySources(tokens).includes(address)) this.stale.targetedPolicies.add(id);
    }
  }

  /** @param key `Kind namespace/name` */
  setTargetedPolicy(key: string, next: TargetedPolicy | undefined): void {
    const before = this.targetedPolicies.get(key);
    if (isDeepStrictEqual(before, next)) return;
    for (const target of before?.targets ?? []) this.#policiesOfTarget.remove(targetSource(target), key);
    for (const target of next?.targets ?? []) this.#policiesOfTarget.add(targetSource(target), key);
    put(this.targetedPolicies, key, next);
    // Of several with one target one counts.
    if (before?.limits || next?.limits || before?.tls || next?.tls)
      for (const target of [...(before?.targets ?? []), ...(next?.targets ?? [])]) this.staleTargets(targetSource(target));
    for (const policy of [before, next]) if (policy?.tls) this.#staleBackends(policy);
    if (before?.tokens || next?.tokens) this.#keySources = undefined;
    if (next?.http?.provider !== undefined) this.#asking.add(key);
    else this.#asking.delete(key);
    this.stale.targetedPolicies.add(key);
  }

  /** Policies that name a target, whatever its part. */
  policiesOf(source: string): TargetedPolicy[] {
    return [...this.#policiesOfTarget.of(source)].flatMap((id) => this.targetedPolicies.get(id) ?? []);
  }

  #staleBackends({ targets }: TargetedPolicy): void {
    for (const target of targets)
      for (const service of this.services.get(targetSource(target))?.services ?? []) this.stale.traffic.add(serviceKeyOf(service));
  }

  certificatesAt(source: CertificateSource): FoundCertificates | undefined {
    return this.#certificates.get(source);
  }

  /** Where certificates come from that something refers to now. */
  certificateSources(): ReadonlySet<CertificateSource> {
    return new Set(this.#certificateUsers.keys() as Iterable<CertificateSource>);
  }

  /** Remembers what refers to which certificates. @param user `traffic KEY`, `rule KEY`, or the id of a policy */
  recordCertificates(user: string, sources: ReadonlySet<CertificateSource>): void {
    const before = this.#certificatesUsed.get(user);
    for (const source of before ?? []) if (!sources.has(source)) this.#certificateUsers.remove(source, user);
    for (const source of sources) this.#certificateUsers.add(source, user);
    if (sources.size > 0) this.#certificatesUsed.set(user, sources);
    else this.#certificatesUsed.delete(user);
  }

  setCertificates(source: CertificateSource, found: FoundCertificates | undefined): void {
    if (isDeepStrictEqual(this.#certificates.get(source), found)) return;
    put(this.#certificates, source, found);
    for (const user of this.#certificateUsers.of(source)) {
      const [kind = '', key = ''] = user.split(' ');
      if (kind === 'traffic') this.stale.traffic.add(key);
      else if (kind === 'rule') this.hosts.stale.destinationRules.add(key);
      else {
        this.stale.targetedPolicies.add(user);
        const policy = this.targetedPolicies.get(user);
        if (policy) this.#staleBackends(policy);
      }
    }
  }

  /** @param source what policies may name as a target: a Service, a ServiceEntry, a Gateway or a GatewayClass */
  staleTargets(source: string): void {
    for (const key of this.#policiesOfTarget.of(source)) this.stale.targetedPolicies.add(key);
  }

  setPeerAuthentication(key: string, next: PeerAuthentication | undefined): void {
    const before = this.peerAuthentications.get(key);
    if (isDeepStrictEqual(before, next)) return;
    put(this.peerAuthentications, key, next);
    this.stale.peerAuthentications.add(key);
    if (before) this.#unlinkPeer(before);
    if (next) this.#linkPeer(next);
  }

  #setMember(source: string, before: Member | undefined, next: Member | undefined): void {
    this.stale.labels.add(source);
    if (next) this.#members.add(next.namespace, source, next.labels);
    else if (before) this.#members.remove(before.namespace, source);
    this.stale.workloads.add(source);
  }

  #claim(service: MeshService): void {
    this.#claims.add(service.hostname, service);
    if (this.#guardClaims) for (const claimant of this.#claimedAddresses.add(service)) this.stale.services.add(claimant);
    if (isSelecting(service)) this.#selectingServices.add(service.namespace, service);
    this.#staleClaims(service);
  }

  #withdraw(service: MeshService): void {
    this.#staleClaims(service);
    this.#claims.remove(service.hostname, service);
    if (this.#guardClaims) for (const claimant of this.#claimedAddresses.remove(service)) this.stale.services.add(claimant);
    if (isSelecting(service)) this.#selectingServices.remove(service.namespace, service);
  }

  /** All that share the hostname: another one may own it now. */
  #staleClaims(service: MeshService): void {
    this.stale.hostname(service);
    this.stale.traffic.add(serviceKeyOf(service));
    this.hosts.staleHostname(service.hostname);
    this.telemetry.hostnameChanged(service.hostname);
    this.routes.staleSource(`Hostname/${service.hostname}`);
    for (const id of this.#asking) this.stale.targetedPolicies.add(id);
    for (const claim of this.#claims.of(service.hostname)) {
      this.stale.hostname(claim);
      this.staleTargets(`${claim.source}/${claim.key}`);
      this.routes.staleSource(`${claim.source}/${claim.key}`);
      // Who has lost the name has no routes any more, also those that only hosts bring.
      this.routes.stale.parents.add(`${claim.source}/${claim.key}`);
      this.stale.traffic.add(serviceKeyOf(claim));
      if (claim.selector) this.#staleMembers(claim.namespace, claim.selector);
      if (claim.source === 'ServiceEntry') this.stale.workloads.add(`ServiceEntry/${claim.key}`);
      else this.#staleSlices(claim.key);
    }
  }

  #staleSlices(service: string): void {
    for (const key of this.#slicesOfService.of(service)) {
      this.stale.workloads.add(`EndpointSlice/${key}`);
      for (const pod of this.slices.get(key)?.pods ?? []) this.#stalePod(pod);
    }
  }

  #linkSlice(slice: EndpointSlice): void {
    this.#slicesOfService.add(slice.service, slice.key);
    for (const pod of slice.pods) {
      this.#slicesOfPod.add(pod.key, slice.key);
      this.#stalePod(pod);
    }
  }

  #unlinkSlice(slice: EndpointSlice): void {
    this.#slicesOfService.remove(slice.service, slice.key);
    for (const pod of slice.pods) {
      this.#slicesOfPod.remove(pod.key, slice.key);
      this.#stalePod(pod);
    }
  }

  #stalePod({ key }: PodReference): void {
    if (this.pods.has(key)) this.stale.workloads.add(`Pod/${key}`);
  }

  #linkPeer(peer: PeerAuthentication): void {
    if (isSelecting(peer)) this.#selectingPeers.add(peer.namespace, peer);
    else this.#namespacePeers.add(peer.namespace, peer);
    this.#stalePeer(peer);
  }

  #unlinkPeer(peer: PeerAuthentication): void {
    this.#stalePeer(peer);
    if (isSelecting(peer)) this.#selectingPeers.remove(peer.namespace, peer);
    else this.#namespacePeers.remove(peer.namespace, peer);
  }

  #stalePeer(peer: PeerAuthentication): void {
    const namespace = peer.namespace === this.#rootNamespace ? undefined : peer.namespace;
    if (isSelecting(peer)) {
      if (namespace !== undefined) this.#staleMembers(namespace, peer.selector);
      return;
    }
    // What ports deviate from is the namespace's mode, or the mesh's.
    this.#staleMembers(namespace, {});
    for (const other of this.peerAuthentications.values()) {
      if (namespace === undefined || other.namespace === namespace) this.stale.peerAuthentications.add(other.key);
    }
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

const isSelecting = <T extends { readonly selector: Labels | undefined }>(item: T): item is Selecting<T> => item.selector !== undefined;

const refersTo = (reference: PodReference, pod: Pod): boolean =>
  reference.key === pod.key && (reference.uid === '' || pod.uid === '' || reference.uid === pod.uid);

function put<T>(map: Map<string, T>, key: string, value: T | undefined): void {
  if (value === undefined) map.delete(key);
  else map.set(key, value);
}

/** Which services each waypoint's routes send to. */
class BackendUse {
  /** Source → service → waypoints. */
  readonly #made = new Map<string, Map<string, Set<string>>>();
  readonly #sources = new Groups<string>();

  /** @param used by waypoint @returns services whose users may be others now */
  record(source: string, used: ReadonlyMap<string, ReadonlySet<string>>): Set<string> {
    const before = this.#made.get(source) ?? new Map<string, Set<string>>();
    const next = new Map<string, Set<string>>();
    for (const [waypoint, services] of used) {
      for (const service of services) next.set(service, (next.get(service) ?? new Set()).add(waypoint));
    }
    if (isDeepStrictEqual(before, next)) return new Set();
    for (const service of before.keys()) this.#sources.remove(service, source);
    for (const service of next.keys()) this.#sources.add(service, source);
    if (next.size > 0) this.#made.set(source, next);
    else this.#made.delete(source);
    return new Set([...before.keys(), ...next.keys()]);
  }

  waypointsOf(service: string): ReadonlySet<string> {
    const waypoints = new Set<string>();
    for (const source of this.#sources.of(service))
      for (const waypoint of this.#made.get(source)?.get(service) ?? []) waypoints.add(waypoint);
    return waypoints;
  }
}

/** Who was made from which gateways. */
class GatewayUse {
  readonly #users = new Groups<string>();
  readonly #used = new Map<string, readonly string[]>();

  users(gateway: string): ReadonlySet<string> {
    return this.#users.of(gateway);
  }

  record(source: string, used: ReadonlySet<string>): void {
    for (const key of this.#used.get(source) ?? []) if (!used.has(key)) this.#users.remove(key, source);
    for (const key of used) this.#users.add(key, source);
    if (used.size > 0) this.#used.set(source, [...used]);
    else this.#used.delete(source);
  }
}

export const inheritedAnnotations = [
  names.TRAFFIC_DISTRIBUTION,
  names.USE_WAYPOINT_CANARY_WEIGHT,
  names.OUTBOUND_TRAFFIC_POLICY,
  names.REQUIRE_WAYPOINT,
  names.REQUIRE_WAYPOINT_EXCEPT_PORTS,
] as const;
