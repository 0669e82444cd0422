/** From Telemetry objects to what each waypoint is told, and to what their status says: who carries them out, and what of them nobody does. */
import type { BackendRef, ServiceTelemetry } from '../../common/codec/gen/waypoint.ts';
import { EVERYTHING_ELSE } from '../../common/decision/telemetry-model.ts';
import { type Condition, WAYPOINT_ACCEPTED } from './conditions.ts';
import type { MeshModelConfig } from './config.ts';
import type { ProviderService } from './extension-providers.ts';
import type { Gateway } from './gateway.ts';
import type { Inputs } from './inputs.ts';
import { serviceKeyOf } from './mesh-service.ts';
import * as names from './names.ts';
import type { PolicyOfTarget, PolicyTarget, TargetStatus } from './policy-targets.ts';
import { targetScope } from './policy-targets.ts';
import type { Telemetry } from './telemetry.ts';
import { defaultProblems, mergeTelemetry, providerProblems, type TelemetryView } from './telemetry-merge.ts';

export interface TelemetryTranslationOptions {
  readonly config: MeshModelConfig;
  readonly inputs: Inputs;
  /** Gateways that are waypoints of a service's source. */
  waypointsOf(source: string): readonly string[];
  targetStatus(policy: PolicyOfTarget, target: PolicyTarget): TargetStatus;
}

export class TelemetryTranslation {
  readonly #options: TelemetryTranslationOptions;

  constructor(options: TelemetryTranslationOptions) {
    this.#options = options;
  }

  /** All that telemetry may be made for. */
  *sources(): Generator<string> {
    const { gateways, services } = this.#options.inputs;
    for (const key of gateways.keys()) yield `Gateway/${key}`;
    yield* services.keys();
  }

  /** @param source a Gateway, or what services come from @returns by waypoint */
  made(source: string): Map<string, ServiceTelemetry[]> {
    const { inputs } = this.#options;
    const made = source.startsWith('Gateway/') ? this.#ofGateway(source.slice('Gateway/'.length)) : this.#ofServices(source);
    inputs.recordBackends(`Telemetry ${source}`, receivers(made));
    return made;
  }

  #ofGateway(key: string): Map<string, ServiceTelemetry[]> {
    const gateway = this.#waypoint(key);
    if (!gateway || !this.#options.inputs.telemetry.says) return new Map();
    const telemetry = mergeTelemetry(EVERYTHING_ELSE, this.#levels(gateway, undefined, []), this.#view);
    return new Map(telemetry ? [[key, [telemetry]]] : []);
  }

  /** Where something is said of these services that is not said of all that the waypoint serves. */
  #ofServices(source: string): Map<string, ServiceTelemetry[]> {
    const { inputs, waypointsOf } = this.#options;
    const found = inputs.services.get(source);
    if (!found || !inputs.telemetry.says) return new Map();
    const targeting = this.#targeting(source);
    const namespaceWide = inputs.telemetry.namespaceWide(found.namespace);
    if (targeting.length === 0 && !namespaceWide) return new Map();
    const made = new Map<string, ServiceTelemetry[]>();
    for (const key of waypointsOf(source)) {
      const gateway = this.#waypoint(key);
      if (!gateway || (targeting.length === 0 && gateway.namespace === found.namespace)) continue;
      const levels = this.#levels(gateway, found.namespace, targeting);
      // Also where the levels come to nothing: what is said of everything else does not hold then.
      const published = found.services.filter((service) => inputs.claims.isPublished(service));
      made.set(
        key,
        published.map((service) => {
          const target = serviceKeyOf(service);
          return mergeTelemetry(target, levels, this.#view) ?? { target, metrics: [], accessLogs: undefined, tracing: undefined };
        }),
      );
    }
    return made;
  }

  /** From the mesh to the service. */
  #levels(gateway: Gateway, serviceNamespace: string | undefined, ofService: readonly Telemetry[]): Telemetry[] {
    const { inputs, config } = this.#options;
    const { telemetry } = inputs;
    const namespaces = new Set([config.rootNamespace, gateway.namespace, serviceNamespace ?? gateway.namespace]);
    const [root, ...others] = [...namespaces].map((namespace) => telemetry.namespaceWide(namespace));
    const levels = [
      root,
      ...this.#targeting(`GatewayClass/${gateway.className}`),
      ...others,
      ...this.#targeting(`Gateway/${gateway.key}`),
      ...ofService,
    ];
    return levels.filter((level) => level !== undefined);
  }

