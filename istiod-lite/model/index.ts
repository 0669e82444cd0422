/**
 * The mesh as ztunnels are told it, kept up to date change by change: objects of the cluster go in, changed and removed resources,
 * conditions to write and problems to show come out. Pure: it opens nothing, reads no clock, logs nothing, and never throws for what
 * somebody wrote into an object.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { Workload } from '../../common/codec/gen/workload.ts';
import { type AuthorizationPolicy, readAuthorizationPolicy } from './authorization-policy.ts';
import { type Condition, type ReportedKind, type StatusWrite, WAYPOINT_MISSING } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { readEndpointSlice, sliceWorkload } from './endpoint-slice.ts';
import { applicationTunnel, networkGateway, readGateway, readGatewayClass } from './gateway.ts';
import { Inputs, inheritedAnnotations, type ServiceSource } from './inputs.ts';
import type { MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import { type Labels, objectKey, pick, readMeta, type Report } from './objects.ts';
import { convertPorts, peerAuthenticationReference, readPeerAuthentication, STATIC_STRICT, staticStrict } from './peer-authentication.ts';
import { podWorkload, readPod } from './pod.ts';
import { type Problem, ProblemList } from './problems.ts';
import {
  authorizationResource,
  type Resource,
  type ResourceChanges,
  ResourceTable,
  serviceResource,
  workloadResource,
} from './resources.ts';
import { readService, serviceMessage } from './service.ts';
import { type EntryEndpoint, entryEndpoints, entryServices, entryWorkload, readServiceEntry, type ServiceEntry } from './service-entry.ts';
import { StatusTable } from './status-table.ts';
import { bindWaypoint, type BindingWords, publishedWaypoint, type WaypointBinding, waypointCondition } from './waypoint-binding.ts';
import type { WatchedKindName } from './watched-kinds.ts';
import { localityOf, type Surroundings } from './workload.ts';
import { readWorkloadEntry, workloadEntryWorkload } from './workload-entry.ts';

export interface ObjectChange {
  readonly type: 'added' | 'modified' | 'deleted';
  readonly kind: WatchedKindName;
  /** The object as the API server sent it; it is not kept. */
  readonly object: unknown;
}

export interface MeshChanges {
  readonly address: ResourceChanges;
  readonly authorization: ResourceChanges;
  readonly statuses: readonly StatusWrite[];
  /** What is wrong with objects and was not before. */
  readonly problems: readonly Problem[];
}

export class MeshIndex {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #addresses = new ResourceTable();
  readonly #authorizations = new ResourceTable();
  readonly #statuses = new StatusTable();
  readonly #problems = new ProblemList();
  /** Names of the resources that each source made last. */
  readonly #made = new Map<string, readonly string[]>();

  constructor(config: MeshModelConfig) {
    this.#config = config;
    this.#inputs = new Inputs(config.rootNamespace);
  }

  apply({ type, kind, object }: ObjectChange): void {
    const meta = readMeta(object);
    if (!meta) {
      this.#problems.set(`${kind} without a name`, ['an object has no metadata.name']);
      return;
    }
    const key = objectKey(meta);
    const messages: string[] = [];
    try {
      this.#setters[kind](key, type === 'deleted' ? undefined : object, (message) => messages.push(message));
    } catch (error) {
      messages.push(`could not be read: ${errorMessage(error)}`);
    }
    this.#problems.set(`${kind} ${key}`, messages);
  }

