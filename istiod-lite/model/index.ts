/**
 * The mesh as ztunnels are told it, kept up to date change by change: objects of the cluster go in, changed and removed resources,
 * conditions to write and problems to show come out. Pure: it opens nothing, reads no clock, logs nothing, and never throws for what
 * somebody wrote into an object.
 */
import { errorMessage } from '../../common/base/errors.ts';
import type { HttpAuthorization, JwtAuthentication, RateLimits } from '../../common/codec/gen/waypoint.ts';
import { Service_Visibility } from '../../common/codec/gen/workload.ts';
import { type AuthorizationPolicy, readAuthorizationPolicy } from './authorization-policy.ts';
import { AutoAddresses } from './auto-addresses.ts';
import type { CertificateSource, FoundCertificates } from './certificate-sources.ts';
import { type Condition, ENFORCED, problemReporters, type ReporterName, type StatusWrite, unreadableConditions } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { readDestinationRule } from './destination-rule.ts';
import { readEndpointSlice } from './endpoint-slice.ts';
import { checkEnrolment } from './enrolment.ts';
import { isForEverybody } from './entry-claims.ts';
import { type Finding, findings } from './findings.ts';
import { readGateway, readGatewayClass } from './gateway.ts';
import { classAccepted, type GatewayProblem } from './gateway-status.ts';
import { mapEach } from './groups.ts';
import { readRoute } from './http-route.ts';
import { Inputs, inheritedAnnotations, type ServiceSource } from './inputs.ts';
import { MESH_CONFIG_MAP, readMeshConfig } from './mesh-config.ts';
import { type MeshService, serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import { ObjectStatusTable, type StatusKind, wantedParents } from './object-status.ts';
import { objectKey, pick, type Report, readMeta } from './objects.ts';
import { convertPorts, readPeerAuthentication, STATIC_STRICT, staticStrict } from './peer-authentication.ts';
import { readPod } from './pod.ts';
import { wantedAncestors } from './policy-ancestors.ts';
import { readTargetedPolicy } from './policy-targets.ts';
import { type Problem, ProblemList } from './problems.ts';
import { type FetchedKeys, hasTargets } from './request-authentication.ts';
import { readWaypointWords } from './required-waypoint.ts';
import {
  authorizationResource,
  httpAuthorizationResource,
  jwtResource,
  labelsResource,
  type Resource,
  type ResourceChanges,
  ResourceTable,
  rateLimitsResource,
  routesResource,
  serviceResource,
  telemetryResource,
  trafficResource,
  workloadResource,
} from './resources.ts';
import type { RouteKind } from './routes.ts';
import { readService } from './service.ts';
import { entryServices, readServiceEntry, type ServiceEntry } from './service-entry.ts';
import { StatusTable } from './status-table.ts';
import { readTelemetry } from './telemetry.ts';
import { Translation } from './translation.ts';
import { whyUnenforced } from './unenforced-kinds.ts';
import { readVirtualService } from './virtual-service.ts';
import { isUnenforced, type KindName, type UnenforcedKindName, unenforcedKinds, type WatchedKindName } from './watched-kinds.ts';
import { type BindingWords, readBindingWords } from './waypoint-binding.ts';
import { type MadeForWaypoints, type WaypointChanges, type WaypointResources, WaypointTables } from './waypoint-tables.ts';
import { nodeLocality } from './workload.ts';
import { readWorkloadEntry } from './workload-entry.ts';
import { workloadLabels } from './workload-labels.ts';

export interface ObjectChange {
  readonly type: 'added' | 'modified' | 'deleted';
  readonly kind: KindName;
  /** The object as the API server sent it; it is not kept. */
  readonly object: unknown;
}

export interface MeshChanges {
  readonly address: ResourceChanges;
  readonly authorization: ResourceChanges;
  /** What waypoints are told beside that, each of its own. */
  readonly waypoints: readonly WaypointChanges[];
  readonly statuses: readonly StatusWrite[];
  /** What is wrong with objects and was not before. */
  readonly problems: readonly Problem[];
  /** Another call has more. */
  readonly more: boolean;
}

/** The part of what is known that analysis looks at. */
export type IndexView = Pick<
  Inputs,
  'pods' | 'services' | 'gateways' | 'namespace' | 'namespaceMode' | 'peerAuthentication' | 'policies' | 'selecting' | 'servicesOfHost'
>;

export class MeshIndex {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #translation: Translation;
  readonly #addresses = new ResourceTable();
  readonly #authorizations = new ResourceTable();
  readonly #waypoints = new WaypointTables();
  readonly #statuses = new StatusTable();
  readonly #objectStatuses = new ObjectStatusTable();
  readonly #autoAddresses: AutoAddresses | undefined;
  readonly #problems = new ProblemList();
  /** What could not be translated. */
  readonly #broken = new Set<string>();
  /** Names of the resources that each source made last. */
  readonly #made = new Map<string, readonly string[]>();

  constructor(config: MeshModelConfig) {
    this.#config = config;
    this.#inputs = new Inputs(config.rootNamespace, config.guardClaims);
    this.#autoAddresses = config.autoAddresses && new AutoAddresses(config.autoAddresses);
    this.#translation = new Translation(config, this.#inputs);
  }

  apply({ type, kind, object }: ObjectChange): void {
    const meta = readMeta(object);
    if (!meta) {
      this.#problems.set(`${kind} without a name`, ['an object has no metadata.name']);
      return;
    }
    const key = objectKey(meta);
    const messages: string[] = [];
    const grave: string[] = [];
    const given = type === 'deleted' ? undefined : object;
    try {
      const report: Report = (message, weight) => {
        messages.push(message);
        if (weight !== 'mild') grave.push(message);
      };
      if (isUnenforced(kind)) this.#setUnenforced(kind, key, given, report);
      else this.#setters[kind](key, given, report);
    } catch (error) {
      messages.push(`could not be read: ${errorMessage(error)}`);
    }
    this.#problems.set(`${kind} ${key}`, messages);
    const reporter = problemReporters[kind];
    if (!reporter) return;
    this.#observe(reporter, key, given);
    this.#statuses.want(reporter, key, unreadableConditions([...new Set(grave)], meta.generation));
  }

  /**
   * Everything that changed since the last call.
   * @param mostWorkloads how many sources of workloads to translate at most (about 30 us each); where that leaves some for the next call,
   *   `more` says so. Services and policies always come first and as a whole.
   */
  flush(mostWorkloads = Number.POSITIVE_INFINITY): MeshChanges {
    const { stale, routes, gatewayStatuses, hosts } = this.#inputs;
    drain(stale.services, (source) => this.#guard(`services of ${source}`, () => this.#remakeServiceSource(source)));
    for (const [hostname, namespaces] of stale.hostnames) {
      this.#guard(`hostname ${hostname}`, () => this.#remakeHostname(hostname, namespaces));
    }
    stale.hostnames.clear();
    this.#remakeHttpAuthorizations();
    this.#spreadHosts();
    this.#remakeServiceRoutes();
    this.#remakeTelemetry();
    this.#remakeTraffic();
    drain(hosts.stale.virtualServices, (key) => this.#guard(`status of VirtualService ${key}`, () => this.#remakeVirtualStatus(key)));
    drain(hosts.stale.destinationRules, (key) => this.#guard(`status of DestinationRule ${key}`, () => this.#remakeRuleStatus(key)));
    drain(routes.stale.routes, (id) => this.#guard(`status of ${id}`, () => this.#remakeRouteStatus(id)));
    drain(gatewayStatuses.stale, (key) => this.#guard(`status of Gateway ${key}`, () => this.#remakeGatewayStatus(key)));
    drain(stale.peerAuthentications, (key) => this.#guard(`PeerAuthentication ${key}`, () => this.#remakePeerAuthentication(key)));
    drain(stale.workloads, (source) => this.#guard(source, () => this.#remakeWorkloads(source)), mostWorkloads);
    this.#remakeLabels(mostWorkloads);
    return {
      address: this.#addresses.take(),
      authorization: this.#authorizations.take(),
      waypoints: this.#waypoints.take(),
      statuses: [...this.#statuses.take(), ...this.#objectStatuses.take(), ...(this.#autoAddresses?.take() ?? [])],
      problems: this.#problems.takeFresh(),
      more: stale.workloads.size + stale.labels.size > 0,
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

  /** Everything that one waypoint is told beside addresses; it may not be ready, or not even be there. */
  waypointResources(gatewayNamespace: string, gatewayName: string): WaypointResources {
    return this.#waypoints.get(`${gatewayNamespace}/${gatewayName}`);
  }

  /** `namespace/name` of the Gateways for which there are such resources. */
  waypoints(): Iterable<string> {
    return this.#waypoints.keys();
  }

  get counts(): { readonly addresses: number; readonly authorizations: number } {
    return { addresses: this.#addresses.size, authorizations: this.#authorizations.size };
  }

  /** What is to be said about an object, stored or not. */
  findings(kind: WatchedKindName, object: unknown): Finding[] {
    try {
      return findings({ config: this.#config, inputs: this.#inputs, translation: this.#translation }, kind, object);
    } catch (error) {
      return [{ kind: 'unreadable', message: `could not be read: ${errorMessage(error)}` }];
    }
  }

  /** What there is now, for those who look at objects together. */
  get view(): IndexView {
    return this.#inputs;
  }

  /** What is wrong with objects now. */
  problems(): Iterable<Problem> {
    return this.#problems.values();
  }

  /** Says in a Gateway's status why it cannot be deployed as it is written; undefined takes it back. */
  setGatewayProblem(key: string, problem: GatewayProblem | undefined): boolean {
    return this.#inputs.gatewayStatuses.setProblem(key, problem);
  }

  /** ConfigMaps and Secrets with certificates that something refers to. */
  certificateSources(): ReadonlySet<CertificateSource> {
    return this.#inputs.certificateSources();
  }

  /** What was read there; the next flush tells it. */
  setCertificates(source: CertificateSource, found: FoundCertificates | undefined): void {
    this.#inputs.setCertificates(source, found);
  }

  /** Where keys for end users' tokens have to be fetched from: addresses, or `discover ISSUER`. */
  keySources(): ReadonlySet<string> {
    return this.#inputs.keySources();
  }

  /** What was fetched, or why it could not be; the next flush tells it. */
  setKeys(address: string, found: FetchedKeys | undefined): void {
    this.#inputs.setKeys(address, found);
  }

  /** The namespace, node and service account of a pod, by which certificates for it are asked for; undefined where there is no such pod. */
  pod(key: string): { readonly namespace: string; readonly node: string; readonly serviceAccount: string } | undefined {
    return this.#inputs.pods.get(key);
  }

  /** For each kind: takes an object, or undefined where it is gone. */
  readonly #setters: Readonly<Record<WatchedKindName, (key: string, object: unknown, report: Report) => void>> = {
    Namespace: (key, object, report) => {
      const words = object === undefined ? undefined : namespaceWords(object);
      if (words) {
        checkEnrolment(words.labels, report);
        readWaypointWords(words.annotations, report);
      }
      this.#inputs.setNamespace(key, words);
      if (this.#config.serviceEntryVisibility) this.#reviewVisibility(key);
    },
    Node: (key, object) => this.#inputs.setNode(key, object === undefined ? undefined : nodeLocality(object)),
    Pod: (key, object, report) => this.#inputs.setPod(key, readPod(object, report)),
    Service: (key, object, report) => {
      this.#observe('Service', key, object);
      const service = readService(this.#config, object, report);
      this.#inputs.setServices('Service', key, service && sourceOf(service, readBindingWords(object), [service]));
    },
    ServiceEntry: (key, object, report) => {
      this.#observe('ServiceEntry', key, object);
      this.#autoAddresses?.set(key, object);
      const entry = readServiceEntry(this.#config, object, report);
      this.#inputs.setServiceEntry(key, entry);
      this.#inputs.setServices('ServiceEntry', key, entry && sourceOf(entry, readBindingWords(object), this.#entryServices(entry)));
    },
    WorkloadEntry: (key, object, report) => {
      this.#observe('WorkloadEntry', key, object);
      this.#inputs.setWorkloadEntry(key, readWorkloadEntry(object, report));
    },
    ConfigMap: (key, object, report) => {
      const { rootNamespace, systemNamespace = rootNamespace } = this.#config;
      if (key !== `${systemNamespace}/${MESH_CONFIG_MAP}`) return;
      const read = readMeshConfig(object, this.#config, report);
      if (read) this.#inputs.setMeshConfig(read);
    },
    EndpointSlice: (key, object, report) => this.#inputs.setSlice(key, readEndpointSlice(object, report)),
    Gateway: (key, object, report) => {
      this.#observeWhole('Gateway', key, object);
      this.#inputs.setGateway(key, readGateway(this.#config, object, report));
    },
    GatewayClass: (key, object) => {
      const found = readGatewayClass(object);
      const ours = found?.controller === names.WAYPOINT_CONTROLLER;
      this.#observe('GatewayClass', key, ours ? object : undefined);
      this.#statuses.want('GatewayClass', key, found && ours ? [classAccepted(found)] : []);
      this.#inputs.setGatewayClass(key, found);
    },
    HTTPRoute: (key, object, report) => this.#setRoute('HTTPRoute', key, object, report),
    GRPCRoute: (key, object, report) => this.#setRoute('GRPCRoute', key, object, report),
    TCPRoute: (key, object, report) => this.#setRoute('TCPRoute', key, object, report),
    TLSRoute: (key, object, report) => this.#setRoute('TLSRoute', key, object, report),
    VirtualService: (key, object, report) => {
      this.#observe('VirtualService', key, object);
      this.#inputs.hosts.setVirtualService(key, readVirtualService(this.#config, object, report));
    },
    DestinationRule: (key, object, report) => {
      this.#observe('DestinationRule', key, object);
      this.#inputs.hosts.setDestinationRule(key, readDestinationRule(this.#config, object, report));
    },
    AuthorizationPolicy: (key, object, report) => {
      this.#observe('ZtunnelPolicy', key, object);
      this.#observe('WaypointPolicy', key, object);
      this.#inputs.setTargetedPolicy(`AuthorizationPolicy ${key}`, readTargetedPolicy(object, report));
      this.#setPolicy(key, readAuthorizationPolicy(this.#config, object, report));
    },
    RequestAuthentication: (key, object, report) => {
      this.#observe('RequestAuthentication', key, object);
      this.#inputs.setTargetedPolicy(`RequestAuthentication ${key}`, readTargetedPolicy(object, report, 'RequestAuthentication'));
      if (object !== undefined && !hasTargets(object)) report('only targetRefs are read: without them it holds for nothing here');
    },
    BackendTLSPolicy: (key, object, report) => {
      this.#observeWhole('BackendTLSPolicy', key, object);
      this.#inputs.setTargetedPolicy(`BackendTLSPolicy ${key}`, readTargetedPolicy(object, report, 'BackendTLSPolicy'));
    },
    RateLimitPolicy: (key, object, report) => {
      this.#observeWhole('RateLimitPolicy', key, object);
      this.#inputs.setTargetedPolicy(`RateLimitPolicy ${key}`, readTargetedPolicy(object, report, 'RateLimitPolicy'));
    },
    Telemetry: (key, object) => {
      this.#observe('Telemetry', key, object);
      this.#inputs.telemetry.set(key, readTelemetry(object));
    },
    PeerAuthentication: (key, object, report) =>
      this.#inputs.setPeerAuthentication(key, readPeerAuthentication(this.#config.rootNamespace, object, report)),
  };

  #observe(reporter: ReporterName, key: string, object: unknown): void {
    if (object === undefined) this.#statuses.forget(reporter, key);
    else this.#statuses.observe(reporter, key, object);
  }

  #setUnenforced(kind: UnenforcedKindName, key: string, object: unknown, report: Report): void {
    this.#observe(kind, key, object);
    if (object === undefined) return;
    const [group = ''] = unenforcedKinds[kind].apiVersion.split('/');
    const message = `not enforced: ${whyUnenforced[`${kind}.${group}`] ?? 'nothing here carries it out'}`;
    report(message);
    this.#statuses.want(kind, key, [{ type: ENFORCED, status: 'False', reason: 'NotImplemented', message }]);
  }

  #setRoute(kind: RouteKind, key: string, object: unknown, report: Report): void {
    this.#observeWhole(kind, key, object);
    this.#inputs.routes.set(`${kind} ${key}`, readRoute(kind, object, report));
    this.#inputs.staleTargets(`${kind}/${key}`);
  }

  #observeWhole(kind: StatusKind, key: string, object: unknown): void {
    if (object === undefined) this.#objectStatuses.forget(kind, key);
    else this.#objectStatuses.observe(kind, key, object);
  }

  #setPolicy(key: string, policy: AuthorizationPolicy | undefined): void {
    this.#inputs.setPolicy(key, policy);
    if (policy?.authorization) this.#authorizations.set(authorizationResource(policy.authorization));
    else this.#authorizations.delete(key);
    this.#statuses.want('ZtunnelPolicy', key, policy?.condition ? [policy.condition] : []);
  }

  #entryServices(entry: ServiceEntry): MeshService[] {
    const labels = this.#inputs.namespace(entry.namespace).labels;
    const services = entryServices(entry, this.#config.serviceEntryVisibility?.(labels) ?? 'PUBLIC');
    return services.map((service) =>
      isForEverybody(this.#config, entry.namespace, service.hostname) ? service : { ...service, visibility: Service_Visibility.NAMESPACE },
    );
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
    const conditions = this.#translation.serviceConditions(source);
    const found = this.#inputs.services.get(source);
    this.#inputs.staleTargets(source);
    this.#inputs.staleRouting(source);
    if (!found) return;
    this.#statuses.want(source.startsWith('Service/') ? 'Service' : 'ServiceEntry', found.key, conditions);
    for (const service of found.services) this.#inputs.stale.hostname(service);
  }

  #remakeHostname(hostname: string, namespaces: Iterable<string>): void {
    const owners = this.#inputs.owners(hostname);
    for (const namespace of new Set([...namespaces, ...owners.byNamespace.keys()])) {
      const service = owners.byNamespace.get(namespace);
      const message = service && this.#translation.service(service, service === owners.canonical);
      if (message) this.#addresses.set(serviceResource(message));
      else this.#addresses.delete(`${namespace}/${hostname}`);
    }
  }

  #remakeHttpAuthorizations(): void {
    const made = new Map<string, MadeForWaypoints>();
    const tokens = new Map<string, MadeForWaypoints>();
    const limits = new Map<string, MadeForWaypoints>();
    // Limits are for routes too, and what a route is attached to may be bound otherwise now.
    for (const id of this.#inputs.routes.stale.routes) this.#inputs.staleTargets(id.replace(' ', '/'));
    drain(this.#inputs.stale.targetedPolicies, (id) =>
      this.#guard(`targets of ${id}`, () => {
        const policy = this.#inputs.targetedPolicies.get(id);
        const kind = id.slice(0, id.indexOf(' '));
        if (!policy?.http) this.#inputs.recordBackends(id, new Map());
        limits.set(
          id,
          mapEach(policy ? this.#translation.rateLimits(policy) : new Map<string, RateLimits>(), (found) => [rateLimitsResource(found)]),
        );
        if (!policy) this.#inputs.recordCertificates(id, new Set());
        if (kind === 'RateLimitPolicy' || kind === 'BackendTLSPolicy') {
          if (policy) this.#objectStatuses.want(kind, policy.key, wantedAncestors(this.#translation.policyAncestors(policy)));
          return;
        }
        const reporter = kind === 'RequestAuthentication' ? 'RequestAuthentication' : 'WaypointPolicy';
        this.#statuses.want(reporter, id.slice(id.indexOf(' ') + 1), policy ? [this.#translation.targetsCondition(policy)] : []);
        const authorizations = policy ? this.#translation.httpAuthorizations(policy) : new Map<string, HttpAuthorization>();
        made.set(
          id,
          mapEach(authorizations, (authorization) => [httpAuthorizationResource(authorization)]),
        );
        const authentications = policy ? this.#translation.jwtAuthentications(policy) : new Map<string, JwtAuthentication>();
        tokens.set(
          id,
          mapEach(authentications, (authentication) => [jwtResource(authentication)]),
        );
      }),
    );
    this.#waypoints.publish('jwtAuthentications', tokens);
    this.#waypoints.publish('httpAuthorizations', made);
    this.#waypoints.publish('rateLimits', limits);
  }

  #remakeServiceRoutes(): void {
    const made = new Map<string, MadeForWaypoints>();
    drain(this.#inputs.routes.stale.parents, (source) =>
      this.#guard(`routes of ${source}`, () => {
        made.set(
          source,
          mapEach(this.#translation.serviceRoutes(source), (routes) => routes.map(routesResource)),
        );
        for (const { hostname } of this.#inputs.services.get(source)?.services ?? []) this.#inputs.hosts.staleVirtualStatus(hostname);
      }),
    );
    this.#waypoints.publish('routes', made);
  }

  #remakeTelemetry(): void {
    const { stale } = this.#inputs.telemetry;
    const { telemetry } = this.#translation;
    if (!stale.all && stale.sources.size === 0) return;
    // A class stands for all its Gateways.
    const all = stale.all || [...stale.sources].some((source) => source.startsWith('GatewayClass/'));
    const made = new Map<string, MadeForWaypoints>();
    for (const source of all ? new Set([...stale.sources, ...telemetry.sources()]) : stale.sources)
      this.#guard(`telemetry of ${source}`, () =>
        made.set(
          source,
          mapEach(telemetry.made(source), (each) => each.map(telemetryResource)),
        ),
      );
    stale.all = false;
    stale.sources.clear();
    this.#waypoints.publish('telemetry', made);
    for (const object of this.#inputs.telemetry.objects())
      this.#guard(`status of Telemetry ${object.key}`, () => this.#want('Telemetry', object.key, telemetry.condition(object)));
    const { rootNamespace, systemNamespace = rootNamespace } = this.#config;
    this.#problems.set(`ConfigMap ${systemNamespace}/${MESH_CONFIG_MAP}`, telemetry.meshProblems(), 'telemetry');
  }

  /** Hosts are of services, and tables are made for services. */
  #spreadHosts(): void {
    const { hosts, routes, stale } = this.#inputs;
    drain(hosts.stale.hosts, (host) => {
      for (const service of this.#inputs.servicesOfHost(host)) {
        routes.stale.parents.add(`${service.source}/${service.key}`);
        stale.traffic.add(serviceKeyOf(service));
      }
    });
  }

  #remakeTraffic(): void {
    const made = new Map<string, MadeForWaypoints>();
    drain(this.#inputs.stale.traffic, (key) =>
      this.#guard(`traffic of ${key}`, () => {
        made.set(
          key,
          mapEach(this.#translation.serviceTraffic(key), (traffic) => [trafficResource(traffic)]),
        );
      }),
    );
    this.#waypoints.publish('traffic', made);
  }

  #remakeLabels(most: number): void {
    const made = new Map<string, MadeForWaypoints>();
    drain(
      this.#inputs.stale.labels,
      (source) =>
        this.#guard(`labels of ${source}`, () => {
          made.set(
            source,
            mapEach(workloadLabels(this.#config, this.#inputs, source), (labels) => labels.map(labelsResource)),
          );
        }),
      most,
    );
    this.#waypoints.publish('labels', made);
  }

  #remakeVirtualStatus(key: string): void {
    const virtual = this.#inputs.hosts.virtualService(key);
    this.#want('VirtualService', key, virtual && this.#translation.virtualServiceCondition(virtual));
  }

  #remakeRuleStatus(key: string): void {
    const rule = this.#inputs.hosts.destinationRule(key);
    if (!rule) this.#inputs.recordCertificates(`rule ${key}`, new Set());
    this.#want('DestinationRule', key, rule && this.#translation.destinationRuleCondition(rule));
  }

  /** An object's one condition; what it says that is not as written is a problem too. */
  #want(kind: 'VirtualService' | 'DestinationRule' | 'Telemetry', key: string, condition: Condition | undefined): void {
    this.#statuses.want(kind, key, condition ? [condition] : []);
    this.#problems.set(`${kind} ${key}`, condition && condition.reason !== 'Accepted' ? [condition.message] : [], 'status');
  }

  #remakeRouteStatus(id: string): void {
    const route = this.#inputs.routes.get(id);
    const parents = route ? this.#translation.routeStatus(route) : [];
    const waypoints = route ? this.#translation.waypointParents(route) : [];
    const failed = parents.flatMap(({ conditions }) => conditions.filter(({ status }) => status === 'False'));
    const inVain = waypoints.map(
      (key) => `Gateway ${key} is a waypoint: a route has no effect there, it attaches to the services behind it`,
    );
    this.#problems.set(id, [...failed.map(({ message }) => message), ...inVain], 'status');
    if (!route) return;
    const silent = route.kind === 'GRPCRoute' && failed.length === 0;
    this.#objectStatuses.want(route.kind, route.key, wantedParents(parents, { seen: waypoints.length > 0, silent }));
  }

  #remakeGatewayStatus(key: string): void {
    this.#objectStatuses.want('Gateway', key, this.#translation.gatewayStatus(key) ?? (() => undefined));
  }

  #remakeWorkloads(source: string): void {
    const { workloads, condition } = this.#translation.workloads(source);
    this.#publish(this.#addresses, source, workloads.map(workloadResource));
    if (source.startsWith(WORKLOAD_ENTRY))
      this.#statuses.want('WorkloadEntry', source.slice(WORKLOAD_ENTRY.length), condition ? [condition] : []);
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
    const present = new Set(made.map(({ name }) => name));
    for (const name of this.#made.get(source) ?? []) if (!present.has(name)) table.delete(name);
    for (const resource of made) table.set(resource);
    if (made.length > 0) this.#made.set(source, [...present]);
    else this.#made.delete(source);
  }

  /** One object that breaks the translation must not keep the others from being translated; what it was before stays published. */
  #guard(about: string, run: () => void): void {
    try {
      run();
      if (this.#broken.delete(about)) this.#problems.set(`translation of ${about}`, []);
    } catch (error) {
      this.#broken.add(about);
      this.#problems.set(`translation of ${about}`, [errorMessage(error)]);
    }
  }
}

const WORKLOAD_ENTRY = 'WorkloadEntry/';

function drain<T>(set: Set<T>, visit: (item: T) => void, most = Number.POSITIVE_INFINITY): void {
  let left = most;
  for (const item of set) {
    if (left-- <= 0) return;
    set.delete(item);
    visit(item);
  }
}

function namespaceWords(object: unknown): BindingWords {
  const meta = readMeta(object);
  return { labels: meta?.labels ?? {}, annotations: pick(meta?.annotations ?? {}, inheritedAnnotations) };
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