  #targeting(source: string): Telemetry[] {
    const { inputs, config } = this.#options;
    const gatewayClass = (name: string) => inputs.gatewayClasses.get(name);
    return inputs.telemetry
      .targeting(source)
      .filter((object) =>
        object.targets.some((target) => source.endsWith(`/${target.name}`) && targetScope(config, object, target, gatewayClass) !== 'none'),
      );
  }

  #waypoint(key: string): Gateway | undefined {
    const { gateways, gatewayClasses } = this.#options.inputs;
    const gateway = gateways.get(key);
    return gateway && gatewayClasses.get(gateway.className)?.controller === names.WAYPOINT_CONTROLLER ? gateway : undefined;
  }

  condition(object: Telemetry): Condition {
    const { scope, generation } = object;
    const condition = (status: 'True' | 'False', reason: string, message: string): Condition => ({
      type: WAYPOINT_ACCEPTED,
      status,
      reason,
      message: message.length > LONGEST_MESSAGE ? `${message.slice(0, LONGEST_MESSAGE - 3)}...` : message,
      observedGeneration: generation,
    });
    const problems = [...object.problems, ...providerProblems(object, this.#view, () => this.#othersTrace(object))];
    if (scope === 'selector')
      return condition(
        'False',
        'UnsupportedValue',
        'spec.selector selects pods, and no proxy of theirs carries this out: waypoints go by targetRefs',
      );
    const { bound, unbound, reason } = scope === 'targets' ? this.#targetsBound(object) : this.#namespaceBound(object);
    if (bound.length === 0) return condition('False', reason, [...unbound, ...problems].join('; '));
    if (problems.length > 0) return condition('True', 'UnsupportedValue', [...problems, ...unbound].join('; '));
    if (unbound.length > 0) return condition('True', 'PartiallyInvalid', unbound.join('; '));
    return condition('True', 'Accepted', bound.join('; '));
  }

  #othersTrace(object: Telemetry): boolean {
    const { inputs, config } = this.#options;
    for (const other of inputs.telemetry.objects()) {
      const near = other.namespace === config.rootNamespace || other.namespace === object.namespace;
      if (near && other !== object && other.tracing.some(({ providers }) => providers.length > 0)) return true;
    }
    return false;
  }

  #targetsBound(object: Telemetry): Bound {
    const statuses = object.targets.map((target) => this.#options.targetStatus(object, target));
    const failed = statuses.filter(({ bound }) => !bound);
    return {
      bound: statuses.filter(({ bound }) => bound).map(({ message }) => message),
      unbound: failed.map(({ message }) => message),
      reason: failed[0]?.reason ?? 'Invalid',
    };
  }

  #namespaceBound({ namespace, key }: Telemetry): Bound {
    const { inputs } = this.#options;
    const first = inputs.telemetry.namespaceWide(namespace);
    if (first && first.key !== key)
      return { bound: [], unbound: [`${first.key} is older and holds for the namespace; one object alone can`], reason: 'Conflicted' };
    const waypoints = this.#namespaceWaypoints(namespace);
    if (waypoints.size === 0)
      return {
        bound: [],
        unbound: [`no waypoint serves namespace ${namespace}, and ztunnels take nothing from Telemetry`],
        reason: 'AncestorNotBound',
      };
    const named = [...waypoints].sort().slice(0, MOST_NAMED);
    const more = waypoints.size - named.length;
    return { bound: [`bound to ${named.join(', ')}${more > 0 ? ` and ${more} more` : ''}`], unbound: [], reason: 'Accepted' };
  }

  #namespaceWaypoints(namespace: string): Set<string> {
    const { inputs, config, waypointsOf } = this.#options;
    const waypoints = new Set(
      [...inputs.gateways.keys()].filter(
        (gateway) => this.#waypoint(gateway) && (namespace === config.rootNamespace || gateway.startsWith(`${namespace}/`)),
      ),
    );
    for (const source of inputs.sourcesOf(namespace)) for (const waypoint of waypointsOf(source)) waypoints.add(waypoint);
    return waypoints;
  }

  /** Gateways whose waypoints an object is for, `namespace/name`, where something comes of it. */
  waypointsFor(object: Telemetry): string[] {
    const { inputs, waypointsOf, targetStatus } = this.#options;
    if (object.scope === 'namespace') return [...this.#namespaceWaypoints(object.namespace)].sort();
    const found = object.targets.flatMap((target) => {
      const { kind, namespace, name } = target;
      if (!targetStatus(object, target).bound) return [];
      if (kind === 'GatewayClass') return [...inputs.gateways.values()].flatMap((one) => (one.className === name ? one.key : []));
      return kind === 'Gateway' ? `${namespace}/${name}` : waypointsOf(`${kind}/${namespace}/${name}`);
    });
    return [...new Set(found)].sort();
  }

  /** What is wrong with the mesh's own telemetry. */
  meshProblems(): string[] {
    return defaultProblems(this.#view);
  }

  get #view(): TelemetryView {
    const { inputs } = this.#options;
    return { mesh: inputs.meshConfig, backend: (service) => this.#backend(service) };
  }

  #backend({ namespace, host, port }: ProviderService): BackendRef | string {
    const { byNamespace, canonical } = this.#options.inputs.claims.owners(host);
    const place = namespace === '' ? host : `${namespace}/${host}`;
    const service =
      namespace === '' ? (canonical ?? (byNamespace.size === 1 ? [...byNamespace.values()][0] : undefined)) : byNamespace.get(namespace);
    if (!service)
      return byNamespace.size > 1 ? `several services are named ${place}: name its namespace too` : `there is no service ${place}`;
    if (!service.ports.some((each) => each.port === port)) return `service ${place} has no port ${port}`;
    return { namespace: service.namespace, hostname: service.hostname, port, subset: '' };
  }
}

interface Bound {
  readonly bound: readonly string[];
  readonly unbound: readonly string[];
  readonly reason: string;
}

const MOST_NAMED = 20;
const LONGEST_MESSAGE = 2048;

function receivers(made: ReadonlyMap<string, readonly ServiceTelemetry[]>): Map<string, Set<string>> {
  const found = new Map<string, Set<string>>();
  for (const [waypoint, telemetry] of made) {
    const to = telemetry.flatMap(({ tracing }) =>
      tracing?.receiver?.to ? [`${tracing.receiver.to.namespace}/${tracing.receiver.to.hostname}`] : [],
    );
    if (to.length > 0) found.set(waypoint, new Set(to));
  }
  return found;
}
