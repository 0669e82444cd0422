/** What is stale is made anew: each output from its part of the translation, services and policies first, workloads in portions. */
import type { HttpAuthorization, JwtAuthentication, RateLimits } from '../../common/codec/gen/waypoint.ts';
import type { Condition } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { mapEach } from './groups.ts';
import type { Inputs } from './inputs.ts';
import { MESH_CONFIG_MAP } from './mesh-config.ts';
import { serviceKeyOf } from './mesh-service.ts';
import { wantedParents } from './object-status.ts';
import type { Outputs } from './outputs.ts';
import { convertPorts, STATIC_STRICT, staticStrict } from './peer-authentication.ts';
import { wantedAncestors } from './policy-ancestors.ts';
import {
  authorizationResource,
  httpAuthorizationResource,
  jwtResource,
  labelsResource,
  rateLimitsResource,
  routesResource,
  serviceResource,
  telemetryResource,
  trafficResource,
  workloadResource,
} from './resources.ts';
import type { Translation } from './translation.ts';
import type { MadeForWaypoints } from './waypoint-tables.ts';
import { workloadLabels } from './workload-labels.ts';

export class Remaking {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #translation: Translation;
  readonly #outputs: Outputs;

  constructor(config: MeshModelConfig, inputs: Inputs, translation: Translation, outputs: Outputs) {
    this.#config = config;
    this.#inputs = inputs;
    this.#translation = translation;
    this.#outputs = outputs;
  }

  /**
   * Makes anew what is stale.
   * @param mostWorkloads how many sources of workloads to translate at most; services and policies always come first and as a whole
   * @returns whether that leaves some for the next call
   */
  run(mostWorkloads: number): boolean {
    const { stale, routes, gatewayStatuses, hosts, peers } = this.#inputs;
    drain(stale.services, (source) => this.#outputs.guard(`services of ${source}`, () => this.#serviceSource(source)));
    for (const [hostname, namespaces] of stale.hostnames) {
      this.#outputs.guard(`hostname ${hostname}`, () => this.#hostname(hostname, namespaces));
    }
    stale.hostnames.clear();
    this.#policies();
    this.#spreadHosts();
    this.#serviceRoutes();
    this.#telemetry();
    this.#traffic();
    drain(hosts.stale.virtualServices, (key) => this.#outputs.guard(`status of VirtualService ${key}`, () => this.#virtualStatus(key)));
    drain(hosts.stale.destinationRules, (key) => this.#outputs.guard(`status of DestinationRule ${key}`, () => this.#ruleStatus(key)));
    drain(routes.stale.routes, (id) => this.#outputs.guard(`status of ${id}`, () => this.#routeStatus(id)));
    drain(gatewayStatuses.stale, (key) => this.#outputs.guard(`status of Gateway ${key}`, () => this.#gatewayStatus(key)));
    drain(peers.stale, (key) => this.#outputs.guard(`PeerAuthentication ${key}`, () => this.#peerAuthentication(key)));
    drain(stale.workloads, (source) => this.#outputs.guard(source, () => this.#workloads(source)), mostWorkloads);
    this.#labels(mostWorkloads);
    return stale.workloads.size + stale.labels.size > 0;
  }

  #serviceSource(source: string): void {
    const conditions = this.#translation.services.conditions(source);
    const found = this.#inputs.services.get(source);
    this.#inputs.targeted.staleSource(source);
    this.#inputs.staleRouting(source);
    if (!found) return;
    this.#outputs.statuses.want(source.startsWith('Service/') ? 'Service' : 'ServiceEntry', found.key, conditions);
    for (const service of found.services) this.#inputs.stale.hostname(service);
  }

  #hostname(hostname: string, namespaces: Iterable<string>): void {
    const owners = this.#inputs.claims.owners(hostname);
    for (const namespace of new Set([...namespaces, ...owners.byNamespace.keys()])) {
      const service = owners.byNamespace.get(namespace);
      const message = service && this.#translation.services.message(service, service === owners.canonical);
      if (message) this.#outputs.addresses.set(serviceResource(message));
      else this.#outputs.addresses.delete(`${namespace}/${hostname}`);
    }
  }

  #policies(): void {
    const made = new Map<string, MadeForWaypoints>();
    const tokens = new Map<string, MadeForWaypoints>();
    const limits = new Map<string, MadeForWaypoints>();
    // Limits are for routes too, and what a route is attached to may be bound otherwise now.
    for (const id of this.#inputs.routes.stale.routes) this.#inputs.targeted.staleSource(id.replace(' ', '/'));
    drain(this.#inputs.targeted.stale, (id) =>
      this.#outputs.guard(`targets of ${id}`, () => {
        const policy = this.#inputs.targeted.get(id);
        const kind = id.slice(0, id.indexOf(' '));
        if (!policy?.http) this.#inputs.recordBackends(id, new Map());
        limits.set(
          id,
          mapEach(policy ? this.#translation.policies.rateLimits(policy) : new Map<string, RateLimits>(), (found) => [
            rateLimitsResource(found),
          ]),
        );
        if (!policy) this.#inputs.certificates.record(id, new Set());
        if (kind === 'RateLimitPolicy' || kind === 'BackendTLSPolicy') {
          const ancestors = policy ? this.#translation.policies.ancestors(policy) : [];
          this.#notAccepted(
            id,
            ancestors.flatMap(({ conditions }) => conditions.filter(({ status }) => status === 'False')),
          );
          if (policy) this.#outputs.objectStatuses.want(kind, policy.key, wantedAncestors(ancestors));
          return;
        }
        const reporter = kind === 'RequestAuthentication' ? 'RequestAuthentication' : 'WaypointPolicy';
        const conditions = policy ? [this.#translation.policies.condition(policy)] : [];
        this.#outputs.statuses.want(reporter, id.slice(id.indexOf(' ') + 1), conditions);
        this.#notAccepted(
          id,
          conditions.filter(({ reason }) => reason !== 'Accepted'),
        );
        const authorizations = policy ? this.#translation.policies.httpAuthorizations(policy) : new Map<string, HttpAuthorization>();
        made.set(
          id,
          mapEach(authorizations, (authorization) => [httpAuthorizationResource(authorization)]),
        );
        const authentications = policy ? this.#translation.policies.jwtAuthentications(policy) : new Map<string, JwtAuthentication>();
        tokens.set(
          id,
          mapEach(authentications, (authentication) => [jwtResource(authentication)]),
        );
      }),
    );
    this.#outputs.waypoints.publish('jwtAuthentications', tokens);
    this.#outputs.waypoints.publish('httpAuthorizations', made);
    this.#outputs.waypoints.publish('rateLimits', limits);
  }

  /** Hosts are of services, and tables are made for services. */
  #spreadHosts(): void {
    const { hosts, routes, stale } = this.#inputs;
    drain(hosts.stale.hosts, (host) => {
      for (const service of this.#inputs.claims.servicesOfHost(host)) {
        routes.stale.parents.add(`${service.source}/${service.key}`);
        stale.traffic.add(serviceKeyOf(service));
      }
    });
  }