  /** Everything that changed since the last call. */
  flush(): MeshChanges {
    const { stale } = this.#inputs;
    drain(stale.services, (source) => this.#remakeServiceSource(source));
    for (const [hostname, namespaces] of stale.hostnames)
      this.#guard(`hostname ${hostname}`, () => this.#remakeHostname(hostname, namespaces));
    stale.hostnames.clear();
    drain(stale.workloads, (source) =>
      this.#guard(source, () => this.#publish(this.#addresses, source, this.#workloads(source).map(workloadResource))),
    );
    drain(stale.peerAuthentications, (key) => this.#remakePeerAuthentication(key));
    return {
      address: this.#addresses.take(),
      authorization: this.#authorizations.take(),
      statuses: this.#statuses.take(),
      problems: this.#problems.takeFresh(),
    };
  }

  /** All resources of a type, for subscribers that have none yet. */
  addresses(): Iterable<Resource> {
    return this.#addresses.values();
  }

  authorizations(): Iterable<Resource> {
    return this.#authorizations.values();
  }

  address(name: string): Resource | undefined {
    return this.#addresses.get(name);
  }

  authorization(name: string): Resource | undefined {
    return this.#authorizations.get(name);
  }

  get counts(): { readonly addresses: number; readonly authorizations: number } {
    return { addresses: this.#addresses.size, authorizations: this.#authorizations.size };
  }

  /** What is wrong with objects now. */
  problems(): Iterable<Problem> {
    return this.#problems.values();
  }

  /** The namespace, node and service account of a pod, by which certificates for it are asked for; undefined where there is no such pod. */
  pod(key: string): { readonly namespace: string; readonly node: string; readonly serviceAccount: string } | undefined {
    return this.#inputs.pods.get(key);
  }

  /** For each kind: takes an object, or undefined where it is gone. */
  readonly #setters: Readonly<Record<WatchedKindName, (key: string, object: unknown, report: Report) => void>> = {
    Namespace: (key, object) => {
      this.#inputs.setNamespace(key, object === undefined ? undefined : namespaceWords(object));
      if (this.#config.serviceEntryVisibility) this.#reviewVisibility(key);
    },
    Node: (key, object) => this.#inputs.setNode(key, object === undefined ? undefined : nodeLocality(object)),
    Pod: (key, object, report) => this.#inputs.setPod(key, readPod(object, report)),
    Service: (key, object, report) => {
      this.#observe('Service', key, object);
      const service = readService(this.#config, object, report);
      this.#inputs.setServices('Service', key, service && sourceOf(service, bindingWords(object), [service]));
    },
    ServiceEntry: (key, object, report) => {
      this.#observe('ServiceEntry', key, object);
      const entry = readServiceEntry(this.#config, object, report);
      this.#inputs.setServiceEntry(key, entry);
      this.#inputs.setServices('ServiceEntry', key, entry && sourceOf(entry, bindingWords(object), this.#entryServices(entry)));
    },
    WorkloadEntry: (key, object, report) => {
      this.#observe('WorkloadEntry', key, object);
      this.#inputs.setWorkloadEntry(key, readWorkloadEntry(object, report));
    },
    EndpointSlice: (key, object, report) => this.#inputs.setSlice(key, readEndpointSlice(object, report)),
    Gateway: (key, object, report) => this.#inputs.setGateway(key, readGateway(this.#config, object, report)),
    GatewayClass: (key, object) => this.#inputs.setGatewayClass(key, readGatewayClass(object)),
    AuthorizationPolicy: (key, object, report) => {
      this.#observe('AuthorizationPolicy', key, object);
      this.#setPolicy(key, readAuthorizationPolicy(this.#config, object, report));
    },
    PeerAuthentication: (key, object, report) =>
      this.#inputs.setPeerAuthentication(key, readPeerAuthentication(this.#config.rootNamespace, object, report)),
  };

  #observe(kind: ReportedKind, key: string, object: unknown): void {
    if (object === undefined) this.#statuses.forget(kind, key);
    else this.#statuses.observe(kind, key, object);
  }

  #setPolicy(key: string, policy: AuthorizationPolicy | undefined): void {
    this.#inputs.setPolicy(key, policy);
    if (policy?.authorization) this.#authorizations.set(authorizationResource(policy.authorization));
    else this.#authorizations.delete(key);
    this.#statuses.want('AuthorizationPolicy', key, policy?.condition ? [policy.condition] : []);
  }

  #entryServices(entry: ServiceEntry): MeshService[] {
    const labels = this.#inputs.namespace(entry.namespace).labels;
    return entryServices(entry, this.#config.serviceEntryVisibility?.(labels) ?? 'PUBLIC');
  }

  /** Who may see a namespace's ServiceEntries depends on its labels. */
  #reviewVisibility(namespace: string): void {
    for (const entry of this.#inputs.serviceEntries.values()) {
      const words = this.#inputs.services.get(`ServiceEntry/${entry.key}`)?.words;
      if (entry.namespace !== namespace || !words) continue;
      this.#inputs.setServices('ServiceEntry', entry.key, sourceOf(entry, words, this.#entryServices(entry)));
    }
  }

  #remakeServiceSource(source: string): void {
    const found = this.#inputs.services.get(source);
    if (!found) {
      this.#inputs.recordGateways('service', source, new Set());
      return;
    }
    const kind = source.startsWith('Service/') ? 'Service' : 'ServiceEntry';
    const binding = this.#bindService(source, found);
    const ingress =
      found.words.labels[names.INGRESS_USE_WAYPOINT] ?? this.#inputs.namespace(found.namespace).labels[names.INGRESS_USE_WAYPOINT];
    const conditions = [
      waypointCondition(binding, ingress),
      kind === 'ServiceEntry' ? wildcardCondition(found.services, binding) : undefined,
    ];
    this.#statuses.want(
      kind,
      found.key,
      conditions.filter((condition) => condition !== undefined),
    );
    for (const service of found.services) this.#inputs.stale.hostname(service);
  }

