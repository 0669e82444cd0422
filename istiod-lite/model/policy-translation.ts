/** Policies with targets (AuthorizationPolicy, RequestAuthentication, RateLimitPolicy, BackendTLSPolicy) → what waypoints enforce, and their statuses. */
import {
  Action,
  type Authorizer,
  type HttpAuthorization,
  type JwtAuthentication,
  type RateLimits,
  type Target,
} from '../../common/codec/gen/waypoint.ts';
import { authorizerOf } from './authorizers.ts';
import { backendTlsConditions } from './backend-tls-policy.ts';
import type { Bindings } from './bindings.ts';
import type { Condition } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import { mapEach } from './groups.ts';
import type { Inputs } from './inputs.ts';
import { serviceKeyOf } from './mesh-service.ts';
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
import type { RouteTranslation } from './route-translation.ts';

export class PolicyTranslation {
  readonly #config: MeshModelConfig;
  readonly #inputs: Inputs;
  readonly #bindings: Bindings;
  readonly #routes: RouteTranslation;

  constructor(config: MeshModelConfig, inputs: Inputs, bindings: Bindings, routes: RouteTranslation) {
    this.#config = config;
    this.#inputs = inputs;
    this.#bindings = bindings;
    this.#routes = routes;
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
    return mapEach(this.#targetsOf(policy), (targets) =>
      tokenResource(policy, tokens, targets, (address) => this.#inputs.targeted.keysAt(address)),
    );
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
  ancestors(policy: TargetedPolicy): PolicyAncestor[] {
    const { tls } = policy;
    this.#inputs.certificates.record(policy.id, new Set(tls?.roots));
    const found = tls && backendTlsConditions(tls, (source) => this.#inputs.certificates.at(source));
    return policy.targets.map((target) => {
      const status = this.targetStatus(policy, target);
      const conditions = targetConditions(policy, found?.problem && status.bound ? { ...found.problem, bound: false } : status);
      return ancestor(target.written, policy.generation, found ? [...conditions, found.resolved] : conditions);
    });
  }

  /** What the status of a policy with targets says. */
  condition(policy: TargetedPolicy): Condition {
    return targetsCondition(
      policy,
      (target) => this.targetStatus(policy, target),
      (address) => this.#inputs.targeted.keysAt(address),
      this.#unasked(policy),
    );
  }

  /** Gateways whose waypoints are told of a policy on account of its targets, `namespace/name`. */
  waypointsOf(policy: TargetedPolicy): string[] {
    return [...this.#targetsOf(policy).keys()].sort();
  }

  /** What is said of one target. */
  targetStatus(policy: PolicyOfTarget, target: PolicyTarget): TargetStatus {
    return targetStatus(this.#config, policy, target, {
      bindingOf: (source) => {
        const found = this.#inputs.services.get(source);
        return found && this.#bindings.ofService(source, found);
      },
      isWaypoint: (key) => this.#inputs.gateways.get(key)?.address !== undefined,
      gatewayClass: (name) => this.#inputs.gatewayClasses.get(name),
      route: (id, section) => {
        const route = this.#inputs.routes.get(id);
        return (
          route && {
            hasSection: section === '' || route.rules.some(({ name }) => name === `${id} rule ${section}`),
            waypoints: [...new Set(this.#routes.servicesOf(id).flatMap(({ waypoints }) => waypoints))],
          }
        );
      },
      backend: (source, port) => {
        const services = this.#inputs.services.get(source)?.services;
        const users = (services ?? []).flatMap((service) => [...this.#inputs.usersOf(serviceKeyOf(service))]);
        return (
          services && {
            hasPort: port === '' || services.some(({ ports }) => ports.some(({ name }) => name === port)),
            waypoints: [...new Set([...this.#bindings.waypointsOf(source), ...users])],
          }
        );
      },
      older: (other, of) => this.older(other, of),
    });
  }

  /** Of the policies of its kind for a target, the one that counts, where that is another one. */
  older(policy: PolicyOfTarget, target: PolicyTarget): string | undefined {
    if (!policy.limits && !policy.tls) return undefined;
    const same = this.#inputs.targeted
      .of(targetSource(target))
      .filter(
        (other) =>
          other.kind === policy.kind &&
          other.namespace === policy.namespace &&
          other.targets.some(({ kind, name, section }) => kind === target.kind && name === target.name && section === target.section),
      );
    const [first] = same.sort((a, b) => (countsBefore(a, b) ? -1 : 1));
    return first === undefined || first.key === policy.key ? undefined : first.key;
  }

  #targetsOf(policy: TargetedPolicy): Map<string, Target[]> {
    const targets = new Map<string, Target[]>();
    const add = (waypoint: string, target: Target) => targets.set(waypoint, [...(targets.get(waypoint) ?? []), target]);
    for (const target of policy.targets) this.#target(policy, target, add);
    return targets;
  }

  #target(policy: TargetedPolicy, target: PolicyTarget, add: (waypoint: string, target: Target) => void): void {
    if (this.older(policy, target) !== undefined) return;
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
        for (const { service, waypoints } of this.#routes.servicesOf(route)) {
          const value = { service: serviceKeyOf(service), route, section: target.section };
          for (const waypoint of waypoints) add(waypoint, { type: { $case: 'route', value } });
        }
        return;
      }
      case 'service': {
        const services = (this.#inputs.services.get(source)?.services ?? []).filter((service) => this.#inputs.claims.isPublished(service));
        for (const waypoint of this.#bindings.waypointsOf(source)) {
          for (const service of services) add(waypoint, { type: { $case: 'service', value: serviceKeyOf(service) } });
        }
      }
    }
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
}
