/** Services and ServiceEntries → the services that proxies are told, and what their statuses say. */
import type { Service } from '../../common/codec/gen/workload.ts';
import type { Bindings } from './bindings.ts';
import { CLAIM_REFUSED, type Condition, WAYPOINT_MISSING } from './conditions.ts';
import { addressText } from './entry-claims.ts';
import type { Inputs, ServiceSource } from './inputs.ts';
import type { MeshService } from './mesh-service.ts';
import * as names from './names.ts';
import { serviceMessage } from './service.ts';
import type { ServiceEntry } from './service-entry.ts';
import { publishedWaypoint, type WaypointBinding, waypointCondition } from './waypoint-binding.ts';

export class ServiceTranslation {
  readonly #inputs: Inputs;
  readonly #bindings: Bindings;

  constructor(inputs: Inputs, bindings: Bindings) {
    this.#inputs = inputs;
    this.#bindings = bindings;
  }

  /** @param canonical whether the service owns its hostname over all namespaces */
  message(service: MeshService, canonical: boolean): Service | undefined {
    const source = `${service.source}/${service.key}`;
    const found = this.#inputs.services.get(source);
    if (!found) return undefined;
    const binding = this.#bindings.ofService(source, found);
    const waypoint = publishedWaypoint(binding);
    const taken = this.#inputs.takenAddresses(source);
    const own =
      taken.length === 0 ? service : { ...service, addresses: service.addresses.filter((one) => !taken.includes(addressText(one))) };
    return serviceMessage(own, {
      distribution: this.#inputs.namespace(service.namespace).annotations[names.TRAFFIC_DISTRIBUTION],
      waypoint,
      weightedWaypoints: binding.at === 'bound' ? binding.weighted : [],
      ingressUseWaypoint: waypoint !== undefined && this.#bindings.ingress(found) === 'true',
      canonical,
    });
  }

  /** What the status of a Service or ServiceEntry says. */
  conditions(source: string): Condition[] {
    const found = this.#inputs.services.get(source);
    if (!found) {
      this.#inputs.recordGateways('service', source, new Set());
      return [];
    }
    this.#bindings.ofService(source, found);
    return this.conditionsOf(source, found);
  }

  /** The same of an object that need not be stored. @param entry the ServiceEntry that it is; the stored one where it is left out */
  conditionsOf(source: string, found: ServiceSource, entry?: ServiceEntry): Condition[] {
    const binding = this.#bindings.ofGiven(found);
    const conditions = [
      waypointCondition(binding, this.#bindings.ingress(found)),
      wildcardCondition(source, found.services, binding),
      this.#claimsCondition(source, entry),
    ];
    return conditions.filter((condition) => condition !== undefined);
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
}

/** Of a message there is only so much that anybody reads. */
const MOST_NAMED = 20;

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