  #bindService(source: string, { namespace, words, services }: ServiceSource): WaypointBinding {
    const used = new Set<string>();
    const inherited = this.#inputs.namespace(namespace);
    const request = {
      traffic: 'service' as const,
      namespace,
      own: words,
      inherited,
      namespaceLabels: inherited.labels,
      namespaceOnly: services.some(({ visibility }) => visibility !== 0),
    };
    const binding = bindWaypoint(this.#config, request, this.#gatewayView(used));
    this.#inputs.recordGateways('service', source, used);
    return binding;
  }

  #gatewayView(used: Set<string>): Parameters<typeof bindWaypoint>[2] {
    return {
      gateway: (key) => {
        used.add(key);
        return this.#inputs.gateways.get(key);
      },
      gatewayClass: (name) => this.#inputs.gatewayClasses.get(name),
    };
  }

  #remakeHostname(hostname: string, namespaces: Iterable<string>): void {
    const owners = this.#inputs.owners(hostname);
    for (const namespace of new Set([...namespaces, ...owners.byNamespace.keys()])) {
      const service = owners.byNamespace.get(namespace);
      if (service) this.#remakeService(service, service === owners.canonical);
      else this.#addresses.delete(`${namespace}/${hostname}`);
    }
  }

  #remakeService(service: MeshService, canonical: boolean): void {
    const source = `${service.source}/${service.key}`;
    const found = this.#inputs.services.get(source);
    if (!found) return;
    const binding = this.#bindService(source, found);
    const inherited = this.#inputs.namespace(service.namespace);
    const ingress = found.words.labels[names.INGRESS_USE_WAYPOINT] ?? inherited.labels[names.INGRESS_USE_WAYPOINT];
    const message = serviceMessage(service, {
      distribution: inherited.annotations[names.TRAFFIC_DISTRIBUTION],
      waypoint: publishedWaypoint(binding),
      weightedWaypoints: binding.at === 'bound' ? binding.weighted : [],
      ingressUseWaypoint: ingress === 'true' && publishedWaypoint(binding) !== undefined,
      canonical,
    });
    this.#addresses.set(serviceResource(message));
  }

  #workloads(source: string): Workload[] {
    const slash = source.indexOf('/');
    const key = source.slice(slash + 1);
    switch (source.slice(0, slash)) {
      case 'Pod':
        return this.#podWorkloads(source, key);
      case 'WorkloadEntry':
        return this.#workloadEntryWorkloads(source, key);
      case 'ServiceEntry':
        return this.#serviceEntryWorkloads(source, key);
      default:
        return this.#sliceWorkloads(key);
    }
  }

  #podWorkloads(source: string, key: string): Workload[] {
    const pod = this.#inputs.pods.get(key);
    if (!pod) return this.#forgetGateways(source);
    const used = new Set<string>();
    const services = [...this.#inputs.selecting(pod.namespace, pod.labels), ...this.#inputs.listing(pod)];
    const around = this.#surroundings(
      { namespace: pod.namespace, labels: pod.labels, bindingLabels: pod.labels, services, network: '' },
      used,
    );
    this.#inputs.recordGateways('workload', source, used);
    return [podWorkload(this.#config, pod, this.#inputs.locality(pod.node), around)];
  }

  #workloadEntryWorkloads(source: string, key: string): Workload[] {
    const entry = this.#inputs.workloadEntries.get(key);
    if (!entry) return this.#forgetGateways(source);
    const used = new Set<string>();
    const { namespace, labels } = entry;
    const services = this.#inputs.selecting(namespace, labels);
    const { network } = entry.endpoint;
    const { binding, ...around } = this.#surroundings({ namespace, labels, bindingLabels: labels, services, network }, used);
    this.#inputs.recordGateways('workload', source, used);
    const condition = waypointCondition(binding, undefined);
    this.#statuses.want('WorkloadEntry', key, condition ? [condition] : []);
    return [workloadEntryWorkload(this.#config, entry, around)];
  }

  #serviceEntryWorkloads(source: string, key: string): Workload[] {
    const entry = this.#inputs.serviceEntries.get(key);
    if (!entry) return this.#forgetGateways(source);
    const published = (this.#inputs.services.get(source)?.services ?? []).filter((service) => this.#inputs.isPublished(service));
    const used = new Set<string>();
    const make = ({ endpoint, host }: EntryEndpoint): Workload => {
      const around = this.#surroundings(
        {
          namespace: entry.namespace,
          labels: entry.labels,
          bindingLabels: endpoint.labels,
          services: published.filter(({ hostname }) => host === undefined || hostname === host),
          network: endpoint.network,
        },
        used,
      );
      return entryWorkload(this.#config, entry, endpoint, around);
    };
    const workloads = published.length > 0 ? entryEndpoints(entry).map(make) : [];
    this.#inputs.recordGateways('workload', source, used);
    return workloads;
  }

  #sliceWorkloads(key: string): Workload[] {
    const slice = this.#inputs.slices.get(key);
    const service = slice && this.#inputs.service(slice.service);
    if (!slice || !service) return [];
    return slice.endpoints.map((endpoint) => sliceWorkload(this.#config, slice, endpoint, service));
  }

  #forgetGateways(source: string): [] {
    this.#inputs.recordGateways('workload', source, new Set());
    return [];
  }

  #surroundings(member: WorkloadMember, used: Set<string>): Surroundings & { readonly binding: WaypointBinding } {
    const { namespace, labels } = member;
    const peer = this.#inputs.peerAuthentication(namespace, labels);
    const reference = peerAuthenticationReference(this.#config.rootNamespace, this.#inputs.namespaceMode(namespace), peer);
    const policies = this.#inputs.policies(namespace, labels);
    return {
      services: member.services,
      policies: reference === undefined ? policies : [...policies, reference].sort(),
      networkGateway: this.#networkGateway(member.network, used),
      ...this.#workloadWaypoint(member, used),
    };
  }

  /** A waypoint's own instances go through no waypoint, but may want their connections in a form of their own. */
  #workloadWaypoint({ namespace, bindingLabels }: WorkloadMember, used: Set<string>) {
    const view = this.#gatewayView(used);
    const ownName = bindingLabels[names.GATEWAY_NAME];
    const ownKey = ownName ? `${namespace}/${ownName}` : undefined;
    const own = ownKey === undefined ? undefined : view.gateway(ownKey);
    if (own?.address) {
      const tunnel = applicationTunnel(own, view.gatewayClass(own.className));
      return { binding: { at: 'unbound' } as const, waypoint: undefined, applicationTunnel: tunnel };
    }
    const inherited = this.#inputs.namespace(namespace);
    const request = {
      traffic: 'workload' as const,
      namespace,
      own: { labels: bindingLabels, annotations: {} },
      inherited,
      namespaceLabels: inherited.labels,
      namespaceOnly: false,
    };
    const binding = bindWaypoint(this.#config, request, view);
    // A waypoint that is about to become ready must not wait for itself.
    const itself = binding.at === 'absent' && binding.waypoint === ownKey;
    return { binding, waypoint: itself ? undefined : publishedWaypoint(binding), applicationTunnel: undefined };
  }

  #networkGateway(network: string, used: Set<string>) {
    if (network === '' || network === this.#config.network) return undefined;
    const gateway = this.#inputs.networkGateway(network);
    if (gateway) used.add(gateway.key);
    return gateway && networkGateway(gateway)?.address;
  }

  #remakePeerAuthentication(key: string): void {
    const { peerAuthentications } = this.#inputs;
    const { rootNamespace } = this.#config;
    const source = `PeerAuthentication/${key}`;
    const peer = peerAuthentications.get(key);
    const converted = peer && peer.namespace !== rootNamespace ? convertPorts(peer, this.#inputs.namespaceMode(peer.namespace)) : undefined;
    this.#publish(this.#authorizations, source, converted ? [authorizationResource(converted)] : []);
    if (peerAuthentications.size > 0) this.#authorizations.set(authorizationResource(staticStrict(rootNamespace)));
    else this.#authorizations.delete(`${rootNamespace}/${STATIC_STRICT}`);
  }

  /** Replaces what a source made before. */
  #publish(table: ResourceTable, source: string, made: readonly Resource[]): void {
    const present = made.map(({ name }) => name);
    for (const name of this.#made.get(source) ?? []) if (!present.includes(name)) table.delete(name);
    for (const resource of made) table.set(resource);
    if (made.length > 0) this.#made.set(source, present);
    else this.#made.delete(source);
  }

  /** One object that breaks the translation must not keep the others from being translated; what it was before stays published. */
  #guard(about: string, run: () => void): void {
    try {
      run();
      this.#problems.set(`translation of ${about}`, []);
    } catch (error) {
      this.#problems.set(`translation of ${about}`, [errorMessage(error)]);
    }
  }
}