  #serviceRoutes(): void {
    const made = new Map<string, MadeForWaypoints>();
    drain(this.#inputs.routes.stale.parents, (source) =>
      this.#outputs.guard(`routes of ${source}`, () => {
        made.set(
          source,
          mapEach(this.#translation.routes.tables(source), (routes) => routes.map(routesResource)),
        );
        for (const { hostname } of this.#inputs.services.get(source)?.services ?? []) this.#inputs.hosts.staleVirtualStatus(hostname);
      }),
    );
    this.#outputs.waypoints.publish('routes', made);
  }

  #telemetry(): void {
    const { stale } = this.#inputs.telemetry;
    const { telemetry } = this.#translation;
    if (!stale.all && stale.sources.size === 0) return;
    // A class stands for all its Gateways.
    const all = stale.all || [...stale.sources].some((source) => source.startsWith('GatewayClass/'));
    const made = new Map<string, MadeForWaypoints>();
    for (const source of all ? new Set([...stale.sources, ...telemetry.sources()]) : stale.sources)
      this.#outputs.guard(`telemetry of ${source}`, () =>
        made.set(
          source,
          mapEach(telemetry.made(source), (each) => each.map(telemetryResource)),
        ),
      );
    stale.all = false;
    stale.sources.clear();
    this.#outputs.waypoints.publish('telemetry', made);
    for (const object of this.#inputs.telemetry.objects())
      this.#outputs.guard(`status of Telemetry ${object.key}`, () =>
        this.#outputs.want('Telemetry', object.key, telemetry.condition(object)),
      );
    const { rootNamespace, systemNamespace = rootNamespace } = this.#config;
    this.#outputs.problems.set(`ConfigMap ${systemNamespace}/${MESH_CONFIG_MAP}`, telemetry.meshProblems(), 'telemetry');
  }

  #traffic(): void {
    const made = new Map<string, MadeForWaypoints>();
    drain(this.#inputs.stale.traffic, (key) =>
      this.#outputs.guard(`traffic of ${key}`, () => {
        made.set(
          key,
          mapEach(this.#translation.traffic.of(key), (traffic) => [trafficResource(traffic)]),
        );
      }),
    );
    this.#outputs.waypoints.publish('traffic', made);
  }

  #virtualStatus(key: string): void {
    const virtual = this.#inputs.hosts.virtualService(key);
    this.#outputs.want('VirtualService', key, virtual && this.#translation.hosts.virtualServiceCondition(virtual));
  }

  #ruleStatus(key: string): void {
    const rule = this.#inputs.hosts.destinationRule(key);
    if (!rule) this.#inputs.certificates.record(`rule ${key}`, new Set());
    this.#outputs.want('DestinationRule', key, rule && this.#translation.hosts.destinationRuleCondition(rule));
  }

  #routeStatus(id: string): void {
    const route = this.#inputs.routes.get(id);
    const parents = route ? this.#translation.routes.status(route) : [];
    const waypoints = route ? this.#translation.routes.waypointParents(route) : [];
    const failed = parents.flatMap(({ conditions }) => conditions.filter(({ status }) => status === 'False'));
    const inVain = waypoints.map(
      (key) => `Gateway ${key} is a waypoint: a route has no effect there, it attaches to the services behind it`,
    );
    this.#outputs.problems.set(id, [...failed.map(({ message }) => message), ...inVain], 'status');
    if (!route) return;
    const silent = route.kind === 'GRPCRoute' && failed.length === 0;
    this.#outputs.objectStatuses.want(route.kind, route.key, wantedParents(parents, { seen: waypoints.length > 0, silent }));
  }

  /** What a status says that is not as written is a problem too, for the log and the metrics. */
  #notAccepted(id: string, conditions: readonly Condition[]): void {
    this.#outputs.problems.set(
      id,
      conditions.map(({ message }) => message),
      'status',
    );
  }

  #gatewayStatus(key: string): void {
    const problem = this.#inputs.gatewayStatuses.problem(key);
    this.#outputs.problems.set(`Gateway ${key}`, problem ? [problem.message] : [], 'status');
    this.#outputs.objectStatuses.want('Gateway', key, this.#translation.gatewayStatus(key) ?? (() => undefined));
  }

  #peerAuthentication(key: string): void {
    const { peers } = this.#inputs;
    const { rootNamespace } = this.#config;
    const source = `PeerAuthentication/${key}`;
    const peer = peers.get(key);
    const converted = peer && peer.namespace !== rootNamespace ? convertPorts(peer, peers.namespaceMode(peer.namespace)) : undefined;
    this.#outputs.publish(this.#outputs.authorizations, source, converted ? [authorizationResource(converted)] : []);
    if (peers.size > 0) this.#outputs.authorizations.set(authorizationResource(staticStrict(rootNamespace)));
    else this.#outputs.authorizations.delete(`${rootNamespace}/${STATIC_STRICT}`);
  }

  #workloads(source: string): void {
    const { workloads, condition } = this.#translation.workloads.of(source);
    this.#outputs.publish(this.#outputs.addresses, source, workloads.map(workloadResource));
    if (source.startsWith(WORKLOAD_ENTRY))
      this.#outputs.statuses.want('WorkloadEntry', source.slice(WORKLOAD_ENTRY.length), condition ? [condition] : []);
  }

  #labels(most: number): void {
    const made = new Map<string, MadeForWaypoints>();
    drain(
      this.#inputs.stale.labels,
      (source) =>
        this.#outputs.guard(`labels of ${source}`, () => {
          made.set(
            source,
            mapEach(workloadLabels(this.#config, this.#inputs, source), (labels) => labels.map(labelsResource)),
          );
        }),
      most,
    );
    this.#outputs.waypoints.publish('labels', made);
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
