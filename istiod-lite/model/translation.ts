/** Objects and what surrounds them, put together: the workloads and services of one source at a time, as they are now. */
import {
  Action,
  type Authorizer,
  type BackendRef,
  type HttpAuthorization,
  type JwtAuthentication,
  type RateLimits,
  type ServiceRoutes,
  type ServiceTraffic,
  type Target,
} from '../../common/codec/gen/waypoint.ts';
import type { GatewayAddress, Service, Workload } from '../../common/codec/gen/workload.ts';
import type { RequiredWaypoint } from '../../common/decision/mesh-view.ts';
import { authorizerOf } from './authorizers.ts';
import { backendTls, backendTlsConditions } from './backend-tls-policy.ts';
import { type WantedTls, withBackendTls } from './backend-tls-traffic.ts';
import type { CertificateSource } from './certificate-sources.ts';
import { CLAIM_REFUSED, type Condition, WAYPOINT_MISSING, type WantedStatus } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import type { DestinationRule } from './destination-rule.ts';
import { sliceWorkload } from './endpoint-slice.ts';
import { addressText } from './entry-claims.ts';
import { applicationTunnel, networkGateway } from './gateway.ts';
import { gatewayStatus, isOurs } from './gateway-status.ts';
import { mapEach } from './groups.ts';
import { HostTranslation } from './host-translation.ts';
import type { Inputs, ServiceSource } from './inputs.ts';
import type { LabelInterest } from './label-interests.ts';
import { type MeshService, serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import type { Labels } from './objects.ts';
import { peerAuthenticationReference } from './peer-authentication.ts';
import { type Pod, podWorkload } from './pod.ts';
import { ancestor, type PolicyAncestor } from './policy-ancestors.ts';
import {
  countsBefore,
  type PolicyOfTarget,
  type PolicyTarget,
  type TargetedPolicy,
  type TargetStatus,
  targetConditions,
  targetScope,
  targetSource,
  targetStatus,
  targetsCondition,
} from './policy-targets.ts';
import { tokenResource } from './request-authentication.ts';
import { readWaypointWords, requiredWaypoint } from './required-waypoint.ts';
import { Backends } from './route-backends.ts';
import { type RouteParentStatus, routeStatus } from './route-status.ts';
import { type Attachment, portRoutes } from './route-table.ts';
import { isForHost, parentGateway, parentSource, type Route } from './routes.ts';
import { serviceMessage } from './service.ts';
import { type EntryEndpoint, entryEndpoints, entryWorkload, type ServiceEntry } from './service-entry.ts';
import { TelemetryTranslation } from './telemetry-translation.ts';
import type { VirtualService } from './virtual-service.ts';
import {
  type BindingRequest,
  type BindingWords,
  bindWaypoint,
  type GatewayView,
  publishedWaypoint,
  tellWaypoints,
  type WaypointBinding,
  waypointCondition,
} from './waypoint-binding.ts';
import { outboundTrafficPolicyOf, type Surroundings } from './workload.ts';
import { workloadEntryWorkload } from './workload-entry.ts';

export interface TranslatedWorkloads {
  readonly workloads: Workload[];
  /** Of the binding to a waypoint, for objects that show one. */
  readonly condition: Condition | undefined;
}

const NOTHING: TranslatedWorkloads = { workloads: [], condition: undefined };

export class Translation {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly backends: Backends;
  readonly hosts: HostTranslation;
  readonly telemetry: TelemetryTranslation;

  constructor(config: MeshModelConfig, inputs: Inputs) {
    this.#config = config;
    this.#inputs = inputs;
    this.backends = new Backends(inputs);
    this.hosts = new HostTranslation(inputs, (source) => this.waypointsOf(source));
    this.telemetry = new TelemetryTranslation({
      config,
      inputs,
      waypointsOf: (source) => this.waypointsOf(source),
      targetStatus: (policy, target) => this.targetStatus(policy, target),
    });
  }

  /** @param source `Kind/namespace/name` of a Pod, WorkloadEntry, ServiceEntry or EndpointSlice; gone ones make nothing */
  workloads(source: string): TranslatedWorkloads {
    const used = new Set<string>();
    const made = this.#workloads(source, used);
    this.#inputs.recordGateways('workload', source, used);
    return made;
  }

  /** What the status of a Service or ServiceEntry says. */
  serviceConditions(source: string): Condition[] {
    const found = this.#inputs.services.get(source);
    if (!found) {
      this.#inputs.recordGateways('service', source, new Set());
      return [];
    }
    this.#bindService(source, found);
    return this.sourceConditions(source, found);
  }

  /** The same of an object that need not be stored. @param entry the ServiceEntry that it is; the stored one where it is left out */
  sourceConditions(source: string, found: ServiceSource, entry?: ServiceEntry): Condition[] {
    const binding = bindWaypoint(this.#config, this.#serviceRequest(found), this.#gatewayView(new Set()));
    const conditions = [
      waypointCondition(binding, this.#ingress(found)),
      wildcardCondition(source, found.services, binding),
      this.#claimsCondition(source, entry),
    ];
    return conditions.filter((condition) => condition !== undefined);
  }

  /** What would become of a namespace's services on account of what the namespace says of waypoints. */
  namespaceCondition(namespace: string, words: BindingWords): Condition | undefined {
    const nothing = { labels: {}, annotations: {} };
    const request = {
      traffic: 'service' as const,
      namespace,
      own: nothing,
      inherited: words,
      namespaceLabels: words.labels,
      namespaceOnly: false,
    };
    return waypointCondition(bindWaypoint(this.#config, request, this.#gatewayView(new Set())), undefined);
  }

  /** Of the binding of a workload with these labels. */
  memberCondition(namespace: string, labels: Labels): Condition | undefined {
    const member = { namespace, labels, bindingLabels: labels, services: [], network: '' };
    return waypointCondition(this.#workloadWaypoint(member, new Set()).binding, undefined);
  }

  /** What a ServiceEntry claims that it may not. */
  #claimsCondition(source: string, given: ServiceEntry | undefined): Condition | undefined {
    const key = source.startsWith('ServiceEntry/') ? source.slice('ServiceEntry/'.length) : '';
    const entry = given ?? this.#inputs.serviceEntries.get(key);
    const refused = entry ? [...entry.refused, ...this.#inputs.takenAddresses(source)] : [];
    if (refused.length === 0) return undefined;
    return {
      type: CLAIM_REFUSED,
      status: 'True',
      reason: 'ForeignClaim',
      message: `counts for nothing, as it is not this namespace's to claim: ${refused.slice(0, MOST_NAMED).join(', ')}`,
    };
  }

  /** What the status of a policy with targets says. */
  targetsCondition(policy: TargetedPolicy): Condition {
    return targetsCondition(
      policy,
      (target) => this.targetStatus(policy, target),
      (address) => this.#inputs.keysAt(address),
      this.#unasked(policy),
    );
  }

  #unasked({ http }: TargetedPolicy): string | undefined {
    const found = http?.provider === undefined ? undefined : this.#authorizer(http.provider);
    return typeof found === 'string' ? found : undefined;
  }

  #authorizer(provider: string): Authorizer | string {
    return authorizerOf(provider, {
      provider: (name) => this.#inputs.meshConfig.extensionProviders.get(name),
      service: (of) => this.#inputs.providerService(this.#config, of),
    });
  }

  /** The Gateways that are waypoints of a Service or ServiceEntry, `namespace/name`, whether they are ready or not. */
  waypointsOf(source: string): string[] {
    const found = this.#inputs.services.get(source);
    if (!found) return [];
    const used = new Set<string>();
    const view = this.#gatewayView(used);
    const request = this.#serviceRequest(found);
    const waypoints = tellWaypoints(request, bindWaypoint(this.#config, request, view), view);
    this.#inputs.recordGateways('service', source, used);
    return waypoints;
  }

  /** What of a policy each waypoint enforces. */
  httpAuthorizations(policy: TargetedPolicy): Map<string, HttpAuthorization> {
    const { namespace, name, http } = policy;
    if (!http?.enforced) return new Map();
    const { dryRun, rules, provider } = http;
    const found = provider === undefined ? undefined : this.#authorizer(provider);
    const authorizer = typeof found === 'object' ? found : undefined;
    // Nobody to ask: what would be asked about is refused.
    const action = typeof found === 'string' ? Action.DENY : http.action;
    const made = mapEach(this.#targetsOf(policy), (targets) => ({
      namespace,
      name,
      action,
      dryRun,
      targets,
      rules: [...rules],
      authorizer,
    }));
    const to = authorizer?.to;
    this.#inputs.recordBackends(policy.id, to ? mapEach(made, () => new Set([`${to.namespace}/${to.hostname}`])) : new Map());
    return made;
  }

  /** What of a RequestAuthentication each waypoint is told. */
  jwtAuthentications(policy: TargetedPolicy): Map<string, JwtAuthentication> {
    const { tokens } = policy;
    if (!tokens) return new Map();
    return mapEach(this.#targetsOf(policy), (targets) => tokenResource(policy, tokens, targets, (address) => this.#inputs.keysAt(address)));
  }

  /** What of a RateLimitPolicy each waypoint is told. */
  rateLimits(policy: TargetedPolicy): Map<string, RateLimits> {
    const { namespace, name, limits } = policy;
    if (!limits || limits.limits.length === 0) return new Map();
    return mapEach(this.#targetsOf(policy), (targets) => ({
      namespace,
      name,
      targets,
      limits: [...limits.limits],
      dryRun: limits.dryRun,
    }));
  }

  /** An entry for each target. */
  policyAncestors(policy: TargetedPolicy): PolicyAncestor[] {
    const { tls } = policy;
    this.#inputs.recordCertificates(policy.id, new Set(tls?.roots));
    const found = tls && backendTlsConditions(tls, (source) => this.#inputs.certificatesAt(source));
    return policy.targets.map((target) => {
      const status = this.targetStatus(policy, target);
      const conditions = targetConditions(policy, found?.problem && status.bound ? { ...found.problem, bound: false } : status);
      return ancestor(target.written, policy.generation, found ? [...conditions, found.resolved] : conditions);
    });
  }

  /** Of the policies of its kind for a target, the one that counts, where that is another one. */
  #older(policy: PolicyOfTarget, target: PolicyTarget): string | undefined {
    if (!policy.limits && !policy.tls) return undefined;
    const same = this.#inputs
      .policiesOf(targetSource(target))
      .filter(
        (other) =>
          other.kind === policy.kind &&
          other.namespace === policy.namespace &&
          other.targets.some(({ kind, name, section }) => kind === target.kind && name === target.name && section === target.section),
      );
    const [first] = same.sort((a, b) => (countsBefore(a, b) ? -1 : 1));
    return first === undefined || first.key === policy.key ? undefined : first.key;
  }

  /** Services that a route is attached to, each with the waypoints that read the route. */
  #servicesOfRoute(id: string): { readonly service: MeshService; readonly waypoints: readonly string[] }[] {
    const route = this.#inputs.routes.get(id);
    if (!route) return [];
    return route.parents.flatMap((parent) => {
      const source = parentSource(parent);
      const found = source === undefined ? undefined : this.#inputs.services.get(source);
      if (source === undefined || !found) return [];
      const readers = this.waypointsOf(source).filter(
        (key) => route.namespace === found.namespace || key.startsWith(`${route.namespace}/`),
      );
      return found.services
        .filter((service) => this.#inputs.isPublished(service) && isForHost(route, service))
        .map((service) => ({ service, waypoints: readers }));
    });
  }

  #targetsOf(policy: TargetedPolicy): Map<string, Target[]> {
    const targets = new Map<string, Target[]>();
    const add = (waypoint: string, target: Target) => targets.set(waypoint, [...(targets.get(waypoint) ?? []), target]);
    for (const target of policy.targets) this.#target(policy, target, add);
    return targets;
  }

  #target(policy: TargetedPolicy, target: PolicyTarget, add: (waypoint: string, target: Target) => void): void {
    if (this.#older(policy, target) !== undefined) return;
    const source = targetSource(target);
    const everything: Target = { type: { $case: 'everything', value: {} } };
    switch (targetScope(this.#config, policy, target, (name) => this.#inputs.gatewayClasses.get(name))) {
      case 'none':
        return;
      case 'class':
        for (const { key, className } of this.#inputs.gateways.values()) if (className === target.name) add(key, everything);
        return;
      case 'gateway':
        add(`${target.namespace}/${target.name}`, everything);
        return;
      case 'route': {
        const route = `${target.kind} ${target.namespace}/${target.name}`;
        for (const { service, waypoints } of this.#servicesOfRoute(route)) {
          const value = { service: serviceKeyOf(service), route, section: target.section };
          for (const waypoint of waypoints) add(waypoint, { type: { $case: 'route', value } });
        }
        return;
      }
      case 'service': {
        const services = (this.#inputs.services.get(source)?.services ?? []).filter((service) => this.#inputs.isPublished(service));
        for (const waypoint of this.waypointsOf(source)) {
          for (const service of services) add(waypoint, { type: { $case: 'service', value: serviceKeyOf(service) } });
        }
      }
    }
  }

  /** The routes of a Service or ServiceEntry for each of its waypoints. Only those of its own namespace and of the waypoint's count. */
  serviceRoutes(source: string): Map<string, ServiceRoutes[]> {
    const made = new Map<string, ServiceRoutes[]>();
    const found = this.#inputs.services.get(source);
    const attachments = this.#inputs.routes.attachments(source);
    const isConcerned = found?.services.some(({ hostname }) => this.#inputs.hosts.concerns(hostname)) ?? false;
    if (found && (attachments.length > 0 || isConcerned)) {
      for (const waypoint of this.waypointsOf(source)) {
        const routes = found.services.flatMap((service) => this.#routesAt(service, waypoint, attachments) ?? []);
        if (routes.length > 0) made.set(waypoint, routes);
      }
    }
    this.#inputs.recordBackends(source, mapEach(made, backendsOf));
    this.#inputs.recordInterests(
      `callers of ${source}`,
      mapEach(made, (routes) => this.hosts.callerInterests(routes)),
    );
    return made;
  }

  #routesAt(service: MeshService, waypoint: string, attachments: readonly Attachment[]): ServiceRoutes | undefined {
    if (!this.#inputs.isPublished(service)) return undefined;
    const own = attachments.filter(
      ({ route }) => (route.namespace === service.namespace || waypoint.startsWith(`${route.namespace}/`)) && isForHost(route, service),
    );
    const attached = portRoutes(own, (reference, route) => this.backends.resolve(reference, route).to);
    const ports = [...attached, ...this.hosts.virtualPorts(service, waypoint, attached)];
    return ports.length === 0 ? undefined : { namespace: service.namespace, hostname: service.hostname, ports };
  }

  /** How a service's endpoints are chosen, for each waypoint that serves it or sends to it. @param key `namespace/hostname` */
  serviceTraffic(key: string): Map<string, ServiceTraffic> {
    const slash = key.indexOf('/');
    const [namespace, hostname] = [key.slice(0, slash), key.slice(slash + 1)];
    const made = new Map<string, ServiceTraffic>();
    const interests = new Map<string, LabelInterest[]>();
    const owner = this.#inputs.owners(hostname).byNamespace.get(namespace);
    const policies = owner ? this.#backendPolicies(owner) : [];
    const service = policies.length > 0 || this.#inputs.hosts.concerns(hostname) ? owner : undefined;
    const used = new Set<CertificateSource>(policies.flatMap(({ policy }) => policy.tls?.roots ?? []));
    if (service) {
      for (const waypoint of new Set([...this.waypointsOf(`${service.source}/${service.key}`), ...this.#inputs.usersOf(key)])) {
        const ruled = this.hosts.traffic(service, waypoint, used);
        const traffic = policies.length > 0 ? withBackendTls(service, ruled, this.#wantedTls(policies)) : ruled;
        if (traffic) made.set(waypoint, traffic);
        const wanted = this.hosts.interests(service, waypoint, traffic);
        if (wanted.length > 0) interests.set(waypoint, wanted);
      }
    }
    this.#inputs.recordInterests(`endpoints of ${key}`, interests);
    this.#inputs.recordCertificates(`traffic ${key}`, used);
    return made;
  }

  /** BackendTLSPolicies that count for a service, each with the port that it names. */
  #backendPolicies(service: MeshService): { readonly policy: TargetedPolicy; readonly section: string }[] {
    return this.#inputs
      .policiesOf(`${service.source}/${service.key}`)
      .flatMap((policy) =>
        !policy.tls || policy.namespace !== service.namespace
          ? []
          : policy.targets.flatMap((target) =>
              target.kind === service.source &&
              `${target.namespace}/${target.name}` === service.key &&
              this.#older(policy, target) === undefined
                ? [{ policy, section: target.section }]
                : [],
            ),
      );
  }

  #wantedTls(policies: readonly { readonly policy: TargetedPolicy; readonly section: string }[]): WantedTls[] {
    return policies.flatMap(({ policy: { id, tls }, section }) =>
      tls ? [{ section, origin: id, ...backendTls(tls, (source) => this.#inputs.certificatesAt(source)) }] : [],
    );
  }

  virtualServiceCondition(virtual: VirtualService): Condition {
    return this.hosts.virtualServiceCondition(virtual);
  }

  destinationRuleCondition(rule: DestinationRule): Condition {
    return this.hosts.destinationRuleCondition(rule);
  }

  /** What the status of a route says about each of its parents in the mesh. */
  routeStatus(route: Route): RouteParentStatus[] {
    return routeStatus(route, {
      backends: this.backends,
      parent: (source) => {
        const found = this.#inputs.services.get(source);
        return found && { namespace: found.namespace, waypoints: this.waypointsOf(source) };
      },
    });
  }

  /** Gateways named as parents that are waypoints: routes attach to the services behind them. */
  waypointParents(route: Route): string[] {
    return route.parents.flatMap((parent) => {
      const gateway = this.#inputs.gateways.get(parentGateway(parent) ?? '');
      const controller = gateway && this.#inputs.gatewayClasses.get(gateway.className)?.controller;
      return gateway && controller === names.WAYPOINT_CONTROLLER ? [gateway.key] : [];
    });
  }

  /** undefined for Gateways that this control plane does not look after. */
  gatewayStatus(key: string): WantedStatus | undefined {
    const { gatewayStatuses } = this.#inputs;
    const gateway = this.#inputs.gateways.get(key);
    if (!gateway || !isOurs(this.#config, gateway, this.#inputs.gatewayClasses.get(gateway.className))) return undefined;
    const service = this.#inputs.service(`${gateway.namespace}/${gateway.serviceName}`);
    return gatewayStatus(gateway, { service, ready: gatewayStatuses.hasReadyPod(key), problem: gatewayStatuses.problem(key) });
  }

  targetStatus(policy: PolicyOfTarget, target: PolicyTarget): TargetStatus {
    return targetStatus(this.#config, policy, target, {
      bindingOf: (source) => {
        const found = this.#inputs.services.get(source);
        return found && this.#bindService(source, found);
      },
      isWaypoint: (key) => this.#inputs.gateways.get(key)?.address !== undefined,
      gatewayClass: (name) => this.#inputs.gatewayClasses.get(name),
      route: (id, section) => {
        const route = this.#inputs.routes.get(id);
        return (
          route && {
            hasSection: section === '' || route.rules.some(({ name }) => name === `${id} rule ${section}`),
            waypoints: [...new Set(this.#servicesOfRoute(id).flatMap(({ waypoints }) => waypoints))],
          }
        );
      },
      backend: (source, port) => {
        const services = this.#inputs.services.get(source)?.services;
        const users = (services ?? []).flatMap((service) => [...this.#inputs.usersOf(serviceKeyOf(service))]);
        return (
          services && {
            hasPort: port === '' || services.some(({ ports }) => ports.some(({ name }) => name === port)),
            waypoints: [...new Set([...this.waypointsOf(source), ...users])],
          }
        );
      },
      older: (other, of) => this.#older(other, of),
    });
  }

  /** @param canonical whether the service owns its hostname over all namespaces */
  service(service: MeshService, canonical: boolean): Service | undefined {
    const source = `${service.source}/${service.key}`;
    const found = this.#inputs.services.get(source);
    if (!found) return undefined;
    const binding = this.#bindService(source, found);
    const waypoint = publishedWaypoint(binding);
    const taken = this.#inputs.takenAddresses(source);
    const own =
      taken.length === 0 ? service : { ...service, addresses: service.addresses.filter((one) => !taken.includes(addressText(one))) };
    return serviceMessage(own, {
      distribution: this.#inputs.namespace(service.namespace).annotations[names.TRAFFIC_DISTRIBUTION],
      waypoint,
      weightedWaypoints: binding.at === 'bound' ? binding.weighted : [],
      ingressUseWaypoint: waypoint !== undefined && this.#ingress(found) === 'true',
      canonical,
    });
  }

  #ingress({ words, namespace }: ServiceSource): string | undefined {
    return words.labels[names.INGRESS_USE_WAYPOINT] ?? this.#inputs.namespace(namespace).labels[names.INGRESS_USE_WAYPOINT];
  }

  #bindService(source: string, found: ServiceSource): WaypointBinding {
    const used = new Set<string>();
    const view = this.#gatewayView(used);
    const request = this.#serviceRequest(found);
    const binding = bindWaypoint(this.#config, request, view);
    // The canary is one of its gateways too, even where nothing comes of it yet.
    tellWaypoints(request, binding, view);
    this.#inputs.recordGateways('service', source, used);
    return binding;
  }

  #serviceRequest({ namespace, words, services }: ServiceSource): BindingRequest {
    const inherited = this.#inputs.namespace(namespace);
    return {
      traffic: 'service' as const,
      namespace,
      own: words,
      inherited,
      namespaceLabels: inherited.labels,
      // What only clients of the namespace may see, as the administrator says; a claim that is for them alone may well leave by another one's.
      namespaceOnly:
        services.some((service) => service.source === 'ServiceEntry') &&
        this.#config.serviceEntryVisibility?.(inherited.labels) === 'NAMESPACE',
    };
  }

  /** Notes down every gateway that is asked for, also those that are not there. */
  #gatewayView(used: Set<string>): GatewayView {
    return {
      gateway: (key) => {
        used.add(key);
        return this.#inputs.gateways.get(key);
      },
      gatewayClass: (name) => this.#inputs.gatewayClasses.get(name),
    };
  }

  #workloads(source: string, used: Set<string>): TranslatedWorkloads {
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
    const published = (this.#inputs.services.get(source)?.services ?? []).filter((service) => this.#inputs.isPublished(service));
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
    const peer = this.#inputs.peerAuthentication(namespace, labels);
    const reference = peerAuthenticationReference(this.#config.rootNamespace, this.#inputs.namespaceMode(namespace), peer);
    const policies = this.#inputs.policies(namespace, labels);
    return {
      services: member.services,
      policies: reference === undefined ? policies : [...policies, reference].sort(),
      networkGateway: this.#networkGateway(member.network, used),
      outboundTrafficPolicy: outboundTrafficPolicyOf(this.#inputs.namespace(namespace)) ?? this.#inputs.meshConfig.outboundTrafficPolicy,
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

  #networkGateway(network: string, used: Set<string>): GatewayAddress | undefined {
    if (network === '' || network === this.#config.network) return undefined;
    const gateway = this.#inputs.networkGateway(network);
    if (gateway) used.add(gateway.key);
    return gateway && networkGateway(gateway)?.address;
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

/** Of a message there is only so much that anybody reads. */
const MOST_NAMED = 20;

/** Services that routes send to, `namespace/hostname`. */
function backendsOf(routes: readonly ServiceRoutes[]): Set<string> {
  const found = new Set<string>();
  const add = (to: BackendRef | undefined): void => {
    if (to) found.add(`${to.namespace}/${to.hostname}`);
  };
  for (const { ports } of routes) {
    for (const { rules, connections } of ports) {
      for (const { backends, mirrors } of rules) for (const { to } of [...backends, ...mirrors]) add(to);
      for (const { backends } of connections) for (const { to } of backends) add(to);
    }
  }
  return found;
}

/** Hosts with a wildcard cannot be resolved, so they mean nothing without a waypoint that reads the requested name. */
function wildcardCondition(source: string, services: readonly MeshService[], binding: WaypointBinding): Condition | undefined {
  if (source.startsWith('Service/') || binding.at === 'bound' || !services.some(({ hostname }) => hostname.startsWith('*')))
    return undefined;
  return {
    type: WAYPOINT_MISSING,
    status: 'True',
    reason: 'NoWaypointForWildcardService',
    message: 'hosts with a wildcard have an effect only once a waypoint serves them',
  };
}