interface WorkloadMember {
  readonly namespace: string;
  /** What services and policies select by. */
  readonly labels: Labels;
  /** Where a waypoint is named. */
  readonly bindingLabels: Labels;
  readonly services: readonly MeshService[];
  readonly network: string;
}

function drain<T>(set: Set<T>, visit: (item: T) => void): void {
  for (const item of set) visit(item);
  set.clear();
}

function namespaceWords(object: unknown): BindingWords {
  const meta = readMeta(object);
  return { labels: meta?.labels ?? {}, annotations: pick(meta?.annotations ?? {}, inheritedAnnotations) };
}

function nodeLocality(object: unknown) {
  const labels = readMeta(object)?.labels ?? {};
  return localityOf(labels[names.REGION] ?? '', labels[names.ZONE] ?? '', labels[names.SUBZONE] ?? '');
}

const BINDING_LABELS = [
  names.USE_WAYPOINT,
  names.USE_WAYPOINT_NAMESPACE,
  names.USE_WAYPOINT_CANARY,
  names.USE_WAYPOINT_CANARY_NAMESPACE,
  names.INGRESS_USE_WAYPOINT,
  names.GATEWAY_MANAGED,
];

function bindingWords(object: unknown): BindingWords {
  const meta = readMeta(object);
  return {
    labels: pick(meta?.labels ?? {}, BINDING_LABELS),
    annotations: pick(meta?.annotations ?? {}, [names.USE_WAYPOINT_CANARY_WEIGHT]),
  };
}

const sourceOf = (
  { key, namespace }: { key: string; namespace: string },
  words: BindingWords,
  services: readonly MeshService[],
): ServiceSource => ({
  key,
  namespace,
  words,
  services,
});

/** Hosts with a wildcard cannot be resolved, so they mean nothing without a waypoint that reads the requested name. */
function wildcardCondition(services: readonly MeshService[], binding: WaypointBinding): Condition | undefined {
  if (binding.at === 'bound' || !services.some(({ hostname }) => hostname.startsWith('*'))) return undefined;
  return {
    type: WAYPOINT_MISSING,
    status: 'True',
    reason: 'NoWaypointForWildcardService',
    message: 'hosts with a wildcard have an effect only once a waypoint serves them',
  };
}
