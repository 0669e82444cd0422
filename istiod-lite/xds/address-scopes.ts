/**
 * The part of the mesh that one waypoint is told: services bound to its Gateway, services that its routes name, its own service, and the
 * workloads behind all of them; workloads that are bound to it themselves. A waypoint runs in a user's namespace, so it learns no more than
 * it serves. (Who calls it says so itself, in the tunnel's headers.) Encoded bytes are shared with the store of everything.
 */
import { ServiceRoutes } from '../../common/codec/gen/waypoint.ts';
import { Address, type GatewayAddress } from '../../common/codec/gen/workload.ts';
import { type ResourceChange, ResourceStore, type StoredResource } from './resource-store.ts';
import { contents } from './response.ts';

/** Which Gateway's: a service or workload is bound to it by the hostname of the service that is made for it. */
export interface GatewayName {
  readonly namespace: string;
  /** First label of that hostname. */
  readonly host: string;
}

interface Facts {
  /** `namespace/host` of the Gateways that it is bound to. */
  readonly gateways: readonly string[];
  /** Of a workload: `namespace/hostname` of its services. Undefined for services. */
  readonly services: readonly string[] | undefined;
}

interface Scope {
  readonly gateway: string;
  readonly store: ResourceStore;
  /** Services that its routes name. */
  named: ReadonlySet<string>;
}

export class AddressScopes {
  readonly #addresses: ResourceStore;
  readonly #scopes = new Map<string, Scope>();
  /** Of everything that is bound to a Gateway or belongs to a service; made when the first waypoint comes. */
  #facts: Map<string, Facts> | undefined;
  readonly #workloads = new Map<string, Set<string>>();

  /** @param addresses everything */
  constructor(addresses: ResourceStore) {
    this.#addresses = addresses;
  }

  /** What this Gateway's waypoints may see; kept up to date from then on. */
  storeOf(gateway: GatewayName, named: ReadonlySet<string>): ResourceStore {
    const key = `${gateway.namespace}/${gateway.host}`;
    const known = this.#scopes.get(key);
    if (known) return known.store;
    const scope: Scope = { gateway: key, store: new ResourceStore(this.#addresses.typeUrl), named };
    this.#scopes.set(key, scope);
    const facts = this.#known();
    this.#update(scope, facts.keys(), 0);
    return scope.store;
  }

  /** @param change of the store of everything, which has it already @returns what it means for each waypoint */
  addressesChanged({ names, since }: ResourceChange): ResourceChange[] {
    if (!this.#facts) return [];
    const touched = new Set<string>();
    for (const name of names) {
      this.#learn(this.#facts, name);
      touched.add(name);
      // Whether a workload is seen hangs on its services.
      for (const workload of this.#workloads.get(name) ?? []) touched.add(workload);
    }
    return this.#changes((scope) => this.#update(scope, touched, since));
  }

  /** The routes of a Gateway's waypoints name other services than before. */
  routesChanged(gateway: GatewayName, named: ReadonlySet<string>, since: number): ResourceChange[] {
    const scope = this.#scopes.get(`${gateway.namespace}/${gateway.host}`);
    if (!scope) return [];
    const touched = new Set<string>();
    for (const service of named.symmetricDifference(scope.named)) {
      touched.add(service);
      for (const workload of this.#workloads.get(service) ?? []) touched.add(workload);
    }
    scope.named = named;
    const change = this.#update(scope, touched, since);
    return change ? [change] : [];
  }

  #changes(update: (scope: Scope) => ResourceChange | undefined): ResourceChange[] {
    return [...this.#scopes.values()].flatMap((scope) => update(scope) ?? []);
  }

  #update(scope: Scope, names: Iterable<string>, since: number): ResourceChange | undefined {
    const seen: StoredResource[] = [];
    const hidden: string[] = [];
    for (const name of names) {
      const resource = this.#addresses.get(name);
      if (resource && this.#sees(scope, name)) seen.push(resource);
      else hidden.push(name);
    }
    return scope.store.share(seen, hidden, since);
  }

  #sees(scope: Scope, name: string): boolean {
    const facts = this.#facts?.get(name);
    if (facts?.gateways.includes(scope.gateway)) return true;
    if (facts?.services) return facts.services.some((service) => this.#seesService(scope, service));
    return this.#seesService(scope, name);
  }

  #seesService(scope: Scope, service: string): boolean {
    if (scope.named.has(service) || service === scope.gateway || service.startsWith(`${scope.gateway}.`)) return true;
    return this.#facts?.get(service)?.gateways.includes(scope.gateway) ?? false;
  }

  #known(): Map<string, Facts> {
    if (this.#facts) return this.#facts;
    const facts = new Map<string, Facts>();
    this.#facts = facts;
    for (const { name } of this.#addresses.values()) this.#learn(facts, name);
    return facts;
  }

  #learn(facts: Map<string, Facts>, name: string): void {
    for (const service of facts.get(name)?.services ?? []) {
      const workloads = this.#workloads.get(service);
      workloads?.delete(name);
      if (workloads?.size === 0) this.#workloads.delete(service);
    }
    const resource = this.#addresses.get(name);
    if (!resource) {
      facts.delete(name);
      return;
    }
    const learnt = factsOf(resource);
    facts.set(name, learnt);
    for (const service of learnt.services ?? []) {
      const workloads = this.#workloads.get(service);
      if (workloads) workloads.add(name);
      else this.#workloads.set(service, new Set([name]));
    }
  }
}

/** Services that the routes of a waypoint name, as `namespace/hostname`. */
export function servicesNamedBy(routes: ResourceStore): ReadonlySet<string> {
  const found = new Set<string>();
  for (const resource of routes.values()) servicesNamedIn(ServiceRoutes.decode(contents(resource)), found);
  return found;
}

/** Every `{namespace, hostname}` in a message: what routes lead to, whatever kinds of route there are. */
function servicesNamedIn(message: unknown, found: Set<string>): Set<string> {
  if (Array.isArray(message)) for (const item of message) servicesNamedIn(item, found);
  else if (typeof message === 'object' && message !== null && !(message instanceof Uint8Array)) {
    const { namespace, hostname } = message as { namespace?: unknown; hostname?: unknown };
    if (typeof namespace === 'string' && typeof hostname === 'string' && hostname !== '') found.add(`${namespace}/${hostname}`);
    for (const value of Object.values(message)) servicesNamedIn(value, found);
  }
  return found;
}

const NONE: readonly string[] = [];

function factsOf(resource: StoredResource): Facts {
  const { type } = Address.decode(contents(resource));
  if (type?.$case === 'workload') return { gateways: gatewaysOf([type.value.waypoint]), services: Object.keys(type.value.services) };
  if (type?.$case !== 'service') return { gateways: NONE, services: undefined };
  const { waypoint, weightedWaypoints } = type.value;
  return { gateways: gatewaysOf([waypoint, ...weightedWaypoints.map(({ destination }) => destination)]), services: undefined };
}

function gatewaysOf(addresses: readonly (GatewayAddress | undefined)[]): readonly string[] {
  const keys = addresses.flatMap((address) => {
    const destination = address?.destination;
    if (destination?.$case !== 'hostname') return [];
    const { namespace, hostname } = destination.value;
    return [`${namespace}/${hostname.split('.')[0]}`];
  });
  return keys.length === 0 ? NONE : keys;
}
